"""The steps of a merge on a CPU: `cpu.py`'s compiled functions, for flat tensors. `torch_steps.py` has the same methods."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from merge_hooks.kernels import cpu
from merge_hooks.kernels.compiled import call
from merge_hooks.kernels.constants import LANES, LEVELS, NOT_REACHED, ROW
from merge_hooks.kernels.float_bits import BFLOAT16, FLOAT16, FLOAT32

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, Any]
# What a source has where another one is pruned or drawn and this one is not: see `cpu.mix`.
WHOLE_BAND, WHOLE_DRAW = (-1, 0, 0, NOT_REACHED, 0, 0), (0, 0, LEVELS, 0)
# A tensor is cut into so many pieces a thread, none smaller than this, each a multiple of what is drawn at once:
# few calls, between which a thread waits for Python's lock.
PIECES_A_THREAD, SMALLEST_PIECE, ROUNDED = 2, 1 << 17, 1 << 14


class CpuSteps:
    """Steps in one dtype. A part of a tensor that begins at element `start` is drawn and cut as in the whole.

    `linear` and `mix` return a number that is NaN if something was not finite.
    """

    smallest_block = 0

    def __init__(self, dtype: torch.dtype) -> None:
        import torch

        self.like = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}[dtype]
        self.lower_bits, self.is_narrow = lower_bits_of(dtype), dtype.itemsize == 2

    def array(self, flat: torch.Tensor) -> Array:
        """A flat tensor's memory: float32 as it is, bfloat16 and float16 as patterns that numba tells apart."""
        import torch

        patterns = {torch.bfloat16: torch.uint16, torch.float16: torch.int16}
        array: Array = flat.view(patterns.get(flat.dtype, flat.dtype)).numpy()
        return array if array.flags.aligned else array.copy()  # a file may hold tensors at any byte

    def block_of(self, count: int, threads: int) -> int:
        """Elements that one call takes of a tensor of `count`."""
        pieces = max(1, min(PIECES_A_THREAD * threads, count // SMALLEST_PIECE))
        return -(-count // pieces // ROUNDED) * ROUNDED

    def linear(self, out: Array, sources: tuple[Array, ...], weights: Array, divisor: np.float32) -> float:
        return float(call(cpu.linear, out, sources, weights, divisor, self.like))

    def mix(
        self, out: Array, base: Array, sources: tuple[Array, ...], start: int, weights: Array, bands: Array | None,
        draws: Array | None, scales: Array | None, elect: bool, divisor: np.float32 | None, factor: np.float32,
    ) -> float:  # fmt: skip
        more = (2 if len(sources) <= 2 else 4) - len(sources)
        if more:  # sources of weight 0: they add 0, and no sign
            sources, weights = sources + sources[:1] * more, np.append(weights, np.zeros(more, np.float32))
            bands = None if bands is None else np.vstack([bands, [WHOLE_BAND] * more])
            draws = None if draws is None else np.vstack([draws, np.array([WHOLE_DRAW] * more, np.uint64)])
            scales = None if scales is None else np.append(scales, np.ones(more, np.float32))
        options = bands, draws, scales, elect or None, divisor, None if factor == 1 else factor, self.like
        return float(call(cpu.mix, out, base, sources, start, weights, *options))

    def count_upper(self, counts: Array, base: Array, source: Array) -> None:
        call(cpu.count_upper, counts, base, source, self.lower_bits, self.like)

    def count_lower(self, counts: Array, base: Array, source: Array, first: int) -> None:
        call(cpu.count_lower, counts, base, source, first, self.like)

    def collect(
        self, base: Array, source: Array, start: int, low: int, high: int, low_two: int, high_two: int, most: int
    ) -> tuple[Array, Array]:
        found: tuple[Array, Array] = call(
            cpu.collect, base, source, start, low, high, low_two, high_two, most, self.like
        )
        return found

    def place_of_equal(self, base: Array, source: Array, value: int, rank: int) -> int:
        return int(call(cpu.place_of_equal, base, source, value, rank, self.like))

    def sum_of_magnitudes(self, base: Array, source: Array, start: int, draws: Array | None) -> float:
        lanes, rest = np.zeros((len(base) // ROW, LANES)), np.empty(len(base) % ROW)
        call(cpu.sums_of_magnitudes, lanes, rest, base, source, start, draws, self.like)
        return float(lanes.sum() + rest.sum())


def lower_bits_of(dtype: torch.dtype) -> int:
    """How many bits of a magnitude are left out where deltas are counted; in 16-bit floats they are 0."""
    return {"torch.bfloat16": 16, "torch.float16": 13, "torch.float32": 13}[str(dtype)]


@cache
def adds_as_torch() -> bool:
    """Whether torch's addcmul rounds once on this machine, as our compiled code does, or twice."""
    import torch

    values = torch.randn(1027, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([0.7, 1.3], dtype=torch.float32)
    theirs, ours = torch.zeros(1027), torch.empty(1027)
    for weight in weights.split(1):
        theirs.addcmul_(values, weight)
    steps = CpuSteps(torch.float32)
    steps.linear(steps.array(ours), (steps.array(values),) * 2, weights.numpy(), np.float32(1))
    return torch.equal(theirs, ours)
