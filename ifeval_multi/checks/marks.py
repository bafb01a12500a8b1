"""punctuation:*, special_character:* and language:* of the corrected edition."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from ifeval_multi.language_id import is_language
from ifeval_multi.pack import Pack
from ifeval_multi.relations import compare
from ifeval_multi.text import normalise, words
from ifeval_multi.verdict import Verdict


def no_comma(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """None of the pack's commas, decimal commas included: 3,5 holds a comma."""
    text = unicodedata.normalize("NFKC", normalise(response))  # ﹐ ︐ and ､ are forms of , ， and 、
    count = sum(map(text.count, dict.fromkeys(unicodedata.normalize("NFKC", pack.commas))))
    return Verdict(not count, f"found {count} commas, none allowed")


def question_marks(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """A question, with the opening mark where the language has one."""
    return _enclosed(normalise(response), pack.question_opening, "?", "question")


def exclamation_marks(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """An exclamation, with the opening mark where the language has one."""
    return _enclosed(normalise(response), pack.exclamation_opening, "!", "exclamation")


def _enclosed(text: str, opening: str, closing: str, noun: str) -> Verdict:
    """Something with letters between an opening mark and the next closing one."""
    position = 0
    while (end := text.find(closing, position)) >= 0:
        start = text.rfind(opening, position, end) if opening else position - 1
        if (start >= 0 or not opening) and any(map(str.isalnum, text[start + 1 : end])):
            return Verdict(True, f"found an {noun}" if noun[0] in "aeiou" else f"found a {noun}")
        position = end + 1
    return Verdict(False, f"no {noun} between {opening or 'start'} and {closing}")


def enie(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """As many words with ñ as asked (exactly, unless a relation is given)."""
    return _words_with("ñ", "let_frequency", response, arguments, pack)


def dieresis(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """As many words with ü as asked (exactly, unless a relation is given); Catalan has ï too."""
    signs = "".join(sign for sign in "üï" if sign == "ü" or sign in pack.accented)
    return _words_with(signs, "let_frequency", response, arguments, pack)


def tildes(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """As many words with an accented vowel of the language as asked."""
    signs = "".join(sign for sign in pack.accented if sign not in "üï")
    return _words_with(signs, "num_words", response, arguments, pack)


def _words_with(signs: str, number: str, response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    wanted = frozenset(signs)
    lowered = normalise(response).lower()
    found = words(lowered, pack) if any(sign in lowered for sign in signs) else []
    count = sum(1 for word in found if not wanted.isdisjoint(word))
    relation = {"relation": arguments.get("relation", "exactly")}
    return compare(count, {**arguments, **relation}, number, "relation", f"words with {signs}")


def response_language(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The answer is in the language asked."""
    return is_language(response, str(arguments["language"]))
