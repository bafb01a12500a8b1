"""The forms of a report: Markdown, CSV, LaTeX, JSON."""

from __future__ import annotations

import csv
import io
import pkgutil
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from lm_eval_iberian.benchmarks.benchmark import Benchmark
from lm_eval_iberian.identity import prompting
from lm_eval_iberian.scores.notes import CHANCE, notes_of
from lm_eval_iberian.scores.suite import ModelScores, Score
from lm_eval_iberian.scores.tables import BEST, SECOND, Cell, Report, Table
from lm_eval_iberian.wording import some
from merge_hooks.texts import json_text, one_line, seen

# Name -> the function that makes a report's text. A format is one function in a file of its own, and one line here.
FORMATS = {
    "markdown": "lm_eval_iberian.scores.formats:markdown",
    "csv": "lm_eval_iberian.scores.formats:as_csv",
    "latex": "lm_eval_iberian.scores.formats:latex",
    "json": "lm_eval_iberian.scores.formats:as_json",
    "every_eval_ever": "lm_eval_iberian.scores.every_eval_ever:records",
}

RANKS = "Best bold, second underlined."
UNRANKED = "None is bold: no figure is of a whole benchmark (†), so none is told apart as best."
KEY = (
    f"Percent. {RANKS} ± is the sample SD over runs where there are several, else the standard "
    "error over documents. † not whole (see notes), not ranked; – cannot be given (see notes)."
)


# How a spreadsheet's formula begins; some take the wide forms of these characters too.
FORMULA = re.compile(r"[\"']?\s*[=+\-@|%＝＋－＠]")
FLAG_KEY = (
    "‡ look at the answers before the score: empty, looping, cut, tied, always the same, not numbers, or far below chance "
    "(see notes)."
)


def key(report: Report) -> str:
    """What the signs in the tables mean; flags and odd prompts are explained where there are any."""
    cells = [cell for table in report.tables for _, _, row in table.rows for cell in row]
    figures = [cell for table in report.tables for _, role, row in table.rows if role != CHANCE for cell in row
               if cell.value is not None]  # fmt: skip
    told = KEY.replace(RANKS, UNRANKED) if figures and all(cell.marked for cell in figures) else KEY
    said = [told, *([FLAG_KEY] if any(cell.flagged for cell in cells) else []), prompting.KEY]
    said += [prompting.ODD_KEY] if any(cell.odd for cell in cells) else []
    several = prompting.has_several(prompt for cell in cells for prompt in cell.prompts)
    return " ".join([*said, *([prompting.TEMPLATES] if several else [])])


def write(report: Report, format: str = "markdown", width: int | None = None) -> str:
    """The report as text.

    Args:
        format: of FORMATS: "markdown", "csv" (one long table, a row a figure), "latex" (booktabs), "json".
        width: of the terminal that will show Markdown, in characters; None: as wide as it comes.
    """
    if format == "markdown":
        return markdown(report, width)
    return seen(str(pkgutil.resolve_name(FORMATS[format])(report)))


def markdown(report: Report, width: int | None = None) -> str:
    """GitHub's tables, which a terminal shows as well: in parts where they are wider than it is."""
    parts = [part for table in report.tables for part in _markdown_parts(table, width)]
    parts = parts or ["No benchmark of the suite is in these files."]
    said = [key(report), *_notes(report)]
    if width is not None:
        said = ["\n".join(_wrapped(line, width) for line in part.splitlines()) for part in said]
    return seen("\n\n".join([*parts, *said]) + "\n")


def _wrapped(line: str, width: int) -> str:
    indent = "  " if line.startswith("- ") else ""
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _markdown_parts(table: Table, width: int | None) -> list[str]:
    """The table, or as many of its columns at a time as there is room for, with names cut to two fifths of it."""
    if width is not None:
        rows = [(short(name, max(16, width * 2 // 5)), role, cells) for name, role, cells in table.rows]
        table = replace(table, rows=tuple(rows)) if _are_told_apart(table, rows) else table
    count = len(table.heads)
    for several in range(count, 1, -1):
        parts = [table.part(first, first + several) for first in range(0, count, several)]
        said = [_markdown_table(part) for part in parts]
        if width is None or all(len(line) <= width for one in said for line in one.splitlines()[2:]):
            return said
    return [_markdown_table(table.part(number, number + 1)) for number in range(count)]


def _are_told_apart(table: Table, rows: Sequence[tuple[str, str, Any]]) -> bool:
    """Whether the names are still as many as they were."""
    return len({name for name, _, _ in rows}) == len({name for name, _, _ in table.rows})


def _markdown_table(table: Table) -> str:
    head = ["model", "", "prompt", *map(markdown_text, table.heads)]
    body = [[markdown_text(name), markdown_text(role), prompt, *map(_markdown_cell, cells)]
            for (name, role, cells), prompt in zip(table.rows, table.prompts, strict=True)]  # fmt: skip
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    lines = [_padded(head, widths), "|" + "|".join("-" * (w + 2) for w in widths) + "|"]
    return "\n".join([f"### {table.title}", "", *lines, *(_padded(row, widths) for row in body)])


def markdown_text(name: str) -> str:
    """A name on one line, that is neither a column's end nor HTML."""
    return one_line(name).replace("|", "\\|").replace("<", "&lt;")


def short(text: str, longest: int) -> str:
    """A label that has room: its middle is left out where it is too long."""
    if len(text) <= longest:
        return text
    tail = longest // 2
    return f"{text[: longest - tail - 1].rstrip()}…{text[-tail:].lstrip()}"


def _padded(row: list[str], widths: list[int]) -> str:
    return "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"


def _markdown_cell(cell: Cell) -> str:
    figure = {BEST: f"**{cell.shown}**", SECOND: f"<u>{cell.shown}</u>"}.get(cell.rank, cell.shown)
    return figure + cell.signs + (f" ±{cell.spread:.2f}" if cell.spread is not None else "")


def _notes(report: Report) -> list[str]:
    notes = notes_of(report)
    blocks = {**({"several rows": notes.several} if notes.several else {}), **notes.own}
    parts = ["\n".join([f"Notes on {name}:", *(f"- {line}" for line in lines)]) for name, lines in blocks.items()]
    if report.signatures:
        lines = [f"- {model}: `{signature}`" for model, signature in report.signatures.items()]
        parts.append("\n".join(["Signatures:", *lines]))
    if report.left_out:
        lines = [f"- {reason}: {some(files, 3)}" for reason, files in report.left_out.items()]
        parts.append("\n".join(["Left out:", *lines]))
    return parts


def as_csv(report: Report) -> str:
    """A row a figure: table, model, role, column, value, spread, whether it is whole, how it was prompted, and whether
    otherwise than most of its column."""
    rows = [["table", "model", "role", "column", "value", "spread", "whole", "prompt", "odd"]]
    for table in report.tables:
        several = prompting.has_several(one for _, _, cells in table.rows for cell in cells for one in cell.prompts)
        for name, role, cells in table.rows:
            for head, cell in zip(table.heads, cells, strict=True):
                figures = [_plain(cell.value), _plain(cell.spread)]
                whole = "yes" if cell.value is not None and not cell.marked else "no"
                prompt = [prompting.shown(cell.prompts, several), "yes" if cell.odd else "no"]
                rows.append([table.title, name, role, head, *figures, whole, *prompt])
    return csv_text(rows)


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """CSV: each cell one line that is safe to show, and that no spreadsheet takes for a formula."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([[_csv_cell(cell) for cell in row] for row in rows])
    return out.getvalue()


def _csv_cell(text: str) -> str:
    text = one_line(text)
    try:
        float(text)  # figures stay figures
    except ValueError:
        return f"'{text}" if FORMULA.match(text) else text
    return text


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def latex(report: Report) -> str:
    """One tabular a table, for \\usepackage{booktabs}; the notes as comments."""
    tables = "\n\n".join(_latex_table(table) for table in report.tables)
    notes = "\n".join(f"% {line}" for part in [key(report), *_notes(report)] for line in part.splitlines())
    return f"% \\usepackage{{booktabs}}\n{tables}\n\n{notes}\n"


def _latex_table(table: Table) -> str:
    heads = " & ".join(["", "prompt", *(latex_text(head) for head in table.heads)])
    rows = "\n".join(" & ".join([latex_text(name), latex_text(prompt), *map(_latex_cell, cells)]) + r" \\"
                     for (name, _, cells), prompt in zip(table.rows, table.prompts, strict=True))  # fmt: skip
    columns = "ll" + "r" * len(table.heads)
    return (
        f"% {one_line(table.title)}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{heads} \\\\\n\\midrule\n{rows}\n"
        "\\bottomrule\n\\end{tabular}"
    )


def _latex_cell(cell: Cell) -> str:
    if cell.value is None:
        return "--"
    figure = {BEST: rf"\textbf{{{cell.shown}}}", SECOND: rf"\underline{{{cell.shown}}}"}.get(cell.rank, cell.shown)
    spread = rf" {{\scriptsize$\pm${cell.spread:.2f}}}" if cell.spread is not None else ""
    signs = "".join(_LATEX_SIGNS[sign] for sign in cell.signs)
    return figure + signs + spread


_LATEX_SIGNS = {"†": r"$^\dagger$", "‡": r"$^\ddagger$", "§": r"$^\S$"}
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "*": "{*}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}", "\n": " ", "\r": " ",
}  # fmt: skip


def latex_text(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def as_json(report: Report) -> str:
    """Every figure with all that is known of it, at full precision; and the tables, as the other forms have them."""
    models = [_model(model) for model in report.models]
    document: dict[str, Any] = {
        "key": KEY,
        "models": models,
        "tables": [_table(table) for table in report.tables],
        "signatures": report.signatures,
        "notes": report.notes,
        "left_out": report.left_out,
    }
    published = {
        table.title: {name: [cell.value for cell in cells] for name, role, cells in table.rows if role == "paper"}
        for table in report.tables
        if any(role == "paper" for _, role, _ in table.rows)
    }
    if published:
        document["published"] = published
    return json_text(document, indent=2) + "\n"


def _table(table: Table) -> dict[str, Any]:
    """A table's figures, as they are before they are rounded for print."""
    rows = [{"model": name, "role": role, "prompt": prompt, "figures": [_figure(cell) for cell in cells]}
            for (name, role, cells), prompt in zip(table.rows, table.prompts, strict=True)]  # fmt: skip
    return {"title": table.title, "columns": list(table.heads), "rows": rows}


def _figure(cell: Cell) -> dict[str, Any]:
    return {"value": cell.value, "spread": cell.spread, "rank": cell.rank, "signs": cell.signs}


def _model(model: ModelScores) -> dict[str, Any]:
    return {
        "model": model.label,
        "files": [run.origin for run in model.runs],
        "averages": {column: _score(score) for column, score in model.averages.items()},
        "benchmarks": [
            {**_benchmark(benchmark), **_score(score)}
            for benchmark, score in model.benchmarks.items()
            if score.runs or model.lacks(benchmark)
        ],
    }


def _benchmark(benchmark: Benchmark) -> dict[str, Any]:
    return {
        "benchmark": benchmark.name, "language": benchmark.language, "kind": benchmark.kind,
        "metric": benchmark.metric, "averaged": benchmark.averaged,
    }  # fmt: skip


def _score(score: Score) -> dict[str, Any]:
    return {
        "value": score.value, "stderr": score.stderr, "deviation": score.deviation, "runs": score.runs,
        "chance": score.chance, "normalised": score.normalised, "whole": score.whole,
        "problems": list(score.problems), "notes": list(score.notes), "doubts": list(score.doubts),
        "prompts": [prompt.word for prompt in score.prompts],
    }  # fmt: skip
