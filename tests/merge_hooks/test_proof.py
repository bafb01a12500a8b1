"""Prints of tensors: a layer with the same weights has the same one, and a layer with any other weights has not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_hooks.engines.proof import (
    COLUMNS,
    Expected,
    Print,
    columns_between,
    columns_of,
    differing,
    differing_in_float8,
    join,
    of_products,
    probes,
    signs_of,
    take,
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SIZES = st.integers(1, 300)


def random(rows: int, width: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def layer(weight: torch.Tensor) -> Print:
    """What an engine's layer with these weights answers."""
    width = weight.shape[1]
    inputs = probes(width, range(len(columns_of(width)))).to(weight.dtype)
    return of_products(torch.nn.functional.linear(inputs, weight))


def wrong(found: Print, wanted: Print, dtype: torch.dtype = torch.float32) -> list[int]:
    return differing(found, wanted, dtype).nonzero().flatten().tolist()


@given(SIZES, SIZES, st.sampled_from(DTYPES), st.integers(0, 9))
@settings(max_examples=60)
def test_the_same_weights_are_the_same(rows: int, width: int, dtype: torch.dtype, seed: int) -> None:
    weight = random(rows, width, dtype, seed)
    assert wrong(layer(weight), take(weight), dtype) == []


@given(SIZES, SIZES, st.sampled_from(DTYPES), st.data())
@settings(max_examples=60)
def test_a_row_that_is_another_is_found(rows: int, width: int, dtype: torch.dtype, data: Any) -> None:
    """Zeros, the old row, or one that is longer by a hundredth: in that row and in no other."""
    weight, row = random(rows, width, dtype), data.draw(st.integers(0, rows - 1))
    spoilt = weight.clone()
    spoilt[row] = data.draw(st.sampled_from([torch.zeros(width), random(1, width, seed=8)[0], weight[row] * 1.02]))
    assert wrong(layer(spoilt), take(weight), dtype) == [row]


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_that_are_stale_by_the_last_bit_are_found(dtype: torch.dtype) -> None:
    """Two neighbouring points of a sweep round to the same number nearly everywhere."""
    weight = random(64, 512, dtype)
    step = torch.where(weight > 0, 1, -1).to(torch.int32 if dtype == torch.float32 else torch.int16)
    stale = (weight.view(step.dtype) + step).view(dtype)
    assert (stale.float() - weight.float()).abs().max() <= torch.finfo(dtype).eps * weight.float().abs().max()
    assert wrong(layer(stale), take(weight), dtype) == list(range(64))


def test_every_element_takes_part() -> None:
    """An element that is wrong by a hundredth is found in every column, not only in those that are compared exactly."""
    weight = random(5, 37)
    for column in range(37):
        spoilt = weight.clone()
        spoilt[3, column] += 0.01
        assert wrong(layer(spoilt), take(weight)) == [3]


@pytest.mark.parametrize("place", range(COLUMNS))
def test_one_compared_column_that_is_wrong_by_the_last_bit_is_enough(place: int) -> None:
    """The sum over the row, which is rounded, does not show it."""
    weight = random(5, 512)
    spoilt, column = weight.clone(), columns_of(512)[place]
    spoilt[3, column] = torch.nextafter(weight[3, column], torch.tensor(9.0))
    assert wrong(layer(spoilt), take(weight)) == [3]


def test_every_quarter_has_a_column() -> None:
    """So that each of four shards of a row is compared exactly."""
    for width in (4, 64, 1000, 4096):
        assert [column * COLUMNS // width for column in columns_of(width)] == list(range(COLUMNS))
        assert columns_between(width, width // 2, width) == [2, 3]
    assert set(signs_of(1000).tolist()) == {-1.0, 1.0}


def test_nothing_passes_for_nan() -> None:
    weight = random(4, 16)
    for value in (torch.nan, torch.inf):
        spoilt = weight.clone()
        spoilt[2, 5] = value
        assert 2 in wrong(layer(spoilt), take(weight))


def test_fused_sharded_and_reordered() -> None:
    one, two = random(8, 16), random(4, 16, seed=1)
    whole = join([take(one), take(two)])
    fused = torch.cat([one, two])
    assert wrong(layer(fused), whole) == []
    rows = torch.tensor([6, 7, 10, 11])
    assert wrong(layer(fused[rows]), whole.at(rows)) == []
    assert wrong(layer(fused[rows.flip(0)]), whole.at(rows)) == [0, 1, 2, 3]
    order = whole.find(layer(fused[rows.flip(0)]))
    assert order is not None and order.tolist() == [11, 10, 7, 6]
    assert whole.find(layer(random(4, 16, seed=5))) is None
    assert whole.find(layer(fused[[3, 3]])) is None  # a row is there once
    one_column = of_products(torch.nn.functional.linear(probes(16, [2]), one))
    assert wrong(one_column, take(one).with_columns([2])) == [] != wrong(one_column, take(one).with_columns([1]))
    sums = sum(torch.nn.functional.linear(probes(16)[:, part], one[:, part]) for part in (slice(0, 8), slice(8, 16)))
    assert wrong(of_products(sums), take(one)) == []  # two ranks of a row-parallel layer


def test_a_stream_is_rounded_as_the_engine_rounds_it() -> None:
    weight, norm = random(300, 700), random(1, 9)[0]
    expected = Expected(torch.bfloat16)
    passed = dict(expected.watch([("w", weight), ("n", norm)]))
    assert passed["w"] is weight
    assert wrong(layer(weight.to(torch.bfloat16)), expected.prints["w"], torch.bfloat16) == []
    assert torch.equal(expected.prints["n"].value, norm)  # type: ignore[arg-type]
    norm += 1
    assert not torch.equal(expected.prints["n"].value, norm)  # type: ignore[arg-type]
    assert wrong(layer(weight.to(torch.bfloat16)), take(weight), torch.bfloat16) != []


def test_a_parameter_that_moved_is_named() -> None:
    """Graphs captured on a GPU would go on reading the old one."""
    from merge_hooks.engines.vllm_worker import moved

    model, addresses = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)), {}
    assert moved(model, addresses) == [] and len(addresses) == 4
    with torch.no_grad():
        model[1].weight.add_(1)
    assert moved(model, addresses) == []
    model[1].weight = torch.nn.Parameter(model[1].weight.detach().clone())
    assert moved(model, addresses) == ["1.weight: it lies elsewhere than captured graphs read it"]


def in_float8(weight: torch.Tensor, scales: str) -> torch.Tensor:
    """As an engine holds it: e4m3 numbers times a scale for each row, or one for all rows (vLLM's `online/fp8.py`)."""
    whole = weight.float()
    peaks = whole.abs().amax(dim=1, keepdim=True) if scales == "row" else whole.abs().max().reshape(1, 1)
    scale = (peaks / 448).clamp_min(1 / (448 * 512))
    return (whole / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale


def rows_that_differ(weight: torch.Tensor, held: torch.Tensor, scales: str) -> torch.Tensor:
    """By the prints of a merge's matrix and of a layer with the held one, whose answers have the matrix' dtype."""
    wanted = take(weight, weight.dtype, quantised=True)
    assert wanted.peaks is not None
    if scales == "layer":
        wanted = replace(wanted, peaks=wanted.peaks.max().expand(len(wanted)))
    found = of_products((probes(weight.shape[1]).float() @ held.t()).to(weight.dtype))
    return differing_in_float8(found, wanted, weight.dtype)


@pytest.mark.parametrize("scales", ["row", "layer"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_roundings_to_float8(scales: str, dtype: torch.dtype) -> None:
    """Every rounding passes; rows that were stale by two parts in a hundred, moved, scaled or empty do not."""
    for seed in range(20):
        sizes = torch.linspace(0.01, 2, 200)[:, None]
        weight = (random(200, 300, seed=seed) * sizes).to(dtype)
        held = in_float8(weight, scales)
        assert not rows_that_differ(weight, held, scales).any()
        stale = in_float8(weight + 0.02 * sizes.to(dtype) * random(200, 300, dtype, seed + 100), scales)
        assert rows_that_differ(weight, stale, scales).float().mean() > 0.7
        assert rows_that_differ(weight, held.roll(1, dims=0), scales).float().mean() > 0.9
        # A layer's scale is compared where its rows are large: small ones lie below its smallest steps.
        assert rows_that_differ(weight, held * 1.02, scales)[100:].all()
        assert rows_that_differ(weight, torch.zeros_like(held), scales)[100:].all()
        assert rows_that_differ(weight, held.roll(1, dims=1), scales).float().mean() > 0.9


@pytest.mark.parametrize("scales", ["row", "layer"])
def test_in_float8_the_signs_see_what_columns_do_not(scales: str) -> None:
    weight = random(100, 400, torch.bfloat16)
    held = in_float8(weight, scales)
    unseen = [column for column in range(400) if column not in columns_of(400)]
    held[:, unseen] = held[:, unseen].roll(1, dims=0)
    assert rows_that_differ(weight, held, scales).float().mean() > 0.5
