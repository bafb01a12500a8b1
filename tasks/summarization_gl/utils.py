"""Texts and summaries without doubled blanks."""

from __future__ import annotations

import re
from typing import Any


def process_docs(dataset: Any) -> Any:
    """Rows whose text and summary have single blanks."""
    return dataset.map(lambda row: {key: re.sub(" +", " ", row[key]) for key in ("text", "summary")})
