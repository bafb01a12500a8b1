"""A desk: the place of one worker, which is a process of its own. Who dies at it is replaced.

Pools on this machine give each desk a thread; on a Ray cluster each lies in an actor (`ray_pool`).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lm_eval_iberian.sweep import process
from lm_eval_iberian.sweep.job import Event, Failed, Finished, Job, Lost

# How long a worker has for letting its engine go before it is killed (seconds).
LEAVE_SECONDS = 30.0


class Desk:
    """Runs jobs in a worker's process, which starts with the first.

    Args:
        environment: what to set in it, such as CUDA_VISIBLE_DEVICES.
        folder: the current folder of the sweep; relative paths in recipes are meant from it.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path | None = None) -> None:
        self.environment, self.folder = dict(environment), str(folder or Path.cwd())
        self.engine: str | None = None
        self._process: Any = None
        self._lock, self._is_over = threading.Lock(), False
        self._connection: Any = None

    def open(self) -> None:
        """Nothing to wait for."""

    def do(self, job: Job) -> Iterator[Event]:
        """Do a job; the last event is Finished, Failed or Lost."""
        if self.engine not in (None, job.engine):
            self.close()
        try:
            if self._process is None:
                self._hire()
            self.engine = job.engine
            self._connection.send(job)
            while True:
                event = self._connection.recv()
                yield event
                if isinstance(event, (Finished, Failed)):
                    break
        except (EOFError, ConnectionError):
            yield Lost(job.key, self._bury())
            return
        if isinstance(event, Failed) and event.fatal:
            self.close()  # what broke may have broken the engine

    def close(self) -> None:
        """Let the worker go, and its engine with it."""
        if self._process is not None:
            with suppress(OSError):
                self._connection.send(None)
            self._process.join(LEAVE_SECONDS)
            self._bury()

    def kill(self) -> None:
        """End the worker now, and every process that its engine has started; safe from another thread."""
        with self._lock:
            self._is_over, worker = True, self._process
        if worker is not None:
            _kill(worker)

    def _hire(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        made = context.Process(target=process.main, args=(theirs, self.environment, self.folder), daemon=False)
        with self._lock:
            if self._is_over:
                raise EOFError("the sweep has ended")
            made.start()
            self._process = made
        theirs.close()
        self._connection = ours

    def _bury(self) -> str:
        """Returns what the worker died of."""
        worker, connection = self._process, self._connection
        if worker is None:
            return "the sweep has ended"
        worker.join(LEAVE_SECONDS)  # its pipe may be closed before it is dead
        code = worker.exitcode
        _kill(worker)
        connection.close()
        self._process = self._connection = self.engine = None
        return death(code)


def _kill(worker: Any) -> None:
    """A worker's process and every process that its engine has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.kill()  # it may not have had the time to make its group
    worker.join()


def death(code: int | None) -> str:
    """An exit code in words."""
    if code == -signal.SIGKILL:
        return "killed; out of memory?"
    if code is not None and code < 0:
        return f"signal {-code}, {signal.Signals(-code).name}"
    return "it said no more" if code is None else f"exit code {code}"
