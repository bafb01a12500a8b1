"""Sweeps whose engines and drivers are killed: `python -m tests.faults.killed_sweeps SWEEP.json FOLDER worker|here`.

`killed_worker` makes a worker whose engine lives in its process, and which dies at each of KILLS once, if $KILLED names a
folder: an empty file there says that it has.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lm_eval_iberian.sweep.job import Answered, Event, Finished
from lm_eval_iberian.sweep.pools import process

KILLED = "IBERIAN_TEST_KILLED"
KILLS = ("answer", "swap", "proof")


def die(at: str) -> None:
    """Once."""
    mark = Path(os.environ.get(KILLED, "")) / at
    if KILLED in os.environ and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def killed_worker(emit: Callable[[Event], None]) -> Any:
    """Made in the worker's process."""
    from lm_eval_iberian.sweep import kept_tasks
    from merge_hooks.engines import hf_proof, vllm_worker
    from merge_hooks.stream.stream import Stream
    from tests.lm_eval_iberian.sweep.runner import ONLY_OURS

    kept_tasks.TaskManager = ONLY_OURS  # type: ignore[assignment, misc]
    seen: Counter[str] = Counter()

    def cut(given: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def cutting(*words: Any, **more: Any) -> Iterator[Any]:
            for number, pair in enumerate(given(*words, **more)):
                if number == 5 and seen["finished"]:
                    die("swap")
                yield pair

        return cutting

    def late(prove: Callable[..., Any]) -> Callable[..., Any]:
        def proving(*words: Any, **more: Any) -> Any:
            if seen["finished"]:
                die("proof")
            return prove(*words, **more)

        return proving

    def said(event: Event) -> None:
        emit(event)
        seen["answers"] += isinstance(event, Answered)
        seen["finished"] += isinstance(event, Finished)
        if seen["answers"] == 30:  # on vLLM: of 24 choices and 12 texts
            die("answer")

    # After its first evaluation a worker swaps; before that, what it loads may be the engine's start.
    vllm_worker.merged_weights = cut(vllm_worker.merged_weights)
    Stream.into = cut(Stream.into)  # type: ignore[method-assign]
    worker = vllm_worker.MergingWorker
    worker.merge_prove = late(worker.merge_prove)  # type: ignore[method-assign]
    hf_proof.prove = late(hf_proof.prove)
    return process.make_worker(said)


def main(data: dict[str, Any], folder: Path, is_here: bool) -> None:
    """The sweep, in this process or in a worker's."""
    from lm_eval_iberian.sweep.pools.local import InProcess, fill_slots
    from lm_eval_iberian.sweep.pools.worker_process import WorkerProcess
    from tests.lm_eval_iberian.sweep.pool_sweeps import run

    class Pool:
        def run(self, next_job: Any, handle: Any) -> None:
            fill_slots([WorkerProcess({}, make_worker=killed_worker)], next_job, handle)

    failures, _ = run(data, folder, lambda plan, _: InProcess(plan.tasks) if is_here else Pool())
    assert not failures, failures


if __name__ == "__main__":
    from lm_eval_iberian.sweep import kept_tasks
    from tests.lm_eval_iberian.sweep.runner import ONLY_OURS

    kept_tasks.TaskManager = ONLY_OURS  # type: ignore[assignment, misc]
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), sys.argv[3:] == ["here"])
