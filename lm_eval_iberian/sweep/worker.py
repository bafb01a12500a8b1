"""One engine and what is done with it: start or swap, evaluate, hand on every answer and the results.

A worker knows lm_eval and the model `merged`; it knows neither the store nor the other points. It lives in the
driver's process, in one of its own, or on another machine (`pools`).
"""

from __future__ import annotations

import gc
import inspect
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lm_eval_iberian.identity.identity import KEY, told
from lm_eval_iberian.models.backends import backend_of
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.runs.store import Document
from lm_eval_iberian.sweep import flags
from lm_eval_iberian.sweep.job import Answered, Asked, Event, Failed, Finished, Job, Lost, Started
from lm_eval_iberian.sweep.kept_tasks import (
    FEWSHOT_SEED,
    KeptTasks,
    LoadedOnce,
    generation_of,
    results_head,
    version_of,
)
from lm_eval_iberian.sweep.results_keys import as_the_command_line, config_keys, samples_files
from lm_eval_iberian.sweep.stored_lm import StoredLM
from lm_eval_iberian.sweep.trouble import details, ends_everything, explain
from merge_hooks.errors import EngineLostError, MergeHooksError


class Worker:
    """Runs jobs, one after the other, in one engine.

    Args:
        emit: called with every event.
        tasks: the sweep's tasks, if they are loaded in this process already.
    """

    def __init__(self, emit: Callable[[Event], None], tasks: KeptTasks | None = None) -> None:
        self.emit, self.tasks = emit, tasks
        self.model: Any = None
        self.is_broken = False  # the engine is not to be trusted any more
        self.engine = self.signature = self.weights = ""

    def run(self, job: Job) -> None:
        """Do a job. Whatever goes wrong with the point becomes a `Failed`, an engine that died a `Lost`; only Ctrl-C and
        its like pass through.
        """
        try:
            self._run(job)
        except BaseException as error:
            if ends_everything(error):
                raise
            self.signature = ""  # a swap that broke off: the next job brings its weights again
            self.is_broken = _is_fatal(error)
            if isinstance(error, EngineLostError):  # no fault of the point's
                self.emit(Lost(job.key, explain(error)))
                return
            self.emit(Failed(job.key, explain(error), details(error), self.is_broken))

    def _run(self, job: Job) -> None:
        if self.tasks is None:
            self.tasks = KeptTasks(job.include_path, dict(job.model_args))
        start = time.perf_counter()
        what = self._bring(job)
        loaded = self.tasks.of(job.evaluation)
        self.emit(Started(job.key, what, time.perf_counter() - start, self.weights))
        start = time.perf_counter()
        results = self._evaluate(job, loaded)
        samples = results.pop("samples")
        _say(results, job)
        results |= self._as_the_command_line(job, samples, start)
        results["config"] |= config_keys(self.model, job.model_args)
        results["sweep"]["weights"] = self.weights
        counts = self.model.answers.counts()
        found = {
            task: said
            for task, rows in samples.items()
            if (said := flags.of_samples(rows) + flags.of_counts(counts.get(task, {})))
        }
        documents = list(_documents(samples))
        logged = samples_files(samples) if job.log_samples else {}
        seconds = time.perf_counter() - start
        self.emit(Finished(job.key, job.signature, _portable(results), found, documents, seconds, logged))

    def _bring(self, job: Job) -> str:
        """The job's weights into the engine; the engine itself where there is none. Says what was done."""
        if self.model is not None and self.engine != job.engine:
            raise SweepError("a worker was given a job of another engine")
        if self.model is not None and self.signature == job.signature:
            return "kept"
        what = "engine" if self.model is None else "swap"
        self.signature = ""
        if self.model is None:
            self.model, self.engine = _start(job), job.engine
        # A start that tells no digest is followed by a swap: one digest, whatever came before a point.
        started = self.model.swap_digest if what == "engine" else None
        self.weights = started or self.model.swap(_resolved(job))
        what = "engine" if self.model.was_started_anew else what
        if job.weights is not None and self.weights != job.weights:
            raise SweepError(
                f"{job.point}: the weights in the engine ({self.weights}) are not those that this recipe gave before "
                f"({job.weights}). Is a disk or memory failing? Nothing was measured."
            )
        found = self.model.signature.digest
        if found != job.signature:
            raise SweepError(
                f"{job.point}: the engine holds {found}, the plan says {job.signature}: a source, a package or a server changed "
                "since the sweep was planned. Start it again."
            )
        self.signature = job.signature
        return what

    def _evaluate(self, job: Job, loaded: LoadedOnce) -> dict[str, Any]:
        """`lm_eval.simple_evaluate` without what takes seconds and says nothing of the score (pip lists, git)."""
        from lm_eval import evaluate

        evaluation, (apply, multiturn) = job.evaluation, job.chat
        backend, facts = backend_of(job.model_args), self.model.prepared.tokenizer.facts
        system = evaluation.settings.get("system_instruction")
        loaded.template = f"{facts.hash} {facts.template}" if apply else ""
        loaded.settle(generation_of(evaluation, backend))
        self.model.check_limits(loaded.generation_settings)
        _refuse_changed(job, loaded)
        _seed(evaluation.seed or 0)
        # Unwrapped: what `lm_eval_iberian.plugin` would add is known here, and read but once.
        results = inspect.unwrap(evaluate)(
            lm=self._stored(job, loaded),
            task_dict=loaded.everything,
            limit=evaluation.settings.get("limit"),
            system_instruction=system,
            log_samples=True,
            apply_chat_template=apply,
            fewshot_as_multiturn=multiturn,
        )
        assert results is not None  # rank 0
        head = results_head(evaluation, backend, job.model_args, self.model.get_model_info())
        return {**results, **head, KEY: told(facts.template if apply else None, multiturn, system, loaded.read)}

    def _as_the_command_line(self, job: Job, samples: dict[str, Any], start: float) -> dict[str, Any]:
        """What lm_eval's command line would have written beside the scores."""
        system = job.evaluation.settings.get("system_instruction")
        template = self.model.prepared.tokenizer.facts.template if job.chat[0] else None
        return as_the_command_line(self.model, job.point, samples, system, template, start, time.perf_counter())

    def _stored(self, job: Job, loaded: LoadedOnce) -> StoredLM:
        """The model with the store before it."""
        versions = {name: version_of(task) for name, task in loaded.tasks.items()}
        return StoredLM(
            self.model, job.identity.answers, job.signature, job.known,
            lambda answers: self.emit(Answered(job.key, answers)) if answers else None, versions,
            lambda requests, tokens, known: self.emit(Asked(job.key, requests, tokens, known)),
        )  # fmt: skip

    def close(self) -> None:
        """Let the engine go."""
        self.model, self.is_broken = None, False
        self.engine = self.signature = self.weights = ""
        gc.collect()


def _refuse_changed(job: Job, loaded: LoadedOnce) -> None:
    """See that this process asks what was planned. Raises SweepError where a task or its documents have changed."""
    head = results_head(job.evaluation, backend_of(job.model_args), job.model_args, {})
    planned, now = job.identity.parts["tasks"], loaded.identity(head).parts["tasks"]
    changed = [name for name in {**planned, **now} if planned.get(name) != now.get(name)]
    if changed:
        raise SweepError(
            f"{job.point}: the configuration, the code or the documents of {', '.join(changed[:3])}"
            f"{f' and {len(changed) - 3} more tasks' if len(changed) > 3 else ''} changed since the sweep was planned. "
            "Start it again."
        )


def _seed(seed: int) -> None:
    """lm_eval's own seeds, moved by the evaluation's."""
    import random

    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(FEWSHOT_SEED + seed)
    torch.manual_seed(FEWSHOT_SEED + seed)


def _start(job: Job) -> Any:
    from lm_eval_iberian.models import Merged

    arguments = {"resident": "auto", **job.model_args}
    if batch_size := backend_of(job.model_args).batch_size:
        arguments.setdefault("batch_size", batch_size)
    return Merged(recipe=_recipe(job), merge_seed=job.merge_seed, rng=job.rng, **arguments)


def _recipe(job: Job) -> Any:
    from merge_hooks.recipe.recipe import Recipe

    text, origin, folder = job.recipe
    return Recipe(text, origin, None if folder is None else Path(folder))


def _resolved(job: Job) -> Any:
    from merge_hooks.resolve.resolver import resolve

    return resolve(_recipe(job), job.merge_seed, job.rng, job.model_args.get("trust_remote_code", False))


def _documents(samples: dict[str, list[dict[str, Any]]]) -> Iterable[Document]:
    """What the store keeps of lm_eval's samples: documents, what was asked, answers and verdicts."""
    for task, rows in samples.items():
        for row in rows:
            metrics = {name: row[name] for name in row["metrics"]}
            yield Document(
                task, int(row["doc_id"]), _json(metrics), answer_of(row), str(row["doc_hash"]), _json(row["doc"]),
                str(row["target"]), _prompt(row),
            )  # fmt: skip


def _prompt(row: dict[str, Any]) -> str:
    """What the model was asked: the text before the first choice, or before the answer; "" where it is no text."""
    first = next(iter(row.get("arguments") or ()), ())
    return first[0] if isinstance(first, (tuple, list)) and first and isinstance(first[0], str) else ""


def answer_of(sample: dict[str, Any]) -> str:
    """What the model said to a document: the text it wrote (JSON list for several), or the choice it took."""
    responses = list(sample["filtered_resps"])
    if responses and all(isinstance(response, str) for response in responses):
        return responses[0] if len(responses) == 1 else _json(responses)
    scores = [response[0] for response in responses if isinstance(response, (tuple, list)) and response]
    numbers = [float(score) for score in scores if isinstance(score, (int, float))]
    return str(max(range(len(numbers)), key=numbers.__getitem__)) if numbers else _json(responses)


def _is_fatal(error: BaseException) -> bool:
    """Whether the engine is not to be trusted any more."""
    return isinstance(error, EngineLostError) or not isinstance(error, (MergeHooksError, SweepError))


def _say(results: dict[str, Any], job: Job) -> None:
    """What lm_eval's command line would have written into the results, and what they are of."""
    results["date"] = time.time()
    results["fewshot_as_multiturn"] = job.chat[1]
    results["chat_template_sha"] = results[KEY]["chat"]["template"]
    results["system_instruction_sha"] = results[KEY]["chat"]["system"]
    results["sweep"] = {"point": job.point, "evaluation": job.evaluation.as_data(), "signature": job.signature}


def _portable(results: dict[str, Any]) -> dict[str, Any]:
    """The results as lm_eval writes them to JSON."""
    from lm_eval.utils import handle_non_serializable

    return json.loads(json.dumps(results, default=handle_non_serializable))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
