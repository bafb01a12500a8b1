"""Which language an answer is in, from what pip installs: no download, no network.

py3langid (BSD-3-Clause, its model inside the wheel) was chosen by measurement; the figures are in
README.md and tests/benchmarks/language_identification.py makes them again. It is imported when
first used: loading its model takes half a second.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ifeval_multi.errors import PackError
from ifeval_multi.pack import Pack
from ifeval_multi.verdict import Verdict

# More text than this does not change the label, and keeps a megabyte answer cheap.
_ENOUGH = 2000
# Below this many letters no identifier can be trusted, so the language is not held against
# the answer. "SÍ." is such an answer.
_TOO_FEW_LETTERS = 12


@lru_cache(maxsize=1)
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise PackError(
            "language identification", "py3langid is not installed.", "pip install py3langid"
        ) from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@lru_cache(maxsize=256)
def ranking(text: str) -> tuple[tuple[str, float], ...]:
    """The likeliest languages of a text, best first, with their probabilities."""
    # Upper case is read as lower case: the model has seen little of the former.
    return tuple(_identifier().rank(text[:_ENOUGH].lower())[:5])


def identify(text: str) -> str:
    """The code of the likeliest language, "und" for a text without letters."""
    return ranking(text)[0][0] if any(map(str.isalpha, text[:_ENOUGH])) else "und"


def is_language(text: str, code: str, pack: Pack | None = None) -> Verdict:
    """Is the text in the language? With a pack of it, its labels and neighbours are known.

    A pack names `neighbours`, languages that the identifier takes its own for (Asturian for
    Spanish): one of them in first place is accepted when the language itself is among the next.
    """
    letters = sum(map(str.isalpha, text[:_ENOUGH]))
    if letters == 0:
        return Verdict(False, "the answer holds no letters, so no language")
    if letters < _TOO_FEW_LETTERS:
        return Verdict(True, f"{letters} letters are too few to tell the language")
    labels = pack.labels if pack and pack.code == code else (code,)
    found = [label for label, _ in ranking(text)]
    accepted = found[0] in labels or _is_neighbour(found, labels, code, pack)
    return Verdict(accepted, f"the answer is in {found[0]!r}, {code!r} asked")


def _is_neighbour(
    found: list[str], labels: tuple[str, ...], code: str, pack: Pack | None
) -> bool:
    if pack is None or pack.code != code or found[0] not in pack.neighbours:
        return False
    return any(label in labels for label in found[1:3])
