"""Telling languages apart: what is too short to tell, what may decide between neighbours, and what never does."""

from __future__ import annotations

import pytest

from ifeval_multi import language_id
from ifeval_multi.language_id import identify, is_language, marked_share
from ifeval_multi.pack import load_pack

PORTUGUESE = "Esta manhã fomos à montanha com os nossos amigos e o tempo estava bom."


@pytest.mark.parametrize(
    ("text", "followed"), [("1234 ...", False), ("a", True), ("Bom dia, amigo", True), ("Bom dia, amigos", False)]
)
def test_twelve_letters_are_the_fewest_that_are_held_against_an_answer(
    text: str, followed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_id, "ranking", lambda text: (("pt", 1.0),))
    assert is_language(text, "eu").followed is followed


def test_the_identifier_is_given_small_letters_and_a_thousand_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """py3langid has seen little of capitals, and more text changes no label."""
    asked: list[str] = []

    class Identifier:
        def rank(self, text: str) -> list[tuple[str, float]]:
            asked.append(text)
            return [(code, 0.1) for code in ("eu", "es", "ca", "gl", "pt", "fr")]

    monkeypatch.setattr(language_id, "_identifier", Identifier)
    assert len(language_id.ranking("ÑABAR GORRI " * 100)) == 5
    assert asked == [("ñabar gorri " * 100)[:1000]]


def test_one_word_in_seven_makes_a_neighbour_asturian(monkeypatch: pytest.MonkeyPatch) -> None:
    """py3langid does not know Asturian: a text labelled as a neighbour is one where every seventh word is a marker."""
    pack = load_pack("ast")
    marker = next(word for word in pack.markers if not word.startswith("*"))
    monkeypatch.setattr(language_id, "ranking", lambda text: ((pack.neighbours[0], 1.0),))
    for others, followed in ((6, True), (7, False)):
        text = " ".join([marker, *["palabra"] * others])
        assert marked_share(text, pack) == 1 / (1 + others)
        assert is_language(text, "ast").followed is followed, others
    monkeypatch.setattr(language_id, "ranking", lambda text: (("fr", 1.0),))
    assert not is_language(" ".join([marker] * 12), "ast").followed, "French is no neighbour"


def test_a_neighbour_alone_does_not_do() -> None:
    assert identify(PORTUGUESE) == "pt"
    assert is_language(PORTUGUESE, "pt").followed and not is_language(PORTUGUESE, "gl").followed
    assert not is_language(PORTUGUESE, "ast").followed
