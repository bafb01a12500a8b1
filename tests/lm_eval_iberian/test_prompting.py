"""How prompts are named, and which figures of a column are marked as prompted otherwise."""

from __future__ import annotations

import pytest

from lm_eval_iberian.identity.prompting import PLAIN, PRINTED, SOME, Prompt, has_several, odd_ones, of_chat, shown

CHAT, TURNS, OTHER = Prompt("ab12cd"), Prompt("ab12cd", True), Prompt("ef34", True)


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        (PLAIN, "plain"), (CHAT, "chat"), (TURNS, "multiturn"), (PRINTED, "multiturn"), (Prompt(None, False, "s"), "plain+sys"),
        (Prompt("a", True, "s"), "multiturn+sys"), (Prompt("a", is_known=False), "?"),
    ],
)  # fmt: skip
def test_words(prompt: Prompt, word: str) -> None:
    assert prompt.word == word


def test_an_identity_says_it() -> None:
    assert of_chat({"template": "ab12cd", "multiturn": True, "system": None}) == TURNS
    assert of_chat({"template": None, "system": "s"}, False) == Prompt(None, False, "s", False)


@pytest.mark.parametrize(
    ("column", "odd"),
    [
        ([[TURNS], [TURNS], [CHAT]], [False, False, True]),
        ([[TURNS], [OTHER], [OTHER]], [True, False, False]),  # another template to the letter
        ([[TURNS, CHAT], [TURNS], [], [TURNS]], [True, False, False, False]),  # one of its prompts is enough; no figure, no mark
        ([[PRINTED], [TURNS], [CHAT], [CHAT], [CHAT]], [True, True, False, False, False]),
        # A printed figure's template is not known to the letter: it goes with all of its word.
        ([[PRINTED], [PRINTED], [TURNS], [OTHER], [PLAIN], [PLAIN], [PLAIN]], [False, False, False, False, True, True, True]),
        ([[PRINTED], [TURNS], [PLAIN]], [False, False, True]),
        ([[], []], [False, False]),
    ],
)  # fmt: skip
def test_what_most_rows_have_is_usual(column: list[list[Prompt]], odd: list[bool]) -> None:
    assert odd_ones(column) == odd


def test_templates_are_named_where_there_are_several() -> None:
    assert has_several([TURNS, OTHER]) and not has_several([TURNS, CHAT, PLAIN, PRINTED])
    assert shown([TURNS, OTHER, TURNS], several=True) == "multiturn ab12 / multiturn ef34"
    assert shown([TURNS, OTHER], several=False) == "multiturn" == shown([Prompt(SOME, True)], several=True)
