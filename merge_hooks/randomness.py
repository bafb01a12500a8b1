"""Where torch's global generator stands when mergekit's own method computes a tensor.

mergekit draws from the global generator, so what a tensor gets depends on every draw before it. By default we
start the generator for each tensor anew, from the seed and the tensor's name. For those who must match
`mergekit-yaml --random-seed`, `generator_states` finds out where the generator stands in mergekit's run at
each tensor, which it takes in another order than we do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from merge_hooks.methods.masks import stream_key

if TYPE_CHECKING:
    import torch

    from merge_hooks._mergekit import OutputTensor, Plan

GENERATORS = ("iberian", "mergekit")
DRAWS_AT_ONCE = 1 << 20


@contextmanager
def seeded_by_name(seed: int, name: str) -> Iterator[None]:
    """The generator seeded by (seed, tensor name) while this lasts; put back afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_key(seed, name, 0, "global generator"))
        yield


@contextmanager
def started_at(state: torch.Tensor) -> Iterator[None]:
    """The generator in this state while this lasts; put back afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(state)
        yield


def generator_states(plan: Plan, seed: int, memory: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The generator's state before each tensor of `mergekit-yaml --random-seed seed`, by the tensor's name.

    Makes every draw of the whole merge once, without the merge: some seconds for each billion of elements.
    """
    import torch

    states = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for output in plan.in_execution_order():
            states[output.name] = torch.get_rng_state()
            _draw(output, memory)
    return states


def _draw(output: OutputTensor, memory: dict[str, Any]) -> None:
    """Move the generator on by as many draws as mergekit makes for this tensor."""
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
