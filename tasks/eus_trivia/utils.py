"""EusTrivia's prompt, whose number of options differs from question to question."""

from __future__ import annotations

from typing import Any

LETTERS = "ABCD"


def doc_to_text(document: dict[str, Any]) -> str:
    """The question with its lettered options, as lm_eval's eus_trivia writes it."""
    options = [f"{letter}: {option}" for letter, option in zip(LETTERS, document["candidates"], strict=False)]
    return "\n".join([f"Galdera: {document['question']}", *options, "Erantzuna:"])


def doc_to_choice(document: dict[str, Any]) -> list[str]:
    """The letters of the options that this question has."""
    return list(LETTERS[: len(document["candidates"])])
