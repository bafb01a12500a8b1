"""Each merge minus each of its parents, paired over the documents that both answered: task by task, and on average.

The figures are recomputed from the documents in the store. Where they do not give the difference of the scores that
lm_eval wrote (a metric that is put together in a way we do not know), there is no interval, and the reason is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lm_eval_iberian.benchmarks.benchmark import Benchmark
from lm_eval_iberian.compare.columns import Column, Scores
from lm_eval_iberian.runs.point import SweepPoint
from lm_eval_iberian.scores.significance import (
    Difference,
    Draws,
    SignificanceError,
    align,
    average,
    mean_draws,
    ratio_draws,
)
from lm_eval_iberian.scores.suite import Score, apart_on

if TYPE_CHECKING:
    import numpy as np

# As sacreBLEU; a resample of BLEU costs more than one of a mean.
BLEU_RESAMPLES = 1_000
PARALLEL = ("flores", "toy_mt")
CONFUSIONS = ("mcc", "f1", "macro_f1")
# What two ways to compute one difference may differ by, in percent points: rounding, no more.
SAME = 1e-3


@dataclass(frozen=True)
class Compared:
    """A merge minus a parent in one benchmark, or one column.

    Args:
        what: the benchmark's title, or the column's.
        benchmark: None for a column.
        value: the difference of the scores as written, in percent points.
        test: the same with interval and p; None where there is none.
        reason: why there is none.
        whole: whether both scores are of whole benchmarks.
        odd: whether the two were prompted in different ways.
    """

    merge: str
    parent: str
    what: str
    column: Column
    benchmark: Benchmark | None
    value: float
    test: Difference | None
    reason: str = ""
    whole: bool = True
    odd: bool = False

    @property
    def signs(self) -> str:
        """† not of whole benchmarks, § prompted in different ways."""
        return "†" * (not self.whole) + "§" * self.odd

    @property
    def mark(self) -> str:
        """ "" where it is significant, "n.s." where not, "?" where nothing was tested."""
        return "?" if self.test is None else "" if self.test.significant() else "n.s."


@dataclass
class Comparer:
    """Compares points; keeps the parents' documents, which every merge needs."""

    scores: Scores
    _kept: dict[tuple[str, str, str], Verdicts] = field(default_factory=dict)

    def all(self) -> list[Compared]:
        """Every merge against each of its parents, column by column, each column followed by its benchmarks."""
        return [found for merge in self.scores.merges for found in self.merge(merge)]

    def draws(self, first: SweepPoint, second: SweepPoint, benchmark: Benchmark) -> Draws | str:
        """One point minus another in one benchmark, resampled, in percent points; or why there is no test."""
        return self._benchmark(first, second, benchmark)

    def merge(self, merge: SweepPoint) -> list[Compared]:
        """One merge against each of its parents."""
        measured = {point.name: point for point in self.scores.points}
        found = []
        for name in merge.parents:
            if name in measured:
                found += [one for column in self.scores.columns for one in self._column(merge, measured[name], column)]
        self._kept = {key: kept for key, kept in self._kept.items() if key[0] != merge.name}
        return found

    def _column(self, merge: SweepPoint, parent: SweepPoint, column: Column) -> Iterator[Compared]:
        parts = [(one, self._benchmark(merge, parent, one)) for one in column.benchmarks]
        first, second = self.scores.score(merge, column), self.scores.score(parent, column)
        if first.value is not None and second.value is not None:
            draws = _averaged([draws for _, draws in parts])
            yield _compared((merge.name, first), (parent.name, second), column.title, column, None, draws)
        for benchmark, draws in parts:
            ours, theirs = self.scores.benchmark(merge, benchmark), self.scores.benchmark(parent, benchmark)
            if ours.value is not None and theirs.value is not None:
                yield _compared((merge.name, ours), (parent.name, theirs), benchmark.title, column, benchmark, draws)

    def _benchmark(self, merge: SweepPoint, parent: SweepPoint, benchmark: Benchmark) -> Draws | str:
        tasks = benchmark.tasks if set(benchmark.tasks) & set(merge.tasks) else _upstream(benchmark, merge)
        if words := apart_on(merge.runs, parent.runs, tasks):
            return f"the two were measured in different ways: {', '.join(words)}"
        drawn: list[Draws] = []
        for task in tasks:
            try:
                drawn.append(self._task(merge, parent, task, benchmark.metric.removesuffix(",none")))
            except SignificanceError as error:
                return f"{task}: {error}"
        return average(drawn).times(100.0 / benchmark.percent) if drawn else "no documents were kept"

    def _task(self, merge: SweepPoint, parent: SweepPoint, task: str, metric: str) -> Draws:
        first, second = self._verdicts(merge, task, metric), self._verdicts(parent, task, metric)
        if first.documents != second.documents or first.kind != second.kind:
            align(dict.fromkeys(first.documents), dict.fromkeys(second.documents))
            raise SignificanceError("the two systems' documents were scored in different ways.")
        return _draws(first, second, task, metric)

    def _verdicts(self, point: SweepPoint, task: str, metric: str) -> Verdicts:
        key = (point.name, task, metric)
        if key not in self._kept:
            self._kept[key] = verdicts(point.documents(task), metric)
        return self._kept[key]


@dataclass(frozen=True)
class Verdicts:
    """What was measured on each document of a task.

    Args:
        kind: "mean" (data: (documents,)), "ratio" ((documents, 2)), "bleu" (a (documents, 10) array for each run) or
            "confusion" (pairs of right and predicted label).
        documents: their numbers, in order.
    """

    kind: str
    documents: tuple[int, ...]
    data: Any


def verdicts(found: Mapping[int, Sequence[Mapping[str, Any]]], metric: str) -> Verdicts:
    """A task's documents in the form that its metric needs.

    Args:
        found: document -> its metrics, one mapping a run.
    Raises:
        SignificanceError: there are none, or no test is known for what the metric aggregates.
    """
    documents = tuple(sorted(found))
    if not documents or any(metric not in run for runs in found.values() for run in runs):
        raise SignificanceError(f"the documents' {metric} was not kept.")
    values = [[run[metric] for run in found[document]] for document in documents]
    runs = _runs(values)
    try:
        return _as_kind(documents, values, runs, metric)
    except (TypeError, ValueError, IndexError):
        raise SignificanceError(f"no test is known for {metric} as it was kept.") from None


def _as_kind(documents: tuple[int, ...], values: Sequence[Sequence[Any]], runs: int, metric: str) -> Verdicts:
    flat = [one for value in values for one in value]
    if all(isinstance(one, (bool, int, float)) for one in flat):
        return Verdicts("mean", documents, [math.fsum(map(float, value)) / runs for value in values])
    if all(isinstance(one, list) and one and all(isinstance(part, bool) for part in one) for one in flat):
        return Verdicts("ratio", documents, [_followed(value) for value in values])
    if metric == "bleu":
        return Verdicts("bleu", documents, [_bleu([value[run] for value in values]) for run in range(runs)])
    if metric in CONFUSIONS and runs == 1:
        return Verdicts("confusion", documents, [(right, predicted) for ((right, predicted),) in values])
    raise SignificanceError(f"no test is known for {metric}.")


def _runs(values: Sequence[Sequence[Any]]) -> int:
    counts = {len(value) for value in values}
    if len(counts) > 1:
        raise SignificanceError("not every document was answered in every run.")
    return counts.pop()


def _followed(runs: Sequence[Sequence[bool]]) -> tuple[float, float]:
    """(followed, asked) of a prompt; `followed` is the mean over runs."""
    return sum(sum(run) for run in runs) / len(runs), float(len(runs[0]))


def _bleu(pairs: Sequence[Sequence[Any]]) -> np.ndarray:
    """sacreBLEU's counts of (reference, answer) pairs, as lm_eval's tasks write them."""
    from lm_eval_iberian.scores.significance_corpus import bleu_statistics

    def text(value: Any) -> str:
        return str(value[0] if isinstance(value, list) else value)

    return bleu_statistics([text(answer) for _, answer in pairs], [text(reference) for reference, _ in pairs])


def _draws(first: Verdicts, second: Verdicts, task: str, metric: str) -> Draws:
    from lm_eval_iberian.scores.significance_corpus import bleu_draws, confusion_draws

    if first.kind == "mean":
        return mean_draws(first.data, second.data, stream=task)
    if first.kind == "ratio":
        return ratio_draws(first.data, second.data, stream=task)
    if first.kind == "bleu":
        if len(first.data) != len(second.data):
            raise SignificanceError("the two systems were not run equally often.")
        # All directions of FLORES (and of the toys) have the same sentences, which are drawn together.
        known = next((name for name in PARALLEL if name in task), None)
        stream = f"{known}, {len(first.documents)} documents" if known else task
        return average([bleu_draws(ours, theirs, stream=stream, resamples=BLEU_RESAMPLES)
                        for ours, theirs in zip(first.data, second.data, strict=True)])  # fmt: skip
    if [gold for gold, _ in first.data] != [gold for gold, _ in second.data]:
        raise SignificanceError("the two systems were not measured on the same right answers.")
    gold = [right for right, _ in first.data]
    ours, theirs = ([predicted for _, predicted in side.data] for side in (first, second))
    return confusion_draws(gold, ours, theirs, metric, stream=task)


def _upstream(benchmark: Benchmark, merge: SweepPoint) -> list[str]:
    """lm_eval's own leaf tasks of a benchmark that were measured."""
    return [task for task in benchmark.upstream if task in merge.tasks]


def _averaged(parts: Sequence[Draws | str]) -> Draws | str:
    if problems := [part for part in parts if isinstance(part, str)]:
        return problems[0]
    try:
        return average([part for part in parts if not isinstance(part, str)])
    except SignificanceError as error:
        return str(error)


def _compared(
    merge: tuple[str, Score], parent: tuple[str, Score], what: str, column: Column, benchmark: Benchmark | None,
    draws: Draws | str,
) -> Compared:  # fmt: skip
    """What is said of two scores that are both there; each comes with its point's name."""
    (name, ours), (against, theirs) = merge, parent
    assert ours.value is not None and theirs.value is not None
    value, whole, odd = ours.value - theirs.value, ours.whole and theirs.whole, prompted_otherwise(ours, theirs)
    if not isinstance(draws, str) and abs(draws.value - value) > SAME:
        draws = f"from the documents it is {draws.value:+.3f}: scores and documents do not agree"
    if isinstance(draws, str):
        return Compared(name, against, what, column, benchmark, value, None, draws, whole, odd)
    return Compared(name, against, what, column, benchmark, value, draws.difference(), "", whole, odd)


def prompted_otherwise(first: Score, second: Score) -> bool:
    """Whether the prompts behind two scores were made in different ways."""
    return set(first.prompts) != set(second.prompts)
