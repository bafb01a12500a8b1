"""Answers that every pack must judge rightly, made from the pack's own words.

`iberian ifeval check LANG` runs them: for each type at least one answer that follows and one that
does not. A pack that lists « » as quotation marks and then fails «so» has a slip somewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ifeval_multi.pack import Pack, load_pack
from ifeval_multi.text import words


@dataclass(frozen=True)
class Probe:
    """An answer, what it was asked, and whether it follows."""

    type: str
    answer: str
    followed: bool
    arguments: dict[str, Any] = field(default_factory=dict)


def probes(pack: Pack) -> list[Probe]:
    """All built-in answers for a pack."""
    makers = (_keywords, _lengths, _contents, _formats, _options, _cases, _edges, _marks)
    return [probe for make in makers for probe in make(pack)]


def _longest_word(pack: Pack) -> str:
    return max(words(pack.sample, pack), key=len)


def _keywords(pack: Pack) -> Iterator[Probe]:
    word, text = _longest_word(pack), pack.sample
    yield Probe("keywords:existence", text, True, {"keywords": [word.upper()]})
    yield Probe("keywords:existence", text, False, {"keywords": [f"{word}qqq"]})
    yield Probe("keywords:forbidden_words", text, False, {"forbidden_words": [word]})
    yield Probe("keywords:forbidden_words", text, True, {"forbidden_words": [word[:-1] + "qqq"]})
    for count in (1, 2):
        asked = {"keyword": word, "frequency": 2, "relation": "at least"}
        yield Probe("keywords:frequency", " ".join([text] * count), count == 2, asked)
    for letter in ("#", *sorted(pack.letter_variants)):
        signs = letter + pack.letter_variants.get(letter, "")
        asked = {"letter": letter, "let_frequency": len(signs), "let_relation": "at least"}
        yield Probe("keywords:letter_frequency", " ".join(signs).upper(), True, asked)
        yield Probe("keywords:letter_frequency", " ".join(signs[1:]) or "-", False, asked)


def _lengths(pack: Pack) -> Iterator[Probe]:
    text, word = pack.sample, _longest_word(pack)
    count = len(words(text, pack))
    for asked in (count, count + 1):
        arguments = {"num_words": asked, "relation": "at least"}
        yield Probe("length_constraints:number_words", text, asked == count, arguments)
    for joiner in pack.word_joiners:
        arguments = {"num_words": 1, "relation": "exactly"}
        yield Probe("length_constraints:number_words", f"{word}{joiner}{word}", True, arguments)
    two = {"num_sentences": 2, "relation": "exactly"}
    yield Probe("length_constraints:number_sentences", f"{text} {text}", True, two)
    yield Probe("length_constraints:number_sentences", text, False, two)
    for short in sorted(pack.abbreviations_before_names):
        one = {"num_sentences": 1, "relation": "exactly"}
        answer = f"{word} {short.capitalize()}. Abc {word}."
        yield Probe("length_constraints:number_sentences", answer, True, one)
    yield Probe("length_constraints:number_paragraphs", f"{text}\n***\n{text}", True, {"num_paragraphs": 2})
    yield Probe("length_constraints:number_paragraphs", f"{text}\n\n{text}", False, {"num_paragraphs": 2})
    first = {"first_word": word, "num_paragraphs": 2, "nth_paragraph": 2}
    name = "length_constraints:nth_paragraph_first_word"
    yield Probe(name, f"{text}\n\n**{word.upper()}**, {text}", True, first)
    yield Probe(name, f"{word} {text}\n\n- {text}", False, {**first, "first_word": f"{word}q"})


def _contents(pack: Pack) -> Iterator[Probe]:
    name, word = "detectable_content:number_placeholders", _longest_word(pack)
    yield Probe(name, f"[{word}] [{word}]", True, {"num_placeholders": 2})
    yield Probe(name, f"[{word}] []", False, {"num_placeholders": 2})
    for marker in pack.postscript_markers:
        asked = {"postscript_marker": marker}
        yield Probe("detectable_content:postscript", f"{pack.sample}\n\n{marker} {word}", True, asked)
        yield Probe("detectable_content:postscript", pack.sample, False, asked)


def _formats(pack: Pack) -> Iterator[Probe]:
    text, word = pack.sample, _longest_word(pack)
    for bullet in pack.bullets:
        lists = f"{text}\n{bullet} {word}\n{bullet} {word}"
        yield Probe("detectable_format:number_bullet_lists", lists, True, {"num_bullets": 2})
        yield Probe("detectable_format:number_bullet_lists", lists, False, {"num_bullets": 3})
    name = "detectable_format:number_highlighted_sections"
    yield Probe(name, f"*{word}* x **{word}**", True, {"num_highlights": 2})
    yield Probe(name, f"* {word}\n* {word}", False, {"num_highlights": 1})
    for section in pack.section_words:
        asked = {"section_spliter": section, "num_sections": 2}
        yield Probe("detectable_format:multiple_sections", _sections(section, pack), True, asked)
        yield Probe("detectable_format:multiple_sections", f"{section} {text}", False, asked)
    yield Probe("detectable_format:json_format", f'```json\n{{"a": "{word}"}}\n```', True)
    yield Probe("detectable_format:json_format", text, False)
    for opening, closing in pack.title_brackets:
        yield Probe("detectable_format:title", f"{opening}{word}{closing}\n\n{text}", True)
    yield Probe("detectable_format:title", text, False)


def _sections(section: str, pack: Pack) -> str:
    numbered = (f"{n}. {section}" if pack.section_number == "before" else f"{section} {n}" for n in (1, 2))
    return "\n".join(f"**{heading}**\n{pack.sample}\n" for heading in numbered)


def _options(pack: Pack) -> Iterator[Probe]:
    name = "detectable_format:constrained_response"
    for options in pack.option_sets:
        for option in options:
            yield Probe(name, f"{option}", True)
        yield Probe(name, " ".join(options), False)
    yield Probe(name, pack.sample, False)


def _cases(pack: Pack) -> Iterator[Probe]:
    text = pack.sample
    yield Probe("change_case:english_capital", text.upper() + " 1ª", True)
    yield Probe("change_case:english_capital", text.upper() + " a", False)
    yield Probe("change_case:english_lowercase", text.lower(), True)
    yield Probe("change_case:english_lowercase", text.capitalize(), False)
    asked = {"capital_frequency": 2, "capital_relation": "at least"}
    word = _longest_word(pack).upper()
    yield Probe("change_case:capital_word_frequency", f"{word} x {word}", True, asked)
    yield Probe("change_case:capital_word_frequency", f"{word} A I", False, asked)
    other = "en" if pack.code != "en" else "eu"
    yield Probe("language:response_language", text, True, {"language": pack.code})
    yield Probe("language:response_language", load_pack(other).sample, False, {"language": pack.code})


def _edges(pack: Pack) -> Iterator[Probe]:
    text, word = pack.sample, _longest_word(pack)
    for opening, closing in pack.quotation_pairs:
        yield Probe("startend:quotation", f"{opening}{text}{closing}", True)
    yield Probe("startend:quotation", text, False)
    yield Probe("startend:end_checker", f"{word}. **{text}**", True, {"end_phrase": text})
    yield Probe("startend:end_checker", f"{text} {word}.", False, {"end_phrase": text})
    yield Probe("combination:repeat_prompt", f"{text}\n\n{word}", True, {"prompt_to_repeat": text})
    yield Probe("combination:repeat_prompt", f"{word}: {text}", False, {"prompt_to_repeat": text})
    yield Probe("combination:two_responses", f"{text}\n******\n{word}", True)
    yield Probe("combination:two_responses", f"{text}\n******\n{text}", False)


def _marks(pack: Pack) -> Iterator[Probe]:
    word = _longest_word(pack)
    yield Probe("punctuation:no_comma", f"{word}.", True)
    for comma in pack.commas:
        yield Probe("punctuation:no_comma", f"{word}{comma} {word}", False)
    for kind, opening, closing in (
        ("question", pack.question_opening, "?"),
        ("exclamation", pack.exclamation_opening, "!"),
    ):
        yield Probe(f"punctuation:{kind}_marks", f"{opening}{word}{closing}", True)
        yield Probe(f"punctuation:{kind}_marks", f"{word}.", False)
    accented = {"num_words": 1, "relation": "exactly"}
    if pack.accented:
        yield Probe("special_character:tildes", f"{pack.accented[0]}bc abc", True, accented)
    yield Probe("special_character:tildes", "abc", False, accented)
    for name, sign in (("enie", "ñ"), ("dieresis", "ü")):
        yield Probe(f"special_character:{name}", f"A{sign}A", True, {"let_frequency": 1})
        yield Probe(f"special_character:{name}", "abc", False, {"let_frequency": 1})
