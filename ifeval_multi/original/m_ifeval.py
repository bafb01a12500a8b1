"""The original edition of M-IFEval's Spanish checks, which lm_eval's es and ca sets carry too.

Source: lightblue-tech/M-IFEval (Apache-2.0), as in lm_eval/tasks/ifeval/multilingual; semantics
only. It counts words with spaCy's Spanish tokeniser and sentences with spaCy's parser, neither of
which comes without a model of its own; the counts here are made to the same rules by hand, and
README.md gives the agreement measured.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping
from typing import Any

from ifeval_multi.original.spanish_sentences import count_sentences
from ifeval_multi.original.tokens import langdetect_label
from ifeval_multi.pack import Pack
from ifeval_multi.relations import compare, exactly
from ifeval_multi.text import shorten_marks
from ifeval_multi.verdict import Verdict

OPTIONS = ("Sí.", "No.", "Quizás.")
_POSTSCRIPTS = {"P.D.": r"p\.\s?d\.", "Nota": "nota"}
_LIST_MARKER = re.compile(r"^[^\S\n]*(?:\d+\.|[-*])[^\S\n]*", re.MULTILINE)
_BULLET = re.compile(r"^[^\S\n]*\*[^*].*$", re.MULTILINE)
_TOKEN = re.compile(r" {2,}|[^\s]+")
_SYMBOLS = frozenset("$+<=>^`|~€£¥©®°")
_STRIPPED = string.punctuation + "¿¡«»“”‘’…–—·€£¥©®"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def tokens(text: str) -> list[str]:
    """spaCy's Spanish tokens that are not punctuation; a run of spaces is a token to spaCy."""
    return [token for chunk in _TOKEN.findall(text) for token in _parts(chunk)]


def _parts(chunk: str) -> list[str]:
    if chunk.isspace():
        return [chunk]
    core = chunk.strip(_STRIPPED)
    # Signs like $ and < that stand at the edges are split off, and are no punctuation to spaCy.
    signs = [sign for sign in chunk if sign in _SYMBOLS] if core != chunk else []
    return [*signs, core] if core else signs


def number_words(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    count = len(tokens(_LIST_MARKER.sub("", response).replace("\n", " ")))
    return compare(count, arguments, "num_words", "relation", "words (spaCy's way)")


def number_sentences(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    count = count_sentences(_LIST_MARKER.sub("", response), pack)
    return compare(count, arguments, "num_sentences", "relation", "sentences")


def number_bullet_lists(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    count = sum(1 for _ in _BULLET.finditer(response))
    return exactly(count, arguments["num_bullets"], "bullets (only *)")


def constrained_response(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    found = next((option for option in OPTIONS if option in response), None)
    return Verdict(found is not None, f"found {found!r}" if found else f"none of {OPTIONS}")


def postscript(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    marker = str(arguments["postscript_marker"]).strip()
    pattern = _POSTSCRIPTS.get(marker, marker.lower())
    found = re.search(pattern, response.lower())
    return Verdict(bool(found), f"{'found' if found else 'did not find'} /{pattern}/")


def nth_paragraph_first_word(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    pieces = response.split("\n\n")
    count = sum(1 for piece in pieces if piece.strip())
    number = arguments["nth_paragraph"]
    if number > count or not pieces[number - 1].strip():
        return Verdict(False, f"paragraph {number} is missing or empty")
    asked = str(arguments["first_word"]).lower().split()
    found = [w.translate(_NO_PUNCTUATION).lower() for w in pieces[number - 1].split()]
    followed = count == arguments["num_paragraphs"] and found[: len(asked)] == asked
    return Verdict(followed, f"{count} paragraphs, number {number} begins {found[: len(asked)]}")


def end_checker(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    text = response.strip().strip('"').lower().removesuffix(".")
    asked = str(arguments["end_phrase"]).strip().lower()
    followed = text.endswith(asked)
    return Verdict(followed, f"{'ends' if followed else 'does not end'} with {asked!r}")


def capital(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    apart = unicodedata.normalize("NFKD", shorten_marks(response))
    signs = (sign for sign in apart if not unicodedata.combining(sign))
    if not all(sign.isupper() or not sign.isalpha() for sign in signs):
        return Verdict(False, "not in capitals")
    found = langdetect_label(response.lower())
    return Verdict(found in (pack.code, None), f"identified as {found!r}")


def lowercase(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    if not response.islower():
        return Verdict(False, "not in lower case")
    found = langdetect_label(response)
    return Verdict(found in (pack.code, None), f"identified as {found!r}")


def response_language(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    found = langdetect_label(response)
    return Verdict(found in (arguments["language"], None), f"identified as {found!r}")


def capital_word_frequency(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    count = sum(map(str.isupper, tokens(response)))
    noun = "words in capitals"
    return compare(count, arguments, "capital_frequency", "capital_relation", noun)


def question_marks(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    return _enclosed(response, "¿", "?")


def exclamation_marks(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    return _enclosed(response, "¡", "!")


def _enclosed(text: str, opening: str, closing: str) -> Verdict:
    position = 0
    while (start := text.find(opening, position)) >= 0:
        end = text.find(closing, start)
        if end < 0:
            break
        if text[start:end].lstrip(opening).strip():
            return Verdict(True, f"found {opening}{closing}")
        position = end + 1
    return Verdict(False, f"nothing between {opening} and {closing}")


def enie(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    count = sum("ñ" in token.lower() for token in tokens(response))
    return exactly(count, arguments["let_frequency"], "words with ñ")


def dieresis(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    count = sum("ü" in token.lower() for token in tokens(response))
    return exactly(count, arguments["let_frequency"], "words with ü")


def tildes(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    accented = frozenset("áéíóúÁÉÍÓÚ")
    count = sum(not accented.isdisjoint(token) for token in tokens(response))
    return compare(count, arguments, "num_words", "relation", "words with a tilde")
