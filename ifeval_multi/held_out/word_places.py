"""words:* of the held-out types: where words stand, what they begin with, how often they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice, pairwise
from typing import Any

import regex

from ifeval_multi.held_out.letters import base_letters
from ifeval_multi.pack import Pack
from ifeval_multi.sentences import sentence_texts
from ifeval_multi.text import bare, fold, lines, normalise, paragraphs, words
from ifeval_multi.verdict import Verdict

_LETTER = regex.compile(r"\p{L}")


def position(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The keyword is the nth word of the answer, or the nth from its end, or both where both are asked."""
    found = words(fold(response), pack)
    asked = fold(arguments["keyword"])
    places = [
        (arguments.get("nth_word"), found, "word"),
        (arguments.get("nth_from_end"), found[::-1], "word from the end"),
    ]
    for number, listed, noun in places:
        if number is not None:
            there = listed[number - 1] if 1 <= number <= len(listed) else ""
            if there != asked:
                return Verdict(False, f"{noun} {number} is {there!r}, {asked!r} asked")
    return Verdict(True, f"{asked!r} stands where it should")


def order(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """All keywords are there, in this very form, and each comes first after the one before it in the list."""
    found = words(fold(response), pack)
    last = -1
    for keyword in map(fold, arguments["keywords"]):
        place = found.index(keyword) if keyword in found else -1
        if place <= last:
            told = "is not there" if place < 0 else "comes before the one that should precede it"
            return Verdict(False, f"{keyword!r} {told}")
        last = place
    return Verdict(True, "the words come in the order asked")


def acrostic(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The first letters of the lines spell the text, from top to bottom; blank lines do not count, nor do accents."""
    asked = "".join(sign for sign in base_letters(normalise(arguments["text"]), pack) if sign.isalpha())
    starts = (_LETTER.search(bare(line)) for line in lines(normalise(response)))
    first = islice((start.group() for start in starts if start), len(asked) + 1)  # one more would be one too many
    found = base_letters("".join(first), pack)
    return Verdict(found == asked, f"the lines begin {found!r}, {asked!r} asked")


def same_initial(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """Every word begins with the letter; accents do not count, and figures are no words here."""
    asked = _initials([normalise(arguments["letter"])], pack)
    found = [word for word in words(fold(response), pack) if word[0].isalpha()]
    initials = _initials(found, pack)
    other = next((word for word, letter in zip(found, initials, strict=True) if letter != asked), None)
    return Verdict(bool(found) and other is None, f"{other!r} begins otherwise" if other else f"{len(found)} words")


def no_same_neighbours(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """No two words that follow each other begin with the same letter."""
    found = words(fold(response), pack)
    for place, (left, right) in enumerate(pairwise(_initials(found, pack))):
        if left == right:
            return Verdict(False, f"{found[place]!r} and {found[place + 1]!r} begin alike")
    return Verdict(bool(found), f"{len(found)} words, no two neighbours begin alike")


def _initials(found: list[str], pack: Pack) -> str:
    """The first letters of words, as many as words."""
    return base_letters("".join(word[0] for word in found), pack)


def last_first(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """Every sentence begins with the last word of the sentence before; two sentences or more."""
    found = [words(fold(sentence), pack) for sentence in sentence_texts(normalise(response), pack)]
    found = [sentence for sentence in found if sentence]
    for left, right in pairwise(found):
        if left[-1] != right[0]:
            return Verdict(False, f"a sentence ends {left[-1]!r}, the next begins {right[0]!r}")
    return Verdict(len(found) > 1, f"{len(found)} sentences, two or more asked")


def paragraph_last_first(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """There are as many paragraphs as asked, and each ends with the word that it begins with."""
    found = [words(fold(paragraph), pack) for paragraph in paragraphs(normalise(response))]
    found = [paragraph for paragraph in found if paragraph]
    for paragraph in found:
        if paragraph[0] != paragraph[-1]:
            return Verdict(False, f"a paragraph begins {paragraph[0]!r} and ends {paragraph[-1]!r}")
    asked = arguments["num_paragraphs"]
    return Verdict(len(found) == asked, f"found {len(found)} paragraphs, exactly {asked} asked")


def palindromes(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """At least num_words different words of num_letters letters or more that read the same backwards."""
    least, found = arguments["num_letters"], set()
    for word in set(words(fold(response), pack)):
        plain = base_letters(word, pack)
        if len(plain) >= least and plain.isalpha() and plain == plain[::-1]:
            found.add(plain)
    asked = arguments["num_words"]
    return Verdict(
        len(found) >= asked, f"found {len(found)} palindromes ({', '.join(sorted(found)[:5])}), {asked} asked"
    )


def max_repeats(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """No word comes more than max_times times."""
    counts = Counter(words(fold(response), pack))
    word, times = counts.most_common(1)[0] if counts else ("", 0)
    asked = arguments["max_times"]
    return Verdict(0 < times <= asked, f"{word!r} comes {times} times, at most {asked} allowed")
