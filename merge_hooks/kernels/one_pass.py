"""A tensor merged in one pass over its sources, and what stays the same from merge to merge looked up.

Each element of the result is made at once; no delta and no mask is ever held. What must be known of a whole delta
before (a threshold, a sum) is found first, by a look or two at the source. It is small, and a sweep keeps it
(`operands.keep`):

| what | depends on |
|---|---|
| how many deltas have which magnitude (`ranking.py`) | source, base, dtype of the merge |
| thresholds, and where the elements tied at them are cut (`_band`) | that, and density (and gamma) |
| sums of magnitudes before DARE's dropping and after it (`_scale`) | source, base, dtype; density, seed, tensor, place |

And all on whether compiled code or torch's operations looked (`rows`, `gpu`): a sweep may go from five models to four.

Elected signs depend on every weight, and are elected anew.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from merge_hooks.kernels.blocks import BLOCK, Workers
from merge_hooks.kernels.constants import NOT_REACHED
from merge_hooks.kernels.cpu_steps import WHOLE_BAND, WHOLE_DRAW, CpuSteps
from merge_hooks.kernels.masks import mask
from merge_hooks.kernels.operands import Merged, Operands, Pending
from merge_hooks.kernels.ranking import Ranking, Tied
from merge_hooks.kernels.task_arithmetic import FORMS, Sparsifier, ranks_kept, scale_of, sum_of_weights
from merge_hooks.kernels.torch_steps import TorchSteps

# Of merges and their results.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
EVERYWHERE = 1 << 62
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Sparse:
    """What is kept of one source's delta.

    Args:
        band: by magnitude: see `cpu.mix`.
        draws: at random: its `masks.mask`.
        scale: what is left is multiplied by it.
    """

    band: tuple[int, ...] = WHOLE_BAND
    draws: tuple[int, ...] = WHOLE_DRAW
    scale: float = 1.0


def begin(operands: Operands, workers: Workers, seed: int, in_torch: bool, in_rows: bool) -> Pending:
    """Begin to merge a tensor.

    Args:
        operands: of `linear` or one of `task_arithmetic.FORMS`; all on one device, of the dtypes float32, bfloat16 and
            float16, the result's too. Sources may be of any float dtype.
        in_torch: by torch's operations, and not by compiled code.
        in_rows: with all weighted deltas in memory, so that torch sums up the whole tensor at once.
    """
    steps = (TorchSteps if in_torch else CpuSteps)(operands.dtype)
    operands = _alike(operands)
    if operands.method == "linear":
        return _begin_linear(operands, workers, steps)
    merge = _Mix(operands, workers, seed, steps)
    return merge.in_rows() if in_rows else merge.begin()


def _alike(operands: Operands) -> Operands:
    """With all that are summed stored alike, in one of DTYPES: where not, cast to the dtype of the merge.

    A base is not summed, but for `linear`, to which it is a source like the others.
    """
    summed = operands.inputs if operands.method == "linear" else operands.others
    dtypes = {operand.tensor.dtype for operand in summed}
    inputs = [
        operand if operand.tensor.dtype in DTYPES and (len(dtypes) == 1 or all(operand is not one for one in summed))
        else replace(operand, tensor=operand.tensor.to(operands.dtype))
        for operand in operands.inputs
    ]  # fmt: skip
    return replace(operands, inputs=tuple(inputs))


def _begin_linear(operands: Operands, workers: Workers, steps: Any) -> Pending:
    weights = torch.tensor([operand.parameters["weight"] for operand in operands.inputs], dtype=torch.float32)
    total = weights.reshape(1, -1).sum(dim=1) if operands.parameters["normalize"] else torch.ones(1)
    result = operands.new_result()
    out, sources = steps.array(result), [steps.array(operand.flat) for operand in operands.inputs]

    def average(span: slice, _: object) -> Any:
        parts = tuple(source[span] for source in sources)
        return steps.linear(out[span], parts, weights.numpy(), np.float32(total.item()))

    pending = Pending(lambda: _begin_pass(operands, workers, steps, average, result))
    pending.go_on()
    return pending


def _begin_pass(
    operands: Operands, workers: Workers, steps: Any, work: Callable[[slice, object], Any], result: torch.Tensor
) -> Callable[[], Merged]:
    """Begin the one pass that writes the result. Returns what waits for it."""
    finish = workers.start(operands.count, work, steps.block_of(operands.count, workers.threads))
    return lambda: Merged(result.reshape(operands.shape), _all_finite(finish()))


def _all_finite(seen: list[Any]) -> bool:
    """From the steps' answers for each block: a number that is NaN where not, or a tensor's truth value."""
    if isinstance(seen[0], torch.Tensor):
        return bool(torch.stack(seen).all())
    return all(answer >= 0 for answer in seen)


@lru_cache(maxsize=64)
def _weights(given: tuple[float, ...], dtype: torch.dtype) -> tuple[Array, np.float32]:
    """Weights as the merge rounds them, and their sum; most tensors of a merge have the same."""
    weights = [torch.tensor(weight, dtype=dtype) for weight in given]
    rounded = np.array([weight.item() for weight in weights], np.float32)
    return rounded, np.float32(sum_of_weights(weights).item())


class _Mix:
    """One tensor of the task arithmetic family."""

    def __init__(self, operands: Operands, workers: Workers, seed: int, steps: Any) -> None:
        assert operands.base is not None
        self.operands, self.workers, self.seed, self.steps = operands, workers, seed, steps
        self.sparsifier, self.elect = FORMS[operands.method]
        self.base = steps.array(operands.base.flat)
        self.sources = tuple(steps.array(operand.flat) for operand in operands.others)

    def begin(self) -> Pending:
        """Begin to look for thresholds and scales; where all are known, begin the merge."""
        searches = [self._sparse(index) for index in range(len(self.sources))]
        pending = Pending(lambda: self._in_one_pass(_found(searches)))
        if not any(callable(search) for search in searches):
            pending.go_on()
        return pending

    def in_rows(self) -> Pending:
        """Merge by way of a row of weighted deltas for each source."""
        sparse = self._given(_found([self._sparse(index) for index in range(len(self.sources))]))
        rows = torch.empty(len(self.sources), self.operands.count, dtype=self.operands.dtype)
        result, (weights, divisor, factor) = self.operands.new_result(), self._factors()

        def weigh(span: slice, _: object) -> Any:
            sources = [source[span] for source in self.sources]
            return self.steps.weigh(rows[:, span], self.base[span], sources, span.start, weights, *sparse)

        seen = self.workers.map(self.operands.count, weigh)
        seen.append(self.steps.combine(result, self.base, rows, weights, self.elect, divisor, factor))
        merged = Merged(result.reshape(self.operands.shape), _all_finite(seen))
        return Pending(lambda: lambda: merged)

    def _in_one_pass(self, found: list[Sparse]) -> Callable[[], Merged]:
        """Begin the merge. Returns what waits for it."""
        weights, divisor, factor = self._factors()
        sparse, result = self._given(found), self.operands.new_result()
        out = self.steps.array(result)

        def mix(span: slice, _: object) -> Any:
            sources = tuple(source[span] for source in self.sources)
            return self.steps.mix(
                out[span], self.base[span], sources, span.start, weights, *sparse, self.elect, divisor, factor
            )

        return _begin_pass(self.operands, self.workers, self.steps, mix, result)

    def _factors(self) -> tuple[Array, np.float32 | None, np.float32]:
        """Weights; their sum, if the sum of deltas is divided by it; and lambda."""
        weights, divisor = _weights(
            tuple(operand.parameters["weight"] for operand in self.operands.others), self.operands.dtype
        )
        parameters = self.operands.parameters
        return weights, divisor if parameters["normalize"] else None, np.float32(parameters["lambda"])

    def _given(self, found: list[Sparse]) -> tuple[Array | None, Array | None, Array | None]:
        """Bands, draws and scales as `cpu.mix` takes them."""
        if all(one == Sparse() for one in found):
            return None, None, None
        if self.sparsifier is not Sparsifier.AT_RANDOM:
            return np.array([one.band for one in found], np.int64), None, None
        draws = np.array([one.draws for one in found], np.uint64)
        return None, draws, np.array([one.scale for one in found], np.float32)

    def _sparse(self, index: int) -> Sparse | Callable[[], Sparse]:
        """How one source's delta is made sparse, or, where that is looked for now, what waits for it."""
        operand = self.operands.others[index]
        if self.sparsifier is Sparsifier.NONE or operand.parameters["density"] >= 1:
            return Sparse()
        return self._drawn(index) if self.sparsifier is Sparsifier.AT_RANDOM else self._banded(index)

    def _keep(self, index: int, key: tuple[Hashable, ...], make: Callable[[], Any]) -> Any:
        """What `make` gives, from the second time on as it was kept."""
        whole = self._key(index, key)
        return make() if whole is None else self.operands.keep(whole, make)

    def _kept(self, index: int, key: tuple[Hashable, ...]) -> Any:
        whole = self._key(index, key)
        return None if whole is None else self.operands.kept(whole)

    def _key(self, index: int, key: tuple[Hashable, ...]) -> Hashable | None:
        """What is kept of a source and the base stands under this key; None: nothing is to be kept."""
        assert self.operands.base is not None
        origins = (self.operands.others[index].origin, self.operands.base.origin)
        if None in origins:
            return None
        # Compiled code and torch count in pieces of other sizes, and add in another order.
        return (*key, type(self.steps).__name__, str(self.operands.dtype), *origins)

    # Pruning by magnitude.

    def _banded(self, index: int) -> Sparse | Callable[[], Sparse]:
        """What pruning keeps."""
        start, stop = ranks_kept(self.sparsifier, self.operands.others[index], self.operands.count)
        if stop <= start:
            return Sparse((NOT_REACHED, 0, 0, NOT_REACHED, 0, 0))
        is_largest = self.sparsifier is Sparsifier.BY_MAGNITUDE
        key = ("band", "largest" if is_largest else "between", start, stop)
        if (band := self._kept(index, key)) is not None:
            return Sparse(band)
        ranking = Ranking(self.steps, self.base, self.sources[index], self.workers, partial(self._keep, index))
        found = ranking.at(start) if is_largest else ranking.at(start, stop - 1)
        return lambda: Sparse(self._keep(index, key, lambda: _band_of(found(), start, stop, is_largest)))

    # Dropping at random.

    def _drawn(self, index: int) -> Sparse | Callable[[], Sparse]:
        """What DARE keeps, and its scale."""
        operand, operands = self.operands.others[index], self.operands
        assert operand.place is not None
        density = operand.parameters["density"]
        draws = mask(density, self.seed, operands.name, operand.place)
        if not operands.parameters["rescale"]:
            return Sparse(draws=tuple(draws.tolist()))
        key = ("sum", operands.name, operand.place, self.seed, density)
        after = self._kept(index, key)
        summed = (lambda: after) if after is not None else self._sum_of_magnitudes(index, draws)

        def rescaled() -> Sparse:
            left = self._keep(index, key, summed)
            whole = self._keep(index, ("sum",), lambda: self._sum_of_magnitudes(index, None)())
            return Sparse(draws=tuple(draws.tolist()), scale=scale_of(whole, left, operands.dtype))

        return rescaled() if after is not None else rescaled

    def _sum_of_magnitudes(self, index: int, draws: Array | None) -> Callable[[], float]:
        """Begins to sum up what the mask leaves; None: all of it. Returns what waits for the sum."""
        source = self.sources[index]

        def add(span: slice, _: object) -> float:
            return float(self.steps.sum_of_magnitudes(self.base[span], source[span], span.start, draws))

        finish = self.workers.start(self.operands.count, add, max(BLOCK, self.steps.smallest_block))
        return lambda: float(np.cumsum(finish())[-1])  # one after the other, whatever numpy


def _found(searches: list[Sparse | Callable[[], Sparse]]) -> list[Sparse]:
    return [search() if callable(search) else search for search in searches]


def _band_of(tied: list[Tied], start: int, stop: int, is_largest: bool) -> tuple[int, ...]:
    """The band that keeps those of ascending ranks start..stop, stop excluded.

    Args:
        tied: those tied at the first rank, and, unless the largest are kept, those at the last.
    """
    low = tied[0]
    if is_largest:  # of those tied as many as there is room for, beginning with the first in the tensor
        return low.value, *_cut(low, 0, low.below + low.equal - start), NOT_REACHED, 0, 0
    high = tied[1]
    if low.value == high.value:
        return low.value, *_cut(low, start - low.below, stop - low.below), low.value + 1, 0, 0
    lower = _cut(low, start - low.below, low.equal)
    return low.value, *lower, high.value, *_cut(high, 0, stop - high.below)


def _cut(tied: Tied, first: int, last: int) -> tuple[int, int]:
    """Between which indices of the tensor those are kept of which first..last are, last excluded."""
    if last <= first:
        return 0, 0
    if last - first >= tied.equal or tied.value == 0:  # a delta of 0 is the same kept and dropped
        return 0, EVERYWHERE
    return tied.place(first) if first else 0, tied.place(last) if last < tied.equal else EVERYWHERE
