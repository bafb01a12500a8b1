"""A search without an engine: real plans over tiny models, real Optuna, real store; the scores are a function.

    python -m tests.lm_eval_iberian.sweep.tuning SPACE.yml RUN [SECONDS]     # each evaluation takes so long

The score of a recipe is highest where the language model's weight is OPTIMUM and the method linear.
"""

from __future__ import annotations

import copy
import io
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from rich.console import Console

from lm_eval_iberian.models.merge import Prepared
from lm_eval_iberian.runs.store import Answer, Document
from lm_eval_iberian.sweep import plan
from lm_eval_iberian.sweep.job import Answered, Event, Failed, Finished, Job, NextJob
from lm_eval_iberian.sweep.plan import Plan
from lm_eval_iberian.sweep.progress import Progress
from lm_eval_iberian.tune.space import read_space
from lm_eval_iberian.tune.tune import Tuner
from merge_hooks.recipe.recipe import Recipe
from merge_hooks.resolve.resolver import resolve
from tests.lm_eval_iberian.results_maker import results

OPTIMUM = 1.3
TASK, OTHER = "iberian_eus_trivia", "iberian_xstorycloze_eu"
DOCUMENTS = {TASK: 12, OTHER: 8}  # of the embedded samples


def score(recipe: dict[str, Any]) -> dict[str, float]:
    """Accuracies: one falls with the distance from OPTIMUM, the other with the weight."""
    weight = recipe["models"][1]["parameters"]["weight"]
    other_method = recipe["merge_method"] != "linear"
    return {TASK: 0.9 - 0.2 * abs(weight - OPTIMUM) - 0.1 * other_method, OTHER: 0.9 - 0.3 * weight}


class Invented:
    """A pool that answers at once. Keeps the jobs that it was given, and how many answers were known."""

    def __init__(self, seconds: float = 0.0, fails: Callable[[Job], bool] = lambda job: False) -> None:
        self.seconds, self.fails = seconds, fails
        self.jobs: list[Job] = []
        self.asked: list[str] = []

    def run(self, next_job: NextJob, handle: Callable[[Event], None]) -> None:
        while isinstance(job := next_job(None), Job):
            time.sleep(self.seconds)
            self.jobs.append(job)
            handle(Failed(job.key, "out of memory", "") if self.fails(job) else self.finished(job, handle))

    def finished(self, job: Job, handle: Callable[[Event], None]) -> Finished:
        recipe = yaml.safe_load(job.recipe[0])
        merges = len(recipe["models"]) > 1
        scores = {
            task: value if merges else 0.1
            for task, value in (score(recipe) if merges else dict.fromkeys(DOCUMENTS, 0.1)).items()
        }
        limit = job.evaluation.settings.get("limit")
        documents = [
            Document(task, number, json.dumps({"acc": scores[task]}), "0", f"h{number}", "{}", "0")
            for task in job.evaluation.tasks
            for number in range(min(DOCUMENTS[task], limit or 99))
        ]
        for one in documents:
            key = f"{job.signature} {one.task} {one.document}"
            if key not in job.known:
                self.asked.append(key)
                handle(Answered(job.key, [Answer(key, job.signature, one.task, "1", "loglikelihood", "0")]))
        data = results({task: {"acc": scores[task], "acc_stderr": 0.01} for task in job.evaluation.tasks})
        for task, counts in data["n-samples"].items():
            counts |= {"original": DOCUMENTS[task], "effective": min(DOCUMENTS[task], limit or 99)}
        return Finished(job.key, job.signature, data, {}, documents, 0.1)


def search(space: Path, folder: Path, pool: Invented | None = None, **given: Any) -> Tuner:
    """Search with invented scores. Returns the tuner; its study is Optuna's."""
    tuner = Tuner(read_space(space, given), folder, Progress(Console(file=io.StringIO())), like=_loaded.get("plan"))
    with patch.object(plan, "prepare", _prepare_by_method):
        tuner.run(lambda plan, jobs: pool or Invented())
    assert tuner.like is not None
    _loaded["plan"] = tuner.like
    return tuner


# lm_eval's index of thousands of YAML files takes seconds: made once a process.
_loaded: dict[str, Plan] = {}


# What is slow to open, once a method: a search's points differ in their weights.
_opened: dict[str, Prepared] = {}
_prepare = plan.prepare


def _prepare_by_method(recipe: Recipe, *arguments: Any) -> Prepared:
    """`prepare`, which opens and compares the sources only of a recipe that differs from all before by more than weights."""
    key = re.sub(r"weight: [\d.]+", "", recipe.text)
    if key not in _opened:
        _opened[key] = _prepare(recipe, *arguments)
    known = _opened[key]
    stream = copy.copy(known.stream)
    stream.resolved = replace(known.resolved, recipe=recipe, config=resolve(recipe).config)
    return replace(known, stream=stream)


if __name__ == "__main__":
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    search(Path(sys.argv[1]), Path(sys.argv[2]), Invented(seconds))
