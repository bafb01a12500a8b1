"""A worker that measures nothing: what it does with a job is said by the job's recipe. It starts in no time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm_eval_iberian.identity.identity import Identity
from lm_eval_iberian.runs.store import Answer
from lm_eval_iberian.sweep.job import Answered, Event, Failed, Finished, Job, Started
from lm_eval_iberian.sweep.spec import Evaluation


def a_job(key: str, does: str = "", engine: str = "one") -> Job:
    """A job named `key`. `does`: see `FakeWorker.run`; several words, one after the other."""
    return Job(
        key=key, point=key, engine=engine, signature=f"signature of {key}", identity=Identity({}), recipe=(does, "test", None),
        merge_seed=0, rng="", evaluation=Evaluation(("task",)), model_args={}, chat=(False, False), include_path=None,
    )  # fmt: skip


class FakeWorker:
    """Says where it lives in its results, and answers one request a job."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self.emit, self.jobs = emit, 0

    def run(self, job: Job) -> None:
        """Do what the job's recipe says: "die PATH" (once: PATH is made), "die", "fail", "break", "sleep", "child"."""
        self.emit(Started(job.key, "engine", 0.0, ""))
        self.emit(Answered(job.key, [Answer(f"answer to {job.key}", job.signature, "task", "1", "type", '"yes"')]))
        self.jobs += 1
        result: dict[str, Any] = {"pid": os.getpid(), "jobs": self.jobs, "known": len(job.known)}
        result |= {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "IBERIAN_X")}
        for word in job.recipe[0].split(", "):
            what, _, path = word.partition(" ")
            match what:
                case "die":
                    if not path or not Path(path).exists():
                        Path(path or os.devnull).touch()
                        os.kill(os.getpid(), signal.SIGKILL)
                case "fail" | "break":
                    self.emit(Failed(job.key, f"it shall {what}", "", fatal=what == "break"))
                    return
                case "sleep":
                    time.sleep(float(path))
                case "child":
                    result["child"] = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid
                    Path(path).write_text(f"{os.getpid()} {result['child']}")
        self.emit(Finished(job.key, job.signature, result, {}, [], 0.0))

    def close(self) -> None:
        """Nothing to let go."""


class Quiet:
    """A progress that keeps quiet."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None
