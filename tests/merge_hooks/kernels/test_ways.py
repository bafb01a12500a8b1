"""Every method through every way that it can take, on odd cases: mergekit's bytes (see `golden.py` for what it leaves open).

A machine on which nothing is compiled yet takes about a second for each combination of dtypes and options, so the fast
tests need few of them, and the slow ones have each pair of two (`covering`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import pytest
import torch
from golden import METHODS, Case, Kept, family, same_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_hooks.kernels import cpu_steps, gpu_check
from merge_hooks.kernels.choose import Way, begin, may_be_ours, way_of
from merge_hooks.kernels.task_arithmetic import scale_of
from tests.conftest import first_ones

FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
DTYPES = (FLOAT32, BFLOAT16, FLOAT16)
# "gpu" is torch's operations, here on a CPU.
WAYS = (Way.ONE_PASS, Way.GPU, Way.ROWS)
PRUNED = ("ties", "breadcrumbs", "breadcrumbs_ties")


def ways_of(method: str) -> tuple[Way, ...]:
    return WAYS[:2] if method == "linear" else WAYS


def case_of(method: str, tensors: list[torch.Tensor], *given: dict[str, float], **shared: Any) -> Case:
    """The first tensor is the base, if the method has one. Of several parameters the last go on for the other models."""
    asked = [*given, *[given[-1]] * len(tensors)][: len(tensors) - (method != "linear")]
    unknown = {"linear": ("density", "gamma"), "task_arithmetic": ("density", "gamma"), **dict.fromkeys(
        ("ties", "dare_linear", "dare_ties"), ("gamma",))}.get(method, ())  # fmt: skip
    inputs = [{key: value for key, value in values.items() if key not in unknown} for values in asked]
    if method == "linear":
        shared = {key: value for key, value in shared.items() if key == "normalize"}
        return Case(method, tensors, inputs, None, shared)
    return Case(method, tensors, [{}, *inputs], 0, shared)


def odd_cases(method: str, dtype: torch.dtype) -> Iterator[Case]:
    """Two models, so that few functions are compiled."""
    plain = {"weight": 0.6, "density": 0.4, "gamma": 0.02}
    three = family((67, 257), [dtype] * 3)
    for density in (0.4, 0.0, 1e-6, 0.97):
        yield case_of(method, three, plain | {"density": density}, plain | {"weight": -0.7})
    yield case_of(method, three, plain | {"density": 1.0}, plain)
    yield case_of(method, three, plain | {"weight": 0.0}, plain)
    yield case_of(method, three, plain | {"weight": 0.0})
    yield case_of(method, three[:2] if method == "linear" else three, plain | {"weight": 0.3})
    yield case_of(method, three, plain, plain | {"weight": -0.6, "gamma": 0.05})
    if method != "linear":
        shared = {"lambda": -1.3} if dtype == BFLOAT16 else {}  # compiled apart; COMBINATIONS have it in the others
        yield case_of(method, three, plain | {"gamma": 1.0}, plain | {"gamma": 0.0}, **shared)
    for shape in ((1,), (5,), (7, 11, 13)):
        yield case_of(method, family(shape, [dtype] * 3), plain, plain | {"weight": 1.0})
    # A float copy of a coarser checkpoint, half of it not trained: thresholds among many deltas of one magnitude.
    alike = [tensor.to(dtype) for tensor in family((67, 257), [BFLOAT16] * 3, 2)]
    for tensor in alike[1:]:
        tensor[::2] = alike[0][::2]
        tensor[1::4] = alike[0][1::4] + 2.0**-9
    for density in (0.01, 0.26, 0.49, 0.7):
        yield case_of(method, alike, plain | {"density": density}, plain)
    # Some from the middle of those of one magnitude, which have the ranks 0.61 to 0.87: both thresholds are one.
    yield case_of(method, alike, plain | {"density": 0.1, "gamma": 0.2}, plain)
    yield case_of(method, [three[0], three[0].clone(), three[2]], plain)  # one did not move
    for bad, where in product((float("nan"), float("inf"), -float("inf")), range(3)):
        tensors = [tensor.clone() for tensor in three]
        tensors[where][17, 3] = bad
        yield case_of(method, tensors, plain | {"density": 0.1})
    # Sums beyond float16, and NaN made by the merge itself.
    large = [torch.full((40, 50), value, dtype=dtype) for value in (0.0, 65000.0, 64000.0)]
    yield case_of(method, large, plain | {"weight": 1.0, "density": 1.0})


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16, pytest.param(FLOAT16, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_odd_cases_by_every_way(method: str, dtype: torch.dtype) -> None:
    for case in odd_cases(method, dtype):
        case.check(*ways_of(method))


@pytest.mark.parametrize("method", METHODS)
def test_a_sweep_from_what_is_kept(method: str) -> None:
    """Every density again after another one, in several blocks; the second time nothing is looked for anew."""
    tensors, kept = family((1201, 501), [BFLOAT16] * 3, 11), Kept()
    for density in (0.4, 0.03, 0.4):
        for weight in (0.6, -0.2):
            values = {"weight": weight, "density": density, "gamma": 0.02}
            case_of(method, tensors, values, values | {"weight": 0.9}).check(Way.ONE_PASS, kept=kept)
    known = dict(kept)
    case_of(method, tensors, {"weight": 0.1, "density": 0.03, "gamma": 0.02}).check(Way.ONE_PASS, kept=kept)
    assert kept == known


@pytest.mark.parametrize("method", first_ones(["ties", "breadcrumbs", "dare_linear"], 1))
@pytest.mark.parametrize("dtype", first_ones([BFLOAT16, FLOAT32], 1), ids=str)
def test_a_sweep_from_five_models_to_two_and_back(method: str, dtype: torch.dtype) -> None:
    """By torch's operations and by compiled code, which count in pieces of other sizes: thousands of elements were wrong."""
    tensors, kept = [tensor.to(dtype) for tensor in family((601, 501), [BFLOAT16] * 6, 11)], Kept()
    for density, models in ((0.4, 5), (0.3, 2), (0.2, 2), (0.6, 5), (0.5, 2)):
        values = {"weight": 0.6, "density": density, "gamma": 0.02}
        case = case_of(method, tensors[: models + 1], values)
        merged, alone = case.ours(kept=kept), case.ours()
        assert same_bytes(merged.tensor, alone.tensor), (density, models)


@pytest.mark.parametrize("method", METHODS)
def test_five_models_go_in_rows(method: str) -> None:
    tensors = family((129, 33), [BFLOAT16] * 6)
    case = case_of(method, tensors, *({"weight": weight, "density": 0.4, "gamma": 0.02} for weight in (0.6, -0.2, 1.0)))
    own = Way.ONE_PASS if method == "linear" else Way.ROWS
    assert way_of(case.operands()) is own
    case.check(own)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT32], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_one_three_and_four_models(method: str, dtype: torch.dtype) -> None:
    """Normalised or not by turns, for each is compiled: so each number of models and each dtype has both."""
    weights = (0.6, -0.2, 1.0, 0.3)
    for count in (1, 3, 4):
        normalize = (count == 1) == (dtype == BFLOAT16)
        tensors = family((301, 203), [dtype] * (count + (method != "linear")))
        given = [{"weight": weight, "density": 0.4, "gamma": 0.02} for weight in weights]
        case_of(method, tensors, *given, normalize=normalize).check(*ways_of(method))


def test_one_model() -> None:
    """The compiled code takes two: the second one must not count."""
    for method in METHODS[1:]:
        case_of(method, family((7, 11), [BFLOAT16] * 2), {"weight": 0.6, "density": 0.4, "gamma": 0.02}).check(*WAYS)


def test_four_models() -> None:
    """The compiled code takes two or four. NaN is seen where it is pruned, too."""
    tensors = family((67, 257), [BFLOAT16] * 5)
    given = [{"weight": weight, "density": 0.4} for weight in (0.6, -0.2, 1.0, 0.3)]
    case_of("ties", tensors, *given).check(*WAYS)
    for place, way in product((3, 4), WAYS):
        bad = [tensor.clone() for tensor in tensors]
        bad[place][17, 3] = float("nan")
        pruned = [values | {"density": 0.0} if number + 1 == place else values for number, values in enumerate(given)]
        assert not case_of("ties", bad, *pruned).ours(way=way).is_finite


@pytest.mark.parametrize("place", [1, 2])
def test_nan_that_is_drawn_out_is_seen(place: int) -> None:
    """With rescaling the scale would show it."""
    tensors = family((67, 257), [BFLOAT16] * 3)
    tensors[place][17, 3] = float("nan")
    case = case_of("dare_linear", tensors, {"weight": 0.6, "density": 0.0}, rescale=False)
    assert not any(case.ours(way=way).is_finite for way in WAYS)


@pytest.mark.parametrize("weights", [(0.6, 0.3), (0.6, -0.6), (-0.6, 0.1), (5e-9, 2e-9)], ids=str)
def test_sums_of_weights(weights: tuple[float, float]) -> None:
    """The sum divides, but for one that mergekit takes for 0."""
    given = [{"weight": weight} for weight in weights]
    case_of("task_arithmetic", family((7, 11), [FLOAT32] * 3), *given, normalize=True).check(*WAYS)


def test_dares_scale() -> None:
    """None for the smallest deltas, none where it is not asked for; of sums that are too large for float16."""
    values = {"weight": 0.6, "density": 0.4}
    for size in (5e-11, 1e-9):
        tensors = [torch.zeros(1200), torch.full((1200,), size), torch.full((1200,), -size)]
        case_of("dare_linear", tensors, values).check(Way.GPU)
    case_of("dare_linear", family((7, 11), [FLOAT32] * 3), values, rescale=False).check(Way.GPU)
    assert scale_of(1e6, 4e5, FLOAT16) == 2.5
    whole, left = torch.tensor([1.0, 0.3], dtype=BFLOAT16)
    assert scale_of(1.0, 0.3, BFLOAT16) == (whole / left).item() != 1 / 0.3


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_other_dtypes_in_and_out(method: str) -> None:
    """Sources and results are rounded to the dtype of the merge; what is not finite in either is refused."""
    models = 2 + (method != "linear")
    plain, weights = family((7, 11, 13), [FLOAT32] * models), {"weight": 0.6}
    odd = [tensor.clone() for tensor in plain]
    odd[1][2, 3, 4] = torch.tensor(0x7FFFFFFF, dtype=torch.int32).view(FLOAT32)  # NaN, but not to one who rounds it
    for tensors, out_dtype in ((plain, FLOAT16), (plain, torch.float64), (odd, FLOAT16)):
        case = replace(case_of(method, tensors, weights), dtype=BFLOAT16, out_dtype=out_dtype)
        case.check(*WAYS[:2] if out_dtype == FLOAT16 else WAYS[1:2])
    large = [torch.full((40,), 70000.0)] * models
    replace(case_of(method, large, weights), dtype=BFLOAT16, out_dtype=FLOAT16).check(*WAYS[:2])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_linear_merge_whose_base_is_stored_in_another_dtype(place: int) -> None:
    """A recipe may name one of the sources of `linear` as its base: it is summed like the others."""
    stored = [BFLOAT16 if number == place else FLOAT32 for number in range(3)]
    given = [{"weight": weight} for weight in (0.6, -0.2, 1.0)]
    Case("linear", family((67, 257), stored), given, place, dtype=BFLOAT16).check(*WAYS[:2])


@pytest.mark.parametrize("dtype", [BFLOAT16, pytest.param(FLOAT16, marks=pytest.mark.slow)], ids=str)
def test_a_sum_that_rounds_to_infinity(dtype: torch.dtype) -> None:
    largest, eps = torch.finfo(dtype).max, torch.finfo(dtype).eps
    tensors = [torch.full((40,), value, dtype=dtype) for value in (largest, 0.3 * eps * largest)]
    case_of("linear", tensors, {"weight": 1.0}, normalize=False).check(*WAYS[:2])


def covering(*factors: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Some combinations of one value of each factor that hold each pair of values of two factors; always the same ones."""
    chance, rows = random.Random(0), []
    choices = [range(len(factor)) for factor in factors]
    left = {((i, a), (j, b)) for i, j in combinations(range(len(factors)), 2) for a in choices[i] for b in choices[j]}
    while left:
        tried = [tuple(map(chance.choice, choices)) for _ in range(200)]
        new, row = max((len(left.intersection(combinations(enumerate(row), 2))), row) for row in tried)
        if new:
            left.difference_update(combinations(enumerate(row), 2))
            rows.append(tuple(factor[place] for factor, place in zip(factors, row, strict=True)))
    return rows


# Of method, the dtypes of base, sources (None: each has another), merge and result, number of models, normalize, lambda:
# what code is compiled for. All of them together would take half an hour.
COMBINATIONS = covering(METHODS, DTYPES, (*DTYPES, None), DTYPES, DTYPES, (2, 3, 4), (True, False), (1.0, -1.3))


@st.composite
def parameters(draw: Any, method: str, count: int) -> tuple[list[dict[str, float]], dict[str, bool]]:
    """Of each model, and of the merge."""
    densities = [0.0, 0.001, 0.2, 0.5, 0.77, 1.0, 1.5]
    given = [
        {
            "weight": draw(st.sampled_from([0.0, 1.0, -1.0, 0.5, 0.3, -0.7])),
            "density": draw(st.sampled_from(densities if number else densities[:5])),  # where none is pruned is another
            "gamma": draw(st.sampled_from([0.0, 0.01, 0.3])),
        }
        for number in range(count)
    ]
    return given, {"rescale": draw(st.booleans())} if method.startswith("dare") else {}


SHAPES = st.sampled_from([(1,), (5,), (64, 3), (67, 257)])


@pytest.mark.slow  # a minute, where nothing is compiled yet
@pytest.mark.parametrize("combination", COMBINATIONS, ids=str)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_any_parameters(combination: tuple[Any, ...], data: Any) -> None:
    method, base, source, dtype, out_dtype, count, normalize, factor = combination
    stored = [base, *(source or DTYPES[number % 3] for number in range(count))][-count - (method != "linear") :]
    given, shared = data.draw(parameters(method, count))
    tensors = family(data.draw(SHAPES), stored, data.draw(st.integers(0, 1000)))
    case = case_of(method, tensors, *given, normalize=normalize, **{"lambda": factor}, **shared)
    replace(case, dtype=dtype, out_dtype=out_dtype).check(*ways_of(method))


@pytest.mark.slow
@pytest.mark.nightly  # minutes, where nothing is compiled yet
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_dtypes_and_parameters(method: str, data: Any) -> None:
    count = data.draw(st.integers(2, 5))
    stored = [data.draw(st.sampled_from(DTYPES))] * count
    if data.draw(st.booleans()):
        stored = [data.draw(st.sampled_from(DTYPES)) for _ in range(count)]
    given, shared = data.draw(parameters(method, count))
    shared |= {"normalize": data.draw(st.booleans()), "lambda": data.draw(st.sampled_from([1.0, 0.5, -1.3]))}
    case = case_of(method, family(data.draw(SHAPES), stored, data.draw(st.integers(0, 1000))), *given, **shared)
    asked = st.sampled_from([None, *DTYPES, torch.float64])
    case = replace(case, dtype=data.draw(st.sampled_from([None, *DTYPES])), out_dtype=data.draw(asked))
    case.check(*ways_of(method))


@pytest.mark.parametrize("method", METHODS)
def test_threads_and_blocks_leave_no_trace(method: str) -> None:
    """Several pieces and an odd rest, for each number of threads others; and into memory that is given."""
    case = case_of(method, family((601, 1201), [BFLOAT16] * 3, 11), {"weight": 0.6, "density": 0.4, "gamma": 0.01})
    alone = case.ours(threads=1).tensor
    for threads in (2, 3):
        assert same_bytes(case.ours(threads).tensor, alone)
    out = torch.zeros(601, 1201, dtype=BFLOAT16)
    assert case.ours(out=out).tensor.data_ptr() == out.data_ptr() and same_bytes(out, alone)


def test_tensors_that_lie_at_any_byte() -> None:
    """As files may hold them."""
    case = case_of("linear", family((40, 30), [FLOAT32] * 2), {"weight": 0.5})
    wanted = case.golden()
    memory = torch.empty(2, 4 * 1200 + 1, dtype=torch.uint8).numpy()
    for place, tensor in enumerate(case.tensors):
        memory[place, 1:] = tensor.view(-1).view(torch.uint8).numpy()
        case.tensors[place] = torch.frombuffer(memory[place].data, dtype=FLOAT32, offset=1).view(40, 30)
    assert same_bytes(case.ours().tensor, wanted)


def test_which_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of `choose.py`, on a CPU. KnOTS: recipes/test_knots.py."""
    tensors, values = family((10, 10), [FLOAT32] * 3), {"weight": 0.5, "density": 0.5, "gamma": 0.1}
    for method in METHODS:
        assert way_of(case_of(method, tensors, values).operands()) is Way.ONE_PASS
    ties = case_of("ties", tensors, values)
    for case in (
        case_of("ties", [tensor.double() for tensor in tensors], values),
        case_of("ties", [tensor[:0] for tensor in tensors], values),
        case_of("ties", tensors, values, rescale=True),
        case_of("ties", tensors, values | {"density": -0.1}),
        replace(ties, base=None, inputs=[values] * 3),
        replace(ties, tensors=tensors[:1], inputs=[{}]),
        case_of("breadcrumbs", tensors, values | {"gamma": 1.5}),
    ):
        assert way_of(case.operands()) is Way.MERGEKIT
    for dtype, count, way in ((FLOAT16, 3, Way.ONE_PASS), (FLOAT32, 5, Way.ONE_PASS), (FLOAT32, 6, Way.ROWS)):
        assert way_of(case_of("ties", family((2, 2), [dtype] * count), values).operands()) is way
    away = [tensor.to("meta") for tensor in tensors]  # as a GPU: not on the host
    for case, way in (
        (case_of("ties", away, values), Way.GPU),
        (case_of("ties", [*away[:2], tensors[2]], values), Way.ONE_PASS),
        (case_of("ties", [*away[:2], away[2].half()], values), Way.ONE_PASS),
        (replace(case_of("ties", away, values), out_dtype=FLOAT16), Way.ONE_PASS),
    ):
        assert way_of(case.operands()) is way
    monkeypatch.setattr(cpu_steps, "adds_as_torch", lambda: False)
    assert way_of(ties.operands()) is Way.ONE_PASS
    assert way_of(case_of("linear", tensors, values).operands()) is Way.MERGEKIT
    assert way_of(None) is Way.MERGEKIT
    assert may_be_ours("dare_ties", "iberian") and not may_be_ours("dare_ties", "mergekit")
    assert may_be_ours("ties", "mergekit") and may_be_ours("knots_ties", "iberian")
    assert not may_be_ours("slerp", "iberian")


def test_a_gpu_that_merges_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are the CPU here, of which the second has one wrong bit in one method."""
    assert gpu_check.differences("cpu") == [] and not gpu_check.gpu_agrees()
    calls = iter(range(1000))

    def other(operands: Any, *given: Any) -> Any:
        merged = begin(operands, *given)()
        if next(calls) % 2 and operands.method == "dare_ties" and operands.dtype == BFLOAT16:
            merged.tensor.view(torch.int16)[77] ^= 1
        return lambda: merged

    monkeypatch.setattr(gpu_check, "begin", other)
    assert gpu_check.differences("cpu") == ["dare_ties in bfloat16"]
