"""Which point of a sweep is best, by how much, and whether that is more than the luck of the documents.

    found = find_best(read_sweep_run(Path("runs/figure1")), ["bench_eu", "ifeval_eu"])
    found.best.point.recipe

Points compete only on the same documents: those that were measured on fewer than the others (a limit, a trial that
was stopped early) or that miss something are named with the reason. Columns are those of the suite ("bench_eu",
"mt_eu", "ifeval_eu"), tasks ("iberian_eus_trivia"), tasks with a metric ("iberian_eus_trivia:acc"), or weighted sums of
these ("bench_eu + 0.5*ifeval_eu").
"""

from __future__ import annotations

import difflib
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lm_eval_iberian.benchmarks.benchmark import Benchmark, shown_of
from lm_eval_iberian.benchmarks.table import full_score_of, has_known_scale, of_column, of_task
from lm_eval_iberian.compare.columns import Scores, others
from lm_eval_iberian.compare.differences import SAME, Comparer
from lm_eval_iberian.runs.point import SweepPoint
from lm_eval_iberian.runs.run import SweepRun
from lm_eval_iberian.scores.significance import Difference, Draws, SignificanceError, average
from lm_eval_iberian.scores.suite import Score, apart_on, weighted_sum
from lm_eval_iberian.scores.suite import average as mean_score
from lm_eval_iberian.wording import some
from merge_hooks.errors import ForPeople


class BestError(ForPeople):
    """There is no best point to name: an unknown column, nothing measured, or points measured in different ways."""


@dataclass(frozen=True)
class Goal:
    """What is to be high: the plain mean of a column's benchmarks, in percent, or a weighted sum of columns.

    Args:
        weights: of a weighted sum, one a benchmark; empty for a plain mean.
        as_written: columns of the sum whose full score nobody here knows: what lm_eval writes is added.
    """

    name: str
    benchmarks: tuple[Benchmark, ...]
    weights: tuple[float, ...] = ()
    as_written: tuple[str, ...] = ()

    def score(self, scores: Scores, point: SweepPoint) -> Score:
        """A point's figure; without a value where any benchmark has none."""
        measured = {benchmark: scores.benchmark(point, benchmark) for benchmark in self.benchmarks}
        if not self.weights:
            return mean_score(measured)
        return weighted_sum(measured, dict(zip(self.benchmarks, self.weights, strict=True)))

    def draws(self, each: Sequence[Draws]) -> Draws:
        """A difference in it, from the differences in its benchmarks."""
        if not self.weights:
            return _averaged(each)
        return _averaged([one.times(w * len(self.weights)) for one, w in zip(each, self.weights, strict=True)])


@dataclass(frozen=True)
class Candidate:
    """A point with its figures.

    Args:
        scores: one a goal.
        refused: why it cannot win; "" where it can.
    """

    point: SweepPoint
    scores: tuple[Score, ...]
    refused: str = ""

    @property
    def values(self) -> tuple[float, ...]:
        """The figures, where all are there."""
        return tuple(score.value for score in self.scores if score.value is not None)

    @property
    def mean(self) -> float:
        """What points are ranked by."""
        return statistics.fmean(self.values)

    @property
    def is_complete(self) -> bool:
        return len(self.values) == len(self.scores)


@dataclass(frozen=True)
class Best:
    """The ranking.

    Args:
        ranked: the points that compete, best first; those that are as good stand in the sweep's order.
        refused: all others, with the reason.
        lead: the first minus the second, in percent points; None without a second, or without a test.
        no_test: why there is no test.
        front: of `ranked`, those that no other beats in one goal without losing in another.
    """

    goals: tuple[Goal, ...]
    ranked: tuple[Candidate, ...]
    refused: tuple[Candidate, ...]
    lead: Difference | None
    no_test: str
    front: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate:
        return self.ranked[0]


def find_best(run: SweepRun, names: Sequence[str], any_role: bool = False) -> Best:
    """The best point by the plain mean of the named columns.

    Args:
        any_role: parents and baselines may win, too.
    Raises:
        BestError: a name is no column of this run, no point can win, or points were measured in different ways.
    """
    scores = Scores(run)
    return best_of(scores, goals_of(scores, names), any_role)


def best_of(scores: Scores, goals: Sequence[Goal], any_role: bool = False) -> Best:
    """As `find_best`, by goals that are known. Raises BestError."""
    run, names = scores.run, [goal.name for goal in goals]
    candidates = [_candidate(scores, point, goals, any_role) for point in run.points]
    candidates = _on_the_same_documents(candidates, goals)
    able = [candidate for candidate in candidates if not candidate.refused]
    if not able:
        reasons = "\n".join(f"- {one.point.name}: {one.refused}" for one in candidates)
        raise BestError(f"no point of {run.folder} can be the best by {', '.join(names)}:\n{reasons}")
    ranked = sorted(able, key=lambda one: -one.mean)
    lead, no_test = _lead(scores, ranked, goals)
    refused = tuple(one for one in candidates if one.refused)
    return Best(tuple(goals), tuple(ranked), refused, lead, no_test, tuple(pareto(ranked)))


def goals_of(scores: Scores, names: Sequence[str]) -> list[Goal]:
    """The named columns and weighted sums. Raises BestError for a name that is none, or comes twice."""
    if len(set(names)) < len(names):
        raise BestError(f"{', '.join(names)}: name each column once.")
    return [_weighted(scores, name) if is_sum(name) else Goal(name, _benchmarks(scores, name)) for name in names]


# A term of a weighted sum, "0.5*ifeval_eu". No column, task or metric has a star in its name.
_TERM = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*\*\s*(\S.*?)\s*")
_PLUS = " + "


def is_sum(name: str) -> bool:
    """Whether a name is a weighted sum: "bench_eu + 0.5*ifeval_eu"."""
    return "*" in name or _PLUS in name


def terms_of(name: str) -> dict[str, float]:
    """Column -> weight of a weighted sum; of a column, itself. Raises BestError for a column that comes twice."""
    found: dict[str, float] = {}
    for part in name.split(_PLUS) if is_sum(name) else [name]:
        match = _TERM.fullmatch(part)
        column, weight = (match.group(2), float(match.group(1))) if match else (part.strip(), 1.0)
        if not column or column in found or "*" in column or not weight or not math.isfinite(weight):
            raise BestError(
                f"{name}: a weighted sum is `bench_eu + 0.5*ifeval_eu`: each column once, and no weight of 0. Less of it "
                "is better: `-1*TASK:word_perplexity`."
            )
        found[column] = weight
    return found


def sum_name(terms: Mapping[str, float]) -> str:
    """How a weighted sum is called; `terms_of` reads it."""
    return _PLUS.join(f"{weight!r}*{column}".replace(".0*", "*", 1) for column, weight in terms.items())


def steady(name: str) -> str:
    """The same column where its scale is known, else as a sum of one: among few points a scale is guessed by values."""
    return name if is_sum(name) or _has_scale(name) else sum_name({name: 1.0})


def _has_scale(column: str) -> bool:
    """Whether the suite says what a full score is, not the values that were measured."""
    return bool(of_column(column)) or of_task(column) is not None


def _weighted(scores: Scores, name: str) -> Goal:
    """A weighted sum of columns, as one of their benchmarks. Columns weigh in as tables show them: in percent, or in
    points; of metrics that only lm_eval knows, as it writes them."""
    weights: dict[Benchmark, float] = {}
    as_written = []
    for column, weight in terms_of(name).items():
        benchmarks = _benchmarks(scores, column, less=weight < 0)
        for benchmark in benchmarks:
            if not _has_scale(column):
                benchmark = replace(benchmark, percent=full_score_of(benchmark.name, benchmark.metric))
                as_written += [] if has_known_scale(benchmark.name, benchmark.metric) else [column]
            weights[benchmark] = weights.get(benchmark, 0.0) + weight / len(benchmarks)
    return Goal(name, tuple(weights), tuple(weights.values()), tuple(dict.fromkeys(as_written)))


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other beats: none is at least as high everywhere and higher somewhere."""

    def beats(one: Candidate, other: Candidate) -> bool:
        pairs = list(zip(one.values, other.values, strict=True))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    return [one for one in candidates if not any(beats(other, one) for other in candidates)]


def _benchmarks(scores: Scores, name: str, less: bool = False) -> tuple[Benchmark, ...]:
    """What a column is the mean of. `less`: whether less of a metric may be better."""
    if known := of_column(name):
        return tuple(known)
    for column in scores.columns:  # tasks that the suite does not know, put together by the end of their names
        if column.key == name and not column.left_out:
            return column.benchmarks
    task, _, metric = name.partition(":")
    if task not in scores.run.tasks:
        raise BestError(_unknown(scores, name))
    benchmark = _of_task(scores, task)
    if metric:
        return (_by_metric(scores.run, task, metric, less),)
    if benchmark is None:
        raise BestError(f"{name}: no metric of it is known to be better when it is higher. Name one: {name}:METRIC.")
    return (benchmark,)


def _of_task(scores: Scores, task: str) -> Benchmark | None:
    """A leaf task as a benchmark of its own, by the metric that it is read by."""
    if known := of_task(task):
        return replace(known, name=task, tasks=(task,), upstream=())
    return next((benchmark for benchmark in others(scores.run) if task in benchmark.tasks), None)


def _by_metric(run: SweepRun, task: str, metric: str, less: bool) -> Benchmark:
    """A task by one metric, which may name its filter: "exact_match,strict-match"."""
    results = [result for point in run.points for result in point.results]
    name, comma, filter_ = metric.partition(",")
    found = dict.fromkeys(name for point in run.points for name in point.scores(task))
    filters = {key.partition(",")[2] for result in results for key in result["results"].get(task, {})
               if key.partition(",")[0] == name}  # fmt: skip
    if name not in found or (comma and filter_ not in filters):
        known = f"It has: {', '.join(found)}" + (f"; {name} with {', '.join(sorted(filters))}." if filters else ".")
        raise BestError(f"{task}:{metric}: it has no such metric. {known}")
    if not less and any((one.get("higher_is_better", {}).get(task) or {}).get(name) is False for one in results):
        raise BestError(
            f"{task}:{metric}: less of it is better, so the highest is not the best. In a weighted sum, give it a "
            "negative weight."
        )
    values = [value for point in run.points for value in point.scores(task).get(name, [])]
    percent = shown_of(task, metric, max(map(abs, values)))
    return Benchmark(task, "", metric, (task,), metric=metric, chance=0.0, shots=None, percent=percent)


def _unknown(scores: Scores, name: str) -> str:
    close = difflib.get_close_matches(name, [*_whole_columns(scores), *scores.run.tasks], n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"{name}: nothing of that name was measured.{hint} {names_of(scores)}"


def names_of(scores: Scores) -> str:
    """What may be named as a goal, for messages."""
    columns, tasks = ", ".join(_whole_columns(scores)), some(scores.run.tasks, 8)
    return f"Columns: {columns or 'none whole'}. Tasks: {tasks or 'none measured yet'}."


def _whole_columns(scores: Scores) -> list[str]:
    return [column.key for column in scores.columns if not column.left_out]


def _candidate(scores: Scores, point: SweepPoint, goals: Iterable[Goal], any_role: bool) -> Candidate:
    measured = tuple(goal.score(scores, point) for goal in goals)
    candidate = Candidate(point, measured)
    if point.role != "merge" and not any_role:
        return replace(candidate, refused=f"a {point.role}, not a merge")
    if candidate.is_complete:
        return candidate
    if point.failures:
        return replace(candidate, refused="; ".join(point.failures))
    lacking = [word for score in measured if score.value is None for word in score.problems]
    return replace(candidate, refused=some(lacking, 4, "; ") if point.results else "not measured yet")


# task -> how many documents were answered, all runs together.
Coverage = dict[str, int]


def _on_the_same_documents(candidates: list[Candidate], goals: Sequence[Goal]) -> list[Candidate]:
    """Refuse those that were measured on fewer documents than others, and those of a sweep.yml of before that were measured
    otherwise than today's. Raises BestError where the settings of today's differ."""
    covered = {one.point.name: _coverage(one.point, goals) for one in candidates if not one.refused}
    if not covered:
        return candidates
    able = [one.point for one in candidates if one.point.name in covered]
    today = [point for point in able if not point.is_earlier] or able
    fullest = max(today, key=lambda point: sum(covered[point.name].values()))
    return [
        replace(one, refused=_fewer(one.point, covered[one.point.name], fullest, covered[fullest.name]))
        if one.point.name in covered
        else one
        for one in candidates
    ]


def _coverage(point: SweepPoint, goals: Sequence[Goal]) -> Coverage:
    found: Coverage = {}
    for benchmark in dict.fromkeys(benchmark for goal in goals for benchmark in goal.benchmarks):
        for run in point.runs:
            for task in (*benchmark.tasks, *benchmark.upstream):
                if task in run.tasks:
                    found[task] = found.get(task, 0) + run.documents(task)
    return found


def _fewer(point: SweepPoint, own: Coverage, fullest: SweepPoint, full: Coverage) -> str:
    """Why a point cannot be compared with the one that was measured on most; "" where it can."""
    for task in full:
        if task not in own:
            return f"{task} was not measured, and {fullest.name} was measured on it"
        if own[task] != full[task]:
            return f"{task}: {own[task]} documents, and {full[task]} of {fullest.name}"
        if words := apart_on(point.runs, fullest.runs, [task]):
            if point.is_earlier and not fullest.is_earlier:
                return f"of a sweep.yml of before, which measured {task} otherwise: {', '.join(words)}"
            raise BestError(
                f"{task} was measured in different ways: {', '.join(words)} ({point.name}), and not so "
                f"{fullest.name}. Measure all points alike."
            )
    return ""


def _lead(scores: Scores, ranked: Sequence[Candidate], goals: Sequence[Goal]) -> tuple[Difference | None, str]:
    """The first minus the second, tested over the documents that both answered."""
    if len(ranked) < 2:
        return None, "there is no other to compare with"
    first, second = ranked[0], ranked[1]
    comparer = Comparer(scores)
    columns: list[Draws] = []
    try:
        for goal in goals:
            drawn = [comparer.draws(first.point, second.point, benchmark) for benchmark in goal.benchmarks]
            if problems := [one for one in drawn if isinstance(one, str)]:
                return None, problems[0]
            columns.append(goal.draws([one for one in drawn if not isinstance(one, str)]))
        found = _averaged(columns)
    except SignificanceError as error:
        return None, str(error)
    if abs(found.value - (first.mean - second.mean)) > SAME:
        return None, f"from the documents it is {found.value:+.3f}: scores and documents do not agree"
    return found.difference(), ""


def _averaged(draws: Sequence[Draws]) -> Draws:
    """Their plain mean, cut to the least number of resamples: BLEU has fewer than accuracies."""
    least = min(len(one.samples) for one in draws)
    cut = [replace(one, samples=one.samples[:least]) for one in draws]
    return average(cut) if len(cut) > 1 else cut[0]
