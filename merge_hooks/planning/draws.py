"""Where the global generators stand when mergekit's own method computes a tensor.

mergekit draws from torch's global generator, so what a tensor gets depends on every draw before it. By default we
start the generators (torch's, numpy's and Python's, for a plugin's method may use any) for each tensor anew, from the
seed and the tensor's name. For those who must match `mergekit-yaml --random-seed`, `generator_states` finds out where
they stand in mergekit's run at each tensor, which it takes in another order than we do.

They are the process's, and so are mergekit's readers of sources: one thread at a time computes by mergekit's methods
(`alone`). Only the CPU's generators are touched. Those of GPUs, which an engine samples from, stay as they are.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from merge_hooks.kernels.masks import stream_key

if TYPE_CHECKING:
    from merge_hooks.planning.plan import OutputTensor, Plan

GENERATORS = ("iberian", "mergekit")
DRAWS_AT_ONCE = 1 << 20
# Held again by the same thread where a source is itself a merge.
_ALONE = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """No other thread of this process computes by mergekit's methods while this lasts."""
    with _ALONE:
        yield


@contextmanager
def seeded_by_name(seed: int, name: str) -> Iterator[None]:
    """The generators seeded by (seed, tensor name) while this lasts; put back afterwards."""
    with _put_back():
        _seed(stream_key(seed, name, 0, "global generator"))
        yield


@contextmanager
def started_at(state: Any) -> Iterator[None]:
    """The generators in this state while this lasts; put back afterwards."""
    with _put_back():
        _set_state(state)
        yield


def generator_states(plan: Plan, seed: int, memory: dict[str, Any]) -> dict[str, Any]:
    """The generators' state before each tensor of `mergekit-yaml --random-seed seed`, by the tensor's name.

    Makes every draw of the whole merge once, without the merge: some seconds for each billion of elements.
    """
    states = {}
    with _put_back():
        _seed(seed)  # as transformers' set_seed, which mergekit calls
        for output in plan.in_execution_order():
            states[output.name] = _state()
            _draw(output, memory)
    return states


@contextmanager
def _put_back() -> Iterator[None]:
    with alone():
        before = _state()
        try:
            yield
        finally:
            _set_state(before)


def _seed(seed: int) -> None:
    import numpy as np
    import torch

    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU's too, and nobody puts them back
    np.random.seed(seed % (1 << 32))
    random.seed(seed)


def _state() -> Any:
    import numpy as np
    import torch

    return torch.default_generator.get_state(), np.random.get_state(), random.getstate()


def _set_state(state: Any) -> None:
    import numpy as np
    import torch

    torch.default_generator.set_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])


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
