"""startend:* and combination:* of the corrected edition: how an answer begins, ends and divides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import regex

from ifeval_multi.pack import Pack
from ifeval_multi.text import fold, has_text, normalise
from ifeval_multi.verdict import Verdict

_ASTERISKS = regex.compile(r"\*{2,}+")
_SPACE_BEFORE_MARK = regex.compile(r" ([?!;:])")
_ONE_SIGN = str.maketrans({"…": "...", "–": "-", "—": "-"})
_AROUND = " \n\t*_~`\"'“”„«»‘’)"


def end_checker(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The answer ends with the phrase; a quotation mark or ** that closes after it is no word.

    A dot may follow a phrase that has no closing punctuation of its own.
    """
    whole = _folded(arguments["end_phrase"])
    asked = whole.strip(_AROUND) or whole
    tail = _folded(normalise(response).rstrip()[-2 * len(asked) - 200 :])
    tail = tail.rstrip(_AROUND) if asked.strip(_AROUND) else tail  # "***" may be what is asked
    if asked and asked[-1].isalnum():
        tail = tail.rstrip(".").rstrip(_AROUND)
    before = tail[: -len(asked)][-1:]
    ends = tail.endswith(asked) and not (before.isalnum() and asked[0].isalnum())
    return Verdict(ends, f"the answer ends {tail[-len(asked) :]!r}, {asked!r} asked")


def _folded(text: str) -> str:
    """fold(), with one sign for ... and one for dashes, and no space before ? ! ; : (French sets one, not everybody does)."""
    return _SPACE_BEFORE_MARK.sub(r"\1", fold(text).translate(_ONE_SIGN))


def quotation(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The whole answer stands between a pair of quotation marks that the pack knows."""
    text = normalise(response).strip()
    for opening, closing in pack.quotation_pairs:
        wrapped = text.startswith(opening) and text.endswith(closing)
        if wrapped and text[len(opening) : -len(closing)].strip():
            return Verdict(True, f"the answer stands in {opening}{closing}")
    return Verdict(False, f"the answer begins {text[:1]!r} and ends {text[-1:]!r}")


def repeat_prompt(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The answer begins with the request, word for word.

    Case, spacing, kind of quotation mark and a mark or ** around the request do not matter.
    """
    asked = _folded(arguments["prompt_to_repeat"]).strip(_AROUND).rstrip(".")
    start = _folded(response[: 2 * len(arguments["prompt_to_repeat"]) + 400]).lstrip(_AROUND + "#>")
    if start.startswith(asked) and not start[len(asked) : len(asked) + 1].isalnum():
        return Verdict(True, "the answer begins with the request")
    same = next((n for n, (a, b) in enumerate(zip(start, asked, strict=False)) if a != b), 0)
    return Verdict(False, f"the request is not repeated: {start[same:][:30]!r}, not {asked[same:][:30]!r}")


def two_responses(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """Two different answers, divided by six asterisks (or by as many as the prompt shows)."""
    accepted = {6} | _asterisks_shown(str(arguments.get("prompt", "")))
    text = normalise(response)
    pieces, start = [], 0
    for run in _ASTERISKS.finditer(text):
        if len(run.group()) in accepted:
            pieces.append(text[start : run.start()])
            start = run.end()
    found = [piece.strip() for piece in [*pieces, text[start:]] if has_text(piece)]  # --- is no answer
    if len(found) != 2:
        return Verdict(False, f"found {len(found)} answers divided by ******, exactly 2 asked")
    return Verdict(found[0] != found[1], "found 2 answers, which must differ")


def _asterisks_shown(prompt: str) -> set[int]:
    """Some published prompts show five or seven asterisks; an answer that copies them is right."""
    return {len(run) for run in _ASTERISKS.findall(prompt) if 4 < len(run) < 9}
