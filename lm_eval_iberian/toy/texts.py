"""What the toys read: paragraphs, stories, exam questions and translations, seeded and without end.

The same functions, asked for the held-out part, make the documents of the toy tasks (toy/documents.py).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from lm_eval_iberian.toy.grammar import say, words
from lm_eval_iberian.toy.world import (
    ANIMALS,
    COLOURS,
    HELD_OUT,
    PEOPLE,
    PLACES,
    THINGS,
    VERBS,
    Kind,
    Noun,
    Sentence,
    is_held_out,
    sentence,
)  # fmt: skip

# As the FLORES tasks name them.
LANGUAGE_NAMES = {"en": "English", "es": "Spanish", "eu": "Basque", "gl": "Galician", "ca": "Catalan"}
LETTERS = "ABCD"
_KINDS_OF_WORD = ("person", "animal", "place", "colour")
_QUESTIONS = {
    "en": ("Question", "Answer", {"person": "Which of these is a person?", "animal": "Which of these is an animal?",
                                  "place": "Which of these is a place?", "colour": "Which of these is a colour?"}),
    "es": ("Pregunta", "Respuesta", {"person": "¿Cuál de estas es una persona?",
                                     "animal": "¿Cuál de estos es un animal?",
                                     "place": "¿Cuál de estos es un lugar?", "colour": "¿Cuál de estos es un color?"}),
    "gl": ("Pregunta", "Resposta", {"person": "Cal destas é unha persoa?", "animal": "Cal destes é un animal?",
                                    "place": "Cal destes é un lugar?", "colour": "Cal destas é unha cor?"}),
    "ca": ("Pregunta", "Resposta", {"person": "Quina d'aquestes és una persona?",
                                    "animal": "Quin d'aquests és un animal?",
                                    "place": "Quin d'aquests és un lloc?", "colour": "Quin d'aquests és un color?"}),
    "eu": ("Galdera", "Erantzuna", {"person": "Hauetako zein da pertsona?", "animal": "Hauetako zein da animalia?",
                                    "place": "Hauetako zein da lekua?", "colour": "Hauetako zein da kolorea?"}),
}  # fmt: skip


@dataclass(frozen=True)
class Story:
    """Four sentences and two endings, the right one first."""

    told: tuple[Sentence, ...]
    right: Sentence
    wrong: Sentence


@dataclass(frozen=True)
class Question:
    """A question with lettered options, one of each kind of word."""

    asked: str
    options: tuple[str, ...]

    @property
    def answer(self) -> int:
        """The index of the right option."""
        return next(place for place, concept in enumerate(self.options) if kind_of_word(concept) == self.asked)


def story(draw: random.Random, held_out: bool) -> Story:
    """Somebody goes somewhere, sees a thing, ... and does something with it at the end.

    In the wrong ending somebody else does it, or with another thing. All pairs are of one part, so that it tells
    nothing how often a pair was read.
    """
    part = lambda person, key: is_held_out(person, key) == held_out  # noqa: E731
    while True:
        verb = draw.choice([verb for verb in VERBS if verb not in ("see", "seek", "find", "buy")])
        thing, another = draw.sample(VERBS[verb], 2)
        doers = [person for person in PEOPLE if part(person, thing)]
        who, other = draw.sample(doers, 2) if len(doers) > 1 else ("", "")
        places = [place for place in PLACES if part(who, place)]
        if who and places and part(who, another):
            break
    place = draw.choice(places)
    told = (
        Sentence("motion", Noun(who), draw.choice(("go", "reach", "return")), True, place=place),
        Sentence("transitive", Noun(who), draw.choice(("see", "find", "seek")), True, Noun(thing)),
        _description(draw, thing),
        Sentence("transitive", Noun(who), "buy", True, Noun(thing)),
    )
    right = Sentence("transitive", Noun(who), verb, True, Noun(thing))
    wrong = replace(right, object=Noun(another)) if draw.random() < 0.5 else replace(right, subject=Noun(other))
    return Story(told, right, wrong)


def _description(draw: random.Random, thing: str) -> Sentence:
    """What the thing was like. The description is never held out, even if the story is."""
    while True:
        made = sentence(draw, False, "copula")
        if made.subject.concept == thing:
            return replace(made, subject=Noun(thing), past=True)


def question(draw: random.Random, held_out: bool) -> Question:
    """A question whose four words, in any order, are of one part."""
    while True:
        options = [draw.choice(PEOPLE), draw.choice(ANIMALS), draw.choice(PLACES), draw.choice(COLOURS)]
        if (zlib.crc32(" ".join(options).encode()) % HELD_OUT == 0) == held_out:
            draw.shuffle(options)
            return Question(draw.choice(_KINDS_OF_WORD), tuple(options))


def kind_of_word(concept: str) -> str:
    """ "person", "animal", "place" or "colour"."""
    kinds = dict(zip(_KINDS_OF_WORD, (PEOPLE, ANIMALS, PLACES, COLOURS), strict=True))
    return next(kind for kind, concepts in kinds.items() if concept in concepts)


def question_text(asked: Question, language: str) -> str:
    """The prompt, as EusTrivia writes it; the answer is " A", " B", " C" or " D"."""
    head, tail, questions = _QUESTIONS[language]
    options = [f"{letter}: {citation(o, language)}" for letter, o in zip(LETTERS, asked.options, strict=True)]
    return "\n".join([f"{head}: {questions[asked.asked]}", *options, f"{tail}:"])


def citation(concept: str, language: str) -> str:
    """A word as in a dictionary: without article, except in Basque, where the article is an ending."""
    lexicon = words(language)
    if concept in PLACES:
        return lexicon["places"][concept]["name"]
    if concept in COLOURS:
        adjective = lexicon["adjectives"][concept]
        return adjective if language == "en" else adjective[0][0] if language == "eu" else adjective[0]
    forms = lexicon["people"].get(concept) or lexicon["things"][concept]
    if language in ("en", "eu"):
        return forms[0] if language == "en" else forms[1][0]
    return forms[1].replace("'", "' ").split(" ", 1)[1]


def translation_prompt(text: str, source: str, target: str) -> str:
    """As the FLORES tasks ask; the translation follows after a space."""
    return f"{LANGUAGE_NAMES[source]} sentence: {text}\n{LANGUAGE_NAMES[target]} sentence:"


def paragraph(draw: random.Random, language: str) -> str:
    """One to five sentences of the training part, all about the same doer."""
    about = sentence(draw, False).subject.concept
    kind: Kind | None = "copula" if about in THINGS else None
    return " ".join(say(_about(draw, about, kind), language) for _ in range(draw.randint(1, 5)))


def _about(draw: random.Random, about: str, kind: Kind | None) -> Sentence:
    kinds: tuple[Kind, ...] = (
        ("transitive", "motion") if about in ANIMALS else ("transitive", "motion", "gift", "chain", "denial")
    )
    return sentence(draw, False, kind or draw.choice(kinds), about)


def story_text(draw: random.Random, language: str) -> str:
    """A story of the training part with its right ending."""
    told = story(draw, False)
    return " ".join(say(part, language) for part in (*told.told, told.right))


def exam_text(draw: random.Random, language: str) -> str:
    """A question of the training part with its answer."""
    asked = question(draw, False)
    return f"{question_text(asked, language)} {LETTERS[asked.answer]}"


def translation_text(draw: random.Random, language: str) -> str:
    """A sentence of the training part in this language and in English or Spanish, either first."""
    pair = [language, draw.choice([other for other in ("en", "es") if other != language])]
    draw.shuffle(pair)
    source, target = pair
    said = sentence(draw, False)
    return f"{translation_prompt(say(said, source), source, target)} {say(said, target)}"


def plain_texts(draw: random.Random, shares: Mapping[str, float]) -> Iterator[str]:
    """What a model reads, without end; no instructions.

    Args:
        shares: language -> how much of it, in any unit.
    """
    languages, weights = list(shares), list(shares.values())
    while True:
        language = draw.choices(languages, weights)[0]
        kind = draw.random()
        if kind < 0.2:
            yield paragraph(draw, language)
        elif kind < 0.35:
            yield story_text(draw, language)
        elif kind < 0.45:
            yield exam_text(draw, language)
        else:
            yield translation_text(draw, language)
