"""Calls into an engine that has processes of its own, which may die: the system kills them when memory runs out.

vLLM says so where it can: with an `EngineDeadError`, or with "Call to ... failed: cancelled". But where the process that
holds its scheduler was killed, vLLM 0.32 says nothing, and whoever is in `LLM.collective_rpc` or `LLMEngine.step` waits
for ever. So these calls are made in a thread, and whoever waits for the answer looks at the processes, too.

    before = processes()
    llm = vllm.LLM(...)
    note_processes(llm, before)
    with asking(llm, "during a swap") as ask:
        ask(lambda: llm.collective_rpc("merge_swap"))

An engine that lives in this process, or behind a server, is asked directly.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from merge_hooks.errors import EngineLostError

Result = TypeVar("Result")
Ask = Callable[[Callable[[], Result]], Result]
# Where an engine's processes are noted, on the `LLM`.
NOTED = "merge_hooks_processes"
# How often who waits for an answer looks whether somebody is there to give it (seconds).
LOOK_SECONDS = 1.0
# A worker that dies ends the engine's other processes; how long an error is held back to see whether they do (seconds).
END_SECONDS = 10.0
# How long a call is waited for that Ctrl-C has broken off: an engine that is still in it cannot go on (seconds).
INTERRUPTED_SECONDS = 2.0


def processes() -> set[BaseProcess]:
    """The processes that this one has started with `multiprocessing`, and that live."""
    return set(multiprocessing.active_children())


def note_processes(llm: Any, before: Collection[BaseProcess]) -> None:
    """Remember which processes an engine has started: those that were not there before."""
    setattr(llm, NOTED, tuple(processes().difference(before)))


@contextmanager
def asking(llm: Any, when: str) -> Iterator[Ask[Any]]:
    """Gives a function that makes a call into an engine, and returns what the call does.

    Args:
        when: for the error, e.g. "during a swap".
    Raises:
        EngineLostError: the engine has died, before the call or in it. Whatever else a call raises, it raises.
    """
    noted: tuple[BaseProcess, ...] = getattr(llm, NOTED, ())
    if not noted:
        yield lambda call: call()
        return
    caller = _Caller(noted)
    try:
        yield caller.ask
    except EngineLostError:
        raise
    except Exception as error:
        if _is_dead(error) or (error is caller.error and _ends(noted)):
            raise EngineLostError(_in_words(noted, when)) from error
        raise
    finally:
        caller.leave()


class _Caller:
    """A thread that makes calls, one after the other. Of no use any more once one of them does not come back.

    Attributes:
        error: what a call has raised.
    """

    def __init__(self, noted: tuple[BaseProcess, ...]) -> None:
        self._noted = noted
        self.error: BaseException | None = None
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        threading.Thread(target=self._serve, daemon=True, name="asks the engine").start()

    def ask(self, call: Callable[[], Any]) -> Any:
        self._calls.put(call)
        try:
            answer, self.error = self._wait()
        except KeyboardInterrupt:
            with suppress(Empty):
                self._answers.get(timeout=INTERRUPTED_SECONDS)
            raise
        if self.error is not None:
            raise self.error
        return answer

    def leave(self) -> None:
        self._calls.put(None)

    def _wait(self) -> tuple[Any, BaseException | None]:
        while True:
            were_alive = all(one.is_alive() for one in self._noted)
            try:
                return self._answers.get(timeout=LOOK_SECONDS)
            except Empty:
                if not were_alive:  # nor did anything come that was on its way
                    raise _Silent from None

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                self._answers.put((call(), None))
            except BaseException as error:
                self._answers.put((None, error))


class _Silent(Exception):  # noqa: N818, it does not leave this file
    """The processes have ended, and the call does not."""


def _is_dead(error: Exception) -> bool:
    return isinstance(error, _Silent) or type(error).__name__ == "EngineDeadError"


def _ends(noted: tuple[BaseProcess, ...]) -> bool:
    """Whether one of an engine's processes ends within a while."""
    until = time.monotonic() + END_SECONDS
    while all(one.is_alive() for one in noted):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _in_words(noted: tuple[BaseProcess, ...], when: str) -> str:
    code = next((one.exitcode for one in noted if one.exitcode), None)
    if code == -signal.SIGKILL:
        how = "its process was killed; out of memory?"
    elif code is not None and code < 0:
        how = f"its process got signal {-code}, {signal.Signals(-code).name}"
    else:
        how = "its own lines above say why"
    return (
        f"vLLM's engine died {when} ({how}). If memory ran out, lower gpu_memory_utilization, max_model_len or "
        "max_num_seqs. Then run the same command again: a sweep, or lm_eval with --use_cache, asks only what is left."
    )
