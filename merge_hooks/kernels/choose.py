"""Which way leads from a recipe's tensor to its merged weights: `way_of` chooses, for every merge there is.

| way | which tensors | what is done |
|---|---|---|
| `one pass` | `linear`; `task_arithmetic`, `ties`, `dare_*`, `breadcrumbs*` of up to four models beside the base; in float32, bfloat16 or float16, whatever the sources are stored in | each element at once, compiled (`cpu.py`) |
| `rows` | the same methods with five models or more | weighted deltas in memory, summed up by torch (`torch_steps.py`) |
| `gpu` | the methods of both, in float32 or bfloat16, of up to four models, where residents put the sources on a GPU | each block by torch's operations (`torch_steps.py`) |
| `factors` | `knots_*`: 2-D weights of which every model is an adapter over the base | SVD of the adapters' factors (`knots_of_adapters.py`) |
| `mergekit` | everything else: other methods, float64, `rescale` beside pruning, densities below 0, no base; tensors that some source lacks, integer buffers; `rng=mergekit` with a method that may draw; `linear` on a processor without fused multiply-add | mergekit's own method |

The first four give mergekit's bytes, but for elements tied at a pruning threshold (`task_arithmetic.py`), for
DARE's masks, which are ours (`masks.py`) and, in float32 and float16, the last bit of its scale, and for KnOTS over
adapters. Where the sources come from (files, residents, a tokenizer's alignment) changes no way but `gpu`.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from merge_hooks.kernels.blocks import Workers
from merge_hooks.kernels.operands import Merged, Operands, Pending

# Those of mergekit's and our methods that draw nothing. Every other one (dare_*, della*, knots_dare_ties;
# arcee_fusion, which samples its quantiles in tensors above a million; whatever a plugin brings) may draw, and is
# given a seed and stamped with it.
DETERMINISTIC = (
    "breadcrumbs", "breadcrumbs_ties", "consensus_ta", "consensus_ties", "fisher", "geometric_median", "iso_c", "karcher",
    "knots_ties", "linear", "model_stock", "multislerp", "nearswap", "nuslerp", "passthrough", "ram", "ramplus_tl", "sce",
    "slerp", "task_arithmetic", "ties",
)  # fmt: skip
KNOTS = ("knots_ties", "knots_dare_ties")


class Way(Enum):
    """How a tensor is merged: see the table above."""

    ONE_PASS = "one pass"
    ROWS = "rows"
    GPU = "gpu"
    FACTORS = "factors"
    MERGEKIT = "mergekit"


def is_random(method: str) -> bool:
    """Whether the method may draw at random, so that its result may depend on a seed: so for all that are not known."""
    return method not in DETERMINISTIC


def may_be_ours(method: str, rng: str) -> bool:
    """Whether some tensors of this method are merged in another way than mergekit's: operands are worth reading."""
    from merge_hooks.kernels.task_arithmetic import FORMS

    is_known = method in ("linear", *FORMS, *KNOTS)
    return is_known and not (rng == "mergekit" and is_random(method))


def way_of(operands: Operands | None) -> Way:
    """The way of one tensor, whose method `may_be_ours`; None: mergekit reads it by rules of its own."""
    import torch

    from merge_hooks.kernels import cpu_steps, knots_of_adapters, task_arithmetic
    from merge_hooks.kernels.torch_steps import MOST_IN_ORDER

    if operands is None or operands.count == 0 or operands.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return Way.MERGEKIT
    if operands.method in KNOTS:
        return Way.FACTORS if knots_of_adapters.factors_of(operands) else Way.MERGEKIT
    if operands.method == "linear":
        is_ours, models = cpu_steps.adds_as_torch(), 1
    else:
        is_ours, models = task_arithmetic.is_ours(operands), len(operands.others)
    if not is_ours:
        return Way.MERGEKIT
    if models > MOST_IN_ORDER:
        return Way.ROWS
    return Way.GPU if _is_for_gpu(operands) else Way.ONE_PASS


def _is_for_gpu(operands: Operands) -> bool:
    import torch

    devices = {operand.tensor.device for operand in operands.inputs}
    dtypes = {operands.dtype, operands.out_dtype, *(operand.tensor.dtype for operand in operands.inputs)}
    return len(devices) == 1 and devices.pop().type != "cpu" and dtypes <= {torch.float32, torch.bfloat16}


def begin(operands: Operands, workers: Workers, seed: int, way: Way) -> Pending:
    """Begin to merge a tensor; the workers may be at it when this returns.

    Args:
        seed: of random masks.
        way: its own, and not mergekit's. For comparisons, `gpu` and `rows` are ways for all that goes in one pass.
    """
    from merge_hooks.kernels import knots_of_adapters, one_pass

    if way is Way.FACTORS:
        merged = knots_of_adapters.merge(operands, seed)
        return Pending(lambda: lambda: merged)
    operands = operands if way is Way.GPU else operands.on_host()
    in_torch, in_rows = way is not Way.ONE_PASS, way is Way.ROWS
    if operands.out_dtype in one_pass.DTYPES:
        return one_pass.begin(operands, workers, seed, in_torch, in_rows)
    narrower = replace(operands, out_dtype=operands.dtype, out=None)
    merge = one_pass.begin(narrower, workers, seed, in_torch, in_rows)
    return Pending(lambda: lambda: _cast(merge(), operands))


def _cast(merged: Merged, operands: Operands) -> Merged:
    return replace(merged, tensor=merged.tensor.to(operands.out_dtype))
