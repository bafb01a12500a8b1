"""caBreu: articles and their three summaries, without doubled blanks."""

from __future__ import annotations

import re
from typing import Any

from lm_eval_iberian.errors import DocumentsError

SORTS = ("abstractive", "extractive", "extreme")
FIRST = "a1"  # of three annotators, whose summaries are read


def process_docs(dataset: Any) -> Any:
    """Rows whose texts have single blanks."""
    return dataset.map(with_single_blanks)


def with_single_blanks(row: dict[str, Any]) -> dict[str, Any]:
    """A row with single blanks in its texts. Raises DocumentsError where a summary is not where it should be."""
    summaries = row.get("summaries")
    if not isinstance(summaries, dict) or any(FIRST not in (summaries.get(sort) or {}) for sort in SORTS):
        raise DocumentsError(
            f"caBreu: `summaries` should hold {', '.join(SORTS)}, each with {FIRST}; it is {summaries!r}."
        )
    single = {sort: {**summaries[sort], FIRST: _single(summaries[sort][FIRST])} for sort in SORTS}
    return {"content": _single(row["content"]), "summaries": {**summaries, **single}}


def _single(text: str) -> str:
    return re.sub(" +", " ", text)
