"""copy:* of the held-out types: a text that the prompt gives, as it is or changed in one way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ifeval_multi.pack import Pack
from ifeval_multi.text import bare, fold, lines, normalise, words
from ifeval_multi.verdict import Verdict

_AROUND = "*_`\"'“”„«»‘’ \t\n"


def exactly(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The answer is the text and nothing else, capitals and marks included; quotes around it and spacing are free."""
    found, asked = _plain(response), _plain(arguments["text"])
    place = next((n for n, (a, b) in enumerate(zip(found, asked, strict=False)) if a != b), min(len(found), len(asked)))
    return Verdict(found == asked, f"{found[place:][:30]!r} where {asked[place:][:30]!r} is asked")


def times(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The text, num_times times, each on a line of its own, and nothing else; list markers are free."""
    asked = bare(" ".join(normalise(arguments["text"]).split()))
    found = [bare(" ".join(line.split())) for line in lines(normalise(response)) if line.strip()]
    other = next((line for line in found if line != asked), None)
    told = f"found the line {other[:40]!r}" if other is not None else f"found {len(found)} times"
    return Verdict(
        other is None and len(found) == arguments["num_times"], f"{told}, {arguments['num_times']} times asked"
    )


def reversed_words(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The words of the text from the last to the first; capitals and punctuation are free."""
    asked = words(fold(arguments["text"]), pack)[::-1]
    return _same(words(fold(response), pack), asked)


def span(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The words of the text from first_word to last_word (counted from 1), and nothing else."""
    asked = words(fold(arguments["text"]), pack)[arguments["first_word"] - 1 : arguments["last_word"]]
    return _same(words(fold(response), pack), asked)


def _same(found: list[str], asked: list[str]) -> Verdict:
    return Verdict(found == asked, f"found {' '.join(found)[:60]!r}, {' '.join(asked)[:60]!r} asked")


def _plain(text: str) -> str:
    return " ".join(normalise(text).split()).strip(_AROUND)
