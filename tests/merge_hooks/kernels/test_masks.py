"""The random masks: splitmix64's numbers, the density asked for, no dependence where there must be none."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from golden import drawn_by_numpy, splitmix
from hypothesis import example, given, settings
from hypothesis import strategies as st

from merge_hooks.kernels import torch_steps
from merge_hooks.kernels.masks import mask, stream_key

COUNT = 1 << 20


def drawn(density: float, seed: int = 0, tensor: str = "a.weight", place: int = 0, count: int = COUNT) -> np.ndarray:
    return torch_steps.drawn(torch.empty(count), mask(density, seed, tensor, place), 0).numpy()


def test_the_words_are_splitmix64s() -> None:
    """Outputs for seed 1234567, as published with the reference implementation's tests."""
    golden = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix(1234567, np.arange(5, dtype=np.uint64)).tolist() == golden
    assert torch_steps.random_words(1234567, 0, 5).numpy().view(np.uint64).tolist() == golden
    assert torch_steps.random_words(1234567, 2, 3).numpy().view(np.uint64).tolist() == golden[2:]


@pytest.mark.parametrize("density", [0.0, 1e-6, 0.3, 0.99999, 1.0])
def test_masks_are_as_described(density: float) -> None:
    """The compiled ones: test_ways.py."""
    assert np.array_equal(drawn(density, 5, "b", 2), drawn_by_numpy(density, 5, "b", 2, COUNT))


@pytest.mark.parametrize("density", [1e-6, 0.001, 0.1, 0.5, 0.99999])
def test_the_density_is_met_within_binomial_bounds(density: float) -> None:
    """Over four masks of a million elements, and in each of them."""
    counts = [int(drawn(density, tensor=f"t{index}").sum()) for index in range(4)]
    deviation = math.sqrt(COUNT * density * (1 - density))
    assert all(abs(count - COUNT * density) < 5.5 * deviation + 1 for count in counts)
    assert abs(sum(counts) - 4 * COUNT * density) < 4 * math.sqrt(4) * deviation


def test_density_0_and_1_are_exact() -> None:
    assert not drawn(0.0).any()
    assert drawn(1.0).all()


@pytest.mark.parametrize("density", [0.1, 0.5])
def test_masks_are_independent(density: float) -> None:
    """Across tensors, sources, seeds and neighbouring elements: correlations are those of chance."""
    first = drawn(density)
    others = [drawn(density, tensor="b.weight"), drawn(density, place=1), drawn(density, seed=1)]
    others += [np.roll(first, step) for step in (1, 2, 3, 4, 1024, 4096)]
    for other in others:
        correlation = np.corrcoef(first, other)[0, 1]
        assert abs(correlation) < 5 / math.sqrt(COUNT)


def test_all_lanes_of_a_word_have_the_density() -> None:
    lanes = drawn(0.3).reshape(-1, 4).mean(axis=0)
    assert np.abs(lanes - 0.3).max() < 5 * math.sqrt(0.21 / (COUNT / 4))


@settings(max_examples=50, deadline=None)
@example(density=0.3, cuts=[131_072], count=COUNT)  # some 30 elements lie on the threshold, half of them beyond the cut
@given(density=st.floats(0, 1), cuts=st.lists(st.integers(0, 2000), max_size=4), count=st.integers(1, 8001))
def test_a_mask_does_not_depend_on_how_it_is_read(density: float, cuts: list[int], count: int) -> None:
    draws = mask(density, 3, "a.weight", 1)
    edges = sorted({0, count, *(4 * cut for cut in cuts if 4 * cut < count)})
    parts = [torch_steps.drawn(torch.empty(stop - start), draws, start) for start, stop in pairwise(edges)]
    assert torch.equal(torch.cat(parts), torch_steps.drawn(torch.empty(count), draws, 0))


def test_streams_have_starts_of_their_own() -> None:
    keys = {
        stream_key(seed, tensor, place, purpose)
        for seed in (0, 1, 10)
        for tensor in ("a", "b", "a1")
        for place in (0, 1, 11)
        for purpose in ("mask", "tie")
    }
    assert len(keys) == 3 * 3 * 3 * 2
