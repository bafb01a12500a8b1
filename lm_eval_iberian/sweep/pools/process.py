"""A worker's process: jobs come in through a pipe, events go out. It dies with who started it.

Imports no torch, so that the environment (CUDA_VISIBLE_DEVICES) is set before torch is imported.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from lm_eval_iberian.sweep.job import Event

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
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ.update(environment)
    with suppress(OSError):
        os.chdir(folder)
    worker = make_worker(connection.send)
    while (job := connection.recv()) is not None:
        worker.run(job)
    worker.close()


def _die_with_parent() -> None:
    """A driver that was killed leaves no engine behind that holds a GPU."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)
