"""The head of the page: what was measured, how far the sweep is, and what a reader must know before any figure."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lm_eval_iberian.benchmarks.benchmark import TOYS
from lm_eval_iberian.compare.tables import distinct
from lm_eval_iberian.pictures.gathered import Gathered
from lm_eval_iberian.runs.point import SweepPoint
from lm_eval_iberian.runs.run import SweepRun
from lm_eval_iberian.scores.suite import BELOW_CHANCE
from lm_eval_iberian.wording import some

VERSIONS = ("lm_eval", "mergekit", "vllm", "transformers", "torch", "lm_eval_iberian", "ifeval_multi")


def axes(run: SweepRun) -> str:
    """What was swept."""
    return ", ".join(f"{axis} ({', '.join(labels)})" for axis, labels in run.axes.items())


def facts(run: SweepRun) -> list[tuple[str, str]]:
    """(what, said); "" where it is not known."""
    finished = f"{len(run.points) - len(run.unfinished)} of {len(run.points)} finished"
    return [("Measured", _dates(run)), ("Points", finished), ("Tasks", str(len(run.tasks))),
            ("Documents", _documents(run)), ("Data", _data(run)), ("Versions", _versions(run))]  # fmt: skip


def notices(found: Gathered) -> Iterator[tuple[str, list[str]]]:
    """(title, lines) of what a reader must know before any figure."""
    run = found.run
    if not run.tasks:
        yield "Nothing is measured yet.", []
    marked = _problems(run)
    samples = [task for task, said in marked.items() if any("sample" in word for word in said)]
    if samples:
        yield "Embedded samples, not benchmarks: no figure here says how good a model is.", [some(samples, 8)]
    if any(column.kind in TOYS for column in found.scores.columns):
        yield "Toys: tiny models in a world of a few words. No figure here says how good a real model is.", []
    if limited := [task for task in marked if task not in samples]:
        yield "Not of whole benchmarks (limited, or not the known data set):", [some(limited, 8)]
    if run.failures:
        yield f"{len(run.failures)} of {len(run.points)} points failed:", _by_reason(run.failures)
    if waiting := [point for point in run.unfinished if point not in run.failures]:
        yield f"Not finished: {len(waiting)} of {len(run.points)} points are still to be measured.", [some(waiting, 8)]
    if odd := _odd(found):
        yield "Prompted otherwise than most of their column (marked § there):", odd
    if flags := {found.compact(point.name): said for point in run.points if (said := _doubts(point))}:
        yield "Look at the answers before the score (marked ‡ beside it):", _by_reason(flags)


def _doubts(point: SweepPoint) -> list[str]:
    """Why a point's answers should be looked at before its scores."""
    said = [f"{task}: {word}" for task, words in point.flags.items() for word in words]
    return said + [f"{benchmark.title}: {BELOW_CHANCE}" for benchmark, score in point.model_scores.benchmarks.items()
                   if BELOW_CHANCE in score.doubts]  # fmt: skip


def _odd(found: Gathered) -> list[str]:
    """Which points were prompted otherwise, and how."""
    said: dict[str, list[str]] = {}
    for table in found.report.tables:
        for (point, _, cells), word in zip(table.rows, table.prompts, strict=True):
            if any(cell.odd for cell in cells) and found.compact(point) not in said.setdefault(word, []):
                said[word].append(found.compact(point))
    return [f"{word}: {some(points, 8)}" for word, points in said.items() if points]


def _by_reason(said: Mapping[str, Sequence[str]]) -> list[str]:
    """What is said of many points as one line."""
    found: dict[str, list[str]] = {}
    for point, reasons in said.items():
        for reason in distinct(reasons):
            found.setdefault(reason, []).append(point)
    return [f"{reason} ({some(points, 8)})" for reason, points in found.items()]


def _problems(run: SweepRun) -> dict[str, tuple[str, ...]]:
    """task -> why its figures are not of the whole benchmark."""
    found: dict[str, tuple[str, ...]] = {}
    for point in run.points:
        for one in point.runs:
            for task in one.data["configs"]:
                problems = one.leaf(task, "").problems[1:]  # the first: no such metric
                if problems:
                    found.setdefault(task, problems)
    return found


def _results(run: SweepRun) -> list[dict[str, Any]]:
    return [result for point in run.points for result in point.results]


def _dates(run: SweepRun) -> str:
    """The days of the measurements, UTC; never today's, so that the same store gives the same page."""
    stamps = sorted(float(result["date"]) for result in _results(run) if isinstance(result.get("date"), (int, float)))
    days = [datetime.datetime.fromtimestamp(stamp, datetime.UTC).date().isoformat() for stamp in stamps]
    return " to ".join(dict.fromkeys([*days[:1], *days[-1:]]))


def _documents(run: SweepRun) -> str:
    """How many documents each point answered."""
    counts: dict[str, int] = {}
    for result in _results(run):
        for task, found in (result.get("n-samples") or {}).items():
            if task in result["configs"] and isinstance(found, dict):
                counts[task] = max(counts.get(task, 0), int(found.get("effective") or 0))
    return f"{sum(counts.values()):,} a point" if counts else ""


def _data(run: SweepRun) -> str:
    """Where the documents came from."""
    entries = [entry for result in _results(run)[:1] for entry in result["configs"].values() if isinstance(entry, dict)]
    metadata = [entry["metadata"] for entry in entries if isinstance(entry.get("metadata"), dict)]
    named = dict.fromkeys(str(one["documents"]) for one in metadata if one.get("documents"))
    return some(["embedded samples" if one == "samples" else one for one in named], 2, "; ")


def _versions(run: SweepRun) -> str:
    """The packages that the signatures name."""
    found: dict[str, None] = {}
    for result in _results(run):
        for pair in str((result["config"].get("iberian") or {}).get("signature", "")).split("|"):
            if pair.partition(":")[0] in VERSIONS:
                found[pair.replace(":", " ")] = None
    return ", ".join(found)
