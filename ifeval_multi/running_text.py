"""What of an answer is running text, cut into passages: no headings, tables, code, list markers, labels, signatures.

A passage is what may hold a sentence from one end to the other. Blank lines part passages, except where the text goes
on over them: after a comma, semicolon or colon, before a small letter, and between the items of a list.

CORRECTED.md says which norm each rule follows, with examples. sentences.py cuts passages into sentences.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import regex

from ifeval_multi.pack import Pack
from ifeval_multi.text import lines, list_markers

# Stands before each item of a list in a passage: white space, so it parts words, and no keyboard writes it.
ITEM = "\x1e"
_STOPS = ".!?…‽。！？؟।"
_GOES_ON = ",;:،、，；："
_CLOSERS = " \t\"'»”’)]*_}›"
_OPENERS = " \t\"'«“‘([*_¿¡—–-…>#"
_FENCE = regex.compile(r"[ \t]*+(?:```|~~~)")
_TEXTUAL = frozenset(("", "text", "txt", "plaintext", "markdown", "md", "xml", "html", "json", "yaml", "tex", "latex"))
_TAG = regex.compile(r"</?+\w[^<>\n]{0,200}+>")
_STOP = regex.compile(r"\w[\"'»”)*_]*+[.!?…]++[\"'»”)*_]*+(?:\s|$)")
_CODE_SIGN = regex.compile(r"[{}=;<>\\]|\w\(|^[ \t]*+(?:#|//|--|/\*|\$)")
_RULE = regex.compile(r"[ \t]*+(?:[-*_=~—][ \t]?+){3,}+$")
_HEADING = regex.compile(r"[ \t]*+(?:#{1,6}[ \t]|#{2,6}\S|<<.*>>\s*+$|《.*》\s*+$|≪.*≫\s*+$)")
_ITEM = regex.compile(r"[ \t]*+(?:[-*+•‣◦]|\d{1,3}[.)])[ \t]")
_UNDERLINE = regex.compile(r"[ \t]*+(?:={3,}+|-{3,}+)[ \t]*+$")
_TABLE_ROW = regex.compile(r"[ \t]*+\|.*\|[ \t]*+$")
_QUOTE = regex.compile(r"[ \t]*+(?:>[ \t]*+)++")
_BOLD_LINE = regex.compile(r"[ \t]*+(\*\*|__)(?=\S)((?:(?!\1).)++)\1[*_]?[ \t]*+:?[ \t]*+$")
_FIELD = regex.compile(r"[ \t]*+[*_]*+\p{Lu}\p{L}*+(?: \p{L}++){0,2}[*_]*+:[*_]*+[ \t]++\S")
_NUMERAL = r"(?:\d{1,3}|(?-i:[IVXLC]{1,6}|\p{Lu}))"
_LONGEST_HEADING, _NEAR = 15, 40
_LONGEST_LABEL, _LONGEST_TITLE = 5, 12
_LONGEST_NAME_OF_CODE = 2  # before code or a table "Example use:" is a label, and "Run this program:" is a sentence
_LONGEST_CLOSING, _LONGEST_NAME = 6, 8


@dataclass
class Passage:
    """Lines that may share a sentence."""

    lines: list[str] = field(default_factory=list)
    items: list[bool] = field(default_factory=list)  # does the line open an item of a list?
    detached: bool = True  # does something that is no running text, a heading for one, stand before it?

    def add(self, line: str, item: bool) -> None:
        self.lines.append(line)
        self.items.append(item)

    @property
    def text(self) -> str:
        """The lines, with ITEM before each item but a first one."""
        pieces = [ITEM + line if item and n else line for n, (line, item) in enumerate(_pairs(self))]
        return "\n".join(pieces)

    def is_open(self) -> bool:
        """Does its last line end without a full stop, question mark or exclamation mark?"""
        return last_sign(self.lines[-1]) not in _STOPS


def _pairs(passage: Passage) -> zip[tuple[str, bool]]:
    return zip(passage.lines, passage.items, strict=True)


def passages(text: str, pack: Pack) -> list[Passage]:
    """The passages of a normalised text, in order."""
    found: list[Passage] = []
    for passage in _blocks(text, pack):
        if found and not passage.detached and _goes_on(found[-1], passage):
            found[-1].lines += passage.lines
            found[-1].items += passage.items
        else:
            found.append(passage)
    return found


def _goes_on(before: Passage, after: Passage) -> bool:
    if after.items[0] and (before.items[-1] or before.is_open()):
        return True  # the next item, or the list that a line introduces
    if not before.is_open():
        return False
    return last_sign(before.lines[-1]) in _GOES_ON or after.lines[0].lstrip(_OPENERS)[:1].islower()


def _blocks(text: str, pack: Pack) -> list[Passage]:
    found, current, detached = [], Passage(), True
    every = _without_markup(text)
    plain = [_QUOTE.sub("", line or "", count=1) for line in every]
    for line, stripped, marker in zip(every, plain, list_markers(plain, pack), strict=True):
        if line is not None and line.strip():
            current.add(_without_label(stripped[marker:], pack), marker > 0)
            continue
        if current.lines:
            current.detached = detached
            found.append(current)
            current, detached = Passage(), False
        detached = detached or line is None
    if current.lines:
        current.detached = detached
        found.append(current)
    return [passage for passage in found if any(line.strip() for line in passage.lines)]


def _without_markup(text: str) -> list[str | None]:
    """The lines, with None for headings, rules, rows of tables and code (but what is prose in a ``` block stays)."""
    every = lines(text)
    fenced = [
        kind and not (kind == "text" and _is_prose(line)) for kind, line in zip(_fenced(every), every, strict=True)
    ]
    last = max((n for n, line in enumerate(every) if line.strip()), default=0)
    found: list[str | None] = []
    for number, line in enumerate(every):
        if _UNDERLINE.match(line) and found and _is_underlined_heading(found, number == last) and not fenced[number]:
            found[-1] = None  # a line that === or --- underlines
        markup = fenced[number] or _RULE.match(line) or _HEADING.match(line) or _TABLE_ROW.match(line)
        opens = not found or not (found[-1] or "").strip()
        found.append(None if markup or _is_bold_heading(line, opens, number == last) else line)
    return found if any(line and line.strip() for line in found) else list(every)


def _is_underlined_heading(above: list[str | None], last: bool) -> bool:
    """Is the last line above === or --- a heading, and no sentence or item of a list with a rule under it?

    As with bold lines: a heading has few words and no full stop, and ! or ? only at the head of a passage.
    """
    line = above[-1]
    if not line or not line.strip() or _ITEM.match(line) or len(line.split()) > _LONGEST_HEADING:
        return False
    end = last_sign(line)
    opens = len(above) < 2 or not (above[-2] or "").strip()
    return end not in (".", "…") and (end not in _STOPS or (opens and not last))


def _fenced(every: list[str]) -> list[str]:
    """For each line: "" outside ``` blocks, else "code" or "text", by what the opening fence names.

    A fence that is never closed opens nothing.
    """
    inside, opened, found = "", 0, []
    for number, line in enumerate(every):
        fence = _FENCE.match(line)
        if fence and not inside:
            inside, opened = ("text" if line[fence.end() :].strip().lower() in _TEXTUAL else "code"), number
            found.append("code")
        elif fence:
            inside = ""
            found.append("code")
        else:
            found.append(inside)
    return found[: opened + 1] + [""] * (len(every) - opened - 1) if inside else found


def _is_prose(line: str) -> bool:
    """Does a line of a ``` block hold a sentence: four words or more, a full stop, and no sign of code?"""
    bare = _TAG.sub(" ", line)
    return len(bare.split()) > 3 and bool(_STOP.search(bare)) and not _CODE_SIGN.search(bare)


def _is_bold_heading(line: str, opens: bool, last: bool) -> bool:
    """A line wholly in bold is a heading, unless it ends in a full stop.

    One that ends in ! or ? is one only at the head of a passage, with text under it.
    """
    found = _BOLD_LINE.match(line)
    if not found or len(found.group(2).split()) > _LONGEST_HEADING:
        return False
    end = last_sign(found.group(2))
    return end != "." and (end not in _STOPS or (opens and not last))


def _without_label(line: str, pack: Pack) -> str:
    """The line without a postscript marker or a section's number: "P.S. I miss you." is one sentence."""
    found = _label_pattern(pack.postscript_markers, pack.section_words).match(line)
    return line[found.end() :] if found else line


def is_section_label(piece: str, pack: Pack) -> bool:
    """Is a piece of text nothing but "Section 2."?"""
    if len(piece) > 2 * _NEAR:
        return False
    found = _label_pattern((), pack.section_words).fullmatch(piece.strip())
    return bool(found)


@lru_cache(maxsize=64)
def _label_pattern(markers: tuple[str, ...], sections: tuple[str, ...]) -> regex.Pattern[str]:
    spaced = [r"[ \t]?".join(regex.escape(sign) for sign in marker if not sign.isspace()) for marker in markers]
    initials = "|".join(m for m, marker in zip(spaced, markers, strict=True) if marker.isupper())
    section = "|".join(map(regex.escape, sections))
    numbered = rf"(?:(?:{section})[ \t]++{_NUMERAL}|{_NUMERAL}\.?[ \t]++(?:{section}))"
    end = r"[*_]*+[.:)–—-]?[*_]*+(?=[ \t]|$)[ \t]*+"
    marks = rf"(?-i:{initials})[*_]*+[.:]?[*_]*+(?=[ \t]|$)[ \t]*+|" if initials else ""
    return regex.compile(rf"[ \t*_]*+(?:{marks}{numbered}{end})", regex.IGNORECASE)


def last_sign(line: str) -> str:
    """The last sign of a line that is no closing quotation mark, bracket, emphasis or emoji; "" if there is none."""
    end = len(line)
    while end and (line[end - 1] in _CLOSERS or ord(line[end - 1]) >= 0x2190):
        end -= 1
    return line[end - 1 : end] or "\0"


def is_label(passage: Passage, pack: Pack) -> bool:
    """Is a passage without a full stop a title, a name, a date, an address or a signature, and no sentence?"""
    if any(passage.items) and len(passage.lines) > 1:
        return False
    if any(last_sign(line) in _STOPS for line in passage.lines):
        return False
    first, *others = passage.lines
    if not others:
        longest = _LONGEST_NAME_OF_CODE if last_sign(first) == ":" else _LONGEST_LABEL
        return len(first.split()) <= longest or is_title(first, pack, _LONGEST_TITLE) or _is_field(first)
    whole = all(is_title(line, pack, _LONGEST_NAME) or _is_field(line) for line in passage.lines)
    return whole or is_signature(passage.lines, pack)


def _is_field(line: str) -> bool:
    """ "Subject: a complaint about the noise", "Total: 5 euros": a name, a colon and a few words."""
    return len(line.split()) <= _LONGEST_TITLE and bool(_FIELD.match(line))


def is_title(line: str, pack: Pack, longest: int) -> bool:
    """Few words, most of those that are no function words with a capital, a digit or a bracket."""
    found = line.split()
    if len(found) > longest or (line.isupper() and len(found) > _LONGEST_LABEL):
        return False
    content = [word for word in found if word.strip(_CLOSERS + _OPENERS + ",.:").lower() not in pack.function_words]
    named = [w for w in content if w.lstrip(_OPENERS)[:1].isupper() or w[0] in "[#" or any(map(str.isdigit, w))]
    return 2 * len(named) > len(content)


def is_signature(found: list[str], pack: Pack) -> bool:
    """ "Kind regards," and a name under it, a line or several, or any short line with a comma and a name."""
    if any(len(line.split()) > _LONGEST_CLOSING or last_sign(line) in _STOPS for line in found):
        return False
    if any(word.strip(_CLOSERS + _OPENERS + ",.:").lower() in pack.closings for word in found[0].split()):
        return True
    return all(line.rstrip().endswith(",") for line in found[:-1]) and is_name(found[-1])


def is_name(line: str) -> bool:
    """At most four words, each with a capital: Uxía Castro."""
    found = line.split()
    return len(found) <= 4 and all(word.lstrip(_OPENERS)[:1].isupper() for word in found)
