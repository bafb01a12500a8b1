"""Tasks that are loaded once and whose requests are built once, whatever the number of points.

lm_eval's evaluator loads every task and builds every request (few-shot prompts, chat template) in each call. For
thousands of documents that takes longer than a swap. Here the tasks live on, and `build_all_requests` builds
anew only when what the prompts depend on has changed: the chat template, mostly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any

from lm_eval.tasks import TaskManager

from lm_eval_iberian.folders import task_folders
from lm_eval_iberian.identity.identity import KEY, Identity, of_results, told
from lm_eval_iberian.identity.task_code import generation_settings, read_by
from lm_eval_iberian.models.backends import Backend
from lm_eval_iberian.sweep.spec import Evaluation

version_of_package = cache(version)  # each look parses a file
# lm_eval's own: which shots are drawn. Also its seed of numpy and torch.
FEWSHOT_SEED = 1234


def our_tasks(metadata: dict[str, Any] | None = None) -> TaskManager:
    """lm_eval's index of tasks, of ours alone: for that of its own it reads some ten thousand files, which takes seconds.

    Args:
        metadata: the model's arguments, which lm_eval passes on to tasks.
    """
    return TaskManager(
        include_path=[str(folder) for folder in task_folders()], include_defaults=False, metadata=metadata
    )


class KeptTasks:
    """The tasks of a sweep, loaded when first needed.

    Args:
        include_path: a folder of further tasks.
        metadata: the model's arguments, which lm_eval passes on to tasks.
    """

    def __init__(self, include_path: str | None = None, metadata: dict[str, Any] | None = None) -> None:
        self.include_path, self.metadata = include_path, metadata or {}
        self.loaded: dict[str, LoadedOnce] = {}

    def are_like(self, others: KeptTasks) -> bool:
        """Whether the others would be loaded as these: lm_eval writes the model's arguments into each task."""
        return (self.include_path, self.metadata) == (others.include_path, others.metadata)

    @cached_property
    def _every_task(self) -> TaskManager:
        return TaskManager(include_path=self.include_path, metadata=self.metadata)

    @cached_property
    def _ours(self) -> TaskManager:
        return our_tasks(self.metadata)

    def _index(self, names: Iterable[str]) -> TaskManager:
        """One that knows these tasks."""
        if self.include_path is None and all(self._is_ours(name) for name in names):
            return self._ours
        return self._every_task

    def _is_ours(self, name: str) -> bool:
        """Whether a task is ours, or a group of ours only: `iberian_more` has tasks of lm_eval's."""
        if name not in self._ours.all_tasks:
            return False
        entry = self._ours.task_index[name]
        children = (entry.cfg or {}).get("task", []) if name in self._ours.all_groups else []
        return all(self._is_ours(child["task"] if isinstance(child, dict) else child) for child in children)

    def of(self, evaluation: Evaluation) -> LoadedOnce:
        """The tasks of an evaluation. Each has its own: its settings are written into them."""
        key = evaluation.text
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
        # What the requests depend on beyond their own arguments: the tokenizer's chat template and special tokens.
        self.template = ""
        self._read: dict[str, dict[str, str]] | None = None
        self._identity: Identity | None = None

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

    def as_results(self) -> dict[str, Any]:
        """What lm_eval's results say of the tasks, settled, whatever their scores."""
        return {
            "configs": {name: task.dump_config() for name, task in self.tasks.items()},
            "versions": {name: task.VERSION for name, task in self.tasks.items()},
            "n-shot": {name: task.get_config("num_fewshot") for name, task in self.tasks.items()},
        }

    @property
    def generation_settings(self) -> dict[str, dict[str, Any]]:
        """Of the tasks that generate: leaf task -> settings."""
        return generation_settings(self.tasks)

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

    @property
    def read(self) -> dict[str, dict[str, str]]:
        """Leaf task -> hashes of its code and of the documents that this evaluation reads (`task_code.read_by`).

        Taken once, so that what was planned is what results say; `settle` comes first.
        """
        if self._read is None:
            limit = self.evaluation.settings.get("limit")
            self._read = {name: read_by(task, limit) for name, task in self.tasks.items()}
        return self._read

    def identity(self, head: Mapping[str, Any]) -> Identity:
        """The part of an identity that all points share: what is asked, how, and how it is judged; taken once, as `read`.

        Args:
            head: `results_head` of the evaluation.
        """
        if self._identity is None:
            read = {KEY: told(None, False, None, self.read)}
            self._identity = of_results({**head, **self.as_results(), **read}).only("tasks", "seed")
        return self._identity

    def _once(self, task: Any, build: Callable[..., None]) -> Callable[..., None]:
        built = ""

        def build_once(**options: Any) -> None:
            nonlocal built
            said = {key: value for key, value in options.items() if not callable(value)}
            wanted = json.dumps([said, task.config.num_fewshot, self.template], sort_keys=True, default=str)
            # A task that asks the model for its prompts (tasks/turns) has none that are another model's.
            if wanted != built or getattr(task, "asks_while_building", False):
                build(**options)
                built = wanted
            for instance in task.instances:
                instance.resps, instance.filtered_resps = [], {}

        return build_once


def version_of(task: Any) -> str:
    """A task's version, as lm_eval writes it into its results."""
    return str((task.config.metadata or {}).get("version", task.VERSION))


def generation_of(evaluation: Evaluation, backend: Backend) -> dict[str, Any] | None:
    """Generation settings that override the tasks' own, with the seed where the engine takes one a request (vLLM)."""
    from lm_eval.utils import simple_parse_args_string

    given = evaluation.settings.get("gen_kwargs")
    settings = simple_parse_args_string(given) if isinstance(given, str) else dict(given or {})
    if evaluation.seed is not None and backend.takes_seeds:
        settings["seed"] = evaluation.seed
    return settings or None


def results_head(
    evaluation: Evaluation, backend: Backend, model_args: Mapping[str, Any], info: Mapping[str, Any]
) -> dict[str, Any]:
    """What lm_eval's command line would write into the results of an evaluation beside the scores.

    Args:
        info: the model's `get_model_info()`.
    """
    seed = evaluation.seed or 0
    return {
        "lm_eval_version": version_of_package("lm_eval"),
        "transformers_version": version_of_package("transformers"),
        "model_source": "merged",
        "config": {
            "model": "merged", "model_args": dict(model_args), **info, "limit": evaluation.settings.get("limit"),
            "gen_kwargs": generation_of(evaluation, backend), "random_seed": seed, "numpy_seed": FEWSHOT_SEED + seed,
            "torch_seed": FEWSHOT_SEED + seed, "fewshot_seed": FEWSHOT_SEED,
        },
    }  # fmt: skip
