"""Tasks that are loaded once and whose requests are built once, whatever the number of points.

lm_eval's evaluator loads every task and builds every request (few-shot prompts, chat template) in each call. For
thousands of documents that takes longer than a swap. Here the tasks live on, and `build_all_requests` builds
anew only when what the prompts depend on has changed: the chat template, mostly.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from lm_eval.tasks import TaskManager

from lm_eval_iberian.plugin import tasks_folder
from lm_eval_iberian.sweep.spec import Evaluation

# How functions show in a dumped configuration: at another address in each process.
ADDRESS = re.compile(r" at 0x[0-9a-f]+")

# lm_eval's own: which shots are drawn.
FEWSHOT_SEED = 1234


def our_tasks(metadata: dict[str, Any] | None = None) -> TaskManager:
    """lm_eval's index of tasks, of ours alone: for that of its own it reads some ten thousand files, which takes seconds.

    Args:
        metadata: the model's arguments, which lm_eval passes on to tasks.
    """
    return TaskManager(include_path=str(tasks_folder()), include_defaults=False, metadata=metadata)


class KeptTasks:
    """The tasks of a sweep, loaded when first needed.

    Args:
        include_path: a folder of further tasks.
        metadata: the model's arguments, which lm_eval passes on to tasks.
    """

    def __init__(self, include_path: str | None = None, metadata: dict[str, Any] | None = None) -> None:
        self.include_path, self.metadata = include_path, metadata or {}
        self.loaded: dict[str, LoadedOnce] = {}

    @cached_property
    def _every_task(self) -> TaskManager:
        return TaskManager(include_path=self.include_path, metadata=self.metadata)

    @cached_property
    def _ours(self) -> TaskManager:
        return our_tasks(self.metadata)

    def _index(self, names: Iterable[str]) -> TaskManager:
        """One that knows these tasks."""
        if self.include_path is None and all(name in self._ours.all_tasks for name in names):
            return self._ours
        return self._every_task

    def of(self, evaluation: Evaluation) -> LoadedOnce:
        """The tasks of an evaluation. Each has its own: its settings are written into them."""
        key = json.dumps(evaluation.as_data(), sort_keys=True, default=str)
        if key not in self.loaded:
            self.loaded[key] = LoadedOnce(self._index(evaluation.tasks), evaluation)
        return self.loaded[key]


class LoadedOnce:
    """The tasks of one evaluation, with its settings written into them; the same objects each time.

    Args:
        index: knows every task.
        evaluation: whose tasks they are.
    """

    def __init__(self, index: TaskManager, evaluation: Evaluation) -> None:
        self.index, self.evaluation = index, evaluation
        # What the requests depend on beyond their own arguments: the tokenizer's chat template.
        self.template = ""

    @cached_property
    def everything(self) -> Any:
        """What `lm_eval.evaluate` takes: {"tasks": ..., "groups": ...}. Raises KeyError or ValueError for a wrong name."""
        loaded = self.index.load(list(self.evaluation.tasks))
        for task in loaded["tasks"].values():
            task.build_all_requests = self._once(task, task.build_all_requests)
        return loaded

    @property
    def tasks(self) -> dict[str, Any]:
        """Leaf task -> object."""
        return dict(self.everything["tasks"])

    @property
    def generation_settings(self) -> dict[str, dict[str, Any]]:
        """Of the tasks that generate: leaf task -> settings."""
        return {name: dict(task.get_config("generation_kwargs") or {}) for name, task in self.tasks.items()
                if task.get_config("output_type") == "generate_until"}  # fmt: skip

    def settle(self, generation: Mapping[str, Any] | None) -> None:
        """Write the evaluation's settings into the tasks, as `lm_eval.simple_evaluate` does before it evaluates.

        Args:
            generation: generation settings that override the tasks' own.
        """
        shots = self.evaluation.settings.get("num_fewshot")
        for task in self.tasks.values():
            if generation and task.get_config("output_type") == "generate_until":
                task.set_config(key="generation_kwargs", value=dict(generation), update=True)
            own = task.get_config("num_fewshot")
            if own is None or (shots is not None and own != 0):  # 0 in a task's YAML is meant
                task.set_config(key="num_fewshot", value=shots or 0)
            task.set_fewshot_seed(seed=FEWSHOT_SEED)

    def _once(self, task: Any, build: Callable[..., None]) -> Callable[..., None]:
        built = ""

        def build_once(**options: Any) -> None:
            nonlocal built
            said = {key: value for key, value in options.items() if not callable(value)}
            wanted = json.dumps([said, task.config.num_fewshot, self.template], sort_keys=True, default=str)
            if wanted != built:
                build(**options)
                built = wanted
            for instance in task.instances:
                instance.resps, instance.filtered_resps = [], {}

        return build_once


def stamp_of(loaded: LoadedOnce, limit: float | None) -> dict[str, list[str]]:
    """What the tasks measure, for the key of an evaluation: task -> version, and a hash of settings and documents."""
    return {name: [version_of(task), _hash(task, limit)] for name, task in loaded.tasks.items()}


def version_of(task: Any) -> str:
    """A task's version, as lm_eval writes it into its results."""
    return str((task.config.metadata or {}).get("version", task.VERSION))


def documents_of(task: Any, limit: float | None) -> int:
    """How many documents an evaluation with this limit reads."""
    total = len(task.eval_docs)
    if limit is None:
        return total
    return min(total, int(limit) if limit >= 1 else -(-int(total * limit * 1000) // 1000))


def _hash(task: Any, limit: float | None) -> str:
    """Of the task's configuration and of the documents that are read: another limit, or other files, other key."""
    state = hashlib.sha256(_configuration(task).encode())
    for document in _shots(task):
        state.update(json.dumps(document, sort_keys=True, default=str).encode())
    for _, document in task.doc_iterator(limit=documents_of(task, limit) if limit is not None else None):
        state.update(json.dumps(document, sort_keys=True, default=str).encode())
    return state.hexdigest()[:16]


def _configuration(task: Any) -> str:
    """The configuration without what says where it lies and not what it is: addresses of functions, paths."""
    said = task.dump_config()
    metadata = said.get("metadata")
    if isinstance(metadata, dict):
        said["metadata"] = {key: value for key, value in metadata.items() if key not in ("config_source", "documents")}
    return ADDRESS.sub("", json.dumps(said, sort_keys=True, default=str))


def _shots(task: Any) -> list[Any]:
    """The documents that shots are drawn from, where they are not the evaluated ones."""
    config = task.config
    if config.num_fewshot == 0 or config.fewshot_split in (None, config.test_split):
        return []
    return list(task.fewshot_docs() or ())
