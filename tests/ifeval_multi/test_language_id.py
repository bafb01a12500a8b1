"""Telling languages apart: what is too short to tell, what is not sure, and what is surely another language."""

from __future__ import annotations

import pytest

from ifeval_multi import language_id
from ifeval_multi.language_id import has_words_of, identify, is_language, marked_share
from ifeval_multi.pack import load_pack

PORTUGUESE = "Esta manhã fomos à montanha com os nossos amigos e o tempo estava bom."


def ranked(monkeypatch: pytest.MonkeyPatch, **values: float) -> None:
    monkeypatch.setattr(language_id, "ranking", lambda text: values)


@pytest.mark.parametrize(
    ("text", "followed"), [("1234 ...", False), ("a", True), ("nos os amigos e os dez", True), ("nos os amigos e os das dez", False)]
)  # fmt: skip
def test_twenty_letters_are_the_fewest_that_are_held_against_an_answer(
    text: str, followed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked(monkeypatch, pt=0.0, eu=-1000.0)
    assert is_language(text, "eu").followed is followed


@pytest.mark.parametrize(
    ("text", "lead", "followed"),
    [
        ("casas das pedras verdes", 15, True), ("casas das pedras verdes", 15.1, False),  # 20 letters, a word of Portuguese
        ("casa das pedras verdes e altas serras", 10, True), ("casa das pedras verdes e altas serras", 10.1, False),
        ("casa das pedras verdes e altas serras nas aldeias", 9.1, False),  # from 40 letters on, two of its words
        ("casa pedras verdes altas serras das aldeias frias", 9.1, True), ("casa pedras verdes altas", 30, True),
        ("casa pedras verdes altas", 30.1, False),  # no word of it: a list of names would look so
    ],
)  # fmt: skip
def test_how_far_another_language_must_lead(
    text: str, lead: float, followed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked(monkeypatch, pt=0.0, eu=-lead)
    assert is_language(text, "eu").followed is followed


def test_words_of_the_other_language_are_those_that_the_asked_one_has_not() -> None:
    assert has_words_of("EL PERRO", "es", "eu", 30) and not has_words_of("perro", "es", "eu", 30)
    assert not has_words_of("nos por para", "es", "gl", 30), "Galician has them too"
    assert not has_words_of("der Hund", "de", "eu", 30), "no pack, no words"
    assert has_words_of("los perros", "es", "fi", 30), "nothing is known of Finnish"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "URBAN TRANSIT DATA"), ("en", "VELVET MOON BAKERY"), ("en", "TERRA NOVA SOLAR PANELS"), ("en", "QUANTUM LEAP ANALYTICS"),
        ("eu", "1. MIREN\n2. JON\n3. AITOR\n4. GARAZI\n5. UNAI\n6. LEIRE"), ("eu", "ITSASO BAREA, MENDI BERDEA"),
        ("eu", "SAGARDOTEGI ZAHARRA"), ("gl", "A CASA DO MAR DE FÓRA"), ("gl", "PAN DE MILLO CON ZORZA"), ("gl", "UXÍA, BRAIS, ANTÍA, NOA"),
        ("gl", "NOITE DE LÚA CHEA NA PRAIA"), ("ca", "EL FORN DE LA PLAÇA VELLA"), ("ca", "LLUM DE TARDOR AL PORT"), ("ca", "MIREIA, JORDI, NÚRIA, PAU"),
        ("es", "PANADERÍA EL SOL NACIENTE"), ("es", "LUNA DE PLATA SOBRE SEVILLA"), ("es", "MADRID, TOLEDO, SORIA, BURGOS, JAÉN"),
        ("es", "CAFÉ CENTRAL DE CÁDIZ"), ("gl", "MERCADO DA VILA"), ("en", "GRACE, LEO, ISLA, NOAH, RUBY, OSCAR"),
    ],
)  # fmt: skip
def test_short_right_answers_are_not_refused(code: str, text: str) -> None:
    for written in (text, text.lower()):
        assert is_language(written, code).followed, is_language(written, code).reason


@pytest.mark.parametrize("asked", ["eu", "gl", "ca", "es", "en"])
@pytest.mark.parametrize("other", ["eu", "gl", "ca", "es", "en", "pt", "fr"])
def test_a_sentence_in_another_language_is_refused(asked: str, other: str) -> None:
    for text in (load_pack(other).sample, load_pack(other).sample.upper()):
        assert is_language(text, asked).followed is (asked == other)


def test_a_language_without_a_pack() -> None:
    german = "Heute früh sind wir mit unseren Freunden auf den Berg gestiegen und das Wetter war sehr schön."
    assert is_language(german, "de").followed and not is_language(german, "en").followed
    assert not is_language(load_pack("es").sample, "de").followed
    assert not is_language("これは日本語で書かれた文章です。今日は天気がとても良いので散歩に行きます。", "en").followed


def test_codes_with_a_region_and_words_that_are_no_code() -> None:
    text = "Hoje de manhã fomos à montanha com os nossos amigos."
    assert is_language(text, "pt-BR") and not is_language(text, "zh-cn")
    assert "is no language that can be told" in is_language(text, "português").reason


def test_the_identifier_is_given_small_letters_and_a_thousand_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """py3langid has seen little of capitals, and more text changes no label."""
    asked: list[str] = []

    class Identifier:
        def rank(self, text: str) -> list[tuple[str, float]]:
            asked.append(text)
            return [("eu", -1.0), ("es", -2.0)]

    monkeypatch.setattr(language_id, "_identifier", Identifier)
    assert language_id.ranking("ÑABAR GORRI " * 101) == {"eu": -1.0, "es": -2.0}
    assert asked == [("ñabar gorri " * 100)[:1000]]


def test_one_word_in_seven_makes_a_neighbour_asturian(monkeypatch: pytest.MonkeyPatch) -> None:
    """py3langid does not know Asturian: a text labelled as a neighbour is one where every seventh word is a marker."""
    pack = load_pack("ast")
    marker = next(word for word in pack.markers if not word.startswith("*"))
    ranked(monkeypatch, **{pack.neighbours[0]: 0.0})
    for others, followed in ((6, True), (7, False)):
        text = " ".join([marker, *["palabra"] * others])
        assert marked_share(text, pack) == 1 / (1 + others)
        assert is_language(text, "ast").followed is followed, others
    ranked(monkeypatch, fr=0.0)
    assert not is_language(" ".join([marker] * 12), "ast").followed, "French is no neighbour"


def test_a_neighbour_alone_does_not_do() -> None:
    assert identify(PORTUGUESE) == "pt"
    assert is_language(PORTUGUESE, "pt").followed and not is_language(PORTUGUESE, "gl").followed
    assert not is_language(PORTUGUESE, "ast").followed
