"""Do this machine's GPU and its CPU merge to the same bytes? Asked once a process, before `resident=auto` puts sources there."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

from merge_hooks.kernels.blocks import Workers
from merge_hooks.kernels.choose import Way, begin
from merge_hooks.kernels.operands import Operand, Operands
from merge_hooks.kernels.task_arithmetic import FORMS

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger(__name__)
COUNT = 100_003


@cache
def gpu_agrees() -> bool:
    """Whether every method gives the same bytes on both, in float32 and in bfloat16. False where there is no GPU."""
    import torch

    if not torch.accelerator.is_available():
        return False
    try:
        wrong = differences(torch.accelerator.current_accelerator())
    except RuntimeError as error:  # whatever a driver may say
        wrong = [f"an error: {error}"]
    if wrong:
        LOG.warning("merged: the GPU merges otherwise than the CPU (%s), so sources stay in memory.", ", ".join(wrong))
    return not wrong


def differences(device: torch.device | str | None) -> list[str]:
    """The methods and dtypes whose merges on this device have other bytes than on the CPU."""
    import torch

    found = []
    for method, dtype in product(("linear", *FORMS), (torch.float32, torch.bfloat16)):
        operands = _example(method, dtype)
        there = replace(operands, inputs=tuple(
            replace(operand, tensor=operand.tensor.to(device)) for operand in operands.inputs))  # fmt: skip
        with Workers(1) as workers:
            ours, theirs = (begin(given, workers, 0, Way.GPU)() for given in (operands, there))
        patterns = [merged.tensor.cpu().view(torch.uint8) for merged in (ours, theirs)]
        if not torch.equal(*patterns):
            found.append(f"{method} in {str(dtype)[6:]}")
    return found


def _example(method: str, dtype: torch.dtype) -> Operands:
    """A base and two models: deltas of every size, many alike, some 0."""
    import torch

    generator = torch.Generator().manual_seed(0)
    base = torch.randn(COUNT, generator=generator) * 0.02
    steps = [torch.randn(COUNT, generator=generator) * 0.003 for _ in range(2)]
    steps[0][::3], steps[1][::5] = 2.0**-9, 0.0
    tensors = [base.to(dtype), *((base + step).to(dtype) for step in steps)]
    parameters = [{"weight": weight, "density": 0.3, "gamma": 0.05} for weight in (0.5, 0.6, -0.4)]
    places = (0, 1, 2) if method == "linear" else (None, 0, 1)
    inputs = tuple(Operand(*given) for given in zip(tensors, places, parameters, strict=True))
    shared = {"normalize": True, "rescale": method.startswith("dare"), "lambda": 0.9}
    return Operands("check", method, inputs, shared, dtype, dtype)
