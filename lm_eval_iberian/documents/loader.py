"""One loader for all documents: a mirror folder, else the Hub, else an error that says what to do.

    IBERIAN_DATA=samples    the embedded samples (tasks/*/samples), written for this project
    IBERIAN_DATA=DIR        a mirror: DIR/<owner>/<name>/<config>/<split>.jsonl (or .parquet)
    (not set)               the Hub, or its cache with HF_HUB_OFFLINE=1
    IBERIAN_ROWS=any        read a data set whose number of rows is not the known one, and say so in the results
    IBERIAN_REVISIONS=...   read another revision than the suite's (revisions.py)

A config is called `default` if the data set has none. A mirror may hold only some data sets; the others come from the
Hub. Samples stand alone: what is not among them is an error, never a silent download. Everything that is read is
compared with the manifest of its task (manifests.py), except for the number of rows of samples.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_iberian.documents import hub, manifests, mirrors
from lm_eval_iberian.documents.manifests import Manifest
from lm_eval_iberian.documents.revisions import Wanted
from lm_eval_iberian.documents.revisions import wanted as wanted_revision
from lm_eval_iberian.documents.trouble import explain
from lm_eval_iberian.errors import DocumentsError as DocumentsError
from lm_eval_iberian.errors import NotToBeHad as NotToBeHad
from lm_eval_iberian.folders import task_folders

if TYPE_CHECKING:
    from datasets import Dataset

VARIABLE = "IBERIAN_DATA"
ROWS_VARIABLE = "IBERIAN_ROWS"
SAMPLES = "samples"
SUFFIXES = (".jsonl", ".parquet")
LARGEST_FILE_BYTES = 1 << 30


class Documents(dict[str, "Dataset"]):
    """split name -> datasets.Dataset, and where they came from.

    Args:
        origin: "samples", the mirror's folder or "Hub"; the last two with "@" and the commit if it is known.
        revision: "<Hub id>@<commit>" of what was read; empty if no commit is known.
        differences: what differs from the manifest and was accepted (IBERIAN_ROWS=any), and texts that are not there.
        notes: what stands beside a score although nothing is wrong: that the data set is not pinned.
    """

    origin: str = ""
    revision: str = ""
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def load(
    path: str,
    config: str | None = None,
    splits: Iterable[str] = (),
    columns: Mapping[str, str] | None = None,
    wanted: Wanted | None = None,
    task: str = "TASK",
) -> Documents:
    """The documents of a data set.

    Args:
        path: its Hub id, e.g. "HiTZ/EusTrivia".
        config: its configuration; None or "default" if it has none.
        splits: the splits that must be there.
        columns: name -> type of the columns wanted, if not all of the manifest's are.
        wanted: the revision; None: the one that the environment or the suite names (revisions.py).
        task: who reads it, for messages.
    Raises:
        DocumentsError: the data set cannot be had, lacks a split, has a damaged file, is of another revision than asked
            for, or differs from the manifest.
    """
    config = config or "default"
    manifest = manifests.manifests().get(path)
    wanted = wanted or wanted_revision(path, manifest)
    found, origin, where, commit = _find(path, config, manifest, wanted, task)
    _require_splits(found, list(splits), where)
    named = Documents({split: manifests.with_known_names(data, manifest) for split, data in found.items()})
    named.origin = origin
    if origin != SAMPLES:
        named.revision = f"{path}@{commit}" if commit else ""
        named.notes = _notes(path, wanted, commit)
    if manifest:
        named.differences = _compare(named, list(splits), config, manifest, columns, where)
    return named


def hash_of(splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> str:
    """16 hex digits that stand for documents: every column of every row of these splits, in order."""
    state = hashlib.sha256()
    for split in sorted(splits):
        data: Any = splits[split]
        state.update(f"{split}\n".encode())
        for row in data.to_list() if hasattr(data, "to_list") else data:  # twenty times as fast as row by row
            state.update((json.dumps(row, sort_keys=True, ensure_ascii=False, default=str) + "\n").encode())
    return state.hexdigest()[:16]


def is_samples() -> bool:
    """Whether the embedded samples are in use. Their scores show that everything runs, and nothing else."""
    return os.environ.get(VARIABLE, "").strip() == SAMPLES


def mirror() -> Path | None:
    """The mirror in use. Raises DocumentsError if IBERIAN_DATA names no folder."""
    where = os.environ.get(VARIABLE, "").strip()
    if not where or where == SAMPLES:
        return None
    folder = Path(where).expanduser()
    if not folder.is_dir():
        raise DocumentsError(f"{VARIABLE}={where}: no such folder. Give a mirror, `{SAMPLES}`, or unset it.")
    return folder


Found = tuple[dict[str, "Dataset"], str, str, str | None]


def _find(path: str, config: str, manifest: Manifest | None, wanted: Wanted, task: str) -> Found:
    """The splits, where they came from (in short, and in words for messages), and their commit if it is known."""
    if is_samples():
        samples = _read_folder(_sample_folder(path, config))
        return samples, SAMPLES, f"{path} ({config}) in the embedded samples", None
    folder = mirror()
    if folder and (folder / path / config).is_dir():
        return _read_mirror(folder, path, config, wanted, task)
    try:
        found, commit = hub.read(path, config, manifest, wanted)
    except Exception as error:
        tried = f"not in {VARIABLE}={folder}, and " if folder else ""
        raise NotToBeHad(f"{path} ({config}) cannot be had:\n  {tried}{explain(error, path, config, task)}") from error
    return found, f"Hub@{commit}" if commit else "Hub", f"{path} ({config}) on the Hub", commit


def _read_mirror(folder: Path, path: str, config: str, wanted: Wanted, task: str) -> Found:
    """A configuration in a mirror. If `iberian prefetch` made the mirror, its checksums are compared."""
    key = f"{path}/{config}"
    record = mirrors.read_record(folder)
    changed = mirrors.changed_files(folder, key, record)
    if changed:
        raise DocumentsError(
            f"{folder / key}: {', '.join(changed)} is not as it was fetched (checksum). "
            "Run the same `iberian prefetch` again."
        )
    if other := mirrors.other_files(folder, key, record, SUFFIXES):
        raise DocumentsError(
            f"{folder / key}: {', '.join(other)} was not fetched with the others ({mirrors.FILE}), and would be read as of "
            "their commit. Remove it, or put it into a mirror of its own."
        )
    commit = mirrors.commit(record, key)
    if wanted.named_by and wanted.revision not in (commit, mirrors.asked(record, key)):
        raise DocumentsError(
            f"{folder / key} holds {f'commit {commit}' if commit else 'files of no known revision'}, and "
            f"{wanted.revision} is asked for ({wanted.named_by}).\n  With a network:  "
            f"IBERIAN_REVISIONS={path}={wanted.revision} iberian prefetch --tasks {task} --out {folder}"
        )
    return _read_folder(folder / key), f"{folder}@{commit}" if commit else str(folder), str(folder / key), commit


def _notes(path: str, wanted: Wanted, commit: str | None) -> tuple[str, ...]:
    """What the reader of a score must know about the revision; nothing if it is the pinned one."""
    if wanted.commit and wanted.commit == commit:
        return ()
    if commit is None:
        return (f"not pinned: {path}, of no known revision",)
    if wanted.commit:
        return (f"not as pinned: {path} read at commit {commit}, not {wanted.commit}",)
    return (f"not pinned: {path} read at commit {commit}",)


def _sample_folder(path: str, config: str) -> Path:
    """The samples of a config. Configs that differ only in subject (`eu_opebilbaoeu`) share those of `eu` or `default`."""
    for name in (config, config.split("_", maxsplit=1)[0], "default"):
        for folder in (found for tasks in task_folders() for found in tasks.glob(f"*/samples/{path}/{name}")):
            return folder
    raise DocumentsError(
        f"{path} ({config}): there are no embedded samples of it. Unset {VARIABLE} to read it from the Hub, "
        f"or point {VARIABLE} at a mirror that holds {path}/{config}/."
    )


def _require_splits(found: Mapping[str, Dataset], wanted: list[str], where: str) -> None:
    missing = [split for split in wanted if split not in found]
    if missing:
        raise DocumentsError(
            f"{where}: no split {', '.join(missing)}; there is {', '.join(sorted(found)) or 'nothing'}. "
            "Add the file to the mirror, or update it."
        )
    empty = [split for split in wanted if len(found[split]) == 0]
    if empty:
        raise DocumentsError(f"{where}: split {', '.join(empty)} holds no documents.")


def _compare(
    found: Documents, wanted: list[str], config: str, manifest: Manifest, columns: Mapping[str, str] | None, where: str
) -> tuple[str, ...]:
    """Accepted differences from the manifest. Raises DocumentsError for all others."""
    splits = {split: found[split] for split in wanted or found}
    said = [
        f"split {s}: {word}" for s, data in splits.items() for word in manifests.wrong_columns(data, manifest, columns)
    ]
    if said:
        raise DocumentsError(
            f"{where} is not as the task reads it ({manifest.file.parent.name}/{manifest.file.name}): "
            f"{'; '.join(said)}. "
            "The data set has changed, or the mirror holds another one: get the revision that has these columns."
        )
    rows = [] if found.origin == SAMPLES else manifests.wrong_rows(splits, config, manifest)
    if rows and os.environ.get(ROWS_VARIABLE, "").strip() != "any":
        raise DocumentsError(
            f"{where}: {'; '.join(rows)} ({manifest.file.parent.name}/{manifest.file.name}). A file cut short is "
            f"fetched again with `iberian prefetch`; if the data set has changed, {ROWS_VARIABLE}=any reads it all the "
            "same and marks the score."
        )
    nulls = [f"split {s}: {word}" for s, data in splits.items() for word in manifests.nulls(data, manifest, columns)]
    return (*rows, *nulls)


def _read_folder(folder: Path) -> dict[str, Dataset]:
    files = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)
    if not files:
        raise DocumentsError(
            f"{folder}: no .jsonl or .parquet files. A mirror holds one file a split, e.g. test.jsonl."
        )
    for first, second in itertools.pairwise(files):  # sorted: files of one split are neighbours
        if first.stem == second.stem:
            raise DocumentsError(
                f"{folder}: {first.name} and {second.name} are both the split {first.stem}. Remove the one that is not meant."
            )
    return {file.stem: _read_file(file) for file in files}


def _read_file(file: Path) -> Dataset:
    from datasets import Dataset

    if file.stat().st_size > LARGEST_FILE_BYTES:
        raise DocumentsError(f"{file}: over {LARGEST_FILE_BYTES >> 30} GiB, which no data set of the suite is.")
    if file.suffix == ".parquet":
        try:
            return hub.read_parquet(file)
        except (OSError, ValueError) as error:
            raise DocumentsError(f"{file}: not a whole parquet file ({error}). Copy it again.") from None
    try:
        return Dataset.from_list(_read_lines(file))
    except (TypeError, ValueError, OverflowError) as error:
        raise DocumentsError(f"{file}: its lines do not have the same columns and types ({error}).") from None


def _read_lines(file: Path) -> list[dict[str, Any]]:
    documents = []
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise DocumentsError(f"{file}: not UTF-8 text. Copy it again.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DocumentsError(f"{file}, line {number}: not JSON ({error}). Copy the file again.") from None
        if not isinstance(document, dict):
            kind = type(document).__name__
            raise DocumentsError(f"{file}, line {number}: a document is a JSON object, not a {kind}.")
        documents.append(document)
    return documents
