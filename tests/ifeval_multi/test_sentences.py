"""Sentences of texts that were read by hand, sentence by sentence.

tests/ifeval_multi/sentences/LANGUAGE.txt holds texts of our own in all genres that answers have. A ‖ stands behind
each sentence; %% or a line with # and a genre parts the texts. What is counted must end where the marks stand.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ifeval_multi import load_pack
from ifeval_multi.sentences import sentence_texts

FOLDER = Path(__file__).parent / "sentences"
LANGUAGES = ("eu", "gl", "ca", "es", "en")
GENRE = re.compile(r"^#(?!#) [a-z, ]+$|^%%$", re.MULTILINE)
ENDING = 14


def texts(language: str) -> list[str]:
    pieces = GENRE.split((FOLDER / f"{language}.txt").read_text(encoding="utf-8"))
    return [piece.strip("\n") for piece in pieces if piece.strip()]


def ending(text: str) -> str:
    """The last letters, which tell one sentence from another."""
    return "".join(filter(str.isalpha, text))[-ENDING:]


MARKED = [(language, text) for language in LANGUAGES for text in texts(language)]


@pytest.mark.parametrize(("language", "text"), MARKED, ids=lambda value: repr(value[:30]))
def test_sentences_end_where_a_reader_ends_them(language: str, text: str) -> None:
    *expected, _ = text.split("‖")
    found = sentence_texts(text.replace("‖", ""), load_pack(language))
    assert len(found) == len(expected), found
    for sentence, marked in zip(found, expected, strict=True):
        shorter = min(len(ending(sentence)), len(ending(marked)))
        assert ending(sentence)[-shorter:] == ending(marked)[-shorter:], found


@pytest.mark.parametrize("language", LANGUAGES)
def test_there_are_enough(language: str) -> None:
    assert sum(text.count("‖") for text in texts(language)) >= 120
