"""A point of a sweep and its evaluations, as reports read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lm_eval_iberian.benchmarks.table import of_task
from lm_eval_iberian.runs.store import Store
from lm_eval_iberian.scores.results import Run, check_run
from lm_eval_iberian.scores.suite import ModelScores


@dataclass(frozen=True)
class Measured:
    """One evaluation of a point.

    Args:
        key: in the store.
        name: e.g. "iberian_ifeval, seed 1".
        tasks: as they were asked for; groups are not spelt out.
        seed: of sampled generation.
        store: the one that has it; None while it is not finished.
        failure: why it is not there.
        is_earlier: whether a sweep.yml of before asked for it, and today's does not.
    """

    key: str
    name: str
    tasks: tuple[str, ...]
    seed: int | None
    store: Store | None
    failure: str | None
    is_earlier: bool = False


@dataclass(frozen=True)
class SweepPoint:
    """A point of the plan, with what was measured of it.

    Args:
        role: "merge", "parent" or "baseline".
        labels: axis -> label; empty for parents, baselines and fixed recipes.
        parents: names of the points that are its sources.
        signature: the digest of its signature; "" where it could not be planned.
        recipe: its YAML.
        problem: why it could not even be planned, or "".
        folder: where the recipe's relative paths are looked up, after the current folder.
        merge_seed, rng: of random methods.
        include_path: a folder of further tasks, as lm_eval's --include_path.
        is_earlier: whether it is of a sweep.yml of before, and not in today's.
    """

    name: str
    role: str
    labels: Mapping[str, str]
    parents: tuple[str, ...]
    signature: str
    recipe: str
    problem: str
    evaluations: tuple[Measured, ...] = field(default=())
    folder: str | None = None
    merge_seed: int = 0
    rng: str = "iberian"
    include_path: str | None = None
    is_earlier: bool = False

    @property
    def finished(self) -> list[Measured]:
        """The evaluations that are done."""
        return [one for one in self.evaluations if one.store is not None]

    @property
    def failures(self) -> list[str]:
        """Every reason for which something of it is missing."""
        found = [self.problem] if self.problem else []
        return found + [f"{one.name}: {one.failure}" for one in self.evaluations if one.failure and one.store is None]

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """lm_eval's results, one an evaluation, in the plan's order."""
        return [found for one in self.finished if one.store and (found := one.store.results(one.key)) is not None]

    @cached_property
    def flags(self) -> dict[str, list[str]]:
        """task -> what is wrong with its answers (empty, looping, cut, tied, NaN), in words."""
        said: dict[str, list[str]] = {}
        flagged = [one.store.flags(one.key) for one in self.finished if one.store]
        counted = [{task: run.leaf(task, "").doubts for task in run.tasks} for run in self.runs]
        for task, words in (item for found in (*flagged, *counted) for item in found.items() if item[1]):
            said.setdefault(task, []).extend(word for word in words if word not in said.get(task, []))
        return said

    @property
    def tasks(self) -> list[str]:
        """Every leaf task that was measured."""
        return list(dict.fromkeys(task for result in self.results for task in result["configs"]))

    def documents(self, task: str) -> dict[int, list[dict[str, Any]]]:
        """document -> its metrics as the task gave them (numbers, or what the metric aggregates), one a run."""
        found: dict[int, list[dict[str, Any]]] = {}
        for _, document, metrics, _ in self._rows(task):
            found.setdefault(document, []).append(metrics)
        return found

    def answers(self, task: str) -> dict[int, list[str]]:
        """document -> the model's answers, one a run: generated text, or the choice's index for multiple choice."""
        found: dict[int, list[str]] = {}
        for _, document, _, answer in self._rows(task):
            found.setdefault(document, []).append(answer)
        return found

    def hashes(self, task: str) -> dict[int, str]:
        """document -> the hash of what it said; left out where the runs read different ones."""
        found: dict[int, set[str]] = {}
        for one in self.finished:
            for document, said in (one.store.hashes(one.key, task) if one.store else {}).items():
                found.setdefault(document, set()).add(said)
        return {document: said.pop() for document, said in found.items() if len(said) == 1}

    def text(self, task: str, document: int) -> tuple[dict[str, Any], str] | None:
        """What a document said to this point, and its target."""
        texts = (one.store.text(one.key, task, document) for one in self.finished if one.store)
        return next((found for found in texts if found is not None), None)

    def prompt(self, task: str, document: int) -> str:
        """What this point was asked for a document, with shots and chat template; "" where nobody kept it."""
        prompts = (one.store.prompt(one.key, task, document) for one in self.finished if one.store)
        return next((found for found in prompts if found), "")

    def scores(self, task: str) -> dict[str, list[float]]:
        """metric -> its values, one a run, as lm_eval gave them; without standard errors."""
        found: dict[str, list[float]] = {}
        for result in self.results:
            for key, value in (result["results"].get(task) or {}).items():
                name = key.partition(",")[0]
                if isinstance(value, (int, float)) and "," in key and not name.endswith("_stderr"):
                    found.setdefault(name, []).append(float(value))
        return found

    @cached_property
    def model_scores(self) -> ModelScores:
        """The benchmarks and averages of the suite; see `lm_eval_iberian.scores.suite`."""
        return ModelScores(self.runs, self.name, self.asked)

    @cached_property
    def asked(self) -> frozenset[str] | None:
        """The leaf tasks that it was to be measured on; None while a name that may be a group is not measured."""
        waiting = [task for one in self.evaluations if one.store is None for task in one.tasks]
        if any(of_task(task) is None for task in waiting):
            return None
        return frozenset([*self.tasks, *waiting])

    @cached_property
    def runs(self) -> list[Run]:
        """The results as `lm_eval_iberian.scores.results` reads files."""
        return [check_run(result, f"{self.name} ({number})") for number, result in enumerate(self.results, 1)]

    def _rows(self, task: str) -> Iterator[tuple[str, int, dict[str, Any], str]]:
        for one in self.finished:
            if one.store is not None:
                yield from one.store.documents(one.key, task)
