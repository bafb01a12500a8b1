"""Which data sets a task or group needs, from the YAMLs alone: no documents are loaded, and lm_eval is not asked."""

from __future__ import annotations

import difflib
import functools
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lm_eval_iberian.benchmarks.groups import added_groups
from lm_eval_iberian.benchmarks.table import of_task
from lm_eval_iberian.documents.loader import DocumentsError
from lm_eval_iberian.errors import ManifestError
from lm_eval_iberian.folders import task_folders
from merge_hooks.files import read_text
from merge_hooks.yaml_files import FAST, read_yaml

# A split that a data set does not have: documents of the scored split that are not scored (task.py, DrawnTask).
OTHERS = "others"


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
        config = yaml_of(leaf)
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
    try:
        config = yaml_of(name)
    except KeyError:
        raise DocumentsError(
            f"{name}: no task or group of this suite.{did_you_mean(name)} Its names begin with iberian_: `lm_eval ls "
            "tasks` shows them; iberian_suite is all."
        ) from None
    return [leaf for part in config["task"] for leaf in leaves(part)] if "group" in config else [name]


def did_you_mean(name: str) -> str:
    """ " Did you mean iberian_eus_trivia?", or "" where no task or group of ours has a name like that."""
    close = difflib.get_close_matches(name, _yamls(), n=2, cutoff=0.8)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _splits(config: dict[str, Any]) -> list[str]:
    """As DocumentTask.splits: what is evaluated, and where shots come from."""
    return [
        split
        for split in (config.get("test_split") or config.get("validation_split"), config.get("fewshot_split"))
        if split and split != OTHERS
    ]


def is_read_by_lm_eval(need: Need) -> bool:
    """Whether lm_eval's own tasks read it: from the Hub or its cache, never from a mirror or samples."""
    return any((one := of_task(task)) is not None and not one.tasks for task in need.tasks)


def yaml_of(name: str) -> dict[str, Any]:
    """The YAML of a task or group, with what it includes; lm_eval's own where a benchmark is measured by it.

    Raises KeyError.
    """
    if name in _yamls():
        return _yamls()[name]
    if (one := of_task(name)) is None or one.tasks:
        raise KeyError(name)
    return _read(_of_lm_eval()[name])


@functools.cache
def _of_lm_eval() -> dict[str, Path]:
    """The YAMLs of lm_eval's benches (basque_bench, ...), by the names of their files, which are their tasks'."""
    (folder, *_) = importlib.util.find_spec("lm_eval").submodule_search_locations  # type: ignore[union-attr,misc]
    return {file.stem: file for file in sorted(Path(folder, "tasks").glob("*_bench/*.yaml"))}


def _yamls() -> dict[str, dict[str, Any]]:
    """Every task and group by name."""
    return _read_all(task_folders())


@functools.cache
def _read_all(folders: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    read = [_read(file) for folder in folders for file in sorted(folder.glob("*/*.yaml"))]
    named = [(config.get("group", config.get("task")), config) for config in read]
    found = {name: config for name, config in named if isinstance(name, str)}
    return found | {name: {"group": name, "task": tasks} for name, tasks in added_groups().items()}


def _read(file: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A YAML with what it includes; what `!function` names is not imported. `above`: the files that include it."""
    if file in above:
        raise ManifestError(f"{file}: it includes itself.")
    try:
        config = read_yaml(read_text(file, ManifestError), str(file), ManifestError, loader=_Loader)
    except FileNotFoundError:
        raise ManifestError(f"{file}: there is no such file{f'; {above[-1]} includes it' if above else ''}.") from None
    if not isinstance(config, dict):
        raise ManifestError(f"{file}: not the YAML of a task: it holds no keys.")
    included = config.pop("include", None)
    return {**_read(file.parent / str(included), (*above, file)), **config} if included else config


class _Loader(FAST):
    """PyYAML's safe one, that reads `!function` as text."""


def _as_text(_loader: Any, node: yaml.Node) -> str:
    """The name of a function, unread."""
    return str(node.value)


_Loader.add_constructor("!function", _as_text)
