"""The results files among files and folders, however lm_eval 0.4.13 named them (lm_eval/loggers/evaluation_tracker.py).

    found = find_runs([Path("out")])     # found.runs, found.left_out: {reason: [file, ...]}

`--output_path DIR` gives DIR/MODEL/results_DATE.json, `--output_path DIR/NAME.json` gives DIR/NAME_DATE.json, and either
samples_TASK_DATE.jsonl beside it, which is no results file. So in a folder every .json file is looked into.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from lm_eval_iberian.scores.results import Run, SuiteError, read_run

NO_RESULTS = "no results of lm_eval"
WHERE = "`lm_eval --output_path` writes them: results_DATE.json, or NAME_DATE.json where it was given NAME.json."
# How lm_eval ends a name: _2026-11-28T10-15-00.123456.json
DATED = re.compile(r"_\d{4}-\d\d-\d\dT[\d.-]+\.json$")


@dataclass
class Found:
    """What was found.

    Args:
        runs: each results file once, in the order given.
        left_out: reason -> the files that were not taken for it.
    """

    runs: list[Run] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, path: Path, reason: str) -> None:
        files = self.left_out.setdefault(reason, [])
        files += [] if str(path) in files else [str(path)]


def find_runs(given: Iterable[Path]) -> Found:
    """The results files among these files and in these folders, at any depth.

    Raises:
        SuiteError: a file that was given by its name is no results file, or a folder holds none.
    """
    found = Found()
    for path in given:
        if not path.is_dir():
            found.runs.append(read_run(path))
        elif sum(_look_into(found, file) for file in _files(found, path)) == 0:
            raise SuiteError(f"{path}: no results of lm_eval in it{_why(found)}. {WHERE}")
    return found


def _why(found: Found) -> str:
    said = [f"{reason}: {', '.join(files[:3])}" for reason, files in found.left_out.items() if reason != NO_RESULTS]
    return f" ({'; '.join(said)})" if said else ""


def _files(found: Found, folder: Path) -> Iterator[Path]:
    """Every file that may hold results, and samples, in order; links to folders are followed, each folder once."""
    named: list[Path] = []
    seen = {os.path.realpath(folder)}

    def unreadable(error: OSError) -> None:
        found.leave_out(Path(error.filename or folder), f"cannot be read ({error.strerror})")

    for place, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        at = Path(place)
        folders[:] = [name for name in sorted(folders) if not _is_among(seen, at / name)]
        named += [at / name for name in files if name.endswith(".json") or fnmatch(name, "samples_*.jsonl")]
    for file in sorted(named):
        if file.is_symlink() and not file.exists():
            found.leave_out(file, "a link to nothing")
        elif file.is_file():
            yield file


def _is_among(seen: set[str], folder: Path) -> bool:
    """Whether a folder was met before, under whatever name; from now on it was."""
    before = len(seen)
    seen.add(os.path.realpath(folder))
    return len(seen) == before


def _look_into(found: Found, file: Path) -> bool:
    """Take a file of a folder if it holds results, or say why not. Whether it does."""
    if file.suffix == ".jsonl":
        found.leave_out(file, "samples, not results")
        return False
    try:
        run = read_run(file)
    except SuiteError as error:
        is_meant = file.name.startswith("results_") or DATED.search(file.name)
        found.leave_out(file, str(error).removeprefix(f"{file}: ").rstrip(".") if is_meant else NO_RESULTS)
        return False
    twin = next((other for other in found.runs if other.data == run.data), None)
    if twin is None:
        found.runs.append(run)
    elif Path(twin.origin).resolve() != file.resolve():
        found.leave_out(file, f"the same run as {twin.origin}")
    return True
