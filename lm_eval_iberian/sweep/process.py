"""A worker's process: jobs come in through a pipe, events go out. It dies with its driver.

Imports nothing heavy, so that the environment (CUDA_VISIBLE_DEVICES) is set before torch is imported.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection, wait


def main(connection: Connection, environment: Mapping[str, str]) -> None:
    """Do jobs until None comes."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    threading.Thread(target=_die_with_driver, daemon=True).start()
    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    from lm_eval_iberian.sweep.worker import Worker

    worker = Worker(connection.send)
    while (job := connection.recv()) is not None:
        worker.run(job)
    worker.close()


def _die_with_driver() -> None:
    """A driver that was killed leaves no engine behind that holds a GPU."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL) if os.getpgrp() == os.getpid() else os._exit(1)
