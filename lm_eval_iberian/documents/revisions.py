"""Which revision of a data set is read, and who names it. The first of these that names one counts:

    --metadata '{"dataset_revisions": {"HiTZ/EusTrivia": "<commit>"}}'   of one run of lm_eval
    IBERIAN_REVISIONS=HiTZ/EusTrivia=<commit>,...                        or a YAML file of ID: COMMIT
    dataset_kwargs: {revision: <commit>}                                 in the task's own YAML
    tasks/pins.yml                                                       commits seen by `iberian prefetch --out-pins`
    tasks/*/manifest.yml                                                 the suite's own

The first three may also name a branch or a tag. The results record the commit that was read (loader.py).
"""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_iberian.documents.manifests import Manifest, manifests
from lm_eval_iberian.errors import DocumentsError
from lm_eval_iberian.folders import tasks_folder
from merge_hooks.files import read_text
from merge_hooks.yaml_files import read_yaml

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")
VARIABLE = "IBERIAN_REVISIONS"
METADATA_KEY = "dataset_revisions"
PINS = "pins.yml"
NEWEST = "main"
COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Wanted:
    """The revision to read.

    Args:
        revision: a commit, branch or tag; None for the newest.
        named_by: who asked for it, in words; empty if only the suite does.
    """

    revision: str | None = None
    named_by: str = ""

    @property
    def commit(self) -> str | None:
        """The revision, if it is a whole commit: only a commit always means the same documents."""
        return self.revision if self.revision and COMMIT.fullmatch(self.revision) else None


def wanted(path: str, manifest: Manifest | None, asked: Any = None, in_yaml: str | None = None) -> Wanted:
    """The revision of a data set to read.

    Args:
        path: its Hub id.
        manifest: what the suite knows of it.
        asked: the value of "dataset_revisions" in the run's metadata.
        in_yaml: the revision in the task's YAML.
    Raises:
        DocumentsError: what the user wrote cannot be read.
    """
    by_metadata = f"{METADATA_KEY} in --metadata"
    by_user = [
        (by_metadata, _read(asked, by_metadata).get(path) if asked else None),
        (VARIABLE, from_environment().get(path)),
        ("the task's YAML", in_yaml),
    ]
    for named_by, revision in by_user:
        if revision:
            return Wanted(str(revision), named_by)
    revision = pins().get(path) or (manifest.revision if manifest else None)
    return Wanted(None if revision == NEWEST else revision)


def from_environment() -> dict[str, str]:
    """The revisions that IBERIAN_REVISIONS names: Hub id -> revision. Raises DocumentsError."""
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return {}
    return read_pins(Path(text).expanduser()) if "=" not in text else _read(text, VARIABLE)


def pins() -> dict[str, str]:
    """The commits in tasks/pins.yml; none if there is no such file."""
    file = tasks_folder() / PINS
    return read_pins(file) if file.is_file() else {}


def read_pins(file: Path) -> dict[str, str]:
    """A YAML file of ID: COMMIT. Raises DocumentsError."""
    try:
        changed = file.stat().st_mtime_ns
    except (OSError, ValueError) as error:
        raise _no_pins(file, error) from None
    return _read_text(file, changed)


def _no_pins(file: Path, why: object) -> DocumentsError:
    return DocumentsError(
        f"{file}: not a YAML file of data sets and commits, owner/name: COMMIT ({why}). "
        f"{VARIABLE} takes such a file, or owner/name=COMMIT with commas between."
    )


@functools.cache
def _read_text(file: Path, _changed: int) -> dict[str, str]:
    error = functools.partial(_no_pins, file)
    return _read(read_yaml(read_text(file, error), str(file), error) or {}, str(file))


def _read(said: Any, where: str) -> dict[str, str]:
    """A mapping, or `ID=COMMIT,ID=COMMIT`, as a mapping. Raises DocumentsError for anything else."""
    if isinstance(said, str):
        pairs = [part.partition("=") for part in said.split(",") if part.strip()]
        said = {path.strip(): revision.strip() for path, _, revision in pairs}
    if not isinstance(said, Mapping) or not all(
        isinstance(path, str) and path.count("/") == 1 and isinstance(revision, str) and revision
        for path, revision in said.items()
    ):
        raise DocumentsError(
            f"{where}: {said!r} does not say which revision of which data set. Write owner/name=COMMIT, or a mapping "
            "of owner/name to the commit; a commit of digits only goes in quotes."
        )
    _refuse_slips(said, where)
    return dict(said)


def _refuse_slips(said: Mapping[str, str], where: str) -> None:
    """Refuse a name that differs from one of ours only in upper and lower case: its revision would be ignored."""
    known = {path.lower(): path for path in manifests()}
    for path in said:
        if known.get(path.lower(), path) != path:
            raise DocumentsError(f"{where}: {path} is written {known[path.lower()]}.")
        if path not in known.values():
            _say_once(f"{where} names {path}, which no task of the suite reads.")


@functools.cache
def _say_once(words: str) -> None:
    LOG.warning(words)
