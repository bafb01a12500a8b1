"""What each data set holds (tasks/*/manifest.yml), and the comparison with what was read.

A manifest says, for each data set: its licence, the commit of the Hub's that is read (`main` where none is known: see
revisions.py), the columns that the task reads with their types, other names by which a column is known, and for each
configuration the rows of its splits (`null` where no source gives them).
Types: string, integer, strings (a list), choices ({text: [...], label: [...]}); `a | b` where either will do.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_iberian.benchmarks.files import BENCHMARKS, UNMEASURED, Types, checked, fault, manifest_files, read
from lm_eval_iberian.folders import task_folders

if TYPE_CHECKING:
    from datasets import Dataset

KEYS: Types = {
    "revision": str, "licence": str, "columns": dict, "configs": dict, "gated": bool, "parquet": bool, "aliases": dict,
    "file_column": str,
}  # fmt: skip


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
        file_column: where a configuration is a folder of .jsonl files, which are one split, test: the column that gets
            the name of each row's file.
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
    file_column: str = ""


def manifests() -> dict[str, Manifest]:
    """All data sets of all tasks, by Hub id. Raises ManifestError."""
    return _manifests(task_folders())


def unmeasured() -> dict[str, str]:
    """Data sets that manifests name and no task reads, with the reason. Raises ManifestError."""
    found: dict[str, str] = {}
    for file in manifest_files(task_folders()):
        named = read(file).get(UNMEASURED) or {}
        if not isinstance(named, Mapping):
            raise fault(file, UNMEASURED, "should name data sets, each with a reason")
        found |= {str(path): str(reason) for path, reason in named.items()}
    return found


@functools.cache
def _manifests(folders: tuple[Path, ...]) -> dict[str, Manifest]:
    found: dict[str, Manifest] = {}
    for file in manifest_files(folders):
        for path, entry in read(file).items():
            if path not in (BENCHMARKS, UNMEASURED):
                manifest = _manifest(str(path), entry, file)
                found[path] = _joined(found[path], manifest) if path in found else manifest
    return found


def _manifest(path: str, entry: Any, file: Path) -> Manifest:
    """A data set's entry, checked."""
    if path.count("/") != 1:
        raise fault(file, path, f"neither {BENCHMARKS} nor a data set of the Hub, owner/name")
    manifest = Manifest(path, file, **checked(entry, KEYS, ("revision", "columns", "configs"), file, path))
    for config, splits in manifest.configs.items():
        if not isinstance(splits, Mapping) or not all(isinstance(rows, int | None) for rows in splits.values()):
            raise fault(
                file, f"{path}: configs: {config}", f"{splits!r} should name splits and their rows, {{test: 900}}"
            )
    return manifest


def _joined(one: Manifest, other: Manifest) -> Manifest:
    """A data set of which two folders read configurations: all of them. Raises ManifestError where they contradict."""
    if replace(other, file=one.file, configs=one.configs) != one:
        raise fault(other.file, other.path, f"{one.file} says other things of this data set; only configs may differ")
    return replace(one, configs={**one.configs, **other.configs})


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


def nulls(data: Dataset, manifest: Manifest, columns: Mapping[str, str] | None = None) -> list[str]:
    """Each column of texts that is empty in some rows: a prompt would read "None" there."""
    wanted = manifest.columns if columns is None else columns
    texts = [name for name in wanted if kind_of(data.features[name]) in ("string", "strings", "choices")]
    if not texts:
        return []
    table = data.select_columns(texts).with_format("arrow")[:]
    found = {name: _count_nulls(table.column(name)) for name in texts}
    return [
        f'column {name} is null {count:,} times, where prompts say "None"' for name, count in found.items() if count
    ]


def _count_nulls(column: Any) -> int:
    """Nulls of a column, and inside its lists and structs."""
    import pyarrow as pa
    import pyarrow.compute as pc

    count, kind = int(column.null_count), column.type
    column = column.filter(pc.is_valid(column))  # a struct that is null has fields that are
    if pa.types.is_struct(kind):
        count += sum(_count_nulls(pc.struct_field(column, [place])) for place in range(kind.num_fields))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        count += _count_nulls(pc.list_flatten(column))
    return count


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
