"""Consensus merging: weights that too few tasks need are left as the base has them.

    merge_method: consensus_ties       # or consensus_ta: the same over task arithmetic
    base_model: B
    models:
      - {model: EU, parameters: {weight: 1.0, density: 0.2}}
      - {model: GL, parameters: {weight: 1.0, density: 0.2}}
    parameters: {mask_lambda: 0.4, agree: 2, lambda: 1.0}

Wang et al. 2024, "Localizing Task Information for Improved Model Merging and Compression" (arXiv 2405.07813), sections 4
and 5. With task vectors t_i = W_i - W_base and the merged one t = TIES or the weighted sum of them, elementwise:

    m_i = |t_i| >= mask_lambda * |t - t_i|          task i needs this weight: its own move is not small beside the others'
    W   = W_base + lambda * [sum_i m_i >= agree] * t

Weights that one task alone needs ("selfish") and that none needs ("catastrophic") go back to the base for `agree: 2`, the
paper's choice. TIES and the sum are mergekit's own code, with its parameters. What the paper leaves to validation is
`mask_lambda` (0.2 to 0.6 there); here it is one number for all models. The masks look at the t_i as they are, before TIES
prunes them, without their weights.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from mergekit.merge_methods import GeneralizedTaskArithmeticMerge, MergeMethodSpec, TensorEntry, TensorGroup
from mergekit.merge_methods.base import ParameterScope, ParameterSpec
from mergekit.merge_methods.generalized_task_arithmetic import ConsensusMethod
from mergekit.sparsify import SparsificationMethod

from merge_hooks.errors import RecipeError

PAPER = "https://arxiv.org/abs/2405.07813"


class ConsensusMerge(GeneralizedTaskArithmeticMerge):
    """One of mergekit's methods of task arithmetic, with the consensus mask on what it merges."""

    @cached_property
    def spec(self) -> MergeMethodSpec:
        plain = super().spec
        own = (
            ParameterSpec("mask_lambda", float, ParameterScope.SHARED, default=0.4),
            ParameterSpec("agree", int, ParameterScope.SHARED, default=2),
        )
        return replace(plain, parameters=(*plain.parameters, *own))

    def merge_group(self, group: TensorGroup, /, **parameters: Any) -> torch.Tensor:
        """One merged tensor, in the dtype of the inputs; the updates are computed in float32."""
        assert group.base is not None
        base, others = group.base.tensor, group.non_base
        _check(parameters["mask_lambda"], parameters["agree"], len(others))
        wide = base.float()
        updates = [entry.tensor.float() - wide for entry in others]
        entries = [TensorEntry(entry.id, update) for entry, update in zip(others, updates, strict=True)]
        zero = TensorEntry(object(), torch.zeros_like(wide), is_base=True)
        merged = super().merge_group(TensorGroup((zero, *entries)), **{**parameters, "lambda": 1.0})
        mask = consensus_mask(updates, merged, parameters["mask_lambda"], int(parameters["agree"]))
        return (wide + parameters["lambda"] * merged * mask).to(base.dtype)


def consensus_mask(
    updates: list[torch.Tensor], merged: torch.Tensor, mask_lambda: float, agree: int
) -> torch.Tensor:  # fmt: skip
    """Where at least `agree` tasks need a weight of the merged update: of its shape, bool."""
    count = torch.zeros(merged.shape, dtype=torch.int32, device=merged.device)
    for update in updates:
        count += update.abs() >= mask_lambda * (merged - update).abs()
    return count >= agree


def _check(mask_lambda: float, agree: int, models: int) -> None:
    if not mask_lambda >= 0:
        raise RecipeError(f"`mask_lambda: {mask_lambda:g}` is below 0. The paper tries 0.2 to 0.6.")
    if not 0 <= agree <= models:
        raise RecipeError(f"`agree: {agree}` of {models} models: give a number from 0 (no mask) to {models}.")


METHODS = {
    method.method_name: method
    for method in (
        ConsensusMerge(
            consensus_method=ConsensusMethod.sum,
            sparsification_method=SparsificationMethod.magnitude,
            default_normalize=True,
            default_rescale=False,
            method_name="consensus_ties",
            method_pretty_name="Consensus TIES",
            method_reference_url=PAPER,
        ),
        ConsensusMerge(
            consensus_method=None,
            sparsification_method=None,
            default_normalize=False,
            default_rescale=False,
            method_name="consensus_ta",
            method_pretty_name="Consensus Task Arithmetic",
            method_reference_url=PAPER,
        ),
    )
}
