"""Task arithmetic (Ilharco et al. 2022, https://arxiv.org/abs/2212.04089) and what is built on it.

The base plus a weighted sum of deltas: `task_arithmetic`; with sparse deltas `dare_linear` and `breadcrumbs`; with
the election of a sign for each element `ties`, `dare_ties` and `breadcrumbs_ties`. One chain for all of them:

    delta = source - base;  sparsify;  times weight;  sum over sources (of the elected sign);
    over the sum of weights (of the elected ones) if normalising;  times lambda;  plus base.

Every step is rounded to the dtype of the merge, each sum over sources once, as mergekit 0.1.5 rounds. The steps are
written so that no order of blocks or threads can be seen in the bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from merge_hooks.methods.blocks import Workers, Workspace, bits, is_finite
from merge_hooks.methods.operands import Kernel, Merged, Operand, Operands
from merge_hooks.methods.sparsify import Sparse, at_random, by_magnitude, delta_block, without_outliers

if TYPE_CHECKING:
    import torch

Sparsifier = Callable[[Operand, Operands, Workers, int], Sparse]
# torch adds up to four rows one after the other wherever they lie; from five on, the columns at the end of its
# vectors and of each thread's share are added in another order, which only the same call on the same memory repeats.
MOST_SOURCES = 4


@dataclass(frozen=True)
class Part:
    """One source in the sum: its delta (None: made block by block), its weight as a scalar of the merge's dtype."""

    operand: Operand
    sparse: Sparse | None
    weight: torch.Tensor


def generalized(
    operands: Operands, workers: Workers, seed: int, *, sparsifier: Sparsifier | None, elect: bool
) -> Merged | None:
    """The base plus the sum of the other inputs' deltas. None where mergekit shall do it.

    Args:
        operands: with a base; float16, bfloat16 or float32. Each other input with `weight` and, where there is a
            sparsifier, `density` and its own.
        sparsifier: applied where the density is below 1.
        elect: count only the elements whose sign is that of the sum.
    """
    import torch

    if not _is_ours(operands, sparsifier):
        return None
    parts = [_part(operand, operands, workers, seed, sparsifier) for operand in operands.others]
    result = torch.empty(operands.count, dtype=operands.out_dtype)

    def merge(span: slice, workspace: Workspace) -> bool:
        weighted = [_weighted(part, operands, span, workspace, place) for place, part in enumerate(parts)]
        total = _sum([*weighted], operands.dtype, workspace, "total")
        finite = is_finite(total)
        if elect:
            mixed = _elected(weighted, parts, total, bool(operands.parameters["normalize"]), workspace)
        else:
            mixed = _divided(total, parts) if operands.parameters["normalize"] else total
        if operands.parameters["lambda"] != 1:
            mixed.mul_(operands.parameters["lambda"])
        assert operands.base is not None
        merged = mixed.add_(workspace.cast(operands.base.flat[span], operands.dtype, "base"))
        result[span] = merged
        return finite and is_finite(merged)

    finite = all(workers.map(operands.count, merge)) and all(part.sparse is None or part.sparse.is_finite for part in parts)
    return Merged(result.reshape(operands.shape), finite)


def _is_ours(operands: Operands, sparsifier: Sparsifier | None) -> bool:
    if operands.base is None or not 1 <= len(operands.others) <= MOST_SOURCES:
        return False
    if sparsifier is None:
        return True
    return all(
        operand.parameters["density"] >= 0 and 0 <= operand.parameters.get("gamma", 0) <= 1
        for operand in operands.others
    )


def _part(operand: Operand, operands: Operands, workers: Workers, seed: int, sparsifier: Sparsifier | None) -> Part:
    import torch

    weight = torch.tensor(operand.parameters["weight"], dtype=operands.dtype)
    if sparsifier is None or operand.parameters["density"] >= 1:
        return Part(operand, None, weight)
    return Part(operand, sparsifier(operand, operands, workers, seed), weight)


def _weighted(part: Part, operands: Operands, span: slice, workspace: Workspace, place: int) -> torch.Tensor:
    import torch

    out = workspace.buffer(f"weighted {place}", operands.dtype, span.stop - span.start)
    if part.sparse is None:
        return delta_block(part.operand, operands, span, workspace, out).mul_(part.weight)
    return torch.mul(part.sparse.block(span, workspace), part.weight, out=out)


def _sum(blocks: list[torch.Tensor], dtype: torch.dtype, workspace: Workspace, name: str) -> torch.Tensor:
    """The sum, added in float32 from +0 on, rounded once to `dtype`."""
    import torch

    total = workspace.buffer(f"{name} wide", torch.float32, len(blocks[0])).zero_()
    for block in blocks:
        total.add_(block)
    return workspace.cast(total, dtype, name)


def _divided(total: torch.Tensor, parts: list[Part]) -> torch.Tensor:
    divisor = _sum_of_weights(parts)
    # Asked in the weights' dtype: in float16, where 1e-8 is 0, a sum of 0 does divide, and is refused as not finite.
    return total if divisor.abs() < 1e-8 else total.div_(divisor)


def _sum_of_weights(parts: list[Part]) -> torch.Tensor:
    import torch

    return torch.stack([part.weight for part in parts]).sum(dim=0)


def _elected(
    weighted: list[torch.Tensor], parts: list[Part], total: torch.Tensor, normalize: bool, workspace: Workspace
) -> torch.Tensor:
    """The sum over those whose sign is the total's (a total of 0 counts as positive), over their weights' sum.

    Works on the bit patterns: `agrees` is all ones where the signs are equal, else 0. A 0 agrees with none, but adds
    nothing to the sum either way; it matters for the weights alone.
    """
    import torch

    count, dtype = len(total), total.dtype
    opposite = np.invert(bits(total), out=workspace.integers("opposite", dtype, count))
    agrees = workspace.integers("agrees", dtype, count)
    nonzero = workspace.integers("nonzero", dtype, count)
    width = 8 * dtype.itemsize - 1
    largest = np.iinfo(agrees.dtype).max
    mixed = workspace.buffer("mixed wide", torch.float32, count).zero_()
    weights = workspace.buffer("weights wide", torch.float32, count).zero_()
    agreed_weight = workspace.buffer("agreed weight", dtype, count)
    for block, part in zip(weighted, parts, strict=True):
        patterns = bits(block)
        np.bitwise_xor(patterns, opposite, out=agrees)
        if normalize:
            np.bitwise_and(patterns, largest, out=nonzero)
            agrees &= np.negative(nonzero, out=nonzero)
        np.right_shift(agrees, width, out=agrees)
        patterns &= agrees
        mixed.add_(block)
        if normalize:
            np.bitwise_and(agrees, bits(part.weight.reshape(1)), out=bits(agreed_weight))
            weights.add_(agreed_weight)
    rounded = workspace.cast(mixed, dtype, "mixed")
    if not normalize:
        return rounded
    divisor = workspace.cast(weights, dtype, "weights")
    _replace_zeros(divisor, workspace)
    return rounded.div_(divisor)


def _replace_zeros(divisor: torch.Tensor, workspace: Workspace) -> None:
    """Write 1 where the divisor is 0, without a branch for each element."""
    import torch

    patterns = bits(divisor)
    one = bits(torch.ones(1, dtype=divisor.dtype))
    is_zero = workspace.integers("nonzero", divisor.dtype, len(divisor))
    np.bitwise_and(patterns, np.iinfo(patterns.dtype).max, out=is_zero)
    np.subtract(is_zero, 1, out=is_zero)  # only 0 becomes negative
    np.right_shift(is_zero, 8 * divisor.dtype.itemsize - 1, out=is_zero)
    is_zero &= one
    patterns |= is_zero


def _method(sparsifier: Sparsifier | None, elect: bool) -> Kernel:
    return partial(generalized, sparsifier=sparsifier, elect=elect)


KERNELS: dict[str, Kernel] = {
    "task_arithmetic": _method(None, elect=False),
    "ties": _method(by_magnitude, elect=True),
    "dare_linear": _method(at_random, elect=False),
    "dare_ties": _method(at_random, elect=True),
    "breadcrumbs": _method(without_outliers, elect=False),
    "breadcrumbs_ties": _method(without_outliers, elect=True),
}
