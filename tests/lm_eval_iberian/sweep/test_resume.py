"""A sweep that is killed goes on: no answer is asked twice, and the tables are those of an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian.runs.run import read_sweep_run
from lm_eval_iberian.runs.store import FILE
from tests import forks
from tests.lm_eval_iberian.sweep.local_tasks import write_tasks


def a_sweep(models: dict[str, Path], tasks: Path) -> dict[str, Any]:
    """Two merges and their two parents, each on two tasks in one evaluation."""
    return {
        "tasks": ["local_choice", "local_words"],
        "include_path": str(tasks),
        "model_args": {"backend": "hf", "dtype": "float32", "device": "cpu", "batch_size": 4},
        "recipe": {
            "merge_method": "linear",
            "models": [
                {"model": str(models["basque"]), "parameters": {"weight": "$weight"}},
                {"model": str(models["instruct"]), "parameters": {"weight": 1.0}},
            ],
            "dtype": "float32",
        },
        "axes": {"weight": [0.5, 1.0]},
    }


def answers_in(folder: Path) -> int:
    """How many answers are on disk, whoever is writing."""
    try:
        with sqlite3.connect(f"{(folder / FILE).as_uri()}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])
    except sqlite3.Error:
        return 0


def dump(folder: Path, table: str) -> list[Any]:
    """A table of the store without what says how long things took."""
    columns = {"answers": "*", "documents": "*", "texts": "*", "evaluations": "key, signature, flags"}[table]
    with sqlite3.connect(folder / FILE) as connection:
        return sorted(connection.execute(f"SELECT {columns} FROM {table}").fetchall())


def assert_same_answers(some: list[Any], others: list[Any]) -> None:
    """The same keys and texts; log-likelihoods as near as other batches leave them (a run that goes on has others)."""
    assert [row[:-1] for row in some] == [row[:-1] for row in others]
    for one, other in zip((json.loads(row[-1]) for row in some), (json.loads(row[-1]) for row in others), strict=True):
        assert (
            one == other
            if isinstance(one, (str, dict))  # a text; one that the limit cut
            else (one[1] == other[1] and one[0] == pytest.approx(other[0], abs=1e-4))
        )


def tables(folder: Path) -> list[Any]:
    """All scores, to the last digit."""
    return [(point.name, [result["results"] for result in point.results]) for point in read_sweep_run(folder).points]


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "documents"), [(6, 80), pytest.param(20, 250, marks=pytest.mark.nightly)])
def test_killed_at_random_moments(llama: dict[str, Path], tmp_path: Path, kills: int, documents: int) -> None:
    """kill -9, many times, at moments drawn by how much was answered; then to the end.

    documents: enough that it does not come to an end between two kills.
    """
    from tests.lm_eval_iberian.sweep.runner import run_quietly

    start = forks.context().Process
    data = a_sweep(llama, write_tasks(tmp_path / "tasks", documents))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    undisturbed = start(target=run_quietly, args=(data, whole))
    undisturbed.start()
    undisturbed.join(300)
    assert undisturbed.exitcode == 0
    expected = answers_in(whole)
    assert expected == 4 * 3 * documents  # four models; two choices and a text a document

    draw, seen = random.Random(1), []
    for number in range(kills):
        before = answers_in(broken)
        more = draw.randint(1, max(1, int((expected - before) / (kills - number + 2) * 1.5)))
        child = start(target=run_quietly, args=(data, broken))
        child.start()
        while child.is_alive() and answers_in(broken) < before + more:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.005)
        assert child.is_alive(), f"it ended by itself after {number} kills"
        os.kill(child.pid, signal.SIGKILL)
        child.join(30)
        seen.append(answers_in(broken))
        assert seen[-1] >= before + more  # what was kept stays kept
    assert seen[-1] < expected

    last = start(target=run_quietly, args=(data, broken))
    last.start()
    last.join(300)
    assert last.exitcode == 0
    assert answers_in(broken) == expected
    for table in ("documents", "texts", "evaluations"):
        assert dump(broken, table) == dump(whole, table), table
    assert_same_answers(dump(broken, "answers"), dump(whole, "answers"))
    assert tables(broken) == tables(whole)
    assert (broken / "plan.json").read_bytes() == (whole / "plan.json").read_bytes()
