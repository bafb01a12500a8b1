"""How alike are language vectors? Cosines between what fine-tunes add to their base, for each layer and over all.

A vector is B·A of a LoRA adapter, or for full weights fine-tuned minus base ("Improving Training Efficiency and
Reducing Maintenance Costs via Language Specific Model Merging", arXiv 2601.16127, appendix A.2; task vectors: arXiv
2212.04089). All tensors of a vector lie end to end, so its cosines follow from inner products, tensor by tensor:

    <x, y> = sum over tensors of <x_t, y_t>          cos = <x, y> / sqrt(<x, x> <y, y>)

One tensor of each source is read at a time. Blocks of it are widened to float64, in which everything is summed. If all
vectors have factors, products are never formed: <B1 A1, B2 A2> = sum of (B1^T B2) * (A1 A2^T).

Adapters are compared without the rounding that folding them into a half-precision base would add. Tied heads count
once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from merge_hooks.errors import SourceError
from merge_hooks.kernels.blocks import BLOCK, Workers, Workspace
from merge_hooks.sources.checkpoint import Source
from merge_hooks.tools.vectors.fit import comparable
from merge_hooks.tools.vectors.vector import Vector, unreachable

if TYPE_CHECKING:
    import numpy as np
    import torch

# After so many bytes the mapped files are let go, so that what was read does not count as ours.
_MAPPED_BYTES = 64 << 20

Step = Callable[[int, int], None]


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
        """The same for each layer. What lies outside of layers (embedding, head, last norm) is in `kinds`."""
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
        """Vectors of length 0, which have no cosines."""
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
    with Workers() as workers:
        for done, name in enumerate(names, start=1):
            updates = [_update(vector, name) for vector in vectors]
            products[name] = _checked(inner_products(updates, workers), name, vectors)
            read += sum(update.nbytes for update in updates)
            if read > _MAPPED_BYTES or done == len(names):
                for source in _sources(vectors):
                    source.close()
                read = 0
            step(done, len(names))
    return Similarity(tuple(vector.name for vector in vectors), products, tuple(notes))


@dataclass(frozen=True)
class Product:
    """An update as B·A: B of shape (out, r), A of shape (r, in); r may be 0."""

    left: torch.Tensor
    right: torch.Tensor

    @property
    def nbytes(self) -> int:
        return self.left.nbytes + self.right.nbytes

    def write(self, span: slice, to: torch.Tensor, workspace: Workspace) -> None:
        """Write some of the product's elements, in order of its rows, into a float64 buffer of the same length."""
        columns = self.right.shape[1]
        if not self.left.shape[1]:
            to.zero_()
            return
        first = span.start // columns
        rows = self.left[first : -(-span.stop // columns)].double() @ self.right.double()
        to.copy_(rows.flatten()[span.start - first * columns : span.stop - first * columns])


@dataclass(frozen=True)
class Change:
    """An update as two whole tensors of one shape."""

    after: torch.Tensor
    before: torch.Tensor

    @property
    def nbytes(self) -> int:
        return self.after.nbytes + self.before.nbytes

    def write(self, span: slice, to: torch.Tensor, workspace: Workspace) -> None:
        """Write some elements of the difference into a float64 buffer, exactly for sources in half precision.

        The buffers are used again: new tensors for each block cost thirty times as much, in page faults.
        """
        to.copy_(self.after.flatten()[span])
        to.sub_(workspace.cast(self.before.flatten()[span], to.dtype, "before"))


def inner_products(updates: Sequence[Product | Change], workers: Workers | None = None) -> np.ndarray:
    """<x_i, x_j> of updates of one shape, (updates, updates), float64, symmetric.

    Args:
        workers: threads for the blocks of full weights; None: this one alone.
    """
    products = [update for update in updates if isinstance(update, Product)]
    if len(products) == len(updates):
        return _of_products(products).numpy()
    return _of_blocks(updates, workers or Workers(threads=1)).numpy()


def _of_products(products: Sequence[Product]) -> torch.Tensor:
    """Inner products without forming a product: <B_i A_i, B_j A_j> = sum of (B_i^T B_j) * (A_i A_j^T), of the ranks'
    size.
    """
    import torch

    found = torch.zeros(len(products), len(products), dtype=torch.float64)
    held = [(index, one.left.double(), one.right.double()) for index, one in enumerate(products) if one.left.shape[1]]
    for place, (row, left, right) in enumerate(held):
        for column, other_left, other_right in held[place:]:
            found[row, column] = ((left.T @ other_left) * (right @ other_right.T)).sum()
            found[column, row] = found[row, column]
    return found


def _of_blocks(updates: Sequence[Product | Change], workers: Workers) -> torch.Tensor:
    import torch

    count = next(update.after.numel() for update in updates if isinstance(update, Change))

    def block(span: slice, workspace: Workspace) -> torch.Tensor:
        size = span.stop - span.start
        rows = workspace.buffer("updates", torch.float64, len(updates) * BLOCK)[: len(updates) * size]
        rows = rows.view(len(updates), size)
        for update, row in zip(updates, rows, strict=True):
            update.write(span, row, workspace)
        return rows @ rows.T

    found = torch.zeros(len(updates), len(updates), dtype=torch.float64)
    for part in workers.map(count, block):  # in the order of the blocks, whatever the threads
        found += part
    return 0.5 * (found + found.T)


def _update(vector: Vector, tensor: str) -> Product | Change:
    factors = vector.factors(tensor)
    if factors is not None:
        return Product(*factors)
    base = vector.base or unreachable(tensor)
    return Change(vector.source.read(tensor).contiguous(), base.read(tensor).contiguous())


def _checked(product: np.ndarray, tensor: str, vectors: Sequence[Vector]) -> np.ndarray:
    import numpy as np

    for vector, square in zip(vectors, product.diagonal(), strict=True):
        if not np.isfinite(square):
            raise SourceError(
                f"{vector.name}: {tensor} or the base's holds NaN or infinite values, so no cosine of it means anything."
            )
    return product


def _sources(vectors: Sequence[Vector]) -> Iterator[Source]:
    for vector in vectors:
        yield vector.source
        if vector.base is not None:
            yield vector.base
