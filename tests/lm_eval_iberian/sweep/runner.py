"""Runs a sweep in this process, as the command does, without the report: for tests that kill it.

As a module of its own, so that a forkserver can preload what is slow to import.
"""

from __future__ import annotations

import io
import os
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import datasets  # noqa: F401
import lm_eval.evaluator
import lm_eval.models.huggingface  # noqa: F401
import torch
from rich.console import Console

from lm_eval_iberian.sweep import kept_tasks
from lm_eval_iberian.sweep.driver import run_sweep
from lm_eval_iberian.sweep.plan import make_plan
from lm_eval_iberian.sweep.pools.choose import choose_pool
from lm_eval_iberian.sweep.progress import Progress
from lm_eval_iberian.sweep.spec import check_sweep

# lm_eval reads thousands of YAML files to know its own tasks; these tests bring theirs.
ONLY_OURS = partial(kept_tasks.TaskManager, include_defaults=False)


def run(data: dict[str, Any], folder: Path, workers: int = 1, here: Path | None = None) -> dict[str, str]:
    """Run a sweep of this data into a folder; returns what failed. `here`: where the sweep.yml lies, as it were."""
    console = Console(file=io.StringIO())
    with patch.object(kept_tasks, "TaskManager", ONLY_OURS):
        plan = make_plan(check_sweep(data, "test", here))
        return run_sweep(plan, folder, lambda made, jobs: choose_pool(made, jobs, workers), Progress(console))


def run_quietly(data: dict[str, Any], folder: Path) -> None:
    """`run` in a process whose output nobody reads."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    torch.set_num_threads(1)
    run(data, folder)
