"""Blocks of a tensor: what is finite, and results in the order of the blocks."""

from __future__ import annotations

import pytest
import torch

from merge_hooks.kernels.blocks import Workers, is_finite


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_sum_that_overflows_is_no_infinity(dtype: torch.dtype) -> None:
    """The fast pass sums; only where the sum is not finite are the elements asked."""
    largest = torch.full((4,), torch.finfo(dtype).max, dtype=dtype)
    assert is_finite(largest) and is_finite(torch.zeros(0, dtype=dtype))
    for bad in (float("inf"), -float("inf"), float("nan")):
        largest[2] = bad
        assert not is_finite(largest)
    assert not is_finite(torch.tensor([float("inf"), -float("inf")], dtype=dtype))
    assert is_finite(torch.tensor([1, 2]))


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_the_order_of_the_blocks(threads: int) -> None:
    with Workers(threads) as workers:
        assert workers.map(10, lambda span, _: (span.start, span.stop), 4) == [(0, 4), (4, 8), (8, 10)]
        assert workers.map(0, lambda span, _: span, 4) == []
