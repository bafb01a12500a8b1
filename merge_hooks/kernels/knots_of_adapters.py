"""KnOTS over LoRA adapters, from their factors: see `merge_hooks.methods.knots` for the method and its choices.

Taken where every source of a 2-D weight is the base with an adapter on it. Everything else (full weights, DoRA, an
adapter over another base than the recipe's, tensors of one dimension) is computed from the folded weights by the
mergekit method of the same name.
"""

from __future__ import annotations

from typing import Any

from merge_hooks.kernels.blocks import is_finite
from merge_hooks.kernels.operands import Merged, Operands


def factors_of(operands: Operands) -> list[tuple[Any, Any]] | None:
    """The adapters' (B, A), in the recipe's order; None where some source has none."""
    if operands.base is None or not operands.others or len(operands.shape) != 2:
        return None
    factors = [operand.low_rank for operand in operands.others]
    return None if None in factors else factors  # type: ignore[return-value]


def merge(operands: Operands, seed: int) -> Merged:
    """The merge from the adapters' factors."""
    import torch

    factors, operands = factors_of(operands), operands.on_host()
    assert operands.base is not None and factors is not None
    base = operands.base.tensor.to(operands.dtype)
    if not all(bool(torch.isfinite(factor).all()) for pair in factors for factor in pair):
        return Merged(torch.full_like(base, float("nan"), dtype=operands.out_dtype), False)
    merged = _merge(base, factors, operands, seed).to(operands.dtype).to(operands.out_dtype)
    return Merged(merged, is_finite(merged))


def _merge(base: Any, factors: list[tuple[Any, Any]], operands: Operands, seed: int) -> Any:
    from merge_hooks.kernels.seeding import seeded_by_name
    from merge_hooks.methods.knots import METHODS

    others = operands.others
    names = [operand.place for operand in others]
    parameters = dict(operands.parameters)
    for name in ("weight", "density"):
        parameters[name] = {operand.place: operand.parameters[name] for operand in others}
    with seeded_by_name(seed, operands.name):
        return METHODS[operands.method].merge_tied(base, _tied(factors, operands), names, parameters)


def _tied(factors: list[tuple[Any, Any]], operands: Operands) -> Any:
    """The adapters' common basis: the same for every weight and density."""
    from merge_hooks.methods.knots_basis import tie_factors

    origins = tuple(operand.origin for operand in operands.inputs)
    if None in origins:
        return tie_factors(factors)
    return operands.keep(("knots", *origins), lambda: tie_factors(factors))
