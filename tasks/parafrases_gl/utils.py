"""Paráfrases: rows with an empty sentence are left out, and both sentences joined into one, as lm_eval does."""

from __future__ import annotations

from typing import Any

from lm_eval.utils import general_detokenize

COLUMNS = ("Frase", "Paráfrase")


def process_docs(dataset: Any) -> Any:
    """The first sentence without its last mark, the second beginning in lower case, no spaces before marks."""
    return dataset.filter(lambda row: all((row[column] or "").strip() for column in COLUMNS)).map(_join)


def _join(row: dict[str, Any]) -> dict[str, Any]:
    first, second = (general_detokenize(row[column]).strip() for column in COLUMNS)
    first = first.removesuffix(first[-1]) if first.endswith((".", ",", ";")) else first
    return {**row, "Frase": first, "Paráfrase": second[0].lower() + second[1:]}
