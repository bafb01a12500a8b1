"""A task vector: what a fine-tune, an adapter or a stage adds to its base, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from merge_hooks.sources.adapter import LoraSource
from merge_hooks.sources.checkpoint import Source

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Vector:
    """What a source adds to its base.

    Args:
        name: for tables, unique among the vectors that are compared.
        source: the fine-tune: a checkpoint, an adapter over its base, or a stage of a recipe.
        base: what it is compared to; None for an adapter by itself, whose factors are enough.
    """

    name: str
    source: Source
    base: Source | None

    def factors(self, tensor: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(B, A) of this tensor, scaled, of rank 0 if an adapter does not touch it; None if it is no product."""
        import torch

        source, base = self.source, self.base
        if not isinstance(source, LoraSource) or (base is not None and source.base.key != base.key):
            return None
        if tensor not in source.factors and tensor not in source.replaced:
            return torch.zeros(0, 0), torch.zeros(0, 0)
        if base is not None:
            return source.low_rank_update(tensor, base)
        left, right, scaling = source.delta_factors(tensor) or unreachable(tensor)
        return (right.T * scaling, left.T) if source.factors[tensor].is_transposed else (left * scaling, right)


def unreachable(tensor: str) -> NoReturn:
    raise AssertionError(f"{tensor}: comparable() lets no adapter pass that needs its base")
