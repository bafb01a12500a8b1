"""Rows of one column that were measured otherwise than the rest of it. Tables rank them all, so a note says it.

    otherwise([base, instruct])      # {"instruct": ["Belebele (eu): measured otherwise than base: lm_eval 0.4.9"]}

Compared is what a results file says of a task (version, shots, settings, configuration, code, documents) and of lm_eval.
Prompts are marked in the tables (§), and so are scores that are not whole (†). Models and their arguments may differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
    """Label -> a note for each benchmark that was measured otherwise than in most rows, or than in the row that most agree with.

    Rows of one name are left out: what sets them apart is in their labels.
    """
    found: dict[str, list[str]] = {}
    for benchmark in benchmarks() if len(models) > 1 else ():
        for label, words in _of_benchmark(benchmark, models).items():
            found.setdefault(label, []).append(f"{benchmark.title}: {words}")
    return found


def _of_benchmark(benchmark: Benchmark, models: Sequence[ModelScores]) -> dict[str, str]:
    measured = [model for model in models if model.benchmarks[benchmark].whole]
    ways = [_way(model, benchmark) for model in measured]
    keys = [_key(way) for way in ways]
    # Few ways, however many rows: compared is way by way.
    counts, of_key = Counter(keys), dict(zip(keys, ways, strict=True))
    if len(counts) < 2:
        return {}
    agreeing = {key: sum(count for other, count in counts.items() if not _words(of_key[key], of_key[other]))
                for key in counts}  # fmt: skip
    usual = max(range(len(keys)), key=lambda place: agreeing[keys[place]])
    than = "most rows" if 2 * agreeing[keys[usual]] > len(measured) else measured[usual].label
    words = {key: _words(of_key[key], of_key[keys[usual]]) for key in counts}
    return {one.label: f"measured otherwise than {than}: {some(words[key], WORDS)}"
            for one, key in zip(measured, keys, strict=True)
            if words[key] and one.runs[0].label != measured[usual].runs[0].label}  # fmt: skip


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


def _words(first: Sequence[Identity], second: Sequence[Identity]) -> list[str]:
    words = list(dict.fromkeys(word for one in first for other in second for word in one.differences(other)))
    is_other = any(word.startswith("lm_eval ") for word in words)
    return [word for word in words if not (is_other and word.endswith(SPELT))]
