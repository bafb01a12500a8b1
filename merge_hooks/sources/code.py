"""The Python files that a model brings: which they are, and a hash of them for the signature.

A configuration names its classes under `auto_map`: "modeling_x.Model" lies in the model's own folder,
"owner/name--modeling_x.Model" in another repository of the Hub, of which transformers takes what is on `main`.
Read in transformers 5.19: `dynamic_module_utils.get_class_from_dynamic_module`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from merge_hooks.errors import SourceError
from merge_hooks.hashing import content_hash
from merge_hooks.sources.headers import read_json
from merge_hooks.sources.hub import snapshot, snapshot_revision
from merge_hooks.texts import seen

LOG = logging.getLogger(__name__)
# What follows a folder's or a repository's name in `code_prints`.
ENDING = "/*.py"
UNKNOWN = "unknown"


def code_prints(folders: Iterable[Path]) -> dict[str, str]:
    """A hash of the Python files of each folder that has any, and the commit of each repository that a configuration
    names.

    A repository that can be had neither from the Hub nor from its cache is "unknown", and a line says so: an engine
    with a class of its own does not need it.
    """
    found = {}
    for folder in dict.fromkeys(folders):
        if files := _files(folder):
            found[f"{folder}{ENDING}"] = content_hash(folder, files)
        for repository in _elsewhere(folder):
            found[f"{repository}{ENDING}"] = _print_of(repository, folder)
    return found


def _files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*.py"))


def _print_of(repository: str, folder: Path) -> str:
    try:
        code = snapshot(repository, None, ["*.py"])
    except SourceError as error:
        LOG.warning("%s: its code lies in another repository. %s", seen(folder.name), seen(str(error)))
        return UNKNOWN
    return snapshot_revision(code) or content_hash(code, _files(code))


def _elsewhere(folder: Path) -> dict[str, None]:
    """The repositories that the configurations in a folder name, in order."""
    found: dict[str, None] = {}
    for file in sorted(folder.glob("*config.json")):
        for name in _texts(read_json(file, folder.name).get("auto_map")):
            repository, dashes, _ = name.partition("--")
            if dashes:
                found[repository] = None
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
