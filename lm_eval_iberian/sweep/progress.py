"""What a person sees of a running sweep: a live line on a terminal, plain lines in a log.

Scores are printed as they come; what is left is estimated from what was measured so far in this run and in the
runs before it (`Store.speed`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from lm_eval_iberian.benchmarks.table import of_task
from lm_eval_iberian.noise import wrapped
from lm_eval_iberian.sweep.job import Answered, Asked, Event, Failed, Finished, Job, Lost, Started
from lm_eval_iberian.wording import some
from merge_hooks.texts import one_line, seen

# Without a terminal, a line at most so often (seconds) while nothing is finished.
PLAIN_SECONDS = 60.0


class Progress:
    """Shows how a sweep gets on.

    Args:
        console: where to.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.bar = Bar(
            TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"), TextColumn("{task.fields[left]}"), console=self.console,
            disable=not self.console.is_terminal,
        )  # fmt: skip
        self.done = self.total = 0
        self.asked: dict[str, list[float]] = {}
        self.spent: dict[str, list[float]] = {}
        self.open: dict[str, Job] = {}
        self.last_line = 0.0

    def begin(self, jobs: Iterable[Job], open_keys: set[str]) -> None:
        """The evaluations of the plan, and which of them are left; none for a search, of which nobody knows its end."""
        jobs = list(jobs)
        self.open = {job.key: job for job in jobs if job.key in open_keys}
        self.total, self.done = len(jobs), len(jobs) - len(self.open)
        if self.done:
            self.note(f"{self.done} of {self.total} evaluations are done already")
        self.bar.start()
        self.whole = self.bar.add_task("evaluations", total=self.total or None, completed=self.done, speed="", left="")
        self.part = self.bar.add_task("", total=None, speed="", left="", visible=False)

    def end(self) -> None:
        """The live line goes."""
        self.bar.stop()

    def note(self, text: str) -> None:
        """One line; without a terminal, which wraps by itself, a paragraph where it is long."""
        said = seen(text) if self.console.is_terminal else wrapped(seen(text))
        self.console.print(said, markup=False, highlight=False, soft_wrap=True)
        self.last_line = time.monotonic()

    def finished_elsewhere(self, job: Job) -> None:
        """Another sweep did it."""
        self._count(job)

    def hear(self, job: Job, event: Event) -> None:
        """An event of a worker."""
        match event:
            case Started():
                how = {"engine": "engine started", "swap": "swapped", "kept": "same weights"}[event.what]
                self.note(f"{job.point}: {job.evaluation.name}: {how} in {event.seconds:.1f} s")
            case Asked():
                self._ask(job, event)
            case Answered():
                self._answered(job, len(event.answers))
            case Finished():
                self.spent.setdefault(job.evaluation.name, []).append(event.seconds)
                self._count(job)
                self.note(f"{job.point}: {scores_line(event.results)} ({event.seconds:.1f} s)")
                for task, words in event.flags.items():
                    self.note(f"{job.point}: {task}: CAUTION: {', '.join(words)}")
            case Lost():
                self.note(f"{job.point}: {job.evaluation.name}: its worker died ({event.reason}); it is tried again")
            case Failed():
                self._count(job)
                self.note(f"{job.point}: {job.evaluation.name}: FAILED: {event.reason}")

    def _ask(self, job: Job, event: Asked) -> None:
        self.asked[job.key] = [event.requests, event.tokens, 0, time.monotonic()]
        said = f", {event.known} are known" if event.known else ""
        if event.known:
            self.note(f"{job.point}: {event.requests} requests{said}")
        self.bar.update(
            self.part, description=escape(one_line(job.point)), total=event.requests, completed=0, visible=True
        )

    def _answered(self, job: Job, count: int) -> None:
        requests, tokens, done, start = self.asked.get(job.key, [0, 0, 0, time.monotonic()])
        done += count
        if job.key in self.asked:
            self.asked[job.key][2] = done
        speed = f"{tokens * done / max(1, requests) / max(1e-3, time.monotonic() - start):,.0f} tokens/s"
        self.bar.update(self.part, completed=done, speed=speed)
        if not self.console.is_terminal and time.monotonic() - self.last_line > PLAIN_SECONDS:
            self.note(f"{job.point}: {done} of {requests:.0f} requests, about {speed}{self._left()}")

    def _count(self, job: Job) -> None:
        self.open.pop(job.key, None)
        self.done += 1
        self.bar.update(self.whole, completed=self.done, left=self._left().removeprefix(", "))

    def _left(self) -> str:
        """ ", 12 min left", from the evaluations of the same name that are done; "" where that is not known."""
        known = [second for seconds in self.spent.values() for second in seconds]
        if not known or not self.open:
            return ""
        left = sum(_mean(self.spent.get(job.evaluation.name, known)) for job in self.open.values())
        return f", {duration(left)} left"


def scores_line(results: Mapping[str, Any]) -> str:
    """The scores of an evaluation on one line: groups where there are any, else tasks, each by its main metric."""
    shown = {task: said for task in (results.get("groups") or {}) if (said := _main_score(results, task))}
    shown = shown or {task: said for task in results["results"] if (said := _main_score(results, task))}
    return some([f"{task} {said}" for task, said in shown.items()], 4)


def _main_score(results: Mapping[str, Any], task: str) -> str:
    scores = {key.partition(",")[0]: value for key, value in results["results"].get(task, {}).items() if "," in key}
    name = next((name for name in (main_metric(results, task), *scores) if isinstance(scores.get(name), float)), None)
    return f"{name} {scores[name]:.4g}" if name else ""


def main_metric(results: Mapping[str, Any], task: str) -> str:
    """The metric that a task is read by: that of the suite's table, else the first that the task names."""
    if known := of_task(task):
        return known.metric
    named = (results.get("configs", {}).get(task) or {}).get("metric_list") or [{}]
    return str(named[0].get("metric", ""))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
