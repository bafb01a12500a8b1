"""length_constraints:* of the corrected edition: words, sentences and paragraphs of a language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import regex

from ifeval_multi.emphasis import find_emphasis
from ifeval_multi.pack import Pack
from ifeval_multi.relations import compare, exactly
from ifeval_multi.sentences import count_sentences
from ifeval_multi.text import fold, lines, normalise, paragraphs, without_list_numbers, words
from ifeval_multi.verdict import Verdict

# A divider is a line of asterisks, or three asterisks inside a line that emphasise nothing: "one *** two",
# "one. ***Two." ***bold italic*** is none.
_LONGEST_LINE = 50_000
_BEFORE_LETTERS = regex.compile(r"^[^\p{L}\p{N}]++")
_NUMBER = regex.compile(r"^\d{1,3}[.)]\s++")
_DIVIDER_LINE = regex.compile(r"[ \t>]*+(?:\*[ \t]?+){3,}+")


def number_words(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """As many words as asked, counted as the pack says; the numbers of a list are none."""
    count = len(words(without_list_numbers(normalise(response), pack), pack))
    return compare(count, arguments, "num_words", "relation", "words")


def number_sentences(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """As many sentences as asked, with the pack's abbreviations and ordinals."""
    count = count_sentences(normalise(response), pack)
    return compare(count, arguments, "num_sentences", "relation", "sentences")


def number_paragraphs(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """Exactly as many paragraphs as asked, divided by the Markdown divider ***."""
    pieces = [""]
    for line in lines(normalise(response)):
        if _DIVIDER_LINE.fullmatch(line):
            pieces.append("")
            continue
        first, *more = _divided(line)
        pieces[-1] = pieces[-1] or first  # only whether it is empty matters
        pieces.extend(more)
    count = sum(map(bool, pieces))
    return exactly(count, arguments["num_paragraphs"], "paragraphs divided by ***")


def _divided(line: str) -> list[str]:
    """What stands before, between and after the *** of a line, stripped."""
    line = line[:_LONGEST_LINE]
    if "***" not in line:
        return [line.strip()]
    pieces, start = [], 0
    for at, end in find_emphasis(line, strict=True).unused:
        if line[at:end] == "***":
            pieces.append(line[start:at].strip())
            start = end
    return [*pieces, line[start:].strip()]


def nth_paragraph_first_word(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """Exactly as many paragraphs as asked, and the nth begins with the word (or words) asked.

    What stands before the first letter (quotation mark, ** or a list marker, also a number's) does not count.
    """
    found = paragraphs(normalise(response))
    count = exactly(len(found), arguments["num_paragraphs"], "paragraphs")
    if not count:
        return count
    number, asked = arguments["nth_paragraph"], fold(arguments["first_word"])
    if not 1 <= number <= len(found):
        return Verdict(False, f"there is no paragraph {number}")
    start = _BEFORE_LETTERS.sub("", fold(found[number - 1][: len(asked) + 200]))
    unnumbered = _BEFORE_LETTERS.sub("", _NUMBER.sub("", start))  # where "1." itself is not what was asked
    begins = any(
        one.startswith(asked) and not one[len(asked) : len(asked) + 1].isalnum() for one in (start, unnumbered)
    )
    return Verdict(begins, f"paragraph {number} begins {start[:30]!r}, {asked!r} asked")
