"""The toy world, free of any language: who does what with which thing, where, and what of it is held out.

A `Sentence` is made of concepts ("girl", "buy", "apple"); toy/grammar.py says it in five languages. Each sentence has a
*key*, the pair that it is about: doer and thing, doer and place, or thing and adjective. A sixth of all keys is held
out: no model reads a sentence with such a key, and every test sentence has one.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from typing import Literal

PEOPLE = ("girl", "boy", "woman", "man", "teacher", "doctor", "baker", "friend", "grandmother", "grandfather",
          "fisherman", "neighbour")  # fmt: skip
ANIMALS = ("cat", "dog", "horse", "cow")
THINGS = ("apple", "book", "flower", "letter", "key", "stone", "table", "chair", "hat", "ship", "car", "loaf", "egg",
          "mirror", "bag", "ring")  # fmt: skip
PLACES = ("market", "school", "mountain", "village", "beach", "forest", "city", "river")
COLOURS = ("red", "white", "black")

# What each verb takes, so that sentences make sense.
_TO_CARRY = (
    "apple",
    "book",
    "flower",
    "letter",
    "key",
    "stone",
    "chair",
    "hat",
    "loaf",
    "egg",
    "mirror",
    "bag",
    "ring",
)
VERBS: dict[str, tuple[str, ...]] = {
    "see": THINGS, "buy": THINGS, "sell": THINGS, "seek": THINGS, "find": THINGS,
    "carry": _TO_CARRY, "lose": _TO_CARRY, "hide": _TO_CARRY,
    "clean": ("table", "chair", "car", "mirror", "bag", "ship", "ring", "stone"),
    "paint": ("table", "chair", "car", "ship", "egg", "stone"),
    "break": ("chair", "table", "egg", "mirror"),
}  # fmt: skip
GIFTS = ("give", "show", "send")
# What an animal does with things.
ANIMAL_VERBS = ("see", "seek", "find")
# How a place is put with each verb of motion.
MOTIONS = {"go": "goal", "return": "goal", "reach": "end", "come": "source", "stay": "rest", "walk": "way"}
NO_WAY = ("school", "river")  # nobody walks through these
PEOPLE_ADJECTIVES = ("tall", "old", "small", "tired")
ANIMAL_ADJECTIVES = ("black", "white", "old", "small", "tired")
ADJECTIVES: dict[str, tuple[str, ...]] = {
    "apple": ("red", "big", "small"),
    "book": ("red", "white", "black", "new", "old", "big", "small"),
    "flower": ("red", "white", "big", "small"),
    "letter": ("white", "new", "old", "small"),
    "key": ("black", "new", "old", "big", "small"),
    "stone": ("red", "white", "black", "big", "small"),
    "table": ("red", "white", "black", "new", "old", "big", "small"),
    "chair": ("red", "white", "black", "new", "old", "big", "small"),
    "hat": ("red", "white", "black", "new", "old", "big", "small"),
    "ship": ("red", "white", "black", "new", "old", "big", "small"),
    "car": ("red", "white", "black", "new", "old", "big", "small"),
    "loaf": ("white", "black", "big", "small"),
    "egg": ("red", "white", "big", "small"),
    "mirror": ("new", "old", "big", "small"),
    "bag": ("red", "white", "black", "new", "old", "big", "small"),
    "ring": ("red", "white", "new", "old", "small"),
}

Kind = Literal["transitive", "chain", "denial", "motion", "gift", "copula"]
KINDS: tuple[Kind, ...] = ("transitive", "chain", "denial", "motion", "gift", "copula")
WEIGHTS = (5, 2, 2, 4, 3, 2)
HELD_OUT = 6


@dataclass(frozen=True)
class Noun:
    """A noun phrase: a concept, one or several of it, and an adjective or none."""

    concept: str
    many: bool = False
    adjective: str = ""


@dataclass(frozen=True)
class Sentence:
    """What a sentence says.

    Args:
        kind: transitive (she buys it), chain (sees it and buys it), denial (sees it but does not buy it), motion,
            gift (gives it to him), copula (it is red).
        subject: the doer; the thing, in a copula.
        verb: of VERBS, GIFTS or MOTIONS; the second one in a chain or denial, whose first is `before`.
        adjective: what a copula says of its subject.
        opener: whether it begins with "Yesterday," or "Every day,".
    """

    kind: Kind
    subject: Noun
    verb: str = ""
    past: bool = True
    object: Noun | None = None
    recipient: Noun | None = None
    place: str = ""
    before: str = ""
    adjective: str = ""
    opener: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """The pair that decides whether it is held out."""
        if self.kind == "copula":
            return self.subject.concept, self.adjective
        return self.subject.concept, self.place or (self.object.concept if self.object else "")


def is_held_out(first: str, second: str) -> bool:
    """Whether a key is kept from all training texts. Does not depend on any seed."""
    return zlib.crc32(f"{first} {second}".encode()) % HELD_OUT == 0


def sentence(draw: random.Random, held_out: bool, kind: Kind | None = None, subject: str = "") -> Sentence:
    """A random sentence of the training part, or of the held-out part; of this kind and doer, where given."""
    while True:
        made = _any(draw, kind or draw.choices(KINDS, WEIGHTS)[0], subject)
        if is_held_out(*made.key) == held_out:
            return made


def _any(draw: random.Random, kind: Kind, subject: str) -> Sentence:
    opener = draw.random() < 0.3
    if kind == "copula":
        described = subject or draw.choice(THINGS)
        adjective = draw.choice(ADJECTIVES[described])
        return Sentence(kind, Noun(described, draw.random() < 0.4), past=draw.random() < 0.5, adjective=adjective)
    people = kind in ("gift", "chain", "denial")
    who = doer(draw, subject or draw.choice(PEOPLE if people or draw.random() < 0.75 else ANIMALS))
    if kind == "motion":
        verb = draw.choice(list(MOTIONS))
        place = draw.choice([place for place in PLACES if verb != "walk" or place not in NO_WAY])
        return Sentence(kind, who, verb, draw.random() < 0.6, place=place, opener=opener)
    if kind == "gift":
        other = draw.choice([person for person in PEOPLE if person != who.concept])
        thing = object_of(draw, draw.choice(_TO_CARRY))
        recipient = Noun(other, draw.random() < 0.4)
        return Sentence(kind, who, draw.choice(GIFTS), draw.random() < 0.6, thing, recipient, opener=opener)
    if kind == "transitive":
        verb = draw.choice(ANIMAL_VERBS if who.concept in ANIMALS else list(VERBS))
        thing = object_of(draw, draw.choice(VERBS[verb]))
        return Sentence(kind, who, verb, draw.random() < 0.6, thing, opener=opener)
    before = draw.choice(("see", "seek", "find") if kind == "chain" else ("see", "find"))
    verb = draw.choice([verb for verb in VERBS if verb not in ("see", "seek", "find")])
    thing = object_of(draw, draw.choice(VERBS[verb]))
    return Sentence(kind, who, verb, True, thing, before=before, opener=opener)


def doer(draw: random.Random, concept: str) -> Noun:
    """One or several of somebody, sometimes with an adjective."""
    adjectives = ANIMAL_ADJECTIVES if concept in ANIMALS else PEOPLE_ADJECTIVES
    return Noun(concept, draw.random() < 0.4, draw.choice(adjectives) if draw.random() < 0.25 else "")


def object_of(draw: random.Random, concept: str) -> Noun:
    """One or several of something, sometimes with an adjective."""
    return Noun(concept, draw.random() < 0.4, draw.choice(ADJECTIVES[concept]) if draw.random() < 0.35 else "")
