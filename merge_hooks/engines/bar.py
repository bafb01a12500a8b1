"""How far the first load of a merge is, as a bar of tqdm: the way in which engines show how they load files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
# Shorter loads show nothing (seconds).
DELAY = 10.0
# Without a terminal, where every state of a bar stays in the log (seconds).
PLAIN_SECONDS = 60.0


def with_bar(weights: Iterable[Item], total: int, is_shown: bool) -> Iterator[Item]:
    """The same items; a bar counts them, with the time that is left.

    Args:
        total: how many items there are, about.
        is_shown: False: no bar.
    """
    from tqdm import tqdm

    shown = tqdm(
        weights, total=total, desc="Merging", unit=" tensors", disable=not is_shown, delay=DELAY,
        mininterval=0.5 if sys.stderr.isatty() else PLAIN_SECONDS,
    )  # fmt: skip
    yield from shown
