"""The linter's rules: each looks at one instruction and the words of its prompt."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import regex

from ifeval_multi.documents import Document, Instruction
from ifeval_multi.instructions import IFEVAL_TYPES
from ifeval_multi.language_id import can_be_told
from ifeval_multi.lint_conflicts import contradictions
from ifeval_multi.original.google import OPTIONS
from ifeval_multi.pack import Pack
from ifeval_multi.text import fold, normalise
from ifeval_multi.word_forms import count as count_word

Slip = tuple[str, str]

# The rule of findings that are no fault of the row: only the published code cannot judge it.
PUBLISHED = "published-code"

# Signs that a prompt shows in every language.
_SHOWN: dict[str, tuple[str, ...]] = {
    "json_format": ("json",),
    "number_paragraphs": ("***",),
    "title": ("<<",),
    "two_responses": ("******",),
}
# number, relation, and what is counted, for the types that count.
_COUNTED: dict[str, tuple[str, str | None]] = {
    "change_case:capital_word_frequency": ("capital_frequency", "capital_relation"),
    "detectable_content:number_placeholders": ("num_placeholders", None),
    "detectable_format:multiple_sections": ("num_sections", None),
    "detectable_format:number_bullet_lists": ("num_bullets", None),
    "detectable_format:number_highlighted_sections": ("num_highlights", None),
    "keywords:frequency": ("frequency", "relation"),
    "keywords:letter_frequency": ("let_frequency", "let_relation"),
    "length_constraints:nth_paragraph_first_word": ("num_paragraphs", None),
    "length_constraints:number_paragraphs": ("num_paragraphs", None),
    "length_constraints:number_sentences": ("num_sentences", "relation"),
    "length_constraints:number_words": ("num_words", "relation"),
    "special_character:dieresis": ("let_frequency", None),
    "special_character:enie": ("let_frequency", None),
    "special_character:tildes": ("num_words", "relation"),
}
# Texts that the prompt must hold as they are.
_QUOTED = {
    "combination:repeat_prompt": "prompt_to_repeat",
    "detectable_content:postscript": "postscript_marker",
    "detectable_format:multiple_sections": "section_spliter",
    "keywords:frequency": "keyword",
    "keywords:letter_frequency": "letter",
    "length_constraints:nth_paragraph_first_word": "first_word",
    "startend:end_checker": "end_phrase",
}
# Asking for these without an instruction that checks it is worth a finding.
_ASKED_ALOUD = ("json_format", "title", "english_lowercase", "english_capital")
# What a prompt counts aloud, and the types of IFEval that check it. Other types have counts of their own.
_COUNTED_ALOUD = {
    "number_words": {"number_words", "number_highlighted_sections", "capital_word_frequency"},
    "number_sentences": {"number_sentences", "number_bullet_lists"},
}
_NUMBER = re.compile(r"\d+")
_CLAUSE_END = re.compile(r"(?<=[.;?!])\s+|\n+")


@dataclass(frozen=True)
class Clause:
    """A piece of a prompt, with the numbers and relations that it names."""

    text: str
    numbers: frozenset[int]
    relations: frozenset[str]


class PromptText:
    """A prompt, folded once, as a whole and in clauses."""

    def __init__(self, prompt: str, pack: Pack) -> None:
        self.raw = normalise(prompt)
        self.folded = fold(prompt)
        pieces = _CLAUSE_END.split(self.raw)
        self.clauses = [_clause(fold(piece), pack) for piece in pieces if piece.strip()]
        self.numbers = frozenset().union(*(clause.numbers for clause in self.clauses))

    def names(self, text: str) -> bool:
        """Does the prompt hold the text?"""
        return fold(text) in self.folded

    def other_numbers(self) -> str:
        """What a finding says of a number that the prompt does not name."""
        named = ", ".join(map(str, sorted(self.numbers))) or "no number"
        return f"the prompt does not name it, it names {named}"


def _clause(folded: str, pack: Pack) -> Clause:
    numbers = {int(number) for number in _NUMBER.findall(folded) if len(number) < 7}
    for value, names in pack.numbers.items():
        if any(count_word(folded, name, pack, forbidden=True) for name in names):
            numbers.add(value)
    relations = _relations_named(folded, pack)
    if "more than" in relations and any(fold(cue) in f" {folded} " for cue in pack.cues.get("forbidden_words", ())):
        relations.add("at most")  # "avoid the letter i more than twice"
    return Clause(folded, frozenset(numbers), frozenset(relations))


def _relations_named(folded: str, pack: Pack) -> set[str]:
    """Longest phrases first, each taken out when found: "no more than" is not "more than"."""
    phrases = [(p, name) for name, listed in pack.relations.items() for p in listed]
    named = set()
    for phrase, name in sorted(phrases, key=lambda pair: -len(pair[0])):
        if phrase in folded:
            named.add(name)
            folded = folded.replace(phrase, " | ")
    return named


def disagreements(asked: Instruction, prompt: PromptText, pack: Pack, ranged: bool = False) -> Iterator[Slip]:
    """What the kwargs of one instruction say and the prompt does not.

    Args:
        asked: the instruction.
        prompt: its prompt.
        pack: the language of the prompt.
        ranged: another instruction of the prompt counts the same, as in "40 to 60 sentences"; a range names its
            numbers, and not always its relations.
    """
    yield from _cue(asked, prompt, pack)
    yield from (slip for slip in _numbers(asked, prompt, pack) if not (ranged and slip[0] == "relation"))
    yield from _texts(asked, prompt)
    special = _SPECIAL.get(asked.id)
    if special:
        yield from special(asked.arguments, prompt, pack)


def _cue(asked: Instruction, prompt: PromptText, pack: Pack) -> Iterator[Slip]:
    short = asked.id.split(":")[1]
    cues = (*_SHOWN.get(short, ()), *pack.cues.get(short, ()))
    text = f" {prompt.folded} "
    if cues and not any(fold(cue) in text for cue in cues):
        yield "not-asked", f"the prompt does not ask for it (no word of: {', '.join(cues)})"


def _numbers(asked: Instruction, prompt: PromptText, pack: Pack) -> Iterator[Slip]:
    if asked.id not in _COUNTED:
        return
    name, relation_name = _COUNTED[asked.id]
    number = asked.arguments[name]
    relation = asked.arguments.get(relation_name) if relation_name else None
    readings = readings_of(number, relation)
    if (number == 1 and relation in (None, "at least")) or any(not value for value, _ in readings):
        return  # "use a placeholder" and "do not use the letter c" name no number
    if number == 2 and asked.id == "length_constraints:number_paragraphs":
        return  # "your thinking and the answer, divided by ***"
    said = f"kwargs say {relation} {number}" if relation else f"kwargs say {number}"
    if not any(value in prompt.numbers for value, _ in readings):
        yield "number", f"{said}; {prompt.other_numbers()}"
    elif relation and not _relation_named(readings, about := _about(asked, prompt, pack)):
        named = {name for clause in about for name in clause.relations}
        if named:
            yield "relation", f"{said}; the prompt says: {', '.join(sorted(named))}"


def _about(asked: Instruction, prompt: PromptText, pack: Pack) -> list[Clause]:
    """The clauses that speak of what is counted; all of them when none does."""
    counted = asked.arguments.get("keyword") or asked.arguments.get("letter")
    if counted:
        found = [c for c in prompt.clauses if count_word(c.text, str(counted), pack)]
    else:
        cues = [fold(cue) for cue in pack.cues.get(asked.id.split(":")[1], ())]
        found = [c for c in prompt.clauses if any(cue in c.text for cue in cues)]
    return [clause for clause in found if clause.relations] or found or prompt.clauses


def _relation_named(readings: list[tuple[int, str]], clauses: list[Clause]) -> bool:
    return any(name in clause.relations and value in clause.numbers for value, name in readings for clause in clauses)


def readings_of(number: int, relation: str | None) -> list[tuple[int, str]]:
    """The ways to say it: "less than 3" is "at most 2", "at least 31" is "more than 30"."""
    ways = {
        "less than": [(number, "less than"), (number - 1, "at most"), (number - 1, "exactly")],
        "at most": [(number, "at most"), (number + 1, "less than"), (number, "exactly")],
        "at least": [(number, "at least"), (number - 1, "more than"), (number, "exactly"), (number, "more than")],
        "more than": [(number, "more than"), (number + 1, "at least")],
    }
    return ways.get(relation or "", [(number, relation or "exactly")])


def _texts(asked: Instruction, prompt: PromptText) -> Iterator[Slip]:
    name = _QUOTED.get(asked.id)
    if name and not prompt.names(str(asked.arguments[name])):
        yield "text", f"{name} {asked.arguments[name]!r} is not in the prompt"


def _keywords(arguments: Any, prompt: PromptText, pack: Pack) -> Iterator[Slip]:
    for keyword in arguments.get("keywords") or arguments.get("forbidden_words"):
        if not count_word(prompt.folded, keyword, pack):
            yield "text", f"{keyword!r} is not a word of the prompt"


def _options(arguments: Any, prompt: PromptText, pack: Pack) -> Iterator[Slip]:
    sets = [[fold(option).rstrip(".") for option in options] for options in pack.option_sets]
    if not any(all(option in prompt.folded for option in options) for options in sets):
        yield "options", f"the prompt lists no option set of the pack, as {pack.option_sets[0]}"
    absent = [option for option in OPTIONS.get(pack.code, ()) if option not in prompt.raw]
    if absent:
        yield PUBLISHED, f"the published code looks for {absent[0]!r}, which the prompt has not"


def _repeat(arguments: Any, prompt: PromptText, pack: Pack) -> Iterator[Slip]:
    asked, whole = (fold(text).strip("\"' ") for text in (arguments["prompt_to_repeat"], prompt.raw))
    if prompt.names(arguments["prompt_to_repeat"]) and not whole.startswith(asked) and not whole.endswith(asked):
        yield "text", "prompt_to_repeat is neither the beginning of the prompt nor its end"


def _asterisks(needed: int) -> Callable[..., Iterator[Slip]]:
    def rule(arguments: Any, prompt: PromptText, pack: Pack) -> Iterator[Slip]:
        runs = {len(run) for run in regex.findall(r"\*{3,}+", prompt.raw)}
        if runs and needed not in runs:
            yield "asterisks", f"the prompt shows a run of {sorted(runs)} asterisks, the code needs {needed}"

    return rule


def _first_word(arguments: Any, prompt: PromptText, pack: Pack) -> Iterator[Slip]:
    if arguments["nth_paragraph"] > arguments["num_paragraphs"] or arguments["nth_paragraph"] < 1:
        yield "number", "nth_paragraph is not one of the num_paragraphs paragraphs"
    elif arguments["nth_paragraph"] not in prompt.numbers:
        yield "number", f"the prompt does not name paragraph {arguments['nth_paragraph']}"


def _case(own: str, other: str) -> Callable[..., Iterator[Slip]]:
    def rule(arguments: Any, prompt: PromptText, pack: Pack) -> Iterator[Slip]:
        asks = {n: any(fold(c) in prompt.folded for c in pack.cues.get(n, ())) for n in (own, other)}
        if asks[other] and not asks[own]:
            yield "case", f"the prompt asks for {other}, the id is {own}"
        named = any(name in f" {prompt.folded} " for name in pack.english)
        if named and pack.code != "en":
            yield PUBLISHED, "the prompt asks for English; the published code wants the pack's language"

    return rule


def _letter(arguments: Any, prompt: PromptText, pack: Pack) -> Iterator[Slip]:
    letter = arguments["letter"]
    if not (len(letter) == 1 and "a" <= letter.lower() <= "z"):
        yield PUBLISHED, f"the published code replaces {letter!r} by a random letter"


def _language(arguments: Any, prompt: PromptText, pack: Pack) -> Iterator[Slip]:
    code = arguments["language"]
    if not any(can_be_told(one) for one in (code, code.lower().partition("-")[0])):
        yield "language", f"{code!r} is no code of a language that can be told from others; expected one as 'fr'"


_SPECIAL: dict[str, Callable[..., Iterator[Slip]]] = {
    "keywords:existence": _keywords,
    "keywords:forbidden_words": _keywords,
    "keywords:letter_frequency": _letter,
    "language:response_language": _language,
    "detectable_format:constrained_response": _options,
    "combination:repeat_prompt": _repeat,
    "combination:two_responses": _asterisks(6),
    "length_constraints:number_paragraphs": _asterisks(3),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "change_case:english_capital": _case("english_capital", "english_lowercase"),
    "change_case:english_lowercase": _case("english_lowercase", "english_capital"),
}


def over_all(document: Document, prompt: PromptText, pack: Pack) -> Iterator[Slip]:
    """What concerns the whole row: contradictions, and requests that nothing checks."""
    ids = [asked.id for asked in document.instructions]
    for found in contradictions(document, pack):
        yield "contradiction", str(found)
    seen = [(asked.id, str(dict(asked.arguments))) for asked in document.instructions]
    if len(set(seen)) < len(seen):
        yield "duplicate", "the same instruction comes twice with the same kwargs"
    yield from _unchecked(ids, prompt, pack)
    if prompt.raw.startswith('"') and prompt.raw.endswith('"'):
        yield "wrapped", "the whole prompt stands in quotation marks, as if left from a CSV"


def _unchecked(ids: list[str], prompt: PromptText, pack: Pack) -> Iterator[Slip]:
    short = {name.split(":")[1] for name in ids}
    for name in _ASKED_ALOUD:
        cues = _SHOWN.get(name) or pack.cues.get(name, ())
        hit = next((cue for cue in cues if fold(cue) in prompt.folded), None)
        if not hit or name in short or (name.startswith("english") and short & _CASE_TYPES):
            continue
        yield "unchecked", f"the prompt says {hit!r}, but no instruction {name} checks it"
    for name in _COUNTED_ALOUD if set(ids) <= set(IFEVAL_TYPES) else ():
        for said in () if short & _COUNTED_ALOUD[name] else _counted(name, prompt, pack):
            yield "unchecked", f"the prompt says {said!r}, but no instruction {name} checks it"


def _counted(name: str, prompt: PromptText, pack: Pack) -> Iterator[str]:
    """What a prompt counts with a relation: "less than 100 words"; but not "4 words in capitals"."""
    capitals = [fold(cue) for cue in pack.cues.get("capital_word_frequency", ())]
    nouns = "|".join(regex.escape(fold(cue)) for cue in pack.cues.get(name, ()))
    for clause in prompt.clauses:
        found = regex.search(rf"\b\d+ (?:{nouns})\p{{L}}*", clause.text) if nouns and clause.relations else None
        if found and not any(cue in clause.text for cue in capitals):
            yield found.group()


_CASE_TYPES = {"english_capital", "english_lowercase", "capital_word_frequency"}
