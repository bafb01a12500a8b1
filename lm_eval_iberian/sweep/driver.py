"""Takes evaluations from the plan, gives them to workers, and writes down what comes back.

Only the driver writes to the store. It claims an evaluation before it gives it away, so that two sweeps can share a
run folder; what another living sweep works on is waited for at the end.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lm_eval_iberian.sweep.errors import SweepError
from lm_eval_iberian.sweep.job import Answered, Event, Failed, Finished, Job
from lm_eval_iberian.sweep.plan import Plan
from lm_eval_iberian.sweep.pool import Pool
from lm_eval_iberian.sweep.progress import Progress
from lm_eval_iberian.sweep.run import PLAN
from lm_eval_iberian.sweep.spec import slug
from lm_eval_iberian.sweep.store import CLAIM_SECONDS, FILE, Store

# How long to wait before looking again at what another sweep works on.
POLL_SECONDS = 2.0


@dataclass
class Driver:
    """One sweep at work.

    Args:
        folder: the run folder.
        store: its store.
        progress: is told of everything.
        shard: (number from 0, of how many): only this part of the jobs; for job arrays.
    """

    plan: Plan
    folder: Path
    store: Store
    progress: Progress
    shard: tuple[int, int] = (0, 1)
    failures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._jobs = {job.key: job for job in self.plan.jobs}
        number, of = self.shard
        jobs = list(self._jobs.values())
        mine = jobs[len(jobs) * number // of : len(jobs) * (number + 1) // of]  # neighbours share sources
        self._mine = mine
        self._open = [job for job in mine if not self.store.is_finished(job.key)]
        self._elsewhere: list[Job] = []

    @property
    def left(self) -> list[Job]:
        """The jobs that are not done."""
        return list(self._open)

    def run(self, pool: Pool) -> None:
        """Measure everything that is not measured yet."""
        for planned in self.plan.points:
            if planned.problem:
                self._record_problem(planned)
        self.progress.begin(self._mine, {job.key for job in self._open})
        with _Heartbeat(self.store.path):
            try:
                pool.run(self.next_job, self.handle)
            finally:
                self.progress.end()

    def next_job(self, engine: str | None) -> Job | None:
        """The next evaluation that nobody has: one that the engine can take, if there is any."""
        while self._open or self._elsewhere:
            job = next((job for job in self._open if job.engine == engine), None) or next(iter(self._open), None)
            if job is None:
                time.sleep(POLL_SECONDS)
                self._open, self._elsewhere = [j for j in self._elsewhere if not self._is_done(j)], []
                continue
            self._open.remove(job)
            if self.store.claim(job.key):
                return replace(job, known=self.store.answers(job.signature))
            if not self._is_done(job):
                self.progress.note(f"{job.point}: {job.evaluation.name}: another sweep works on it")
                self._elsewhere.append(job)
        return None

    def _is_done(self, job: Job) -> bool:
        if self.store.is_finished(job.key):
            self.progress.finished_elsewhere(job)
            return True
        return False

    def handle(self, event: Event) -> None:
        """Write down what a worker says."""
        job = self._jobs[event.key]
        match event:
            case Answered():
                self.store.keep_answers(event.answers)
            case Finished():
                self.store.finish(
                    event.key, event.signature, event.results, event.flags, event.seconds, event.documents
                )
                self.failures.pop(event.key, None)
                write_results(self.folder, job, event.results)
            case Failed():
                self.store.fail(event.key, event.reason, event.details)
                self.failures[event.key] = f"{job.point}: {job.evaluation.name}: {event.reason}"
        self.progress.hear(job, event)

    def _record_problem(self, planned: Any) -> None:
        for evaluation in planned.point.evaluations:
            self.store.fail(self.plan.key(planned, evaluation), planned.problem)
        self.failures[planned.name] = f"{planned.name}: {planned.problem}"


class _Heartbeat:
    """Renews this process's claims while it works, from a thread with a connection of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self.stop = path, threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def _beat(self) -> None:
        while not self.stop.wait(CLAIM_SECONDS / 4):
            try:
                store = Store(self.path)
                store.renew_claims()
                store.close()
            except SweepError:
                continue  # a full disk: the driver will say so itself


def run_sweep(
    plan: Plan, folder: Path, make_pool: Callable[[Plan, list[Job]], Pool], progress: Progress,
    shard: tuple[int, int] = (0, 1),
) -> dict[str, str]:  # fmt: skip
    """Run a plan into a folder; what is there already is not done again.

    Args:
        make_pool: makes the pool for the jobs that are left; not called where there are none.
        shard: (number, of how many), for job arrays: each writes a store of its own.
    Returns:
        What failed: name -> reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_plan(folder, plan)
    store = Store(folder / (FILE if shard[1] == 1 else f"store.{shard[0]}-of-{shard[1]}.sqlite"))
    try:
        driver = Driver(plan, folder, store, progress, shard)
        driver.run(make_pool(plan, driver.left) if driver.left else _Idle())
        return driver.failures
    finally:
        store.close()


class _Idle:
    """A pool for nothing to do."""

    def run(self, next_job: Callable[[str | None], Job | None], handle: Callable[[Event], None]) -> None:
        return


def write_plan(folder: Path, plan: Plan) -> None:
    """plan.json, whole or not at all."""
    write_text(folder / PLAN, json.dumps(plan.as_data(), indent=2, ensure_ascii=False) + "\n")


def write_results(folder: Path, job: Job, results: dict[str, Any]) -> None:
    """One evaluation's results as lm_eval writes them, for those who want a file."""
    path = folder / "points" / slug(job.point) / f"results_{job.key[:12]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(results, indent=2, ensure_ascii=False))


def write_text(path: Path, text: str) -> None:
    """A file, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
