"""Code of others that may loop for ever gets so much time and no more, in whatever thread it runs.

    with within(60.0):
        tokenizer.apply_chat_template(...)     # OutOfTime, if it takes longer

One thread watches over all; to enter and leave costs microseconds. It stops loops that are written in Python, as those
of a Jinja template are. A single operation of C (a power of large numbers) is not stopped: see
`merge_hooks.stream.template`.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOOK_SECONDS = 0.5


class OutOfTime(Exception):  # noqa: N818, says what it is
    """Raised in the thread whose time is over."""


class _Watch:
    """The deadlines of all threads that have one."""

    def __init__(self) -> None:
        self.lock, self.deadlines, self.fired = threading.Lock(), dict[int, float](), set[int]()
        self.thread: threading.Thread | None = None
        self.begun = threading.Event()

    def enter(self, seconds: float) -> None:
        with self.lock:
            self.deadlines[threading.get_ident()] = time.monotonic() + seconds
            if self.thread is None or not self.thread.is_alive():  # a fork has no threads but its own
                self.thread = threading.Thread(target=self._look, daemon=True)
                self.thread.start()
        self.begun.set()

    def leave(self) -> None:
        own = threading.get_ident()
        with self.lock:
            self.deadlines.pop(own, None)
            if own in self.fired:  # it may not have been raised yet: then it is not any more
                self.fired.discard(own)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(own), None)

    def _look(self) -> None:
        while True:
            self.begun.wait()
            time.sleep(LOOK_SECONDS)
            with self.lock:
                late = [thread for thread, end in self.deadlines.items() if end < time.monotonic()]
                for thread in late:
                    self.fired.add(thread)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(OutOfTime))
                if not self.deadlines:
                    self.begun.clear()


_WATCH = _Watch()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in this thread if what is done here takes longer. Not to be nested."""
    _WATCH.enter(seconds)
    try:
        yield
    finally:
        _WATCH.leave()
