"""KnOTS: low-rank updates brought into one basis by an SVD before TIES or DARE-TIES merges them.

Stoica et al. 2024, "Model merging with SVD to tie the KnOTS" (https://arxiv.org/abs/2410.19735), section 4. For each
2-D weight of shape (out, in), with task updates D_i = W_i - W_base:

    [D_1 ... D_n] = U S [V_1 ... V_n]^T        U (out, k), S (k), each V_i^T (k, in)
    W = W_base + lambda * U S V^T              V^T = TIES or DARE-TIES of V_1^T ... V_n^T

These are two mergekit methods, `knots_ties` and `knots_dare_ties`. TIES and DARE-TIES are mergekit 0.1.5's own code,
called on the V_i^T with their parameters (`weight`, `density`; `normalize`, `rescale`, `int8_mask`, `lambda`) and
defaults.

What the paper leaves open, or says for vision models only, and what we do:

- Where S goes. The paper's formula merges the V_i^T and leaves S with U: the default. `scaled: true` merges the S V_i^T
  instead. At density 1 under TIES there is no difference (a row's scale changes no sign). Below 1, trimming by
  magnitude then prefers the directions in which the models moved far.
- Trimming and masks: tensor by tensor over all of a V_i^T, as mergekit prunes; not over the whole model at once.
- Disjoint mean, weights: mergekit's. Under `normalize: true` (the default of knots_ties, as of ties) each element is
  the weighted mean over the models that agree with the elected sign. Under `false` (the default of knots_dare_ties, as
  of dare_ties) it is their weighted sum. DARE's rescaling is mergekit's too (`rescale: true`): to the sum of magnitudes
  before, not by 1 / density.
- Tensors of one dimension (norms, biases) have no such basis. Plain TIES or DARE-TIES merges their updates. Embeddings
  and heads are 2-D weights like all others.
- Rank: a direction is dropped if rounding in float32 could have made it, that is, if its singular value is at most
  2^-23 times the Frobenius norm of all the weights. So adapters folded in float32 give the sum of their ranks. Folded
  in bfloat16 they do not: the rounding then counts as a direction, with a V as large as the others.
- The V_i of equal singular values are not unique in any implementation, and those of nearly equal ones turn with little
  noise. Signs are elected in V, so the merge turns with them.

Masks come from torch's global generator, as in mergekit's methods: one (k, in) mask for each model in the recipe's
order. Our stream seeds it for each tensor; in mergekit it follows `--random-seed`.

The basis is computed in float64 and the merge in float32, whatever the dtype of the recipe; the sum with the base is
rounded once. Eigenvectors come from LAPACK, whose last bits may depend on machine and number of threads.

There are two ways to the basis: `tie_factors` from low-rank factors (QR of the stacked factors; some (out + n·in)·r²
operations), and `tie_updates` from the updates themselves (the smaller Gram matrix in float64: min(out, n·in)² ·
max(out, n·in)).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from mergekit.merge_methods import GeneralizedTaskArithmeticMerge, MergeMethodSpec, TensorEntry, TensorGroup
from mergekit.merge_methods.base import ParameterScope, ParameterSpec
from mergekit.merge_methods.generalized_task_arithmetic import ConsensusMethod
from mergekit.sparsify import SparsificationMethod

from merge_hooks.methods.knots_basis import ROUNDING, Tied, norm_of, tie_updates

PAPER = "https://arxiv.org/abs/2410.19735"


class KnotsMerge(GeneralizedTaskArithmeticMerge):
    """One of mergekit's methods of task arithmetic, on the V_i^T of each 2-D weight."""

    @cached_property
    def spec(self) -> MergeMethodSpec:
        plain = super().spec
        scaled = ParameterSpec("scaled", bool, ParameterScope.SHARED, default=False)
        return replace(plain, parameters=(*plain.parameters, scaled))

    def merge_group(self, group: TensorGroup, /, **parameters: Any) -> torch.Tensor:
        """Merge one weight of all models. Tensors of other than two dimensions are merged as mergekit does."""
        assert group.base is not None
        base, others = group.base.tensor, group.non_base
        if base.ndim != 2 or not others or not base.numel():
            return super().merge_group(group, **parameters)
        wide = base.float()
        updates = [entry.tensor.float() - wide for entry in others]
        norm = norm_of([entry.tensor for entry in others])
        if norm != norm or norm == float("inf"):  # no basis: let the NaN be seen, as mergekit's methods do
            return torch.full_like(base, float("nan"))
        tied = tie_updates(updates, ROUNDING * norm)
        return self.merge_tied(base, tied, [entry.id for entry in others], parameters).to(base.dtype)

    def merge_tied(
        self, base: torch.Tensor, tied: Tied, names: Sequence[Hashable], parameters: Mapping[str, Any]
    ) -> torch.Tensor:
        """Merge the updates in their common basis, and add the result to the base.

        Args:
            base: (out, in).
            names: of the models, by which `parameters` gives `weight` and `density`.
            parameters: resolved, by the names in `spec`.
        Returns:
            (out, in), float32.
        """
        if not len(tied.values):  # no model moved
            return base.float()
        scale = tied.values.float().unsqueeze(1)
        parts = [scale * part if parameters["scaled"] else part for part in tied.parts]
        entries = [TensorEntry(name, part) for name, part in zip(names, parts, strict=True)]
        zero = TensorEntry(object(), torch.zeros_like(parts[0]), is_base=True)
        merged = super().merge_group(TensorGroup((zero, *entries)), **{**parameters, "lambda": 1.0})
        update = tied.update(merged / scale if parameters["scaled"] else merged)
        return base.float() + parameters["lambda"] * update


METHODS = {
    method.method_name: method
    for method in (
        KnotsMerge(
            consensus_method=ConsensusMethod.sum,
            sparsification_method=SparsificationMethod.magnitude,
            default_normalize=True,
            default_rescale=False,
            method_name="knots_ties",
            method_pretty_name="KnOTS-TIES",
            method_reference_url=PAPER,
        ),
        KnotsMerge(
            consensus_method=ConsensusMethod.sum,
            sparsification_method=SparsificationMethod.random,
            default_normalize=False,
            default_rescale=True,
            method_name="knots_dare_ties",
            method_pretty_name="KnOTS-DARE-TIES",
            method_reference_url=PAPER,
        ),
    )
}
