"""A sweep's tables: those of `lm_eval_iberian.scores.tables` for the suite, the same for any other task, and differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lm_eval_iberian.benchmarks.benchmark import Benchmark
from lm_eval_iberian.benchmarks.languages import language_names
from lm_eval_iberian.compare.columns import Column, Scores, is_flagged, others
from lm_eval_iberian.compare.differences import Compared
from lm_eval_iberian.runs.point import SweepPoint
from lm_eval_iberian.scores.formats import csv_text, latex_text, markdown_text
from lm_eval_iberian.scores.tables import NOT_NORMALISED, Report, Table, cell_of, pruned, ranked, report, with_odd_ones
from merge_hooks.texts import seen


def sweep_report(scores: Scores, against: str | None = None, normalised: bool = False) -> Report:
    """The tables of a run, rows named as its points, and a note for all that is missing, flagged or failed."""
    points = scores.points
    made = report([point.model_scores for point in points], against, normalised) if points else Report([], {})
    own = others(scores.run)
    beside = [with_odd_ones(ranked(table)) for table in _other_tables(scores, own)]
    made.tables += [replace(table, title=table.title + NOT_NORMALISED) for table in beside] if normalised else beside
    made.tables = [_flagged(table, scores) for table in made.tables]
    if not against:
        made.tables = [whole for table in made.tables if (whole := pruned(table)).heads]
    told = tuple(f"in no table: {benchmark.name}:" for benchmark in own)
    for point in scores.run.points:
        kept = [note for note in made.notes.get(point.name, []) if not note.startswith(told or ("\0",))]
        # What is said of a task's answers is said below, of tasks that no table knows as well.
        kept = [note for note in kept if not any(word in note for words in point.flags.values() for word in words)]
        kept += [f"{task}: {word}" for task, words in point.flags.items() for word in words]
        kept += [f"not measured: {reason}" for reason in distinct(point.failures)]
        if not kept and not point.results:
            kept = ["not measured yet"]
        made.notes.pop(point.name, None)
        if kept:
            made.notes[point.name] = kept
    return made


def _other_tables(scores: Scores, own: Sequence[Benchmark]) -> list[Table]:
    """For tasks that the suite does not know: the averages of each kind, then task by task by language."""
    columns = [column for column in scores.columns if column.benchmarks and column.benchmarks[0] in own]
    made = []
    for kind in dict.fromkeys(column.kind for column in columns):
        same = [column for column in columns if column.kind == kind]
        if any(len(column.benchmarks) > 1 for column in same) or len(same) > 1:
            rows = tuple((point.name, point.role, tuple(cell_of(scores.score(point, one)) for one in same))
                         for point in scores.points)  # fmt: skip
            heads = tuple(one.language or "all" for one in same)
            made.append(Table(same[0].kind_title, heads, rows, tuple(one.benchmarks for one in same)))
    for language in dict.fromkeys(column.language for column in columns):
        measured = [one for column in columns if column.language == language for one in column.benchmarks]
        rows = tuple((point.name, point.role, tuple(cell_of(scores.benchmark(point, one)) for one in measured))
                     for point in scores.points)  # fmt: skip
        title = f"{language_names().get(language, 'Other tasks')}, task by task"
        heads = tuple(f"{one.name} ({one.metric})" for one in measured)
        made.append(Table(title, heads, rows, tuple((one,) for one in measured)))
    return made


def distinct(reasons: Sequence[str]) -> list[str]:
    """Reasons without those that only say another one again: "tasks: reason" beside "reason"."""
    return [one for one in reasons if not any(one != other and one.endswith(other) for other in reasons)]


def _flagged(table: Table, scores: Scores) -> Table:
    """The table with a sign at each figure that counts a task whose answers were flagged, and the plan's roles."""
    roles = {point.name: point.role for point in scores.points}
    flags = {point.name: set(point.flags) for point in scores.points if point.flags}
    rows = []
    for name, role, cells in table.rows:
        signed = [replace(cell, flagged=cell.value is not None and (cell.flagged or is_flagged(flags[name], counted)))
                  for cell, counted in zip(cells, table.counted, strict=True)] if name in flags else cells  # fmt: skip
        rows.append((name, roles.get(name, role), tuple(signed)))
    return replace(table, rows=tuple(rows))


def score_csv(scores: Scores) -> str:
    """The columns, a row a point: what the curves, the heat map and the scatter show."""
    axes = list(scores.run.axes)
    head = ["point", "role", *axes, *(column.key for column in scores.columns)]
    return csv_text([head, *([point.name, point.role, *(point.labels.get(axis, "") for axis in axes),
                          *(_shown(scores, point, column) for column in scores.columns)]
                         for point in scores.points)])  # fmt: skip


def _shown(scores: Scores, point: SweepPoint, column: Column) -> str:
    value = scores.score(point, column).value
    return "" if value is None else f"{value:.4f}"


DIFFERENCES_KEY = (
    "Percent points (BLEU points for translation), the merge minus the parent, with 95 % intervals: paired bootstrap over "
    "the documents. n.s.: not significant (p at least 0.05); p values are of each difference alone, not adjusted for "
    "their number. Where only k documents differ, p is never below 2^(1-k), so an interval may leave out 0 and the "
    "difference be n.s. all the same. † not of whole benchmarks. § the two were prompted in different ways (the tables say how)."
)
HEAD = [
    "merge",
    "parent",
    "column",
    "benchmark",
    "difference",
    "low",
    "high",
    "p",
    "documents",
    "significant",
    "method",
    "prompted alike",
]


def differences_csv(compared: Sequence[Compared]) -> str:
    """A row a difference; no benchmark: the column's average."""
    return csv_text([HEAD, *map(_row, compared)])


def _row(one: Compared) -> list[str]:
    named = [one.merge, one.parent, one.column.key, one.benchmark.title if one.benchmark else "", f"{one.value:.4f}"]
    alike = "no" if one.odd else "yes"
    if one.test is None:
        return [*named, "", "", "", "", "", f"none: {one.reason}", alike]
    test = one.test
    said = "yes" if test.significant() else "no"
    figures = [f"{test.low:.4f}", f"{test.high:.4f}", f"{test.p:.4g}", str(test.documents)]
    return [*named, *figures, said, test.method, alike]


def differences_markdown(compared: Sequence[Compared]) -> str:
    """The averages' differences: a row a merge and parent, a column each average."""
    heads, rows = _grid(compared)
    body = [[markdown_text(cell) for cell in row] for row in (heads, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in body]
    return seen("\n".join([lines[0], "|" + "---|" * len(heads), *lines[1:], "", DIFFERENCES_KEY, ""]))


def differences_latex(compared: Sequence[Compared]) -> str:
    """The same, for \\usepackage{booktabs}."""
    heads, rows = _grid(compared)
    body = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in (heads, *rows)]
    return "\n".join([
        "% " + DIFFERENCES_KEY, rf"\begin{{tabular}}{{ll{'r' * (len(heads) - 2)}}}", r"\toprule", body[0], r"\midrule",
        *body[1:], r"\bottomrule", r"\end{tabular}", "",
    ])  # fmt: skip


def _latex(cell: str) -> str:
    return latex_text(cell).replace("†", r"$^\dagger$").replace("§", r"$^\S$").replace("–", "--")


def _grid(compared: Sequence[Compared]) -> tuple[list[str], list[list[str]]]:
    columns, rows = averages_of(compared)
    heads = ["merge", "minus", *(column.title for column in columns)]
    body = [[merge, parent, *(interval(found.get(column.key)) for column in columns)]
            for (merge, parent), found in rows.items()]  # fmt: skip
    return heads, body


def interval(one: Compared | None) -> str:
    """A difference with its interval: "+3.20 [+1.10, +5.30]"; n.s. is not significant, † not of whole benchmarks,
    § prompted in different ways."""
    if one is None:
        return "–"
    said = f"{one.value:+.2f}" + one.signs
    return (
        f"{said} (no test)"
        if one.test is None
        else f"{said} [{one.test.low:+.2f}, {one.test.high:+.2f}] {one.mark}".rstrip()
    )


def averages_of(compared: Sequence[Compared]) -> tuple[list[Column], dict[tuple[str, str], dict[str, Compared]]]:
    """The differences of columns: the columns, and (merge, parent) -> column's key -> difference."""
    rows: dict[tuple[str, str], dict[str, Compared]] = {}
    columns: dict[str, Column] = {}
    for one in compared:
        if one.benchmark is None:
            columns[one.column.key] = one.column
            rows.setdefault((one.merge, one.parent), {})[one.column.key] = one
    return list(columns.values()), rows
