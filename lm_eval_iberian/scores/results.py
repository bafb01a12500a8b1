"""Reading lm_eval's results JSON: which model, which tasks, with which settings, how many documents.

Format: lm_eval 0.4.13, `EvaluationTracker.save_results_aggregated` (lm_eval/loggers/evaluation_tracker.py). Files of 0.3
and of 0.4.0 to 0.4.12 say less, and some of it wrongly: `lm_eval_iberian.identity.answered`, `identity.chat_is_known`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lm_eval_iberian.benchmarks.benchmark import is_possible, most_error
from lm_eval_iberian.identity.answered import NOT_KNOWN, answered
from lm_eval_iberian.identity.identity import Identity, chat_is_known, of_results, parse, shots_of
from lm_eval_iberian.identity.prompting import PLAIN, Prompt, of_chat
from merge_hooks.errors import ForPeople
from merge_hooks.files import read_text


class SuiteError(ForPeople):
    """A results file cannot be read, or files do not belong together. Says which, and what to do."""


@dataclass(frozen=True)
class Leaf:
    """A leaf task in one results file.

    Args:
        value, stderr: of one metric, as lm_eval wrote them; None where there is none (or it is not a number).
        problems: what keeps the number from being a score: limited, samples, no such metric.
        shots: how many examples each prompt showed.
        documents_notes: what a reader must know of their revision, as the task wrote it.
        documents: where they came from, as the task wrote it.
        prompt: how its prompts were made.
        doubts: what to look at before the score, counted as it was measured: cut prompts, ties, ...
    """

    value: float | None
    stderr: float | None
    problems: tuple[str, ...]
    shots: int | None
    documents_notes: tuple[str, ...]
    documents: str
    prompt: Prompt = PLAIN
    doubts: tuple[str, ...] = ()


# What is counted over a task's answers (config.iberian.answers), in words. `{}` is a count: "3 of 40".
COUNTED = {
    "cut_prompts": "prompts cut to the model's window: {}",
    "cut_answers": "answers cut by the token limit: {}",
    "ties": "choices that are exactly equally likely, of which the first counts as taken: {}",
    "empty": "empty answers: {}",
    "joined": "choices whose beginning the tokenizer joins to the prompt, so that only the rest of them is scored: {}",
}


# The argument that names the model, as lm_eval looks for it. An adapter is not its base.
NAMES = ("peft", "delta", "lora_local_path", "pretrained", "model", "path", "engine")
# What `--predict_only` writes as a metric: always 999.
BYPASS = "bypass"


@dataclass(frozen=True)
class Run:
    """One results file.

    Args:
        origin: its path, for messages.
        data: the JSON.
    """

    origin: str
    data: Mapping[str, Any]

    @property
    def tasks(self) -> Mapping[str, Any]:
        return self.data["results"]

    @property
    def stamp(self) -> Mapping[str, Any]:
        """What the model `merged` says of itself: signature, sources. Empty for other models."""
        found = self.data.get("config", {}).get("iberian")
        return found if isinstance(found, Mapping) else {}

    @cached_property
    def identity(self) -> Identity:
        """What was measured: see `lm_eval_iberian.identity.identity`."""
        return of_results(self.data)

    @property
    def label(self) -> str:
        """A short name for the row: the point of a sweep, the recipe's file, or the model's name."""
        if isinstance(self.data.get("sweep"), Mapping) and self.data["sweep"].get("point"):
            return str(self.data["sweep"]["point"])
        origin = str(self.stamp.get("recipe_origin") or "")
        if origin.endswith((".yml", ".yaml")):
            return Path(origin).stem
        if self.stamp and len(self.sources) > 1:  # a merge without a file: its method, and what went in
            method = str((self.stamp.get("recipe_resolved") or {}).get("merge_method", "merge"))
            return f"{method} {'+'.join(Path(source).name for source in self.sources)}"
        return self.model

    @property
    def model(self) -> str:
        """The model's name, by the argument that lm_eval takes it from; an adapter's goes before its base's."""
        arguments, config = self._arguments(), self.data.get("config", {})
        named = next((arguments[key] for key in NAMES if arguments.get(key)), None)
        program, name = self.data.get("model_source") or config.get("model"), self.data.get("model_name")
        # Of what names no model lm_eval draws a name: "wxrd1574".
        return str(named or (program if arguments else name) or name or program or Path(self.origin).stem)

    @property
    def sources(self) -> dict[str, str]:
        """The sources of a merge: name -> fingerprint."""
        sources = self.stamp.get("sources") or []
        return {str(source.get("name")): str(source.get("fingerprint")) for source in sources}

    def leaf(self, task: str, metric: str, full: float | None = None) -> Leaf:
        """A task's score by a metric. Raises KeyError where the task is not in this file.

        Args:
            full: the metric's full score, where it is known: a share of more than 1 is none.
        """
        found = self.tasks[task]
        value = _number(_of_metric(found, metric))
        stderr = _number(_of_metric(found, metric, "_stderr"))
        problems = [] if value is not None else [f"failed: no number for {metric}"]
        if value is not None and not is_possible(metric, value, full):
            problems = [
                f"failed: {metric} is {value:g}, which it cannot be: was the file changed, or is it in percent?"
            ]
            value = stderr = None
        if stderr is not None and not 0 <= stderr <= most_error(metric, full):
            problems.append(f"the standard error of {metric} is {stderr:g}, which it cannot be: was the file changed?")
            stderr = None
        problems += self._shortened(task)
        return Leaf(
            value,
            stderr,
            tuple(problems),
            _whole(shots_of(self.data, task)),
            tuple(map(str, self._metadata(task).get("documents_notes") or ())),
            str(self._metadata(task).get("documents", "")),
            self.prompt,
            self._doubts(task),
        )

    def documents(self, task: str) -> int:
        """How many documents of a task were answered; 0 where the file does not say."""
        return _whole(self._answered.get(task)) or 0

    @cached_property
    def _answered(self) -> Mapping[str, Any]:
        return answered(self.data)

    @property
    def prompt(self) -> Prompt:
        """How its prompts were made."""
        return of_chat(self.identity.parts["chat"], chat_is_known(self.data))

    def _doubts(self, task: str) -> tuple[str, ...]:
        """What was counted over a task's answers and is not 0, in words."""
        answers = self.stamp.get("answers")
        counts = answers.get(task) if isinstance(answers, Mapping) else None
        return tuple(in_words(counts)) if isinstance(counts, Mapping) else ()  # an older file, or another model

    def scores(self, task: str) -> str:
        """All scores of a task as one line, e.g. "bleu 12.34, exact_match,strict-match 0.4"; empty for a group without any."""
        found = {key: _number(value) for key, value in self.tasks[task].items() if is_score(key, value)}
        return ", ".join(
            f"{key.removesuffix(',none')} {value:.4g}" for key, value in found.items() if value is not None
        )

    def _arguments(self) -> Mapping[str, Any]:
        return parse(self.data.get("config", {}).get("model_args"))

    def _shortened(self, task: str) -> list[str]:
        """Why this is not a score over the whole benchmark: a limit, fewer documents, or the embedded samples."""
        effective = self._answered.get(task)
        original = (self.data.get("n-samples", {}).get(task) or {}).get("original")
        limit = self.data.get("config", {}).get("limit")
        metadata = self._metadata(task)
        problems = []
        if effective == NOT_KNOWN:
            problems.append("maybe limited: lm_eval 0.4.9 to 0.4.11 count documents that --samples left out")
        elif effective is not None and original is not None and effective < original:
            problems.append(f"limited: {effective} of {original} documents")
        elif limit is not None and effective is None:
            problems.append(f"limited: run with --limit {limit}")
        if metadata.get("documents") == "samples":
            problems.append("embedded samples, not the benchmark")
        problems += [f"not the known data set: {word}" for word in metadata.get("differences") or ()]
        return problems

    def _metadata(self, task: str) -> Mapping[str, Any]:
        found = (self.data.get("configs", {}).get(task) or {}).get("metadata")
        return found if isinstance(found, Mapping) else {}


def read_run(results: str | Path | Mapping[str, Any]) -> Run:
    """A results file of lm_eval, or what `lm_eval.simple_evaluate` returned. Raises SuiteError where it is neither."""
    if isinstance(results, Mapping):
        return check_run(results, "the results")
    path = Path(results)
    try:
        data = json.loads(read_text(path, SuiteError, "results file"))
    except FileNotFoundError:
        raise SuiteError(f"{path}: cannot be read (there is no such file).") from None
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"{path}: not JSON ({error}). Give the results_*.json that lm_eval wrote.") from None
    return check_run(data, str(path))


def check_run(data: Any, origin: str) -> Run:
    """A Run of what `lm_eval.simple_evaluate` returned, or its JSON holds. Raises SuiteError where it is not that."""
    if not isinstance(data, Mapping) or not isinstance(data.get("results"), Mapping):
        raise SuiteError(
            f'{origin}: no "results" in it. Give the results_*.json that `lm_eval --output_path` wrote, '
            "not a samples file."
        )
    for key in ("n-shot", "n-samples", "versions", "configs", "config", "task_hashes"):
        if not isinstance(data.get(key, {}), Mapping):
            raise SuiteError(f'{origin}: "{key}" is not an object: not as lm_eval writes it.')
    if not all(isinstance(entry, Mapping) for entry in data["results"].values()):
        raise SuiteError(f'{origin}: "results" holds something that is not a task\'s scores.')
    run = Run(origin, data)
    with as_lm_eval_writes_it(origin):
        _ = run.identity.digest, run.label, run.sources, hash(run.prompt)
        for task in run.tasks:
            if not isinstance(task, str) or not isinstance(run.data.get("configs", {}).get(task) or {}, Mapping):
                raise TypeError(f"{task}: no configuration")
            _ = run.leaf(task, "acc"), run.scores(task), run.documents(task)
    return run


def is_score(key: str, value: Any) -> bool:
    """Whether an entry of a task is one of its scores: `metric,filter`, or in files of lm_eval 0.3 `metric`, a float."""
    metric, comma, _ = key.partition(",")
    return bool(comma or isinstance(value, float)) and not metric.endswith("_stderr") and metric != BYPASS


@contextmanager
def as_lm_eval_writes_it(origin: str) -> Iterator[None]:
    """Raises SuiteError for what breaks in here: a file holds what lm_eval does not write."""
    try:
        yield
    except ForPeople:
        raise
    except Exception as error:
        raise SuiteError(
            f"{origin}: not as lm_eval writes it ({type(error).__name__}: {error!s:.200}). Was it changed, or cut? Give "
            "the results_*.json that lm_eval wrote."
        ) from error


def in_words(counts: Mapping[str, Any]) -> list[str]:
    """What was counted over a task's answers and is not 0."""
    of = f" of {counts['documents']}" if _whole(counts.get("documents")) else ""
    return [words.format(f"{counts[name]}{of}") for name, words in COUNTED.items() if _whole(counts.get(name))]


def _of_metric(scores: Mapping[str, Any], metric: str, ending: str = "") -> Any:
    """A metric under the filter that it names, else under any; "none", lm_eval's plain one, first."""
    name, comma, filter_ = metric.partition(",")
    name += ending
    if comma or f"{name},none" in scores:
        return scores.get(f"{name},{filter_ or 'none'}")
    return next((value for key, value in scores.items() if key.partition(",")[0] == name), None)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
