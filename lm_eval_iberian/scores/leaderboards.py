"""Published rows of leaderboards, from the files in which these publish them, to stand beside ours.

    iberian report out --against rows.jsonl

- Every Eval Ever, in which La Leaderboard's rows are published: JSON records, one a file or one a line
  (https://github.com/evaleval/every_eval_ever, read as of version 0.2.1).
- EuroEval: euroeval_benchmark_results.jsonl, a line a model and data set (https://euroeval.com).

Whatever a row's tasks are called, they are not taken for ours: prompts, shots, metrics and documents of others are not
known here. So such rows have tables of their own, with the names that their publisher gave, below ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_iberian.scores.results import SuiteError
from merge_hooks.files import read_text
from merge_hooks.texts import one_line

ENDINGS = (".json", ".jsonl")
EVERY_EVAL_EVER, EUROEVAL = "Every Eval Ever", "EuroEval"


@dataclass(frozen=True)
class Figure:
    """One published figure: whose, of what, in the unit in which it was published ("of 100", "of 1", "")."""

    publisher: str
    model: str
    column: str
    value: float
    stderr: float | None


@dataclass(frozen=True)
class Published:
    """What one publisher's rows say: model -> column -> (figure, standard error), in the order of the file."""

    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, tuple[float, float | None]]]


def read_published(path: Path) -> list[Published]:
    """The rows of each publisher in a file.

    Raises:
        SuiteError: not there, not JSON, or neither of the two forms.
    """
    figures = [
        figure for number, one in enumerate(_objects(path), 1) for figure in _figures(one, f"{path}, record {number}")
    ]
    if not figures:
        raise SuiteError(f"--against {path}: no published figure in it.")
    return [_published(publisher, [one for one in figures if one.publisher == publisher], path)
            for publisher in dict.fromkeys(one.publisher for one in figures)]  # fmt: skip


def _published(publisher: str, figures: list[Figure], path: Path) -> Published:
    rows: dict[str, dict[str, tuple[float, float | None]]] = {}
    for one in figures:
        if one.column in rows.setdefault(one.model, {}):
            raise SuiteError(
                f"--against {path}: {one.model} has {one.column} twice. Leave one of the two in the file: nobody here "
                "knows which is meant."
            )
        rows[one.model][one.column] = (one.value, one.stderr)
    title = f"Printed by {publisher} ({path.name}): its own prompts, documents and metrics, in its own unit"
    return Published(title, tuple(dict.fromkeys(one.column for one in figures)), rows)


def _objects(path: Path) -> Iterator[Mapping[str, Any]]:
    """The records of a file: one, a list of them, or one a line."""
    try:
        text = read_text(path, SuiteError, "file of published rows")
    except FileNotFoundError:
        raise SuiteError(f"--against {path}: cannot be read (there is no such file).") from None
    try:
        whole = (
            json.loads(text)
            if path.suffix == ".json"
            else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"--against {path}: not JSON ({error}).") from None
    for one in whole if isinstance(whole, list) else [whole]:
        if not isinstance(one, Mapping):
            raise SuiteError(f"--against {path}: {one!s:.40} is no record.")
        yield one


def _figures(record: Mapping[str, Any], where: str) -> Iterator[Figure]:
    if "evaluation_results" in record:
        return _of_every_eval_ever(record, where)
    if "dataset" in record and "results" in record:
        return _of_euroeval(record, where)
    raise SuiteError(f"--against {where}: neither a record of {EVERY_EVAL_EVER} nor a result of {EUROEVAL}.")


def _of_every_eval_ever(record: Mapping[str, Any], where: str) -> Iterator[Figure]:
    source, model = _mapping(record.get("source_metadata")), _mapping(record.get("model_info"))
    publisher = str(source.get("source_name") or source.get("source_organization_name") or EVERY_EVAL_EVER)
    entries = record["evaluation_results"]
    for entry in entries if isinstance(entries, list) else []:
        details, metric = _mapping(_mapping(entry).get("score_details")), _mapping(_mapping(entry).get("metric_config"))
        error = _mapping(_mapping(details.get("uncertainty")).get("standard_error")).get("value")
        said = _mapping(metric.get("additional_details")).get("metric")
        name = str(_mapping(entry).get("evaluation_name") or "?") + (f" ({said})" if said else "")
        yield _figure(publisher, model.get("id") or model.get("name"), name, details.get("score"), error, where)


def _of_euroeval(record: Mapping[str, Any], where: str) -> Iterator[Figure]:
    """Its totals: `test_mcc` and `test_mcc_se`, in percent."""
    total = _mapping(_mapping(record["results"]).get("total"))
    for key, value in total.items():
        if key.startswith("test_") and not key.endswith("_se"):
            how = [key.removeprefix("test_")]
            how += ["zero-shot"] if record.get("few_shot") is False else []
            how += ["validation split"] if record.get("validation_split") is True else []
            name = f"{record['dataset']} ({', '.join(how)})"
            yield _figure(EUROEVAL, record.get("model"), name, value, total.get(f"{key}_se"), where)


def _figure(publisher: str, model: Any, column: str, value: Any, stderr: Any, where: str) -> Figure:
    if not isinstance(model, str) or isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SuiteError(f"--against {where}: {column}: no model, or no number ({value!s:.40}).")
    if not math.isfinite(value):
        raise SuiteError(f"--against {where}: {column}: {value} is no figure. Take the record out of the file.")
    is_number = isinstance(stderr, (int, float)) and not isinstance(stderr, bool) and math.isfinite(stderr)
    error = float(stderr) if is_number else None
    return Figure(one_line(publisher), one_line(model), one_line(column), float(value), error)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
