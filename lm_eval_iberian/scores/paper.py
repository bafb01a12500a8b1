"""Published figures as rows for `iberian report --against`: `paper`, or a CSV file of one's own.

`paper` is "Merge and Conquer" (tables 3 and 4). A file has the column `model` and any columns of averages, percent:

    model,reasoning_en,reasoning_de,labels_ja
    TIES 1.0,61.2,58.9,
"""

from __future__ import annotations

import csv
from pathlib import Path

from lm_eval_iberian.benchmarks.benchmark import CHOICE, INSTRUCTIONS, TRANSLATION
from lm_eval_iberian.benchmarks.table import averages, columns
from lm_eval_iberian.identity.prompting import PLAIN, PRINTED, Prompt
from lm_eval_iberian.scores.results import SuiteError

FOLDER = Path(__file__).parent / "paper_figures"
CITATION = "Merge and Conquer (LREC 2026, arXiv 2603.28263)"
CAUTION = (
    "rows marked [paper] are the printed figures of "
    f"{CITATION}: other shots and engines may lie behind them. Instruct models and merges were prompted "
    "with their chat template, each shot a turn (`--apply_chat_template --fewshot_as_multiturn`). Its text names Belebele and XStoryCloze "
    "for English; the authors' scripts list BertaQA and OpenBookQA too, so its English column may hold more than ours."
)


# How the printed models end that are instruct models or merges: all but those of table 2.
INSTRUCT = ("-Instruct", "-joint-", "-merge-")


def prompted(model: str) -> Prompt:
    """How the authors prompted a printed model: instruct models and merges with their chat template and
    `--fewshot_as_multiturn`, on every kind of task (their scripts); base models without."""
    return PRINTED if any(word in model for word in INSTRUCT) else PLAIN


Printed = dict[str, dict[str, tuple[float, float | None]]]


def of_file(path: Path, average: str) -> Printed:
    """The rows of a file that have a figure in an average, as `published` gives the paper's.

    Raises:
        SuiteError: it is not there, has no column `model`, a column that is no average or comes twice, a figure that is no
            percentage, or a model without a name or on two lines.
    """
    found: Printed = {}
    for row in _read(path):
        figures = {key: row[key] for key in columns(average) if row.get(key)}
        if figures:
            found[row["model"]] = {key: (_number(path, row["model"], key, text), None) for key, text in figures.items()}
    return found


def are_shares(path: Path) -> bool:
    """Whether all figures of a file are 1 or less, as shares are; tables are in percent. Raises SuiteError."""
    figures = [_number(path, row["model"], key, text) for row in _read(path) for key, text in row.items()
               if key != "model" and text]  # fmt: skip
    return bool(figures) and any(figures) and max(figures) <= 1


def _read(path: Path) -> list[dict[str, str]]:
    """The rows of a file, spaces stripped."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [[text.strip() for text in line] for line in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SuiteError(f"--against {path}: cannot be read as CSV ({error}).") from None
    named, *lines = [line for line in lines if any(line)] or [[]]
    heads = set(named)
    if "model" not in heads:
        raise SuiteError(f"--against {path}: the first line should name the columns: model,reasoning_en,...")
    rows = [dict(zip(named, line, strict=False)) for line in lines]
    for line in lines:
        if len(line) > len(named):
            raise SuiteError(
                f"--against {path}: {line[0]}: {len(line)} cells under {len(named)} columns. A number with a comma in it? "
                "Write 61.25."
            )
    if twice := [name for name in named if name and named.count(name) > 1]:
        raise SuiteError(f"--against {path}: the column {twice[0]} comes twice. Leave one of the two in the file.")
    known = {column for average in averages() for column in columns(average)}
    if other := sorted(heads - known - {"model"}):
        raise SuiteError(
            f"--against {path}: {', '.join(other)}: no such average. There are: {', '.join(sorted(known))}."
        )
    models = [row.get("model", "") for row in rows]
    if "" in models:
        raise SuiteError(f"--against {path}: a line has no model. Name it in the column model.")
    if again := next((name for name in models if models.count(name) > 1), None):
        raise SuiteError(f"--against {path}: {again} stands on two lines. Give each row a name of its own.")
    return rows


def _number(path: Path, model: str, column: str, text: str) -> float:
    where = f"--against {path}: {model}, {column}: {text!r} is no"
    try:
        found = float(text)
    except ValueError:
        raise SuiteError(f"{where} number. Write figures in percent, with a point: 61.25.") from None
    if not -100 <= found <= 100:
        raise SuiteError(f"{where} percentage. Write figures from 0 to 100, or leave the cell empty.")
    return found


def published(kind: str) -> Printed:
    """The rows of a kind: model -> column ("bench_eu") -> (figure, SD or None), in the order of the table."""
    name = "table4_ifeval_strict.csv" if kind == INSTRUCTIONS else "table3_main.csv"
    if kind not in (CHOICE, TRANSLATION, INSTRUCTIONS):
        return {}
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return {row["model"]: _columns(row, kind) for row in csv.DictReader(file)}


def _columns(row: dict[str, str], kind: str) -> dict[str, tuple[float, float | None]]:
    if kind != INSTRUCTIONS:
        return {key: (float(value), None) for key, value in row.items() if key.startswith(f"{kind}_")}
    languages = [key for key in row if key != "model" and not key.endswith("_sd")]
    return {f"{kind}_{language}": (float(row[language]), float(row[f"{language}_sd"])) for language in languages}
