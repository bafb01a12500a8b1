"""Deadlines for code of others: raised in time, never too late, and nothing of them is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from merge_hooks.machine import deadline
from tests.conftest import ROOT

TRACED = """
import sys
from merge_hooks.machine import deadline
deadline.LOOK_SECONDS = 0.01
try:
    with deadline.within(0.02):
        while True: pass
except deadline.OutOfTime:
    print("out of time")
sys.settrace(lambda *_: None)
def traced(): print("ended")
traced()
"""


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> deadline._Watch:
    monkeypatch.setattr(deadline, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(deadline, "_WATCH", deadline._Watch())
    return deadline._WATCH


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_a_traced_function_runs_after_a_deadline() -> None:
    """CPython 3.11 can be left in a state in which a debugger, or coverage, waits for ever."""
    done = subprocess.run([sys.executable, "-c", TRACED], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n") == ["out of time", "ended", ""], done.stderr


def test_nothing_is_raised_once_the_time_was_enough(watch: deadline._Watch) -> None:
    """Also where the end of the work and of its time are one moment; in two threads at once."""
    came: list[bool] = []

    def work() -> None:
        for number in range(150):
            is_late = False
            try:
                with deadline.within(0.002):
                    spin(0.00004 * (number % 75))
            except deadline.OutOfTime:
                is_late = True
            came.append(is_late)
            spin(0.0005)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(came) == 300 and not watch.deadlines and not watch.fired
    with pytest.raises(deadline.OutOfTime), deadline.within(0.002):
        spin(10)


def test_who_swallows_it_is_told_again(watch: deadline._Watch) -> None:
    told = 0
    with suppress(deadline.OutOfTime), deadline.within(0.002):
        while told < 3:
            try:
                spin(10)
            except Exception:
                told += 1
    assert told == 3


def test_a_fork_has_a_watch_of_its_own() -> None:
    with deadline._WATCH.lock:  # as if another thread looked just now
        child = os.fork()
        if child == 0:
            code = 1
            with suppress(BaseException):
                deadline.LOOK_SECONDS = 0.001
                try:
                    with deadline.within(0.002):
                        spin(10)
                except deadline.OutOfTime:
                    code = 0
            os._exit(code)
    end = time.monotonic() + 30
    while (found := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
        time.sleep(0.01)
    if found == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert found[0] == child and os.waitstatus_to_exitcode(found[1]) == 0
