"""Task arithmetic (Ilharco et al. 2022, https://arxiv.org/abs/2212.04089) and what is built on it.

The base plus a weighted sum of deltas: `task_arithmetic`; with sparse deltas `dare_linear` and `breadcrumbs`;
with the election of a sign for each element `ties`, `dare_ties` and `breadcrumbs_ties`. One chain for all of
them:

    delta = source - base;  sparsify;  times weight;  sum over sources (of the elected sign);
    over the sum of weights (of the elected ones) if normalising;  times lambda;  plus base.

Every step is rounded to the dtype of the merge, each sum over sources once, as mergekit 0.1.5 rounds. The
steps are written so that no order of blocks or threads can be seen in the bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from merge_hooks.kernels.blocks import Workers, Workspace, bits, is_finite
from merge_hooks.kernels.operands import Kernel, Merged, Operand, Operands
from merge_hooks.kernels.sparsify import Sparse, at_random, by_magnitude, delta_block, without_outliers

if TYPE_CHECKING:
    import torch

Sparsifier = Callable[[Operand, Operands, Workers, int], Sparse]
# torch adds up to four rows one after the other wherever they lie; from five on, the columns at the end of
# its vectors and of each thread's share are added in another order, which only the same call on the same
# memory repeats.
MOST_IN_BLOCKS = 4


@dataclass(frozen=True)
class Part:
    """One source in the sum: its delta (None: made block by block), its weight in the merge's dtype."""

    operand: Operand
    sparse: Sparse | None
    weight: torch.Tensor


def generalized(
    operands: Operands, workers: Workers, seed: int, *, sparsifier: Sparsifier | None, elect: bool
) -> Merged | None:
    """The base plus the sum of the other inputs' deltas. None where mergekit shall do it.

    Args:
        operands: with a base; float16, bfloat16 or float32. Each other input with `weight` and, where there
            is a sparsifier, `density` and its own.
        sparsifier: applied where the density is below 1.
        elect: count only the elements whose sign is that of the sum.
    """
    if not is_ours(operands, sparsifier):
        return None
    parts = [_part(operand, operands, workers, seed, sparsifier) for operand in operands.others]
    combine = _in_blocks if len(parts) <= MOST_IN_BLOCKS else _in_rows
    merged = combine(operands, parts, workers, elect)
    finite = all(part.sparse is None or part.sparse.is_finite for part in parts)
    return Merged(merged.tensor, merged.is_finite and finite)


def is_ours(operands: Operands, sparsifier: Sparsifier | None) -> bool:
    """Whether these parameters are computed here, and not by mergekit."""
    if operands.base is None or not operands.others:
        return False
    if sparsifier is None:
        return True
    if sparsifier is not at_random and operands.parameters["rescale"]:
        return False
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


def _in_blocks(operands: Operands, parts: list[Part], workers: Workers, elect: bool) -> Merged:
    """The whole chain for one block after the other."""

    result = operands.new_result()
    normalize = bool(operands.parameters["normalize"])
    common = sum_of_weights([part.weight for part in parts])

    def merge(span: slice, workspace: Workspace) -> bool:
        count = span.stop - span.start
        weighted = [workspace.buffer(f"weighted {place}", operands.dtype, count) for place in range(len(parts))]
        for part, block in zip(parts, weighted, strict=True):
            _write_weighted(part, operands, span, workspace, block)
        mixed = _sum(weighted, operands.dtype, workspace, "total")
        finite, divisor = True, common
        if elect:
            finite = is_finite(mixed)  # before the election can hide it
            weights = [workspace.buffer(f"agreed {place}", operands.dtype, count) for place in range(len(parts))]
            _elect(weighted, parts, mixed, weights if normalize else None, workspace)
            mixed = _sum(weighted, operands.dtype, workspace, "mixed")
            if normalize:
                divisor = _without_zeros(_sum(weights, operands.dtype, workspace, "divisor"), workspace)
        _add_to_base(operands, mixed, divisor if normalize else None, span, workspace, result)
        return finite and is_finite(result[span])

    finite = all(workers.map(operands.count, merge))
    return Merged(result.reshape(operands.shape), finite)


def _in_rows(operands: Operands, parts: list[Part], workers: Workers, elect: bool) -> Merged:
    """The same for five sources and more: the sums over the whole tensor at once, the rest in blocks."""
    import torch

    result = operands.new_result()
    normalize = bool(operands.parameters["normalize"])
    weighted = torch.empty(len(parts), operands.count, dtype=operands.dtype)
    weights = torch.empty_like(weighted) if elect and normalize else None

    def weigh(span: slice, workspace: Workspace) -> None:
        for part, row in zip(parts, weighted, strict=True):
            _write_weighted(part, operands, span, workspace, row[span])

    def elect_in(span: slice, workspace: Workspace) -> None:
        rows = None if weights is None else [row[span] for row in weights]
        _elect([row[span] for row in weighted], parts, mixed[span], rows, workspace)

    def finish(span: slice, workspace: Workspace) -> bool:
        block = divisor
        if divisor is not None and divisor.ndim:
            block = _without_zeros(divisor[span], workspace)
        _add_to_base(operands, mixed[span], block, span, workspace, result)
        return is_finite(result[span])

    workers.map(operands.count, weigh)
    mixed = weighted.sum(dim=0)
    finite = is_finite(mixed)
    divisor = sum_of_weights([part.weight for part in parts]) if normalize else None
    if elect:
        workers.map(operands.count, elect_in)
        mixed = weighted.sum(dim=0)
        divisor = None if weights is None else weights.sum(dim=0)
    finite = all(workers.map(operands.count, finish)) and finite
    return Merged(result.reshape(operands.shape), finite)


def _write_weighted(part: Part, operands: Operands, span: slice, workspace: Workspace, out: torch.Tensor) -> None:
    import torch

    if part.sparse is None:
        delta_block(part.operand, operands, span, workspace, out).mul_(part.weight)
    else:
        torch.mul(part.sparse.block(span, workspace), part.weight, out=out)


def _sum(blocks: list[torch.Tensor], dtype: torch.dtype, workspace: Workspace, name: str) -> torch.Tensor:
    """The sum, added in float32 from +0 on, rounded once to `dtype`."""
    import torch

    if len(blocks) == 2:
        # One rounding as well. Adding +0 makes -0 of two -0 the +0 that mergekit's sum begins with.
        return torch.add(*blocks, out=workspace.buffer(name, dtype, len(blocks[0]))).add_(0.0)
    total = workspace.buffer(f"{name} wide", torch.float32, len(blocks[0])).zero_()
    for block in blocks:
        total.add_(block)
    return workspace.cast(total, dtype, name)


def sum_of_weights(weights: list[torch.Tensor]) -> torch.Tensor:
    """The divisor of every element, a scalar; 1 for a sum that mergekit takes for 0."""
    import torch

    total = torch.stack(weights).reshape(-1, 1, 1).sum(dim=0).reshape(())
    # Asked in the weights' dtype: in float16, where 1e-8 is 0, a sum of 0 does divide, and is refused as not
    # finite.
    return torch.ones_like(total) if total.abs() < 1e-8 else total


def _elect(
    weighted: list[torch.Tensor],
    parts: list[Part],
    total: torch.Tensor,
    weights: list[torch.Tensor] | None,
    workspace: Workspace,
) -> None:
    """Write 0 where an element's sign is not the total's (a total of 0 counts as positive).

    Works on the bit patterns: `agrees` is all ones where the signs are equal, else 0. An element that is 0
    has no
    sign; it adds nothing either way, but its weight does not count.

    Args:
        weights: where each element's weight in the divisor is written: its part's if it agrees, else 0.
    """
    count, dtype = len(total), total.dtype
    opposite = np.invert(bits(total), out=workspace.integers("opposite", dtype, count))
    agrees = workspace.integers("agrees", dtype, count)
    nonzero = workspace.integers("nonzero", dtype, count)
    largest, width = np.iinfo(agrees.dtype).max, 8 * dtype.itemsize - 1
    for place, (block, part) in enumerate(zip(weighted, parts, strict=True)):
        patterns = bits(block)
        np.bitwise_xor(patterns, opposite, out=agrees)
        if weights is not None:
            np.negative(np.bitwise_and(patterns, largest, out=nonzero), out=nonzero)
            agrees &= nonzero
        np.right_shift(agrees, width, out=agrees)
        patterns &= agrees
        if weights is not None:
            np.bitwise_and(agrees, bits(part.weight.reshape(1)), out=bits(weights[place]))


def _without_zeros(divisor: torch.Tensor, workspace: Workspace) -> torch.Tensor:
    """Write 1 where the divisor is 0, in place, without a branch for each element."""
    import torch

    patterns = bits(divisor)
    is_zero = workspace.integers("is zero", divisor.dtype, len(divisor))
    np.subtract(np.bitwise_and(patterns, np.iinfo(patterns.dtype).max, out=is_zero), 1, out=is_zero)
    np.right_shift(is_zero, 8 * divisor.dtype.itemsize - 1, out=is_zero)  # only 0 had become negative
    is_zero &= bits(torch.ones(1, dtype=divisor.dtype))
    patterns |= is_zero
    return divisor


def _add_to_base(
    operands: Operands,
    mixed: torch.Tensor,
    divisor: torch.Tensor | None,
    span: slice,
    workspace: Workspace,
    result: torch.Tensor,
) -> None:
    import torch

    assert operands.base is not None
    if divisor is not None:
        mixed.div_(divisor)
    if operands.parameters["lambda"] != 1:
        mixed.mul_(operands.parameters["lambda"])
    base = workspace.cast(operands.base.flat[span], operands.dtype, "base")
    if result.dtype == operands.dtype:
        torch.add(base, mixed, out=result[span])
    else:
        result[span] = mixed.add_(base)


# How each method makes its deltas sparse, and whether it elects signs.
FORMS: dict[str, tuple[Sparsifier | None, bool]] = {
    "task_arithmetic": (None, False),
    "ties": (by_magnitude, True),
    "dare_linear": (at_random, False),
    "dare_ties": (at_random, True),
    "breadcrumbs": (without_outliers, False),
    "breadcrumbs_ties": (without_outliers, True),
}
KERNELS: dict[str, Kernel] = {
    method: partial(generalized, sparsifier=sparsifier, elect=elect) for method, (sparsifier, elect) in FORMS.items()
}
