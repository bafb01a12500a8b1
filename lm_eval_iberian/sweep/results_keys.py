"""What lm_eval's command line writes into results beside scores, for those who read a sweep's files as lm_eval's.

A sweep calls `lm_eval.evaluate`, which returns scores alone; `simple_evaluate` and the command line add the rest. Nothing
here says what was measured: `lm_eval_iberian.identity` does. `pretty_env_info` is shorter than lm_eval's own, which asks
pip and takes seconds.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lm_eval_iberian.runs.errors import SweepError

PACKAGES = ("torch", "transformers", "vllm", "lm_eval", "mergekit", "numpy", "safetensors", "triton")


def as_the_command_line(
    model: Any, name: str, samples: Mapping[str, Sequence[Mapping[str, Any]]], system: str | None, template: str | None,
    began: float, ended: float,
) -> dict[str, Any]:  # fmt: skip
    """lm_eval's keys: names, texts of the prompts, the tokenizer's tokens, hashes of the samples, where and how long.

    Args:
        model: a `MergedVLLM` or `MergedHF`.
        name: the point's.
        samples: leaf task -> lm_eval's samples.
        system, template: the system prompt and the chat template in use, or None.
        began, ended: `time.perf_counter()`.
    """
    from lm_eval.loggers.utils import add_tokenizer_info
    from lm_eval.utils import sanitize_model_name

    found: dict[str, Any] = {
        "model_name": name, "model_name_sanitized": sanitize_model_name(name), "system_instruction": system,
        "chat_template": template, "task_hashes": task_hashes(samples), "start_time": began, "end_time": ended,
        "total_evaluation_time_seconds": str(ended - began), **surroundings(),
    }  # fmt: skip
    add_tokenizer_info(found, model)
    return found


def task_hashes(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """lm_eval's hash of what each task asked, document by document."""
    from lm_eval.utils import hash_string

    return {task: hash_string("".join(str(row["doc_hash"] + row["prompt_hash"] + row["target_hash"]) for row in rows))
            for task, rows in samples.items()}  # fmt: skip


def samples_files(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """Task -> what lm_eval's `--log_samples` writes into its file: lm_eval writes it itself, into a folder of ours.

    Raises:
        SweepError: lm_eval could not write one; it only logs why.
    """
    from lm_eval.loggers import EvaluationTracker

    with TemporaryDirectory() as folder:
        tracker = EvaluationTracker(output_path=str(Path(folder) / "results.json"))
        tracker.date_id = "now"
        for task, rows in samples.items():
            tracker.save_results_samples(task, [dict(row) for row in rows])
        files = {task: Path(folder) / f"samples_{task}_now.jsonl" for task in samples}
        if missing := [task for task, file in files.items() if not file.is_file()]:
            raise SweepError(f"lm_eval could not write the samples of {', '.join(missing)}. Leave out log_samples.")
        return {task: file.read_text(encoding="utf-8") for task, file in files.items()}


def config_keys(model: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What `simple_evaluate` writes into `config` beside what an identity reads."""
    sizes = getattr(model, "batch_sizes", None)
    return {
        "batch_size": arguments.get("batch_size"), "batch_sizes": list(sizes.values()) if isinstance(sizes, dict) else [],
        "device": arguments.get("device"), "use_cache": None, "bootstrap_iters": 100_000,
    }  # fmt: skip


@cache
def surroundings() -> dict[str, Any]:
    """Commits of the current folder and the one above it, and the machine; looked up once a process."""
    from lm_eval.loggers.utils import get_commit_from_path

    from lm_eval_iberian.noise import git_commit

    return {
        "git_hash": git_commit(), "upper_git_hash": get_commit_from_path(Path.cwd().parent),
        "pretty_env_info": "\n".join(_machine()),
    }  # fmt: skip


def _machine() -> Iterable[str]:
    import torch

    yield f"Python version: {sys.version.split()[0]} ({platform.platform()})"
    yield f"PyTorch version: {torch.__version__}, CUDA used to build PyTorch: {torch.version.cuda}"
    if torch.cuda.is_available():
        yield from (
            f"GPU {number}: {torch.cuda.get_device_name(number)}" for number in range(torch.cuda.device_count())
        )
    for package in PACKAGES:
        try:
            yield f"[pip] {package}=={version(package)}"
        except PackageNotFoundError:
            continue
