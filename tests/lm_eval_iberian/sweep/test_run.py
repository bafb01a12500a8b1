"""What a run folder says of a point, from a store that is written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian.runs.run import SweepRun, read_point
from lm_eval_iberian.runs.store import Document, Store
from tests.lm_eval_iberian.results_maker import results


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store.sqlite")


def finish(store: Store, key: str, value: float, hashes: dict[int, str]) -> None:
    rows = [Document("t", number, f'{{"acc": {value}}}', f"{key} {number}", said, "{}", "") for number, said in hashes.items()]  # fmt: skip
    store.finish(key, "s", results({"t": {"acc": value, "acc_stderr": 0.01, "n": "text"}}), {"t": ["loops"]}, 1.0, rows)


def point(store: Store, *keys: str, **more: Any) -> Any:
    evaluations = [{"key": key, "name": key, "tasks": ["t"], "seed": None} for key in keys]
    entry = {"name": "p", "role": "merge", "labels": {}, "parents": [], "signature": "s", "recipe": "", "problem": "",
             "evaluations": evaluations, **more}  # fmt: skip
    return read_point(entry, [store])


def test_runs_stand_side_by_side(store: Store) -> None:
    finish(store, "one", 0.25, {0: "x", 1: "y"})
    finish(store, "two", 0.75, {0: "x", 1: "another", 2: "z"})
    found = point(store, "one", "two")
    assert found.scores("t") == {"acc": [0.25, 0.75]}, "numbers only, and no standard errors"
    assert found.documents("t")[1] == [{"acc": 0.25}, {"acc": 0.75}]
    assert found.answers("t") == {0: ["one 0", "two 0"], 1: ["one 1", "two 1"], 2: ["two 2"]}
    assert found.hashes("t") == {0: "x", 2: "z"}, "two runs read another document 1"
    assert found.flags == {"t": ["loops"]}


def test_what_is_missing_and_why(store: Store) -> None:
    finish(store, "done", 0.5, {})
    store.fail("failed", "out of memory")
    points = (
        point(store, "done"), point(store, "done", "failed", name="half"), point(store, "never", name="open"),
        point(store, name="unplanned", problem="no such folder"),
    )  # fmt: skip
    run = SweepRun(Path(), "run", {}, points, (store,))
    assert run.unfinished == ["half", "open", "unplanned"], "a point that could not be planned is not finished"
    assert run.failures == {"half": ["failed: out of memory"], "unplanned": ["no such folder"]}
    assert [one.name for one in points[1].finished] == ["done"]


def test_a_failure_before_a_success_is_forgotten(store: Store) -> None:
    store.fail("key", "out of memory")
    finish(store, "key", 0.5, {})
    assert point(store, "key").failures == []
