"""keywords:* of the corrected edition: words are words, letters are letters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ifeval_multi.pack import Pack
from ifeval_multi.relations import compare
from ifeval_multi.text import fold, normalise
from ifeval_multi.verdict import Verdict
from ifeval_multi.word_forms import count as count_word


def existence(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """Every keyword stands in the answer as a word, in one of the forms that the pack gives it."""
    folded = fold(response)
    absent = [keyword for keyword in arguments["keywords"] if not count_word(folded, keyword, pack)]
    if absent:
        return Verdict(False, f"not found: {', '.join(map(repr, absent))}")
    return Verdict(True, "all keywords found")


def forbidden_words(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """None of the words stands in the answer."""
    folded = fold(response)
    present = [word for word in arguments["forbidden_words"] if count_word(folded, word, pack, forbidden=True)]
    if present:
        return Verdict(False, f"forbidden, but found: {', '.join(map(repr, present))}")
    return Verdict(True, "no forbidden word found")


def frequency(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The keyword stands in the answer as often as asked."""
    keyword = arguments["keyword"]
    count = count_word(fold(response), keyword, pack)
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
