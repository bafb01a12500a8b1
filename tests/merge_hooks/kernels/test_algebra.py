"""What must hold of merges whatever the numbers: the algebra of the methods."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import Case, same_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

ALL = settings(max_examples=60, deadline=None)
DTYPES = st.sampled_from([torch.bfloat16, torch.float16, torch.float32])
WEIGHTS = st.floats(-2, 2, width=16).filter(lambda weight: abs(weight) > 0.01)


@st.composite
def models(draw: Any, count: int) -> list[torch.Tensor]:
    shape = draw(st.sampled_from([(3,), (17, 5), (40, 50)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    dtype = draw(DTYPES)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(count)]


@ALL
@given(tensors=models(1), normalize=st.booleans())
def test_weight_1_on_one_source_is_that_source(tensors: list[torch.Tensor], normalize: bool) -> None:
    case = Case("linear", tensors, [{"weight": 1.0}], None, {"normalize": normalize})
    assert same_bytes(case.ours().tensor, tensors[0])


@ALL
@given(tensors=models(3), weights=st.lists(WEIGHTS, min_size=2, max_size=2), normalize=st.booleans())
def test_linear_of_two_is_symmetric(tensors: list[torch.Tensor], weights: list[float], normalize: bool) -> None:
    if normalize and abs(sum(weights)) < 0.01:
        return
    inputs = [{"weight": weight} for weight in weights]
    one = Case("linear", tensors[:2], inputs, None, {"normalize": normalize}).ours().tensor
    other = Case("linear", tensors[1::-1], inputs[::-1], None, {"normalize": normalize}).ours().tensor
    # The second product is fused with the addition on machines that can, so the two may round apart by a
    # float32 ulp.
    scale = sum(abs(weight) for weight in weights) / (abs(sum(weights)) if normalize else 1)
    steps = torch.finfo(one.dtype).eps * one.abs().float() + scale * 4 * torch.finfo(torch.float32).eps * 5
    assert ((one.float() - other.float()).abs() <= steps).all()


@ALL
@given(
    tensors=models(3),
    method=st.sampled_from(["task_arithmetic", "ties", "breadcrumbs", "dare_linear", "dare_ties"]),
)
def test_weight_0_is_the_base(tensors: list[torch.Tensor], method: str) -> None:
    parameters = {"weight": 0.0} | ({} if method == "task_arithmetic" else {"density": 0.5})
    parameters |= {"gamma": 0.01} if method == "breadcrumbs" else {}
    merged = Case(method, tensors, [{}, parameters, parameters], shared={"normalize": False}).ours().tensor
    assert torch.equal(merged, tensors[0])


@ALL
@given(
    tensors=models(2),
    weight=WEIGHTS,
    method=st.sampled_from(["ties", "dare_linear", "dare_ties", "breadcrumbs"]),
)
def test_density_1_and_one_source_is_task_arithmetic(tensors: list[torch.Tensor], weight: float, method: str) -> None:
    inputs = [{}, {"weight": weight, "density": 1.0}]
    plain = Case("task_arithmetic", tensors, inputs, shared={"normalize": False}).ours().tensor
    assert torch.equal(Case(method, tensors, inputs, shared={"normalize": False}).ours().tensor, plain)


@ALL
@given(
    tensors=models(3),
    weights=st.lists(WEIGHTS, min_size=2, max_size=2),
    method=st.sampled_from(["task_arithmetic", "ties", "breadcrumbs", "breadcrumbs_ties"]),
)
def test_two_sources_may_change_places(tensors: list[torch.Tensor], weights: list[float], method: str) -> None:
    extra = {} if method == "task_arithmetic" else {"density": 0.4}
    extra |= {"gamma": 0.02} if method.startswith("breadcrumbs") else {}
    inputs = [{"weight": weight, **extra} for weight in weights]
    one = Case(method, tensors, [{}, *inputs], shared={"normalize": False}).ours().tensor
    other = Case(method, [tensors[0], *tensors[:0:-1]], [{}, *inputs[::-1]], shared={"normalize": False}).ours().tensor
    assert same_bytes(one, other)


@ALL
@given(tensors=models(2), where=st.integers(0, 1))
def test_the_base_may_be_listed_anywhere(tensors: list[torch.Tensor], where: int) -> None:
    inputs: list[dict[str, float]] = [{"weight": 0.5, "density": 0.5}, {}]
    order = [tensors[1], tensors[0]]
    if where == 0:
        inputs, order = inputs[::-1], order[::-1]
    case = Case("ties", order, inputs, where if where == 0 else 1)
    assert same_bytes(case.ours().tensor, Case("ties", tensors, [{}, {"weight": 0.5, "density": 0.5}]).ours().tensor)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_dare_keeps_what_it_says_and_the_sum_of_magnitudes(density: float) -> None:
    """Of float32 deltas; seeds give masks of their own."""
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(400, 500, generator=generator)
    case = Case("dare_linear", [torch.zeros_like(delta), delta], [{}, {"weight": 1.0, "density": density}])
    merged = case.ours(seed=1).tensor
    kept = merged != 0
    assert abs(int(kept.sum()) - 200_000 * density) < 5 * (200_000 * density * (1 - density)) ** 0.5
    torch.testing.assert_close(merged.abs().sum(), delta.abs().sum(), rtol=1e-5, atol=0)
    torch.testing.assert_close(merged[kept], delta[kept] * (merged[kept] / delta[kept]).median())
    assert not torch.equal(merged, case.ours(seed=2).tensor)
    assert same_bytes(merged, case.ours(seed=1).tensor)
