"""Where workers live: in this process, or in processes of this machine. A Ray cluster: `ray_pool`.

A pool asks for a job whenever a worker is free and passes on what the worker says. It knows nothing of the store.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from lm_eval_iberian.sweep import process
from lm_eval_iberian.sweep.errors import SweepError
from lm_eval_iberian.sweep.job import Event, Failed, Finished, Job
from lm_eval_iberian.sweep.kept_tasks import KeptTasks

# A job whose worker died is tried so often; then the point is taken for the reason.
ATTEMPTS = 2

# Gives the next job for a worker whose engine has this key (None: it has none), or None where there is no more.
NextJob = Callable[[str | None], Job | None]


class Pool(Protocol):
    """Runs jobs until there are no more."""

    def run(self, next_job: NextJob, handle: Callable[[Event], None]) -> None: ...


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

        failed = False

        def emit(event: Event) -> None:
            nonlocal failed
            failed = failed or (isinstance(event, Failed) and event.fatal)
            handle(event)

        worker = Worker(emit, self.tasks)
        while (job := next_job(worker.engine or None)) is not None:
            if failed or (worker.engine and worker.engine != job.engine):
                worker.close()
                failed = False
            worker.run(job)
        worker.close()


@dataclass
class _Hired:
    """A worker process. `engine`: of its last job; `attempts` is kept by job key in the pool."""

    process: Any
    connection: Connection
    environment: Mapping[str, str]
    job: Job | None = None
    engine: str | None = None
    is_spent: bool = False


class Processes:
    """Workers in processes of their own on this machine, each with its GPUs.

    Args:
        environments: one a worker: what to set in it, such as CUDA_VISIBLE_DEVICES.
    """

    def __init__(self, environments: list[Mapping[str, str]]) -> None:
        self.environments = environments
        self.attempts: dict[str, int] = {}
        self.context = multiprocessing.get_context("spawn")

    def run(self, next_job: NextJob, handle: Callable[[Event], None]) -> None:
        """Do jobs. A worker that dies is replaced, and its job tried once more."""
        again: list[Job] = []

        def take(engine: str | None) -> Job | None:
            return again.pop(0) if again else next_job(engine)

        hired: list[_Hired] = []
        try:
            for environment in self.environments:
                if (job := take(None)) is not None:
                    hired.append(self._hire(environment, job))
            while hired:
                for worker in self._with_news(hired):
                    hired.remove(worker)
                    kept = self._hear(worker, take, again, handle)
                    if kept is not None:
                        hired.append(kept)
        finally:
            for worker in hired:
                worker.process.kill()
                worker.process.join()

    @staticmethod
    def _with_news(hired: list[_Hired]) -> list[_Hired]:
        ready = wait([worker.connection for worker in hired], timeout=1.0)
        return [worker for worker in hired if worker.connection in ready]

    def _hear(self, worker: _Hired, take: NextJob, again: list[Job], handle: Callable[[Event], None]) -> _Hired | None:
        """One message of a worker; returns who goes on in its place."""
        try:
            event = worker.connection.recv()
        except (EOFError, ConnectionError):
            return self._bury(worker, take, again, handle)
        handle(event)
        if not isinstance(event, (Finished, Failed)):
            return worker
        is_spent = isinstance(event, Failed) and event.fatal
        return self._go_on(worker, take(None if is_spent else worker.engine), is_spent)

    def _bury(self, worker: _Hired, take: NextJob, again: list[Job], handle: Callable[[Event], None]) -> _Hired | None:
        worker.process.join()
        job, code = worker.job, worker.process.exitcode
        assert job is not None
        self.attempts[job.key] = self.attempts.get(job.key, 0) + 1
        if self.attempts[job.key] < ATTEMPTS:
            again.append(job)
        else:
            handle(Failed(job.key, f"its worker died {ATTEMPTS} times ({_death(code)}).", ""))
        following = take(None)
        return None if following is None else self._hire(worker.environment, following)

    def _go_on(self, worker: _Hired, job: Job | None, is_spent: bool) -> _Hired | None:
        if job is not None and not is_spent and job.engine == worker.engine:
            worker.connection.send(job)
            worker.job = job
            return worker
        worker.connection.send(None)
        worker.process.join(timeout=30)
        worker.process.kill()
        return None if job is None else self._hire(worker.environment, job)

    def _hire(self, environment: Mapping[str, str], job: Job) -> _Hired:
        ours, theirs = self.context.Pipe()
        started = self.context.Process(target=process.main, args=(theirs, dict(environment)), daemon=False)
        started.start()
        theirs.close()
        ours.send(job)
        return _Hired(started, ours, environment, job, job.engine)


def _death(code: int | None) -> str:
    if code == -9:
        return "killed: out of memory?"
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def environments(workers: int, gpus_each: int) -> list[Mapping[str, str]]:
    """What each of several workers on this machine is given: its GPUs, or its share of the cores.

    Raises:
        SweepError: there are not so many GPUs.
    """
    devices = _devices()
    if devices is None:
        cores = max(1, (os.cpu_count() or 1) // workers)
        return [{} if workers == 1 else {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(cores))}] * workers
    if workers * gpus_each > len(devices):
        raise SweepError(
            f"--workers {workers}: {gpus_each} GPU{'s' if gpus_each > 1 else ''} each are {workers * gpus_each}, and "
            f"there {'is' if len(devices) == 1 else 'are'} {len(devices)}."
        )
    shares = [devices[number * gpus_each : (number + 1) * gpus_each] for number in range(workers)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]


def _devices() -> list[str] | None:
    """The GPUs that this process may use; None where there are none."""
    import torch

    count = torch.cuda.device_count()
    if not count:
        return None
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(count)]
