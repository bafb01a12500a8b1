"""BertaQA's two halves."""

from __future__ import annotations

from typing import Any


def only_global(dataset: Any) -> Any:
    """The questions on the world at large ("Gai orokorrak")."""
    return dataset.filter(lambda row: row["group"] == "Gai orokorrak")


def only_local(dataset: Any) -> Any:
    """The questions on the Basque Country ("Euskal gaiak")."""
    return dataset.filter(lambda row: row["group"] == "Euskal gaiak")
