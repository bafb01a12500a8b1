"""The lists of faults fit the code: each can be put in, and names tests that are there. `make mutants` runs them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from tests.mutants.lists import HERE, ROOT, Mutant, parses, read


@pytest.mark.parametrize("name", sorted(path.stem for path in HERE.glob("*.yml")))
def test_every_fault_can_be_put_in(name: str) -> None:
    wrong = [word for mutant in read([name]) for word in problems(mutant)]
    assert not wrong, "\n".join(wrong)


def test_no_fault_is_listed_twice() -> None:
    counts = Counter((mutant.file, mutant.was, mutant.now) for mutant in read())
    assert [one for one, count in counts.items() if count > 1] == []


@pytest.mark.slow
def test_the_named_tests_are_fast_ones() -> None:
    """Others are left out when the faults are put in, and then nobody looks whether these are noticed."""
    named = {test for mutant in read() for test in mutant.tests.split()}
    files = sorted({test.partition("::")[0] for test in named})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "not slow and not nightly", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    found = [line for line in done.stdout.splitlines() if "::" in line]
    lacking = {
        test for test in named if not any(f"{one}[".startswith((f"{test}::", f"{test}[", f"{test}/")) for one in found)
    }
    assert found and lacking == set(), done.stderr[-2000:]


def problems(mutant: Mutant) -> list[str]:
    try:
        text = mutant.applied((ROOT / mutant.file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return [str(error)]
    said = [] if parses(mutant.file, text) else [f"{mutant.name}: it does not parse"]
    for test in mutant.tests.split():
        path, *names = test.partition("[")[0].split("::")
        if not (ROOT / path).exists():
            said.append(f"{mutant.name}: {path} is not there")
        elif lacking := [name for name in names if f" {name}(" not in (ROOT / path).read_text(encoding="utf-8")]:
            said.append(f"{mutant.name}: {path} has no {', '.join(lacking)}")
    return said


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, ""),
        ({"was": "no such text"}, "occurs 0 times"),
        ({"was": "ValueError:"}, "occurs 2 times"),
        ({"now": "def read("}, "the same as"),
        ({"now": "def ("}, "does not parse"),
        ({"tests": "tests/test_none.py"}, "is not there"),
        ({"tests": "tests/test_mutants.py::test_none"}, "has no test_none"),
    ],
)
def test_what_does_not_fit_is_told(changed: dict[str, str], told: str) -> None:
    fits = Mutant("x:1", "tests/mutants/lists.py", "def read(", "def write(", "", "tests/test_mutants.py::problems")
    said = problems(replace(fits, **changed))
    assert told in said[0] if told else said == []
