"""How many documents of a task were answered, by what lm_eval's results file says.

    answered(data)      # {"arc_easy": 3}, though the file counts 2376

lm_eval 0.4.9 to 0.4.11 count every document where `--samples` named a few, and write nowhere that it did. The standard
error knows better: that of n values between 0 and 1 with the mean p is at most sqrt(p (1 - p) / (n - 1)).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

MISCOUNTING = ("0.4.9", "0.4.10", "0.4.11")
# Metrics that are the mean of one value between 0 and 1 a document.
MEANS = (
    "acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "mc1",
    "prompt_level_strict_acc", "prompt_level_loose_acc",
)  # fmt: skip
# How far beyond its most a standard error may lie: files hold rounded ones.
ROUNDING = 1.02
NOT_KNOWN = "an unknown number of"


def answered(data: Mapping[str, Any]) -> dict[str, Any]:
    """Task -> how many: as the file counts them, or fewer where the standard error says so.

    NOT_KNOWN where the file counts another task's documents wrongly and nothing confirms this one's count.
    """
    counted = {task: _mapping(counts).get("effective") for task, counts in _mapping(data.get("n-samples")).items()}
    if not str(data.get("lm_eval_version")).startswith(MISCOUNTING):
        return counted
    most = {task: _most(_mapping(_mapping(data.get("results")).get(task))) for task in counted}
    fewer = {task: round(most[task] or 0) for task, count in counted.items() if _is_wrong(count, most[task])}
    unsure = {task: NOT_KNOWN for task, count in counted.items() if fewer and most[task] is None and count is not None}
    return {**counted, **unsure, **fewer}


def _is_wrong(counted: Any, most: float | None) -> bool:
    """Whether a task's standard error is more than that of as many documents as the file counts can be."""
    return _is_number(counted) and most is not None and (most - 1) * ROUNDING**2 < counted - 1


def _most(scores: Mapping[str, Any]) -> float | None:
    """How many documents at most have the standard errors of a task; None where it has none that says it."""
    found = [value / stderr * ((1 - value) / stderr) + 1 for value, stderr in _means(scores)
             if 0 < value < 1 and 0 < stderr <= 1]  # fmt: skip
    return min(found, default=None)


def _means(scores: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    """Values and standard errors of the metrics that are means."""
    for key, value in scores.items():
        name, comma, filter_ = str(key).partition(",")
        stderr = scores.get(f"{name}_stderr{comma}{filter_}")
        if name in MEANS and _is_number(value) and _is_number(stderr):
            yield value, stderr


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
