"""Matthews' correlation, without the standard error that lm_eval bootstraps for its own.

lm_eval resamples sklearn's function 100,000 times, minutes a task; the value is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any


def matthews(items: Sequence[Any]) -> float:
    """Matthews' correlation of (gold, predicted) pairs of 0 and 1; 0 where either is constant, as sklearn has it."""
    gold, predicted = zip(*items, strict=True)
    both = sum(g and p for g, p in items)
    neither = sum(not g and not p for g, p in items)
    missed, invented = sum(gold) - both, sum(predicted) - both
    square = (both + invented) * (both + missed) * (neither + invented) * (neither + missed)
    return (both * neither - invented * missed) / sqrt(square) if square else 0.0
