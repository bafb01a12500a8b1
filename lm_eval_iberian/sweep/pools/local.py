"""Where workers live: in this process, or in processes of this machine. A Ray cluster: `ray`.

A pool asks for a job whenever a worker is free and passes on what the worker says. It knows nothing of the store.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol

from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.sweep.job import Event, Job, Later, Lost, NextJob
from lm_eval_iberian.sweep.pools.worker_process import WorkerProcess
from merge_hooks.machine.processors import processors

if TYPE_CHECKING:  # they import torch, which a worker's process must not do before its environment is set
    from lm_eval_iberian.sweep.kept_tasks import KeptTasks
    from lm_eval_iberian.sweep.plan import Plan

# How long to wait before asking again for what another sweep works on (seconds).
POLL_SECONDS = 2.0


class Pool(Protocol):
    """Runs jobs until there are no more."""

    def run(self, next_job: NextJob, handle: Callable[[Event], None]) -> None: ...


class Slot(Protocol):
    """The place of one worker."""

    @property
    def engine(self) -> str | None:
        """The key of the engine that runs here."""

    def open(self) -> None:
        """Return when there is room for a worker. Raises SweepError where there will be none."""

    def do(self, job: Job) -> Iterator[Event]:
        """Do a job; the last event is Finished, Failed or Lost."""

    def close(self) -> None:
        """Let the worker go."""

    def kill(self) -> None:
        """End the worker at once. Called from another thread than the others."""


class InProcess:
    """One worker, in this process: nothing to start but the engine.

    Args:
        tasks: loaded for the plan, used again.
    """

    def __init__(self, tasks: KeptTasks) -> None:
        self.tasks = tasks

    def run(self, next_job: NextJob, handle: Callable[[Event], None]) -> None:
        """Do jobs. An engine that failed, or that the next job cannot use, is let go."""
        from lm_eval_iberian.sweep.worker import Worker

        worker = Worker(handle, self.tasks)
        while (job := next_job(worker.engine or None)) is not None:
            if isinstance(job, Later):
                time.sleep(POLL_SECONDS)
                continue
            if worker.is_broken or (worker.engine and worker.engine != job.engine):
                worker.close()
            worker.run(job)
        worker.close()


class Processes:
    """Workers in processes of their own on this machine, each with its GPUs.

    Args:
        environments: one a worker: what to set in it, such as CUDA_VISIBLE_DEVICES.
    """

    def __init__(self, environments: Sequence[Mapping[str, str]]) -> None:
        self.environments = environments

    def run(self, next_job: NextJob, handle: Callable[[Event], None]) -> None:
        """Do jobs. A worker that dies is replaced."""
        fill_slots([WorkerProcess(environment) for environment in self.environments], next_job, handle)


def here(plan: Plan, jobs: Sequence[Job], workers: int | None, gpus_each: int, address: str | None) -> Pool:
    """The pool `here`; see `choose`."""
    return InProcess(plan.tasks)


def processes(plan: Plan, jobs: Sequence[Job], workers: int | None, gpus_each: int, address: str | None) -> Pool:
    """The pool `processes`; see `choose`."""
    return Processes(environments(min(workers or 1, len(jobs)), gpus_each))


def fill_slots(slots: Sequence[Slot], next_job: NextJob, handle: Callable[[Event], None]) -> None:
    """Give jobs to slots until there are no more. `next_job` and `handle` are called from this thread alone.

    Raises:
        SweepError: no slot could be opened.
    """
    dispatcher = _Dispatcher(slots, next_job, handle)
    try:
        while not dispatcher.is_done:
            dispatcher.assign()
            dispatcher.hear()
    finally:
        for slot in slots:
            slot.kill()


class _Said(Enum):
    """What a slot's thread says, beside events."""

    FREE = "waits for a job"
    GONE = "has let its worker go"


class _Dispatcher:
    """The slots and what each is doing.

    A slot is opening, free, busy or closing, in `states`; one that has gone is not there any more. One whose worker
    died is opening again (its node may be gone); whoever is opening still when all is done is not waited for.
    """

    def __init__(self, slots: Sequence[Slot], next_job: NextJob, handle: Callable[[Event], None]) -> None:
        self.slots, self.next_job, self.handle = slots, next_job, handle
        self.states = dict.fromkeys(range(len(slots)), "opening")
        self.was_last = False
        self.news: SimpleQueue[tuple[int, _Said | Event | Exception]] = SimpleQueue()
        self.jobs: list[SimpleQueue[Job | None]] = [SimpleQueue() for _ in slots]
        for number in self.states:
            threading.Thread(target=self._serve, args=(number,), daemon=True).start()

    @property
    def is_done(self) -> bool:
        return self.was_last and all(state == "opening" for state in self.states.values())

    def assign(self) -> None:
        """A job to every free slot, if there are so many."""
        for number in [number for number, state in self.states.items() if state == "free"]:
            job = self.next_job(self.slots[number].engine)
            if not isinstance(job, Later):
                self.was_last = job is None
                self.states[number] = "closing" if job is None else "busy"
                self.jobs[number].put(job)

    def hear(self) -> None:
        """One piece of news, or none for a while."""
        with suppress(Empty):
            number, said = self.news.get(timeout=POLL_SECONDS)
            if isinstance(said, Exception):
                self._without(number, said)
            elif said is _Said.FREE:
                self.states[number] = "free"
            elif said is _Said.GONE:
                del self.states[number]
            elif not isinstance(said, _Said):
                self.handle(said)
                if isinstance(said, Lost):
                    self.states[number] = "opening"
                    self.was_last = False

    def _without(self, number: int, error: Exception) -> None:
        del self.states[number]
        if not (isinstance(error, SweepError) and self.states):
            raise error

    def _serve(self, number: int) -> None:
        """A slot's thread: waits for jobs and does them."""
        slot = self.slots[number]
        try:
            while True:
                slot.open()
                self.news.put((number, _Said.FREE))
                if (job := self.jobs[number].get()) is None:
                    break
                for event in slot.do(job):
                    self.news.put((number, event))
            slot.close()
            self.news.put((number, _Said.GONE))
        except Exception as error:
            self.news.put((number, error))


def environments(workers: int, gpus_each: int) -> list[dict[str, str]]:
    """What each of several workers on this machine is given: its GPUs, or its share of the cores.

    Args:
        gpus_each: 0 where engines run on the CPU.
    Raises:
        SweepError: there are not so many GPUs.
    """
    devices = _devices() if gpus_each else []
    if not devices:
        cores = max(1, math.floor(processors()) // workers)
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(cores))}
        return [{} if workers == 1 else dict(threads) for _ in range(workers)]
    if workers * gpus_each > len(devices):
        raise SweepError(
            f"--workers {workers}: {gpus_each} GPU{'s' if gpus_each > 1 else ''} each are {workers * gpus_each}, and "
            f"there {'is' if len(devices) == 1 else 'are'} {len(devices)}."
        )
    shares = [devices[number * gpus_each : (number + 1) * gpus_each] for number in range(workers)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]


def _devices() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES knows."""
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] or [str(number) for number in range(count)]
