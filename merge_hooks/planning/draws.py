"""The state of the global random generators when mergekit's own method computes a tensor.

mergekit draws from torch's global generator, so a tensor depends on every draw before it. By default we seed the
generators (torch's, numpy's and Python's, since a plugin's method may use any) anew for each tensor, from the seed and
the tensor's name. Who must match `mergekit-yaml --random-seed` gets `generator_states`: their state before each tensor
in mergekit's own run, which takes the tensors in another order.

The generators belong to the whole process, and so do mergekit's readers of sources. So only one thread at a time
computes by mergekit's methods (`alone`). Only the CPU's generators are changed; engines sample from those of GPUs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from merge_hooks.kernels.seeding import put_back, seed_all, state_of_all

if TYPE_CHECKING:
    from merge_hooks.planning.output import OutputTensor
    from merge_hooks.planning.plan import Plan

DRAWS_AT_ONCE = 1 << 20


def generator_states(plan: Plan, seed: int, memory: dict[str, Any]) -> dict[str, Any]:
    """The generators' state before each tensor of `mergekit-yaml --random-seed seed`, by the tensor's name.

    Makes every draw of the whole merge once, without the merge. That takes some seconds for each billion of elements.
    """
    states = {}
    with put_back():
        seed_all(seed)  # as transformers' set_seed, which mergekit calls
        for output in plan.in_execution_order():
            states[output.name] = state_of_all()
            _draw(output, memory)
    return states


def _draw(output: OutputTensor, memory: dict[str, Any]) -> None:
    """Advance the generator by as many draws as mergekit makes for this tensor."""
    import torch

    is_drawn_here = output.merge.method_name.startswith(("dare_", "della"))
    operands = (output.operands() or output.gathered(memory)) if is_drawn_here else None
    if operands is None:
        output.compute(memory)
        return
    least = 0 if operands.method.startswith("della") else -1  # DELLA draws nothing for a density of 0
    for operand in operands.others:
        if least < operand.parameters["density"] < 1:
            for start in range(0, operands.count, DRAWS_AT_ONCE):
                torch.bernoulli(torch.empty(min(DRAWS_AT_ONCE, operands.count - start)).fill_(0.5))
