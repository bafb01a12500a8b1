"""A second set of instruction types, held out: what models have not been trained to follow.

The idea is IFBench's (Pyatkin et al. 2025, https://arxiv.org/abs/2507.02833): IFEval's 25 types are in many training
sets by now, so a model may follow them and no others. These are others: ranges, ratios, places of words, copying,
layouts. Ids, semantics and code are ours; some have a cousin in IFBench. Each is one function as in checks/, for every
language that has a pack. Published code has none of them, so both editions check them alike.
"""

from __future__ import annotations

from ifeval_multi.checks import Check
from ifeval_multi.held_out import copying, counts, layout, sentence_shapes, word_places

HELD_OUT: dict[str, Check] = {
    "count:emoji": counts.emoji,
    "count:keywords": counts.keywords,
    "count:marks": counts.marks,
    "count:numbers": counts.numbers,
    "count:unique_words": counts.unique_words,
    "count:word_range": counts.word_range,
    "ratio:long_words": counts.long_words,
    "ratio:questions": counts.questions,
    "ratio:unique_words": counts.unique_share,
    "words:acrostic": word_places.acrostic,
    "words:last_first": word_places.last_first,
    "words:max_repeats": word_places.max_repeats,
    "words:no_same_neighbours": word_places.no_same_neighbours,
    "words:order": word_places.order,
    "words:palindromes": word_places.palindromes,
    "words:paragraph_last_first": word_places.paragraph_last_first,
    "words:position": word_places.position,
    "words:same_initial": word_places.same_initial,
    "sentence:emoji_end": sentence_shapes.emoji_end,
    "sentence:increment": sentence_shapes.increment,
    "sentence:keyword": sentence_shapes.keyword,
    "sentence:max_words": sentence_shapes.max_words,
    "sentence:word_position": sentence_shapes.word_position,
    "copy:exactly": copying.exactly,
    "copy:reversed_words": copying.reversed_words,
    "copy:span": copying.span,
    "copy:times": copying.times,
    "format:brackets": layout.brackets,
    "format:csv": layout.csv_table,
    "format:sorted_list": layout.sorted_list,
    "format:stairs": layout.stairs,
    "format:table": layout.table,
    "format:template": layout.template,
    "format:word_lines": layout.word_lines,
}
