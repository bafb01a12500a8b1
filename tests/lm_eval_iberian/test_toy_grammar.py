"""The toy world: sentences as people write them, test texts that no model has read, answers that meet demands."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from ifeval_multi.documents import from_row
from ifeval_multi.evaluate import evaluate_response
from lm_eval_iberian.toy import instructions, texts
from lm_eval_iberian.toy.documents import TEST_ROWS, documents
from lm_eval_iberian.toy.grammar import LANGUAGES, mistakes, say
from lm_eval_iberian.toy.world import KINDS, Noun, Sentence, is_held_out, sentence
from tests.conftest import first_ones

GIFT = Sentence("gift", Noun("girl"), "give", True, Noun("flower", True, "red"), Noun("grandfather", True))
CHAIN = Sentence("chain", Noun("woman", True), "buy", True, Noun("apple", True), before="see")
DENIAL = Sentence("denial", Noun("man"), "sell", True, Noun("hat"), before="find", opener=True)
HIDE = Sentence("chain", Noun("boy", True, "tall"), "hide", True, Noun("ring"), before="see")
WALK = Sentence("motion", Noun("friend"), "walk", False, place="forest")
STAY = Sentence("motion", Noun("dog", True, "small"), "stay", True, place="school")
IS = Sentence("copula", Noun("ring", True), past=False, adjective="old")

# Typed by hand, with a grammar beside it.
SAID = [
    (GIFT, "en", "The girl gave the red flowers to the grandfathers."),
    (GIFT, "es", "La niña les dio las flores rojas a los abuelos."),
    (GIFT, "gl", "A nena deulles as flores vermellas aos avós."),
    (GIFT, "ca", "La nena va donar les flors vermelles als avis."),
    (GIFT, "eu", "Neskak aitonei lore gorriak eman zizkien."),
    (CHAIN, "en", "The women saw the apples and bought them."),
    (CHAIN, "es", "Las mujeres vieron las manzanas y las compraron."),
    (CHAIN, "gl", "As mulleres viron as mazás e mercáronas."),
    (CHAIN, "ca", "Les dones van veure les pomes i les van comprar."),
    (CHAIN, "eu", "Emakumeek sagarrak ikusi eta erosi zituzten."),
    (DENIAL, "en", "Yesterday, the man found the hat but did not sell it."),
    (DENIAL, "es", "Ayer, el hombre encontró el sombrero, pero no lo vendió."),
    (DENIAL, "gl", "Onte, o home atopou o sombreiro, pero non o vendeu."),
    (DENIAL, "ca", "Ahir, l'home va trobar el barret, però no el va vendre."),
    (DENIAL, "eu", "Atzo, gizonak kapela aurkitu zuen, baina ez zuen saldu."),
    (HIDE, "es", "Los niños altos vieron el anillo y lo escondieron."),
    (HIDE, "gl", "Os nenos altos viron o anel e agochárono."),
    (HIDE, "ca", "Els nens alts van veure l'anell i el van amagar."),
    (HIDE, "eu", "Mutil altuek eraztuna ikusi eta ezkutatu zuten."),
    (WALK, "en", "The friend walks through the forest."),
    (WALK, "es", "La amiga camina por el bosque."),
    (WALK, "gl", "A amiga camiña polo bosque."),
    (WALK, "ca", "L'amiga camina pel bosc."),
    (WALK, "eu", "Laguna basoan zehar ibiltzen da."),
    (STAY, "es", "Los perros pequeños se quedaron en la escuela."),
    (STAY, "gl", "Os cans pequenos quedaron na escola."),
    (STAY, "ca", "Els gossos petits es van quedar a l'escola."),
    (STAY, "eu", "Txakur txikiak eskolan gelditu ziren."),
    (IS, "gl", "Os aneis son vellos."),
    (IS, "ca", "Els anells són vells."),
    (IS, "eu", "Eraztunak zaharrak dira."),
]
WRONG = [
    (GIFT, "eu", "number of the recipient", "Neskak aitonei lore gorriak eman zizkion."),
    (GIFT, "eu", "number of the object", "Neskak aitonei lore gorriak eman zien."),
    (GIFT, "eu", "case of the subject", "Neska aitonei lore gorriak eman zizkien."),
    (HIDE, "eu", "number of the verb", "Mutil altuek eraztuna ikusi eta ezkutatu zuen."),
    (DENIAL, "eu", "number of the object", "Atzo, gizonak kapela aurkitu zituen, baina ez zituen saldu."),
    (STAY, "eu", "case of the subject", "Txakur txikiek eskolan gelditu ziren."),
    (GIFT, "gl", "contraction", "A nena deulles as flores vermellas a os avós."),
    (CHAIN, "gl", "place of the pronoun", "As mulleres viron as mazás e as mercaron."),
    (DENIAL, "gl", "place of the pronoun", "Onte, o home atopou o sombreiro, pero non vendeuno."),
    (STAY, "ca", "contraction", "Els gossos petits es van quedar a la escola."),
    (HIDE, "ca", "place of the pronoun", "Els nens alts van veure l'anell i van el amagar."),
    (IS, "es", "number of the predicate", "Los anillos son viejo."),
]


@pytest.mark.parametrize(("meant", "language", "said"), SAID)
def test_sentences_are_what_people_write(meant: Sentence, language: str, said: str) -> None:
    assert say(meant, language) == said


@pytest.mark.parametrize(("meant", "language", "mistake", "said"), WRONG)
def test_mistakes_are_mistakes(meant: Sentence, language: str, mistake: str, said: str) -> None:
    assert mistake in mistakes(meant, language)
    assert say(meant, language, mistake) == said


def test_words_with_two_genders_are_no_mistake() -> None:
    """ "La médico", "els mestres" and "el clau" are right, in another sense."""
    assert "gender of the article" not in mistakes(Sentence("motion", Noun("doctor"), "go", place="city"), "es")
    teachers = Sentence("motion", Noun("teacher", True), "go", place="city")
    assert "gender of the article" not in mistakes(teachers, "ca")
    assert "gender of the article" not in mistakes(Sentence("copula", Noun("key"), adjective="old"), "ca")


def test_one_that_may_be_several_is_no_mistake() -> None:
    """ "Gizonak ... zuten" is what much of speech says for "gizonek ... zuten"."""
    assert all("number of the verb" not in mistakes(one, "eu") for one in (DENIAL, GIFT))


def test_every_form_can_be_said() -> None:
    """No word list lacks a form, in any kind of sentence, with any mistake."""
    draw = random.Random(0)
    for kind, held_out in itertools.product(KINDS, (False, True)):
        for _ in range(150):
            made = sentence(draw, held_out, kind)
            for language in LANGUAGES:
                said = [say(made, language, mistake) for mistake in ("", *mistakes(made, language))]
                assert len(set(said)) == len(said)
                assert all(re.fullmatch(r"[A-ZÀ-Ý][\w' ,·]+\.", text) for text in said)


def sentences_of(text: str) -> set[str]:
    """The sentences in a text, from their capitals to their full stops; lower-cased, as some answers are."""
    return {part.strip().lower() for part in re.split(r"(?<=\.)|\n|<<|>>|\"|: ", text) if part.strip().endswith(".")}


@pytest.mark.parametrize("language", first_ones(LANGUAGES, 1))
def test_no_model_reads_a_test_sentence(language: str) -> None:
    draw = random.Random(1)
    read = set[str]()
    for text in itertools.islice(texts.plain_texts(draw, {language: 0.8, "en": 0.1, "es": 0.1}), 4000):
        read |= sentences_of(text)
    for _ in range(2000):
        asked = instructions.instruction(draw, False)
        read |= sentences_of(instructions.answer(asked, language, draw))
    assert len(read) > 2000
    pairs = {row["sen"].lower() for row in documents("pairs", language)["test"]}
    endings = {row[f"sentence_quiz{n}"].lower() for row in documents("story", language)["test"] for n in (1, 2)}
    told = documents("mt", f"{language}-{'es' if language != 'es' else 'en'}")["test"]
    translated = {row["prompt"].split(": ")[1].split("\n")[0].lower() for row in told}
    for tested in (pairs, endings, translated):
        assert len(tested) >= 35
        assert not tested & read


def test_questions_and_instructions_of_the_test_are_held_out() -> None:
    draw = random.Random(2)
    read = {frozenset(texts.question(draw, False).options) for _ in range(3000)}
    tested = {frozenset(texts.question(draw, True).options) for _ in range(300)}
    assert len(tested) > 50 and not read & tested
    tuned = {(i.topic, frozenset(i.demands)) for i in (instructions.instruction(draw, False) for _ in range(3000))}
    asked = {(i.topic, frozenset(i.demands)) for i in (instructions.instruction(draw, True) for _ in range(300))}
    assert len(asked) > 50 and not tuned & asked


def test_the_held_out_part_is_a_sixth() -> None:
    draw = random.Random(3)
    share = sum(is_held_out(*sentence(draw, draw.random() < 0).key) for _ in range(10))
    assert share == 0
    keys = {(f"a{n}", "b") for n in range(6000)}
    assert 800 < sum(is_held_out(*key) for key in keys) < 1200


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_meet_the_demands(language: str) -> None:
    """By the real checks. Which language a text of ten words is in, they may mistake: that alone is let pass."""
    draw = random.Random(4)
    for number in range(200):
        asked = instructions.instruction(draw, number % 2 == 0)
        row = instructions.row(asked, language, number)
        answer = instructions.answer(asked, language, draw)
        found = evaluate_response(from_row(row), answer, language, "corrected")
        for name, followed in zip(found["instruction_ids"], found["strict"], strict=True):
            if name == "change_case:english_lowercase":
                assert answer == answer.lower()
            else:
                assert followed, (name, row["prompt"], answer)


@pytest.mark.parametrize("kind", TEST_ROWS)
def test_documents_are_the_same_every_time(kind: str) -> None:
    language = "es-eu" if kind == "mt" else "gl"
    first, second = documents(kind, language), documents(kind, language)
    assert first == second
    assert len(first["test"]) == TEST_ROWS[kind] and len(first["train"]) >= 12


def test_stories_have_one_right_ending() -> None:
    """It is about the one whom the story is about, and the thing that it is about."""
    for row in documents("story", "en")["test"]:
        right, wrong = (row[f"sentence_quiz{n}"] for n in (row["answer_right_ending"], 3 - row["answer_right_ending"]))
        who, thing = row["input_sentence_4"].removesuffix(".").split(" bought ")
        assert right.startswith(who) and right.endswith(f"{thing}.")
        assert not (wrong.startswith(f"{who} ") and wrong.endswith(f" {thing}."))
