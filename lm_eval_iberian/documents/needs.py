"""Which data sets a task or group needs, from the YAMLs alone: no documents are loaded, and lm_eval is not asked."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lm_eval_iberian.benchmarks.files import LOADER
from lm_eval_iberian.benchmarks.groups import added_groups
from lm_eval_iberian.documents.loader import DocumentsError
from lm_eval_iberian.folders import task_folders


@dataclass(frozen=True)
class Need:
    """One configuration of one data set, and who wants it.

    Args:
        path: Hub id.
        config: "default" where it has none.
        splits: the splits that are read.
        tasks: the leaf tasks that read it.
    """

    path: str
    config: str
    splits: tuple[str, ...]
    tasks: tuple[str, ...]


def needs(names: Iterable[str]) -> list[Need]:
    """What the tasks and groups read, each configuration once. Raises DocumentsError for an unknown name."""
    found: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for leaf in dict.fromkeys(leaf for name in names for leaf in leaves(name)):
        config = _yamls()[leaf]
        if not config.get("dataset_path"):  # it brings its documents with it
            continue
        languages = (config.get("dataset_kwargs") or {}).get("languages")
        for configuration in languages or [config.get("dataset_name") or "default"]:
            splits, tasks = found.setdefault((config["dataset_path"], configuration), ({}, {}))
            splits |= dict.fromkeys(_splits(config))
            tasks |= {leaf: None}
    return [Need(path, config, tuple(splits), tuple(tasks)) for (path, config), (splits, tasks) in found.items()]


def leaves(name: str) -> list[str]:
    """The leaf tasks of a task or group. Raises DocumentsError if there is none of that name."""
    config = _yamls().get(name)
    if config is None:
        raise DocumentsError(
            f"{name}: no task or group of this suite. Its names begin with iberian_: `lm_eval ls tasks` shows them; "
            "iberian_suite is all."
        )
    return [leaf for part in config["task"] for leaf in leaves(part)] if "group" in config else [name]


def _splits(config: dict[str, Any]) -> list[str]:
    """As DocumentTask.splits: what is evaluated, and where shots come from."""
    return [
        split
        for split in (config.get("test_split") or config.get("validation_split"), config.get("fewshot_split"))
        if split
    ]


def yaml_of(name: str) -> dict[str, Any]:
    """The YAML of a task or group, with what it includes. Raises KeyError."""
    return _yamls()[name]


def _yamls() -> dict[str, dict[str, Any]]:
    """Every task and group by name."""
    return _read_all(task_folders())


@functools.cache
def _read_all(folders: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    read = [_read(file) for folder in folders for file in sorted(folder.glob("*/*.yaml"))]
    found = {config["group"] if "group" in config else config["task"]: config for config in read}
    return found | {name: {"group": name, "task": tasks} for name, tasks in added_groups().items()}


def _read(file: Path) -> dict[str, Any]:
    """A YAML with what it includes; what `!function` names is not imported."""
    config = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    included = config.pop("include", None)
    return {**_read(file.parent / included), **config} if included else config


class _Loader(LOADER):
    """PyYAML's safe one, that reads `!function` as text."""


def _as_text(_loader: Any, node: yaml.Node) -> str:
    """The name of a function, unread."""
    return str(node.value)


_Loader.add_constructor("!function", _as_text)
