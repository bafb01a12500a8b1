"""The published figures of "Merge and Conquer" (tables 3 and 4), as rows for `iberian report --against paper`."""

from __future__ import annotations

import csv
from pathlib import Path

from lm_eval_iberian.benchmarks.benchmark import CHOICE, INSTRUCTIONS, TRANSLATION
from lm_eval_iberian.identity.prompting import PLAIN, PRINTED, Prompt

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


def published(kind: str) -> dict[str, dict[str, tuple[float, float | None]]]:
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
