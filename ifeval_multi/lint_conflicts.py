"""Which instructions of one prompt contradict each other: no answer can follow both.

Three kinds. *What must stand in the answer breaks a sibling*: a text to repeat with a comma in it, beside "no commas".
That is asked of the checks themselves, which judge the text. *Counts*: at least 300 words and fewer than 200, or ten
bullets in five words. *Forms*: JSON ends in a brace, so not with a phrase.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from ifeval_multi.checks import CORRECTED
from ifeval_multi.documents import Document, Instruction
from ifeval_multi.instructions import RESPONSE_LANGUAGE
from ifeval_multi.pack import Pack
from ifeval_multi.text import fold

# Checks that a text breaks as soon as it is part of the answer.
_BANS = ("punctuation:no_comma", "keywords:forbidden_words")
# type -> the arguments that hold the number, the relation and what is counted; the relation where none is given
_COUNTS: dict[str, tuple[str, str | None, str | None, str]] = {
    "change_case:capital_word_frequency": ("capital_frequency", "capital_relation", None, "at least"),
    "detectable_content:number_placeholders": ("num_placeholders", "relation", None, "at least"),
    "detectable_format:multiple_sections": ("num_sections", "relation", "section_spliter", "at least"),
    "detectable_format:number_bullet_lists": ("num_bullets", None, None, "exactly"),
    "detectable_format:number_highlighted_sections": ("num_highlights", "relation", None, "at least"),
    "keywords:frequency": ("frequency", "relation", "keyword", "at least"),
    "keywords:letter_frequency": ("let_frequency", "let_relation", "letter", "at least"),
    "length_constraints:nth_paragraph_first_word": ("num_paragraphs", None, None, "exactly"),
    "length_constraints:number_paragraphs": ("num_paragraphs", None, None, "exactly"),
    "length_constraints:number_sentences": ("num_sentences", "relation", None, "at least"),
    "length_constraints:number_words": ("num_words", "relation", None, "at least"),
    "special_character:dieresis": ("let_frequency", "relation", None, "exactly"),
    "special_character:enie": ("let_frequency", "relation", None, "exactly"),
    "special_character:tildes": ("num_words", "relation", None, "exactly"),
}
# Where a text that must stand in the answer adds to what is counted.
_ADDS_UP = (
    "keywords:frequency",
    "keywords:letter_frequency",
    "length_constraints:number_sentences",
    "length_constraints:number_words",
    "special_character:dieresis",
    "special_character:enie",
    "special_character:tildes",
)
# Each of these takes a word of its own.
_TAKES_WORDS = (
    "change_case:capital_word_frequency",
    "detectable_content:number_placeholders",
    "detectable_format:number_bullet_lists",
    "detectable_format:number_highlighted_sections",
    "length_constraints:nth_paragraph_first_word",
    "length_constraints:number_paragraphs",
    "length_constraints:number_sentences",
    "special_character:tildes",
)
_WORDS = "length_constraints:number_words"
_JSON = "detectable_format:json_format"
_NOT_IN_JSON = {
    "startend:quotation": "JSON begins with a brace or bracket, not with a quotation mark",
    "startend:end_checker": "JSON ends in a brace or bracket, not in a phrase",
    "combination:two_responses": "two answers with asterisks between them are no JSON",
    "combination:repeat_prompt": "JSON begins with a brace or bracket, not with the request",
    "detectable_format:number_bullet_lists": "a line of JSON begins with no bullet",
}
_MANY = 10**9


@dataclass(frozen=True)
class Contradiction:
    """Two instructions of one prompt, and why no answer follows both."""

    first: str
    second: str
    why: str

    def __str__(self) -> str:
        return f"{self.first} and {self.second} cannot both be followed: {self.why}"


def contradictions(document: Document, pack: Pack) -> Iterator[Contradiction]:
    """Every pair of instructions of a prompt that excludes itself."""
    asked = document.instructions
    for one, other in combinations(asked, 2):
        why = (
            _required_breaks(one, other, pack)
            or _required_breaks(other, one, pack)
            or _counts(one, other)
            or _too_few_words(one, other)
            or _too_few_words(other, one)
            or _forms(one, other)
            or _forms(other, one)
        )
        if why:
            yield Contradiction(one.id, other.id, why)


def required_text(asked: Instruction) -> str:
    """What must stand in an answer that follows, "" if no wording is asked."""
    given = asked.arguments
    if asked.id == "keywords:existence":
        return "\n".join(given["keywords"])
    if asked.id == "keywords:frequency":
        return "\n".join([given["keyword"]] * min(bounds(asked)[0], 1000))
    if asked.id == "detectable_format:multiple_sections":
        return str(given["section_spliter"]) if bounds(asked)[0] else ""
    names = ("prompt_to_repeat", "end_phrase", "first_word", "postscript_marker")
    return next((str(given[name]) for name in names if name in given), "")


def bounds(asked: Instruction) -> tuple[int, int]:
    """The fewest and the most that may be counted."""
    number_name, relation_name, _, default = _COUNTS[asked.id]
    number = int(asked.arguments[number_name])
    relation = asked.arguments.get(relation_name, default) if relation_name else default
    ways = {
        "at least": (number, _MANY),
        "more than": (number + 1, _MANY),
        "less than": (0, number - 1),
        "at most": (0, number),
        "exactly": (number, number),
    }
    return ways[relation]


def _required_breaks(one: Instruction, other: Instruction, pack: Pack) -> str:
    """Does what `one` wants in the answer break `other`?"""
    text = required_text(one)
    if not text:
        return ""
    if other.id in _BANS:
        verdict = CORRECTED[other.id](text, other.arguments, pack)
        return "" if verdict else f"{text[:40]!r} must stand in the answer, and {verdict.reason}"
    if other.id == "length_constraints:nth_paragraph_first_word" and other.arguments["nth_paragraph"] == 1:
        return _first_word(one, str(other.arguments["first_word"]))
    if other.id not in _ADDS_UP or bounds(other)[1] == _MANY or _is_same_count(one, other):
        return ""
    name, relation, _, _ = _COUNTS[other.id]
    most = {**other.arguments, name: bounds(other)[1], str(relation): "at most"}
    verdict = CORRECTED[other.id](text, most, pack)
    return "" if verdict else f"{text[:40]!r} must stand in the answer: {verdict.reason}"


def _first_word(one: Instruction, wanted: str) -> str:
    start = fold(required_text(one)).lstrip("\"'*([ ")
    if one.id != "combination:repeat_prompt" or start.startswith(fold(wanted)):
        return ""
    return f"the answer must begin with {start[:30]!r}, and its first paragraph with {wanted!r}"


def _is_same_count(one: Instruction, other: Instruction) -> bool:
    if one.id != other.id:
        return False
    about = _COUNTS[one.id][2] if one.id in _COUNTS else None
    return about is None or fold(str(one.arguments[about])) == fold(str(other.arguments[about]))


def _counts(one: Instruction, other: Instruction) -> str:
    if one.id not in _COUNTS or not _is_same_count(one, other):
        return ""
    (least, most), (other_least, other_most) = bounds(one), bounds(other)
    if max(least, other_least) <= min(most, other_most):
        return ""
    return f"one asks for {_range(least, most)}, the other for {_range(other_least, other_most)}"


def _range(least: int, most: int) -> str:
    if least == most:
        return f"exactly {least}"
    return f"at least {least}" if most == _MANY else f"at most {most}"


def _too_few_words(one: Instruction, other: Instruction) -> str:
    """Does `one` need more words than `other` allows?"""
    if other.id != _WORDS or one.id not in _TAKES_WORDS:
        return ""
    needed, allowed = bounds(one)[0], bounds(other)[1]
    return f"{needed} of them need more words than {allowed}" if needed > allowed else ""


def _forms(one: Instruction, other: Instruction) -> str:
    if one.id == _JSON:
        return _NOT_IN_JSON.get(other.id, "")
    if one.id == "change_case:english_lowercase":
        if other.id == "change_case:english_capital":
            return "an answer is in small letters or in capitals"
        if other.id == "change_case:capital_word_frequency" and bounds(other)[0]:
            return "in small letters no word is in capitals"
    if one.id == "change_case:english_capital" and other.id == "change_case:capital_word_frequency":
        return "" if bounds(other)[1] > 1 else f"in capitals more than {bounds(other)[1]} word is"
    if one.id == other.id == "startend:end_checker":
        ends = sorted((fold(one.arguments["end_phrase"]), fold(other.arguments["end_phrase"])), key=len)
        return "" if ends[1].endswith(ends[0]) else f"an answer ends in {ends[0]!r} or in {ends[1]!r}"
    if one.id == RESPONSE_LANGUAGE:
        return _languages(str(one.arguments["language"]), other)
    return ""


def _languages(wanted: str, other: Instruction) -> str:
    if other.id == RESPONSE_LANGUAGE:
        code = str(other.arguments["language"])
        return "" if code == wanted else f"an answer is in {wanted!r} or in {code!r}"
    return ""
