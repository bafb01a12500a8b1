"""A small real sweep for the pools, run with one thread an engine so that any two runs give the same bits."""

from __future__ import annotations

import io
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from lm_eval_iberian.runs.run import read_sweep_run
from lm_eval_iberian.sweep.driver import run_sweep
from lm_eval_iberian.sweep.job import Event, NextJob
from lm_eval_iberian.sweep.plan import Plan, make_plan
from lm_eval_iberian.sweep.pools.local import InProcess, Pool
from lm_eval_iberian.sweep.progress import Progress
from lm_eval_iberian.sweep.spec import check_sweep


def a_sweep(models: dict[str, Path], tasks: Path) -> dict[str, Any]:
    """Three merges on one task. A batch is one request, so that padding cannot depend on what is known already."""
    return {
        "tasks": ["local_choice"],
        "include_path": str(tasks),
        "model_args": {"backend": "hf", "dtype": "float32", "device": "cpu", "batch_size": 1},
        "parents": False,
        "recipe": {
            "merge_method": "linear",
            "models": [
                {"model": str(models["basque"]), "parameters": {"weight": "$weight"}},
                {"model": str(models["instruct"]), "parameters": {"weight": 1.0}},
            ],
            "parameters": {"normalize": True},
            "dtype": "float32",
        },
        "axes": {"weight": [0.5, 1.0, 2.0]},
    }


def run(
    data: dict[str, Any], folder: Path, make_pool: Callable[[Plan, Any], Pool], shard: tuple[int, int] = (0, 1),
    name: str = "test",
) -> tuple[dict[str, str], str]:  # fmt: skip
    """Run a sweep; returns what failed, and what was said, a line a message."""
    said = io.StringIO()
    console = Console(file=said, width=200)
    failures = run_sweep(make_plan(check_sweep(data, name)), folder, make_pool, Progress(console), shard)
    return failures, re.sub(r"\n {4,}", " ", said.getvalue())  # long ones are wrapped


def run_here(data: dict[str, Any], folder: Path) -> Path:
    """The undisturbed run, in this process, with one thread."""
    with one_thread():
        failures, _ = run(data, folder, lambda plan, _: InProcess(plan.tasks))
    assert not failures
    return folder


@contextmanager
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Listening:
    """A pool whose events pass by an ear."""

    def __init__(self, pool: Pool, ear: Callable[[Event], None]) -> None:
        self.pool, self.ear = pool, ear

    def run(self, next_job: NextJob, handle: Callable[[Event], None]) -> None:
        def both(event: Event) -> None:
            handle(event)
            self.ear(event)

        self.pool.run(next_job, both)


def tables(folder: Path) -> list[Any]:
    """All scores, to the last digit."""
    return [(point.name, [result["results"] for result in point.results]) for point in read_sweep_run(folder).points]


def dump(folder: Path, table: str) -> list[Any]:
    """A table of all stores of a run, without what says how long things took."""
    columns = {"answers": "*", "documents": "*", "texts": "*", "evaluations": "key, signature, flags"}[table]
    rows: list[Any] = []
    for file in folder.glob("store*.sqlite"):
        connection = sqlite3.connect(file)
        rows += connection.execute(f"SELECT {columns} FROM {table}").fetchall()
        connection.close()
    return sorted(rows)


def check_same(folder: Path, expected: Path) -> None:
    """The tables and every row of the store are those of another run."""
    assert tables(folder) == tables(expected)
    for table in ("answers", "documents", "evaluations"):
        assert dump(folder, table) == dump(expected, table), table


def workers_of(process: int) -> list[psutil.Process]:
    """The living worker processes that a process has started."""
    return [child for child in psutil.Process(process).children() if "spawn_main" in " ".join(child.cmdline())]
