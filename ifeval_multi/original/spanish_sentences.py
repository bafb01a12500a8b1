"""Sentences as M-IFEval counts them in Spanish and Catalan: spaCy's parser, imitated by punctuation.

spaCy's model cannot be had without a download. These rules agree with it in all counted cases of
tests/ifeval_multi/test_parity.py. They are frozen: what the corrected edition learns about sentences (sentences.py)
must not move a published number.
"""

from __future__ import annotations

import re

from ifeval_multi.pack import Pack
from ifeval_multi.text import lines

_END = re.compile(r"([.!?…‽。！？।؟]+)([\"'»”’)\]*_]*)(\s*)")
_NEEDS_NO_SPACE = "。！？"
_ITEM = re.compile(r"[ \t]*(?:[-*+•‣◦][ \t]+|(?:\d{1,3}|[^\W\d_])[.)][ \t]+(?=\S))")
_HEADING = re.compile(r"[ \t]*(?:#{1,6}[ \t]|<<.*>>\s*$|[-*_=~]{3,}[ \t]*$)")
_NEAR = 40


def count_sentences(text: str, pack: Pack) -> int:
    """How many sentences spaCy would find."""
    return sum(_count(block, pack) for block in _blocks(text))


def _blocks(text: str) -> list[str]:
    found: list[list[str]] = [[]]
    for line in lines(text):
        if not line.strip() or _HEADING.match(line):
            found.append([])
        else:
            item = _ITEM.match(line)
            found[-1].append(line[item.end() :] if item else line)
    return ["\n".join(block) for block in found if block]


def _count(block: str, pack: Pack) -> int:
    cased = not (block.isupper() or block.islower())
    pieces, start = [], 0
    for end in _END.finditer(block):
        inside = not end.group(3) and end.end() < len(block)
        if inside and end.group(1)[-1] not in _NEEDS_NO_SPACE:
            continue
        if _is_end(block, end, cased, pack):
            pieces.append(block[start : end.end()])
            start = end.end()
    return sum(1 for piece in [*pieces, block[start:]] if any(map(str.isalnum, piece)))


def _is_end(block: str, end: re.Match[str], cased: bool, pack: Pack) -> bool:
    follower = block[end.end() : end.end() + 1]
    goes_on = cased and follower.islower()
    if not follower:
        return True
    if end.group(1) != "." or end.group(2).strip("*_"):
        return not goes_on
    near = block[max(0, end.start() - _NEAR) : end.start()]
    token = (near.split() or [""])[-1].lstrip("([{\"'«“‘¿¡*_") if not near[-1:].isspace() else ""
    if token.lower() in pack.abbreviations_before_names or (len(token) == 1 and token.isupper() and cased):
        return False
    if token.lower() in pack.abbreviations or "." in token.strip("."):
        return not (goes_on or not cased or follower.isdigit())
    return True
