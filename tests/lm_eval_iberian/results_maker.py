"""Results files as lm_eval 0.4.13 writes them, with the scores of one's choice."""

from __future__ import annotations

from typing import Any

from lm_eval_iberian.benchmarks.table import benchmarks


def results(scores: dict[str, dict[str, float | str]], documents: int = 100, **other: Any) -> dict[str, Any]:
    """The JSON of a run: task -> {"acc": 0.5, "acc_stderr": 0.01}."""
    filled = {
        task: {"name": task, "alias": task, "sample_len": documents}
        | {f"{metric},none": value for metric, value in metrics.items()}
        for task, metrics in scores.items()
    }
    return {
        "results": filled,
        "configs": {task: {"metadata": {"version": 1.0}} for task in scores},
        "versions": dict.fromkeys(scores, 1.0),
        "n-shot": dict.fromkeys(scores, 5),
        "n-samples": {task: {"original": documents, "effective": documents} for task in scores},
        "config": {"model": "hf", "model_args": {"pretrained": "org/model"}, "limit": None},
        "model_source": "hf",
        "model_name": "org/model",
        "task_hashes": {},
        "chat_template_sha": None,
    } | other


def everything(value: float = 0.5, stderr: float = 0.01) -> dict[str, dict[str, float | str]]:
    """A score for each of our tasks: 50 % or BLEU 50 by default."""
    return {
        task: {b.metric: value * b.percent, f"{b.metric}_stderr": stderr * b.percent}
        for b in benchmarks()
        for task in b.tasks
    }
