"""EusReading's prompt, whose number of options differs from question to question."""

from __future__ import annotations

from typing import Any

LETTERS = "ABCD"


def doc_to_text(document: dict[str, Any]) -> str:
    """The passage and the question with its lettered options, as lm_eval's eus_reading writes them."""
    options = [f"{letter}: {option}" for letter, option in zip(LETTERS, document["candidates"], strict=False)]
    question = "\n".join([f"Galdera: {document['question']}", *options, "Erantzuna:"])
    return f"Pasartea: {document['context']}\n\n{question}"


def doc_to_choice(document: dict[str, Any]) -> list[str]:
    """The letters of the options that this question has."""
    return list(LETTERS[: len(document["candidates"])])
