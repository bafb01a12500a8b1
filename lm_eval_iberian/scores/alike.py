"""Rows of one column that were measured otherwise than the rest of it. Tables rank them all, so a note says it.

    otherwise([base, instruct])      # {"instruct": ["Belebele (eu): measured otherwise than base: lm_eval 0.4.9"]}

Compared is what a results file says of a task (version, shots, settings, configuration, code, documents) and of lm_eval.
Prompts are marked in the tables (§), and so are scores that are not whole (†). Models and their arguments may differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lm_eval_iberian.benchmarks.benchmark import Benchmark
from lm_eval_iberian.benchmarks.table import benchmarks
from lm_eval_iberian.identity.identity import Identity
from lm_eval_iberian.scores.suite import ModelScores, on_tasks
from lm_eval_iberian.wording import some

WORDS = 3
# How often a task's configuration is spelt out depends on lm_eval's version, so that it says nothing beside it.
SPELT = ": other configuration"


def otherwise(models: Sequence[ModelScores]) -> dict[str, list[str]]:
    """Label -> a note for each benchmark that was measured otherwise than in most rows.

    Rows of one name are left out: what sets them apart is in their labels.
    """
    found: dict[str, list[str]] = {}
    for benchmark in benchmarks() if len(models) > 1 else ():
        for label, words in _of_benchmark(benchmark, models).items():
            found.setdefault(label, []).append(f"{benchmark.title}: {words}")
    return found


def _of_benchmark(benchmark: Benchmark, models: Sequence[ModelScores]) -> dict[str, str]:
    measured = [model for model in models if model.benchmarks[benchmark].whole]
    ways = {model.label: _way(model, benchmark) for model in measured}
    counts: dict[str, int] = {}
    for way in ways.values():
        counts[_key(way)] = counts.get(_key(way), 0) + 1
    if len(counts) < 2:
        return {}
    agreeing = {one.label: sum(count for key, count in counts.items() if not _words(ways[one.label], _of_key(ways, key)))
                for one in measured}  # fmt: skip
    usual = max(measured, key=lambda one: agreeing[one.label])
    than = "most rows" if agreeing[usual.label] > 1 else usual.label
    return {one.label: f"measured otherwise than {than}: {some(words, WORDS)}" for one in measured
            if one.runs[0].label != usual.runs[0].label and (words := _words(ways[one.label], ways[usual.label]))}  # fmt: skip


def _way(model: ModelScores, benchmark: Benchmark) -> list[Identity]:
    """How a model was measured there, one a results file."""
    tasks = {*benchmark.tasks, *benchmark.upstream}
    made = []
    for run in model.runs:
        if any(task in run.tasks for task in tasks):
            found = on_tasks(run, tasks)
            versions = {key: value for key, value in found.parts["versions"].items() if key == "lm_eval"}
            made.append(replace(found, parts={"versions": versions, "tasks": found.parts["tasks"]}))
    return made


def _key(way: Sequence[Identity]) -> str:
    return "|".join(sorted({one.digest for one in way}))


def _of_key(ways: Mapping[str, list[Identity]], key: str) -> list[Identity]:
    return next(way for way in ways.values() if _key(way) == key)


def _words(first: Sequence[Identity], second: Sequence[Identity]) -> list[str]:
    words = list(dict.fromkeys(word for one in first for other in second for word in one.differences(other)))
    is_other = any(word.startswith("lm_eval ") for word in words)
    return [word for word in words if not (is_other and word.endswith(SPELT))]
