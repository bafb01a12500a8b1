"""Hashes: of values (canonical JSON, SHA-256) and of files (xxh3-128, once a process).

Every key and stamp of a merge is made of these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any


def template_hash(template: Any) -> str:
    """A hash of a chat template (8 hex digits), or "none"."""
    return digest(template) if template else "none"


def digest(value: Any, length: int = 8) -> str:
    """SHA-256 of a value's canonical JSON, cut to `length` hex digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


_HASHES: dict[Hashable, str] = {}


def hash_once(state: Hashable, folder: Path, files: list[str]) -> str:
    """`content_hash`, once a process for files in this state: every swap asks for it, and it reads gigabytes."""
    return _once(state, lambda: content_hash(folder, files))


def file_hash_once(path: Path) -> str:
    """`file_hash`, once a process for a file in this state."""
    return _once(("file", file_stamp(path)), lambda: file_hash(path))


def _once(state: Hashable, hashed: Callable[[], str]) -> str:
    if state not in _HASHES:
        _HASHES[state] = hashed()
    return _HASHES[state]


def file_stamp(path: Path) -> tuple[str, int, int, int, int]:
    """A file's path, size, times of change (of content, and of anything) and inode; zeros if there is no such file."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return str(path), 0, 0, 0, 0
    return str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def content_hash(folder: Path, files: list[str]) -> str:
    """xxh3-128 over the files' names and bytes, the files in parallel, cut to 16 hex digits."""
    from concurrent.futures import ThreadPoolExecutor

    import xxhash

    present = [file for file in files if (folder / file).is_file()]
    with ThreadPoolExecutor(max_workers=4) as pool:
        hashes = pool.map(lambda file: f"{file}:{file_hash(folder / file)}", present)
        return xxhash.xxh3_128("\n".join(hashes).encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """xxh3-128 of a file's bytes, 32 hex digits."""
    import xxhash

    state = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(1 << 24):
            state.update(block)
    return state.hexdigest()
