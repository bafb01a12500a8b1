"""The corrected edition: one small pure function an instruction type.

Each takes (response, arguments, pack) and gives a Verdict. The arguments are those of
instructions.py, plus "prompt" where the caller has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ifeval_multi.checks import cases, content, edges, formats, keywords, length, marks
from ifeval_multi.pack import Pack
from ifeval_multi.verdict import Verdict

Check = Callable[[str, Mapping[str, Any], Pack], Verdict]

CORRECTED: dict[str, Check] = {
    "change_case:capital_word_frequency": cases.capital_word_frequency,
    "change_case:english_capital": cases.english_capital,
    "change_case:english_lowercase": cases.english_lowercase,
    "combination:repeat_prompt": edges.repeat_prompt,
    "combination:two_responses": edges.two_responses,
    "detectable_content:number_placeholders": content.number_placeholders,
    "detectable_content:postscript": content.postscript,
    "detectable_format:constrained_response": formats.constrained_response,
    "detectable_format:json_format": formats.json_format,
    "detectable_format:multiple_sections": formats.multiple_sections,
    "detectable_format:number_bullet_lists": formats.number_bullet_lists,
    "detectable_format:number_highlighted_sections": formats.number_highlighted_sections,
    "detectable_format:title": formats.title,
    "keywords:existence": keywords.existence,
    "keywords:forbidden_words": keywords.forbidden_words,
    "keywords:frequency": keywords.frequency,
    "keywords:letter_frequency": keywords.letter_frequency,
    "language:response_language": marks.response_language,
    "length_constraints:nth_paragraph_first_word": length.nth_paragraph_first_word,
    "length_constraints:number_paragraphs": length.number_paragraphs,
    "length_constraints:number_sentences": length.number_sentences,
    "length_constraints:number_words": length.number_words,
    "punctuation:exclamation_marks": marks.exclamation_marks,
    "punctuation:no_comma": marks.no_comma,
    "punctuation:question_marks": marks.question_marks,
    "special_character:dieresis": marks.dieresis,
    "special_character:enie": marks.enie,
    "special_character:tildes": marks.tildes,
    "startend:end_checker": edges.end_checker,
    "startend:quotation": edges.quotation,
}
