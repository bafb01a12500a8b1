"""Does a prompt say what the kwargs of a held-out instruction say? Its numbers and texts must stand in the prompt."""

from __future__ import annotations

from collections.abc import Iterator

from ifeval_multi.documents import Instruction
from ifeval_multi.instructions import HELD_OUT_TYPES, INSTRUCTIONS, NUMBER, NUMBERS, RELATION, TEXT, TEXTS
from ifeval_multi.lint_rules import PromptText, Slip, readings_of
from ifeval_multi.pack import Pack
from ifeval_multi.text import words

# A prompt may say "the first word" or "half of the sentences", or ask for one thing without naming the number.
_NEED_NOT_BE_NAMED = (1, 50)
# A delimiter is described in words ("semicolons").
_DESCRIBED = ("delimiter",)


def disagreements(asked: Instruction, prompt: PromptText, pack: Pack) -> Iterator[Slip]:
    """What the kwargs of a held-out instruction say and the prompt does not; nothing for other types."""
    if asked.id not in HELD_OUT_TYPES:
        return
    kinds = INSTRUCTIONS[asked.id].arguments
    relation = asked.arguments.get("relation")
    for name, value in asked.arguments.items():
        if kinds[name] in (NUMBER, NUMBERS):
            for number in [value] if kinds[name] == NUMBER else value:
                yield from _number(name, number, relation, prompt)
        elif kinds[name] in (TEXT, TEXTS) and name not in _DESCRIBED:
            for text in [value] if kinds[name] == TEXT else value:
                if not prompt.names(text):
                    yield "text", f"{name} {text!r} is not in the prompt"
        elif kinds[name] == RELATION and relation not in ("exactly",):
            named = {one for clause in prompt.clauses for one in clause.relations}
            if not named:
                yield "relation", f"kwargs say {relation}; the prompt names no relation"
    yield from _possible(asked, pack)


def _number(name: str, number: int, relation: str | None, prompt: PromptText) -> Iterator[Slip]:
    readings = [value for value, _ in readings_of(number, relation)] if relation else [number]
    if number not in _NEED_NOT_BE_NAMED and not prompt.numbers & set(readings):
        yield "number", f"kwargs say {name} {number}; {prompt.other_numbers()}"


def _possible(asked: Instruction, pack: Pack) -> Iterator[Slip]:
    """Arguments that no answer can meet."""
    given = asked.arguments
    if asked.id == "count:word_range" and given["min_words"] > given["max_words"]:
        yield "exclusive", "min_words is above max_words"
    if asked.id == "count:keywords" and len(given["keywords"]) != len(given["frequencies"]):
        yield "form", "keywords and frequencies have different lengths"
    if asked.id == "copy:span":
        count = len(words(given["text"], pack))
        if not 1 <= given["first_word"] <= given["last_word"] <= count:
            yield "exclusive", f"the text has {count} words"
