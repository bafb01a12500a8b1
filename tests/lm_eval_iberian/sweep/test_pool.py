"""Workers in processes of their own: who dies is replaced, nothing outlives the driver, GPUs are shared out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.sweep.driver import ATTEMPTS
from lm_eval_iberian.sweep.job import LATER, Answered, Event, Failed, Finished, Job, Later, Lost
from lm_eval_iberian.sweep.pools.choose import choose_pool, gpus_each
from lm_eval_iberian.sweep.pools.local import Processes, environments, fill_slots
from lm_eval_iberian.sweep.pools.worker_process import WorkerProcess, death
from tests import forks
from tests.conftest import ROOT
from tests.lm_eval_iberian.sweep.fake_worker import FakeWorker, a_job
from tests.lm_eval_iberian.sweep.pool_sweeps import Listening, check_same, run, workers_of


class Jobs:
    """A driver that keeps events: what is lost is given out again, as the real one does."""

    def __init__(self, *jobs: Job, later: int = 0) -> None:
        self.left, self.all, self.later = list(jobs), {job.key: job for job in jobs}, later
        self.events: list[Event] = []
        self.lost: list[str] = []

    def next_job(self, engine: str | None) -> Job | Later | None:
        if not self.left and self.later:
            self.later -= 1
            return LATER
        return self.left.pop(0) if self.left else None

    def handle(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Lost):
            self.lost.append(event.reason)
            if len(self.lost) < ATTEMPTS:
                self.left.append(self.all[event.key])

    def results(self) -> dict[str, dict[str, Any]]:
        return {event.key: event.results for event in self.events if isinstance(event, Finished)}


def work(jobs: Jobs, environments: list[dict[str, str]]) -> Jobs:
    fill_slots([WorkerProcess(one, make_worker=FakeWorker) for one in environments], jobs.next_job, jobs.handle)
    return jobs


def test_a_user_whose_number_has_no_name_gets_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container, or where a node cannot ask the directory service."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert work(Jobs(a_job("a")), [{}]).results()["a"]


def wait_until(what: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_each_worker_has_its_environment_and_goes_on_in_one_process() -> None:
    jobs = work(
        Jobs(a_job("a", "sleep 1"), a_job("b", "sleep 1"), a_job("c"), a_job("d")),
        [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}],
    )
    results = jobs.results()
    assert sorted(results) == ["a", "b", "c", "d"]
    assert {results["a"]["CUDA_VISIBLE_DEVICES"], results["b"]["CUDA_VISIBLE_DEVICES"]} == {"0,1", "2,3"}
    by_process: dict[int, set[str]] = {}
    for result in results.values():
        by_process.setdefault(result["pid"], set()).add(result["CUDA_VISIBLE_DEVICES"])
    assert len(by_process) == 2 and all(len(seen) == 1 for seen in by_process.values())
    assert not workers_of(os.getpid())


def test_a_worker_that_is_killed_is_replaced_and_its_job_done(tmp_path: Path) -> None:
    jobs = work(Jobs(a_job("a", f"die {tmp_path / 'once'}"), a_job("b")), [{}])
    assert jobs.lost == ["killed; out of memory?"]
    assert sorted(jobs.results()) == ["a", "b"]
    assert [event.key for event in jobs.events if isinstance(event, Answered)].count("a") == 2  # one before it died


def test_a_failure_goes_on_in_the_same_worker_and_a_broken_engine_in_a_new_one() -> None:
    jobs = work(Jobs(a_job("a"), a_job("b", "fail"), a_job("c"), a_job("d", "break"), a_job("e")), [{}])
    results = jobs.results()
    assert [event.reason for event in jobs.events if isinstance(event, Failed)] == ["it shall fail", "it shall break"]
    assert results["a"]["pid"] == results["c"]["pid"] != results["e"]["pid"]
    assert (results["c"]["jobs"], results["e"]["jobs"]) == (3, 1)


def test_another_engine_gets_another_process() -> None:
    results = work(Jobs(a_job("a"), a_job("b", engine="two"), a_job("c", engine="two")), [{}]).results()
    assert results["a"]["pid"] != results["b"]["pid"] == results["c"]["pid"]


@pytest.mark.slow
def test_a_pool_asks_again_where_it_is_told_to() -> None:
    """While one worker waits for what another sweep has, the others are heard."""
    jobs = Jobs(a_job("a", "sleep 3"), later=1)
    asked = jobs.next_job

    def next_job(engine: str | None) -> Job | Later | None:
        if jobs.later == 0 and not jobs.left and "b" not in jobs.all:
            jobs.all["b"] = a_job("b")
            return jobs.all["b"]
        return asked(engine)

    jobs.next_job = next_job  # type: ignore[method-assign]
    assert sorted(work(jobs, [{}, {}]).results()) == ["a", "b"]


# Ctrl-C is heard as in a terminal: where the tests run under nohup or behind `&`, SIGINT is ignored, and children inherit that.
DRIVER = """
import signal, sys
from lm_eval_iberian.sweep.pools.worker_process import WorkerProcess
from lm_eval_iberian.sweep.pools.local import fill_slots
from tests.lm_eval_iberian.sweep.fake_worker import FakeWorker, a_job

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    jobs = [a_job(path, f"child {path}, sleep 600") for path in sys.argv[1:]]
    fill_slots([WorkerProcess({}, make_worker=FakeWorker) for _ in jobs], lambda _: jobs.pop(), lambda _: None)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_the_driver(tmp_path: Path, how: signal.Signals) -> None:
    """Neither the workers nor the processes that their engines started."""
    (tmp_path / "driver.py").write_text(DRIVER)
    paths = [tmp_path / "one", tmp_path / "two"]
    command = [sys.executable, str(tmp_path / "driver.py"), *map(str, paths)]
    driver = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: all(path.is_file() and path.read_text() for path in paths))
        numbers = [int(number) for path in paths for number in path.read_text().split()]
        assert len(numbers) == 4 and all(psutil.pid_exists(number) for number in numbers)
        driver.send_signal(how)
        driver.wait(60)
        wait_until(lambda: not any(_lives(number) for number in numbers))
    finally:
        driver.kill()
        driver.wait(60)


def _lives(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("named", "count", "workers", "each", "expected"),
    [
        (None, 4, 2, 2, ["0,1", "2,3"]),
        (None, 4, 3, 1, ["0", "1", "2"]),
        ("4,6", 2, 2, 1, ["4", "6"]),
        ("GPU-aa, GPU-bb", 2, 1, 2, ["GPU-aa,GPU-bb"]),
        ("1,-1,2", 1, 1, 1, ["1"]),
    ],
)
def test_gpus_are_shared_out(
    monkeypatch: pytest.MonkeyPatch, named: str | None, count: int, workers: int, each: int, expected: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert environments(workers, each) == [{"CUDA_VISIBLE_DEVICES": share} for share in expected]


def test_more_workers_than_gpus_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    with pytest.raises(SweepError, match="--workers 2: 2 GPUs each are 4, and there are 3"):
        environments(2, 2)


def test_workers_on_the_cpu_share_the_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("merge_hooks.machine.cgroup.TREE", tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)  # engines that run on the CPU take no GPU
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environments(2, 0) == [{"OMP_NUM_THREADS": "4"}] * 2
    assert environments(1, 0) == [{}]
    (tmp_path / "cpu.max").write_text("400000 100000\n")  # a job, or a container, that has the time of four
    assert environments(2, 0) == [{"OMP_NUM_THREADS": "2"}] * 2


def test_gpus_of_an_engine() -> None:
    assert gpus_each({"backend": "hf", "device": "cpu", "tensor_parallel_size": 2}) == 0
    assert gpus_each({"backend": "hf", "device": "cuda"}) == 1
    assert gpus_each({"backend": "hf", "device": "cuda", "tensor_parallel_size": "2"}) == 2


def test_deaths_in_words() -> None:
    assert death(-9) == "killed; out of memory?"
    assert death(-11) == "signal 11, SIGSEGV"
    assert death(3) == "exit code 3"


@pytest.mark.slow
def test_two_processes_one_killed(
    three_merges: dict[str, Any], undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is killed over its first answer: the point is measured by the next one, which asks the rest only."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    killed: list[str] = []
    processes: dict[str, WorkerProcess] = {}
    do = WorkerProcess.do

    def seen(worker: WorkerProcess, job: Job) -> Iterator[Event]:
        processes[job.key] = worker
        return do(worker, job)

    monkeypatch.setattr(WorkerProcess, "do", seen)

    def ear(event: Event) -> None:
        if isinstance(event, Answered) and not killed:
            killed.append(event.key)
            processes[event.key]._process.kill()

    def pool(plan: Any, jobs: list[Job]) -> Listening:
        made = choose_pool(plan, jobs, 2)
        assert isinstance(made, Processes) and len(made.environments) == 2
        return Listening(made, ear)

    with forks.for_spawned():
        failures, said = run(three_merges, tmp_path, pool)
    assert not failures
    assert "its worker died (killed; out of memory?); it is tried again" in said
    assert "are known" in said  # answers of the one that was killed
    check_same(tmp_path, undisturbed)
