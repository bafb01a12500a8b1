"""Comparing a count with what was asked: "at least 3", "less than 10", "como máximo 5".

Google's data say "less than" (<) and "at least" (>=). M-IFEval's Spanish says "al menos" (>=) and
"como máximo" (<=). "Less than" is strict in every language; lm_eval's es and ca sets write it where their code tests
<=, and only the edition `original` follows them there (evaluate.py).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

from ifeval_multi.errors import PackError
from ifeval_multi.verdict import Verdict

COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "less than": operator.lt,
    "at least": operator.ge,
    "at most": operator.le,
    "more than": operator.gt,
    "exactly": operator.eq,
}

# The two relations that published Spanish data write out in Spanish.
FOREIGN_RELATIONS: dict[str, str] = {
    "al menos": "at least",
    "como máximo": "at most",
    "como mucho": "at most",
    "menos de": "less than",
}


def canonical_relation(relation: str) -> str:
    """One of the keys of COMPARISONS; PackError when the word is not known."""
    cleaned = relation.strip().lower()
    cleaned = FOREIGN_RELATIONS.get(cleaned, cleaned)
    if cleaned not in COMPARISONS:
        known = ", ".join([*COMPARISONS, *FOREIGN_RELATIONS])
        raise PackError("relation", f"{relation!r} is not a relation.", f"Use one of: {known}.")
    return cleaned


def compare(count: int, arguments: Mapping[str, object], number: str, relation: str, noun: str) -> Verdict:
    """Verdict on `count` things where arguments[relation] arguments[number] were asked."""
    asked = arguments[number]
    assert isinstance(asked, int)
    name = canonical_relation(str(arguments.get(relation, "at least")))
    return Verdict(COMPARISONS[name](count, asked), f"found {count} {noun}, {name} {asked} asked")


def exactly(count: int, asked: int, noun: str) -> Verdict:
    """Verdict on `count` things where exactly `asked` were asked."""
    return Verdict(count == asked, f"found {count} {noun}, exactly {asked} asked")


def at_least(count: int, asked: int, noun: str) -> Verdict:
    """Verdict on `count` things where at least `asked` were asked."""
    return Verdict(count >= asked, f"found {count} {noun}, at least {asked} asked")
