"""Sweeps that work in one run folder at the same time."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lm_eval_iberian.runs.store import FILE, Store
from lm_eval_iberian.sweep.driver import Driver
from lm_eval_iberian.sweep.job import LATER, Asked, Event, Failed, Finished, Job, Later, Lost, Started
from lm_eval_iberian.sweep.plan_file import write_plan
from tests import forks
from tests.lm_eval_iberian.sweep.fake_worker import Quiet, a_job
from tests.lm_eval_iberian.sweep.pool_sweeps import Listening, check_same, one_thread, run


def sweep_and_say(data: dict[str, Any], folder: Path, diary: Path, ready: Any) -> None:
    """One of several sweeps; what it asked its engine is written down."""
    from lm_eval_iberian.sweep.pools.local import InProcess

    said: dict[str, Any] = {"started": [], "asked": 0}

    def ear(event: Event) -> None:
        if isinstance(event, Started):
            said["started"].append(event.key)
        if isinstance(event, Asked):
            said["asked"] += event.requests

    def pool(plan: Any, _: Any) -> Listening:
        ready.wait(300)  # both have planned, and found nothing done
        return Listening(InProcess(plan.tasks), ear)

    with one_thread():
        said["failures"], said["text"] = run(data, folder, pool)
    diary.write_text(json.dumps(said))


@pytest.mark.slow
def test_two_sweeps_in_one_folder(three_merges: dict[str, Any], undisturbed: Path, tmp_path: Path) -> None:
    """Each evaluation is done once, by one of them; both end when all is done, with the tables of one run."""
    context = forks.context()
    run_folder, ready = tmp_path / "run", context.Barrier(2)
    diaries = [tmp_path / "one.json", tmp_path / "two.json"]
    arguments = [(three_merges, run_folder, diary, ready) for diary in diaries]
    sweeps = [context.Process(target=sweep_and_say, args=one) for one in arguments]
    for sweep in sweeps:
        sweep.start()
    for sweep in sweeps:
        sweep.join(timeout=500)
        assert sweep.exitcode == 0
    said = [json.loads(diary.read_text()) for diary in diaries]
    assert all(one["failures"] == {} and one["started"] for one in said)
    assert len(said[0]["started"]) + len(said[1]["started"]) == 3
    assert len({*said[0]["started"], *said[1]["started"]}) == 3
    assert sum(one["asked"] for one in said) == Store(run_folder / FILE, writes=False).count_answers()
    assert "another sweep works on it" in said[0]["text"] + said[1]["text"]
    check_same(run_folder, undisturbed)
    assert (run_folder / "plan.json").read_bytes() == (undisturbed / "plan.json").read_bytes()


def write_often(folder: Path, start: Any) -> None:
    class Plan:
        def as_data(self) -> dict[str, Any]:
            return {"points": ["a point"] * 2000}

    start.wait(60)
    Store(folder / FILE).close()
    for _ in range(40):
        write_plan(folder, Plan().as_data())


@pytest.mark.slow
def test_many_start_at_once(tmp_path: Path) -> None:
    """Nobody meets a store that is not laid out yet, or another's half of plan.json."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(6)
    writers = [context.Process(target=write_often, args=(tmp_path, start)) for _ in range(6)]
    for writer in writers:
        writer.start()
    end = time.monotonic() + 60
    while any(writer.is_alive() for writer in writers):
        assert time.monotonic() < end
        if (tmp_path / "plan.json").exists():
            assert len(json.loads((tmp_path / "plan.json").read_text())["points"]) == 2000
    assert [writer.exitcode for writer in writers] == [0] * 6
    assert {file.name for file in tmp_path.iterdir()} == {"plan.json", FILE}


def test_who_comes_while_another_makes_the_store_waits(tmp_path: Path) -> None:
    """SQLite itself gives up at once here, whatever its timeout: two processes of six met that in CI."""
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite3.connect(tmp_path / FILE, timeout=60).execute("PRAGMA journal_mode=WAL")
    done = threading.Timer(0.2, other.execute, ("COMMIT",))
    done.start()
    store = Store(tmp_path / FILE)
    assert store.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()
    done.join()
    other.close()


def a_driver(folder: Path, *keys: str) -> Driver:
    return Driver(SimpleNamespace(arguments={}), folder, Store(folder / FILE), Quiet(), [a_job(key) for key in keys])  # type: ignore[arg-type]


def test_a_driver_does_not_wait_while_others_work(tmp_path: Path) -> None:
    """Two drivers with two workers each, each waiting for what the other has, would wait for ever."""
    driver = a_driver(tmp_path, "a", "b")
    somebody = driver.store.connection
    somebody.execute("INSERT INTO claims VALUES ('b', 'another machine', 1, 0, 1e12)")
    job = driver.next_job(None)
    assert not isinstance(job, Later) and job is not None and job.key == "a"
    assert isinstance(driver.next_job(None), Later)
    somebody.execute("DELETE FROM claims WHERE key = 'b'")  # it gave up
    job = driver.next_job(None)
    assert not isinstance(job, Later) and job is not None and job.key == "b"
    assert driver.next_job(None) is None


def test_what_fails_in_another_sweep_is_not_tried_by_this_one_too(tmp_path: Path) -> None:
    Store(tmp_path / FILE).fail("a", "an old failure")
    driver, other = a_driver(tmp_path, "a", "b"), Store(tmp_path / FILE)
    driver.store.connection.execute("INSERT INTO claims VALUES ('b', 'another machine', 1, 0, 1e12)")
    job = driver.next_job(None)
    assert not isinstance(job, Later) and job is not None and job.key == "a"  # it failed before: now it is tried again
    assert isinstance(driver.next_job(None), Later)
    other.fail("b", "out of memory")
    assert driver.next_job(None) is None
    assert driver.failures == {"b": "b: task: out of memory"}


def test_a_lost_job_is_given_out_again_with_what_is_known(tmp_path: Path) -> None:
    from lm_eval_iberian.runs.store import Answer
    from lm_eval_iberian.sweep.job import Answered

    driver = a_driver(tmp_path, "a")
    first = driver.next_job(None)
    assert first is not None and not isinstance(first, Later) and first.known == {}
    driver.handle(Answered("a", [Answer("question", "signature of a", "task", "1", "type", '"yes"')]))
    driver.handle(Lost("a", "killed"))
    again = driver.next_job(None)
    assert again is not None and not isinstance(again, Later) and again.known == {"question": '"yes"'}
    driver.handle(Lost("a", "killed"))
    assert driver.next_job(None) is None
    assert driver.failures == {"a": "a: task: its worker died 2 times (killed)."}
    assert driver.store.failure("a") == "its worker died 2 times (killed)."


def test_a_search_gives_jobs_as_results_come(tmp_path: Path) -> None:
    """While one is under way that may bring more, other workers wait."""
    driver = a_driver(tmp_path)
    told: list[tuple[str, str | None]] = []

    def more() -> bool:
        if not told:
            driver.add(a_job("a"))
        return bool(driver.jobs)

    def done(job: Job, reason: str | None) -> None:
        told.append((job.key, reason))
        if job.key == "a":
            driver.add(a_job("b"))
            driver.add(a_job("b"))
            driver.add(a_job("c"))
            driver.drop(driver.jobs["c"])

    driver.more, driver.done = more, done
    job = driver.next_job(None)
    assert isinstance(job, Job) and job.key == "a"
    assert driver.next_job(None) is LATER
    driver.handle(Finished("a", job.signature, {}, {}, [], 1.0))
    job = driver.next_job(None)
    assert isinstance(job, Job) and job.key == "b"
    assert driver.next_job(None) is LATER
    driver.handle(Failed("b", "out of memory", ""))
    assert driver.next_job(None) is None
    assert told == [("a", None), ("b", "out of memory")]
