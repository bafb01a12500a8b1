"""Which elements pruning by magnitude keeps: thresholds selected from counts, nothing sorted.

The magnitude of a float orders like its bit pattern without the sign, as an integer. A bfloat16 or float16
magnitude is one of 32768 patterns, so one count of patterns gives the exact value at every rank; for float32
the upper 16 bits are counted first, then the lower 16 of the elements that share the rank's upper half (a
radix select).

Elements tied at a threshold are kept as a stable sort would: mergekit's sort is not stable, so there the
choice is arbitrary, and only there may it differ from ours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from merge_hooks.kernels.blocks import BLOCK, Workers, Workspace, bits

if TYPE_CHECKING:
    import torch

UPPER = 1 << 15


@dataclass(frozen=True)
class Ranked:
    """The element of one rank: its magnitude's bit pattern, how many are below it, how many equal it."""

    value: int
    below: int
    equal: int


@dataclass
class Edge:
    """A threshold: elements of exactly this magnitude are kept if their place among them is in first..last.

    Args:
        value: the bit pattern.
        first, last: the places kept, last excluded.
        starts: for each block, how many tied elements lie before it; empty if all or none are kept.
    """

    value: int
    first: int
    last: int
    starts: list[int] = field(default_factory=list)

    def places(self, block: int) -> tuple[int, int] | bool:
        """Which of a block's tied elements are kept: True: all, False: none, else first..last of them."""
        if self.last <= self.first or not self.starts:
            return self.last > self.first
        before, count = self.starts[block], self.starts[block + 1] - self.starts[block]
        first, last = max(self.first - before, 0), min(self.last - before, count)
        return (first, last) if 0 < last - first < count else last - first == count


@dataclass(frozen=True)
class Band:
    """What is kept: everything strictly between two edges, and what the edges keep of their own.

    Args:
        low: None: nothing is kept at all.
        high: None: nothing is too large.
        only_low: everything kept is of the lower edge's magnitude.
    """

    low: Edge | None
    high: Edge | None = None
    only_low: bool = False


class Magnitudes:
    """The magnitudes of a flat tensor of 16- or 32-bit floats, counted.

    Args:
        tensor: one dimension, contiguous.
        workers: threads to count with.
        fill: writes a block of the tensor before it is counted, while it is in the cache.
    """

    def __init__(
        self, tensor: torch.Tensor, workers: Workers, fill: Callable[[slice, Workspace], object] | None = None
    ) -> None:
        self.tensor, self._workers, self._fill = tensor, workers, fill
        self.counts = np.zeros(UPPER, dtype=np.int64)
        self._lock = threading.Lock()
        workers.map(len(tensor), self._count_upper)
        self._cumulative = np.cumsum(self.counts)

    @property
    def is_finite(self) -> bool:
        """Whether no element is NaN or infinite: those have the largest patterns."""
        import torch

        infinite = torch.tensor(torch.inf, dtype=self.tensor.dtype)
        return not self.counts[self._upper(bits(infinite.reshape(1)))[0] :].any()

    def at(self, rank: int) -> Ranked:
        """The element of this rank, from 0, in ascending order of magnitude."""
        upper = int(np.searchsorted(self._cumulative, rank, side="right"))
        below = int(self._cumulative[upper] - self.counts[upper])
        if self.tensor.dtype.itemsize == 2:
            return Ranked(upper, below, int(self.counts[upper]))
        lower = np.bincount(np.concatenate(self._workers.map(len(self.tensor), self._lower_of(upper))), minlength=1)
        cumulative = np.cumsum(lower)
        place = int(np.searchsorted(cumulative, rank - below, side="right"))
        return Ranked(upper << 16 | place, below + int(cumulative[place] - lower[place]), int(lower[place]))

    def edge(self, ranked: Ranked, first: int, last: int) -> Edge:
        """An edge at that magnitude; counts every block's ties only if some are kept and some are not."""
        edge = Edge(ranked.value, first, last)
        if 0 < last - first < ranked.equal:
            counts = self._workers.map(len(self.tensor), self._tied_with(ranked.value))
            edge.starts = [0, *np.cumsum(counts).tolist()]
        return edge

    def _upper(self, patterns: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        shift = 8 * patterns.itemsize - 16
        return (patterns >> shift if shift else patterns) & (UPPER - 1)

    def _count_upper(self, span: slice, workspace: Workspace) -> None:
        import torch

        if self._fill is not None:
            self._fill(span, workspace)
        patterns = magnitude_bits(self.tensor[span], workspace)
        upper = patterns if patterns.itemsize == 2 else (patterns >> 16).astype(np.int16)
        # torch counts 16-bit integers as they are; numpy's bincount would widen them first.
        counts = torch.bincount(torch.from_numpy(upper), minlength=UPPER).numpy()
        with self._lock:
            self.counts += counts

    def _lower_of(self, upper: int) -> Any:
        def collect(span: slice, workspace: Workspace) -> np.ndarray[Any, Any]:
            patterns = bits(self.tensor[span])
            return patterns[self._upper(patterns) == upper] & 0xFFFF

        return collect

    def _tied_with(self, value: int) -> Any:
        def count(span: slice, workspace: Workspace) -> int:
            return int(np.count_nonzero(magnitude_bits(self.tensor[span], workspace) == value))

        return count


def keep_largest(magnitudes: Magnitudes, keep: int) -> Band:
    """The `keep` largest; of tied elements the first ones."""
    count = len(magnitudes.tensor)
    if keep <= 0:
        return Band(None)
    ranked = magnitudes.at(count - keep)
    return Band(magnitudes.edge(ranked, *of_largest(ranked, count - keep)))


def of_largest(ranked: Ranked, start: int) -> tuple[int, int]:
    """Which of the elements tied at rank `start` are kept, where everything larger is: as many as there is room for."""
    return 0, ranked.below + ranked.equal - start


def keep_between(magnitudes: Magnitudes, start: int, stop: int) -> Band:
    """Those of ascending ranks start..stop, stop excluded; tied elements rank by their place."""
    if stop <= start:
        return Band(None)
    low, high = magnitudes.at(start), magnitudes.at(stop - 1)
    first, last = start - low.below, stop - high.below
    if low.value == high.value:
        return Band(magnitudes.edge(low, first, last), only_low=True)
    return Band(magnitudes.edge(low, first, low.equal), magnitudes.edge(high, 0, last))


def magnitude_bits(block: torch.Tensor, workspace: Workspace) -> np.ndarray[Any, Any]:
    """The bit patterns of the absolute values, in a scratch buffer."""
    patterns = bits(block)
    largest = np.iinfo(patterns.dtype).max
    return np.bitwise_and(patterns, largest, out=workspace.integers("magnitude", block.dtype, len(block)))


def prune(block: torch.Tensor, start: int, band: Band, workspace: Workspace) -> torch.Tensor:
    """The block with 0 for everything outside the band, in a scratch buffer.

    Args:
        block: part of the tensor that the band was made for, from element `start` (a multiple of BLOCK).
    """
    pruned = workspace.buffer("pruned", block.dtype, len(block))
    if band.low is None:
        return pruned.zero_()
    patterns, kept = bits(block), workspace.integers("kept", block.dtype, len(block))
    magnitudes = magnitude_bits(block, workspace)
    width = 8 * block.dtype.itemsize - 1
    # Differences of two magnitudes keep their sign in the same width; shifted, it is a mask of all bits or
    # none. Tied elements that a block keeps all of are kept by moving the edge by one.
    ties = band.low.places(start // BLOCK)
    np.right_shift(np.subtract(band.low.value - (ties is True), magnitudes, out=kept), width, out=kept)
    if band.only_low:
        kept &= -(magnitudes == band.low.value).astype(kept.dtype)
    _keep_places(kept, magnitudes, band.low.value, ties)
    if band.high is not None:
        ties = band.high.places(start // BLOCK)
        below = np.subtract(magnitudes, band.high.value, out=workspace.integers("below", block.dtype, len(block)))
        if ties is True:
            below -= 1
        kept &= np.right_shift(below, width, out=below)
        _keep_places(kept, magnitudes, band.high.value, ties)
    np.bitwise_and(patterns, kept, out=bits(pruned))
    return pruned


def _keep_places(
    kept: np.ndarray[Any, Any], magnitudes: np.ndarray[Any, Any], value: int, ties: tuple[int, int] | bool
) -> None:
    if isinstance(ties, tuple):
        kept[np.flatnonzero(magnitudes == value)[slice(*ties)]] = -1
