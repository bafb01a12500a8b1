"""Tensors that are started before they are asked for, so that no worker thread waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from merge_hooks.kernels.operands import Merged
from merge_hooks.planning.output import OutputTensor


@dataclass(frozen=True)
class Queued:
    """A tensor that worker threads are computing.

    Args:
        size: its bytes.
        wait: waits for the tensor and returns it; None for an optional weight that no source has.
        go_on: waits until thresholds and sums that its merge needs are known, if it needs any, and starts the merge.
    """

    output: OutputTensor
    size: int
    wait: Callable[[], Merged | None]
    go_on: Callable[[], object] = lambda: None


def lookahead(tensors: Iterable[Queued], most: int) -> Iterator[Queued]:
    """The same tensors, each started before it is used: always one more, and further ones up to `most` bytes.

    A merge may need thresholds first. While workers look for those of one tensor, the next tensor is started.
    """
    waiting: deque[Queued] = deque()
    size = 0
    for queued in tensors:
        if waiting:
            waiting[-1].go_on()
        waiting.append(queued)
        size += queued.size
        while len(waiting) > 1 and size > most:
            size -= waiting[0].size
            yield waiting.popleft()
    yield from (waiting.popleft() for _ in range(len(waiting)))
