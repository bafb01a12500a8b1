"""Which tests `make check` runs: the quick ones, and all tests of what was changed since the last commit.

    python -m pytest -p tests.quick
    python -m tests.quick DURATIONS     # writes LEFT_OUT anew, from the output of: make durations

A test of LEFT_OUT runs where one of its files was changed: its own; a file that a list of faults (`mutants`) says it
guards; or the module that it is named after, as `test_suite.py` after `suite.py`. So `make check` notices each of the
listed faults that `make fast` notices.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.mutants.lists import ROOT, read

LEFT_OUT = ROOT / "tests" / "left_out_of_check.txt"
# Seconds, over all cases of a test. Below it lie two thirds of the fast tests, and a tenth of their time.
QUICK = 0.2
_TIME = re.compile(r"([\d.]+)s (?:call|setup|teardown) +(\S+?::[\w:]+)")


def left_out() -> list[str]:
    """Tests that are not quick, as FILE::NAME."""
    return [line for line in LEFT_OUT.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def changed_files() -> list[str]:
    """Files of this checkout that differ from the last commit, new ones included. Without git: none."""
    command = ["git", "status", "--porcelain", "--untracked-files=all", "--no-renames", "-z"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [entry[3:] for entry in done.stdout.split("\0") if entry]


def tests_of(changed: Iterable[str]) -> set[str]:
    """Tests of changed files: FILE, FILE::NAME or folders of tests."""
    files = set(changed)
    found = {file for file in files if file.startswith("tests/")}
    if files - found:
        found |= {test for fault in read() if fault.file in files for test in fault.tests.split()}
    named = {f"test_{Path(file).stem}.py" for file in files if file.endswith(".py")}
    return found | {str(path.relative_to(ROOT)) for name in named for path in (ROOT / "tests").rglob(name)}


def is_of(test: str, wanted: Iterable[str]) -> bool:
    """Whether a test, FILE::NAME, is one of the wanted, lies in one of their files or below one of their folders."""
    return any(test == one.partition("[")[0] or test.startswith((f"{one}::", f"{one}/")) for one in wanted)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slower = set(left_out())
    if not slower.isdisjoint(names := {item.nodeid.partition("[")[0] for item in items}):
        wanted = tests_of(changed_files())
        slower = {name for name in names & slower if not is_of(name, wanted)}
    gone = [item for item in items if item.nodeid.partition("[")[0] in slower]
    config.hook.pytest_deselected(items=gone)
    items[:] = [item for item in items if item.nodeid.partition("[")[0] not in slower]


def measured(lines: Iterable[str]) -> dict[str, float]:
    """FILE::NAME -> seconds, of all its cases, as pytest's `--durations` prints them."""
    total: dict[str, float] = defaultdict(float)
    for line in lines:
        if match := _TIME.match(line):
            total[match[2]] += float(match[1])
    return dict(total)


def main(durations: str) -> None:
    found = measured(Path(durations).read_text(encoding="utf-8").splitlines())
    slower = sorted(name for name, seconds in found.items() if seconds >= QUICK)
    spent = sum(found[name] for name in slower)
    head = (
        f"# Fast tests that `make check` leaves out: {QUICK} s or more over all cases; {spent:.0f} of "
        f"{sum(found.values()):.0f} s.\n# Written by `make durations` (tests/quick.py).\n"
    )
    LEFT_OUT.write_text(head + "".join(f"{name}\n" for name in slower), encoding="utf-8")
    print(f"{LEFT_OUT}: {len(slower)} tests")


if __name__ == "__main__":
    main(*sys.argv[1:])
