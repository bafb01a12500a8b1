"""The benchmarks of all manifests: language, metric, chance level, leaf tasks, and the average that counts each.

Averages (`scores.suite`), lm_eval's groups (groups.py), sweeps and their pictures read it. What the paper averages is
frozen by name in PAPER: no manifest changes that. Source: "Merge and Conquer" (LREC 2026), section 4, and its
authors' evaluation scripts.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_iberian.benchmarks.files import BENCHMARKS, Types, checked, fault, manifest_files, read
from lm_eval_iberian.benchmarks.languages import languages as known_languages
from lm_eval_iberian.folders import task_folders

CHOICE, TRANSLATION, INSTRUCTIONS, PAIRS = "bench", "mt", "ifeval", "blimp"
# The toy tasks (tasks/toy) have kinds of their own, so that no average of a benchmark can hold one.
TOY_CHOICE, TOY_TRANSLATION, TOY_INSTRUCTIONS = "toybench", "toymt", "toyifeval"
TOYS = (TOY_CHOICE, TOY_TRANSLATION, TOY_INSTRUCTIONS)
# The average of a language over what the paper counts and what says `average: all`.
ALL = "all"


@dataclass(frozen=True)
class Kind:
    """What benchmarks of one sort share; also how an average is called.

    Args:
        title: of a table.
        short: of a column, a panel.
        unit: of its figures.
        word: as manifests name it.
        metric: that is read where a manifest names none.
        chance: what guessing scores, in percent; None where each manifest must say it.
    """

    title: str
    short: str
    unit: str
    word: str = ""
    metric: str = "acc"
    chance: float | None = None


KINDS = {
    CHOICE: Kind("Benchmark average (accuracy)", "Benchmarks", "accuracy, %", "choice"),
    TRANSLATION: Kind(
        "Machine translation (FLORES devtest, BLEU)", "Translation", "BLEU", "translation", "bleu", 0.0
    ),
    INSTRUCTIONS: Kind(
        "Instruction following (IFEval, strict, instruction level)", "Instructions", "strict, %", "instructions",
        "inst_level_strict_acc", 0.0,
    ),
    PAIRS: Kind("Minimal pairs (MultiBLiMP, accuracy)", "Minimal pairs", "accuracy, %", "pairs"),
    TOY_CHOICE: Kind(
        "TOYS, not the benchmarks: pairs, stories and questions of the toy world (accuracy)", "TOY questions",
        "accuracy, %", "toy choice",
    ),
    TOY_TRANSLATION: Kind(
        "TOYS, not FLORES: translation in the toy world (BLEU)", "TOY translation", "BLEU", "toy translation", "bleu",
        0.0,
    ),
    TOY_INSTRUCTIONS: Kind(
        "TOYS, not IFEval's prompts: instruction following in the toy world (strict, instruction level)",
        "TOY instructions", "strict, %", "toy instructions", "inst_level_strict_acc", 0.0,
    ),
}  # fmt: skip
# Metrics whose full score is 100; all others are shares of 1.
OF_HUNDRED = ("bleu", "chrf", "ter")

# What the paper averages: frozen, whatever manifests say. Also the order of columns and notes.
PAPER = (
    *((f"{CHOICE}_{language}", ("Belebele", "XStoryCloze")) for language in ("eu", "gl", "ca", "es", "en")),
    (f"{CHOICE}_eu", ("EusReading", "EusProficiency", "BertaQA", "EusTrivia", "EusExams")),
    (f"{CHOICE}_gl", ("GalCoLA", "OpenBookQA", "Parafrases")),
    (f"{CHOICE}_ca", ("CatCoLA", "OpenBookQA")),
    (f"{CHOICE}_es", ("EsCoLA", "OpenBookQA")),
    (f"{TRANSLATION}_eu", ("es-eu", "en-eu")),
    (f"{TRANSLATION}_gl", ("es-gl", "en-gl")),
    (f"{TRANSLATION}_ca", ("es-ca", "en-ca")),
    (f"{TRANSLATION}_es", ("eu-es", "gl-es", "ca-es", "en-es")),
    (f"{TRANSLATION}_en", ("eu-en", "gl-en", "ca-en", "es-en")),
    *((f"{INSTRUCTIONS}_{language}", ("IFEval",)) for language in ("eu", "gl", "ca", "es")),
)
# Beside the averages: the paper's text counts two English benchmarks, and no Spanish exams; its scripts list more.
BESIDE = ((f"{CHOICE}_es", ("EusExams",)), (f"{CHOICE}_en", ("BertaQA", "OpenBookQA", "CoLA")))
_COUNTED = frozenset((column, name) for column, names in PAPER for name in names)
_PLACES = {
    place: number
    for number, place in enumerate((column, name) for column, names in (*PAPER, *BESIDE) for name in names)
}
PAPER_COLUMNS = tuple(dict.fromkeys(column for column, _ in PAPER))
_DIRECTION = re.compile("[a-z]{2,3}-[a-z]{2,3}")
PAPER_LANGUAGES = tuple(dict.fromkeys(column.rpartition("_")[2] for column in PAPER_COLUMNS))


@dataclass(frozen=True)
class Benchmark:
    """One benchmark in one language: one number, whatever the number of its tasks.

    Args:
        name: as the paper prints it; a direction ("es-eu") for translation.
        language: of the average it belongs to; the target language for translation.
        kind: a key of KINDS; a metric's name for tasks that no manifest knows.
        tasks: our leaf tasks; the benchmark's score is the plain mean over them.
        upstream: lm_eval's own leaf tasks of the same benchmark, read where ours are not in a results file.
        metric: its key in lm_eval's results.
        chance: what guessing scores, in percent.
        shots: as the authors ran it; None where shots make no sense.
        percent: what a full score of lm_eval's metric is: 1 for accuracies, 100 for BLEU.
        averaged: whether an average counts it.
        average: the average that does, where it is not its kind's.
        listed: the task or group that stands for it in groups.
        in_suite: whether `iberian_suite` measures it.
    """

    name: str
    language: str
    kind: str
    tasks: tuple[str, ...]
    upstream: tuple[str, ...] = ()
    metric: str = "acc"
    chance: float = 25.0
    shots: int | None = 5
    percent: float = 1.0
    averaged: bool = True
    average: str = ""
    listed: str = ""
    in_suite: bool = True

    @property
    def counted_in(self) -> str:
        """The average that counts it, over all languages: "bench", "mt"; of one that no average counts, its kind's."""
        return self.average or self.kind

    @property
    def column(self) -> str:
        """The average it counts in, as a column of the paper's tables: "bench_eu", "mt_es"."""
        return f"{self.counted_in}_{self.language}"

    @property
    def in_paper(self) -> bool:
        """Whether the paper averages it."""
        return self.averaged and (self.column, self.name) in _COUNTED

    @property
    def title(self) -> str:
        """The benchmark with its language, for messages: "Belebele (eu)"; a direction speaks for itself."""
        is_direction = self.kind == TRANSLATION and _DIRECTION.fullmatch(self.name)
        return f"FLORES {self.name}" if is_direction else f"{self.name} ({self.language})"


def benchmarks() -> tuple[Benchmark, ...]:
    """Every benchmark of every manifest, in the order of tables. Raises ManifestError."""
    return _benchmarks(task_folders())


def languages() -> tuple[str, ...]:
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


def columns(average: str) -> list[str]:
    """The columns of an average, in the order of the paper's tables."""
    return [f"{average}_{language}" for language in languages() if of_column(f"{average}_{language}")]


@functools.cache
def _languages_of(folders: tuple[Path, ...]) -> tuple[str, ...]:
    measured = {benchmark.language for benchmark in _benchmarks(folders)}
    return tuple(language for language in known_languages() if language in measured)


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


# From manifests -------------------------------------------------------------------------------------------------------

KEYS: Types = {
    "name": str, "kind": str, "languages": list, "directions": list, "task": str, "upstream": str, "metric": str,
    "chance": (int, float), "shots": (int, type(None)), "average": str, "suite": bool,
}  # fmt: skip
_AVERAGE = re.compile("[a-z][a-z0-9]*")
_GROUP = re.compile("^group:", re.MULTILINE)


@functools.cache
def _benchmarks(folders: tuple[Path, ...]) -> tuple[Benchmark, ...]:
    found = [(file, one) for file in manifest_files(folders) for one in _of_manifest(file)]
    _check_apart(found)
    kinds = list(KINDS)
    toys = kinds.index(TOYS[0])

    def place(benchmark: Benchmark) -> tuple[int, int]:
        column = f"{benchmark.kind}_{benchmark.language}"
        return min(kinds.index(benchmark.kind), toys), _PLACES.get((column, benchmark.name), len(_PLACES))

    return tuple(sorted((one for _, one in found), key=place))


def _check_apart(found: list[tuple[Path, Benchmark]]) -> None:
    """No task counts twice, and no average mixes units. Raises ManifestError."""
    tasks: dict[str, str] = {}
    units: dict[str, Benchmark] = {}
    for file, one in found:
        for task in one.tasks:
            if task in tasks:
                raise fault(file, f"{BENCHMARKS}: {one.title}", f"{task} counts in {tasks[task]} already")
            tasks[task] = one.title
        other = units.setdefault(one.counted_in, one)
        if KINDS[other.kind].unit != KINDS[one.kind].unit:
            said = f"{other.title} counts in {one.counted_in} and is measured otherwise; name another average"
            raise fault(file, f"{BENCHMARKS}: {one.title}: average", said)


def _of_manifest(file: Path) -> list[Benchmark]:
    """The benchmarks of a folder: language by language, then directions."""
    entries = read(file).get(BENCHMARKS) or []
    if not isinstance(entries, list):
        raise fault(file, BENCHMARKS, "should be a list, each item a benchmark")
    order = list(known_languages())
    found: list[tuple[bool, int, Benchmark]] = []
    for number, entry in enumerate(entries, 1):
        reader = _Entry(file, f"{BENCHMARKS}, number {number}", entry)
        found += [(reader.has_directions, order.index(one.language), one) for one in reader.benchmarks()]
    return [benchmark for *_, benchmark in sorted(found, key=lambda one: one[:2])]


class _Entry:
    """One entry under `benchmarks`, read for each of its languages or directions.

    Args:
        file, key: where it stands.
        entry: as YAML has it.
    Raises:
        ManifestError: names the file and the key.
    """

    def __init__(self, file: Path, key: str, entry: Any) -> None:
        named = entry.get("name") if isinstance(entry, dict) else None
        self.file, self.key = file, f"{key} ({named})" if named else key
        self.entry = checked(entry, KEYS, ("name", "kind", "task"), file, self.key)
        words = {kind.word: key for key, kind in KINDS.items()}
        if self.entry["kind"] not in words:
            raise self.fault("kind", f"{self.entry['kind']!r} is none of {', '.join(words)}")
        self.kind = words[self.entry["kind"]]
        self.has_directions = "directions" in self.entry
        if self.has_directions == ("languages" in self.entry):
            raise fault(file, self.key, "it needs one of the keys languages and directions")

    def fault(self, key: str, what: str) -> Exception:
        return fault(self.file, f"{self.key}: {key}", what)

    def benchmarks(self) -> Iterator[Benchmark]:
        """A benchmark for each language, or each direction."""
        key = "directions" if self.has_directions else "languages"
        for one in self.entry[key]:
            language = str(one).rpartition("-")[2]
            if any(part not in known_languages() for part in str(one).split("-")):
                known = ", ".join(known_languages())
                raise self.fault(key, f"{one}: not in languages.yml, which has {known}; add it there")
            yield self._benchmark(language, str(one))

    def _benchmark(self, language: str, direction: str) -> Benchmark:
        known = known_languages()[language]

        def filled(key: str) -> str:
            try:
                return str(self.entry.get(key, "")).format(
                    language=language, direction=direction, code=known.code, iso3=known.iso3
                )
            except (KeyError, IndexError, ValueError):
                raise self.fault(key, "only {language}, {code}, {iso3} and {direction} may stand in it") from None

        name, listed, upstream = filled("name"), filled("task"), filled("upstream")
        tasks = tuple(self._leaves(listed))
        if "*" in upstream:  # the star: what a leaf is called beyond its group
            theirs = tuple(upstream.replace("*", task.removeprefix(f"{listed}_")) for task in tasks)
        else:
            theirs = (upstream,) if upstream else ()
        metric = self.entry.get("metric", KINDS[self.kind].metric)
        average = self._average(language, name)
        return Benchmark(
            name, language, self.kind, tasks, theirs, metric, self._chance(), self._shots(),
            percent=100.0 if metric in OF_HUNDRED else 1.0, averaged=average is not None, average=average or "",
            listed=listed, in_suite=self.entry.get("suite", True),
        )  # fmt: skip

    def _average(self, language: str, name: str) -> str | None:
        """The average that counts it, "" for its kind's; None for none."""
        asked = self.entry.get("average", "")
        if asked == "none":
            return None
        column = f"{self.kind}_{language}"
        if (column, name) in _COUNTED or (not asked and column not in PAPER_COLUMNS):
            return ""
        if asked == self.kind and column in PAPER_COLUMNS:
            raise self.fault("average", f"{column} is the paper's average and frozen; name another, or leave it out")
        average = self._own() if asked in ("", "own") else asked
        if not _AVERAGE.fullmatch(average) or (average in KINDS and average != self.kind):
            raise self.fault("average", f"{average!r} cannot name an average; write one word in small letters")
        if average == ALL and self.kind != CHOICE:
            raise self.fault("average", f"only benchmarks of the kind choice count in {ALL}")
        return "" if average == self.kind else average

    def _own(self) -> str:
        """The key of an average that only this entry counts in."""
        plain = unicodedata.normalize("NFKD", re.sub(r"{\w+}", "", self.entry["name"])).encode("ascii", "ignore")
        return re.sub("[^a-z0-9]", "", plain.decode().lower())

    def _chance(self) -> float:
        chance = self.entry.get("chance", KINDS[self.kind].chance)
        if chance is None:
            raise fault(self.file, self.key, "it lacks the key chance: what guessing scores, in percent")
        if not 0 <= chance < 100:
            raise self.fault("chance", f"{chance} is no percentage below 100")
        return float(chance)

    def _shots(self) -> int | None:
        if "shots" not in self.entry:
            raise fault(self.file, self.key, "it lacks the key shots: how many, or null where they make no sense")
        shots: int | None = self.entry["shots"]
        if shots is not None and shots < 0:
            raise self.fault("shots", f"{shots} is less than none")
        return shots

    def _leaves(self, task: str) -> Iterable[str]:
        """The leaf tasks of a task or group of this folder. Raises ManifestError where there is no such YAML."""
        file = self.file.parent / f"{task}.yaml"
        if not file.is_file():
            raise self.fault("task", f"there is no {file.name} beside this manifest")
        if not _GROUP.search(file.read_text(encoding="utf-8")):
            return [task]
        return [leaf for part in read(file)["task"] for leaf in self._leaves(str(part))]
