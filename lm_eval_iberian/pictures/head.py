"""The head of the page: what was measured, how far the sweep is, and what a reader must know before any figure."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lm_eval_iberian.benchmarks.benchmark import TOYS
from lm_eval_iberian.compare.tables import distinct
from lm_eval_iberian.pictures.gathered import Gathered
from lm_eval_iberian.pictures.html import name, text
from lm_eval_iberian.runs.run import SweepRun

SHOWN = 5  # lines of a notice before it is folded
VERSIONS = ("lm_eval", "mergekit", "vllm", "transformers", "torch", "lm_eval_iberian", "ifeval_multi")


def head(found: Gathered) -> str:
    """The heading, the facts, and the notices."""
    run = found.run
    facts = [("Measured", _dates(run)), ("Points", _points(run)), ("Tasks", str(len(run.tasks))),
             ("Documents", _documents(run)), ("Data", _data(run)), ("Versions", _versions(run))]  # fmt: skip
    listed = "".join(f"<div><dt>{text(term)}</dt><dd>{text(said)}</dd></div>" for term, said in facts if said)
    axes = ", ".join(f"{axis} ({', '.join(labels)})" for axis, labels in run.axes.items())
    swept = f'<p class="lead">Swept: {text(axes)}.</p>' if axes else ""
    return f'<header><h1>{text(run.name)}</h1>{swept}{"".join(_notices(found))}<dl class="facts">{listed}</dl></header>'


def _notices(found: Gathered) -> Iterable[str]:
    run = found.run
    if not run.tasks:
        yield _notice("Nothing is measured yet.", [])
    marked = _problems(run)
    samples = [task for task, said in marked.items() if any("sample" in word for word in said)]
    if samples:
        yield _notice("Embedded samples, not benchmarks: no figure here says how good a model is.", [_some(samples)])
    if any(column.kind in TOYS for column in found.scores.columns):
        yield _notice("Toys: tiny models in a world of a few words. No figure here says how good a real model is.", [])
    limited = [task for task in marked if task not in samples]
    if limited:
        yield _notice("Not of whole benchmarks (limited, or not the known data set):", [_some(limited)])
    if run.failures:
        yield _notice(f"{len(run.failures)} of {len(run.points)} points failed:", _by_reason(run.failures))
    waiting = [point for point in run.unfinished if point not in run.failures]
    if waiting:
        yield _notice(
            f"Not finished: {len(waiting)} of {len(run.points)} points are still to be measured.", [_some(waiting)]
        )
    if odd := _odd(found):
        yield _notice("Prompted otherwise than most of their column (marked § there):", odd)
    flags = {found.compact(point.name): [f"{task}: {word}" for task, said in point.flags.items() for word in said]
             for point in run.points if point.flags}  # fmt: skip
    if flags:
        yield _notice("Look at the answers before the score (marked ‡ beside it):", _by_reason(flags))


def _odd(found: Gathered) -> list[str]:
    """Which points were prompted otherwise, and how."""
    said: dict[str, list[str]] = {}
    for table in found.report.tables:
        for (point, _, cells), word in zip(table.rows, table.prompts, strict=True):
            if any(cell.odd for cell in cells) and found.compact(point) not in said.setdefault(word, []):
                said[word].append(found.compact(point))
    return [f"{word}: {_some(points)}" for word, points in said.items() if points]


def _by_reason(said: Mapping[str, Sequence[str]]) -> list[str]:
    """What is said of many points as one line."""
    found: dict[str, list[str]] = {}
    for point, reasons in said.items():
        for reason in distinct(reasons):
            found.setdefault(reason, []).append(point)
    return [f"{reason} ({_some(points)})" for reason, points in found.items()]


def _notice(title: str, lines: list[str]) -> str:
    first, rest = (f"<ul>{''.join(f'<li>{name(line)}</li>' for line in part)}</ul>" if part else ""
                   for part in (lines[:SHOWN], lines[SHOWN:]))  # fmt: skip
    more = f"<details><summary>{len(lines) - SHOWN} more</summary>{rest}</details>" if rest else ""
    return f'<div class="notice" role="note"><strong>{text(title)}</strong>{first}{more}</div>'


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


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
    stamps = [float(result["date"]) for result in _results(run) if isinstance(result.get("date"), (int, float))]
    days = (
        [
            datetime.datetime.fromtimestamp(stamp, datetime.UTC).date().isoformat()
            for stamp in (min(stamps), max(stamps))
        ]
        if stamps
        else []
    )
    return " to ".join(dict.fromkeys(days))


def _points(run: SweepRun) -> str:
    done = len(run.points) - len(run.unfinished)
    return f"{done} of {len(run.points)} finished"


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
    found: dict[str, None] = {}
    for result in _results(run)[:1]:
        for entry in result["configs"].values():
            metadata = entry.get("metadata") if isinstance(entry, dict) else None
            if isinstance(metadata, dict) and metadata.get("documents"):
                found[str(metadata["documents"])] = None
    return _some_data(list(found))


def _some_data(found: list[str]) -> str:
    named = ["embedded samples" if one == "samples" else one for one in found]
    return "; ".join(named[:2]) + (f" and {len(named) - 2} more" if len(named) > 2 else "")


def _versions(run: SweepRun) -> str:
    """The packages that the signatures name."""
    found: dict[str, None] = {}
    for result in _results(run):
        for pair in str((result["config"].get("iberian") or {}).get("signature", "")).split("|"):
            if pair.partition(":")[0] in VERSIONS:
                found[pair.replace(":", " ")] = None
    return ", ".join(found)
