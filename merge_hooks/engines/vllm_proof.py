"""What vLLM's layers compute with, compared with the merge, inside a worker (see `merge_hooks.engines.proof`).

A linear layer is asked for products, whatever became of its weights: packed by oneDNN, fused (q, k and v; gate and up),
sharded over ranks. An embedding is asked for rows, and the table that it looks them up in is compared; a head is asked
for logits. Everything else (norms, biases, scalars) is compared by value. All ranks of an engine must prove at the same
time, because row-parallel layers add up their parts.

Checked with vLLM 0.32 (0.33 read): `LinearBase` and its kinds, `VocabParallelEmbedding`, `ParallelLMHead`,
`WeightsMapper.map_name`, `packed_modules_mapping`. A layer of another kind is not proved, and that is said.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from vllm.distributed import get_tensor_model_parallel_rank, tensor_model_parallel_all_reduce
from vllm.model_executor.layers.linear import ColumnParallelLinear, LinearBase, QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)

from merge_hooks.engines.proof import (
    Expected,
    Print,
    columns_between,
    differing,
    differing_in_float8,
    join,
    of_products,
    probes,
    take,
)

# Layers that vLLM fuses in most models.
FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
# vLLM's linear layers in float8 (`quantization=` in `merge_hooks.engines.vllm.QUANTISED`): a scale for each row, or one
# for all rows of a layer.
FLOAT8 = {"Fp8PtpcOnlineLinearMethod": "row", "Fp8PerTensorOnlineLinearMethod": "layer"}
# Rows of an embedding that are looked up as a prompt's tokens are.
LOOKUPS = 64

Parameters = Mapping[str, "torch.nn.Parameter | None"]


@dataclass
class Findings:
    """What a worker found.

    Args:
        wrong: layers that do not compute with the merge's tensors, and how.
        unproved: layers that nothing here can ask.
        used: the merge's tensors that some layer was seen to compute with.
    """

    wrong: list[str] = field(default_factory=list)
    unproved: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)


@torch.inference_mode()
def prove(model: torch.nn.Module, expected: Expected, orders: dict[str, torch.Tensor], dtype: torch.dtype) -> Findings:
    """Ask every layer of a model that holds weights what it computes with.

    Args:
        model: vLLM's, in this worker.
        expected: the prints of the tensors that went in, in the engine's dtype.
        orders: for each layer whose rows vLLM loads in another order than the file's, that order. The first load fills
            it, and later loads must agree with it.
        dtype: what the engine computes in.
    """
    return _Proof(model, expected, orders, dtype).run()


class _Proof:
    def __init__(
        self, model: torch.nn.Module, expected: Expected, orders: dict[str, torch.Tensor], dtype: torch.dtype
    ) -> None:
        self.model, self.prints, self.orders, self.dtype = model, expected.prints, orders, dtype
        self.found = Findings()
        self.packed: dict[str, list[str]] = FUSED | dict(getattr(model, "packed_modules_mapping", None) or {})
        self.sources = _sources(model, self.prints)
        self.has_head = any(isinstance(module, ParallelLMHead) for module in model.modules())

    def run(self) -> Findings:
        for name, module in self.model.named_modules():
            held = {key: value for key, value in module._parameters.items() if value is not None}
            if isinstance(module, (LinearBase, VocabParallelEmbedding)) and not _is_convolution(module):
                for key in ("weight", "weight_scale", "input_scale") if _scales(module) else ("weight",):
                    held.pop(key, None)
                prove_weight = self._linear if isinstance(module, LinearBase) else self._vocabulary
                prove_weight(name, module)
            for key, parameter in held.items():
                self._parameter(f"{name}.{key}" if name else key, module, parameter)
            for key, buffer in module._buffers.items():
                path = f"{name}.{key}" if name else key
                if buffer is not None and path in self.sources:  # others are tables that the engine makes itself
                    self._parameter(path, module, buffer)
        return self.found

    def _says(self, name: str, sources: list[str], words: str) -> None:
        self.found.used.update(sources)
        if words:
            self.found.wrong.append(f"{name} ({', '.join(sources)}): {words}")

    def _compares(self, name: str, sources: list[str], found: Print, whole: Print, rows: torch.Tensor) -> None:
        """Compare a layer's print with rows of the merge's tensors, and say which rows are wrong."""
        self.found.used.update(sources)
        if len(found) != len(rows):
            self._says(name, sources, f"it has {len(found)} rows, the merge {len(rows)}")
            return
        wrong = rows[self._differing(found, whole.at(rows))]
        start = 0
        for source in sources:
            stop = start + len(self.prints[source])
            count, of = (int(((part >= start) & (part < stop)).sum()) for part in (wrong, rows))
            self._says(name, [source], f"{count} of {of} rows differ" if count else "")
            start = stop

    def _is_unproved(self, name: str, module: torch.nn.Module) -> None:
        self.found.unproved.append(f"{name} ({type(module).__name__})")

    def _sources_of(self, parameter: str) -> list[str]:
        """The merge's tensors behind a parameter, in the order in which they are fused."""
        layer, _, key = parameter.rpartition(".")
        path, _, own = layer.rpartition(".")
        order = self.packed.get(own, [])

        def place(source: str) -> int:
            return next((order.index(part) for part in reversed(source.split(".")) if part in order), -1)

        # GLM 4 and others fuse layers while they load, without saying so in their mapping of names.
        apart = [f"{path}.{part}.{key}" for part in order]
        sources = self.sources.get(parameter) or [name for one in apart for name in self.sources.get(one, [])]
        return sorted(sources, key=place)

    def _vector(self, sources: list[str]) -> torch.Tensor | None:
        """Vectors of the merge, end to end; None if they are no vectors."""
        values = [self.prints[source].value for source in sources]
        known = [value for value in values if value is not None]
        return torch.cat([value.reshape(-1) for value in known]) if known and len(known) == len(values) else None

    # Linear layers

    def _linear(self, name: str, module: Any) -> None:
        sources = self._sources_of(f"{name}.weight")
        if not sources or any(self.prints[source].shape[1:] != (module.input_size,) for source in sources):
            self._is_unproved(f"{name}.weight", module)
            return
        whole = self._whole(sources, module)
        found, which = _products(module)
        rows = self.orders[name] if name in self.orders else _rows(module, len(whole))
        if name not in self.orders and not self._is_same(found, whole.with_columns(which), rows):
            # Tensors whose rows vLLM arranges otherwise: q, k and v of each head in Falcon and BLOOM, the halves of each
            # head in Llama 4.
            more, which_more = _products(module, every_column=True)
            order = whole.with_columns(which_more).find(more)
            if (
                order is not None
                and self._stays_apart(sources, rows, order)
                and self._is_same(more, whole.with_columns(which_more), order)
            ):
                self.orders[name] = rows = order
        self._compares(name, sources, found, whole.with_columns(which), rows)

    def _stays_apart(self, sources: list[str], rows: torch.Tensor, order: torch.Tensor) -> bool:
        """Whether another order of rows leaves each row within its own tensor."""
        ends = torch.tensor([len(self.prints[source]) for source in sources]).cumsum(0)
        return len(rows) == len(order) and torch.equal(
            *(torch.bucketize(own, ends, right=True) for own in (rows, order))
        )

    def _whole(self, sources: list[str], module: Any) -> Print:
        """The print of the merge's tensors in a layer; with peaks only if the layer holds them in float8."""
        whole = join(self.prints[source] for source in sources)
        scales = _scales(module)
        if whole.peaks is None or scales == "row":
            return whole
        return replace(whole, peaks=whole.peaks.max().expand(len(whole)) if scales == "layer" else None)

    def _differing(self, found: Print, wanted: Print) -> torch.Tensor:
        if wanted.peaks is not None:
            return differing_in_float8(found, wanted, self.dtype)
        return differing(found, wanted, self.dtype, exact=not torch.backends.cuda.matmul.allow_tf32)

    def _is_same(self, found: Print, whole: Print, rows: torch.Tensor) -> bool:
        return len(found) == len(rows) and not bool(self._differing(found, whole.at(rows)).any())

    # Embeddings and heads

    def _vocabulary(self, name: str, module: Any) -> None:
        sources = self._sources_of(f"{name}.weight") or self._sources_of_tied(module)
        if not sources:
            self._is_unproved(f"{name}.weight", module)
            return
        whole = self._whole(sources, module)
        rows = _rows(module, len(whole))
        if isinstance(module, ParallelLMHead) or not self.has_head:
            found, which = _products(module)
            self._compares(f"{name} as head", sources, found.at(slice(len(rows))), whole.with_columns(which), rows)
        if not isinstance(module, ParallelLMHead):
            self._lookups(name, module, sources, whole, rows)

    def _sources_of_tied(self, head: Any) -> list[str]:
        """The tensors of the embedding that shares its weight with a head."""
        embeddings = [
            name
            for name, module in self.model.named_modules()
            if module is not head and isinstance(module, VocabParallelEmbedding) and module.weight is head.weight
        ]
        return self._sources_of(f"{embeddings[0]}.weight") if embeddings else []

    def _lookups(self, name: str, module: Any, sources: list[str], whole: Print, rows: torch.Tensor) -> None:
        if isinstance(module.quant_method, UnquantizedEmbeddingMethod):
            # It looks rows up in this parameter and in nothing else.
            self._compares(name, sources, take(module.weight[: len(rows)]), whole, rows)
        some = torch.linspace(0, len(whole) - 1, min(LOOKUPS, len(whole))).round().to(torch.int64)
        self._compares(f"{name} as asked", sources, take(module(some.to(module.weight.device))), whole, some)

    # Norms, biases and whatever else is used as it is

    def _parameter(self, path: str, module: torch.nn.Module, parameter: torch.Tensor) -> None:
        sources = self._sources_of(path)
        if path.endswith(".A"):  # Mamba's decay: files hold its logarithm, layers compute with -exp of it
            self._decay(path, sources or self._sources_of(f"{path}_log"), module, parameter)
            return
        vector = self._vector(sources)
        if vector is not None and parameter.ndim < 2:
            rows = self.orders.get(path.rpartition(".")[0])
            wanted = vector[rows] if rows is not None else _share(vector, module, parameter.numel())
            self._says(path, sources, _values_differ(parameter.detach().reshape(-1).cpu(), wanted, self.dtype))
        elif sources and [self.prints[source].shape for source in sources] == [tuple(parameter.shape)]:
            # No packed copy is made of a parameter of this kind: convolutions, tables of positions.
            whole = self._whole(sources, module)
            self._compares(path, sources, take(parameter), whole, torch.arange(len(whole)))
        else:
            self._is_unproved(path, module)

    def _decay(self, path: str, sources: list[str], module: torch.nn.Module, parameter: torch.Tensor) -> None:
        logarithms = self._vector(sources)
        if logarithms is None:
            self._is_unproved(path, module)
            return
        wanted = _share(-torch.exp(logarithms.float()), module, parameter.numel())
        self._says(path, sources, _values_differ(parameter.detach().reshape(-1).cpu(), wanted, self.dtype))


def _scales(module: Any) -> str:
    """Whether a layer has been quantised to float8 with a scale for each "row", one for the "layer", or not at all: ""."""
    return FLOAT8.get(type(getattr(module, "quant_method", None)).__name__, "")


def _is_convolution(module: Any) -> bool:
    """Whether a linear layer only holds the weights of a short convolution, as those of Mamba do; it multiplies nothing."""
    weight = module._parameters.get("weight")
    return weight is not None and weight.ndim == 3


def _sources(model: torch.nn.Module, prints: Mapping[str, Print]) -> dict[str, list[str]]:
    """Parameter of vLLM's -> the merge's tensors that are loaded into it, as the model itself maps names."""
    mapper: Any = getattr(model, "hf_to_vllm_mapper", None)
    found: dict[str, list[str]] = defaultdict(list)
    for name in prints:
        parameter = name if mapper is None else mapper.map_name(name)
        if parameter is not None:
            found[parameter].append(name)
    return dict(found)


def _products(module: Any, every_column: bool = False) -> tuple[Print, list[int]]:
    """A layer's products with the probes, and which of the probed columns those are.

    For a row-parallel layer, which has a part of each row: the sums over all ranks, and columns of its own part.
    """
    width = module.embedding_dim if isinstance(module, VocabParallelEmbedding) else module.input_size
    start, stop, is_part = 0, width, isinstance(module, RowParallelLinear) and module.tp_size > 1
    if is_part:
        size = module.input_size_per_partition
        start, stop = module.tp_rank * size, (module.tp_rank + 1) * size
    which = columns_between(width, start, stop)
    which = which if every_column or _scales(module) else which[:1]
    weight = next(module.parameters(recurse=False))  # empty, where it was packed; its dtype is the layer's all the same
    dtype = module.orig_dtype if _scales(module) else weight.dtype
    inputs = probes(width, which)[:, start:stop].to(weight.device, dtype).contiguous()
    products = module.quant_method.apply(module, inputs)
    if is_part:
        products = torch.cat([tensor_model_parallel_all_reduce(products[:1].contiguous()), products[1:]])
    return of_products(products), which


def _rows(module: Any, total: int) -> torch.Tensor:
    """Which rows of the whole matrix (or elements of the bias) this rank's layer has, in its order."""
    if isinstance(module, VocabParallelEmbedding):
        return torch.arange(module.shard_indices.org_vocab_start_index, module.shard_indices.org_vocab_end_index)
    if not isinstance(module, ColumnParallelLinear) or module.tp_size == 1:
        return torch.arange(total)
    sizes, ranks = list(getattr(module, "output_sizes", [total])), [module.tp_rank] * 3
    counts = [size // module.tp_size for size in sizes]
    if isinstance(module, QKVParallelLinear):
        # Where there are more ranks than heads of k and v, some ranks have the same ones; `output_sizes` counts them
        # as often as they are held.
        heads = module.total_num_kv_heads
        sizes[1:] = [heads * module.head_size, heads * module.v_head_size]
        ranks[1:] = [module.tp_rank // module.num_kv_head_replicas] * 2
    starts = [sum(sizes[:index]) + rank * count for index, (rank, count) in enumerate(zip(ranks, counts, strict=False))]
    return torch.cat([torch.arange(start, start + count) for start, count in zip(starts, counts, strict=True)])


def _share(vector: torch.Tensor, module: Any, size: int) -> torch.Tensor:
    """This rank's part of a vector of the merge."""
    if len(vector) == size:
        return vector
    if isinstance(module, (LinearBase, VocabParallelEmbedding)):
        rows = _rows(module, len(vector))
        return torch.cat([vector[rows], vector.new_zeros(max(0, size - len(rows)))])  # a padded vocabulary
    start = get_tensor_model_parallel_rank() * size
    return vector[start : start + size]


def _values_differ(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> str:
    """How two vectors differ. vLLM may hold one in float32, with or without rounding it to its dtype first."""
    if found.shape != wanted.shape:
        return f"it has {found.numel()} values, the merge {wanted.numel()}"
    same = (found == wanted.to(found.dtype)) | (found == wanted.to(dtype).to(found.dtype))
    count = found.numel() - int(same.sum())
    return f"{count} of {found.numel()} values differ" if count else ""
