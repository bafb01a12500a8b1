"""Code of others that may loop for ever gets so much time and no more, in whatever thread it runs.

    with within(60.0):
        tokenizer.apply_chat_template(...)     # OutOfTime, if it takes longer

One thread watches over all; to enter and leave costs microseconds. It stops loops that are written in Python, as those
of a Jinja template are. A single operation of C (a power of large numbers) is not stopped: see
`merge_hooks.stream.template`.
"""

from __future__ import annotations

import ctypes
import os
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
            if self.thread is None or not self.thread.is_alive():
                self.thread = threading.Thread(target=self._look, daemon=True)
                self.thread.start()
        self.begun.set()

    def leave(self) -> None:
        """Nothing is raised in this thread any more when this is done.

        What may be under way is awaited. To take it back (an exception of NULL) would leave CPython 3.11's sign that
        there is one, and then a traced function, of a debugger or of coverage, never begins.
        """
        own = threading.get_ident()
        while True:
            try:
                with self.lock:
                    self.deadlines.pop(own, None)
                if own not in self.fired:
                    return
                _raise_in(own)  # in place of one that has not come yet
                while True:
                    time.sleep(0)
            except OutOfTime:
                self.fired.discard(own)

    def _look(self) -> None:
        while True:
            self.begun.wait()
            time.sleep(LOOK_SECONDS)
            with self.lock:
                late = [thread for thread, end in self.deadlines.items() if end < time.monotonic()]
                for thread in late:
                    self.fired.add(thread)
                    _raise_in(thread)
                if not self.deadlines:
                    self.begun.clear()


def _raise_in(thread: int) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(OutOfTime))


_WATCH = _Watch()
# The watching thread is not in a fork, and may have held the lock.
os.register_at_fork(after_in_child=_WATCH.__init__)  # type: ignore[misc]


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in this thread if what is done here takes longer. Not to be nested."""
    _WATCH.enter(seconds)
    try:
        yield
    finally:
        _WATCH.leave()
