"""count:* and ratio:* of the held-out types: ranges, numbers, marks, emoji, shares of words and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import regex

from ifeval_multi.held_out.letters import emoji_in
from ifeval_multi.pack import Pack
from ifeval_multi.relations import COMPARISONS, canonical_relation, compare
from ifeval_multi.sentences import sentence_texts
from ifeval_multi.text import fold, normalise, without_list_numbers, words
from ifeval_multi.verdict import Verdict

# "1936an", "2ª" and "5km" are numbers in figures; "F1" and "CO2" are names.
_NUMBER = regex.compile(r"(?<![\p{L}\p{N}])\d++(?:[.,:/]\d++)*+")
_CLOSERS = " \t\n\"'»”’)]*_"


def word_range(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """From min_words to max_words words, both included."""
    count = len(words(normalise(response), pack))
    low, high = arguments["min_words"], arguments["max_words"]
    return Verdict(low <= count <= high, f"found {count} words, {low} to {high} asked")


def unique_words(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """As many different words as asked; capitals make no other word."""
    count = len(set(_words(response, pack)))
    return compare(count, arguments, "num_words", "relation", "different words")


def numbers(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """As many numbers in figures as asked (exactly, unless a relation is given); 3,5 is one, "1." of a list none."""
    count = len(_NUMBER.findall(without_list_numbers(normalise(response), pack)))
    return _compare(count, arguments, "num_numbers", "numbers in figures")


def keywords(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """Each keyword stands in the answer exactly as often as the number in the same place says, in this very form."""
    found = _words(response, pack)
    for keyword, asked in zip(arguments["keywords"], arguments["frequencies"], strict=False):
        count = found.count(fold(keyword))
        if count != asked:
            return Verdict(False, f"found {keyword!r} {count} times, exactly {asked} asked")
    return Verdict(True, "each keyword is there as often as asked")


def marks(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """Each of the marks stands in the answer at least once; three dots are the one sign for them."""
    text = normalise(response).replace("...", "…")
    absent = [mark for mark in arguments["marks"] if mark not in text]
    return Verdict(not absent, f"not found: {' '.join(absent)}" if absent else "all marks found")


def emoji(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """As many emoji as asked (exactly, unless a relation is given); a family of four is one."""
    return _compare(len(emoji_in(normalise(response))), arguments, "num_emoji", "emoji")


def questions(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """As large a share of the sentences ends with a question mark as asked."""
    found = sentence_texts(normalise(response), pack)
    asking = sum(1 for sentence in found if "?" in sentence.rstrip(_CLOSERS)[-2:])
    return _share(asking, len(found), arguments, "sentences are questions")


def unique_share(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """As large a share of different words among all words as asked."""
    found = _words(response, pack)
    return _share(len(set(found)), len(found), arguments, "words are different ones")


def long_words(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """As large a share of words with num_letters letters or more as asked."""
    found = _words(response, pack)
    long = sum(1 for word in found if sum(map(str.isalpha, word)) >= arguments["num_letters"])
    return _share(long, len(found), arguments, f"words have {arguments['num_letters']} letters or more")


def _words(response: str, pack: Pack) -> list[str]:
    return words(fold(response), pack)


def _compare(count: int, arguments: Mapping[str, Any], number: str, noun: str) -> Verdict:
    return compare(count, {"relation": "exactly", **arguments}, number, "relation", noun)


def _share(part: int, whole: int, arguments: Mapping[str, Any], noun: str) -> Verdict:
    """Compare without rounding: 1 of 3 is more than 33 %."""
    asked, name = arguments["percent"], canonical_relation(str(arguments.get("relation", "at least")))
    followed = bool(whole) and COMPARISONS[name](100 * part, asked * whole)
    return Verdict(followed, f"{part} of {whole} {noun}, {name} {asked} % asked")
