"""What each data set holds (tasks/*/manifest.yml), and the comparison with what was read.

A manifest says, for each data set: its licence, the commit of the Hub's that is read (`main` where none is known: see
revisions.py), the columns that the task reads with their types, other names by which a column is known, and for each
configuration the rows of its splits (`null` where no source gives them).
Types: string, integer, strings (a list), choices ({text: [...], label: [...]}); `a | b` where either will do.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lm_eval_iberian.folders import tasks_folder

if TYPE_CHECKING:
    from datasets import Dataset

FILE = "manifest.yml"


@dataclass(frozen=True)
class Manifest:
    """One data set.

    Args:
        path: its Hub id.
        file: the manifest it is in.
        columns: name -> type, of the columns that the task reads.
        configs: configuration -> split -> rows, or None where they are not known.
        revision: the commit to read; "main" or another branch where no commit is known.
        licence: as its card gives it.
        gated: whether its terms must be accepted on the Hub.
        parquet: read as the files `<config>/<split>/*.parquet`, by name: the Hub's own conversion of a loading script.
        aliases: other name -> column.
    """

    path: str
    file: Path
    columns: Mapping[str, str]
    configs: Mapping[str, Mapping[str, int | None]]
    revision: str
    licence: str = "unknown"
    gated: bool = False
    parquet: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)


@functools.cache
def manifests() -> dict[str, Manifest]:
    """All data sets of all tasks, by Hub id."""
    found = {}
    for file in sorted(tasks_folder().glob(f"*/{FILE}")):
        for path, entry in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            found[path] = Manifest(path, file, **entry)
    return found


def with_known_names(data: Dataset, manifest: Manifest | None) -> Dataset:
    """The documents with columns called as the task calls them, where they came under another known name."""
    if manifest is None:
        return data
    known = {
        alias: column
        for alias, column in manifest.aliases.items()
        if alias in data.column_names and column not in data.column_names
    }
    return data.rename_columns(known) if known else data


def wrong_columns(data: Dataset, manifest: Manifest, columns: Mapping[str, str] | None = None) -> list[str]:
    """What the task cannot work with: each column that is missing or of another type."""
    wanted = manifest.columns if columns is None else columns
    said = []
    for column, kinds in wanted.items():
        if column not in data.column_names:
            said.append(f"no column {column} (there are: {', '.join(data.column_names)})")
        elif (kind := kind_of(data.features[column])) not in kinds.split(" | "):
            said.append(f"column {column} is {kind}, not {kinds.replace(' | ', ' or ')}")
    return said


def wrong_rows(found: Mapping[str, Dataset], config: str, manifest: Manifest) -> list[str]:
    """Each split whose number of rows is not the known one."""
    known = manifest.configs.get(config, {})
    return [
        f"split {split} has {len(data):,} rows, not {rows:,}"
        for split, data in found.items()
        if (rows := known.get(split)) is not None and rows != len(data)
    ]


def kind_of(feature: Any) -> str:
    """The type of a column, in a manifest's words; datasets' own where it has none."""
    if isinstance(feature, Mapping):
        inside = {key: kind_of(value) for key, value in feature.items()}
        return "choices" if inside.get("text") == inside.get("label") == "strings" else str(inside)
    if type(feature).__name__ == "ClassLabel":
        return "integer"
    inner = getattr(feature, "feature", feature[0] if isinstance(feature, list) and feature else None)
    if inner is not None:
        return "strings" if kind_of(inner) == "string" else f"a list of {kind_of(inner)}"
    dtype = str(getattr(feature, "dtype", feature))
    return {"large_string": "string", "string": "string"}.get(dtype, "integer" if "int" in dtype else dtype)
