"""Text as it is counted in the corrected edition: normalised, cut into lines, words, keywords.

Everything here is linear in the length of the text. Patterns use possessive quantifiers, or start
where a run starts, so that a megabyte of `*`, `[` or newlines cannot make them look back.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

import regex

from ifeval_multi.pack import Pack

# Characters that print as nothing. The joiners U+200C and U+200D stay: emoji and Indic
# scripts need them.
_INVISIBLE = regex.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\ufeff]+")
# CPython sorts a run of combining marks by insertion, so a run of 100,000 takes minutes.
# No language stacks more than a handful (Unicode's Stream-Safe Text Format allows 30).
_MARKS = regex.compile(r"(\p{M}{30})\p{M}++")
# Spaces and hyphens that differ from the plain ones in where a line may break, or in width: "P. S.", "Section 1" and
# "vint-i-dos" are typeset with them. U+2027 is a Catalan l·l as some fonts want it, and
# ŀ is one as old character sets had it.
_TYPESET = str.maketrans({
    **dict.fromkeys("\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f", " "),
    "\u2010": "-", "\u2011": "-", "\u2027": "·", "ŀ": "l·", "Ŀ": "L·",
})  # fmt: skip
_QUOTES = str.maketrans("’‘ʼ´`“”„«»", "'" * 5 + '"' * 5)
AS_IS = frozenset({""})
_DASHES = "‐‑‒–—―…•"  # and an ellipsis and a bullet: no words either
_FIRST_EASTERN = "\u2e80"  # from here on: Chinese, Japanese, Korean
_BULLET_OR_NUMBER = regex.compile(r"\s*+(?:[-*+•‣◦]\s++|\d{1,3}[.)]\s++)")
_DECORATION = " \t*_#>~`\"'“”„«»‘’()[]"
# What opens an item of a list: a bullet, a number or letter ("1.", "2)", "(a)", "1.-", "**3.**", "4️⃣"), or both.
_BULLET = r"(?:[-*+•‣◦–▪▸➢✓✔][ \t]++)"
_NUMBER = (
    r"(?:\(?(?:\d{1,3}(?:\.\d{1,2})*+(?:\)|\.-?)|(?:\p{L}|[ivx]{2,4})\)|[a-e]\.(?=[ \t]++\p{L}{2}))"
    "|\\d\ufe0f?\u20e3|[①-⑳])"
)
_NUMBER_SIGN = regex.compile(r"[.)\u20e3①-⑳]")  # each number of a list has one
_SPACED = r"(?:[ \t]++(?=\S)|(?<=[.)\u20e3])(?=\p{Lu}\p{Ll}))"
_MARKER = regex.compile(
    rf"(?:[ \t]*+(?:#{{1,6}}[ \t]++|>[ \t]*+)*+)(?:{_BULLET}?+(?P<bold>\*\*|__)?+(?P<number>{_NUMBER})"
    rf"(?(bold)(?:\*\*|__)?+){_SPACED}|{_BULLET}(?=\S))"
)


@lru_cache(maxsize=64)
def normalise(text: str) -> str:
    """NFC, \\n line ends, no invisible characters, plain spaces and hyphens: what is the same on screen is the same here."""
    found = visible(text)
    return found if found.isascii() else found.translate(_TYPESET)


def visible(text: str) -> str:
    """The same with its spaces and hyphens as they are, for what a program reads: JSON knows no other space."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", shorten_marks(text))
        text = _INVISIBLE.sub("", text)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def shorten_marks(text: str) -> str:
    """The text with at most 30 combining marks in a row, so that it can be normalised."""
    shortened: str = _MARKS.sub(r"\1", text)
    return shortened


@lru_cache(maxsize=64)
def fold(text: str) -> str:
    """For comparing phrases: normalised, lower case, plain quotes, single spaces."""
    return " ".join(normalise(text).lower().translate(_QUOTES).split())


def has_text(text: str) -> bool:
    """Is there something beside signs: a letter, a digit, an emoji? * * * and - - - are dividers."""
    return any(map(str.isalnum, text)) or any(ord(sign) > 0x2000 and sign not in _DASHES for sign in text)


def lines(text: str) -> list[str]:
    """The lines of a normalised text. Only \\n ends a line: str.splitlines knows too many ends."""
    return text.split("\n")


def bare(line: str) -> str:
    """A line without Markdown decoration, list marker and quotation marks at its ends."""
    marker = _BULLET_OR_NUMBER.match(line)
    return (line[marker.end() :] if marker else line).strip(_DECORATION)


def list_markers(found: list[str], pack: Pack) -> list[int]:
    """How many signs at the beginning of each line mark an item of a list: 3 in "1. Open the door.", else 0.

    In a language that writes ordinals with a dot, a number above 1 marks an item only after the number before it:
    "72. Zinemaldia" opens no item.
    """
    ends, seen = [], {0}
    for line in found:
        marker = _MARKER.match(line) if line else None
        counted = (marker["number"] or "")[:-1] if marker else ""
        number = int(counted) if counted.isdecimal() else None
        if marker and number is not None and pack.ordinal_dot and _is_ordinal(marker, number - 1 in seen, pack):
            marker = None
        elif number is not None:
            seen.add(number)
        ends.append(marker.end() if marker else 0)
    return ends


def _is_ordinal(marker: regex.Match[str], follows: bool, pack: Pack) -> bool:
    """Is the "2." that opens a line an ordinal ("2. mendean") and not the number of an item?"""
    rest = marker.string[marker.end() : marker.end() + 40].lower()
    return not follows or rest.startswith(pack.ordinal_followers or ("\0",))


def without_list_numbers(text: str, pack: Pack) -> str:
    """The text without the numbers and letters that count the items of its lists."""
    found = lines(text)
    numbered = [line if _NUMBER_SIGN.search(line, 0, 20) else "" for line in found]
    return "\n".join(line[end:] for line, end in zip(found, list_markers(numbered, pack), strict=True))


def paragraphs(text: str) -> list[str]:
    """The paragraphs that blank lines make; a line of spaces is blank too."""
    found: list[list[str]] = [[]]
    for line in lines(text):
        if line.strip():
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return ["\n".join(paragraph) for paragraph in found if paragraph]


@lru_cache(maxsize=32)
def _word_pattern(joiners: str, apostrophe: str, one_word: tuple[str, ...], addresses: bool) -> regex.Pattern[str]:
    """Letters, marks and digits, held together by the pack's joiners.

    1.000, 12:30 and 3,5 are one word, and so are III.a, 2000.ean, 3.º and n.º, U.S.A. and p.ex.; a URL or e-mail address
    is one word.
    """
    letters = r"[\p{L}\p{M}\p{N}]"
    inside = "".join(regex.escape(character) for character in joiners)
    if apostrophe == "joins":
        inside += "'’ʼ"
    joints = [r"(?<=\p{N})[.,:/](?=\p{N})", r"(?<=[\p{N}IVXLC])\.(?=[\p{Ll}ªº])", r"\.(?=[ªº])"]
    if inside:
        joints.append(f"[{inside}](?={letters})")
    whole = "|".join(regex.escape(word) for word in one_word)
    parts = [r"(?:https?://|www\.)\S++"]
    if addresses:
        parts.append(r"(?<![\w.])[\w.+-]{1,64}+@[\w-]++(?:\.[\w-]++)++")
    if whole:
        parts.append(rf"(?<!{letters})(?:{whole})(?!{letters})")
    parts.append(rf"(?<!{letters})\p{{L}}{{1,2}}\.(?:\p{{L}}{{1,2}}\.){{1,6}}+(?!{letters})")  # U.S.A., p.ex., a.m.
    parts.append(rf"{letters}++(?:(?:{'|'.join(joints)}){letters}++)*+")
    return regex.compile("|".join(parts), regex.IGNORECASE if whole else 0)


def words(text: str, pack: Pack) -> list[str]:
    """The words of a normalised text, as speakers of the pack's language count them."""
    pattern = _word_pattern(pack.word_joiners, pack.apostrophe, pack.one_word, "@" in text)
    found: list[str] = pattern.findall(text)
    return found


def occurrences(folded: str, phrase: str) -> int:
    """How often a word or phrase stands in a folded text as it is, not inside another word."""
    wanted = fold(phrase)
    return sum(1 for _ in positions(folded, wanted, AS_IS)) if wanted else 0


def positions(folded: str, stem: str, tails: frozenset[str]) -> Iterator[int]:
    """Where a word that is the stem with one of the tails begins in a folded text ("" is a tail like any other)."""
    longest = max(map(len, tails))
    position = folded.find(stem)
    while position >= 0:
        after = position + len(stem)
        starts = not (position and _joined(folded[position - 1], stem[0]))
        if starts and _tail(folded, after, stem, longest) in tails:
            yield position
            position = folded.find(stem, after)
        else:
            position = folded.find(stem, position + 1)


def _tail(folded: str, after: int, stem: str, longest: int) -> str:
    """What follows the stem inside its word, cut behind `longest` letters and one more."""
    if after == len(folded) or not _joined(stem[-1], folded[after]):
        return ""
    end = after
    while end < len(folded) and end - after <= longest and folded[end].isalnum():
        end += 1
    return folded[after:end]


def _joined(left: str, right: str) -> bool:
    """Do two neighbours belong to one word? Not where a script without spaces meets another."""
    if not (left.isalnum() and right.isalnum()):
        return False
    return (left >= _FIRST_EASTERN) == (right >= _FIRST_EASTERN)
