"""Some documents of a large split, drawn so that everybody draws the same.

A document is drawn by its own words: those with the smallest SHA-256 of seed and words. Another order of rows, or a row
more, leaves the others as they are; `random.sample` over row numbers would draw all anew. Doubles are drawn once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

# What the tasks draw where their YAML says nothing else: documents to score, and others for shots.
COUNT, SEED, OTHERS = 500, 0, 50


def draw(
    words: Sequence[str], count: int = COUNT, seed: int = SEED, others: int = OTHERS
) -> tuple[list[int], list[int]]:
    """The places of the documents to score, and of others for shots; both in the order in which they were drawn.

    Of few documents (samples) a quarter at most are kept for shots.

    Args:
        words: what each document says.
        count: how many to score; all but those for shots where there are not so many.
        others: how many for shots.
    """
    first = {text: place for place, text in reversed(list(enumerate(words)))}
    order = sorted(first.values(), key=lambda place: hashlib.sha256(f"{seed}\n{words[place]}".encode()).digest())
    kept = min(others, len(order) // 4)
    scored = min(count, len(order) - kept)
    return order[:scored], order[scored : scored + kept]
