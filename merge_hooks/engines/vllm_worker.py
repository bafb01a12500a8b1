"""What runs inside vLLM's workers: a merge is streamed into the model, and the model is proved to compute with it.

vLLM adds `MergingWorker` to the class of its worker (`worker_extension_cls`). The driver calls its methods by name
through `collective_rpc`. They answer with plain data, also where one of our errors was raised, because an exception
that leaves a worker ends it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from merge_hooks.errors import MergeHooksError

if TYPE_CHECKING:
    import torch

    from merge_hooks.engines.proof import Expected

# Where vLLM 0.32 and 0.33 say that weights were not loaded, as warnings.
LOADERS = ("vllm.model_executor.model_loader.reload.layerwise", "vllm.model_executor.model_loader.reload.inplace")

# Masks and tables in older files. Nothing computes with them: transformers and vLLM make their own.
TABLES = (".masked_bias", ".inv_freq", ".position_ids")


@dataclass
class Loaded:
    """What went into a model last.

    Args:
        expected: the prints of its tensors; None with proof=off.
        digest: of the stream; "" until the stream has ended.
        warnings: what vLLM said of weights that it did not load.
        orders: see `vllm_proof.prove`.
        addresses: where each parameter lay after the first load.
    """

    expected: Expected | None = None
    digest: str = ""
    warnings: list[str] = field(default_factory=list)
    orders: dict[str, torch.Tensor] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)


# By model of this process: what vLLM's loader notes at the first load, and the worker reads when it is asked.
_LOADED: WeakKeyDictionary[Any, Loaded] = WeakKeyDictionary()


def merged_weights(
    model: Any, payload: str, resident: str | None, dtype: torch.dtype, proof: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a merge on their way into a model. What goes in is noted.

    Args:
        payload: the resolved recipe (`Resolved.payload`).
        resident: where its sources stay afterwards (`merge_hooks.sources.residents`).
        dtype: what the engine rounds them to.
        proof: whether to take their prints.
    """
    from merge_hooks.engines.proof import Expected
    from merge_hooks.engines.weights_digest import Digest
    from merge_hooks.resolve.resolver import from_payload
    from merge_hooks.sources.residents import residents_for
    from merge_hooks.stream.stream import open_stream

    before = _LOADED.get(model, Loaded())
    loaded = _LOADED[model] = Loaded(
        Expected(dtype) if proof else None, orders=before.orders, addresses=before.addresses
    )
    weights: Iterator[tuple[str, torch.Tensor]] = iter(
        open_stream(from_payload(payload), residents=residents_for(resident))
    )
    with Digest() as digest:
        weights = digest.watch(weights)
        yield from loaded.expected.watch(weights) if loaded.expected else weights
        loaded.digest = digest.value


class MergingWorker:
    """Methods that vLLM's worker gets. `self` is that worker."""

    def merge_swap(self, payload: str, resident: str, proof: bool) -> dict[str, Any]:
        """Put a merge into the running model.

        Returns:
            {"error": (class, message)} if the merge itself refuses, else {}.
        """
        worker: Any = self
        model, dtype = worker.get_model(), worker.model_runner.model_config.dtype
        heard: list[str] = []
        try:
            with _hearing(heard):
                worker.reload_weights(weights_iterator=merged_weights(model, payload, resident, dtype, proof))
        except MergeHooksError as error:
            return {"error": (type(error).__name__, str(error))}
        expected = _follow_tied(model) + _without_weights(model)
        _LOADED[model].warnings = [line for line in heard if not _is_expected(line, expected)]
        return {}

    def merge_prove(self, proof: bool) -> dict[str, Any]:
        """Ask the model's layers what they compute with.

        Returns:
            {"digest": ..., "wrong": [...], "unproved": [...], "unused": [tensors of the merge that no layer has]}
        """
        from merge_hooks.engines.vllm_proof import prove

        worker: Any = self
        model = worker.get_model()
        loaded = _LOADED[model]
        answer = {"digest": loaded.digest, "wrong": loaded.warnings, "unproved": [], "unused": []}
        if proof and loaded.expected is not None:
            found = prove(model, loaded.expected, loaded.orders, worker.model_runner.model_config.dtype)
            given = loaded.expected.prints
            unused = sorted(name for name in given.keys() - found.used if not _is_table(name, given[name].shape))
            wrong = [*loaded.warnings, *found.wrong]
            if worker.device.type != "cpu" and not worker.model_runner.model_config.enforce_eager:
                wrong += moved(model, loaded.addresses)
            answer |= {"wrong": wrong, "unproved": found.unproved, "unused": unused}
        return answer


def _is_table(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is one of the masks and tables that older files hold among the weights (GPT-NeoX, GPT-2)."""
    return name.endswith(TABLES) or (name.endswith(".bias") and len(shape) == 4)


def moved(model: Any, addresses: dict[str, int]) -> list[str]:
    """The parameters that no longer lie where they lay after the first load. Those addresses are kept here.

    Graphs that a GPU has captured read the old addresses, whatever the layers answer.
    """
    found = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    if not addresses:
        addresses.update(found)
    return [
        f"{name}: it lies elsewhere than captured graphs read it" for name in found if found[name] != addresses[name]
    ]


def _follow_tied(model: Any) -> list[str]:
    """Update layers that share another layer's weights. Returns their classes.

    vLLM loads a shared weight into one layer, and does the work after loading for that layer only. On CPUs this work
    packs the weights of a head into another form, so a tied head would go on computing with the old ones.
    """
    from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase

    seen: dict[int, Any] = {}
    followed = []
    for module in model.modules():
        weights = [parameter for parameter in module._parameters.values() if parameter is not None]
        owners = [seen.setdefault(id(weight), module) for weight in weights]
        method = getattr(module, "quant_method", None)
        if isinstance(method, QuantizeMethodBase) and any(owner is not module for owner in owners):
            method.process_weights_after_loading(module)
            followed.append(type(module).__name__)
    return followed


def _without_weights(model: Any) -> list[str]:
    """The classes of layers with buffers only, such as tables of rotary angles. The merge holds nothing for them."""
    return [
        type(module).__name__ for module in model.modules() if not any(True for _ in module.parameters(recurse=False))
    ]


def _is_expected(warning: str, classes: list[str]) -> bool:
    """Whether a warning is about a layer without weights of its own. Each such layer accounts for one warning."""
    name = warning.partition(": ")[0]
    if name in classes:
        classes.remove(name)
        return True
    return False


@contextmanager
def _hearing(heard: list[str]) -> Iterator[None]:
    """Collect vLLM's warnings about weights, whatever its log level. They are not printed."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                heard.append(record.getMessage())

    ear, before = Ear(), []
    for name in LOADERS:
        logger = logging.getLogger(name)
        before.append((logger, logger.level, logger.propagate))
        logger.setLevel(logging.WARNING)
        logger.propagate = False
        logger.addHandler(ear)
    try:
        yield
    finally:
        for logger, level, propagates in before:
            logger.removeHandler(ear)
            logger.setLevel(level)
            logger.propagate = propagates
