"""How alike are language vectors? Cosines between what fine-tunes add to their base, layer by layer and in all.

A vector is B·A of a LoRA adapter, or for full weights fine-tuned minus base ("Improving Training Efficiency and
Reducing Maintenance Costs via Language Specific Model Merging", arXiv 2601.16127, appendix A.2; task vectors:
arXiv 2212.04089). All tensors of a vector lie end to end, so its cosines follow from inner products, tensor by tensor:

    <x, y> = sum over tensors of <x_t, y_t>          cos = <x, y> / sqrt(<x, x> <y, y>)

One tensor of each source is read at a time, and of that a block of rows is widened to float64, in which everything is
summed. Where all have factors their products are never formed: <B1 A1, B2 A2> = sum of (B1^T B2) * (A1 A2^T).

Adapters count without the rounding that folding them into a half-precision base would add. Tied heads count once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from merge_hooks.errors import SourceError
from merge_hooks.lora import LoraSource
from merge_hooks.sources import Source
from merge_hooks.vector_fit import comparable

if TYPE_CHECKING:
    import numpy as np
    import torch

# Elements of each source that are widened at a time: 8 MB.
_BLOCK = 1 << 20
# After so many bytes the mapped files are let go, so that what was read does not count as ours.
_MAPPED_BYTES = 64 << 20

Step = Callable[[int, int], None]


@dataclass(frozen=True)
class Vector:
    """What a source adds to its base.

    Args:
        name: for tables, unique among the vectors that are compared.
        source: the fine-tune: a checkpoint, an adapter over its base, or a stage of a recipe.
        base: what it is compared to; None for an adapter by itself, whose factors say all.
    """

    name: str
    source: Source
    base: Source | None

    def factors(self, tensor: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(B, A) of this tensor, scaled, of rank 0 where an adapter leaves it alone; None where there is no product."""
        import torch

        source, base = self.source, self.base
        if not isinstance(source, LoraSource) or (base is not None and source.base.key != base.key):
            return None
        if tensor not in source.factors and tensor not in source.replaced:
            return torch.zeros(0, 0), torch.zeros(0, 0)
        if base is not None:
            return source.low_rank_update(tensor, base)
        left, right, scaling = source.delta_factors(tensor) or _unreachable(tensor)
        return (right.T * scaling, left.T) if source.factors[tensor].is_embedding else (left * scaling, right)


def _unreachable(tensor: str) -> NoReturn:
    raise AssertionError(f"{tensor}: comparable() lets no adapter pass that needs its base")


@dataclass(frozen=True)
class Similarity:
    """Inner products of vectors, by tensor.

    Args:
        names: of the vectors.
        products: tensor -> (vectors, vectors), float64.
        notes: what was left out, and what a reader should know.
    """

    names: tuple[str, ...]
    products: dict[str, np.ndarray]
    notes: tuple[str, ...] = field(default=())

    @cached_property
    def whole(self) -> np.ndarray:
        """Inner products over all tensors, (vectors, vectors)."""
        return sum(self.products.values())  # type: ignore[return-value]

    @cached_property
    def layers(self) -> dict[int, np.ndarray]:
        """The same for each layer; what lies outside of layers (embedding, head, last norm) is in `kinds`."""
        found: dict[int, np.ndarray] = {}
        for tensor, product in self.products.items():
            if (layer := layer_of(tensor)) is not None:
                found[layer] = found.get(layer, 0) + product
        return dict(sorted(found.items()))

    @cached_property
    def kinds(self) -> dict[str, np.ndarray]:
        """The same for each kind of module, over all layers: "self_attn.q_proj", "embed_tokens"."""
        found: dict[str, np.ndarray] = {}
        for tensor, product in self.products.items():
            found[kind_of(tensor)] = found.get(kind_of(tensor), 0) + product
        return found

    @property
    def unmoved(self) -> list[str]:
        """Vectors of length 0: their cosines do not exist."""
        return [name for name, square in zip(self.names, self.whole.diagonal(), strict=True) if square == 0]


def cosines(products: np.ndarray) -> np.ndarray:
    """Cosines from inner products, (vectors, vectors); NaN in the rows and columns of vectors of length 0."""
    import numpy as np

    lengths = np.sqrt(products.diagonal())
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (products / np.outer(lengths, lengths)).clip(-1, 1)
    moved = lengths > 0
    found[~(moved[:, None] & moved)] = np.nan
    found[moved, moved] = 1.0
    return found


def layer_of(tensor: str) -> int | None:
    """The number of a tensor's layer."""
    found = re.search(r"\.(\d+)\.", tensor)
    return int(found[1]) if found else None


def kind_of(tensor: str) -> str:
    """The module of a tensor without its layer: "self_attn.q_proj" (biases: "self_attn.q_proj.bias")."""
    inside = re.split(r"\.\d+\.", tensor, maxsplit=1)[-1]
    return inside.removeprefix("model.").removesuffix(".weight")


def compare(vectors: Sequence[Vector], step: Step = lambda done, total: None) -> Similarity:
    """The inner products of vectors.

    Args:
        step: called with (tensors done, all tensors).
    Raises:
        PreflightError: the vectors are not of one architecture and shape.
        SourceError: a source is damaged, or holds NaN or infinite values.
    """
    names, notes = comparable(vectors)
    products: dict[str, np.ndarray] = {}
    read = 0
    for done, name in enumerate(names, start=1):
        updates = [_update(vector, name) for vector in vectors]
        products[name] = _checked(inner_products(updates), name, vectors)
        read += sum(update.nbytes for update in updates)
        if read > _MAPPED_BYTES or done == len(names):
            _let_go(vectors)
            read = 0
        step(done, len(names))
    return Similarity(tuple(vector.name for vector in vectors), products, tuple(notes))


@dataclass(frozen=True)
class Product:
    """An update as B·A: B of shape (out, r), A of shape (r, in)."""

    left: torch.Tensor
    right: torch.Tensor

    @property
    def nbytes(self) -> int:
        return self.left.nbytes + self.right.nbytes

    @property
    def shape(self) -> tuple[int, int]:
        return self.left.shape[0], self.right.shape[1]

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Some rows, float64."""
        return self.left[start:stop].double() @ self.right.double()


@dataclass(frozen=True)
class Change:
    """An update as two whole tensors of one shape, each seen as (rows, columns)."""

    after: torch.Tensor
    before: torch.Tensor

    @property
    def nbytes(self) -> int:
        return self.after.nbytes + self.before.nbytes

    @property
    def shape(self) -> tuple[int, int]:
        return self.after.shape[0], self.after.shape[1]

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Some rows, float64. The difference of two half-precision numbers is exact there."""
        return self.after[start:stop].double() - self.before[start:stop].double()


def inner_products(updates: Sequence[Product | Change]) -> np.ndarray:
    """<x_i, x_j> of updates of one shape, (updates, updates), float64, symmetric. Rank-0 products are zero."""
    products = [update for update in updates if isinstance(update, Product)]
    found = _of_products(products) if len(products) == len(updates) else _of_blocks(updates)
    return (0.5 * (found + found.T)).numpy()


def _of_products(products: Sequence[Product]) -> torch.Tensor:
    """Without forming a product: the traces, as sums over blocks of the ranks' square."""
    import torch

    held = [index for index, product in enumerate(products) if product.left.shape[1]]
    found = torch.zeros(len(products), len(products), dtype=torch.float64)
    if not held:
        return found
    left = torch.cat([products[index].left.double() for index in held], dim=1)
    right = torch.cat([products[index].right.double() for index in held], dim=0)
    ranks = [products[index].left.shape[1] for index in held]
    for row, parts in zip(held, ((left.T @ left) * (right @ right.T)).split(ranks, dim=0), strict=True):
        for column, part in zip(held, parts.split(ranks, dim=1), strict=True):
            found[row, column] = part.sum()
    return found


def _of_blocks(updates: Sequence[Product | Change]) -> torch.Tensor:
    import torch

    rows, columns = next(update.shape for update in updates if isinstance(update, Change))
    found = torch.zeros(len(updates), len(updates), dtype=torch.float64)
    step = max(1, _BLOCK // max(1, columns))
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        block = torch.stack([_flat(update, start, stop, columns) for update in updates])
        found += block @ block.T
    return found


def _flat(update: Product | Change, start: int, stop: int, columns: int) -> torch.Tensor:
    import torch

    if isinstance(update, Product) and not update.left.shape[1]:
        return torch.zeros((stop - start) * columns, dtype=torch.float64)
    return update.rows(start, stop).flatten()


def _update(vector: Vector, tensor: str) -> Product | Change:
    factors = vector.factors(tensor)
    if factors is not None:
        return Product(*factors)
    base = vector.base or _unreachable(tensor)
    after, before = vector.source.read(tensor), base.read(tensor)
    rows = after.shape[0] if after.ndim > 1 else 1
    return Change(after.reshape(rows, -1), before.reshape(rows, -1))


def _checked(product: np.ndarray, tensor: str, vectors: Sequence[Vector]) -> np.ndarray:
    import numpy as np

    for vector, square in zip(vectors, product.diagonal(), strict=True):
        if not np.isfinite(square):
            raise SourceError(
                f"{vector.name}: {tensor} or the base's holds NaN or infinite values, so no cosine of it means anything."
            )
    return product


def _let_go(vectors: Sequence[Vector]) -> None:
    for source in _sources(vectors):
        source.close()


def _sources(vectors: Sequence[Vector]) -> Iterator[Source]:
    for vector in vectors:
        yield vector.source
        if vector.base is not None:
            yield vector.base
