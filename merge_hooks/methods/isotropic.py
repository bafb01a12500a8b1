"""Isotropic merging in the common subspace (Iso-C) as a mergekit method: `merge_method: iso_c`.

    merge_method: iso_c
    base_model: B
    models:
      - {model: EU, parameters: {weight: 1.0}}
      - {model: GL, parameters: {weight: 1.0}}
    parameters: {lambda: 1.0}

Marczak et al. 2025, "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces" (arXiv
2502.04959), section 4. The updates of a weight are added, and every direction of the sum gets the same length, the mean of
its singular values:

    D = sum_i weight_i (W_i - W_base) = U diag(s) V^T          W = W_base + lambda * mean(s) * U V^T

Directions whose singular value is only float32's rounding are left out, of the mean too: where D has not full rank (LoRA),
which vectors stand for them is an accident of the solver. What is no matrix (norms, biases) gets the weighted mean of the
updates. The directions come from the smaller Gram matrix in float64 (`knots_basis`); tests/benchmarks/RESULTS.md says how
long a matrix takes.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from mergekit.merge_methods.base import (
    BasePolicy,
    GroupMergeMethod,
    InputContract,
    MergeMethodSpec,
    ParameterScope,
    ParameterSpec,
    TensorGroup,
)

from merge_hooks.errors import RecipeError
from merge_hooks.methods.knots_basis import norm_of, tie_updates


class IsotropicMerge(GroupMergeMethod):
    """Iso-C. Its parameters are those of task arithmetic: `weight` of each model's update, `lambda` of the merged one."""

    @cached_property
    def spec(self) -> MergeMethodSpec:
        return MergeMethodSpec(
            "iso_c",
            parameters=(
                ParameterSpec("weight", float, ParameterScope.NON_BASE, default=1.0),
                ParameterSpec("lambda", float, ParameterScope.SHARED, default=1.0),
            ),
            contract=InputContract(base=BasePolicy.REQUIRED, min_inputs=2),
            pretty_name="Iso-C",
            reference_url="https://arxiv.org/abs/2502.04959",
        )

    def merge_group(self, group: TensorGroup, /, **parameters: Any) -> torch.Tensor:
        """One merged tensor, in the dtype of the inputs; computed in float32 and float64.

        Raises:
            RecipeError: the weights of what is averaged add up to 0.
        """
        assert group.base is not None
        base, others = group.base.tensor, group.non_base
        wide = base.to(torch.promote_types(base.dtype, torch.float32))
        weights = parameters["weight"].values_for(others)
        summed = torch.zeros_like(wide)
        for weight, entry in zip(weights, others, strict=True):
            summed += weight * (entry.tensor.to(wide.dtype) - wide)
        update = flattened(summed) if summed.dim() == 2 else summed / _total(weights)
        return (wide + parameters["lambda"] * update.to(wide.dtype)).to(base.dtype)


def flattened(update: torch.Tensor) -> torch.Tensor:
    """mean(s) U V^T of a matrix U diag(s) V^T, (out, in), float32."""
    if not torch.isfinite(update).all():
        return torch.full_like(update, float("nan"))  # so that it is seen
    if norm_of([update]) == 0:
        return update
    found = tie_updates([update])
    return found.values.mean().float() * (found.basis.float() @ found.parts[0])


def _total(weights: list[float]) -> float:
    total = math.fsum(weights)
    if not total:
        raise RecipeError("`iso_c`: the weights add up to 0, and norms and biases get their weighted mean.")
    return total


METHODS = {"iso_c": IsotropicMerge()}
