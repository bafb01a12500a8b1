"""Which language an answer is in, from what pip installs: no download, no network.

py3langid (BSD-3-Clause, its model inside the wheel) was chosen by measurement
(tests/benchmarks/language_identification.py). It always names a language, and for a short text or a list of names often
the wrong one. So an answer is refused only where the identifier is sure: by how much it must prefer another language,
in units of log-likelihood, was measured on right answers (tests/benchmarks/language_thresholds.py; RESULTS.md beside
them has the curve). It is imported when it is first used, because loading its model takes half a second.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ifeval_multi.errors import PackError
from ifeval_multi.pack import Pack, languages, load_pack
from ifeval_multi.text import words
from ifeval_multi.verdict import Verdict

# More text than this does not change the label, and keeps a megabyte answer cheap.
_ENOUGH = 1000
# Below this many letters the language is never held against an answer.
FEWEST_LETTERS = 20
# How far another language must lead. LIKELY, from so many letters on: where the text also has function words that the
# other language has and the language asked has not ("los", "the"). SURE: without such words, as in a list of names.
LIKELY: dict[int, float] = {20: 15, 30: 10, 40: 9}
SURE: dict[str, float] = {"eu": 30, "gl": 25, "ca": 25, "es": 40, "en": 40}
_OTHERS_SURE = 45.0
# One such word may be a name ("Ella"); from this many letters on, two are asked.
_TWO_WORDS_FROM = 40
# For a language that the identifier does not know: the share of markers, and the letters in which some must stand.
_ENOUGH_MARKED, _ENOUGH_TO_MARK = 1 / 7, 40


@lru_cache(maxsize=1)
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise PackError("language identification", "py3langid is not installed.", "pip install py3langid") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=False)


@lru_cache(maxsize=256)
def ranking(text: str) -> dict[str, float]:
    """The log-likelihoods of a text in all languages that the identifier knows, likeliest first."""
    # Upper case is read as lower case: the model has seen little of the former.
    return {code: float(value) for code, value in _identifier().rank(text[:_ENOUGH].lower())}


def identify(text: str) -> str:
    """The code of the likeliest language, "und" for a text without letters."""
    return next(iter(ranking(text))) if any(map(str.isalpha, text[:_ENOUGH])) else "und"


def can_be_told(code: str) -> bool:
    """Does the identifier know a language, by itself or by what its pack says of it?"""
    return code in languages() or code in ranking("a")


def is_language(text: str, code: str) -> Verdict:
    """Is the text in the language? Only a text that is surely in another is refused.

    py3langid does not know Asturian, and takes it for a neighbour. So a pack may name
    `identification.neighbours`, and `identification.markers`, words that those do not have: a
    text labelled as a neighbour is accepted when one word in seven is a marker.
    """
    if not can_be_told(code):
        code = code.lower().partition("-")[0]  # zh-cn, pt-BR
    letters = sum(map(str.isalpha, text[:_ENOUGH]))
    if letters == 0:
        return Verdict(False, "the answer holds no letters, so no language")
    if letters < FEWEST_LETTERS:
        return Verdict(True, f"{letters} letters are too few to tell the language")
    pack = load_pack(code) if code in languages() else None
    found, values = identify(text), ranking(text)
    labels = pack.labels if pack else (code,)
    if found in labels or (pack and found in pack.neighbours and marked_share(text, pack) >= _ENOUGH_MARKED):
        return Verdict(True, f"the answer is in {found!r}, {code!r} asked")
    known = [values[label] for label in labels if label in values]
    if not known and pack and pack.neighbours and letters < _ENOUGH_TO_MARK:
        known = [values[label] for label in pack.neighbours if label in values]
    if not known and not pack:
        return Verdict(False, f"{code!r} is no language that can be told from others; write the code of one, as 'fr'")
    lead = values[found] - max(known) if known else float("inf")
    needed = needed_lead(letters, code, has_words_of(text, found, code, letters))
    if lead <= needed:
        return Verdict(True, f"the answer may be in {code!r}, which is not surely {found!r} (lead {lead:.0f})")
    return Verdict(False, f"the answer is in {found!r}, {code!r} asked")


def needed_lead(letters: int, code: str, foreign_words: bool) -> float:
    """By how much another language must be likelier before a text of so many letters is refused."""
    if not foreign_words:
        return SURE.get(code, _OTHERS_SURE)
    return next(lead for least, lead in sorted(LIKELY.items(), reverse=True) if letters >= least)


def has_words_of(text: str, found: str, asked: str, letters: int) -> bool:
    """Does a text hold function words that one language with a pack has and the other has not?"""
    if found not in languages():
        return False
    other = load_pack(found)
    own = load_pack(asked).function_words if asked in languages() else frozenset()
    telling = {word for word in other.function_words - own if len(word) > 1}
    return len(telling.intersection(words(text[:_ENOUGH].lower(), other))) > (letters >= _TWO_WORDS_FROM)


def marked_share(text: str, pack: Pack) -> float:
    """The share of words that are markers of the pack's language ("ye", or "*u" for an ending)."""
    found = words(text[:_ENOUGH].lower(), pack)
    whole = frozenset(marker for marker in pack.markers if not marker.startswith("*"))
    endings = tuple(marker[1:] for marker in pack.markers if marker.startswith("*"))
    marked = sum(1 for w in found if w in whole or (len(w) > 4 and endings and w.endswith(endings)))
    return marked / len(found) if found else 0.0
