"""What the one-pass merges keep is kept under all that it depends on: one thing changes, and nothing old is taken."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import Case, same_bytes
from test_fused import Kept, fused
from test_kernels import family

PARAMETERS = {"weight": 0.6, "density": 0.4, "gamma": 0.1}


@pytest.fixture(autouse=True)
def nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way for GPUs, on a CPU: the keys are the same, and it starts in no time."""
    monkeypatch.setattr("merge_hooks.kernels.resident.one_pass._on_device", lambda operands: True)


def check(kept: Kept, method: str, seed: int = 3, dtype: torch.dtype | None = None, **parameters: Any) -> None:
    """A merge with what was kept has the bytes of one without."""
    values = {**PARAMETERS, **parameters}
    tensors = family((64, 33), 3, [torch.float32] * 3, 11)
    case = Case(method, tensors, [{}, values, {**values, "weight": -0.3}], dtype=dtype)
    assert same_bytes(fused(case, kept, seed=seed).tensor, case.ours(seed=seed).tensor)


def test_a_seed_draws_for_itself() -> None:
    kept = Kept()
    for seed in (3, 4, 3):
        check(kept, "dare_linear", seed)


def test_a_density_and_a_gamma_have_thresholds_of_their_own() -> None:
    kept = Kept()
    for density, gamma in ((0.4, 0.1), (0.4, 0.2), (0.3, 0.2), (0.4, 0.1)):
        check(kept, "breadcrumbs", density=density, gamma=gamma)


def test_methods_do_not_share_thresholds() -> None:
    """TIES keeps the first of tied elements, breadcrumbs the last: at gamma 0 both keep the same ranks."""
    kept = Kept()
    for method in ("ties", "breadcrumbs", "ties"):
        check(kept, method, gamma=0.0)


@pytest.mark.parametrize("method", ["ties", "dare_linear"])
def test_a_dtype_has_magnitudes_of_its_own(method: str) -> None:
    kept = Kept()
    for dtype in (torch.float32, torch.bfloat16, torch.float32):
        check(kept, method, dtype=dtype)
