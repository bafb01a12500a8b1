"""Tables of scores: the paper's tables 3 and 4 for any number of runs, and every benchmark of every language.

`tables(rows)` makes Table objects; `lm_eval_iberian.scores.formats` writes them as Markdown, CSV, LaTeX or JSON.
Best figures are bold and second ones underlined, among whole scores only; † marks a score that is not whole
(limited, samples), – one that cannot be given. The notes under the tables name every such benchmark. Each row says how
it was prompted, and § marks what was prompted otherwise than most of its column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lm_eval_iberian.benchmarks.benchmark import Benchmark
from lm_eval_iberian.benchmarks.languages import language_names
from lm_eval_iberian.benchmarks.table import averages, benchmarks, columns, measured_languages, of_column
from lm_eval_iberian.identity.prompting import Prompt, has_several, odd_ones, shown
from lm_eval_iberian.scores import leaderboards, paper
from lm_eval_iberian.scores.alike import otherwise
from lm_eval_iberian.scores.results import as_lm_eval_writes_it
from lm_eval_iberian.scores.results_files import find_runs
from lm_eval_iberian.scores.suite import NOTHING_MEASURED, ModelScores, Score, gather
from lm_eval_iberian.wording import some

BEST, SECOND = "best", "second"
PAPER = "paper"
UNKNOWN = Prompt(is_known=False)
# Behind the titles of tables.
NORMALISED = ", normalised: 0 is chance"
NOT_NORMALISED = ", not normalised: what guessing scores is not known here"


@dataclass(frozen=True)
class Cell:
    """One figure in percent.

    Args:
        value: None where there is none.
        spread: what follows the "±": SD over runs where there are several, else the standard error.
        marked: the score is not whole.
        rank: BEST, SECOND or "".
        flagged: something is wrong with the answers (empty, looping, cut, NaN); the notes say what.
        prompts: how the prompts behind it were made; none where there is no figure.
        odd: it was prompted otherwise than most of its column.
    """

    value: float | None
    spread: float | None = None
    marked: bool = False
    rank: str = ""
    flagged: bool = False
    prompts: tuple[Prompt, ...] = ()
    odd: bool = False

    @property
    def signs(self) -> str:
        """What stands behind the figure; see `report_formats.key`."""
        return "†" * self.marked + "‡" * self.flagged + "§" * self.odd

    @property
    def shown(self) -> str:
        """The figure as printed, which is what ranks are given on."""
        return "–" if self.value is None else f"{self.value:.2f}"


@dataclass(frozen=True)
class Table:
    """A title, the columns' heads, and rows: (name, role, cells); what each column counts, where that is known."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[Cell, ...]], ...]
    counted: tuple[tuple[Benchmark, ...], ...] = ()

    def part(self, first: int, last: int) -> Table:
        """The same table with the columns from `first` to before `last` alone."""
        rows = tuple((name, role, cells[first:last]) for name, role, cells in self.rows)
        return replace(self, heads=self.heads[first:last], rows=rows, counted=self.counted[first:last])

    @property
    def is_detail(self) -> bool:
        """Whether it is of single benchmarks, not of averages."""
        return all(len(counted) == 1 and head != counted[0].language
                   for head, counted in zip(self.heads, self.counted, strict=True))  # fmt: skip

    @property
    def prompts(self) -> list[str]:
        """How each row was prompted, in a word."""
        several = has_several(prompt for _, _, cells in self.rows for cell in cells for prompt in cell.prompts)
        return [shown((prompt for cell in cells for prompt in cell.prompts), several) for _, _, cells in self.rows]


@dataclass
class Report:
    """What a format writes.

    Args:
        tables: in order.
        notes: row name -> what is missing, limited or unusual in it.
        models: the scores themselves, for JSON.
        signatures: row name -> long signature of a merge.
        left_out: reason -> files that were looked into and not read.
    """

    tables: list[Table]
    notes: dict[str, list[str]]
    models: list[ModelScores] = field(default_factory=list)
    signatures: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)


def report_files(paths: Iterable[str | Path], against: str | None = None, normalised: bool = False) -> Report:
    """The report of lm_eval results files, or of folders with any number of them.

    Raises:
        SuiteError: a file that is none, or a folder without any.
    """
    found = find_runs([Path(path) for path in paths])
    with as_lm_eval_writes_it(some([run.origin for run in found.runs], 3)):
        made = report(gather(found.runs), against, normalised)
    made.left_out = found.left_out
    return made


def report(models: Sequence[ModelScores], against: str | None = None, normalised: bool = False) -> Report:
    """The report of models already read.

    Args:
        models: from `suite.gather`.
        against: "paper" puts the published rows beside them, the path of a CSV file its own (paper.py), that of a JSON
            file of a leaderboard's rows a table of these (leaderboards.py).
        normalised: figures between chance (0) and a full score (100), as IberoBench; not with `against`.
    """
    if against and normalised:
        raise ValueError("the paper's figures are not normalised: ask for one or the other")
    models = _parents_first(models)
    found = [_averages(average, models, against, normalised) for average in averages()]
    found += [_by_language(language, models, normalised) for language in measured_languages()]
    made = [table for table in found if table is not None]
    # Beside published figures a column without any of ours says what is still to be measured; else it says nothing.
    made = made if against else [table for one in made if (table := pruned(one)).heads]
    apart = otherwise(models)
    notes = {model.label: notes for model in models if (notes := [*_said(model, made), *apart.get(model.label, [])])}
    if against:
        own = f"rows marked [printed] are those of {against}: how they were measured is not known here"
        of_shares = (
            against != PAPER and Path(against).suffix not in leaderboards.ENDINGS and paper.are_shares(Path(against))
        )
        notes["paper" if against == PAPER else "printed"] = [
            paper.CAUTION if against == PAPER else own,
            *([f"rows marked [printed]: no figure of {against} is more than 1, and tables are in percent"] if of_shares else []),
        ]  # fmt: skip
    signed = {
        model.label: str(run.stamp["signature"]) for model in models for run in model.runs if "signature" in run.stamp
    }
    tables = [with_odd_ones(ranked(table)) for table in made]
    if against and Path(against).suffix in leaderboards.ENDINGS:
        tables += [_of_leaderboard(found) for found in leaderboards.read_published(Path(against))]
    return Report(tables, notes, list(models), signed)


def _said(model: ModelScores, made: Sequence[Table]) -> list[str]:
    """A model's notes, without those that nothing is measured for a column that is not shown."""
    shown = {
        benchmark.column for table in made if not table.is_detail for counted in table.counted for benchmark in counted
    }
    hidden = [f"{NOTHING_MEASURED} {column}" for column in model.averages if column not in shown]
    return [note for note in model.notes if note not in hidden]


def pruned(table: Table) -> Table:
    """The table without columns in which no row but chance has a figure; the notes say why each is missing."""
    kept = [number for number in range(len(table.heads))
            if any(cells[number].value is not None for _, role, cells in table.rows if role != "chance")]  # fmt: skip
    rows = tuple((name, role, tuple(cells[number] for number in kept)) for name, role, cells in table.rows)
    heads, counted = tuple(table.heads[number] for number in kept), tuple(table.counted[number] for number in kept)
    return replace(table, heads=heads, rows=rows, counted=counted)


def _averages(average: str, models: Sequence[ModelScores], against: str | None, normalised: bool) -> Table | None:
    """An average, a column a language; published rows above ours."""
    heads = [head for head in columns(average) if any(head in model.averages for model in models)]
    rows = [
        (model.label, _role(model, models), tuple(_cell(model, head, normalised) for head in heads))
        for model in models
        if model.has(average)
    ]
    if not rows:
        return None
    if against:
        rows = [*_printed(against, average, heads), *rows]
    else:
        rows.append(("chance", "chance", _chance([_first(models, head) for head in heads], normalised)))
    title = averages()[average].title + (NORMALISED if normalised else "")
    counted = tuple(tuple(of_column(head)) for head in heads)
    return Table(title, tuple(head.rpartition("_")[2] for head in heads), tuple(rows), counted)


def _cell(model: ModelScores, head: str, normalised: bool) -> Cell:
    """A model's figure in a column; one without where no benchmark of it was measured."""
    return cell_of(model.averages[head], normalised) if head in model.averages else Cell(None)


def _first(models: Sequence[ModelScores], head: str) -> Score | None:
    return next((model.averages[head] for model in models if head in model.averages), None)


def _by_language(language: str, models: Sequence[ModelScores], normalised: bool) -> Table | None:
    """Every benchmark of a language that any model was measured on."""
    measured = [
        benchmark
        for benchmark in benchmarks()
        if benchmark.language == language and any(model.benchmarks[benchmark].runs for model in models)
    ]
    if not measured:
        return None
    rows = [
        (model.label, _role(model, models), tuple(cell_of(model.benchmarks[b], normalised) for b in measured))
        for model in models
    ]
    rows.append(("chance", "chance", _chance([models[0].benchmarks[b] for b in measured], normalised)))
    heads = tuple(b.name if b.averaged else f"{b.name} (not averaged)" for b in measured)
    counted = tuple((benchmark,) for benchmark in measured)
    title = f"{language_names()[language]}, benchmark by benchmark" + (NORMALISED if normalised else "")
    return Table(title, heads, tuple(rows), counted)


def cell_of(score: Score, normalised: bool = False) -> Cell:
    """A score as a figure of a table."""
    value = score.normalised if normalised else score.value
    if value is None:
        return Cell(None)
    spread = score.normalised_spread if normalised else score.spread
    return Cell(value, spread, bool(score.problems), flagged=bool(score.doubts), prompts=score.prompts)


def _chance(scores: Sequence[Score | None], normalised: bool) -> tuple[Cell, ...]:
    return tuple(Cell(None if score is None else 0.0 if normalised else score.chance) for score in scores)


def _printed(against: str, average: str, heads: Sequence[str]) -> list[tuple[str, str, tuple[Cell, ...]]]:
    """The published rows of an average: the paper's, or those of a file, whose prompts are not known."""
    if Path(against).suffix in leaderboards.ENDINGS:
        return []  # they have tables of their own
    if against == PAPER:
        return [(f"{name} [paper]", "paper", _published(figures, heads, paper.prompted(name)))
                for name, figures in paper.published(average).items()]  # fmt: skip
    found = paper.of_file(Path(against), average)
    return [(f"{name} [printed]", "paper", _published(figures, heads, UNKNOWN)) for name, figures in found.items()]


def _published(
    figures: Mapping[str, tuple[float, float | None]], heads: Sequence[str], prompt: Prompt
) -> tuple[Cell, ...]:  # fmt: skip
    prompts = (prompt,)
    return tuple(Cell(*figures[head], prompts=prompts) if head in figures else Cell(None) for head in heads)


def _of_leaderboard(found: leaderboards.Published) -> Table:
    """Published rows with the names and in the unit of who published them; not ranked: they are not ours to judge."""
    rows = tuple(
        (f"{model} [printed]", "paper", tuple(Cell(*figures[column], prompts=(UNKNOWN,)) if column in figures else Cell(None)
                                              for column in found.columns))
        for model, figures in found.rows.items()
    )  # fmt: skip
    return Table(found.title, found.columns, rows, tuple(() for _ in found.columns))


def _role(model: ModelScores, models: Sequence[ModelScores]) -> str:
    """ "merge", "parent" (a source of a merge in this report), or "model"."""
    if any(_is_parent(model, other) for other in models):
        return "parent"
    return "merge" if len(model.runs[0].sources) > 1 else "model"


def _is_parent(model: ModelScores, merge: ModelScores) -> bool:
    sources, own = merge.runs[0].sources, model.runs[0].sources
    if model is merge or len(sources) < 2:
        return False
    if own:
        return len(own) == 1 and set(own.values()) <= set(sources.values())
    return model.runs[0].model in sources


def _parents_first(models: Sequence[ModelScores]) -> list[ModelScores]:
    """Each merge just below its parents; everything else in the order given."""
    ordered: list[ModelScores] = []
    for model in models:
        for one in (*(parent for parent in models if _is_parent(parent, model)), model):
            if one not in ordered:
                ordered.append(one)
    return ordered


def ranked(table: Table) -> Table:
    """Best and second of each column, on the figures as printed; ties share a rank. No ranks among fewer than two."""
    ranks: list[Callable[[Cell], str]] = []
    for number in range(len(table.heads)):
        column = [cells[number] for _, role, cells in table.rows if role != "chance"]
        values = sorted(
            {float(cell.shown) for cell in column if cell.value is not None and not cell.marked}, reverse=True
        )
        ranks.append(_ranker(values if sum(cell.value is not None and not cell.marked for cell in column) > 1 else []))
    rows = tuple(
        (
            name,
            role,
            cells if role == "chance" else tuple(replace(c, rank=ranks[i](c)) for i, c in enumerate(cells)),
        )
        for name, role, cells in table.rows
    )
    return replace(table, rows=rows)


def with_odd_ones(table: Table) -> Table:
    """The table with a sign at each figure that was prompted otherwise than most of its column."""
    columns = [odd_ones([cells[number].prompts for _, _, cells in table.rows]) for number in range(len(table.heads))]
    rows = tuple(
        (name, role, tuple(replace(cell, odd=columns[number][row]) for number, cell in enumerate(cells)))
        for row, (name, role, cells) in enumerate(table.rows)
    )
    return replace(table, rows=rows)


def _ranker(values: list[float]) -> Callable[[Cell], str]:
    def rank(cell: Cell) -> str:
        if cell.value is None or cell.marked or float(cell.shown) not in values[:2]:
            return ""
        return (BEST, SECOND)[values.index(float(cell.shown))]

    return rank
