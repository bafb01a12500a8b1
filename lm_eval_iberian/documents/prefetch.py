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

from lm_eval_iberian.documents import loader as documents
from lm_eval_iberian.documents import mirrors
from lm_eval_iberian.documents.loader import Documents, DocumentsError
from lm_eval_iberian.documents.manifests import kind_of, manifests
from lm_eval_iberian.documents.needs import Need, is_read_by_lm_eval, needs
from lm_eval_iberian.documents.revisions import Wanted, read_pins
from lm_eval_iberian.documents.revisions import wanted as wanted_revision
from merge_hooks.files import write_whole

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
        raise DocumentsError(f"{to}: cannot be written ({error}). Give another folder with --out.") from None
    outcomes = []
    with _from_the_hub_only():
        for need in wanted:
            progress(need)
            outcomes.append(_fetch(need, to, record))
        return _with_flores_copy(outcomes, to, record)


def _fetch(need: Need, to: Path, record: dict[str, Any]) -> Outcome:
    if is_read_by_lm_eval(need):
        said = "lm_eval's own task reads the Hub's cache, not a mirror: run it once with a network"
        return Outcome(need, "failed", said)
    key = f"{need.path}/{need.config}"
    splits = {file.removesuffix(".parquet") for file in (record.get(key) or {}).get("files") or {}}
    wanted = _wanted(need, record)
    same = wanted.revision in (None, mirrors.commit(record, key), mirrors.asked(record, key))
    if same and set(need.splits) <= splits and not mirrors.changed_files(to, key, record):
        return Outcome(need, "there")
    if any((to / key).glob("*.jsonl")):  # we write parquet only
        return Outcome(need, "there", f"{to / key} was made by hand and is left as it is")
    try:
        found = documents.load(need.path, need.config, need.splits, wanted=wanted, task=need.tasks[0])
        record[key] = _write(found, need, to) | {"asked": wanted.revision}
        mirrors.write_record(to, record)
    except DocumentsError as error:
        return Outcome(need, "failed", str(error))
    except OSError as error:
        raise DocumentsError(f"{to / key}: cannot be written ({error}). Is the disk full?") from None
    return Outcome(need, "fetched", "; ".join((*found.differences, *found.notes)))


def _wanted(need: Need, record: dict[str, Any]) -> Wanted:
    """The revision to fetch. All configurations of a data set share one: what is named, else what is there."""
    wanted = wanted_revision(need.path, manifests().get(need.path))
    if wanted.commit or wanted.named_by:
        return wanted
    known = (mirrors.commit(record, key) for key in record if key.rpartition("/")[0] == need.path)
    return Wanted(next((commit for commit in known if commit), wanted.revision))


def _write(found: Documents, need: Need, to: Path) -> dict[str, Any]:
    """Write the splits as parquet files. Returns what the mirror's manifest says of them."""
    folder = to / need.path / need.config
    files = {}
    for split in need.splits:
        content = _as_parquet(found[split])
        write_whole(folder / f"{split}.parquet", content)
        files[f"{split}.parquet"] = {
            "sha256": mirrors.checksum(folder / f"{split}.parquet"), "rows": len(found[split]), "bytes": len(content),
        }  # fmt: skip
    manifest = manifests().get(need.path)
    return {
        "revision": found.revision.partition("@")[2] or None,
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
    """If FLORES+ could not be had, also fetch its ungated copy. The tasks then read the copy, and say so."""
    failed = [outcome.need for outcome in outcomes if outcome.state == "failed" and outcome.need.path == FLORES]
    if not failed:
        return outcomes
    tasks = tuple(dict.fromkeys(task for need in failed for task in need.tasks))
    copy = Need(FLORES_COPY, "default", failed[0].splits, tasks)
    return [*outcomes, _fetch(copy, to, record)]


def pin(outcomes: Iterable[Outcome], mirror: Path, file: Path) -> dict[str, str]:
    """Write down the commits at which data sets were fetched, for IBERIAN_REVISIONS or as tasks/pins.yml.

    Args:
        outcomes: what was fetched, or was there.
        mirror: the mirror that holds them.
        file: YAML of ID: COMMIT; other entries in it stay.
    Returns:
        Hub id -> commit, of these outcomes.
    Raises:
        DocumentsError: one data set has two commits, or a file cannot be read or written.
    """
    record = mirrors.read_record(mirror)
    commits: dict[str, str] = {}
    for need in (outcome.need for outcome in outcomes if outcome.state != "failed"):
        commit = mirrors.commit(record, f"{need.path}/{need.config}")
        if commit and commits.setdefault(need.path, commit) != commit:
            raise DocumentsError(
                f"{mirror / need.path}: at commit {commits[need.path]} and at {commit}. Remove the folder and fetch it again."
            )
    kept = read_pins(file) if file.exists() else {}
    lines = [f"{path}: {commit!r}\n" for path, commit in sorted((kept | commits).items())]
    try:
        write_whole(file, "".join(["# Commits seen by `iberian prefetch --out-pins`.\n", *lines]))
    except OSError as error:
        raise DocumentsError(f"{file}: cannot be written ({error}).") from None
    return commits


@contextmanager
def _from_the_hub_only() -> Iterator[None]:
    """While this lasts, mirror and samples are not read."""
    before = os.environ.pop(documents.VARIABLE, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[documents.VARIABLE] = before
