"""Counting sentences without a model: punctuation, the pack's abbreviations, ordinals.

What is counted: pieces of running text that end in . ! ? … or at the end of their block. A block
is what stands between two blank lines. Headings, <<titles>> and dividers are not
sentences. What is not an end: "Sr. Pérez", "J. R. R.", "3.5", Basque "2000. urtean" and
"III. mendea", and "Hola!" inside «Hola!», dixo Ana».
"""

from __future__ import annotations

import re

import regex

from ifeval_multi.pack import Pack
from ifeval_multi.text import lines

# A run of closing punctuation, the quotes and brackets that close after it, the space behind.
# Nothing follows in the pattern, so it never looks back: a megabyte of dots is read once.
_END = re.compile(r"([.!?…‽。！？।؟]+)([\"'»”’)\]*_]*)(\s*)")
_NEEDS_NO_SPACE = "。！？"
_ITEM = regex.compile(r"[ \t]*+(?:[-*+•‣◦][ \t]++|(?:\d{1,3}|\p{L})[.)][ \t]++(?=\S))")
_HEADING = regex.compile(r"[ \t]*+(?:#{1,6}[ \t]|<<.*>>\s*+$|[-*_=~]{3,}+[ \t]*+$)")
_ROMAN = regex.compile(r"[IVXLCDM]+")
_LONGEST_TOKEN = 40


def count_sentences(text: str, pack: Pack) -> int:
    """How many sentences a normalised text holds."""
    return len(sentence_texts(text, pack))


def sentence_texts(text: str, pack: Pack) -> list[str]:
    """The sentences of a normalised text, in order."""
    return [piece for block in _blocks(text, pack) for piece in _cut(block, pack)]


def _blocks(text: str, pack: Pack) -> list[str]:
    """Runs of lines that may share a sentence, without list markers, headings and dividers.

    List items share a block: items without a full stop are together one sentence with the line
    that introduces them, and an item with one is a sentence of its own.
    """
    found: list[list[str]] = [[]]
    for line in lines(text):
        heading = not line.strip() or _HEADING.match(line)
        item = None if heading else _ITEM.match(line)
        if item and pack.ordinal_dot and _opens_with_ordinal(line, pack):
            item = None
        if heading:
            found.append([])
        else:
            found[-1].append(line[item.end() :] if item else line)
    return ["\n".join(block) for block in found if block]


def _opens_with_ordinal(line: str, pack: Pack) -> bool:
    """Is the "2." that opens a line an ordinal ("2. mendean") and not a list marker?"""
    number, _, rest = line.strip().partition(". ")
    return number.isdigit() and rest.lower().startswith(pack.ordinal_followers or ("\0",))


def _cut(block: str, pack: Pack) -> list[str]:
    cased = not (block.isupper() or block.islower())
    pieces, start = [], 0
    for end in _END.finditer(block):
        inside = not end.group(3) and end.end() < len(block)
        if inside and end.group(1)[-1] not in _NEEDS_NO_SPACE:
            continue  # 3.5, example.org, (sic!)-
        if _is_end(block, end, cased, pack):
            pieces.append(block[start : end.end()])
            start = end.end()
    pieces.append(block[start:])
    return [piece for piece in pieces if any(map(str.isalnum, piece))]


def _is_end(block: str, end: re.Match[str], cased: bool, pack: Pack) -> bool:
    follower = block[end.end() : end.end() + 1]
    if not follower:
        return True
    goes_on = cased and follower.islower()
    marks, closers = end.group(1), end.group(2)
    if marks != ".":
        return not goes_on  # «Hola!» dixo; Well... maybe; a full-width stop
    if closers.strip("*_"):
        return not goes_on  # "Etorri." esan zuen
    return not _dot_belongs_to_word(block, end, goes_on, cased, pack)


def _dot_belongs_to_word(block: str, end: re.Match[str], goes_on: bool, cased: bool, pack: Pack) -> bool:
    window = block[max(0, end.start() - _LONGEST_TOKEN) : end.start()]
    token = (window.split() or [""])[-1].lstrip("([{\"'«“‘¿¡*_") if not window[-1:].isspace() else ""
    lowered = token.lower()
    if lowered in pack.abbreviations_before_names:
        return True
    if len(token) == 1 and token.isupper() and cased:
        return True  # an initial: J. Sarrionandia
    if lowered in pack.abbreviations or "." in token.strip("."):
        return goes_on or not cased or block[end.end() : end.end() + 1].isdigit()
    rest = block[end.end() : end.end() + _LONGEST_TOKEN]
    return pack.ordinal_dot and _is_ordinal(token, rest, goes_on, cased, pack)


def _is_ordinal(token: str, rest: str, goes_on: bool, cased: bool, pack: Pack) -> bool:
    """Basque writes ordinals with a dot: 2000. urtean, III. mendea, II. Mundu Gerra."""
    digits = token.rsplit("-", 1)[-1].isdigit()
    roman = bool(_ROMAN.fullmatch(token.rsplit("-", 1)[-1]))
    if not digits and not roman:
        return False
    if (digits and goes_on) or (roman and cased):
        return True
    return rest.lower().startswith(pack.ordinal_followers or ("\0",))
