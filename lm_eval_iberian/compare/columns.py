"""What a sweep measured, as columns: one figure in percent for each point, kind and language.

Where the suite's averages are whole they are the columns ("bench_eu"). Where only some of an average's benchmarks
were measured, the column is the mean of those and says so. Tasks that no table knows (any lm_eval task) make columns
of their own: their first metric for which more is better, by the language at the end of their names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lm_eval_iberian.benchmarks.benchmark import INSTRUCTIONS, OF_HUNDRED, TOY_INSTRUCTIONS, Benchmark, shown_of
from lm_eval_iberian.benchmarks.languages import language_names, languages
from lm_eval_iberian.benchmarks.table import averages, measured_languages, of_column, of_task
from lm_eval_iberian.identity.prompting import odd_ones
from lm_eval_iberian.runs.point import SweepPoint
from lm_eval_iberian.runs.run import SweepRun
from lm_eval_iberian.scores.suite import Score, average, score_of

INSTRUCTION_KINDS = (INSTRUCTIONS, TOY_INSTRUCTIONS)
METRICS = {
    "acc": "Accuracy", "acc_norm": "Accuracy (by length)", "exact_match": "Exact match", "bleu": "BLEU",
    "chrf": "chrF", "f1": "F1", "mcc": "Matthews' correlation",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One figure for each point.

    Args:
        kind: an average of the suite ("bench"), or a metric's name.
        language: its code, or "" where the task's name says none.
        benchmarks: what the figure is the plain mean of.
        left_out: benchmarks of the suite's average that nobody measured; with any, this is not that average.
    """

    kind: str
    language: str
    benchmarks: tuple[Benchmark, ...]
    left_out: tuple[Benchmark, ...] = ()

    @property
    def key(self) -> str:
        """For file names and `--by`: "bench_eu"."""
        return f"{self.kind}_{self.language}" if self.language else self.kind

    @property
    def kind_title(self) -> str:
        """ "Benchmarks", "Translation", ..., or the metric's name; for a part of an average, which part."""
        if self.left_out and len(self.benchmarks) <= 2:
            return " + ".join(benchmark.title.removesuffix(f" ({self.language})") for benchmark in self.benchmarks)
        if self.left_out:
            known = len(self.benchmarks) + len(self.left_out)
            return f"{averages()[self.kind].short} ({len(self.benchmarks)} of {known})"
        return averages()[self.kind].short if self.kind in averages() else METRICS.get(self.kind, self.kind)

    @property
    def unit(self) -> str:
        """What the figures are: "accuracy, %"."""
        if self.kind in averages():
            return averages()[self.kind].unit
        return "points" if self.kind in OF_HUNDRED else "%"

    @property
    def language_title(self) -> str:
        """ "Basque", or "all" for tasks whose names say no language."""
        return language_names().get(self.language, self.language) or "all"

    @property
    def title(self) -> str:
        """For a head or an axis: "Basque · Benchmarks"."""
        return f"{self.language_title} · {self.kind_title}" if self.language else self.kind_title

    @property
    def about(self) -> str:
        """What the figure is the mean of; "" for the suite's own averages."""
        named = ", ".join(benchmark.title if self.left_out else benchmark.name for benchmark in self.benchmarks)
        if self.left_out:
            return f"{self.title}: only {named}; not the suite's average, which has {len(self.left_out)} more"
        return "" if self.kind in averages() else f"{self.title}: {named}"


@dataclass
class Scores:
    """The figures of a run, computed once.

    Args:
        run: the folder, read.
    """

    run: SweepRun
    _known: dict[tuple[str, Benchmark], Score] = field(default_factory=dict)

    @cached_property
    def columns(self) -> list[Column]:
        """All columns, kind by kind."""
        return [*_of_suite(self.run), *_of_others(self.run)]

    @property
    def kinds(self) -> dict[str, list[Column]]:
        """kind -> its columns."""
        found: dict[str, list[Column]] = {}
        for column in self.columns:
            found.setdefault(column.kind, []).append(column)
        return found

    @property
    def languages(self) -> list[str]:
        """Every language of a column, in the suite's order."""
        found = {column.language for column in self.columns}
        return [*(one for one in measured_languages() if one in found), *sorted(found - set(measured_languages()))]

    @cached_property
    def points(self) -> list[SweepPoint]:
        """The points of which anything is measured: parents first."""
        order = {"parent": 0, "baseline": 1}
        return sorted((one for one in self.run.points if one.results), key=lambda point: order.get(point.role, 2))

    @property
    def merges(self) -> list[SweepPoint]:
        return [point for point in self.points if point.role == "merge"]

    def column(self, kind: str, language: str) -> Column | None:
        """The column of a kind and a language, or None."""
        return next((one for one in self.columns if (one.kind, one.language) == (kind, language)), None)

    @cached_property
    def instructions(self) -> str | None:
        """The kind that is instruction following, if any was measured."""
        return next((kind for kind in self.kinds if kind in INSTRUCTION_KINDS or kind.startswith("inst_level")), None)

    def score(self, point: SweepPoint, column: Column) -> Score:
        """A point's figure in a column."""
        return average({benchmark: self.benchmark(point, benchmark) for benchmark in column.benchmarks})

    def is_flagged(self, points: Iterable[str], column: Column) -> bool:
        """Whether the answers that count in a column of any of these points should be looked at before the score."""
        found = [self.run[name] for name in points]
        return any(is_flagged(one.flags, column.benchmarks) or self.score(one, column).doubts for one in found)

    def is_odd(self, point: SweepPoint, column: Column) -> bool:
        """Whether a point's figure was prompted otherwise than most of its column."""
        return (point.name, column.key) in self._odd

    @cached_property
    def _odd(self) -> set[tuple[str, str]]:
        found = set()
        for column in self.columns:
            scores = [self.score(point, column) for point in self.points]
            odd = odd_ones([score.prompts if score.value is not None else () for score in scores])
            found |= {(point.name, column.key) for point, is_odd in zip(self.points, odd, strict=True) if is_odd}
        return found

    def benchmark(self, point: SweepPoint, benchmark: Benchmark) -> Score:
        """A point's figure in one benchmark."""
        key = (point.name, benchmark)
        if key not in self._known:
            self._known[key] = score_of(benchmark, point.model_scores.runs, point.asked)
        return self._known[key]


def is_flagged(flags: Collection[str], counted: Iterable[Benchmark]) -> bool:
    """Whether any task of these benchmarks is among the flagged ones."""
    return any(task in flags for benchmark in counted for task in (*benchmark.tasks, *benchmark.upstream))


def _of_suite(run: SweepRun) -> Iterator[Column]:
    tasks = set(run.tasks)
    for kind in averages():
        for language in measured_languages():
            wanted = of_column(f"{kind}_{language}")
            measured = [one for one in wanted if tasks & {*one.tasks, *one.upstream}]
            if any(one.counted_in == kind for one in measured):
                left_out = tuple(one for one in wanted if one not in measured)
                yield Column(kind, language, tuple(measured), left_out)


def _of_others(run: SweepRun) -> list[Column]:
    """Columns of the tasks that the suite's table does not know."""
    found: dict[tuple[str, str], list[Benchmark]] = {}
    for benchmark in others(run):
        found.setdefault((benchmark.kind, benchmark.language), []).append(benchmark)
    order = {language: number for number, language in enumerate(measured_languages())}
    kinds = list(dict.fromkeys(kind for kind, _ in found))
    keys = sorted(found, key=lambda key: (kinds.index(key[0]), order.get(key[1], 9), key[1]))
    return [Column(kind, language, tuple(found[kind, language])) for kind, language in keys]


def others(run: SweepRun) -> list[Benchmark]:
    """A benchmark for each task that the suite's table does not know; none where less is better."""
    made = []
    for task in run.tasks:
        metric = None if of_task(task) else _main_metric(run.points, task)
        if metric is not None:
            made.append(_benchmark(task, metric, run.points))
    return made


def _benchmark(task: str, metric: str, points: Sequence[SweepPoint]) -> Benchmark:
    ending = re.search(rf"[-_]({'|'.join(languages())})(?:_multi|_native)?$", task)
    highest = max((abs(value) for point in points for value in point.scores(task).get(metric, [])), default=0.0)
    percent = shown_of(task, metric, highest)
    return Benchmark(
        task, ending.group(1) if ending else "", metric, (task,), metric=metric, chance=0.0, shots=None, percent=percent
    )


def _main_metric(points: Iterable[SweepPoint], task: str) -> str | None:
    """A task's first metric for which more is better."""
    for point in points:
        for metric in point.scores(task):
            if not any(_less_is_better(result, task, metric) for result in point.results):
                return metric
    return None


def _less_is_better(result: dict[str, object], task: str, metric: str) -> bool:
    said = result.get("higher_is_better")
    entry = said.get(task) if isinstance(said, dict) else None
    if isinstance(entry, dict) and metric in entry:
        return entry[metric] is False
    return "perplexity" in metric or metric in ("bits_per_byte", "ter")
