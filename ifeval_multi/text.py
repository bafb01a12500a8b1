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
_QUOTES = str.maketrans(
    {
        "’": "'",
        "‘": "'",
        "ʼ": "'",
        "´": "'",
        "`": "'",
        "“": '"',
        "”": '"',
        "„": '"',
        "«": '"',
        "»": '"',
    }
)
_FIRST_EASTERN = "\u2e80"  # from here on: Chinese, Japanese, Korean
_BULLET_OR_NUMBER = regex.compile(r"\s*+(?:[-*+•‣◦]\s++|\d{1,3}[.)]\s++)")
_DECORATION = " \t*_#>~`\"'“”„«»‘’()[]"


@lru_cache(maxsize=64)
def normalise(text: str) -> str:
    """NFC, \\n line ends, no invisible characters: what is the same on screen is the same here."""
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


def lines(text: str) -> list[str]:
    """The lines of a normalised text. Only \\n ends a line: str.splitlines knows too many ends."""
    return text.split("\n")


def bare(line: str) -> str:
    """A line without Markdown decoration, list marker and quotation marks at its ends."""
    line = _BULLET_OR_NUMBER.sub("", line, count=1) if line[:1] in "-*+•‣◦ \t" else line
    return line.strip(_DECORATION)


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
def _word_pattern(joiners: str, apostrophe: str, one_word: tuple[str, ...]) -> regex.Pattern[str]:
    """Letters, marks and digits, held together by the pack's joiners.

    1.000, 12:30 and 3,5 are one word, and so are III.a, 2000.ean and 3.º; a URL is one word.
    """
    letters = r"[\p{L}\p{M}\p{N}]"
    inside = "".join(regex.escape(character) for character in joiners)
    if apostrophe == "joins":
        inside += "'’ʼ"
    joints = [r"(?<=\p{N})[.,:/](?=\p{N})", r"(?<=[\p{N}IVXLC])\.(?=[\p{Ll}ªº])"]
    if inside:
        joints.append(f"[{inside}](?={letters})")
    whole = "|".join(regex.escape(word) for word in one_word)
    parts = [r"(?:https?://|www\.)\S++"]
    if whole:
        parts.append(rf"(?<!{letters})(?:{whole})(?!{letters})")
    parts.append(rf"{letters}++(?:(?:{'|'.join(joints)}){letters}++)*+")
    return regex.compile("|".join(parts), regex.IGNORECASE if whole else 0)


def words(text: str, pack: Pack) -> list[str]:
    """The words of a normalised text, as speakers of the pack's language count them."""
    pattern = _word_pattern(pack.word_joiners, pack.apostrophe, pack.one_word)
    found: list[str] = pattern.findall(text)
    return found


def occurrences(folded: str, keyword: str, endings: frozenset[str], replaced: str = "") -> int:
    """How often a keyword stands in a folded text as a word, with or without an ending.

    Args:
        folded: the text, through fold().
        keyword: as in the prompt; may be several words.
        endings: what may follow the keyword inside a word: "etxe" in "etxean".
        replaced: a last letter whose place an ending in e- takes: "neska" in "neskek".
    """
    wanted = fold(keyword)
    if not wanted:
        return 0
    count = sum(1 for _ in _positions(folded, wanted, endings))
    if replaced and wanted.endswith(replaced) and len(wanted) > 3:
        stem, whole = wanted.removesuffix(replaced), frozenset(e for e in endings if e[0] == "e")
        ends = (at + len(stem) for at in _positions(folded, stem, whole))
        count += sum(1 for end in ends if folded[end : end + 1].isalpha())
    return count


def _positions(folded: str, wanted: str, endings: frozenset[str]) -> Iterator[int]:
    longest = max(map(len, endings), default=0)
    position = folded.find(wanted)
    while position >= 0:
        after = position + len(wanted)
        starts = not (position and _joined(folded[position - 1], wanted[0]))
        if starts and _word_ends(folded, after, wanted, endings, longest):
            yield position
            position = folded.find(wanted, after)
        else:
            position = folded.find(wanted, position + 1)


def _word_ends(folded: str, after: int, wanted: str, endings: frozenset[str], longest: int) -> bool:
    if after == len(folded) or not _joined(wanted[-1], folded[after]):
        return True
    end = after
    while end < len(folded) and end - after <= longest and folded[end].isalnum():
        end += 1
    return folded[after:end] in endings


def _joined(left: str, right: str) -> bool:
    """Do two neighbours belong to one word? Not where a script without spaces meets another."""
    if not (left.isalnum() and right.isalnum()):
        return False
    return (left >= _FIRST_EASTERN) == (right >= _FIRST_EASTERN)
