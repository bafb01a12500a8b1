"""What a path that leads nowhere may have been meant for: "Did you mean toys/basque?"."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import suppress
from glob import escape
from itertools import islice
from pathlib import Path

# Entries of a folder that are looked at, and suggestions that are made.
MOST_ENTRIES = 5000
MOST_SAID = 2


def did_you_mean(path: str, beside: Path | None = None, files: bool = False) -> str:
    """ " Did you mean toys/basque?", or "" where nothing on this machine has a name like that.

    Args:
        path: a folder that is not there, as somebody wrote it.
        beside: a second folder from which relative paths are looked up.
        files: whether a file may have been meant, too.
    """
    starts = dict.fromkeys([Path(), *([beside] if beside is not None else [])])
    found = dict.fromkeys(near for start in starts for near in _near(path, start, files))
    return f" Did you mean {' or '.join(islice(found, MOST_SAID))}?" if found else ""


def _near(path: str, start: Path, files: bool) -> Iterator[str]:
    """Paths that are there, the closest first, written as `path` is."""
    wanted = Path(path).expanduser()
    parts = [part for part in wanted.parts if part != wanted.anchor]
    found = [Path(wanted.anchor)]  # relative to `start`, or absolute
    for place, part in enumerate(parts, 1):
        with_files = files and place == len(parts)
        found = [one / name for one in found for name in _names_like(part, start / one, with_files)]
    if not found and len(parts) == 1 and not wanted.anchor:  # the folder in which it lies was left out
        found = [one.relative_to(start) for one in islice(sorted(start.glob(f"[!.]*/{escape(parts[0])}")), MOST_SAID)]
    yield from (str(one) for one in found if one != wanted)


def _names_like(name: str, folder: Path, files: bool) -> list[str]:
    """The name itself where it is there, else those of this folder that are nearly it."""
    if name == ".." or (folder / name).is_dir() or (files and (folder / name).is_file()):
        return [name]
    there: dict[str, str] = {}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in islice(entries, MOST_ENTRIES):
            if not entry.name.startswith(".") and (entry.is_dir() or (files and entry.is_file())):
                there[entry.name.casefold()] = entry.name
    return [there[near] for near in difflib.get_close_matches(name.casefold(), sorted(there), n=MOST_SAID)]
