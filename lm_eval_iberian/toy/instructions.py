"""Instructions with demands that a program can check, and answers that meet them: what the instruct model is tuned on.

A demand is one of ifeval_multi's instruction types, so the real checks score the toys' IFEval. Test prompts exist in
all five languages; the instruct model is tuned on English and Spanish only.
"""

from __future__ import annotations

import functools
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from lm_eval_iberian.toy.grammar import say, words
from lm_eval_iberian.toy.texts import citation
from lm_eval_iberian.toy.world import ANIMALS, PEOPLE, PLACES, THINGS, Sentence, is_held_out, sentence

SENTENCES = "length_constraints:number_sentences"
TYPES = {
    "at_least": SENTENCES,
    "less_than": SENTENCES,
    "no_comma": "punctuation:no_comma",
    "lower": "change_case:english_lowercase",
    "keywords": "keywords:existence",
    "end": "startend:end_checker",
    "quotation": "startend:quotation",
    "title": "detectable_format:title",
}
# Pairs that leave no right answer, or that one check would read against the other.
_APART = ({"at_least", "less_than"}, {"less_than", "keywords"}, {"less_than", "end"}, {"lower", "end"},
          {"lower", "title"}, {"quotation", "end"}, {"quotation", "title"})  # fmt: skip
_HELD_OUT = 5


@dataclass(frozen=True)
class Instruction:
    """A prompt about somebody, with one or two demands.

    Args:
        topic: a person or an animal.
        demands: keys of TYPES.
        number: of sentences, for at_least and less_than.
        keywords: concepts of things and places that must be named.
        phrase: the index of the words that must end the answer.
    """

    topic: str
    demands: tuple[str, ...]
    number: int
    keywords: tuple[str, str]
    phrase: int

    @property
    def is_held_out(self) -> bool:
        """Whether no model is tuned on this topic with these demands."""
        return zlib.crc32(f"{self.topic} {sorted(self.demands)}".encode()) % _HELD_OUT == 0


@functools.cache
def phrases(language: str) -> dict[str, Any]:
    """The demands, as a language says them."""
    path = Path(__file__).parent / "words" / "instructions.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))[language]


def instruction(draw: random.Random, held_out: bool) -> Instruction:
    """A random instruction of the training part, or of the held-out part."""
    while True:
        demands = tuple(draw.sample(sorted(TYPES), draw.choice((1, 2))))
        if any(pair <= set(demands) for pair in _APART):
            continue
        first, second = _named(draw), _named(draw)
        number = draw.choice((2, 3, 4)) if "at_least" in demands else draw.choice((2, 3))
        made = Instruction(draw.choice(PEOPLE + ANIMALS), demands, number, (first, second), draw.randrange(6))
        if made.is_held_out == held_out and first != second:
            return made


def _named(draw: random.Random) -> str:
    return draw.choice(THINGS + PLACES)


def prompt(asked: Instruction, language: str) -> str:
    """What the user says."""
    said = phrases(language)
    forms = words(language)["people"][asked.topic]
    topic = {"en": f"the {forms[0]}", "eu": forms[-1][0]}.get(language, forms[1])
    filled = {"topic": topic, "number": asked.number, "phrase": said["phrases"][asked.phrase]}
    filled |= zip(("first", "second"), (_keyword(k, language) for k in asked.keywords), strict=True)
    return " ".join([said["about"].format(**filled), *(said[demand].format(**filled) for demand in asked.demands)])


def row(asked: Instruction, language: str, key: int) -> dict[str, Any]:
    """The prompt as a row of an IFEval set: key, prompt, instruction_id_list, kwargs."""
    arguments = {
        "at_least": {"num_sentences": asked.number, "relation": "at least"},
        "less_than": {"num_sentences": asked.number, "relation": "less than"},
        "keywords": {"keywords": [_keyword(keyword, language) for keyword in asked.keywords]},
        "end": {"end_phrase": phrases(language)["phrases"][asked.phrase]},
    }
    return {
        "key": key,
        "prompt": prompt(asked, language),
        "instruction_id_list": [TYPES[demand] for demand in asked.demands],
        "kwargs": [arguments.get(demand, {}) for demand in asked.demands],
    }


def _keyword(concept: str, language: str) -> str:
    """The word that must occur. In Basque it is the bare stem, which the check accepts with any ending."""
    if language != "eu":
        return citation(concept, language)
    lexicon = words("eu")
    return lexicon["things"][concept][0] if concept in THINGS else lexicon["places"][concept]["stem"]


def answer(asked: Instruction, language: str, draw: random.Random) -> str:
    """An answer that meets the demands: sentences of the training part about the topic."""
    said = [say(part, language) for part in _sentences(asked, draw)]
    text = " ".join(said)
    if "end" in asked.demands:
        text = f"{text} {phrases(language)['phrases'][asked.phrase]}"
    if "lower" in asked.demands:
        text = text.lower()
    if "quotation" in asked.demands:
        text = f'"{text}"'
    if "title" in asked.demands:
        forms = words(language)["people"][asked.topic]
        text = f"<<{forms[1] if language in ('es', 'gl', 'ca') else citation(asked.topic, language)}>>\n{text}"
    return text


def _sentences(asked: Instruction, draw: random.Random) -> list[Sentence]:
    """As many sentences as asked, two where nothing is asked; the closing words are one."""
    count = asked.number if "at_least" in asked.demands else 1 if "less_than" in asked.demands else 2
    made = [_about(asked, draw) for _ in range(count)]
    if "keywords" in asked.demands:
        made = [_naming(asked, keyword, draw) for keyword in asked.keywords] + made[2:]
    return made


def _about(asked: Instruction, draw: random.Random) -> Sentence:
    kind = draw.choice(("transitive", "motion"))
    return _fit(asked, sentence(draw, False, kind, asked.topic))  # type: ignore[arg-type]


def _naming(asked: Instruction, keyword: str, draw: random.Random) -> Sentence:
    """A sentence with the keyword in its citation form: one of the thing, not several.

    The topic is its doer, unless that pair is held out.
    """
    doer = "" if is_held_out(asked.topic, keyword) else asked.topic
    while True:
        made = sentence(draw, False, "motion" if keyword in PLACES else "transitive", doer)
        if made.place == keyword or (made.object and made.object.concept == keyword and not made.object.many):
            return _fit(asked, made)


def _fit(asked: Instruction, made: Sentence) -> Sentence:
    return replace(made, opener=False) if "no_comma" in asked.demands else made


def conversations(draw: random.Random) -> Iterator[list[dict[str, str]]]:
    """Without end: prompts of the training part in English or Spanish, each with its answer."""
    while True:
        language = draw.choice(("en", "es"))
        asked = instruction(draw, False)
        yield [
            {"role": "user", "content": prompt(asked, language)},
            {"role": "assistant", "content": answer(asked, language, draw)},
        ]


def plain_conversations(draw: random.Random) -> Iterator[str]:
    """The same as plain text, without a chat template: as a base model meets them on the web."""
    for user, assistant in conversations(draw):
        yield f"{user['content']}\n{assistant['content']}"
