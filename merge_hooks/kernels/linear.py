"""Weighted average of models (Wortsman et al. 2022, https://arxiv.org/abs/2203.05482): mergekit's `linear`.

Every product is added in float32, in the recipe's order, divided by the sum of weights when normalising, and
rounded once: what mergekit's method of that name does, so the bytes are the same.
"""

from __future__ import annotations

from merge_hooks.kernels.blocks import Workers, Workspace, is_finite
from merge_hooks.kernels.operands import Merged, Operands


def linear(operands: Operands, workers: Workers, seed: int = 0) -> Merged | None:
    """The average of `operands.inputs` (float16, bfloat16 or float32) by their `weight`."""
    import torch

    weights = torch.tensor([operand.parameters["weight"] for operand in operands.inputs], dtype=torch.float32)
    total = (
        weights.reshape(1, -1).sum(dim=1) if operands.parameters["normalize"] else torch.ones(1, dtype=torch.float32)
    )
    result = operands.new_result()

    def average(span: slice, workspace: Workspace) -> bool:
        sum_ = workspace.buffer("sum", torch.float32, span.stop - span.start).zero_()
        for operand, weight in zip(operands.inputs, weights.split(1), strict=True):
            block = workspace.cast(operand.flat[span], operands.dtype, "cast")
            # One multiplication and one addition with one or two roundings, as the machine's addcmul has it.
            sum_.addcmul_(workspace.cast(block, torch.float32, "wide"), weight)
        if total != 1:
            sum_.div_(total)
        result[span] = workspace.cast(sum_, operands.dtype, "rounded")
        return is_finite(result[span])

    finite = all(workers.map(operands.count, average))
    return Merged(result.reshape(operands.shape), finite)
