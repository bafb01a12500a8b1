"""Our kernels against mergekit's methods: the same bytes, but for elements tied at a pruning threshold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import Case, same_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_hooks.kernels.choose import Workers, merge

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
WEIGHTS = st.sampled_from([0.0, 1.0, -1.0, 0.5, 0.3, -0.7, 1.7])
DENSITIES = st.sampled_from([0.0, 0.001, 0.2, 0.5, 0.77, 1.0, 1.5])
SHAPES = st.sampled_from([(1,), (5,), (64, 3), (7, 11, 13), (129, 257)])
MAGNITUDE = ["ties", "breadcrumbs", "breadcrumbs_ties"]


def family(shape: tuple[int, ...], count: int, dtypes: list[torch.dtype], seed: int) -> list[torch.Tensor]:
    """A base and its fine-tunes, with some deltas of exactly 0 and some signed zeros."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator) * 0.02
    base[torch.rand(shape, generator=generator) < 0.05] = -0.0
    tensors = [base]
    for index in range(1, count):
        step = torch.randn(shape, generator=generator) * 0.004 * index
        step[torch.rand(shape, generator=generator) < 0.1] = 0
        tensors.append(base + step)
    return [tensor.to(dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)]


@st.composite
def cases(draw: Any, method: str, most: int = 4, pruned: bool = False) -> Case:
    count = draw(st.integers(2, most))
    mixed = draw(st.booleans())
    dtypes = [draw(st.sampled_from(DTYPES))] * count
    if mixed:
        dtypes = [draw(st.sampled_from(DTYPES)) for _ in range(count)]
    base = None if method == "linear" else draw(st.integers(0, count - 1))
    inputs: list[dict[str, float]] = []
    for index in range(count):
        parameters = {"weight": draw(WEIGHTS)}
        if pruned:
            parameters["density"] = draw(DENSITIES)
        if method.startswith("breadcrumbs"):
            parameters["gamma"] = draw(st.sampled_from([0.0, 0.01, 0.3]))
        inputs.append({} if index == base else parameters)
    shared: dict[str, Any] = {"normalize": draw(st.booleans())}
    if method != "linear":
        shared |= {"lambda": draw(st.sampled_from([1.0, 0.5, -1.3])), "int8_mask": draw(st.booleans())}
    tensors = family(draw(SHAPES), count, dtypes, draw(st.integers(0, 1000)))
    asked = st.sampled_from([None, *DTYPES])
    return Case(method, tensors, inputs, base, shared, draw(asked), draw(asked))


@settings(max_examples=80, deadline=None)
@given(case=cases("linear", most=7))
def test_linear_has_mergekits_bytes(case: Case) -> None:
    golden, merged = case.golden(), case.ours()
    assert merged.is_finite == bool(torch.isfinite(golden).all())
    assert not merged.is_finite or same_bytes(merged.tensor, golden)


@settings(max_examples=80, deadline=None)
@given(case=cases("task_arithmetic", most=8))
def test_task_arithmetic_has_mergekits_bytes(case: Case) -> None:
    golden, merged = case.golden(), case.ours()
    assert merged.is_finite == bool(torch.isfinite(golden).all())
    assert not merged.is_finite or same_bytes(merged.tensor, golden)


@pytest.mark.parametrize("method", MAGNITUDE)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pruning_differs_only_in_tied_elements(method: str, data: st.DataObject) -> None:
    case = data.draw(cases(method, most=6, pruned=True))
    golden, merged = case.golden(), case.ours()
    assert merged.is_finite == bool(torch.isfinite(golden).all())
    differing = (golden != merged.tensor).view(-1)
    assert not merged.is_finite or not (differing & ~tied(case)).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", MAGNITUDE)
def test_ties_are_few_and_hold_every_difference(method: str, dtype: torch.dtype, record_property: Any) -> None:
    """At the size of a real matrix: counts the tied elements, and the differences among them."""
    parameters = {"weight": 0.6, "density": 0.5} | ({} if method == "ties" else {"gamma": 0.01})
    case = Case(method, family((1000, 700), 3, [dtype] * 3, 7), [{}, parameters, parameters])
    golden, merged = case.golden(), case.ours()
    differing, ties = (golden != merged.tensor).view(-1), tied(case)
    record_property("tied", int(ties.sum()))
    record_property("differing", int(differing.sum()))
    assert not (differing & ~ties).any()
    assert ties.float().mean() < 0.02
    assert same_bytes(torch.where(ties, 0, merged.tensor.view(-1)), torch.where(ties, 0, golden.view(-1)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", MAGNITUDE)
def test_without_ties_pruning_has_mergekits_bytes(method: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    distinct = torch.arange(1, 20_001, dtype=torch.int16).view(torch.bfloat16).to(dtype)
    distinct = distinct if dtype != torch.float16 else torch.arange(1, 20_001, dtype=torch.int16).view(dtype)
    deltas = [
        distinct[torch.randperm(20_000, generator=generator)]
        * (1 - 2 * torch.randint(0, 2, (20_000,), generator=generator))
        for _ in range(2)
    ]
    tensors = [torch.zeros(200, 100, dtype=dtype), *(delta.to(dtype).reshape(200, 100) for delta in deltas)]
    for density in (0.1, 0.5, 0.9999):
        parameters = {"weight": -0.7, "density": density} | ({} if method == "ties" else {"gamma": 0.02})
        case = Case(method, tensors, [{}, parameters, parameters | {"weight": 1.0}])
        assert same_bytes(case.ours().tensor, case.golden())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_with_the_same_mask_has_mergekits_bytes(
    method: str, rescale: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    from merge_hooks.kernels.masks import Mask

    parameters = [{}, {"weight": 0.6, "density": 0.3}, {"weight": -0.4, "density": 0.8}]
    case = Case(method, family((300, 200), 3, [dtype] * 3, 3), parameters, shared={"rescale": rescale})
    masks = [Mask(density, 5, "x", place).kept(0, 60_000) != 0 for place, density in enumerate((0.3, 0.8))]
    drawn = iter(torch.from_numpy(mask).reshape(300, 200) for mask in masks)
    monkeypatch.setattr(torch, "bernoulli", lambda chances: next(drawn).to(chances.dtype))
    golden, merged = case.golden(), case.ours(seed=5).tensor
    if dtype == torch.bfloat16 or not rescale:
        assert same_bytes(merged, golden)
        return
    # mergekit sums the magnitudes in float32 in an order that depends on its threads; we sum in float64.
    assert (merged.float() - golden.float()).abs().max() <= 0.1 * torch.finfo(dtype).eps
    assert dtype == torch.float32 or (merged != golden).float().mean() < 0.001


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", *MAGNITUDE, "dare_linear", "dare_ties"])
def test_threads_and_blocks_leave_no_trace(method: str) -> None:
    parameters = {"weight": 0.6} | ({} if method in ("linear", "task_arithmetic") else {"density": 0.4})
    parameters |= {"gamma": 0.01} if method.startswith("breadcrumbs") else {}
    base = None if method == "linear" else 0
    # Several blocks and an odd rest.
    tensors = family((601, 1201), 3, [torch.bfloat16] * 3, 11)
    case = Case(method, tensors, [parameters if method == "linear" else {}, parameters, parameters], base)
    alone = case.ours(threads=1, seed=9).tensor
    for threads in (2, 3):
        assert same_bytes(case.ours(threads=threads, seed=9).tensor, alone)
    intra = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert same_bytes(case.ours(threads=1, seed=9).tensor, alone)
    finally:
        torch.set_num_threads(intra)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", ["linear", "task_arithmetic", *MAGNITUDE, "dare_linear", "dare_ties"])
def test_no_nan_or_infinity_goes_by_unseen(method: str, bad: float) -> None:
    """Not even one that pruning would have dropped, or the election outvoted."""
    parameters = {"weight": 0.6} | ({} if method in ("linear", "task_arithmetic") else {"density": 0.1})
    parameters |= {"gamma": 0.3} if method.startswith("breadcrumbs") else {}
    for dtype in DTYPES:
        tensors = family((50, 40), 3, [dtype] * 3, 2)
        case = Case(method, tensors, [parameters] * 3, None if method == "linear" else 0)
        assert case.ours().is_finite
        tensors[1][17, 3] = bad
        assert not case.ours().is_finite


def test_what_is_not_ours_goes_to_mergekit() -> None:
    parameters = {"weight": 0.5, "density": 0.5}
    tensors = family((10, 10), 2, [torch.float32] * 2, 0)
    with Workers(1) as workers:
        for case in (
            Case("ties", [tensor.double() for tensor in tensors], [{}, parameters]),
            Case("ties", tensors, [{}, parameters], shared={"rescale": True}),
            Case("ties", tensors, [{}, parameters | {"density": -0.1}]),
            Case("slerp", tensors, [{}, {}], shared={"t": 0.5}),
        ):
            assert merge(case.operands(), workers) is None


def tied(case: Case) -> torch.Tensor:
    """Elements whose magnitude in some pruned delta is that of a threshold which not all of them pass."""
    operands = case.operands()
    assert operands.base is not None
    marked = torch.zeros(operands.count, dtype=torch.bool)
    base = operands.base.flat.to(operands.dtype)
    for operand in operands.others:
        density, count = operand.parameters["density"], operands.count
        if not 0 < density < 1:
            continue
        magnitudes = (operand.flat.to(operands.dtype) - base).abs().float()
        ordered = magnitudes.sort().values
        if case.method == "ties":
            edges = [count - max(1, int(density * count))]
        else:
            start = max(0, count - int(density * count) - int(operand.parameters["gamma"] * count))
            edges = [start, start + int(density * count)]
        for edge in edges:  # ordered[edge - 1] and ordered[edge] lie on two sides of the threshold
            if 0 < edge < count and ordered[edge - 1] == ordered[edge]:
                marked |= magnitudes == ordered[edge]
    return marked
