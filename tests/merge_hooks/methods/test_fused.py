"""The one-pass kernels against the torch kernels: the same bytes for every method, dtype, weight and density.

The torch kernels are compared with mergekit itself in test_kernels.py.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import pytest
import torch
from golden import Case, same_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kernels import WEIGHTS, family

from merge_hooks.kernels.choose import Merged, Workers, merge
from merge_hooks.kernels.task_arithmetic import FORMS

pytest.importorskip("numba")
DTYPES = [torch.bfloat16, torch.float32]
METHODS = ["linear", *FORMS]
# Stored, computed in, given out: each combination is compiled for itself, which takes seconds.
COMBINATIONS = [
    (torch.float32, torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32, torch.bfloat16), (torch.float32, torch.bfloat16, torch.float32),
]  # fmt: skip


class Kept:
    """A plain dictionary in the place of the resident holder."""

    def __init__(self) -> None:
        self.values: dict[Hashable, Any] = {}
        self.made = 0

    def __call__(self, key: Hashable, make: Any) -> Any:
        if key not in self.values:
            self.values[key] = make()
            self.made += 1
        return self.values[key]


def fused(case: Case, kept: Kept | None = None, threads: int = 2, seed: int = 3, out: Any = None) -> Merged:
    from merge_hooks.kernels.resident import one_pass as fused

    operands = case.operands()
    inputs = tuple(replace(operand, origin=index) for index, operand in enumerate(operands.inputs))
    kept = Kept() if kept is None else kept
    operands = replace(operands, inputs=inputs, is_resident=True, keep=kept, kept=kept.values.get, out=out)
    with Workers(threads) as workers:
        pending = fused.begin(operands, workers, seed)
        assert pending is not None, "the fused kernel did not take this case"
        return pending()


@st.composite
def cases(draw: Any, method: str) -> Case:
    stored, computed, given_out = draw(st.sampled_from(COMBINATIONS))
    shape = draw(st.sampled_from([(1,), (5,), (64, 3), (129, 257)]))
    count = draw(st.sampled_from([2, 3]))
    base = None if method == "linear" else draw(st.integers(0, count - 1))
    inputs: list[dict[str, float]] = []
    for index in range(count):
        parameters = {"weight": draw(WEIGHTS)}
        if method not in ("linear", "task_arithmetic"):
            parameters["density"] = draw(st.sampled_from([0.0, 0.001, 0.2, 0.5, 0.77, 1.0]))
        if method.startswith("breadcrumbs"):
            parameters["gamma"] = draw(st.sampled_from([0.0, 0.01, 0.3]))
        inputs.append({} if index == base else parameters)
    shared: dict[str, Any] = {"normalize": draw(st.booleans())}
    if method != "linear":
        shared |= {"lambda": draw(st.sampled_from([1.0, 0.5, -1.3]))}
    if method.startswith("dare"):
        shared["rescale"] = draw(st.booleans())
    tensors = family(shape, count, [stored] * count, draw(st.integers(0, 1000)))
    return Case(method, tensors, inputs, base, shared, computed, given_out)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_the_same_bytes_as_the_torch_kernels(method: str, data: Any) -> None:
    case, kept = data.draw(cases(method)), Kept()
    for _ in range(2):  # the second time from what was kept
        for weight in (None, 0.31, -1.1):
            if weight is not None:
                case.inputs = [{**values, "weight": weight} if values else {} for values in case.inputs]
            ours, theirs = fused(case, kept), case.ours(seed=3)
            assert ours.is_finite == theirs.is_finite
            assert not ours.is_finite or same_bytes(ours.tensor, theirs.tensor)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_several_blocks_and_densities_from_what_is_kept(method: str, dtype: torch.dtype) -> None:
    """Ties at a threshold that are cut in the middle of a block; every density again after another one."""
    tensors, kept = family((1201, 901), 3, [dtype] * 3, 11), Kept()
    base = None if method == "linear" else 0
    for density in (0.4, 0.03, 0.4, 0.9):
        for weight in (0.6, -0.2):
            parameters = {"weight": weight, "density": density, "gamma": 0.02}
            case = Case(method, tensors, [parameters, {**parameters, "weight": 0.9}, parameters], base)
            assert same_bytes(fused(case, kept).tensor, case.ours(seed=3).tensor)
    made = kept.made
    fused(case, kept)
    assert kept.made == made


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("method", ["ties", "breadcrumbs"])
def test_deltas_that_are_alike(method: str, on_device: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A float32 copy of bfloat16 checkpoints, half of it not trained: thresholds among many deltas of one magnitude."""
    if on_device:
        monkeypatch.setattr("merge_hooks.kernels.resident.one_pass._on_device", lambda operands: True)
    tensors = [tensor.float() for tensor in family((701, 901), 3, [torch.bfloat16] * 3, 11)]
    for tensor in tensors[1:]:
        tensor[::2] = tensors[0][::2]
        tensor[1::4] = tensors[0][1::4] + 2.0**-9
    kept = Kept()
    for density in (0.01, 0.2, 0.26, 0.4, 0.2, 0.49, 0.7, 0.97):
        case = Case(method, tensors, [{}, *[{"weight": 0.6, "density": density, "gamma": 0.02}] * 2])
        assert same_bytes(fused(case, kept).tensor, case.ours(seed=3).tensor)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", METHODS)
def test_no_nan_or_infinity_goes_by_unseen(method: str, bad: float) -> None:
    parameters = {"weight": 0.6, "density": 0.1, "gamma": 0.3}
    for dtype in DTYPES:
        tensors = family((50, 41), 3, [dtype] * 3, 2)
        case = Case(method, tensors, [parameters] * 3, None if method == "linear" else 0)
        assert fused(case).is_finite
        tensors[1][17, 3] = bad
        assert not fused(case).is_finite


def test_a_nan_whose_pattern_is_all_ones_is_not_rounded_away() -> None:
    tensors = family((50, 41), 3, [torch.float32] * 3, 2)
    tensors[1].view(torch.int32)[17, 3] = 0x7FFFFFFF
    parameters = {"weight": 0.6, "density": 0.1}
    for method in ("linear", "task_arithmetic", "ties"):
        base = None if method == "linear" else 0
        assert not fused(Case(method, tensors, [parameters] * 3, base, dtype=torch.bfloat16)).is_finite


@pytest.mark.parametrize("method", METHODS)
def test_threads_leave_no_trace_and_the_result_goes_where_it_shall(method: str) -> None:
    parameters = {"weight": 0.6, "density": 0.4, "gamma": 0.01}
    tensors = family((601, 1201), 3, [torch.bfloat16] * 3, 11)
    case = Case(method, tensors, [parameters] * 3, None if method == "linear" else 0)
    out = torch.empty(601, 1201, dtype=torch.bfloat16)
    merged = fused(case, threads=1, out=out)
    assert merged.tensor.data_ptr() == out.data_ptr()
    assert same_bytes(fused(case, threads=3).tensor, out)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_way_for_gpus_has_the_same_bytes(method: str, data: Any) -> None:
    """Its operations, on a CPU: no GPU is needed to see that they are the right ones."""
    case = data.draw(cases(method))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("merge_hooks.kernels.resident.one_pass._on_device", lambda operands: True)
        ours = fused(case)
    theirs = case.ours(seed=3)
    assert ours.is_finite == theirs.is_finite
    assert not ours.is_finite or same_bytes(ours.tensor, theirs.tensor)


@pytest.mark.parametrize("method", ["ties", "dare_linear", "breadcrumbs"])
def test_three_beside_the_base(method: str) -> None:
    parameters = [{}, *({"weight": weight, "density": 0.4, "gamma": 0.02} for weight in (0.6, -0.2, 1.0))]
    case = Case(method, family((301, 203), 4, [torch.bfloat16] * 4, 5), parameters, shared={"normalize": True})
    assert same_bytes(fused(case).tensor, case.ours(seed=3).tensor)


def test_what_is_not_taken_goes_to_the_other_kernels() -> None:
    """Five sources, float16 and mixed dtypes: the result is theirs."""
    narrow = family((40, 30), 3, [torch.float16] * 3, 1)
    mixed = family((40, 30), 3, [torch.bfloat16, torch.float32, torch.bfloat16], 1)
    many = family((40, 30), 6, [torch.float32] * 6, 1)
    for tensors in (narrow, mixed, many):
        case = Case("ties", tensors, [{}, *[{"weight": 0.5, "density": 0.5}] * (len(tensors) - 1)])
        with Workers(2) as workers:
            merged = merge(replace(case.operands(), is_resident=True), workers)
        assert merged is not None and same_bytes(merged.tensor, case.ours().tensor)
