"""Fixtures for sweeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lm_eval_iberian.sweep.pool_sweeps import a_sweep, run_here


@pytest.fixture(scope="session")
def undisturbed(llama: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `pool_sweeps.a_sweep`, run in this process with nothing on the way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IBERIAN_DATA", "samples")
        return run_here(a_sweep(llama), tmp_path_factory.mktemp("undisturbed"))
