"""The average itself, against the closed form and its algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mergekit.merge_methods import merge_tensors

from merge_hooks.methods.fisher import fisher_average

NUMBERS = st.floats(-4, 4, width=32)
SQUARES = st.floats(0, 4, width=32)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[torch.Tensor], list[torch.Tensor], list[float]]:
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 5)))
    count = draw(st.integers(1, 4))

    def some(numbers: st.SearchStrategy[float]) -> list[torch.Tensor]:
        return [torch.from_numpy(draw(arrays(np.float32, shape, elements=numbers))) for _ in range(count)]

    weights = draw(st.lists(st.floats(0.015625, 4, width=32), min_size=count, max_size=count))
    return some(NUMBERS), some(SQUARES), weights


@given(cases())
@settings(max_examples=60, deadline=None)
def test_it_is_the_closed_form_in_float64(case: tuple[list[torch.Tensor], list[torch.Tensor], list[float]]) -> None:
    tensors, maps, weights = case
    floor = 1e-8 * max(float(values.max()) for values in maps) or 1.0
    shares = [np.maximum(values.numpy().astype(np.float64), floor) * w for values, w in zip(maps, weights, strict=True)]
    golden = sum(s * tensor.numpy().astype(np.float64) for s, tensor in zip(shares, tensors, strict=True)) / sum(shares)
    merged = fisher_average(tensors, maps, weights).numpy()
    np.testing.assert_allclose(merged, golden, rtol=0, atol=4e-6)
    lowest, highest = np.min([t.numpy() for t in tensors], 0), np.max([t.numpy() for t in tensors], 0)
    assert (merged >= lowest - 1e-5).all() and (merged <= highest + 1e-5).all()


@given(cases(), st.sampled_from([0.25, 2.0, 3.0, 1e6]))
@settings(max_examples=40, deadline=None)
def test_only_ratios_of_weights_count(
    case: tuple[list[torch.Tensor], list[torch.Tensor], list[float]], factor: float
) -> None:
    tensors, maps, weights = case
    scaled = fisher_average(tensors, maps, [weight * factor for weight in weights])
    torch.testing.assert_close(scaled, fisher_average(tensors, maps, weights), rtol=0, atol=4e-6)


@given(cases())
@settings(max_examples=40, deadline=None)
def test_the_order_of_sources_and_the_scale_of_all_maps_do_not_matter(
    case: tuple[list[torch.Tensor], list[torch.Tensor], list[float]],
) -> None:
    tensors, maps, weights = case
    merged = fisher_average(tensors, maps, weights)
    torch.testing.assert_close(fisher_average(tensors[::-1], maps[::-1], weights[::-1]), merged, rtol=0, atol=4e-6)
    powers = [values * 2.0**-60 for values in maps]
    if not any(((values > 0) & (values < 1e-12)).any() for values in maps):  # no subnormals afterwards
        assert torch.equal(fisher_average(tensors, powers, weights), merged)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_equal_maps_give_mergekits_plain_mean_to_the_bit(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(300, 7, generator=generator) for _ in range(count)]
    values = torch.rand(300, 7, generator=generator) * 1e-9
    golden = merge_tensors(tensors, "linear", parameters={"weight": [1.0] * count})
    assert torch.equal(fisher_average(tensors, [values] * count, [1.0] * count), golden)


def test_where_no_source_cares_the_weighted_mean_is_taken() -> None:
    tensors = [torch.tensor([1.0, 1.0]), torch.tensor([5.0, 5.0])]
    maps = [torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0])]
    assert fisher_average(tensors, maps, [3.0, 1.0]).tolist() == pytest.approx([2.0, 1.0])
    nothing = [torch.zeros(2), torch.zeros(2)]
    assert fisher_average(tensors, nothing, [3.0, 1.0]).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("tiny", [1e-45, 1e-38, 3e38])
def test_maps_at_the_ends_of_float32_give_numbers(tiny: float) -> None:
    tensors = [torch.tensor([1.0]), torch.tensor([3.0])]
    merged = fisher_average(tensors, [torch.tensor([tiny])] * 2, [1e-3, 1e-3])
    assert merged.item() == 2.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_rounded_once(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(50, generator=generator).to(dtype) for _ in range(3)]
    maps = [torch.rand(50, generator=generator) for _ in range(3)]
    merged = fisher_average(tensors, maps, [1.0, 2.0, 0.5])
    wide = fisher_average([tensor.double() for tensor in tensors], maps, [1.0, 2.0, 0.5])
    assert merged.dtype == dtype
    torch.testing.assert_close(merged.double(), wide, rtol=torch.finfo(dtype).eps, atol=1e-6)
