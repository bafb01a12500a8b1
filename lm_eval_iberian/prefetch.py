"""Everything that tasks read, fetched once into a mirror: for nodes without network.

Each data set is read from the Hub as the tasks read it, compared with its manifest, written as parquet under a
temporary name and renamed. What is there with the right checksum is not fetched again, so a broken run is finished
by the same command.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_iberian import documents, mirrors
from lm_eval_iberian.documents import Documents, DocumentsError
from lm_eval_iberian.manifests import kind_of, manifests
from lm_eval_iberian.needs import Need, needs

if TYPE_CHECKING:
    from datasets import Dataset

FLORES, FLORES_COPY = "openlanguagedata/flores_plus", "mteb/FloresBitextMining"


@dataclass(frozen=True)
class Outcome:
    """What became of one configuration.

    Args:
        need: what was wanted.
        state: "fetched", "there" or "failed".
        said: why it failed, or what was taken instead.
    """

    need: Need
    state: str
    said: str = ""


def prefetch(names: Iterable[str], to: Path, progress: Callable[[Need], None] = lambda _: None) -> list[Outcome]:
    """Fetch what tasks and groups read.

    Args:
        names: tasks and groups.
        to: the mirror; made where it is not there.
        progress: called before each configuration.
    Returns:
        an outcome for each configuration; one that failed does not stop the others.
    Raises:
        DocumentsError: an unknown name, or a folder that cannot be written.
    """
    wanted = needs(names)
    try:
        to.mkdir(parents=True, exist_ok=True)
        record = mirrors.read_record(to)
        mirrors.write_record(to, record)
    except OSError as error:
        raise DocumentsError(f"{to}: cannot be written ({error}). Give another folder with --to.") from None
    outcomes = []
    with _from_the_hub_only():
        for need in wanted:
            progress(need)
            outcomes.append(_fetch(need, to, record))
        return _with_flores_copy(outcomes, to, record)


def _fetch(need: Need, to: Path, record: dict[str, Any]) -> Outcome:
    key = f"{need.path}/{need.config}"
    splits = {file.removesuffix(".parquet") for file in (record.get(key) or {}).get("files") or {}}
    if set(need.splits) <= splits and not mirrors.changed_files(to, key, record):
        return Outcome(need, "there")
    if any((to / key).glob("*.jsonl")):  # we write parquet only
        return Outcome(need, "there", f"{to / key} was made by hand and is left as it is")
    try:
        found = documents.load(need.path, need.config, need.splits)
        record[key] = _write(found, need, to)
        mirrors.write_record(to, record)
    except DocumentsError as error:
        return Outcome(need, "failed", str(error))
    except OSError as error:
        raise DocumentsError(f"{to / key}: cannot be written ({error}). Is the disk full?") from None
    return Outcome(need, "fetched", "; ".join(found.differences))


def _write(found: Documents, need: Need, to: Path) -> dict[str, Any]:
    """The splits as parquet files; what the mirror's manifest says of them."""
    folder = to / need.path / need.config
    files = {}
    for split in need.splits:
        content = _as_parquet(found[split])
        mirrors.write_whole(folder / f"{split}.parquet", content)
        files[f"{split}.parquet"] = {
            "sha256": mirrors.checksum(folder / f"{split}.parquet"), "rows": len(found[split]), "bytes": len(content),
        }  # fmt: skip
    manifest = manifests().get(need.path)
    return {
        "revision": found.origin.removeprefix("Hub").removeprefix("@") or (manifest.revision if manifest else None),
        "licence": manifest.licence if manifest else "unknown",
        "columns": {name: kind_of(feature) for name, feature in found[need.splits[0]].features.items()},
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": files,
    }


def _as_parquet(data: Dataset) -> bytes:
    out = io.BytesIO()
    data.to_parquet(out)
    return out.getvalue()


def _with_flores_copy(outcomes: list[Outcome], to: Path, record: dict[str, Any]) -> list[Outcome]:
    """Where FLORES+ could not be had, its ungated copy, too: the tasks read it then, and say so."""
    failed = [outcome.need for outcome in outcomes if outcome.state == "failed" and outcome.need.path == FLORES]
    if not failed:
        return outcomes
    tasks = tuple(dict.fromkeys(task for need in failed for task in need.tasks))
    copy = Need(FLORES_COPY, "default", failed[0].splits, tasks)
    return [*outcomes, _fetch(copy, to, record)]


@contextmanager
def _from_the_hub_only() -> Iterator[None]:
    """No mirror and no samples while fetching."""
    before = os.environ.pop(documents.VARIABLE, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[documents.VARIABLE] = before
