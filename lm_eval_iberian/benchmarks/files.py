"""The YAML files beside the tasks, `languages.yml` and each folder's `manifest.yml`: read, and their keys checked."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lm_eval_iberian.errors import ManifestError
from merge_hooks.files import read_text
from merge_hooks.yaml_files import FAST, read_yaml

MANIFEST, LANGUAGES = "manifest.yml", "languages.yml"
# The keys of a manifest that are no data sets: what is measured, and what is not, with the reason.
BENCHMARKS, UNMEASURED = "benchmarks", "unmeasured"

# key -> the types that its value may have.
Types = Mapping[str, type | tuple[type, ...]]


def manifest_files(folders: Collection[Path]) -> list[Path]:
    """The manifests of all benchmarks, folder by folder in alphabetical order."""
    return [file for folder in folders for file in sorted(folder.glob(f"*/{MANIFEST}"))]


def read(file: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; an empty one holds none. Raises ManifestError."""
    try:
        found = read_yaml(read_text(file, ManifestError), str(file), ManifestError, loader=FAST)
    except FileNotFoundError:
        raise ManifestError(f"{file}: there is no such file.") from None
    if not isinstance(found or {}, dict):
        raise ManifestError(f"{file}: holds no mapping of keys. tasks/README.md shows one.")
    return found or {}


def checked(entry: Any, types: Types, needed: Collection[str], file: Path, key: str) -> dict[str, Any]:
    """An entry all of whose keys are known and hold what they should.

    Args:
        types: its keys, and what each may hold.
        needed: the keys that must be there.
        file, key: where it stands, for messages.
    Raises:
        ManifestError: names the file, the key, and what is wrong.
    """
    if not isinstance(entry, Mapping):
        raise fault(file, key, f"{entry!r} should be a mapping with the keys {', '.join(types)}")
    for name, value in entry.items():
        if name not in types:
            close = difflib.get_close_matches(str(name), types, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it may have {', '.join(types)}"
            raise fault(file, f"{key}: {name}", f"there is no such key; {hint}")
        if not isinstance(value, types[name]):
            raise fault(file, f"{key}: {name}", f"{value!r} should be {_said(types[name])}")
    for name in needed:
        if name not in entry:
            raise fault(file, key, f"it lacks the key {name}")
    return dict(entry)


def fault(file: Path, key: str, what: str) -> ManifestError:
    """An error of a file's key."""
    return ManifestError(f"{file}: {key}: {what}.")


def _said(types: type | tuple[type, ...]) -> str:
    words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list",
             dict: "a mapping", type(None): "null"}  # fmt: skip
    return " or ".join(words[one] for one in (types if isinstance(types, tuple) else (types,)))
