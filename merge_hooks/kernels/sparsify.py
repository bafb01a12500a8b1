"""Deltas made sparse: by magnitude (TIES), without outliers (breadcrumbs), at random (DARE).

Sources: Yadav et al. 2023 (https://arxiv.org/abs/2306.01708), Davari and Belilovsky 2023
(https://arxiv.org/abs/2312.06795), Yu et al. 2023 (https://arxiv.org/abs/2311.03099). Semantics and roundings
are mergekit 0.1.5's: after dropping at random, `rescale` brings the sum of magnitudes back to what it was.
(Rescaling after pruning by magnitude is left to mergekit: it sums in an order that depends on which of the
tied elements its unstable sort keeps, so that in bfloat16 another choice of ties would change the scale of
the whole tensor.)

A sparse delta needs one look at the whole tensor (a threshold, a sum), so it is made in two passes: `make`
computes the delta and what must be known of it, `Sparse.block` gives its blocks to the merge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from merge_hooks.kernels.blocks import Workers, Workspace, bits
from merge_hooks.kernels.masks import Mask
from merge_hooks.kernels.operands import Operand, Operands
from merge_hooks.kernels.selection import Band, Magnitudes, keep_between, keep_largest, prune

if TYPE_CHECKING:
    import torch

# Below this sum of magnitudes mergekit does not rescale.
SMALLEST_SUM = 1e-7
ROW, LANES = 1 << 14, 64
# The one-pass kernels count magnitudes, of so many bits, in buckets without their lowest ones: a bfloat16 has no others.
PATTERN_BITS, LOWER_BITS = 31, {True: 16, False: 13}
# What the one-pass kernels keep of a delta.
WHOLE, BANDED, DRAWN = 0, 1, 2


@dataclass(frozen=True)
class Sparse:
    """One source's delta: what is left of it, block by block.

    Args:
        delta: flat, in the dtype of the merge.
        is_finite: whether the whole delta, the dropped part included, is free of NaN and infinite values.
        band: what is yet to be dropped of it; None: nothing.
        scale: a scalar to multiply it by, in the dtype of the product; None: 1.
    """

    delta: torch.Tensor
    is_finite: bool
    band: Band | None = None
    scale: torch.Tensor | None = None

    def block(self, span: slice, workspace: Workspace) -> torch.Tensor:
        """The sparse delta's elements in `span`; a scratch buffer, or a view that must not be written to."""
        import torch

        block = self.delta[span]
        if self.band is not None:
            block = prune(block, span.start, self.band, workspace)
        if self.scale is None:
            return block
        wide = workspace.cast(block, self.scale.dtype, "wide delta")
        scaled = torch.mul(wide, self.scale, out=workspace.buffer("scaled", self.scale.dtype, len(block)))
        return workspace.cast(scaled, block.dtype, "scaled and rounded")


def delta_block(
    operand: Operand, operands: Operands, span: slice, workspace: Workspace, out: torch.Tensor
) -> torch.Tensor:
    """Source minus base, both rounded to the merge's dtype, and so the difference. Written to `out`."""
    import torch

    assert operands.base is not None
    source = workspace.cast(operand.flat[span], operands.dtype, "source")
    return torch.sub(source, workspace.cast(operands.base.flat[span], operands.dtype, "base"), out=out)


def by_magnitude(operand: Operand, operands: Operands, workers: Workers, seed: int) -> Sparse:
    """The largest `density` of the elements, at least one."""
    start, stop = ranks_kept(by_magnitude, operand, operands)
    return _banded(operand, operands, workers, lambda magnitudes: keep_largest(magnitudes, stop - start))


def without_outliers(operand: Operand, operands: Operands, workers: Workers, seed: int) -> Sparse:
    """The largest `density` of the elements after the largest `gamma`, or fewer where those run out."""
    start, stop = ranks_kept(without_outliers, operand, operands)
    return _banded(operand, operands, workers, lambda magnitudes: keep_between(magnitudes, start, stop))


def ranks_kept(sparsifier: object, operand: Operand, operands: Operands) -> tuple[int, int]:
    """Which ascending ranks of magnitude `by_magnitude` or `without_outliers` keeps: start..stop, stop excluded."""
    keep = int(operand.parameters["density"] * operands.count)
    if sparsifier is by_magnitude:
        keep = max(1, keep) if operand.parameters["density"] > 0 else 0
        return operands.count - keep, operands.count
    start = max(0, operands.count - keep - int(operand.parameters["gamma"] * operands.count))
    return start, start + keep


def at_random(operand: Operand, operands: Operands, workers: Workers, seed: int) -> Sparse:
    """Each element with probability `density`."""
    import torch

    assert operand.place is not None
    delta = torch.empty(operands.count, dtype=operands.dtype)
    mask = Mask(operand.parameters["density"], seed, operands.name, operand.place)

    def draw(span: slice, workspace: Workspace) -> tuple[float, float]:
        block = delta_block(operand, operands, span, workspace, delta[span])
        before = _sum_of_magnitudes(block, workspace)
        bits(block)[...] &= mask.kept(span.start, len(block))
        return before, _sum_of_magnitudes(block, workspace)

    # Summed in float64 in the order of the blocks, so that no machine and no number of threads rounds
    # otherwise.
    before, after = np.sum(workers.map(operands.count, draw), axis=0)
    scale = scale_of(before, after, operands.dtype)
    return Sparse(delta, bool(np.isfinite(before)), scale=scale if operands.parameters["rescale"] else None)


def _banded(operand: Operand, operands: Operands, workers: Workers, choose: Callable[[Magnitudes], Band]) -> Sparse:
    import torch

    delta = torch.empty(operands.count, dtype=operands.dtype)

    def subtract(span: slice, workspace: Workspace) -> None:
        delta_block(operand, operands, span, workspace, delta[span])

    magnitudes = Magnitudes(delta, workers, fill=subtract)
    return Sparse(delta, magnitudes.is_finite, choose(magnitudes))


def scale_of(before: float, after: float, dtype: torch.dtype) -> torch.Tensor | None:
    """What rescaling multiplies by, for the sums of magnitudes before and after dropping; None: nothing."""
    import torch

    work_dtype = torch.float32 if dtype == torch.float16 else dtype
    whole, left = torch.tensor(before, dtype=work_dtype), torch.tensor(after, dtype=work_dtype)
    return None if whole < SMALLEST_SUM or left < SMALLEST_SUM else whole / left


def _sum_of_magnitudes(block: torch.Tensor, workspace: Workspace) -> float:
    """In float64."""
    import torch

    return sum_in_rows(workspace.buffer("float64", torch.float64, len(block)).copy_(block).abs_())


def sum_in_rows(wide: torch.Tensor) -> float:
    """The sum of a block of float64, on CPUs in an order that neither the number of threads nor the processor changes.

    Each row in LANES lanes, one element after the other, as a compiled loop does it at once
    (`compiled.sums_of_magnitudes`). On a GPU torch chooses the order in a lane.
    """
    whole = len(wide) // ROW * ROW
    rows, rest = wide[:whole].view(-1, ROW // LANES, LANES), wide[whole:].cpu().numpy()
    # numpy adds along an axis that is not the last in order; torch does not, but reads a GPU's memory where it is.
    lanes = rows.numpy().sum(axis=1) if wide.device.type == "cpu" else rows.sum(dim=1).cpu().numpy()
    return sum_of_lanes(lanes, rest)


def sum_of_lanes(lanes: np.ndarray[Any, Any], rest: np.ndarray[Any, Any]) -> float:
    """Of sums [rows, LANES], and of what is left over after the last whole row."""
    return float(lanes.sum() + rest.sum())
