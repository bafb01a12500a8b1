"""The benchmarks of all manifests, and which average counts which.

Averages (`scores.suite`), lm_eval's groups (groups.py), sweeps and their pictures read it.
"""

from __future__ import annotations

import functools
from pathlib import Path

from lm_eval_iberian.benchmarks.benchmark import ALL, CHOICE, KINDS, PLACES, TOYS, Benchmark, Kind, known_scale
from lm_eval_iberian.benchmarks.entries import benchmarks_of
from lm_eval_iberian.benchmarks.files import BENCHMARKS, fault, manifest_files
from lm_eval_iberian.benchmarks.languages import languages
from lm_eval_iberian.folders import task_folders


def benchmarks() -> tuple[Benchmark, ...]:
    """Every benchmark of every manifest, in the order of tables. Raises ManifestError."""
    return _benchmarks(task_folders())


def measured_languages() -> tuple[str, ...]:
    """The languages of which there is any benchmark, in the order of tables."""
    return _languages_of(task_folders())


def averages() -> dict[str, Kind]:
    """Every average by its key, in the order of tables: the kinds' own, then those that manifests name."""
    return _averages(task_folders())


def of_column(column: str) -> list[Benchmark]:
    """The benchmarks that count in an average of a language, e.g. "bench_eu"."""
    average, _, language = column.rpartition("_")
    found = [one for one in benchmarks() if one.averaged and one.column == column]
    if average == ALL and found:
        found = [*of_column(f"{CHOICE}_{language}"), *found]
    return found


def of_task(task: str) -> Benchmark | None:
    """The benchmark that a leaf task, ours or lm_eval's own, is of; None for a task that no manifest knows."""
    return _by_task(task_folders()).get(task)


def full_score_of(task: str, metric: str) -> float:
    """What a weighted sum takes for the full score of a task's metric: 1 for shares, which it adds in percent; 100 for all
    that nobody here knows, which it adds as lm_eval writes them."""
    return _known(task, metric) or 100.0


def has_known_scale(task: str, metric: str) -> bool:
    """Whether `full_score_of` knows a metric, and does not only add what lm_eval writes."""
    return _known(task, metric) is not None


def _known(task: str, metric: str) -> float | None:
    """A metric's full score: as tables show it where they do, else by task and name (`known_scale`)."""
    known = of_task(task)
    return known.percent if known and known.metric == metric.partition(",")[0] else known_scale(task, metric)


def columns(average: str) -> list[str]:
    """The columns of an average, in the order of the paper's tables."""
    return [f"{average}_{language}" for language in measured_languages() if of_column(f"{average}_{language}")]


@functools.cache
def _languages_of(folders: tuple[Path, ...]) -> tuple[str, ...]:
    measured = {benchmark.language for benchmark in _benchmarks(folders)}
    return tuple(language for language in languages() if language in measured)


@functools.cache
def _by_task(folders: tuple[Path, ...]) -> dict[str, Benchmark]:
    return {task: one for one in reversed(_benchmarks(folders)) for task in (*one.upstream, *one.tasks)}


@functools.cache
def _averages(folders: tuple[Path, ...]) -> dict[str, Kind]:
    found = dict(KINDS)
    for key in dict.fromkeys(one.counted_in for one in _benchmarks(folders)):
        members = [one for one in _benchmarks(folders) if one.counted_in == key]
        found.setdefault(key, _called(key, members))
    return found


def _called(key: str, members: list[Benchmark]) -> Kind:
    """How an average is called that manifests name."""
    unit = KINDS[members[0].kind].unit
    named = list(dict.fromkeys(one.name for one in members))
    short = named[0] if len(named) == 1 else key
    if key == ALL:
        title = f"All benchmarks: the paper's and {', '.join(named)}"
        short = "All benchmarks"
    else:
        title = short if len(named) == 1 else f"{key}: {', '.join(named)}"
    return Kind(f"{title} ({unit.removesuffix(', %')})", short, unit)


@functools.cache
def _benchmarks(folders: tuple[Path, ...]) -> tuple[Benchmark, ...]:
    found = [(file, one) for file in manifest_files(folders) for one in benchmarks_of(file)]
    _check_apart(found)
    kinds = list(KINDS)
    toys = kinds.index(TOYS[0])

    def place(benchmark: Benchmark) -> tuple[int, int]:
        column = f"{benchmark.kind}_{benchmark.language}"
        return min(kinds.index(benchmark.kind), toys), PLACES.get((column, benchmark.name), len(PLACES))

    return tuple(sorted((one for _, one in found), key=place))


def _check_apart(found: list[tuple[Path, Benchmark]]) -> None:
    """No task and no name counts twice, and no average mixes units. Raises ManifestError."""
    tasks: dict[str, str] = {}
    names: dict[tuple[str, str], Path] = {}
    units: dict[str, Benchmark] = {}
    for file, one in found:
        for task in one.tasks:
            if task in tasks:
                raise fault(file, f"{BENCHMARKS}: {one.title}", f"{task} counts in {tasks[task]} already")
            tasks[task] = one.title
        if (one.column, one.name) in names:
            raise fault(
                file, f"{BENCHMARKS}: {one.title}", f"{names[one.column, one.name]} has one of that name already"
            )
        names[one.column, one.name] = file
        other = units.setdefault(one.counted_in, one)
        if KINDS[other.kind].unit != KINDS[one.kind].unit:
            said = f"{other.title} counts in {one.counted_in} and is measured otherwise; name another average"
            raise fault(file, f"{BENCHMARKS}: {one.title}: average", said)
