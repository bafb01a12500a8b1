"""Labels: macro F1, precision and recall by scikit-learn, and the label that a generated answer names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# The label of an answer that names none, or several.
UNREADABLE = -1
# A right and a predicted label.
Pair = tuple[int, int]


def macro_f1(items: Sequence[Pair]) -> float:
    """The mean of F1 over the labels that are right or predicted somewhere.

    An unreadable answer is wrong, and no label of its own.
    """
    return _macro(items, 2)


def macro_precision(items: Sequence[Pair]) -> float:
    """As `macro_f1`; 0 for a label that is never predicted."""
    return _macro(items, 0)


def macro_recall(items: Sequence[Pair]) -> float:
    """As `macro_f1`; 0 for a label that is never right."""
    return _macro(items, 1)


def _macro(items: Sequence[Pair], place: int) -> float:
    from sklearn.metrics import precision_recall_fscore_support

    right, predicted = ([int(label) for label in side] for side in zip(*items, strict=True))
    labels = sorted({*right, *predicted} - {UNREADABLE})
    found: Any = precision_recall_fscore_support(right, predicted, labels=labels, average="macro", zero_division=0.0)
    return float(found[place])


def label_in(answer: str, words: Mapping[int, str]) -> int:
    """The label that the first line of an answer names; UNREADABLE where it names none, or more than one.

    Args:
        words: label -> regular expression for its words, in small letters.
    """
    line = next((line for line in answer.lower().splitlines() if line.strip()), "")
    named = {label for label, pattern in words.items() if re.search(pattern, line)}
    return named.pop() if len(named) == 1 else UNREADABLE
