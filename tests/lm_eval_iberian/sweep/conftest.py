"""Fixtures for sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lm_eval_iberian.sweep.local_tasks import write_tasks
from tests.lm_eval_iberian.sweep.pool_sweeps import a_sweep, run_here


@pytest.fixture(scope="session")
def three_merges(llama: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A sweep that takes each engine a second or so: there is time to kill one over its first answer."""
    return a_sweep(llama, write_tasks(tmp_path_factory.mktemp("tasks"), 150))


@pytest.fixture(scope="session")
def undisturbed(three_merges: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `three_merges`, run in this process with nothing on the way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IBERIAN_DATA", "samples")
        return run_here(three_merges, tmp_path_factory.mktemp("undisturbed"))
