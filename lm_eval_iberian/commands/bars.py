"""How far a command is: bars on a terminal; elsewhere lines, one a minute, with the time that is left.

with bars() as show:
    show("comparing", 12, 291)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lm_eval_iberian.commands.terminal import make_console, note

# show(name, done, total, what else is to be said)
Show = Callable[..., None]


@contextmanager
def bars(width: int = 0) -> Iterator[Show]:
    """Shows pieces of work by their names, each with how much of it is done.

    Args:
        width: of the names in characters, so that bars stand below each other.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = make_console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn(), TextColumn("{task.fields[said]}", markup=False))  # fmt: skip
    lines, shown = Lines(), {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as drawn:

        def show(name: str, done: int, total: int, said: str = "") -> None:
            if name not in shown:
                shown[name] = drawn.add_task(name.ljust(width), total=total, said=said)
            drawn.update(shown[name], completed=done, total=total, said=said)
            if not console.is_terminal and (line := lines.line(name, done, total)):
                note(f"{line}, {said}" if said else line)

        yield show


class Lines:
    """Progress where there is no terminal: a line when something begins and ends, and one a minute between."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.begun: dict[str, tuple[float, int]] = {}
        self.last = 0.0

    def line(self, name: str, done: int, total: int) -> str:
        """What is to be said of it now; "" for nothing."""
        from lm_eval_iberian.sweep.progress import PLAIN_SECONDS, duration

        now = self.now()
        is_new = name not in self.begun
        start, before = self.begun.setdefault(name, (now, done))
        if not is_new and done < total and now - self.last < PLAIN_SECONDS:
            return ""
        self.last = now
        left = (now - start) / (done - before) * (total - done) if done > before else 0.0
        return f"{name}: {done} of {total}" + (f", {duration(left)} left" if left else "")
