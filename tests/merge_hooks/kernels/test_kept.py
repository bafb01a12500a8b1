"""What is kept of a merge stands under all that it depends on: one thing changes, and nothing old is taken.

By torch's operations, for which nothing is compiled; the keys are the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from golden import SEED, Case, Kept, family, same_bytes

from merge_hooks.kernels.blocks import Workers
from merge_hooks.kernels.choose import Way, begin
from merge_hooks.kernels.operands import Operands

PARAMETERS = {"weight": 0.6, "density": 0.4, "gamma": 0.1}
BASE, OTHER_BASE, BASQUE, INSTRUCT, OTHER = family((64, 33), [torch.float32] * 5, 11)
MODELS = (BASE, BASQUE, INSTRUCT)


def check(
    kept: Kept, method: str, tensors: tuple[torch.Tensor, ...] = MODELS, *, name: str = "x", seed: int = SEED,
    dtype: torch.dtype | None = None, **parameters: Any,
) -> None:  # fmt: skip
    """A merge with what was kept has the bytes of one without. A tensor is known again by where it lies."""
    values = {**PARAMETERS, **parameters}
    case = Case(method, list(tensors), [{}, values, {**values, "weight": -0.3}], dtype=dtype)

    def merged(operands: Operands) -> torch.Tensor:
        inputs = tuple(replace(one, origin=one.origin and one.tensor.data_ptr()) for one in operands.inputs)
        with Workers(1) as workers:
            return begin(replace(operands, name=name, inputs=inputs), workers, seed, Way.GPU)().tensor

    assert same_bytes(merged(case.operands(kept)), merged(case.operands()))


def test_a_seed_and_a_tensor_draw_for_themselves() -> None:
    kept = Kept()
    for seed, name in ((3, "x"), (4, "x"), (4, "y"), (3, "x")):
        check(kept, "dare_linear", seed=seed, name=name)
    assert len(kept) == 8  # of two sources three sums of what was drawn and one of all


@pytest.mark.parametrize("method", ["ties", "dare_linear"])
def test_sources_in_other_places_and_over_another_base(method: str) -> None:
    kept = Kept()
    for tensors in (MODELS, (BASE, INSTRUCT, BASQUE), (OTHER_BASE, BASQUE, INSTRUCT), (BASE, OTHER, BASQUE), MODELS):
        check(kept, method, tensors)


@pytest.mark.parametrize("method", ["breadcrumbs", "dare_linear"])
def test_a_density_and_a_gamma_have_thresholds_of_their_own(method: str) -> None:
    kept = Kept()
    for density, gamma in ((0.4, 0.1), (0.4, 0.2), (0.3, 0.2), (0.5, 0.0), (0.4, 0.1)):
        check(kept, method, density=density, gamma=gamma)


def test_methods_do_not_share_thresholds() -> None:
    """TIES keeps the first of tied elements, breadcrumbs the last: at gamma 0 both keep the same ranks."""
    kept = Kept()
    for method in ("ties", "breadcrumbs", "ties"):
        check(kept, method, dtype=torch.bfloat16, gamma=0.0)


@pytest.mark.parametrize("method", ["ties", "dare_linear"])
def test_a_dtype_has_magnitudes_of_its_own(method: str) -> None:
    kept = Kept()
    for dtype in (torch.float32, torch.bfloat16, torch.float32):
        check(kept, method, dtype=dtype)


def test_each_crowded_bucket_has_counts_of_its_own() -> None:
    """Few magnitudes, each of many deltas: thresholds are found from the lower bits of two buckets, and cut tied ones."""
    place = torch.arange(20000)
    source = torch.where(place % 2 == 0, 1 + place % 7 * 2.0**-23, 2 + place % 5 * 2.0**-22)
    tensors, kept = [torch.zeros(20000), source, source.flip(0)], Kept()
    for density in (0.52, 0.31):
        values = {"weight": 0.6, "density": density, "gamma": 0.13}
        Case("breadcrumbs", tensors, [{}, values, values]).check(Way.GPU, kept=kept)
    assert len([key for key in kept if key[0] == "lower"]) == 4
