"""The paper's averages, from the results files of any lm_eval run.

- A language's "benchmark average": the plain mean over its benchmarks, EusExams one benchmark of 29 exams.
- Machine translation: BLEU, averaged by target language.
- Instruction following: IFEval, strict, instruction level; mean and sample SD over runs.

Everything is in percent. A benchmark that is missing or failed leaves its language without an average; one that
was limited, or ran on the embedded samples, marks it. Both are named in `notes`.
Source: "Merge and Conquer" (LREC 2026), tables 3 and 4; IberoBench (COLING 2025) for `normalised`.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from lm_eval_iberian.benchmarks.benchmark import PAPER_LANGUAGES, Benchmark
from lm_eval_iberian.benchmarks.table import averages, benchmarks, columns, of_column, of_task
from lm_eval_iberian.identity.identity import Identity
from lm_eval_iberian.identity.prompting import Prompt
from lm_eval_iberian.scores.results import Leaf, Run, SuiteError
from lm_eval_iberian.wording import some

# The sections of an identity that differ between models which are measured alike.
OF_A_MODEL = ("weights", "tokenizer", "generation_config", "chat", "seed")
# Of what sets rows of one name apart, in their labels.
WORDS = 3
# A doubt about a score: multiple choice under a chat template may fall so low.
BELOW_CHANCE = "below chance by more than 3 standard errors: look at how it was prompted"
# lm_eval writes its version since 0.4.9.
UNKNOWN_VERSION = "lm_eval wrote it, so several versions may be averaged here, and each prompts in its own way"
NOTHING_MEASURED = "nothing measured for"  # a note on a column of the paper
# Why a benchmark has no score: it should have one, or nobody asked for it.
MISSING, NOT_ASKED = "missing", "not asked for"


@dataclass(frozen=True)
class Score:
    """A benchmark's score, or an average's; in percent.

    Args:
        value: None where there is none: `problems` says why.
        stderr: standard error over documents, propagated from lm_eval's; None where lm_eval gave none.
        deviation: sample SD over runs; None for a single run.
        runs: how many results files it is the mean of.
        chance: what guessing scores.
        problems: why it is missing, failed or marked: never empty for a value that is not whole.
        notes: what a reader should know though the score stands (shots, upstream's task).
        doubts: why to look at the answers before the score (cut prompts, ties, far below chance, ...).
        prompts: how the prompts behind it were made, each way once.
        parts: what an average is the mean of; none of a benchmark's score.
    """

    value: float | None
    stderr: float | None
    deviation: float | None
    runs: int
    chance: float
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    parts: tuple[Score, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether this is a score of the whole benchmark, fit to be compared."""
        return self.value is not None and not self.problems

    @property
    def normalised(self) -> float | None:
        """0 at chance and 100 at a full score, as IberoBench reports; below 0 where guessing would do better.

        An average is the mean of its benchmarks' normalised scores: their chances differ, so it is not what the mean
        score would give.
        """
        if self.value is None:
            return None
        if self.parts:
            return statistics.fmean(part.normalised for part in self.parts if part.normalised is not None)
        return 100 * (self.value - self.chance) / (100 - self.chance)

    @property
    def spread(self) -> float | None:
        """What stands after the "±": the SD over runs where there are several, else the standard error."""
        return self.deviation if self.runs > 1 and self.deviation is not None else self.stderr

    @property
    def normalised_spread(self) -> float | None:
        """The spread in the unit of `normalised`."""
        if len(self.parts) > 1:
            spreads = [100 * part.stderr / (100 - part.chance) for part in self.parts if part.stderr is not None]
            return math.hypot(*spreads) / len(self.parts) if len(spreads) == len(self.parts) else None
        return None if self.spread is None else 100 * self.spread / (100 - self.chance)


class ModelScores:
    """All that the results files of one model say.

    Args:
        runs: its files: one for every task, several of one task, or both.
        label: the row's name.
        asked: the tasks that it was to be measured on; None where that is not known, as of results files.
    """

    def __init__(self, runs: Sequence[Run], label: str, asked: Collection[str] | None = None) -> None:
        self.runs = list(runs)
        self.label = label
        self.asked = asked

    @cached_property
    def benchmarks(self) -> dict[Benchmark, Score]:
        """Every benchmark of the table, found or not."""
        return {benchmark: score_of(benchmark, self.runs, self.asked) for benchmark in benchmarks()}

    @cached_property
    def averages(self) -> dict[str, Score]:
        """Every average of a sort of which anything was measured: column -> Score.

        In languages of the paper these are all of its columns, in others those of which anything was measured.
        """
        found = [column for average in averages() if self.has(average) for column in columns(average)]
        return {
            column: self._average(column)
            for column in found
            if column.rpartition("_")[2] in PAPER_LANGUAGES or self._measured(column)
        }

    def has(self, average: str) -> bool:
        """Whether any benchmark of an average is in the files, in whatever language."""
        return any(score.runs for benchmark, score in self.benchmarks.items() if benchmark.counted_in == average)

    def lacks(self, benchmark: Benchmark) -> bool:
        """Whether an average of these files counts a benchmark that is not in them."""
        return benchmark.averaged and benchmark.column in self.averages and not self.benchmarks[benchmark].runs

    def _measured(self, column: str) -> bool:
        """Whether any benchmark of an average is in the files."""
        return any(self.benchmarks[benchmark].runs for benchmark in of_column(column))

    @property
    def notes(self) -> list[str]:
        """Every benchmark that is missing, failed, limited, or otherwise wants a word, named."""
        said = [f"{NOTHING_MEASURED} {column}" for column in self.averages if not self._measured(column)]
        for benchmark, score in self.benchmarks.items():
            if score.runs or (self.lacks(benchmark) and self._measured(benchmark.column)):
                said += [f"{benchmark.title}: {word}" for word in (*score.problems, *score.doubts, *score.notes)]
        if len(self.runs) > 1 and not any(run.data.get("lm_eval_version") for run in self.runs):
            said.append(f"none of its {len(self.runs)} files says which {UNKNOWN_VERSION}")
        return said + self._others()

    def _others(self) -> list[str]:
        """Every task in the files that no benchmark of the table counts, with its scores."""
        return [
            f"in no table: {task}: {shown}"
            for run in self.runs
            for task in run.tasks
            if of_task(task) is None and (shown := run.scores(task))
        ]

    def _average(self, column: str) -> Score:
        return average({benchmark: self.benchmarks[benchmark] for benchmark in of_column(column)})


def average(measured: Mapping[Benchmark, Score]) -> Score:
    """The plain mean over benchmarks; without a value where any of them has none. Its problems name them."""
    scores = list(measured.values())
    chance = statistics.fmean(score.chance for score in scores)
    problems = tuple(
        f"{benchmark.title}: {problem}" for benchmark, score in measured.items() for problem in score.problems
    )
    doubts = tuple(f"{benchmark.title}: {doubt}" for benchmark, score in measured.items() for doubt in score.doubts)
    prompts = tuple(dict.fromkeys(prompt for score in scores for prompt in score.prompts))
    values = [score.value for score in scores if score.value is not None]
    runs = max(score.runs for score in scores)
    if len(values) < len(scores):
        return Score(None, None, None, runs, chance, problems, (), doubts, prompts, tuple(scores))
    # Benchmarks are averaged run by run only where each has the same runs; that is so for IFEval, one benchmark.
    deviation = scores[0].deviation if len(scores) == 1 else None
    return Score(statistics.fmean(values), _stderr(scores), deviation, runs, chance, problems, (), doubts, prompts,
                 tuple(scores))  # fmt: skip


def weighted_sum(measured: Mapping[Benchmark, Score], weights: Mapping[Benchmark, float]) -> Score:
    """The sum of weight times score; without a value where any of them has none. Its problems name them."""
    mean = average(measured)
    if mean.value is None:
        return mean
    parts = [(weights[benchmark], score) for benchmark, score in measured.items()]
    errors = [(weight, score.stderr) for weight, score in parts if score.stderr is not None]
    stderr = math.sqrt(sum((weight * error) ** 2 for weight, error in errors)) if len(errors) == len(parts) else None
    value = math.fsum(weight * score.value for weight, score in parts if score.value is not None)
    chance = math.fsum(weight * score.chance for weight, score in parts)
    return replace(mean, value=value, stderr=stderr, deviation=None, chance=chance, parts=())


def gather(runs: Iterable[Run]) -> list[ModelScores]:
    """The runs, row by row, in the order given: runs of one row are one measurement, but for tasks and sampling seeds.

    Where rows have the same name, each says what it has and the others have not: "merge (max_length 64)".

    Raises:
        SuiteError: a run is given twice.
    """
    runs = list(runs)
    _check_twice(runs)
    groups = grouped(runs)
    return [ModelScores(files, label) for files, label in zip(groups, _labels(groups), strict=True)]


def grouped(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs that may be averaged, together: see `lm_eval_iberian.identity.identity.Identity.agrees`."""
    groups: list[list[Run]] = []
    by_row: dict[str, list[list[Run]]] = {}
    for run in runs:
        same = by_row.setdefault(run.identity.row, [])
        group = next((one for one in same if all(run.identity.agrees(other.identity) for other in one)), None)
        if group is None:
            group = []
            same.append(group)
            groups.append(group)
        group.append(run)
    return groups


def _labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    """A name for each row, all different."""
    names = [group[0].label for group in groups]
    made: list[str] = []
    for group, name in zip(groups, names, strict=True):
        others = [other for other, same in zip(groups, names, strict=True) if same == name and other is not group]
        words = dict.fromkeys(word for other in others for word in apart(group, other))
        made.append(free_name(f"{name} ({some(list(words), WORDS)})" if words else name, made))
    return made


def apart(first: Sequence[Run], second: Sequence[Run]) -> list[str]:
    """What sets one row apart from another, in a few words each; not the seeds of sampling."""
    pairs = [(one.identity.without("seed"), other.identity.without("seed")) for one in first for other in second]
    return list(dict.fromkeys(word for one, other in pairs for word in one.differences(other)))


def apart_on(first: Iterable[Run], second: Iterable[Run], tasks: Collection[str]) -> list[str]:
    """What differs in how two models were measured on some tasks, beside the models themselves and their prompts.

    Nothing: their scores there may be compared (prompts may differ where that is marked: `lm_eval_iberian.identity.prompting`).
    """
    ours, theirs = ([on_tasks(run, tasks) for run in runs if any(task in run.tasks for task in tasks)]
                    for runs in (first, second))  # fmt: skip
    return list(dict.fromkeys(word for one in ours for other in theirs for word in one.differences(other)))


def on_tasks(run: Run, tasks: Collection[str]) -> Identity:
    """What was measured there, without what is a model's own."""
    found = run.identity.without(*OF_A_MODEL)
    parts = found.parts
    return replace(
        found, parts={**parts, "tasks": {task: said for task, said in parts["tasks"].items() if task in tasks}}
    )


def free_name(name: str, taken: Collection[str]) -> str:
    """The name, or "name (2)" and so on where it is taken."""
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name} ({number})"
    return free


def score_of(benchmark: Benchmark, runs: Sequence[Run], asked: Collection[str] | None = None) -> Score:
    """A benchmark's score: our tasks where any of them is there, else lm_eval's own.

    Args:
        asked: the tasks that were to be measured; None where that is not known: what is not there is missing then.
    """
    # Of each task in the order of the seeds: where each task's runs lie in files of their own, the same run of two tasks
    # is told by nothing else.
    runs = sorted(runs, key=lambda run: json.dumps(run.identity.parts.get("seed"), sort_keys=True, default=str))
    ours = any(task in run.tasks for run in runs for task in benchmark.tasks)
    tasks = benchmark.tasks if ours or not benchmark.upstream else benchmark.upstream
    found = {task: [run.leaf(task, benchmark.metric, benchmark.percent) for run in runs if task in run.tasks]
             for task in tasks}  # fmt: skip
    missing = [task for task, leaves in found.items() if not leaves]
    if len(missing) == len(tasks):
        return Score(None, None, None, 0, benchmark.chance, (_why_not((*benchmark.tasks, *benchmark.upstream), asked),))
    problems = _problems(found, {task: _why_not([task], asked) for task in missing})
    notes = _notes(benchmark, found, by_upstream=not ours)
    if ours and any(task in run.tasks for run in runs for task in benchmark.upstream):
        notes = (*notes, "lm_eval's own tasks of it are in the files too, and not counted")
    doubts = _by_task({task: [doubt for leaf in leaves for doubt in leaf.doubts] for task, leaves in found.items()})
    prompts = tuple(dict.fromkeys(leaf.prompt for leaves in found.values() for leaf in leaves))
    count = max(len(leaves) for leaves in found.values())
    if missing or any(leaf.value is None for leaves in found.values() for leaf in leaves):
        return Score(None, None, None, count, benchmark.chance, problems, notes, doubts, prompts)
    if len({len(leaves) for leaves in found.values()}) > 1:
        problems = (*problems, "its tasks were not run equally often")
    factor = 100.0 / benchmark.percent
    per_task = [_over_runs(leaves, factor, benchmark.chance) for leaves in found.values()]
    value, stderr = statistics.fmean(score.value for score in per_task if score.value is not None), _stderr(per_task)
    documents = [max(run.documents(task) for run in runs if task in run.tasks) for task in found]
    if _is_below_chance(value, stderr, benchmark.chance, documents):
        doubts = (*doubts, BELOW_CHANCE)
    return Score(
        value,
        stderr,
        _deviation(list(found.values()), factor),
        count,
        benchmark.chance,
        problems,
        notes,
        doubts,
        prompts,
    )


def _is_below_chance(value: float, stderr: float | None, chance: float, documents: Sequence[int]) -> bool:
    """Whether guessing would do better by more than 3 standard errors: the score's own, or guessing's if that is larger.

    Args:
        value, stderr, chance: of a mean over tasks, in percent.
        documents: how many each task has; 0 where the file does not say. All wrong on few documents has an error of 0
            and may be bad luck all the same, so guessing's own error counts too.
    """
    share = chance / 100
    of_guessing = 0.0
    if all(documents):
        of_guessing = 100 * math.sqrt(sum(share * (1 - share) / count for count in documents)) / len(documents)
    error = max(stderr or 0.0, of_guessing)
    return error > 0 and value < chance - 3 * error


def _over_runs(leaves: Sequence[Leaf], factor: float, chance: float) -> Score:
    """The mean of one task over its runs. Its standard error is a single run's: the documents are the same."""
    value = statistics.fmean(factor * leaf.value for leaf in leaves if leaf.value is not None)
    errors = [leaf.stderr for leaf in leaves]
    stderr = factor * statistics.fmean(e for e in errors if e is not None) if None not in errors else None
    return Score(value, stderr, None, len(leaves), chance)


def _deviation(by_task: list[list[Leaf]], factor: float) -> float | None:
    """The sample SD over runs of the benchmark's score; None for one run, or runs that do not match.

    None, too, where every run has the same values: it is one measurement made again, or nothing was drawn, and an SD
    of 0 would hide the standard error.
    """
    counts = {len(leaves) for leaves in by_task}
    if counts == {1} or len(counts) > 1 or all(len({leaf.value for leaf in leaves}) == 1 for leaves in by_task):
        return None
    return statistics.stdev(
        statistics.fmean(factor * leaf.value for leaf in run if leaf.value is not None)
        for run in zip(*by_task, strict=True)
    )


def _stderr(scores: Sequence[Score]) -> float | None:
    """The standard error of a mean of independent scores: sqrt(sum of squares) / n; None if one has none."""
    if any(score.stderr is None for score in scores):
        return None
    return math.sqrt(sum(score.stderr**2 for score in scores if score.stderr is not None)) / len(scores)


def _why_not(tasks: Iterable[str], asked: Collection[str] | None) -> str:
    """Why tasks have no score."""
    return MISSING if asked is None or any(task in asked for task in tasks) else NOT_ASKED


def _problems(found: dict[str, list[Leaf]], missing: Mapping[str, str]) -> tuple[str, ...]:
    """Why a score is not whole, or not there. `missing`: task -> why it was not measured."""
    said = {task: [problem for leaf in leaves for problem in leaf.problems] for task, leaves in found.items()}
    return _by_task(said | {task: [why] for task, why in missing.items()})


def _by_task(said: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """What is said of a benchmark's tasks, each thing once, with the tasks where it is not said of all."""
    by_word: dict[str, list[str]] = {}
    for task, words in said.items():
        for word in dict.fromkeys(words):
            by_word.setdefault(word, []).append(task)
    return tuple(_with_tasks(word, tasks, len(said)) for word, tasks in by_word.items())


def _with_tasks(problem: str, tasks: list[str], of: int) -> str:
    """A problem with the tasks that have it, where not all of them do."""
    if len(tasks) == of:
        return problem
    return f"{problem} ({len(tasks)} of {of} tasks: {some(tasks, 3)})"


def _notes(benchmark: Benchmark, found: dict[str, list[Leaf]], by_upstream: bool) -> tuple[str, ...]:
    notes = ["from lm_eval's own tasks"] if by_upstream else []
    count = max(len(leaves) for leaves in found.values())
    if count > 1:
        notes.append(f"mean of {count} runs")
    if any("FloresBitextMining" in leaf.documents for leaves in found.values() for leaf in leaves):
        notes.append("on the copy mteb/FloresBitextMining, not on FLORES+")
    if any(leaf.documents.startswith("own prompts") for leaves in found.values() for leaf in leaves):
        notes.append("on this project's own prompts, not on the published set")
    notes += dict.fromkeys(word for leaves in found.values() for leaf in leaves for word in leaf.documents_notes)
    shots = {leaf.shots for leaves in found.values() for leaf in leaves if leaf.shots is not None}
    if benchmark.shots is not None and shots - {benchmark.shots}:
        notes.append(f"{'/'.join(str(n) for n in sorted(shots))}-shot, the paper ran {benchmark.shots}-shot")
    return tuple(notes)


def _check_twice(runs: Sequence[Run]) -> None:
    """A file given twice would pass for two runs. Raises SuiteError."""
    for number, run in enumerate(runs):
        for other in runs[:number]:
            if run.data is other.data or run.data == other.data:
                raise SuiteError(f"{run.origin} is the same run as {other.origin}: give it once.")
