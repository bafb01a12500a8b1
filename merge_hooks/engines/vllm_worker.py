"""What runs inside vLLM's workers: a merge is streamed into the model, and the model is proved to compute with it.

vLLM adds `MergingWorker` to the class of its worker (`worker_extension_cls`). The driver calls its methods by name
through `collective_rpc`. They answer with plain data, also where one of our errors was raised, because an exception
that leaves a worker ends it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import WeakKeyDictionary

from merge_hooks.engines.sharing import Ranks, Shared
from merge_hooks.errors import MergeHooksError

if TYPE_CHECKING:
    import torch

    from merge_hooks.engines.proof import Expected, Print

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
        elsewhere: tensors that only other stages of the pipeline took in.
        stamp: of this load; no other has it, in any process.
        is_ours: whether our stream was loaded; else it was the engine's own loader.
    """

    expected: Expected | None = None
    digest: str = ""
    warnings: list[str] = field(default_factory=list)
    orders: dict[str, torch.Tensor] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)
    stamp: str = field(default_factory=lambda: uuid4().hex)
    is_ours: bool = False


@dataclass
class Lease:
    """Whose turn it is to swap, among those who share a server.

    Args:
        owner: any name; "" if nobody.
        until: when it ends (`time.monotonic`).
    """

    owner: str = ""
    until: float = 0.0


# By model of this process: what vLLM's loader notes at the first load, and the worker reads when it is asked.
_LOADED: WeakKeyDictionary[Any, Loaded] = WeakKeyDictionary()
_LEASES: WeakKeyDictionary[Any, Lease] = WeakKeyDictionary()


def shared() -> Shared:
    """One merge for all ranks of this engine (`merge_hooks.engines.sharing`)."""
    from vllm.distributed import get_pp_group, get_tp_group

    return Shared(Ranks.of(get_tp_group()), Ranks.of(get_pp_group()))


def merged_weights(
    model: Any,
    payload: str,
    resident: str | None,
    dtype: torch.dtype,
    proof: bool,
    shared: Shared,
    quantised: bool = False,
    has_bar: bool = False,
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a merge on their way into a model. What goes in is noted.

    Of several ranks each merges a share; a stage of several takes in the tensors of its own layers only.

    Args:
        payload: the resolved recipe (`Resolved.payload`).
        resident: where its sources stay afterwards (`merge_hooks.sources.residents`).
        dtype: what the engine rounds them to.
        proof: whether to take their prints.
        shared: entered by the caller, who loads what this gives.
        quantised: whether the engine quantises them afterwards.
        has_bar: whether the first rank shows how far it is.
    """
    from merge_hooks.engines.bar import with_bar
    from merge_hooks.engines.proof import Expected
    from merge_hooks.engines.weights_digest import Digest, digest_of_described
    from merge_hooks.resolve.resolver import from_payload
    from merge_hooks.sources.residents import residents_for
    from merge_hooks.stream.stream import open_stream

    before = _LOADED.get(model, Loaded())
    stream = open_stream(from_payload(payload))
    transposed = stream.plan.built.transposed if stream.plan.built is not None else ()
    expected = Expected(dtype, transposed, quantised)
    loaded = _LOADED[model] = Loaded(
        expected if proof else None, orders=before.orders, addresses=before.addresses, is_ours=True
    )  # fmt: skip
    names = set(stream.names())
    if shared.stages.size > 1:
        names = {name for name in names if _is_of_stage(model, stream.plan.names_in_files(name))}
    described: dict[str, bytes | None] = {}
    prints: dict[str, Print | None] = {}
    with Digest() as digest:
        merged = shared.tensors(stream, names, residents_for(resident))
        merged = with_bar(merged, len(names), has_bar and shared.ranks.rank == 0)
        weights = shared.watch(merged, digest.describe, described)
        # As files on the Hub have them, which is what vLLM's models load; the digest is that of the merge.
        weights = stream.plan.as_in_files(weights)
        yield from shared.watch(weights, expected.take, prints) if proof else weights
    own, expected.prints = shared.finish(described, prints)
    whole = shared.finish_stages(own)
    loaded.digest = digest_of_described(whole[name] for name in stream.names() if name in whole)
    left = set(stream.names()) - names
    loaded.elsewhere = {file for name in left for file in stream.plan.names_in_files(name)}


def _is_of_stage(model: Any, names: Iterable[str]) -> bool:
    """Whether this stage of a pipeline has one of these layers. Names that it cannot place count as its own."""
    from vllm.model_executor.models.utils import is_pp_missing_parameter

    mapper: Any = getattr(model, "hf_to_vllm_mapper", None)
    mapped = [name if mapper is None else mapper.map_name(name) for name in names]
    return not mapped or any(name is None or not is_pp_missing_parameter(name, model) for name in mapped)


class MergingWorker:
    """Methods that vLLM's worker gets. `self` is that worker."""

    def merge_swap(self, payload: str, resident: str, proof: bool) -> dict[str, Any]:
        """Put a merge into the running model.

        Returns:
            {"error": (class, message)} if the merge itself refuses, else {"digest": of the whole merge}.
        """
        worker: Any = self
        model, config = worker.get_model(), worker.model_runner.model_config
        heard: list[str] = []
        begin = time.monotonic()
        try:
            with shared() as one, _hearing(heard):
                weights = merged_weights(
                    model, payload, resident, config.dtype, proof, one, bool(config.quantization)
                )  # fmt: skip
                worker.reload_weights(weights_iterator=_begun(weights))
        except MergeHooksError as error:
            return {"error": (type(error).__name__, str(error))}
        finally:
            # Meanwhile nobody could renew the turn, and whoever waits for it is heard next.
            _LEASES.setdefault(model, Lease()).until += time.monotonic() - begin
        expected = _follow_tied(model) + _without_weights(model)
        loaded = _LOADED[model]
        loaded.warnings = [line for line in heard if not _is_expected(line, expected)]
        return {"digest": loaded.digest}

    def merge_prove(self, proof: bool) -> dict[str, Any]:
        """Ask the model's layers what they compute with.

        Returns:
            {"digest": ..., "wrong": [...], "unproved": [...], "unused": [tensors of the merge that no layer has]}
        """
        worker: Any = self
        model = worker.get_model()
        loaded = _LOADED.setdefault(model, Loaded())
        answer = {"digest": loaded.digest, "wrong": loaded.warnings, "unproved": [], "unused": []}
        if proof and loaded.expected is not None:
            from merge_hooks.engines.vllm_proof import prove

            found = prove(model, loaded.expected, loaded.orders, worker.model_runner.model_config.dtype)
            given = loaded.expected.prints
            unused = sorted(loaded.elsewhere.union(
                name for name in given.keys() - found.used if not _is_table(name, given[name].shape)))  # fmt: skip
            wrong = [*loaded.warnings, *found.wrong]
            if worker.device.type != "cpu" and not worker.model_runner.model_config.enforce_eager:
                wrong += moved(model, loaded.addresses)
            answer |= {"wrong": wrong, "unproved": found.unproved, "unused": unused}
        elif proof:
            answer["unproved"] = ["all of it, as it was put in without a proof (proof=off)"]
        return answer

    def merge_state(self) -> dict[str, Any]:
        """What lies in the model, for those who share a server.

        Returns:
            {"stamp": changes with every load, before the first weight does, "digest": of the whole merge, or "" (a load
            that is not ours, or one that broke off), "merged": whether the last load was ours, "dtype": ...}
        """
        worker: Any = self
        model = worker.get_model()
        loaded = _LOADED.setdefault(model, Loaded())
        if worker.device.type != "cpu" and not worker.model_runner.model_config.enforce_eager:
            moved(model, loaded.addresses)  # a plain first load: notes where its graphs read, before any swap
        dtype = str(worker.model_runner.model_config.dtype).removeprefix("torch.")
        return {"stamp": loaded.stamp, "digest": loaded.digest, "merged": loaded.is_ours, "dtype": dtype}

    def merge_lease(self, owner: str, seconds: float) -> dict[str, Any]:
        """Ask for the turn to swap, or renew it. It is a promise among those who ask; the stamp is what is checked.

        Args:
            seconds: from now; 0 gives it back.
        Returns:
            {"owner": who has it now, "seconds": for how long yet}
        """
        worker: Any = self
        lease, now = _LEASES.setdefault(worker.get_model(), Lease()), time.monotonic()
        if lease.owner in ("", owner) or lease.until <= now:
            lease.owner, lease.until = (owner, now + seconds) if seconds > 0 else ("", 0.0)
        return {"owner": lease.owner, "seconds": max(0.0, lease.until - now)}

    def merge_prints(self, payload: str) -> dict[str, Any]:
        """The fingerprints of a recipe's sources and Fisher maps, as they lie on this machine.

        Returns:
            {"prints": {path: fingerprint}}, or {"error": (class, message)}.
        """
        from merge_hooks.resolve.resolver import from_payload

        try:
            return {"prints": from_payload(payload).prints}
        except MergeHooksError as error:
            return {"error": (type(error).__name__, str(error))}


def _begun(weights: Iterator[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """The same tensors, of which the first is made now: vLLM takes its layers apart before it asks for one.

    So what cannot be opened leaves the model as it was, and the stamp of another load comes before any change.
    """
    first = list(islice(weights, 1))

    def rest() -> Iterator[tuple[str, torch.Tensor]]:
        while first:
            yield first.pop()  # not held any longer than the others
        yield from weights

    return rest()


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
