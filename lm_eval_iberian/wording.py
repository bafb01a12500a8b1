"""Lists in messages."""

from __future__ import annotations

from collections.abc import Sequence


def some(names: Sequence[str], shown: int, separator: str = ", ") -> str:
    """The first names, and how many more there are."""
    return separator.join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
