"""Where the global generators stand at each tensor: as many draws further as mergekit has made; and as before afterwards."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mergekit.sparsify import SparsificationMethod, sparsify

from merge_hooks.kernels.seeding import seeded_by_name, started_at
from merge_hooks.planning.draws import generator_states

METHODS = {"dare_linear": SparsificationMethod.random, "della": SparsificationMethod.della_magprune}


def output(name: str, method: str, count: int, *densities: float) -> Any:
    """A tensor of a plan, as much of it as draws."""
    others = [SimpleNamespace(parameters={"density": density}) for density in densities]
    operands = SimpleNamespace(method=method, others=others, count=count)
    return SimpleNamespace(name=name, merge=SimpleNamespace(method_name=method), operands=lambda: operands)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("densities", [(0.5,), (0.0, 0.5), (1.0, 0.3), (0.2, 0.0, 1.5)])
@pytest.mark.parametrize("count", [1, 5, 1 << 12])
def test_as_many_draws_are_made_as_mergekit_makes(method: str, densities: tuple[float, ...], count: int) -> None:
    """By its own sparsify, in the order of the models; the next tensor starts where this one ended."""
    outputs = [
        output("first", method, count, *densities),
        output("second", method, 3, 0.5),
        output("last", method, 3, 0.5),
    ]
    if method == "della" and count == 1:
        pytest.skip("mergekit divides 0 by 0")
    states = generator_states(SimpleNamespace(in_execution_order=lambda: outputs), 42, {})  # type: ignore[arg-type]
    before = torch.get_rng_state()
    try:
        torch.manual_seed(42)
        for one in outputs:
            assert torch.equal(states[one.name][0], torch.get_rng_state()), one.name
            for operand in one.operands().others:
                sparsify(torch.randn(one.operands().count, generator=torch.Generator().manual_seed(0)),
                         density=operand.parameters["density"], method=METHODS[method], epsilon=0.05)  # fmt: skip
    finally:
        torch.set_rng_state(before)


def drawn() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()


def test_each_name_and_seed_has_numbers_of_its_own() -> None:
    def of(seed: int, name: str) -> tuple[float, float, float]:
        with seeded_by_name(seed, name):
            return drawn()

    found = [of(0, "a"), of(0, "b"), of(1, "a")]
    assert of(0, "a") == found[0]
    assert all(len({one[place] for one in found}) == 3 for place in range(3))


def test_the_generators_are_put_back() -> None:
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    expected = drawn(), drawn()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    first = drawn()
    state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    with pytest.raises(KeyError), seeded_by_name(3, "a"):
        drawn()
        raise KeyError
    with started_at(state):
        again = drawn()
    assert (first, drawn(), again) == (*expected, expected[1])
