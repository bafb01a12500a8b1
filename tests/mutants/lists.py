"""The lists of faults: tests/mutants/NAME.yml, read and checked."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where it was compiled
NEEDED = {"file", "was", "now", "fault", "tests"}


@dataclass(frozen=True)
class Mutant:
    """One small fault in one file.

    Args:
        name: its list and its place there: "scores:12".
        file: the file, from the root of the repository.
        was, now: the text, which occurs once in the file, and what the fault makes of it.
        fault: what is wrong then, in a few words.
        tests: the arguments for pytest.
        argued: why no test needs to notice it; "" for one that has to be noticed.
    """

    name: str
    file: str
    was: str
    now: str
    fault: str
    tests: str
    argued: str = ""

    def applied(self, text: str) -> str:
        """The file's text with the fault in it.

        Raises:
            ValueError: `was` does not occur exactly once, or nothing changes.
        """
        if text.count(self.was) != 1:
            raise ValueError(f"{self.name}: `was` occurs {text.count(self.was)} times in {self.file}: {self.was!r}")
        if self.was == self.now:
            raise ValueError(f"{self.name}: `now` is the same as `was`")
        return text.replace(self.was, self.now)


def read(names: list[str] | None = None) -> list[Mutant]:
    """The mutants of these lists, or of all.

    Args:
        names: lists ("scores"), or single mutants ("scores:12").
    Raises:
        ValueError: a list or a mutant that is not there, a key that is missing or unknown.
    """
    lists = {path.stem: _read(path) for path in sorted(HERE.glob("*.yml"))}
    everything = [mutant for mutants in lists.values() for mutant in mutants]
    chosen: list[Mutant] = []
    for name in names or lists:
        found = lists.get(name) or [mutant for mutant in everything if mutant.name == name]
        if not found:
            raise ValueError(f"{name}: there is no such list. Lists: {', '.join(lists)}")
        chosen += found
    return chosen


@cache
def _read(path: Path) -> list[Mutant]:
    return [_mutant(f"{path.stem}:{number}", row) for number, row in enumerate(yaml.load(path.read_text(), LOADER), 1)]


def _mutant(name: str, row: dict[str, Any]) -> Mutant:
    if wrong := NEEDED - row.keys() | row.keys() - NEEDED - {"argued"}:
        raise ValueError(f"{name}: these keys are missing or unknown: {', '.join(sorted(wrong))}")
    return Mutant(name, **{key: str(value) for key, value in row.items()})


def parses(file: str, text: str) -> bool:
    """Whether a file's text is Python, YAML, or anything else that needs no grammar."""
    try:
        if file.endswith(".py"):
            ast.parse(text)
        elif file.endswith(("yaml", "yml")):
            yaml.compose(text, LOADER)
    except (SyntaxError, yaml.YAMLError):
        return False
    return True
