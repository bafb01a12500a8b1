"""French: the five types that only M-IFEval's French has, and where its published code differs from Google's.

Source of ids and of what is published: lightblue-tech/M-IFEval (Apache-2.0); semantics only, the code is ours. Each
type has a corrected check first and the published one after it. README.md says how the two differ.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from ifeval_multi.instructions import TEXT, TEXT_TO_TEXT, InstructionType
from ifeval_multi.original.tokens import langdetect_label
from ifeval_multi.own_types import Example, OwnType
from ifeval_multi.pack import Pack
from ifeval_multi.text import fold, normalise, words
from ifeval_multi.verdict import Verdict

_CEDILLA = "\u0327"
_TU = frozenset(["tu", "te", "t'", "toi", "ton", "ta", "tes", "tien", "tienne", "tiens", "tiennes"])
_VOUS = frozenset(["vous", "votre", "vos", "vôtre", "vôtres"])
_NO_ADDRESS = re.compile(r"\b(?:rendez-vous|s'il vous plaît|garde-à-vous)\b")
_PUBLISHED_TU = re.compile(r"\b(?:tu|te|t'|toi|ton|ta|tes)\b", re.IGNORECASE)
_PUBLISHED_ACCENTS = frozenset("àáâãäåçèéêëìíîïñòóôõöùúûüýÿÀÁÂÃÄÅÇÈÉÊËÌÍÎÏÑÒÓÔÕÖÙÚÛÜÝ")
_PUBLISHED_OPTIONS = ("Oui.", "Non.", "Peut-être.")


def no_accents(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """No letter with an accent or a tréma; the cedilla is no accent, and ñ of a Spanish name has one."""
    text = unicodedata.normalize("NFD", normalise(response))
    found = [text[place - 1] for place, sign in enumerate(text) if unicodedata.combining(sign) and sign != _CEDILLA]
    return Verdict(not found, f"found {len(found)} letters with an accent, none allowed")


def published_no_accents(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    found = sum(1 for sign in response if sign in _PUBLISHED_ACCENTS)
    return Verdict(not found, f"found {found} letters of the published list, none allowed")


def accents(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """Words of word_to_accentuate stand in the answer with their accents, and none of them with others or without.

    Not each must be there: published data have "leçon" for a text that says "leçons".
    """
    rights = {fold(right) for right in arguments["word_to_accentuate"].values()}
    bare = {_without_accents(right): right for right in rights}
    found = set(words(fold(response), pack))
    wrong = [word for word in sorted(found - rights) if _without_accents(word) in bare]
    if wrong:
        return Verdict(False, f"found {wrong[0]!r}, {bare[_without_accents(wrong[0])]!r} asked")
    return Verdict(bool(rights & found), f"found {len(rights & found)} of {len(rights)} words with their accents")


def published_accents(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    wanted = arguments["word_to_accentuate"]
    for word in re.findall(r"\b\w+\b", response.lower()):
        right = wanted.get(_without_accents(word), word)
        if word != right:
            return Verdict(False, f"found {word!r}, {right!r} asked")
    return Verdict(True, "no word of the list lacks its accents")


def _without_accents(word: str) -> str:
    return "".join(sign for sign in unicodedata.normalize("NFD", word) if not unicodedata.combining(sign))


def ethel_or_cedilla(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The letter (œ or ç) stands nowhere, in neither case and in neither Unicode form."""
    return _free_of(normalise(response), normalise(arguments["forbidden_char"]))


def published_ethel_or_cedilla(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    return _free_of(response, arguments["forbidden_char"])


def _free_of(text: str, letter: str) -> Verdict:
    count = text.lower().count(letter.lower())
    return Verdict(not count, f"found {letter!r} {count} times, not once allowed")


def informal_address(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The answer says tu, te, toi, ton ... to its reader, and more often than vous; an imperative alone is not seen.

    vous is no fault by itself: it is also the plural of tu ("toi et tes amis, vous ...") and what others are quoted
    with.
    """
    text = _NO_ADDRESS.sub(" ", fold(response))
    found = re.findall(r"\bt(?=')|\w+", text)
    familiar = sum(1 for word in found if word in _TU or word == "t")
    formal = sum(1 for word in found if word in _VOUS)
    return Verdict(familiar > formal, f"found {familiar} forms of tu and {formal} of vous")


def published_informal_address(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    found = _PUBLISHED_TU.search(response)
    return Verdict(bool(found), f"found {found.group()!r}" if found else "no form of tu")


def no_digits(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """No Arabic digit, in list numbers and exponents neither."""
    count = sum(map(str.isdigit, response))
    return Verdict(not count, f"found {count} digits, none allowed")


def published_no_digits(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    count = sum(map(str.isdecimal, response))
    return Verdict(not count, f"found {count} digits, none allowed")


def published_capital(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    if not response.isupper():
        return Verdict(False, "not in capitals")
    found = langdetect_label(response.lower())  # langdetect knows no capitals: it takes them for German or Catalan
    return Verdict(found in (pack.code, None), f"identified as {found!r}")


def published_title(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    for line in response.split("\n"):
        start, end = line.find("##"), line.rfind("##")
        if 0 <= start < end - 2 and line[start:end].strip("#").strip():
            return Verdict(True, "found a ##title##")
    return Verdict(False, "no ##title##")


def published_quotation(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    text = response.strip()
    pairs = ('""', "''", "«»")
    found = next((pair for pair in pairs if len(text) > 1 and text[0] + text[-1] == pair), None)
    return Verdict(found is not None, f"wrapped in {found}" if found else "not wrapped in quotation marks")


def published_constrained_response(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    found = next((option for option in _PUBLISHED_OPTIONS if option in response), None)
    return Verdict(found is not None, f"found {found!r}" if found else f"none of {_PUBLISHED_OPTIONS}")


TYPES = (
    OwnType(
        InstructionType("detectable_content:informal_address"),
        informal_address,
        (
            Example("Si tu veux progresser, garde ton carnet sur toi.", True),
            Example("Je t'attends demain au rendez-vous.", True),
            Example("Viens avec tes amis : vous serez contents, et toi le premier.", True),
            Example("Si vous voulez progresser, gardez votre carnet.", False),
            Example("Votre ami a dit : « tu viens ? » Vous le suivez.", False),
            Example("Le tutoiement est courant entre amis.", False),
        ),
        published_informal_address,
    ),
    OwnType(
        InstructionType("detectable_content:no_digits"),
        no_digits,
        (
            Example("Il y a trois cent soixante-six jours, et Louis XIV le savait.", True),
            Example("Il y a 366 jours.", False),
            Example("Cela fait neuf m².", False),
        ),
        published_no_digits,
    ),
    OwnType(
        InstructionType("special_character:accents", {"word_to_accentuate": TEXT_TO_TEXT}),
        accents,
        (
            Example("Tu as déjà sorti les couverts ?", True, {"word_to_accentuate": {"deja": "déjà"}}),
            Example("Tu as deja sorti les couverts ?", False, {"word_to_accentuate": {"deja": "déjà"}}),
            Example("Tu as dejà sorti les couverts ?", False, {"word_to_accentuate": {"deja": "déjà"}}),
            Example("Tu as sorti les couverts ?", False, {"word_to_accentuate": {"deja": "déjà"}}),
        ),
        published_accents,
    ),
    OwnType(
        InstructionType("special_character:ethel_or_cedilla", {"forbidden_char": TEXT}),
        ethel_or_cedilla,
        (
            Example("Les oeufs sont cuits, garçon.", True, {"forbidden_char": "œ"}),
            Example("ŒUFS BROUILLÉS", False, {"forbidden_char": "œ"}),
            Example("Un garc\u0327on.", False, {"forbidden_char": "ç"}),
        ),
        published_ethel_or_cedilla,
    ),
    OwnType(
        InstructionType("special_character:no_accents"),
        no_accents,
        (
            Example("Le garçon mange du pain avec sa maman.", True),
            Example("Il fait chaud aujourd'hui.", True),
            Example("Il a mangé.", False),
            Example("C'est naïf.", False),
        ),
        published_no_accents,
    ),
)
PUBLISHED = {
    "change_case:english_capital": published_capital,
    "detectable_format:constrained_response": published_constrained_response,
    "detectable_format:title": published_title,
    "startend:quotation": published_quotation,
}
