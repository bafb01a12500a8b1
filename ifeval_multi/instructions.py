"""The instruction types: their ids, and the arguments that each one takes.

25 types are IFEval's (Zhou et al. 2023, https://arxiv.org/abs/2311.07911), five are M-IFEval's
Spanish ones (Dussolle et al. 2025, https://arxiv.org/abs/2502.04688). The ids are Google's in
every language: "english_capital" is the name of a type, not a claim about a language. The held-out
types are ours (held_out/). What only one language has stands beside its pack (own_types.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

NUMBER, TEXT, TEXTS, RELATION = "whole number", "text", "list of texts", "relation"
NUMBERS, TEXT_TO_TEXT = "list of whole numbers", "text to text"


@dataclass(frozen=True)
class InstructionType:
    """An instruction type: its id, and the kinds of its required and optional arguments."""

    id: str
    needed: dict[str, str] = field(default_factory=dict)
    optional: dict[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, str]:
        return {**self.needed, **self.optional}


_TYPES = (
    InstructionType("change_case:capital_word_frequency", {"capital_frequency": NUMBER, "capital_relation": RELATION}),
    InstructionType("change_case:english_capital"),
    InstructionType("change_case:english_lowercase"),
    InstructionType("combination:repeat_prompt", {"prompt_to_repeat": TEXT}),
    InstructionType("combination:two_responses"),
    InstructionType("detectable_content:number_placeholders", {"num_placeholders": NUMBER}, {"relation": RELATION}),
    InstructionType("detectable_content:postscript", {"postscript_marker": TEXT}),
    InstructionType("detectable_format:constrained_response"),
    InstructionType("detectable_format:json_format"),
    InstructionType(
        "detectable_format:multiple_sections",
        {"section_spliter": TEXT, "num_sections": NUMBER},  # the spelling is Google's
        {"relation": RELATION},
    ),
    InstructionType("detectable_format:number_bullet_lists", {"num_bullets": NUMBER}),
    InstructionType(
        "detectable_format:number_highlighted_sections", {"num_highlights": NUMBER}, {"relation": RELATION}
    ),
    InstructionType("detectable_format:title"),
    InstructionType("keywords:existence", {"keywords": TEXTS}),
    InstructionType("keywords:forbidden_words", {"forbidden_words": TEXTS}),
    InstructionType("keywords:frequency", {"keyword": TEXT, "frequency": NUMBER, "relation": RELATION}),
    InstructionType("keywords:letter_frequency", {"letter": TEXT, "let_frequency": NUMBER, "let_relation": RELATION}),
    InstructionType("language:response_language", {"language": TEXT}),
    InstructionType(
        "length_constraints:nth_paragraph_first_word",
        {"first_word": TEXT, "num_paragraphs": NUMBER, "nth_paragraph": NUMBER},
    ),
    InstructionType("length_constraints:number_paragraphs", {"num_paragraphs": NUMBER}),
    InstructionType("length_constraints:number_sentences", {"num_sentences": NUMBER, "relation": RELATION}),
    InstructionType("length_constraints:number_words", {"num_words": NUMBER, "relation": RELATION}),
    InstructionType("punctuation:no_comma"),
    InstructionType("startend:end_checker", {"end_phrase": TEXT}),
    InstructionType("startend:quotation"),
    InstructionType("punctuation:exclamation_marks"),
    InstructionType("punctuation:question_marks"),
    InstructionType("special_character:dieresis", {"let_frequency": NUMBER}, {"relation": RELATION}),
    InstructionType("special_character:enie", {"let_frequency": NUMBER}, {"relation": RELATION}),
    InstructionType("special_character:tildes", {"num_words": NUMBER, "relation": RELATION}),
)

_HELD_OUT = (
    InstructionType("count:emoji", {"num_emoji": NUMBER}, {"relation": RELATION}),
    InstructionType("count:keywords", {"keywords": TEXTS, "frequencies": NUMBERS}),
    InstructionType("count:marks", {"marks": TEXTS}),
    InstructionType("count:numbers", {"num_numbers": NUMBER}, {"relation": RELATION}),
    InstructionType("count:unique_words", {"num_words": NUMBER, "relation": RELATION}),
    InstructionType("count:word_range", {"min_words": NUMBER, "max_words": NUMBER}),
    InstructionType("ratio:long_words", {"num_letters": NUMBER, "percent": NUMBER}, {"relation": RELATION}),
    InstructionType("ratio:questions", {"percent": NUMBER}, {"relation": RELATION}),
    InstructionType("ratio:unique_words", {"percent": NUMBER}, {"relation": RELATION}),
    InstructionType("words:acrostic", {"text": TEXT}),
    InstructionType("words:last_first"),
    InstructionType("words:max_repeats", {"max_times": NUMBER}),
    InstructionType("words:no_same_neighbours"),
    InstructionType("words:order", {"keywords": TEXTS}),
    InstructionType("words:palindromes", {"num_words": NUMBER, "num_letters": NUMBER}),
    InstructionType("words:paragraph_last_first", {"num_paragraphs": NUMBER}),
    InstructionType("words:position", {"keyword": TEXT}, {"nth_word": NUMBER, "nth_from_end": NUMBER}),
    InstructionType("words:same_initial", {"letter": TEXT}),
    InstructionType("sentence:emoji_end"),
    InstructionType("sentence:increment", {"num_sentences": NUMBER, "num_words": NUMBER}),
    InstructionType("sentence:keyword", {"keyword": TEXT, "nth_sentence": NUMBER}),
    InstructionType("sentence:max_words", {"num_words": NUMBER}),
    InstructionType("sentence:word_position", {"keyword": TEXT, "nth_sentence": NUMBER, "nth_word": NUMBER}),
    InstructionType("copy:exactly", {"text": TEXT}),
    InstructionType("copy:reversed_words", {"text": TEXT}),
    InstructionType("copy:span", {"text": TEXT, "first_word": NUMBER, "last_word": NUMBER}),
    InstructionType("copy:times", {"text": TEXT, "num_times": NUMBER}),
    InstructionType("format:brackets", {"depth": NUMBER}),
    InstructionType("format:csv", {"columns": TEXTS, "num_rows": NUMBER}, {"delimiter": TEXT}),
    InstructionType("format:sorted_list", {"num_bullets": NUMBER}),
    InstructionType("format:stairs", {"num_lines": NUMBER}),
    InstructionType("format:table", {"num_columns": NUMBER, "num_rows": NUMBER}),
    InstructionType("format:template", {"labels": TEXTS}),
    InstructionType("format:word_lines", {"num_lines": NUMBER}),
)

INSTRUCTIONS: dict[str, InstructionType] = {kind.id: kind for kind in (*_TYPES, *_HELD_OUT)}
HELD_OUT_TYPES: tuple[str, ...] = tuple(kind.id for kind in _HELD_OUT)
SPANISH_ONLY: frozenset[str] = frozenset(kind.id for kind in _TYPES if kind.id.startswith("special_character:")) | {
    "punctuation:exclamation_marks",
    "punctuation:question_marks",
}
IFEVAL_TYPES: tuple[str, ...] = tuple(i for i in INSTRUCTIONS if i not in SPANISH_ONLY and i not in HELD_OUT_TYPES)
RESPONSE_LANGUAGE = "language:response_language"

# The prefixes whose published checks are M-IFEval's Spanish ones: lm_eval's es set, and its ca set, which copies them.
# Any other prefix ("en:", "fr:", "gl:") means Google's checks with that language's pack.
M_IFEVAL_PREFIXES: frozenset[str] = frozenset({"es", "ca"})

_PREFIX = re.compile(r"^([a-z]{2,3}):(?=[^:]+:[^:]+$)")
_CASE = re.compile(r"^change_case:([a-z]+)_(capital|lowercase)$")


def language_prefix(instruction_id: str) -> str:
    """ "es" for "es:keywords:existence", "" for "keywords:existence"."""
    found = _PREFIX.match(instruction_id)
    return found.group(1) if found else ""


def canonical_id(instruction_id: str) -> str:
    """The id as in INSTRUCTIONS: no prefix, and "spanish_capital" as "english_capital"."""
    bare = _PREFIX.sub("", instruction_id.strip())
    return _CASE.sub(r"change_case:english_\2", bare)
