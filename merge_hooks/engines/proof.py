"""What an engine must compute with, so that it can be asked whether it does: prints of a merge's tensors.

An engine packs, fuses, shards and ties weights, so its memory cannot be compared with the merge. Its layers can be
compared: a layer is a product with its weights, and two products that agree on the right inputs are products with the
same matrix (R. Freivalds, "Probabilistic machines can use less running time", IFIP 1977). Two inputs are used:

- A vector of random signs: every element of the matrix takes part. It is compared within the rounding of the dtype, and
  shows what is missing, in the wrong place, or wrong by more than a rounding.
- A unit vector: it gives one column of the matrix exactly, in every dtype and however the weights are packed. So it
  also shows weights that are stale by the last bit, which would drown in the rounding of the sum over signs.

Prints are taken while the tensors stream into the engine (`Expected.watch`). How an engine is asked is different for
each: see `merge_hooks.engines.vllm_proof` and `merge_hooks.engines.hf_proof`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Columns that can be compared exactly: one of each quarter, so that each of up to four shards of a row has one.
COLUMNS = 4
SEED = 14
# How many elements of a tensor are rounded to the engine's dtype at a time, if it has another one.
PIECE = 1 << 22
# Of float32 sums over thousands of elements, in whatever order an engine adds them.
SUM_ROUNDING = 8e-6
TF32_ROUNDING = 2.0**-10


@dataclass(frozen=True)
class Print:
    """The product of a tensor with the probes.

    Args:
        shape: of the tensor; with more than two axes, it counts as rows of its first.
        signs: its product with the signs, float32, one for each row.
        columns: its probed columns, float32, rows x columns.
        value: instead of both, the tensor itself in its own dtype, if it has at most one axis.
        peaks: of each row the largest magnitude, float32; only for an engine that quantises.
        lengths: of each row the Euclidean norm, float32; only for an engine that quantises.
    """

    shape: tuple[int, ...]
    signs: torch.Tensor | None = None
    columns: torch.Tensor | None = None
    value: torch.Tensor | None = None
    peaks: torch.Tensor | None = None
    lengths: torch.Tensor | None = None

    def __len__(self) -> int:
        """How many rows it has."""
        return 0 if self.signs is None else len(self.signs)

    def at(self, rows: torch.Tensor | slice) -> Print:
        """The print of these rows, in this order."""
        assert self.signs is not None and self.columns is not None
        signs = self.signs[rows]
        peaks, lengths = (None if each is None else each[rows] for each in (self.peaks, self.lengths))
        return Print((len(signs), *self.shape[1:]), signs, self.columns[rows], peaks=peaks, lengths=lengths)

    def with_columns(self, which: Sequence[int]) -> Print:
        """The print with only some of the probed columns, by their numbers."""
        assert self.columns is not None
        return replace(self, columns=self.columns[:, list(which)])

    def find(self, other: Print) -> torch.Tensor | None:
        """For each row of the other print, the row of this one with the same columns; None if one is missing.

        Rows that are alike in all probed columns are taken in order.
        """
        import torch

        assert self.columns is not None and other.columns is not None
        places: dict[bytes, list[int]] = {}
        for row, key in reversed(list(enumerate(self.columns.numpy()))):
            places.setdefault((key + 0.0).tobytes(), []).append(row)
        found = [places.get((key + 0.0).tobytes()) for key in other.columns.numpy()]
        if not all(found):
            return None
        try:
            return torch.tensor([rows.pop() for rows in found if rows is not None])
        except IndexError:  # more of a kind than there are here
            return None


def join(prints: Iterable[Print]) -> Print:
    """The print of tensors stacked below each other, as engines fuse them."""
    import torch

    parts = list(prints)
    if len(parts) == 1:
        return parts[0]

    def stacked(pieces: Iterable[torch.Tensor | None]) -> torch.Tensor | None:
        known = [piece for piece in pieces if piece is not None]
        return torch.cat(known) if known else None

    signs = stacked(part.signs for part in parts)
    assert signs is not None
    return Print(
        (len(signs), *parts[0].shape[1:]), signs, stacked(part.columns for part in parts),
        peaks=stacked(part.peaks for part in parts), lengths=stacked(part.lengths for part in parts),
    )  # fmt: skip


def of_products(products: torch.Tensor) -> Print:
    """The print of a layer from its answers to the probes, one answer in each row."""
    import torch

    answers = products.detach().to("cpu", torch.float32)
    return Print((answers.shape[1],), answers[0], answers[1:].t())


@lru_cache(maxsize=64)
def signs_of(length: int) -> torch.Tensor:
    """A vector of random signs, float32; always the same for one length."""
    import torch

    drawn = torch.randint(0, 2, (length,), generator=torch.Generator().manual_seed(SEED + length))
    return drawn.to(torch.float32).mul_(2).sub_(1)


@lru_cache(maxsize=64)
def columns_of(length: int) -> tuple[int, ...]:
    """The columns that are compared exactly, ascending."""
    import torch

    parts = min(COLUMNS, length)
    generator = torch.Generator().manual_seed(SEED + length)
    edges = [part * length // parts for part in range(parts + 1)]
    return tuple(int(torch.randint(low, high, (), generator=generator)) for low, high in pairwise(edges))


def probes(length: int, which: Sequence[int] = tuple(range(COLUMNS))) -> torch.Tensor:
    """The inputs of a layer, float32, one a row: the signs, then the unit vectors of some of the probed columns."""
    import torch

    inputs = torch.zeros(1 + len(which), length)
    inputs[0] = signs_of(length)
    for row, number in enumerate(which, 1):
        inputs[row, columns_of(length)[number]] = 1
    return inputs


def columns_between(length: int, start: int, stop: int) -> list[int]:
    """The numbers of those probed columns that lie in one part of a matrix of this width."""
    return [number for number, column in enumerate(columns_of(length)) if start <= column < stop]


def take(tensor: torch.Tensor, dtype: torch.dtype | None = None, quantised: bool = False) -> Print:
    """The print of a tensor.

    Args:
        tensor: of any shape and floating dtype.
        dtype: what the engine rounds it to; None: it keeps its own. Products are rounded to it, too; their sums are
            float32.
        quantised: whether the engine quantises it afterwards; then peaks and lengths of its rows are taken too.
    """
    import torch

    tensor = tensor.detach()
    if tensor.ndim < 2:
        return Print(tuple(tensor.shape), value=tensor.to("cpu", copy=True))
    matrix, dtype = tensor.reshape(tensor.shape[0], -1), dtype or tensor.dtype
    width = matrix.shape[1]
    signs = signs_of(width).to(matrix.device, dtype)
    places = torch.tensor(columns_of(width), device=matrix.device)
    columns = matrix.index_select(1, places).to(dtype).to("cpu", torch.float32)
    step = len(matrix) if matrix.dtype == dtype else max(1, PIECE // max(1, width))
    pieces = [torch.mv(piece.to(dtype), signs) for piece in matrix.split(step)] if len(matrix) else [signs[:0]]
    sums = torch.cat(pieces).to("cpu", torch.float32)
    if not quantised or not matrix.numel():
        return Print(tuple(tensor.shape), sums, columns)
    peaks, lengths = [], []
    for piece in matrix.split(max(1, PIECE // width)):
        rounded = piece.to(dtype).float()
        peaks.append(rounded.abs().amax(dim=1).cpu())
        lengths.append(rounded.norm(dim=1).cpu())
    return Print(tuple(tensor.shape), sums, columns, peaks=torch.cat(peaks), lengths=torch.cat(lengths))


class Expected:
    """The prints of all tensors of a merge, by name.

    Args:
        dtype: what the engine rounds the tensors to; None: it keeps their own.
        transposed: the names of matrices that files hold as (in, out); an engine multiplies with (out, in).
        quantised: whether the engine quantises matrices afterwards.
    """

    def __init__(
        self, dtype: torch.dtype | None = None, transposed: Collection[str] = (), quantised: bool = False
    ) -> None:
        self.dtype, self.transposed, self.quantised = dtype, transposed, quantised
        self.prints: dict[str, Print] = {}

    def watch(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The same pairs; a print is taken of each as it passes."""
        for name, tensor in weights:
            self.prints[name] = self.take(name, tensor)
            yield name, tensor

    def take(self, name: str, tensor: torch.Tensor) -> Print:
        """The print of one tensor, which is not noted here."""
        return take(tensor.t() if name in self.transposed else tensor, self.dtype, self.quantised)


def differing_in_float8(found: Print, wanted: Print, dtype: torch.dtype) -> torch.Tensor:
    """Which rows of a matrix that the engine holds in float8 are no rounding of the merge's: a boolean for each row.

    Each element of a row is divided by the row's scale, peak / 448, and rounded to the nearest e4m3 number. Columns must
    be such numbers; between two that are as near either will do. A sum over signs is compared within eight standard
    deviations of the sum of those roundings, so it shows only what is missing or in the wrong place.

    Args:
        found: of what the engine computes with; as many rows as `wanted`.
        wanted: of the merge's tensor, with peaks and lengths. If the engine has one scale for many rows, the largest
            peak of these rows stands at each.
        dtype: of the engine's activations.
    """
    import torch

    assert found.signs is not None and found.columns is not None and wanted.lengths is not None
    assert wanted.signs is not None and wanted.columns is not None and wanted.peaks is not None
    largest = torch.finfo(torch.float8_e4m3fn).max
    scale = (wanted.peaks / largest).clamp_min(1 / (largest * 512))[:, None]

    def nearest(values: torch.Tensor) -> torch.Tensor:
        return (values / scale).clamp(-largest, largest).to(torch.float8_e4m3fn).float() * scale

    best, held = nearest(wanted.columns), nearest(found.columns)
    # A layer's answers are rounded to its dtype.
    eps, smallest = torch.finfo(dtype).eps, torch.finfo(dtype).smallest_normal
    slack = eps * (best.abs() + smallest) + 1e-6 * scale
    is_rounding = (found.columns - held).abs() <= slack
    same = (is_rounding & ((held - wanted.columns).abs() <= (best - wanted.columns).abs() + slack)).all(dim=1)
    deviation = wanted.lengths * torch.finfo(torch.float8_e4m3fn).eps / 12**0.5
    relative = 2 * max(torch.finfo(dtype).eps, SUM_ROUNDING)
    same &= (found.signs - wanted.signs).abs() <= 8 * deviation + relative * (wanted.signs.abs() + wanted.lengths)
    return ~same


def differing(found: Print, wanted: Print, dtype: torch.dtype, exact: bool = True) -> torch.Tensor:
    """Which rows of two matrices differ, by their prints: a boolean for each row.

    Args:
        found: of what the engine computes with; as many rows as `wanted`.
        wanted: of the merge's tensor.
        dtype: what the engine computes in.
        exact: whether the engine multiplies by 1 without rounding; with TF32 it does not.
    """
    import torch

    assert found.signs is not None and found.columns is not None
    assert wanted.signs is not None and wanted.columns is not None
    # NaN is unequal to everything, so it counts as a difference in both comparisons.
    slack = 0.0 if exact else TF32_ROUNDING
    same = ((found.columns - wanted.columns).abs() <= slack * wanted.columns.abs()).all(dim=1)
    relative = 2 * max(torch.finfo(dtype).eps, SUM_ROUNDING)
    scale = wanted.signs.square().mean().sqrt()
    same &= (found.signs - wanted.signs).abs() <= relative * (wanted.signs.abs() + scale)
    return ~same
