"""The model `merged`: lm_eval's own back ends, fed with merged weights.

    lm_eval --model merged --model_args recipe=merge.yml,dtype=bfloat16 --tasks iberian_suite

`Merged(...)` picks the back end and returns a `MergedVLLM`, a `MergedHF` or a `MergedServer`. Their classes are heavy,
and are imported only when one is made.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

from lm_eval.api.model import LM

from lm_eval_iberian.noise import quieten, wrap_logs
from merge_hooks.errors import EngineError

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")
BACKENDS = ("auto", "vllm", "hf", "server")


class Merged(LM):
    """What lm_eval knows as `merged`. Making one returns an object of the chosen back end's class.

    Args:
        backend: "vllm", "hf" (transformers), "server" (a vLLM server that runs already, at base_url=), or "auto": vLLM
            if it is installed and its device is there.
        arguments: `recipe=` or `pretrained=`, and every argument of lm_eval's `VLLM` or `HFLM`.
    Raises:
        EngineError: the back end is not installed, or there is no such back end.
    """

    def __new__(cls, backend: str = "auto", **arguments: Any) -> Any:
        quieten()
        wrap_logs()
        chosen = choose_backend(backend)
        LOG.info("merged: backend=%s%s", chosen, " (chosen by backend=auto)" if backend == "auto" else "")
        if chosen == "vllm":
            from lm_eval_iberian.models.vllm import MergedVLLM

            return MergedVLLM(**arguments)
        if chosen == "server":
            from lm_eval_iberian.models.server import MergedServer

            return MergedServer(**arguments)
        from lm_eval_iberian.models.hf import MergedHF

        return MergedHF(**arguments)


def choose_backend(backend: str) -> str:
    """ "vllm", "hf" or "server". Raises EngineError with the `pip install` line where that cannot be."""
    from merge_hooks.engines import vllm as vllm_loader

    if backend not in BACKENDS:
        raise EngineError(f"backend={backend}: there is no such back end. Give one of {', '.join(BACKENDS)}.")
    if backend == "auto":
        return "vllm" if vllm_loader.is_usable() else "hf"
    if backend == "vllm" and vllm_loader.distribution() is None:
        raise EngineError(
            "backend=vllm: vLLM is not installed. With a GPU: `pip install 'lm_eval_iberian[vllm]'`; without: "
            "`pip install 'lm_eval_iberian[cpu]' --extra-index-url https://download.pytorch.org/whl/cpu`. "
            "Or run with backend=hf."
        )
    if backend in ("hf", "server") and find_spec("transformers") is None:
        raise EngineError(f"backend={backend}: transformers is not installed: `pip install 'lm_eval_iberian[hf]'`.")
    return backend
