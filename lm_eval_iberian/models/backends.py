"""The back ends of the model `merged`: what is known of each before its engine, which is heavy, is imported.

A new back end is a file with a class like those below, and its line in BACKENDS.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from merge_hooks.engines import vllm as vllm_loader
from merge_hooks.errors import EngineError

if TYPE_CHECKING:
    from lm_eval.api.model import LM

# `backend=` -> "module:class" of a Backend.
BACKENDS = {
    "vllm": "lm_eval_iberian.models.backends:OnVLLM",
    "hf": "lm_eval_iberian.models.backends:OnTransformers",
    "server": "lm_eval_iberian.models.backends:OnServer",
}
NO_TRANSFORMERS = "transformers is not installed: `pip install 'lm_eval_iberian[hf]'`."
NO_VLLM = (
    "vLLM is not installed. With a GPU: `pip install 'lm_eval_iberian[vllm]'`; without: "
    "`pip install 'lm_eval_iberian[cpu]' --extra-index-url https://download.pytorch.org/whl/cpu`. "
    "Or run with backend=hf."
)


class Backend(ABC):
    """One back end. Methods import what they need."""

    # Whether the engine runs already, somewhere else: nothing is started for it, and there is one for all.
    is_elsewhere = False
    # Whether one process can hold another kind of engine after this one.
    leaves_nothing = True
    # Whether a swap brings the merge's generation config with its weights.
    swaps_generation = False
    # Whether the engine takes a seed with each request.
    takes_seeds = True
    # `batch_size` in a sweep that names none; None: the engine sees to it. lm_eval's own is 1, and rounding depends on it.
    batch_size: int | None = None

    def why_not(self) -> str:
        """Why it cannot be used here, and how to mend that; "" if it can."""
        return ""

    @abstractmethod
    def engine(self, model_args: Mapping[str, Any]) -> str:
        """The package that runs the model, or an engine with its version, as signatures name it."""

    @abstractmethod
    def holds_model(self, model_args: Mapping[str, Any]) -> bool:
        """Whether the model will lie in this machine's memory, and on no GPU."""

    @abstractmethod
    def make(self, **arguments: Any) -> LM:
        """The model for lm_eval, with `recipe=` or `pretrained=` in it."""


class OnVLLM(Backend):
    """vLLM in this process."""

    leaves_nothing = False

    def why_not(self) -> str:
        return "" if vllm_loader.distribution() else NO_VLLM

    def engine(self, model_args: Mapping[str, Any]) -> str:
        return vllm_loader.distribution() or "vllm"

    def holds_model(self, model_args: Mapping[str, Any]) -> bool:
        return vllm_loader.is_cpu_build()

    def make(self, **arguments: Any) -> LM:
        from lm_eval_iberian.models.vllm import MergedVLLM

        return MergedVLLM(**arguments)


class OnTransformers(Backend):
    """transformers in this process."""

    swaps_generation = True
    takes_seeds = False
    batch_size = 8

    def why_not(self) -> str:
        return "" if find_spec("transformers") else NO_TRANSFORMERS

    def engine(self, model_args: Mapping[str, Any]) -> str:
        return "transformers"

    def holds_model(self, model_args: Mapping[str, Any]) -> bool:
        import torch

        device = str(model_args.get("device") or ("cuda" if torch.accelerator.is_available() else "cpu"))
        return device.startswith("cpu")

    def make(self, **arguments: Any) -> LM:
        from lm_eval_iberian.models.hf import MergedHF

        return MergedHF(**arguments)


class OnServer(Backend):
    """A vLLM server that runs already, at base_url=."""

    is_elsewhere = True

    def why_not(self) -> str:
        return OnTransformers().why_not()  # for its tokenizer

    def engine(self, model_args: Mapping[str, Any]) -> str:
        from lm_eval_iberian.models.served import engine_of

        return engine_of(model_args)

    def holds_model(self, model_args: Mapping[str, Any]) -> bool:
        return False

    def make(self, **arguments: Any) -> LM:
        from lm_eval_iberian.models.server import MergedServer

        return MergedServer(**arguments)


def choose_backend(backend: str) -> str:
    """A name in BACKENDS; for "auto" vLLM if it is installed and its device is there, else transformers.

    Raises:
        EngineError: there is no such back end, or it is not installed; with the `pip install` line.
    """
    if backend not in ("auto", *BACKENDS):
        raise EngineError(
            f"backend={backend}: there is no such back end. Give one of {', '.join(('auto', *BACKENDS))}."
        )
    if backend == "auto":
        return "vllm" if vllm_loader.is_usable() else "hf"
    if why := named(backend).why_not():
        raise EngineError(f"backend={backend}: {why}")
    return backend


def named(backend: str) -> Backend:
    """The back end of a name in BACKENDS."""
    found: Backend = pkgutil.resolve_name(BACKENDS[backend])()
    return found


def backend_of(model_args: Mapping[str, Any]) -> Backend:
    """The back end that these arguments of the model choose. Raises EngineError as `choose_backend` does."""
    return named(choose_backend(str(model_args.get("backend", "auto"))))
