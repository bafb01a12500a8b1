"""A worker's process: jobs come in through a pipe, events go out. It dies with who started it.

Imports no torch, so that the environment (CUDA_VISIBLE_DEVICES) is set before torch is imported.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from lm_eval_iberian.sweep.job import Event

# How the temporary folder begins that a worker is given, and that goes with it.
TEMPORARY = "iberian-worker-"

MakeWorker = Callable[[Callable[[Event], None]], Any]


def make_worker(emit: Callable[[Event], None]) -> Any:
    """The worker that measures; see `worker`."""
    from lm_eval_iberian.sweep.worker import Worker

    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    return Worker(emit)


def main(connection: Connection, environment: Mapping[str, str], folder: str, make_worker: MakeWorker) -> None:
    """Do jobs until None comes.

    Args:
        environment: set before anything else.
        folder: relative paths in recipes are meant from here, if this machine has it.
    """
    # A group of its own: who kills it takes the engine's own processes (vLLM has some) along, and Ctrl-C is the
    # driver's to handle.
    os.setpgrp()
    watch = threading.Thread(target=_die_with_parent, daemon=True)
    watch.start()
    os.environ.update(environment)
    _leave_nothing(os.environ.get("TMPDIR", ""))
    with suppress(OSError):
        os.chdir(folder)
    worker = make_worker(connection.send)
    try:
        while (job := connection.recv()) is not None:
            worker.run(job)
    except (EOFError, ConnectionError):  # the driver has died
        watch.join()
    worker.close()


def _die_with_parent() -> None:
    """A driver that was killed leaves no engine behind that holds a GPU."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)


def _leave_nothing(temporary: str) -> None:
    """However this process ends, its group ends with it, and the temporary folder goes that was made for it.

    A shell outside of the group waits for that. Ray, for one, kills a worker and not what that has started.
    """
    made = temporary if os.path.basename(temporary).startswith(TEMPORARY) else ""  # noqa: PTH119
    end, ours = os.pipe()  # nothing is written: `read` returns when `ours` is closed, which the system does
    os.register_at_fork(after_in_child=lambda: os.close(ours))
    script = 'read _; kill -9 "-$1"; [ -z "$2" ] || rm -rf -- "$2"'
    with suppress(OSError):
        subprocess.Popen(
            ["/bin/sh", "-c", script, "sh", str(os.getpgrp()), made], stdin=end, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    os.close(end)
