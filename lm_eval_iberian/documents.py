"""One loader for all documents: a mirror folder, else the Hub, else an error that says what to do.

    IBERIAN_DATA=samples    the embedded samples (tasks/*/samples), written for this project
    IBERIAN_DATA=DIR        a mirror: DIR/<owner>/<name>/<config>/<split>.jsonl (or .parquet)
    (not set)               the Hub, or its cache with HF_HUB_OFFLINE=1

A config is called `default` where the data set has none. A mirror may hold some data sets only: the others come
from the Hub. Samples stand alone: what is not among them is an error, never a silent download.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_iberian.plugin import tasks_folder

if TYPE_CHECKING:
    from datasets import Dataset

VARIABLE = "IBERIAN_DATA"
SAMPLES = "samples"
SUFFIXES = (".jsonl", ".parquet")


class DocumentsError(Exception):
    """Documents cannot be had or read. Says what is wrong, where, and how to mend it."""

    for_people = True


def load(path: str, config: str | None = None, splits: Iterable[str] = ()) -> dict[str, Dataset]:
    """The documents of a data set.

    Args:
        path: its Hub id, e.g. "HiTZ/EusTrivia".
        config: its configuration; None or "default" where it has none.
        splits: the splits that must be there.
    Returns:
        split name -> datasets.Dataset.
    Raises:
        DocumentsError: nowhere to be had, a split missing, or a damaged file.
    """
    wanted = list(splits)
    config = config or "default"
    where = os.environ.get(VARIABLE, "").strip()
    if where == SAMPLES:
        found = _read_folder(_sample_folder(path, config))
        return _with_splits(found, wanted, f"{path} ({config}) in the embedded samples")
    if where:
        folder = Path(where).expanduser()
        if not folder.is_dir():
            raise DocumentsError(f"{VARIABLE}={where}: no such folder. Give a mirror, `{SAMPLES}`, or unset it.")
        if (folder / path / config).is_dir():
            return _with_splits(_read_folder(folder / path / config), wanted, str(folder / path / config))
    return _with_splits(_from_hub(path, config, where), wanted, f"{path} ({config}) on the Hub")


def is_samples() -> bool:
    """Whether the embedded samples are in use, whose scores mean nothing beyond that everything runs."""
    return os.environ.get(VARIABLE, "").strip() == SAMPLES


def _sample_folder(path: str, config: str) -> Path:
    """The samples of a config; configs that differ only in subject (`eu_opebilbaoeu`) share those of `eu`."""
    for name in (config, config.split("_", maxsplit=1)[0]):
        for folder in tasks_folder().glob(f"*/samples/{path}/{name}"):
            return folder
    raise DocumentsError(
        f"{path} ({config}): there are no embedded samples of it. Unset {VARIABLE} to read it from the Hub, "
        f"or point {VARIABLE} at a mirror that holds {path}/{config}/."
    )


def _read_folder(folder: Path) -> dict[str, Dataset]:
    files = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)
    if not files:
        raise DocumentsError(f"{folder}: no .jsonl or .parquet files. A mirror holds one file a split, e.g. test.jsonl.")
    return {file.stem: _read_file(file) for file in files}


def _read_file(file: Path) -> Dataset:
    from datasets import Dataset

    if file.suffix == ".parquet":
        import pyarrow.parquet

        try:
            return Dataset(pyarrow.parquet.read_table(file))
        except (OSError, ValueError) as error:
            raise DocumentsError(f"{file}: not a whole parquet file ({error}). Copy it again.") from None
    try:
        return Dataset.from_list(_read_lines(file))
    except (TypeError, ValueError) as error:
        raise DocumentsError(f"{file}: its lines do not have the same columns and types ({error}).") from None


def _read_lines(file: Path) -> list[dict[str, Any]]:
    documents = []
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise DocumentsError(f"{file}: not UTF-8 text. Copy it again.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except json.JSONDecodeError as error:
            raise DocumentsError(f"{file}, line {number}: not JSON ({error.msg}). Copy the file again.") from None
        if not isinstance(document, dict):
            raise DocumentsError(f"{file}, line {number}: a document is a JSON object, not a {type(document).__name__}.")
        documents.append(document)
    return documents


def _with_splits(found: dict[str, Dataset], wanted: list[str], where: str) -> dict[str, Dataset]:
    missing = [split for split in wanted if split not in found]
    if missing:
        raise DocumentsError(
            f"{where}: no split {', '.join(missing)}; there is {', '.join(sorted(found)) or 'nothing'}. "
            "Add the file to the mirror, or update it."
        )
    empty = [split for split in wanted if len(found[split]) == 0]
    if empty:
        raise DocumentsError(f"{where}: split {', '.join(empty)} holds no documents.")
    return found


def _from_hub(path: str, config: str, mirror: str) -> dict[str, Dataset]:
    from datasets import load_dataset

    try:
        return dict(load_dataset(path, None if config == "default" else config))
    except Exception as error:
        raise DocumentsError(_explain(error, path, config, mirror)) from error


def _explain(error: Exception, path: str, config: str, mirror: str) -> str:
    """What is to be done when a data set is not to be had: what to accept, which variable to set."""
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    tried = f"not in {VARIABLE}={mirror}, and from the Hub" if mirror else "from the Hub"
    if "gated" in text.lower() or "401" in text or "403" in text:
        mend = f"Accept its terms at https://huggingface.co/datasets/{path} and log in with `hf auth login`"
    elif "script" in text.lower():
        mend = "It is a loading script, which `datasets` no longer runs"
    else:
        mend = "With no network, fetch it elsewhere first"
    return (
        f"{path} ({config}) cannot be had: {tried} came {text}. {mend}; or put it into a mirror as "
        f"DIR/{path}/{config}/SPLIT.jsonl and set {VARIABLE}=DIR; or set {VARIABLE}={SAMPLES} to try things out."
    )
