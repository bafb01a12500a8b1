"""Matthews' correlation for the acceptability tasks, without lm_eval's bootstrap.

lm_eval draws 100,000 resamples for the standard error of its own `matthews_corrcoef`, which takes minutes of two
cores for each task, whatever its size. The score is the same; its standard error reads N/A.
"""

from __future__ import annotations

from collections.abc import Sequence


def matthews_correlation(items: Sequence[tuple[int, int]]) -> float:
    """Matthews' correlation of (gold, predicted) pairs, as sklearn computes it: 0 where it is undefined."""
    from sklearn.metrics import matthews_corrcoef

    gold, predicted = zip(*items, strict=True)
    return float(matthews_corrcoef(gold, predicted))
