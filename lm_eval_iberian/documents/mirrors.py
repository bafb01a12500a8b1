"""A mirror's own manifest, DIR/manifest.json: what was fetched, at which revision, with checksums.

A mirror made by hand has none, and is read all the same.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from merge_hooks.files import write_whole

FILE = "manifest.json"


def read_record(mirror: Path) -> dict[str, Any]:
    """ "path/config" -> {"revision", "asked", "licence", "columns", "files": {name: {"sha256", "rows", "bytes"}}}.

    Empty where there is none, or where it is damaged: then everything is fetched again.
    """
    try:
        record = json.loads((mirror / FILE).read_text(encoding="utf-8"))["data_sets"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(mirror: Path, record: dict[str, Any]) -> None:
    """Replace the manifest, whole or not at all."""
    text = json.dumps({"format": 1, "data_sets": dict(sorted(record.items()))}, indent=1, ensure_ascii=False)
    write_whole(mirror / FILE, text)


def commit(record: dict[str, Any], key: str) -> str | None:
    """The commit at which a configuration was fetched, if it is known."""
    return (record.get(key) or {}).get("revision")


def asked(record: dict[str, Any], key: str) -> str | None:
    """The revision that was asked for when the configuration was fetched: a commit, a branch or a tag."""
    return (record.get(key) or {}).get("asked")


def changed_files(mirror: Path, key: str, record: dict[str, Any]) -> list[str]:
    """The files of a configuration that are missing or differ from what was fetched."""
    files = (record.get(key) or {}).get("files") or {}
    return [name for name, said in files.items() if checksum(mirror / key / name) != said.get("sha256")]


def other_files(mirror: Path, key: str, record: dict[str, Any], suffixes: tuple[str, ...]) -> list[str]:
    """Documents in a configuration's folder that were not fetched; none where it was made by hand."""
    files = (record.get(key) or {}).get("files") or {}
    there = sorted(file.name for file in (mirror / key).iterdir() if file.suffix in suffixes)
    return [name for name in there if name not in files] if files else []


def checksum(path: Path) -> str | None:
    """SHA-256 of a file; None if there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
