"""Task arithmetic (Ilharco et al. 2022, https://arxiv.org/abs/2212.04089) and what is built on it.

The base plus a weighted sum of deltas: `task_arithmetic`; with sparse deltas `dare_linear` and `breadcrumbs`; with
the election of a sign for each element `ties`, `dare_ties` and `breadcrumbs_ties`. One chain for all of them:

    delta = source - base;  sparsify;  times weight;  sum over sources (of the elected sign);
    over the sum of weights (of the elected ones) if normalising;  times lambda;  plus base.

Every step is rounded to the dtype of the merge, each sum over sources once, as mergekit 0.1.5 rounds.

Deltas are made sparse by magnitude (TIES: Yadav et al. 2023, https://arxiv.org/abs/2306.01708), without outliers
(breadcrumbs: Davari and Belilovsky 2023, https://arxiv.org/abs/2312.06795), or at random (DARE: Yu et al. 2023,
https://arxiv.org/abs/2311.03099), after which `rescale` brings the sum of magnitudes back to what it was. Elements
tied at a threshold are kept as a stable sort would: mergekit's sort is not stable, so there the choice is
arbitrary, and only there may it differ from ours. (Rescaling after pruning by magnitude is left to mergekit: it
sums in an order that depends on which of the tied elements its sort keeps, so that in bfloat16 another choice of
ties would change the scale of the whole tensor.)
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from merge_hooks.kernels.operands import Operand, Operands

if TYPE_CHECKING:
    import torch

# Below this sum of magnitudes mergekit does not rescale.
SMALLEST_SUM = 1e-7


class Sparsifier(Enum):
    """Which elements of a delta are kept, where its density is below 1."""

    NONE = "all of them"
    BY_MAGNITUDE = "the largest `density` of them, at least one"
    WITHOUT_OUTLIERS = "the largest `density` of them after the largest `gamma`, or fewer where those run out"
    AT_RANDOM = "each with probability `density`"


# How each method makes its deltas sparse, and whether it elects signs.
FORMS: dict[str, tuple[Sparsifier, bool]] = {
    "task_arithmetic": (Sparsifier.NONE, False),
    "ties": (Sparsifier.BY_MAGNITUDE, True),
    "dare_linear": (Sparsifier.AT_RANDOM, False),
    "dare_ties": (Sparsifier.AT_RANDOM, True),
    "breadcrumbs": (Sparsifier.WITHOUT_OUTLIERS, False),
    "breadcrumbs_ties": (Sparsifier.WITHOUT_OUTLIERS, True),
}


def is_ours(operands: Operands) -> bool:
    """Whether these parameters are computed here, and not by mergekit."""
    sparsifier, _ = FORMS[operands.method]
    if operands.base is None or not operands.others:
        return False
    if sparsifier is Sparsifier.NONE:
        return True
    if sparsifier is not Sparsifier.AT_RANDOM and operands.parameters["rescale"]:
        return False
    return all(
        operand.parameters["density"] >= 0 and 0 <= operand.parameters.get("gamma", 0) <= 1
        for operand in operands.others
    )


def ranks_kept(sparsifier: Sparsifier, operand: Operand, count: int) -> tuple[int, int]:
    """Which of `count` ascending ranks of magnitude pruning keeps: start..stop, stop excluded."""
    density = operand.parameters["density"]
    keep = int(density * count)
    if sparsifier is Sparsifier.BY_MAGNITUDE:
        keep = max(1, keep) if density > 0 else 0
        return count - keep, count
    start = max(0, count - keep - int(operand.parameters["gamma"] * count))
    return start, start + keep


def scale_of(before: float, after: float, dtype: torch.dtype) -> float:
    """What rescaling multiplies by, for the sums of magnitudes before and after dropping."""
    import torch

    work_dtype = torch.float32 if dtype == torch.float16 else dtype
    whole, left = torch.tensor(before, dtype=work_dtype), torch.tensor(after, dtype=work_dtype)
    return 1.0 if whole < SMALLEST_SUM or left < SMALLEST_SUM else (whole / left).item()


def sum_of_weights(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """The divisor of every element, a scalar; 1 for a sum that mergekit takes for 0."""
    import torch

    total = torch.stack(list(weights)).reshape(-1, 1, 1).sum(dim=0).reshape(())
    # Asked in the weights' dtype: in float16, where 1e-8 is 0, a sum of 0 does divide, and is refused as not finite.
    return torch.ones_like(total) if total.abs() < 1e-8 else total
