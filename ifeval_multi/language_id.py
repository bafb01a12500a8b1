"""Which language an answer is in, from what pip installs: no download, no network.

py3langid (BSD-3-Clause, its model inside the wheel) was chosen by measurement. The script is
tests/benchmarks/language_identification.py; the figures are in RESULTS.md beside it. It is imported when it is first
used, because loading its model takes half a second.
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
# Below this many letters no identifier can be trusted, so the language is not held against
# the answer. "SÍ." is such an answer.
_TOO_FEW_LETTERS = 12
_ENOUGH_MARKED = 1 / 7


@lru_cache(maxsize=1)
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise PackError("language identification", "py3langid is not installed.", "pip install py3langid") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@lru_cache(maxsize=256)
def ranking(text: str) -> tuple[tuple[str, float], ...]:
    """The likeliest languages of a text, best first, with their probabilities."""
    # Upper case is read as lower case: the model has seen little of the former.
    return tuple(_identifier().rank(text[:_ENOUGH].lower())[:5])


def identify(text: str) -> str:
    """The code of the likeliest language, "und" for a text without letters."""
    return ranking(text)[0][0] if any(map(str.isalpha, text[:_ENOUGH])) else "und"


def is_language(text: str, code: str) -> Verdict:
    """Is the text in the language? A pack of that language, where there is one, helps to tell.

    py3langid does not know Asturian, and takes it for a neighbour. So a pack may name
    `identification.neighbours`, and `identification.markers`, words that those do not have: a
    text labelled as a neighbour is accepted when one word in seven is a marker.
    """
    letters = sum(map(str.isalpha, text[:_ENOUGH]))
    if letters == 0:
        return Verdict(False, "the answer holds no letters, so no language")
    if letters < _TOO_FEW_LETTERS:
        return Verdict(True, f"{letters} letters are too few to tell the language")
    pack = load_pack(code) if code in languages() else None
    found = identify(text)
    accepted = found in (pack.labels if pack else (code,))
    if not accepted and pack and found in pack.neighbours:
        accepted = marked_share(text, pack) >= _ENOUGH_MARKED
    return Verdict(accepted, f"the answer is in {found!r}, {code!r} asked")


def marked_share(text: str, pack: Pack) -> float:
    """The share of words that are markers of the pack's language ("ye", or "*u" for an ending)."""
    found = words(text[:_ENOUGH].lower(), pack)
    whole = frozenset(marker for marker in pack.markers if not marker.startswith("*"))
    endings = tuple(marker[1:] for marker in pack.markers if marker.startswith("*"))
    marked = sum(1 for w in found if w in whole or (len(w) > 4 and endings and w.endswith(endings)))
    return marked / len(found) if found else 0.0
