"""change_case:* of the corrected edition: upper case, lower case, words in capitals.

The language is checked as well, as the type's name says: the one that the prompt names, and where
it names none, the language of the prompt. 38 of the 64 Basque and Galician case prompts ask for
English; there English is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ifeval_multi.language_id import is_language
from ifeval_multi.pack import Pack
from ifeval_multi.relations import compare
from ifeval_multi.text import fold, normalise, words
from ifeval_multi.verdict import Verdict


def english_capital(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """No lower-case letter (ª and º have no upper case), and the language asked."""
    text = _without(normalise(response), pack.caseless)
    if text.isupper():
        return _in_language(response, arguments, pack)
    culprit = next((word for word in text.split() if any(map(str.islower, word))), "")
    return Verdict(False, f"not in capitals: {culprit[:40]!r}" if culprit else "no letters")


def english_lowercase(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """No upper-case letter, and the language asked."""
    text = _without(normalise(response), pack.caseless)
    if text.islower():
        return _in_language(response, arguments, pack)
    culprit = next((word for word in text.split() if any(map(str.isupper, word))), "")
    return Verdict(False, f"not in lower case: {culprit[:40]!r}" if culprit else "no letters")


def capital_word_frequency(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """As many words in capitals as asked; a word has two letters, so "I" and "A" are none."""
    text = normalise(response)
    found = [] if text.islower() else [word for word in words(text, pack) if is_capital_word(word)]
    noun = "words in capitals"
    return compare(len(found), arguments, "capital_frequency", "capital_relation", noun)


def is_capital_word(word: str) -> bool:
    return word.isupper() and sum(map(str.isalpha, word)) > 1


def asked_language(prompt: str, pack: Pack) -> str:
    """The code of the language that a prompt names for its answer; else the pack's own."""
    folded = f" {fold(prompt)} "
    own = any(name in folded for name in pack.this_language)
    english = any(name in folded for name in pack.english)
    return "en" if english and not own else pack.code


def _in_language(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    code = str(arguments.get("language") or asked_language(str(arguments.get("prompt", "")), pack))
    return is_language(response, code)


def _without(text: str, caseless: str) -> str:
    for sign in caseless:
        text = text.replace(sign, "")
    return text
