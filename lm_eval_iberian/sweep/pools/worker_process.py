"""One worker in a process of its own. One that dies is replaced.

Pools on this machine give each of these a thread; on a Ray cluster each lies in an actor (`ray`).
"""

from __future__ import annotations

import getpass
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lm_eval_iberian.sweep.job import Event, Failed, Finished, Job, Lost
from lm_eval_iberian.sweep.pools import process

# How long a worker has for letting its engine go before it is killed (seconds).
LEAVE_SECONDS = 30.0


class WorkerProcess:
    """Runs jobs in a worker's process, which starts with the first.

    Args:
        environment: what to set in it, such as CUDA_VISIBLE_DEVICES.
        folder: the current folder of the sweep; relative paths in recipes are meant from it.
        make_worker: called in the process with the function that takes events.
    """

    def __init__(
        self, environment: Mapping[str, str], folder: Path | None = None,
        make_worker: process.MakeWorker = process.make_worker,
    ) -> None:  # fmt: skip
        self.environment, self.folder, self.make_worker = dict(environment), str(folder or Path.cwd()), make_worker
        self.engine: str | None = None
        self._process: Any = None
        self._lock, self._is_over = threading.Lock(), False
        self._connection: Any = None
        # A worker that is killed removes nothing: what it and its engine leave goes with this folder.
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def open(self) -> None:
        """Nothing to wait for."""

    def do(self, job: Job) -> Iterator[Event]:
        """Do a job; the last event is Finished, Failed or Lost."""
        for events in self.do_in_batches(job, 1):
            yield from events

    def do_in_batches(self, job: Job, size: int) -> Iterator[list[Event]]:
        """The same, up to `size` events at once where they have come already."""
        if self.engine not in (None, job.engine):
            self.close()
        events: list[Event] = []
        try:
            if self._process is None:
                self._start()
            self.engine = job.engine
            self._connection.send(job)
            while not (events and isinstance(events[-1], (Finished, Failed, Lost))):
                events = self._gather(size)
                yield events
        except (EOFError, ConnectionError):
            yield [Lost(job.key, self._reap())]
            return
        if isinstance(events[-1], Lost) or (isinstance(events[-1], Failed) and events[-1].fatal):
            self.close()  # what broke may have broken the engine

    def _gather(self, size: int) -> list[Event]:
        """What has come, at least one event. Raises EOFError where none will."""
        events = [self._connection.recv()]
        with suppress(EOFError, ConnectionError):
            while len(events) < size and self._connection.poll():
                events.append(self._connection.recv())
        return events

    def close(self) -> None:
        """Let the worker go, and its engine with it."""
        if self._process is not None:
            with suppress(OSError):
                self._connection.send(None)
            self._process.join(LEAVE_SECONDS)
            self._reap()

    def kill(self) -> None:
        """End the worker now, and every process that its engine has started; safe from another thread."""
        with self._lock:
            self._is_over, worker = True, self._process
        if worker is not None:
            _kill(worker)
            self._clean()

    def _clean(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._temporary = tempfile.TemporaryDirectory(prefix=process.TEMPORARY, ignore_cleanup_errors=True)
        environment = {**_lasting_caches(), **self.environment, "TMPDIR": self._temporary.name}
        said = (theirs, environment, self.folder, self.make_worker)
        made = context.Process(target=process.main, args=said, daemon=False)
        with self._lock:
            if self._is_over:
                raise EOFError("the sweep has ended")
            made.start()
            self._process = made
        theirs.close()
        self._connection = ours

    def _reap(self) -> str:
        """Returns what the worker died of."""
        worker, connection = self._process, self._connection
        if worker is None:
            return "the sweep has ended"
        worker.join(LEAVE_SECONDS)  # its pipe may be closed before it is dead
        code = worker.exitcode
        _kill(worker)
        self._clean()
        connection.close()
        self._process = self._connection = self.engine = None
        return death(code)


def _lasting_caches() -> dict[str, str]:
    """Where compilers keep what the next worker uses again: not in a folder that goes with this one."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container, or a node without the directory service: the number has no name
        user = str(os.getuid())
    wanted = {"TORCHINDUCTOR_CACHE_DIR": f"torchinductor_{user}"}
    return {
        name: str(Path(tempfile.gettempdir()) / folder) for name, folder in wanted.items() if name not in os.environ
    }


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
