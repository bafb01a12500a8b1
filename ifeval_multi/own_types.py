"""Instruction types that one language brings: a Python file beside its pack, with the pack's name.

`languages/fr.yaml` is French; `languages/fr.py`, where there is one, holds

    TYPES      a tuple of OwnType: the types that only this language has
    PUBLISHED  optional: {id: check}, where published code of this language differs from Google's; used in the edition
               `original`, for ids with the language's prefix ("fr:detectable_format:title")

A check takes (response, arguments, pack) and gives a Verdict, as those in checks/ do.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ifeval_multi.errors import PackError
from ifeval_multi.instructions import INSTRUCTIONS, InstructionType
from ifeval_multi.verdict import Verdict

OwnCheck = Callable[[str, Mapping[str, Any], Any], Verdict]  # the last is the Pack, whose module imports this one
_FIX = "See ifeval_multi/languages/fr.py for the form."


@dataclass(frozen=True)
class Example:
    """An answer, whether it follows, and the arguments of the instruction that it follows or not."""

    answer: str
    followed: bool
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OwnType:
    """A type of one language.

    Args:
        kind: its id and arguments.
        check: is it followed?
        examples: answers that `iberian ifeval check` tries; at least one that follows and one that does not.
        published: what published code checks instead, where there is any: the edition `original`.
    """

    kind: InstructionType
    check: OwnCheck
    examples: tuple[Example, ...]
    published: OwnCheck | None = None


@dataclass(frozen=True)
class OwnTypes:
    """What the file beside a pack holds; empty where there is none."""

    types: Mapping[str, OwnType] = field(default_factory=dict)
    published: Mapping[str, OwnCheck] = field(default_factory=dict)


def file_beside(pack: Path) -> Path:
    """The file that holds a pack's own types: packs/fr.py for packs/fr.yaml."""
    return pack.with_suffix(".py")


def read_own_types(pack: Path) -> OwnTypes:
    """The types in the file beside a pack.

    Raises:
        PackError: the file cannot be run, or does not hold what it must.
    """
    file = file_beside(pack)
    if not file.is_file():
        return OwnTypes()
    module = _run(file)
    listed = getattr(module, "TYPES", ())
    published = getattr(module, "PUBLISHED", {})
    if not all(isinstance(one, OwnType) for one in listed):
        raise PackError(str(file), "TYPES holds something that is no OwnType.", _FIX)
    if not isinstance(published, Mapping):
        raise PackError(str(file), "PUBLISHED is no mapping of ids to checks.", _FIX)
    for one in listed:
        if {example.followed for example in one.examples} != {True, False}:
            raise PackError(str(file), f"{one.kind.id} lacks examples.", "Give one that follows and one that does not.")
    taken = [one.kind.id for one in listed if one.kind.id in INSTRUCTIONS]
    if taken:
        raise PackError(str(file), f"{taken[0]!r} is a type of every language already.", "Choose another id.")
    strange = [name for name in published if name not in INSTRUCTIONS]
    if strange:
        raise PackError(str(file), f"PUBLISHED names {strange[0]!r}, which is no type of every language.", _FIX)
    return OwnTypes({one.kind.id: one for one in listed}, dict(published))


def _run(file: Path) -> Any:
    """The file as a module of its own: packs may lie anywhere, and two may share a name."""
    found = importlib.util.spec_from_file_location(f"ifeval_multi_types_{file.stem}", file)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except Exception as error:  # whatever its author's code raises is told with the file's name
        raise PackError(str(file), f"cannot be run: {type(error).__name__}: {error}.", _FIX) from error
    return module
