"""detectable_format:* of the corrected edition: lists, highlights, sections, JSON, titles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import regex

from ifeval_multi.emphasis import find_emphasis
from ifeval_multi.pack import Pack
from ifeval_multi.relations import compare, exactly
from ifeval_multi.sentences import sentence_texts
from ifeval_multi.text import fold, has_text, lines, normalise, occurrences, visible
from ifeval_multi.verdict import Verdict

_FENCE = regex.compile(r"\A(`{3,}+|~{3,}+)[ \t]*+(?:json[\w]*+)?[ \t]*+\n?", regex.IGNORECASE)
_NO_TITLE = "<>«»*_ \t"
_LONGEST_HIGHLIGHT = 20  # words
_LONGEST_TEXT = 50_000  # characters; no answer is so long, and a count in these has long decided
_NUMERAL = r"(?:\d{1,3}|(?-i:[IVXLC]{1,6}|\p{Lu}))"  # "section a man" is not section A


def number_bullet_lists(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """Exactly as many bullet points as asked: a bullet of the pack, space, and some text."""
    found = [line.strip().split(None, 1) for line in lines(normalise(response)) if line.strip()]
    count = sum(1 for parts in found if parts[0] in pack.bullets and len(parts) == 2 and has_text(parts[1]))
    return exactly(count, arguments["num_bullets"], "bullets")


def number_highlighted_sections(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """At least as many highlights as asked: *so*, **so**, ***so*** or _so_; one inside another is no second one."""
    text = normalise(response)[:_LONGEST_TEXT]
    count = sum(_highlights(line) for line in lines(text) if "*" in line or "_" in line)
    return compare(count, arguments, "num_highlights", "relation", "highlighted sections")


def _highlights(line: str) -> int:
    """Emphasised spans. One of more than 20 words that holds others is no section: then the others count."""
    count = 0
    for start, end in find_emphasis(line).spans:
        inside = line[start:end].strip("*_ \t")
        within = len(find_emphasis(inside).spans) if len(inside.split()) > _LONGEST_HIGHLIGHT else 0
        count += max(within, 1) if inside else 0
    return count


def multiple_sections(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """At least as many numbered section headings as asked.

    A heading opens a line or a sentence, or ends a line or a bracket: "Section 1", "(Spring, SECTION 1)". The number
    stands on the side the pack says ("1. ATALA", "Section 1"). Digits are numbers; so are Roman numerals and letters
    where I or A is among them: "Section X" alone copies the prompt. A number that comes twice is one section.
    """
    word = fold(arguments["section_spliter"])
    text = normalise(response) if word in fold(response) else ""
    matches = _section_pattern(word, pack.section_number).finditer(text)
    found = {next(filter(None, match.groups())) for match in matches}
    numbers = {number.upper() for number in found if number.isdecimal() or not found.isdisjoint("AI")}
    noun = f"sections marked {arguments['section_spliter']!r}"
    return compare(len(numbers), arguments, "num_sections", "relation", noun)


@lru_cache(maxsize=256)
def _section_pattern(word: str, side: str) -> regex.Pattern[str]:
    name = r"\s+".join(map(regex.escape, word.split()))
    after = rf"{name}\p{{L}}{{0,3}}[ \t]*+[#nN]?[.ºª°]?[ \t]*+({_NUMERAL})(?:\.?[ªº])?+(?![\p{{L}}\p{{N}}])"
    before = rf"({_NUMERAL})(?:[.)ºª°]|-?[aªº]\b|\.[aªº])*+[ \t]*+[-–:]?[ \t]*+{name}(?!\p{{L}}{{4}})"
    sides = {"after": after, "before": before, "either": f"(?:{after}|{before})"}
    # At most 20 signs (**, ##, quotes) before a heading: a bound keeps a megabyte of them linear.
    start = r"(?:^|(?<=[.!?…:»”\"*]\s))[^\p{L}\p{N}\n]{0,20}+"
    # Inside a line, only what has a capital and then ends the line or its bracket: (Spring, SECTION 1).
    inside = r"(?<=[(\[,–—|/:-] ?)(?=(?-i:[\p{N}.ºª \t]{0,8}\p{Lu}))"
    ends = r"(?=[ \t]*+(?:[\])]|[:.*_#\])]*+[ \t]*+$))"
    heading = rf"{start}(?:{sides[side]})|{inside}(?:{sides[side]}){ends}"
    return regex.compile(heading, regex.IGNORECASE | regex.MULTILINE)


def json_format(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The whole answer is one JSON object or array, with or without a ``` fence."""
    try:
        value = read_json(response)
    except RecursionError:
        return Verdict(False, "not JSON: nested too deep to read")
    except ValueError as error:
        return Verdict(False, f"not JSON: {error}")
    if not isinstance(value, (dict, list)):
        return Verdict(False, f"a bare {type(value).__name__} is not an object or array")
    return Verdict(True, "the answer is JSON")


def read_json(response: str) -> Any:
    """What an answer that is JSON, with or without a ``` fence, holds; ValueError or RecursionError where it is none."""
    text = visible(response).strip()
    fenced = _FENCE.match(text)
    if fenced and text.endswith(fenced.group(1)):
        text = text[fenced.end() : -len(fenced.group(1))]
    # Whole numbers are not read: Python refuses one of more than 4,300 digits, JSON does not.
    return json.loads(text, parse_constant=_refuse_constant, parse_int=len)


def texts_in_json(response: str) -> list[str] | None:
    """The texts in an answer that is a JSON object or array, names among them; None where it is none."""
    if response.lstrip("\ufeff \n\r\t")[:1] not in ("{", "[", "`", "~"):
        return None
    try:
        left = [read_json(response)]
    except (ValueError, RecursionError):
        return None
    found: list[str] = []
    while left:
        value = left.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            left += [*value.values(), *value]
        elif isinstance(value, list):
            left += value
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def title(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """A title in <<double angular brackets>> anywhere, or in the pack's brackets on its own line."""
    text = normalise(response)
    brackets = [pair for pair in pack.title_brackets if pair[0] in text and pair[1] in text]
    for line in lines(text) if brackets else ():
        for opening, closing in brackets:
            if _holds_title(line, opening, closing):
                return Verdict(True, f"found a title in {opening}{closing}")
    return Verdict(False, "no title in << >>")


def _holds_title(line: str, opening: str, closing: str) -> bool:
    start, end = line.find(opening), line.rfind(closing)
    if start < 0 or end < start + len(opening):
        return False
    inside = line[start + len(opening) : end].strip(_NO_TITLE)
    alone = not line[:start].strip(" \t*_#") and not line[end + len(closing) :].strip(" \t*_#")
    return has_text(inside) and (opening == "<<" or alone)


def constrained_response(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """Exactly one of the options stands in the answer; the final dot and the case do not matter.

    Args:
        arguments: may hold "prompt"; the option set that the prompt lists is then the one used.
    """
    options = _options_for(fold(str(arguments.get("prompt", ""))), pack)
    folded = fold(response)
    sentences: frozenset[str] | None = None
    chosen: list[str] = []
    for option in options:
        bare = fold(option).rstrip(".")
        if bare not in folded:
            continue
        if " " not in bare and sentences is None:
            sentences = frozenset(s.strip(" .!*_\"'") for s in sentence_texts(folded, pack))
        found = occurrences(folded, bare) if " " in bare else bare in (sentences or ())
        if found and bare not in chosen:
            chosen.append(bare)
    chosen = [c for c in chosen if " " in c] or chosen  # "No. My answer is maybe." is maybe
    # "Minha resposta é não" stands inside "A minha resposta é não": one answer, not two.
    chosen = [c for c in chosen if not any(c != other and c in other for other in chosen)]
    if len(chosen) == 1:
        return Verdict(True, f"the answer is {chosen[0]!r}")
    if chosen:
        return Verdict(False, f"{len(chosen)} options at once: {', '.join(map(repr, chosen))}")
    return Verdict(False, f"none of: {', '.join(map(repr, options))}")


def _options_for(prompt: str, pack: Pack) -> list[str]:
    every = [option for options in pack.option_sets for option in options]
    # As whole words: "miña resposta é si" holds "a resposta é si".
    listed = [option for option in every if occurrences(prompt, fold(option).rstrip("."))]
    whole = [o for o in listed if " " in o]
    return whole or listed if len(whole or listed) > 1 else every
