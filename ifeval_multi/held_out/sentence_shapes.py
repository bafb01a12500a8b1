"""sentence:* of the held-out types: how long sentences are, what stands in one of them, how they end."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import regex

from ifeval_multi.held_out.letters import EMOJI
from ifeval_multi.pack import Pack
from ifeval_multi.sentences import sentence_texts
from ifeval_multi.text import fold, normalise, words
from ifeval_multi.verdict import Verdict

# "Kaixo! 👋" and "Kaixo 👋!" both end with an emoji: the marks are moved behind it.
_AFTER_MARK = regex.compile(rf"(?<![.!?…])([.!?…]++[\"'»”’)\]*_]*+)([ \t]?+(?:{EMOJI}[ \t]?)++)")
_ENDS_WITH_EMOJI = regex.compile(rf"{EMOJI}\Z")
_CLOSERS = " \t\n.!?…\"'»”’)]*_"


def keyword(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The keyword stands in the nth sentence, in this very form."""
    sentence = _sentence(response, arguments["nth_sentence"], pack)
    asked = fold(arguments["keyword"])
    return Verdict(asked in sentence, f"sentence {arguments['nth_sentence']}: {' '.join(sentence)[:60]!r}")


def word_position(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The keyword is the nth word of the nth sentence."""
    sentence, number = _sentence(response, arguments["nth_sentence"], pack), arguments["nth_word"]
    there = sentence[number - 1] if 1 <= number <= len(sentence) else ""
    asked = fold(arguments["keyword"])
    return Verdict(there == asked, f"word {number} of that sentence is {there!r}, {asked!r} asked")


def increment(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """There are as many sentences as asked, and each has exactly num_words words more than the one before."""
    lengths = _lengths(response, pack)
    step, asked = arguments["num_words"], arguments["num_sentences"]
    steps = {right - left for left, right in itertools.pairwise(lengths)}
    told = f"sentences of {', '.join(map(str, lengths[:10]))} words; {asked} asked, each {step} words longer"
    return Verdict(len(lengths) == asked and steps <= {step}, told)


def max_words(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """No sentence has more than num_words words."""
    longest, asked = max(_lengths(response, pack), default=0), arguments["num_words"]
    return Verdict(0 < longest <= asked, f"the longest sentence has {longest} words, at most {asked} allowed")


def emoji_end(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """Every sentence ends with an emoji, before or after its full stop."""
    text = _AFTER_MARK.sub(r" \2\1 ", normalise(response))
    found = sentence_texts(text, pack)
    without = [one for one in found if not _ENDS_WITH_EMOJI.search(one.rstrip(_CLOSERS)[-40:])]
    return Verdict(bool(found) and not without, f"{len(without)} of {len(found)} sentences end without an emoji")


def _sentence(response: str, number: int, pack: Pack) -> list[str]:
    """The words of the nth sentence; none where there is no such sentence."""
    found = sentence_texts(normalise(response), pack)
    return words(fold(found[number - 1]), pack) if 1 <= number <= len(found) else []


def _lengths(response: str, pack: Pack) -> list[int]:
    counts = (len(words(one, pack)) for one in sentence_texts(normalise(response), pack))
    return [count for count in counts if count]
