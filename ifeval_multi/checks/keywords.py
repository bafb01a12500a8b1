"""keywords:* of the corrected edition: words are words, letters are letters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ifeval_multi.pack import Pack
from ifeval_multi.relations import compare
from ifeval_multi.text import fold, normalise, occurrences
from ifeval_multi.verdict import Verdict


def existence(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """Every keyword stands in the answer as a word, with the endings the pack allows."""
    folded = fold(response)
    absent = [k for k in arguments["keywords"] if not _count(folded, k, pack)]
    if absent:
        return Verdict(False, f"not found: {', '.join(map(repr, absent))}")
    return Verdict(True, "all keywords found")


def _count(folded: str, keyword: str, pack: Pack) -> int:
    return occurrences(folded, keyword, pack.endings, pack.replaced_final)


def forbidden_words(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """None of the words stands in the answer."""
    folded, endings, replaced = fold(response), pack.forbidden_endings, pack.replaced_final
    words = arguments["forbidden_words"]
    present = [word for word in words if occurrences(folded, word, endings, replaced)]
    if present:
        return Verdict(False, f"forbidden, but found: {', '.join(map(repr, present))}")
    return Verdict(True, "no forbidden word found")


def frequency(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The keyword stands in the answer as often as asked."""
    keyword = arguments["keyword"]
    count = _count(fold(response), keyword, pack)
    return compare(count, arguments, "frequency", "relation", f"times {keyword!r}")


def letter_frequency(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The letter (or sign: # and ! are asked for too) stands in the answer as often as asked.

    The pack says which accented letters are the same letter: Spanish ó is an o, ñ is no n.
    """
    letter = normalise(arguments["letter"]).lower().strip() or arguments["letter"]
    lowered = normalise(response).lower()
    count = sum(lowered.count(sign) for sign in letter_signs(letter, pack))
    return compare(count, arguments, "let_frequency", "let_relation", f"times {letter!r}")


def letter_signs(letter: str, pack: Pack) -> str | list[str]:
    """All signs that count as the letter; a digraph ("tx") counts as it stands."""
    return letter + pack.letter_variants.get(letter, "") if len(letter) == 1 else [letter]
