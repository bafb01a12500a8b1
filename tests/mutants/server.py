"""Runs pytest again and again in a copy of the repository, without importing torch and lm_eval each time.

    python server.py     in the copy; reads a line of JSON a run: {"tests": "tests/...", "limit": 180}

It imports what others wrote and forks for each run. The child imports our packages from the copy as it is then.
It answers with a line of JSON: {"code": pytest's exit code, null where the limit was reached, "said": its output}.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

OURS = ("lm_eval_iberian", "merge_hooks", "ifeval_multi")
THEIRS = (
    "pytest", "hypothesis", "numpy", "torch", "transformers", "datasets", "scipy.stats", "sacrebleu", "safetensors.torch",
    "lm_eval.models", "lm_eval.tasks.manager", "lm_eval.api.model", "lm_eval.evaluator", "lm_eval.models.huggingface",
    "mergekit.config", "mergekit.graph", "mergekit.merge_methods", "peft", "rich.progress", "matplotlib.figure", "optuna",
    "sklearn.metrics", "vllm.entrypoints.llm", "vllm.sampling_params", "vllm.inputs",
)  # fmt: skip
ENOUGH = 4000  # characters of pytest's output


def warm_up() -> None:
    """Import what is the same for every run. IBERIAN_AUTOLOAD=0 keeps our packages out."""
    for name in THEIRS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    _keep_lm_evals_index()
    ours = [name for name in sys.modules if name.split(".")[0] in OURS]
    assert not ours, f"imported before there is a mutant: {ours}"


def _keep_lm_evals_index() -> None:
    """Each TaskManager parses all of lm_eval's own task files, for 15 s: here they are parsed once for all runs."""
    import lm_eval.tasks
    from lm_eval.tasks._index import TaskIndex

    theirs = Path(lm_eval.tasks.__file__).parent
    build = TaskIndex.build
    known = build([theirs])

    def with_known(paths: Iterable[Path], **options: bool) -> dict[str, Any]:
        parts = [known if Path(path) == theirs else build([path], **options) for path in paths]
        return {name: entry for part in parts for name, entry in part.items()}

    TaskIndex.build = staticmethod(with_known)


def in_child(tests: str, output: int) -> int:
    """What the child does: our plugin as an interpreter's start would have it, then pytest."""
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.pop("IBERIAN_AUTOLOAD")
    try:
        _import_ours()
    except BaseException as error:  # what a mutant breaks here every test would notice
        print(f"our packages cannot be imported: {error!r}")
        return 2
    import pytest

    return int(pytest.main(["-x", "-q", "-m", "not slow and not nightly", "-p", "no:cacheprovider", *tests.split()]))


def _import_ours() -> None:
    from lm_eval_iberian import autoload, plugin

    copy = Path.cwd().resolve()
    assert Path(plugin.__file__).resolve().is_relative_to(copy), f"{plugin.__file__} is not of the copy {copy}"
    plugin.activate()
    autoload._register_merge_methods()


def run(tests: str, limit: float) -> dict[str, Any]:
    """One run in a forked child; all processes that it started end with it."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            code = 3
            try:
                code = in_child(tests, output.fileno())
            finally:
                sys.stdout.flush()
                os._exit(code)
        code = _wait(child, time.monotonic() + limit)
        output.seek(0)
        return {"code": code, "said": output.read().decode(errors="replace")[-ENOUGH:]}


def _wait(child: int, until: float) -> int | None:
    status = None
    while status is None and time.monotonic() < until:
        done, found = os.waitpid(child, os.WNOHANG)
        status = found if done else None
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if status is None:
        os.waitpid(child, 0)
        return None
    return os.waitstatus_to_exitcode(status)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that is imported may print among the answers
    warm_up()
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
