"""Takes evaluations from the plan, gives them to workers, and writes down what comes back.

Only the driver writes to the store. It claims an evaluation before it gives it away, so that two sweeps can share a
run folder; what another living sweep works on is waited for at the end.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.runs.store import CLAIM_SECONDS, FILE, Store
from lm_eval_iberian.sweep import plan_file
from lm_eval_iberian.sweep.job import LATER, Answered, Event, Failed, Finished, Job, Later, Lost, Started
from lm_eval_iberian.sweep.outlook import speed_name
from lm_eval_iberian.sweep.plan import Plan
from lm_eval_iberian.sweep.pools.local import Pool
from lm_eval_iberian.sweep.progress import Progress
from merge_hooks.files import slug, write_whole

# A job whose worker died is tried so often; then the point is taken for the reason.
ATTEMPTS = 2


@dataclass
class Driver:
    """Gives out jobs and keeps what comes back, until there are no more.

    A sweep knows all its jobs when it starts. A search (`tune`) starts with none: it is asked for `more`, and told what
    is `done`, and may `add` jobs both times.

    Args:
        plan: of the points; of a search, of any one of its points.
        folder: the run folder.
        store: its store.
        progress: is told of everything.
        queue: jobs that wait to be given out, in order.
        others: stores that another division into shards has left in the folder; read only.
        more: called when the queue is empty; adds jobs. False: there will be none, whatever comes back.
        done: called with a job whose results are in the store (reason: None), or that failed for a reason.
    """

    plan: Plan
    folder: Path
    store: Store
    progress: Progress
    queue: list[Job] = field(default_factory=list)
    others: tuple[Store, ...] = ()
    more: Callable[[], bool] = lambda: False
    done: Callable[[Job, str | None], None] = lambda job, reason: None
    failures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.jobs = {job.key: job for job in self.queue}  # in the queue or under way
        self._elsewhere: list[Job] = []
        self._noted: set[str] = set()
        self._fresh: set[str] = set()  # nothing of these was known: what they take says what the next will take
        # By what it says and not by when: the clock of who wrote it may be ahead.
        self._before = self.store.failures()
        self._attempts: dict[str, int] = {}

    def run(self, pool: Pool) -> None:
        """Measure everything that is not measured yet."""
        with _Heartbeat(self.store.path):
            pool.run(self.next_job, self.handle)

    def add(self, job: Job) -> None:
        """Put a job into the queue, unless it is there or under way."""
        if job.key not in self.jobs:
            self.jobs[job.key] = job
            self.queue.append(job)

    def drop(self, job: Job) -> None:
        """Take a job out of the queue."""
        self.queue.remove(job)
        del self.jobs[job.key]

    def next_job(self, engine: str | None) -> Job | Later | None:
        """The next evaluation that nobody has: one that the engine can take, if there is any. Never waits."""
        if not self.queue:
            self.queue, self._elsewhere = self._elsewhere, []
        while True:
            job = self._take(engine)
            if job is not None:
                return job
            if self._elsewhere:
                return LATER
            if not self.more():
                return None
            if not self.queue:
                return LATER

    def _take(self, engine: str | None) -> Job | None:
        """A job of the queue that is claimed now, or None. Its `known` are all answers that are stored by now."""
        while self.queue:
            job = next((job for job in self.queue if job.engine == engine), self.queue[0])
            self.queue.remove(job)
            if self._is_done(job):
                continue
            if self.store.claim(job.key):
                known = self._known(job.signature)
                if not known:
                    self._fresh.add(job.key)
                return replace(job, known=known, weights=self.store.weights(job.signature))
            self._note_elsewhere(job)
            self._elsewhere.append(job)
        return None

    def _known(self, signature: str) -> dict[str, str]:
        known: dict[str, str] = {}
        for store in (*self.others, self.store):
            known |= store.answers(signature)
        return known

    def _note_elsewhere(self, job: Job) -> None:
        if job.key not in self._noted:
            self._noted.add(job.key)
            self.progress.note(f"{job.point}: {job.evaluation.name}: another sweep works on it")

    def _is_done(self, job: Job) -> bool:
        """Whether another sweep has done it since this one began, or has failed to."""
        if self.store.is_finished(job.key):
            self.progress.finished_elsewhere(job)
            self._is_over(job, None)
            return True
        reason = None if job.key in self.failures else self._failed_since(job.key)
        if reason is not None:
            self.progress.hear(job, Failed(job.key, reason, ""))
            self._is_over(job, reason)
        return reason is not None

    def _failed_since(self, key: str) -> str | None:
        """Why another sweep could not do it since this one began. What had failed before is tried again."""
        now = self.store.failures(key).get(key)
        return None if now is None or now == self._before.get(key) else now[0]

    def handle(self, event: Event) -> None:
        """Write down what a worker says."""
        job = self.jobs[event.key]
        if isinstance(event, Lost):
            event = self._try_again(job, event)
        _write_down(self.store, self.folder, job, event)
        if isinstance(event, Finished) and event.key in self._fresh:
            self.store.note_speed(speed_name(self.plan, job.evaluation), event.seconds)
        self.progress.hear(job, event)
        if isinstance(event, (Finished, Failed)):
            self._is_over(job, event.reason if isinstance(event, Failed) else None)

    def _is_over(self, job: Job, reason: str | None) -> None:
        del self.jobs[job.key]
        if reason is None:
            self.failures.pop(job.key, None)
        else:
            self.failures[job.key] = f"{job.point}: {job.evaluation.name}: {reason}"
        self.done(job, reason)

    def _try_again(self, job: Job, event: Lost) -> Lost | Failed:
        """A job whose worker died goes back to the others; after ATTEMPTS, the point is taken for the reason."""
        self._attempts[job.key] = self._attempts.get(job.key, 0) + 1
        if self._attempts[job.key] < ATTEMPTS:
            self.queue.insert(0, job)
            return event
        return Failed(job.key, f"its worker died {ATTEMPTS} times ({event.reason}).", "")


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
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    plan_file.refuse_another(folder, plan.as_data())
    division = FILE if shard[1] == 1 else f"store.*-of-{shard[1]}.sqlite"
    store = Store(folder / division.replace("*", str(shard[0])))
    # Not those of the same division: their jobs are others, and on other machines they are being written.
    others = tuple(
        Store(file, writes=False) for file in sorted({*folder.glob("store*.sqlite")} - {*folder.glob(division)})
    )
    with _writing(folder):
        plan_file.write_plan(folder, plan.as_data(), (store, *others))
    jobs = list({job.key: job for job in plan.jobs}.values())  # two points may be one measurement
    mine = jobs[len(jobs) * shard[0] // shard[1] : len(jobs) * (shard[0] + 1) // shard[1]]  # neighbours share sources
    left = [job for job in mine if not any(one.is_finished(job.key) for one in (store, *others))]
    try:
        driver = Driver(plan, folder, store, progress, left, others)
        _record_problems(plan, driver)
        progress.begin(mine, {job.key for job in left})
        keys = {job.key for job in left}
        if lacking := without_samples(folder, (job for job in mine if job.key not in keys)):
            progress.note(f"{lacking} evaluations were measured before, without log_samples: no samples are written of "
                          "them. To have those too, give another --out.")  # fmt: skip
        if left:
            driver.run(make_pool(plan, left))
        with _writing(folder):
            plan_file.write_plan(
                folder, plan.as_data(), (store, *others)
            )  # a sweep that began meanwhile may have left ours out
        return driver.failures
    finally:
        progress.end()
        for one in (store, *others):
            one.close()


def _record_problems(plan: Plan, driver: Driver) -> None:
    """Points that cannot be measured have failed before anything starts."""
    for planned in plan.points:
        if planned.problem:
            for evaluation in planned.point.evaluations:
                driver.store.fail(plan.key(planned, evaluation), planned.problem, planned.details)
            driver.failures[planned.name] = f"{planned.name}: {planned.problem}"


def _write_down(store: Store, folder: Path, job: Job, event: Event) -> None:
    """Keep what a worker said: the digest of its weights, answers, results, or the reason for none."""
    match event:
        case Started():
            store.note_weights(job.signature, event.weights)
        case Answered():
            store.keep_answers(event.answers)
        case Finished():
            store.finish(event.key, event.signature, event.results, event.flags, event.seconds, event.documents)
            _write_results(folder, job, event)
        case Failed():
            store.fail(event.key, event.reason, event.details)


def _write_results(folder: Path, job: Job, event: Finished) -> None:
    """One evaluation's results and samples as lm_eval writes them, for those who want files."""
    with _writing(folder):
        write_whole(_file(folder, job, "results", "json"), json.dumps(event.results, indent=2, ensure_ascii=False))
        for task, lines in event.samples.items():
            write_whole(_file(folder, job, f"samples_{task}", "jsonl"), lines)


def _file(folder: Path, job: Job, what: str, ending: str) -> Path:
    """A file of an evaluation. Where lm_eval's names have a date, these have the evaluation's key."""
    return folder / "points" / slug(job.point) / f"{what}_{job.key[:12]}.{ending}"


def without_samples(folder: Path, jobs: Iterable[Job]) -> int:
    """How many of these, which are finished, have no samples although they are asked for."""
    asked = [job for job in jobs if job.log_samples]
    return sum(not list(folder.glob(f"points/{slug(job.point)}/samples_*_{job.key[:12]}.jsonl")) for job in asked)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Raises SweepError where the folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise SweepError(
            f"{folder}: cannot be written ({error.strerror or error}). Is it read-only, somebody else's, or its disk "
            "full? `iberian report` and `iberian best` read it as it is; to measure, give another folder with --out."
        ) from error
