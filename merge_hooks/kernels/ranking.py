"""Which delta has which rank by magnitude: from counts, nothing sorted, and what is counted can be kept for later merges.

A magnitude is the bit pattern of |delta| as float32, which orders like the number. The first look at a source
counts its deltas by their magnitude's upper bits, in buckets. The lower bits of a bfloat16 or a float16 are 0, so
that from then on every rank is looked up. In float32 the bucket of a rank holds one delta in some thousands as a
rule: they are collected, with their places, and sorted out. Where it holds many (a frozen layer, a float32 copy of
a bfloat16 checkpoint: deltas are alike), their lower bits are counted instead, and kept too. Of a small tensor all
deltas are collected.

Deltas of one magnitude are ordered by their place in the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from merge_hooks.kernels.blocks import Workers
from merge_hooks.kernels.constants import NOT_REACHED, PATTERN_BITS

Array = np.ndarray[Any, Any]
# Counts are kept for so many pieces of a tensor, none smaller than this: where tied deltas are cut, one piece is
# searched.
PIECES, SMALLEST_COUNTED = 16, 1 << 17
MOST_COUNTED = 1 << 30  # in one piece: an int32 holds it, should all of them be alike
# A bucket is collected if it holds one delta of so many, or no more than so many; and all of a tensor of so many.
ONE_IN, FEW, SMALL = 64, 1 << 10, 1 << 14
Keep = Callable[[tuple[Hashable, ...], Callable[[], Any]], Any]


@dataclass(frozen=True)
class Tied:
    """All deltas of one magnitude.

    Args:
        value: the magnitude.
        below: how many deltas are smaller.
        equal: how many these are.
        place: gives the index in the tensor of the one after so many others of them.
    """

    value: int
    below: int
    equal: int
    place: Callable[[int], int]


@dataclass(frozen=True)
class Histogram:
    """How many deltas are in which bucket; without empty buckets.

    Args:
        buckets: ascending, int32 [buckets].
        cumulative: how many are in this bucket or one before it, int64 [buckets].
        pieces: how many of each piece of the tensor are in each, int32 [pieces, buckets]; no row where it is not kept.
    """

    buckets: Array
    cumulative: Array
    pieces: Array

    @classmethod
    def of(cls, pieces: Array, keeps_pieces: bool = True) -> Histogram:
        total = pieces.sum(axis=0, dtype=np.int64)
        used = np.flatnonzero(total)
        kept = pieces[:, used] if keeps_pieces else np.empty((0, len(used)), np.int32)
        return cls(used.astype(np.int32), np.cumsum(total[used]), kept)

    def at(self, rank: int) -> tuple[int, int, int]:
        """Of the bucket that holds this rank: its column, how many are below it, how many in it."""
        column = int(np.searchsorted(self.cumulative, rank, side="right"))
        below = int(self.cumulative[column - 1]) if column else 0
        return column, below, int(self.cumulative[column]) - below


class Ranking:
    """The ranks of one source's deltas.

    Args:
        kernels: `cpu_steps.CpuSteps` or `torch_steps.TorchSteps`.
        base, source: flat, of the same length, as the kernels take them.
        keep: gives what is kept under a key from an earlier merge of these two, else makes it.
    """

    def __init__(self, kernels: Any, base: Any, source: Any, workers: Workers, keep: Keep) -> None:
        self.kernels, self.base, self.source, self.workers, self.keep = kernels, base, source, workers, keep
        self.count, self.lower_bits, self.is_exact = len(base), kernels.lower_bits, kernels.is_narrow
        self.block = min(kernels.block_of(self.count, workers.threads), MOST_COUNTED)
        piece = max(kernels.smallest_block, SMALLEST_COUNTED, -(-self.count // PIECES))
        self.piece = min(piece, MOST_COUNTED)

    def at(self, *ranks: int) -> Callable[[], list[Tied]]:
        """Begins to look for the deltas tied at these ranks, one or two, from 0 in ascending order of magnitude.

        Returns:
            What waits for them.
        """
        if self.count <= SMALL:
            everything = self._collect([(0, NOT_REACHED)], self.count)
            return lambda: [_among(*everything(), 0, NOT_REACHED, 0, rank) for rank in ranks]
        counted: Histogram = self.keep(("counts",), self._count_upper)
        found = [counted.at(rank) for rank in ranks]
        if self.is_exact:
            return lambda: [self._tied(counted, *one) for one in found]
        few = {int(counted.buckets[column]): inside for column, _, inside in found
               if inside <= max(FEW, self.count // ONE_IN)}  # fmt: skip
        collected = self._collect([self._range(bucket) for bucket in sorted(few)], sum(few.values())) if few else None

        def tied() -> list[Tied]:
            at_ranks = []
            for rank, (column, below, _) in zip(ranks, found, strict=True):
                bucket = int(counted.buckets[column])
                if bucket in few and collected is not None:
                    at_ranks.append(_among(*collected(), *self._range(bucket), below, rank))
                else:
                    at_ranks.append(self._finer(bucket, below, rank))
            return at_ranks

        return tied

    def _range(self, bucket: int) -> tuple[int, int]:
        """The smallest and the largest magnitude in a bucket."""
        return bucket << self.lower_bits, (bucket + 1 << self.lower_bits) - 1

    def _tied(self, counted: Histogram, column: int, below: int, equal: int, bucket: int = 0, under: int = 0) -> Tied:
        """Where a bucket is one magnitude.

        Args:
            bucket: the upper bits, where those of the histogram are the lower ones.
            under: how many deltas are in buckets before that one.
        """
        row, piece = counted.pieces[:, column], self.piece
        pattern = int(counted.buckets[column])
        value = pattern << self.lower_bits if self.is_exact else bucket << self.lower_bits | pattern

        def place(number: int) -> int:
            starts = np.concatenate([[0], np.cumsum(row)])
            one = int(np.searchsorted(starts, number, side="right")) - 1
            span = slice(one * piece, (one + 1) * piece)
            rank = number - int(starts[one])
            return span.start + int(self.kernels.place_of_equal(self.base[span], self.source[span], value, rank))

        return Tied(value, under + below, equal, place)

    def _finer(self, bucket: int, below: int, rank: int) -> Tied:
        """From counts of the lower bits in one bucket."""
        lower: Histogram = self.keep(("lower", bucket), lambda: self._count_lower(bucket))
        return self._tied(lower, *lower.at(rank - below), bucket, below)

    def _count_upper(self) -> Histogram:
        buckets = 1 << PATTERN_BITS - self.lower_bits
        if self.is_exact:
            return Histogram.of(self._counted(self.kernels.count_upper, buckets, self.piece))
        # As many buckets cost as much as many elements: few pieces, of which only the sum is of use.
        pieces = self._counted(self.kernels.count_upper, buckets, max(self.block, self.piece))
        return Histogram.of(pieces, keeps_pieces=False)

    def _count_lower(self, bucket: int) -> Histogram:
        def count(counts: Array, base: Any, source: Any) -> None:
            self.kernels.count_lower(counts, base, source, bucket << self.lower_bits)

        return Histogram.of(self._counted(count, 1 << self.lower_bits, self.piece))

    def _counted(self, count: Callable[[Array, Any, Any], Any], buckets: int, piece: int) -> Array:
        """The histogram of each piece, which `count` adds to."""

        def histogram(span: slice, _: object) -> Array:
            counts = np.zeros(buckets, np.int32)
            count(counts, self.base[span], self.source[span])
            return counts

        return np.stack(self.workers.map(self.count, histogram, piece))

    def _collect(self, ranges: list[tuple[int, int]], most: int) -> Callable[[], tuple[Array, Array]]:
        """Begins to collect magnitudes and places of the deltas in one range of magnitudes or two, which hold so many.

        Returns:
            What waits for them; in the order of the tensor.
        """

        def collect(span: slice, _: object) -> tuple[Array, Array]:
            given = self.base[span], self.source[span], span.start, *ranges[0], *ranges[-1], most
            found: tuple[Array, Array] = self.kernels.collect(*given)
            return found

        finish = self.workers.start(self.count, collect, self.block)

        def collected() -> tuple[Array, Array]:
            sizes, places = zip(*finish(), strict=True)
            return np.concatenate(sizes), np.concatenate(places)

        return collected


def _among(sizes: Array, places: Array, low: int, high: int, below: int, rank: int) -> Tied:
    """The deltas of this rank among those collected, of which those from `low` to `high` come after `below` others."""
    inside = sizes[(sizes >= low) & (sizes <= high)]
    value = int(np.partition(inside, rank - below)[rank - below])
    tied = places[sizes == value]
    return Tied(value, below + int((inside < value).sum()), len(tied), lambda number: int(tied[number]))
