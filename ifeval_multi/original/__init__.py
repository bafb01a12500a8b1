"""The original edition: what the published code says, faults included.

Two dialects: ids with "es:" or "ca:" follow M-IFEval's Spanish code, which lm_eval's sets of both languages carry. Ids
without a prefix, or with any other ("en:", "fr:", "gl:"), follow Google's code and the authors' changes to it.
"""

from __future__ import annotations

from ifeval_multi.checks import Check
from ifeval_multi.original import google, m_ifeval

GOOGLE: dict[str, Check] = {
    "change_case:capital_word_frequency": google.capital_word_frequency,
    "change_case:english_capital": google.english_capital,
    "change_case:english_lowercase": google.english_lowercase,
    "combination:repeat_prompt": google.repeat_prompt,
    "combination:two_responses": google.two_responses,
    "detectable_content:number_placeholders": google.number_placeholders,
    "detectable_content:postscript": google.postscript,
    "detectable_format:constrained_response": google.constrained_response,
    "detectable_format:json_format": google.json_format,
    "detectable_format:multiple_sections": google.multiple_sections,
    "detectable_format:number_bullet_lists": google.number_bullet_lists,
    "detectable_format:number_highlighted_sections": google.number_highlighted_sections,
    "detectable_format:title": google.title,
    "keywords:existence": google.existence,
    "keywords:forbidden_words": google.forbidden_words,
    "keywords:frequency": google.frequency,
    "keywords:letter_frequency": google.letter_frequency,
    "language:response_language": google.response_language,
    "length_constraints:nth_paragraph_first_word": google.nth_paragraph_first_word,
    "length_constraints:number_paragraphs": google.number_paragraphs,
    "length_constraints:number_sentences": google.number_sentences,
    "length_constraints:number_words": google.number_words,
    "punctuation:no_comma": google.no_comma,
    "startend:end_checker": google.end_checker,
    "startend:quotation": google.quotation,
    # Google has no such types; these are M-IFEval's in every language.
    "punctuation:exclamation_marks": m_ifeval.exclamation_marks,
    "punctuation:question_marks": m_ifeval.question_marks,
    "special_character:dieresis": m_ifeval.dieresis,
    "special_character:enie": m_ifeval.enie,
    "special_character:tildes": m_ifeval.tildes,
}

M_IFEVAL: dict[str, Check] = {
    **GOOGLE,
    "change_case:capital_word_frequency": m_ifeval.capital_word_frequency,
    "change_case:english_capital": m_ifeval.capital,
    "change_case:english_lowercase": m_ifeval.lowercase,
    "detectable_content:postscript": m_ifeval.postscript,
    "detectable_format:constrained_response": m_ifeval.constrained_response,
    "detectable_format:number_bullet_lists": m_ifeval.number_bullet_lists,
    "language:response_language": m_ifeval.response_language,
    "length_constraints:nth_paragraph_first_word": m_ifeval.nth_paragraph_first_word,
    "length_constraints:number_sentences": m_ifeval.number_sentences,
    "length_constraints:number_words": m_ifeval.number_words,
    "startend:end_checker": m_ifeval.end_checker,
}

DIALECTS: dict[str, dict[str, Check]] = {"google": GOOGLE, "m-ifeval": M_IFEVAL}
