"""How processes end.

SIGTERM ends a process as Ctrl-C does: what it was doing is unwound, and its temporary folders go.

Slurm sends it before a time limit, container engines and `kill` do. Python's own way is to die at once, and to leave in
TMPDIR what would have been removed at exit.

What such a process forks dies of SIGTERM at once, as ever: lm_eval's and datasets' pools end their workers so, and wait
for them. A handler in Python would often not be called there: a signal that comes before the fork has begun to run, or
just before it waits for a lock, is forgotten, and the pool would wait for ever.

SIGKILL cannot be handled. So the processes of an engine watch whoever started them (`end_with_parent`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM
_FORKING = threading.local()
WATCH = "ends with its parent"


class Terminated(KeyboardInterrupt):
    """SIGTERM came. Whoever handles Ctrl-C handles it."""


def unwind_on_sigterm() -> None:
    """From now on SIGTERM raises `Terminated` in the main thread, unless somebody else handles it already."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _unwind)
        _say_nothing_of_it()
        _let_forks_die()


@cache
def _let_forks_die() -> None:
    """From now on our handlers are not those of forks of this process. A SIGTERM that comes earlier waits until then."""

    def hold() -> None:
        _FORKING.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def let_go() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _FORKING.blocked)

    def let_die() -> None:
        if getattr(signal.getsignal(signal.SIGTERM), "__module__", "") == __name__:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        let_go()

    os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=let_die)


def _unwind(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not break off what the first one began
    raise Terminated


class _Stop(BaseException):
    """No KeyboardInterrupt: those who swallow these let it through."""


@contextmanager
def unswallowed() -> Iterator[None]:
    """Ctrl-C and SIGTERM end what is done here, even if it swallows KeyboardInterrupt.

    vLLM 0.32 does while it waits for its processes to start (`zmq_socket_ctx`), and waits on for ten minutes.

    Raises:
        KeyboardInterrupt, Terminated: from here, where a signal came in here.
    """
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _unwind}
    is_main = threading.current_thread() is threading.main_thread()
    ours = [number for number, handler in handlers.items() if is_main and signal.getsignal(number) is handler]
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:  # a second one must not break off what the first one began
            raise _Stop

    try:
        for number in ours:
            signal.signal(number, stop)
        yield
    except _Stop:
        pass
    finally:
        for number in ours:
            signal.signal(number, handlers[number])
    if came:
        handlers[signal.Signals(came[0])](came[0], None)  # which raises


def end_with_parent() -> None:
    """From now on this process is killed when the one ends that started it with `multiprocessing`. Twice does no harm."""
    import multiprocessing
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os.kill(os.getpid(), signal.SIGKILL)

    if parent is not None and not any(thread.name == WATCH for thread in threading.enumerate()):
        threading.Thread(target=watch, daemon=True, name=WATCH).start()


def _say_nothing_of_it() -> None:
    """A process that ends by SIGTERM says so by its exit code, not by a traceback."""
    previous = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, trace: object) -> None:
        if not issubclass(kind, Terminated):
            previous(kind, error, trace)  # type: ignore[arg-type]

    sys.excepthook = excepthook
