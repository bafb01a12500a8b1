"""Tensors begun before they are asked for, so that no worker waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from merge_hooks.kernels.operands import Merged
from merge_hooks.planning.plan import OutputTensor


@dataclass(frozen=True)
class Begun:
    """A tensor at which the workers are.

    Args:
        size: its bytes.
        wait: gives it; None for an optional weight that no source has.
        go_on: ends the search for what its merge must know, if there is one, and begins the merge.
    """

    output: OutputTensor
    size: int
    wait: Callable[[], Merged | None]
    go_on: Callable[[], object] = lambda: None


def ahead(tensors: Iterable[Begun], most: int) -> Iterator[Begun]:
    """The same, begun before they are used, so that no worker waits: one more, and on up to `most` bytes.

    The search of one goes on while the next begins its own.
    """
    waiting: deque[Begun] = deque()
    size = 0
    for begun in tensors:
        if waiting:
            waiting[-1].go_on()
        waiting.append(begun)
        size += begun.size
        while len(waiting) > 1 and size > most:
            size -= waiting[0].size
            yield waiting.popleft()
    yield from (waiting.popleft() for _ in range(len(waiting)))
