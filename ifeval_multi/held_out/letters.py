"""Letters as a language sorts and compares them, and emoji."""

from __future__ import annotations

from functools import lru_cache

import regex

from ifeval_multi.pack import Pack

# One emoji as it is seen: a flag, a keycap, or pictures joined by U+200D with their variation and skin tone.
_PICTURE = r"(?![©®™])\p{Extended_Pictographic}\uFE0F?\p{EMod}?"
EMOJI = rf"(?:\p{{RI}}{{2}}|[0-9#*]\uFE0F?\u20E3|{_PICTURE}(?:\u200D{_PICTURE})*+)"
_NOT_SORTED_BY = regex.compile(r"[^\p{L}\p{N} ]++")


@lru_cache(maxsize=32)
def _bases(pack: Pack) -> dict[int, str]:
    """Accented letter -> the letter that it is in the language: Spanish ó is an o, ñ is no n."""
    return {ord(sign): letter for letter, signs in pack.letter_variants.items() for sign in signs}


def base_letters(text: str, pack: Pack) -> str:
    """A text in lower case, its accented letters as the plain ones that they are variants of."""
    return text.lower().translate(_bases(pack))


def sorting_key(text: str, pack: Pack) -> str:
    """What comes first in a dictionary is smaller: ñ follows n, accents and signs do not count."""
    letters = _NOT_SORTED_BY.sub("", base_letters(text, pack))
    return str(letters).replace("ñ", "n\uffff").replace("ç", "c\uffff").strip()


def emoji_in(text: str) -> list[str]:
    """Every emoji of a text, in order."""
    found: list[str] = regex.findall(EMOJI, text)
    return found
