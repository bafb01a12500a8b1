"""Our own kernels for the common merge methods: mergekit's bytes, many times faster.

    merged = merge(operands, workers, seed)     # None: no kernel of ours takes it, mergekit's method shall

A kernel computes what mergekit's method of the same name computes, rounding for rounding, in blocks that fit
a core's cache, on all cores. Methods, dtypes and parameters that are not listed here go through mergekit
itself.
"""

from __future__ import annotations

from merge_hooks.kernels.blocks import Workers
from merge_hooks.kernels.operands import Kernel, Merged, Operand, Operands, Pending

__all__ = ["Merged", "Operand", "Operands", "Pending", "Workers", "begin", "has_kernel", "is_random", "merge"]

# Those of mergekit's and our methods that draw nothing. Every other one (dare_*, della*, knots_dare_ties; arcee_fusion, which
# samples its quantiles in tensors above a million; whatever a plugin brings) may draw, and is given a seed and stamped with it.
DETERMINISTIC = ("breadcrumbs", "breadcrumbs_ties", "fisher", "karcher", "knots_ties", "linear", "model_stock", "multislerp",
                 "nearswap", "nuslerp", "passthrough", "ram", "ramplus_tl", "sce", "slerp", "task_arithmetic", "ties")  # fmt: skip


def merge(operands: Operands, workers: Workers, seed: int = 0) -> Merged | None:
    """The merged tensor by a kernel of ours; None: there is none for this method, dtype or parameters."""
    pending = begin(operands, workers, seed)
    return pending() if pending else None


def begin(operands: Operands, workers: Workers, seed: int = 0) -> Pending | None:
    """As `merge`, but where the sources are resident the workers are at it when this returns."""
    import torch

    kernel = _kernels().get(operands.method)
    narrow = (torch.float16, torch.bfloat16, torch.float32)
    if kernel is None or operands.dtype not in narrow or operands.count == 0:
        return None
    if operands.is_resident:
        from merge_hooks.kernels.resident import one_pass as fused

        if pending := fused.begin(operands, workers, seed):
            return pending
        operands = operands.on_host()
    merged = kernel(operands, workers, seed)
    return None if merged is None else Pending(lambda: lambda: merged)


def has_kernel(method: str) -> bool:
    """Whether some tensors of this method are computed by a kernel of ours."""
    return method in _kernels()


def is_random(method: str) -> bool:
    """Whether the method may draw at random, so that its result may depend on a seed: so for all that are not known."""
    return method not in DETERMINISTIC


def _kernels() -> dict[str, Kernel]:
    from merge_hooks.kernels import knots_of_adapters as knots
    from merge_hooks.kernels import task_arithmetic
    from merge_hooks.kernels.linear import linear

    return {"linear": linear, **task_arithmetic.KERNELS, **knots.KERNELS}
