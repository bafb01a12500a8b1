"""detectable_content:* of the corrected edition: placeholders and postscripts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import regex

from ifeval_multi.checks.formats import texts_in_json
from ifeval_multi.pack import Pack
from ifeval_multi.relations import compare
from ifeval_multi.text import normalise
from ifeval_multi.verdict import Verdict

# [name], on one line, not empty, and not the text of a [link](https://...) or a ticked box.
_LINES = regex.IGNORECASE | regex.MULTILINE
_BRACKETS = regex.compile(r"\[([^\[\]\n]++)\](?!\()")
_TICKED = regex.compile(r"^[ \t]*+[-*+][ \t]++\[[xX]\][ \t]", regex.MULTILINE)


def number_placeholders(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """At least as many placeholders [in square brackets] as asked."""
    in_json = texts_in_json(response)  # ["pan", "auga"] is an array there
    text = normalise(response if in_json is None else "\n".join(in_json))
    found = _BRACKETS.findall(_TICKED.sub("", text))
    count = sum(1 for inside in found if inside.strip())
    return compare(count, arguments, "num_placeholders", "relation", "placeholders")


def postscript(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """A line begins with the postscript marker, or the marker as it is written opens a sentence; text follows the last.

    Dots, spaces and case do not matter at the beginning of a line: "P. S.", "PS:" and "**p.s.**"
    are all P.S., but P.P.S. is not P.S. Initials with their dots may stand inside a line.
    """
    marker = normalise(arguments["postscript_marker"]).strip()
    at_line, inside = _marker_patterns(marker)
    text = normalise(response)
    found = list(at_line.finditer(text)) or list(inside.finditer(text))
    if not found:
        return Verdict(False, f"no line begins with {marker!r}")
    written = any(map(str.isalnum, text[found[-1].end() :]))
    return Verdict(written, f"found {marker!r}{', with text behind it' if written else ' with nothing behind it'}")


@lru_cache(maxsize=256)
def _marker_patterns(marker: str) -> tuple[regex.Pattern[str], regex.Pattern[str]]:
    before = r"^[^\p{L}\p{N}\n]*+"
    if not _is_initials(marker):
        word = regex.escape(marker)
        at_line = regex.compile(rf"{before}{word}(?!\p{{L}})", _LINES)
        return at_line, regex.compile(rf"(?<=[.!?…»”\"'][ \t*_]){word}(?!\p{{L}})")
    initials = [regex.escape(sign) for sign in marker if sign.isalnum()]
    loose = r"\.?[ \t-]?".join(initials)
    # Nor are "PS5" and "PS4" postscripts.
    at_line = regex.compile(rf"{before}{loose}(?![\p{{L}}\p{{N}}]|\.[ \t]?\p{{L}}\.)", _LINES)
    dotted = r"\.[ \t-]?".join(initials)
    after_sentence = rf"(?<=[.!?…»”\"'][ \t*_]){regex.escape(marker)}(?!\p{{L}})"
    not_inside = r"(?<![\p{L}\p{N}]|(?<!\p{L})\p{L}\.[ \t]?)"  # the S. of P.P.S. is not P.S.
    alone = rf"{not_inside}(?i:{dotted})(?!\p{{L}}|\.[ \t]?\p{{L}}\.)"
    return at_line, regex.compile(f"{after_sentence}|{alone}")


def _is_initials(marker: str) -> bool:
    """P.S., PD, P. P. S.: initials, written with or without dots; "Nota" is a word."""
    bare = marker.translate({ord(sign): None for sign in ". -"})
    return bare.isupper() and len(bare) <= 5
