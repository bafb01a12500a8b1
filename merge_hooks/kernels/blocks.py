"""Blocks: a tensor is merged piece by piece, each piece small enough that its steps stay in a core's cache.

A whole-tensor chain of torch operations reads and writes main memory at every step; the same chain on blocks
of half a million elements reads each source once and writes the result once. Elementwise operations give the
same bytes either way, whatever the blocks and the number of threads.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from merge_hooks.machine.processors import worker_threads

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")
# Measured (tests/benchmarks/README.md): smaller blocks fit the L2 cache, but pay more for calls and for
# handing Python's lock from thread to thread.
BLOCK = 1 << 19


class Workspace:
    """One thread's scratch buffers, made once and used for every block."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, Any, int], torch.Tensor] = {}

    def buffer(self, name: str, dtype: torch.dtype, count: int) -> torch.Tensor:
        """`count` elements that hold anything; the same memory at each call with the same name and dtype."""
        import torch

        key = (name, dtype, max(count, BLOCK))
        if key not in self._buffers:
            self._buffers[key] = torch.empty(key[2], dtype=dtype)
        return self._buffers[key][:count]

    def cast(self, block: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
        """The block in this dtype: itself, or a rounded copy in the buffer of that name."""
        if block.dtype == dtype:
            return block
        return self.buffer(name, dtype, len(block)).copy_(block)


class Workers:
    """Threads that work on blocks. Use as a context manager: the threads end with it.

    Args:
        threads: how many; None: see `merge_hooks.machine.processors`.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or worker_threads()
        self._pool: ThreadPoolExecutor | None = None
        self._local = threading.local()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def map(self, count: int, work: Callable[[slice, Workspace], Result], block: int = BLOCK) -> list[Result]:
        """Run `work` on every block of `count` elements; the results in the order of the blocks."""
        return self.start(count, work, block)()

    def start(
        self, count: int, work: Callable[[slice, Workspace], Result], block: int = BLOCK
    ) -> Callable[[], list[Result]]:
        """As `map`, but returns what waits for the results: the threads go on with it meanwhile."""
        spans = [slice(start, min(start + block, count)) for start in range(0, count, block)]
        if len(spans) == 1 or self.threads == 1:
            done = [work(span, self._workspace()) for span in spans]
            return lambda: done
        results: list[Any] = [None] * len(spans)
        places = itertools.count()  # next() is atomic: each block goes to the first thread that is free

        def pull() -> None:
            workspace = self._workspace()
            while (place := next(places)) < len(spans):
                results[place] = work(spans[place], workspace)

        pool = self._started_pool()
        pulling = [pool.submit(pull) for _ in range(self.threads)]

        def finish() -> list[Result]:
            for future in pulling:
                future.result()
            return results

        return finish

    def _workspace(self) -> Workspace:
        if not hasattr(self._local, "workspace"):
            self._local.workspace = Workspace()
        return self._local.workspace

    def _started_pool(self) -> ThreadPoolExecutor:
        """The pool, its threads told to run each torch operation alone: the blocks are the parallelism."""
        import torch

        if self._pool is None:
            threads = torch.get_num_threads()
            ready = threading.Barrier(self.threads)

            def begin() -> None:
                torch.set_num_threads(1)
                ready.wait()

            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="merge")
            for future in [self._pool.submit(begin) for _ in range(self.threads)]:
                future.result()
            torch.set_num_threads(threads)  # threads that others start later must not inherit our 1
        return self._pool


def is_finite(block: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite. One fast pass; a second, exact one only if the first says no."""
    import torch

    if not block.is_floating_point():
        return True
    # In float32, for float16's own sum overflows at 65504.
    total = block.sum(dtype=torch.float32) if block.dtype == torch.float16 else block.sum()
    return math.isfinite(total.item()) or bool(torch.isfinite(block).all())
