"""The original edition: Google's checks, and the authors' eu, gl, ca and es changes to them.

The semantics are those of google-research/instruction_following_eval (Apache-2.0) as lm_eval
carries it, faults included; the code is ours, and linear in the length of the answer. README.md
lists what each fault does. Where the published code draws a random letter or argument, a fixed
one is used here, so that a score can be made twice.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from ifeval_multi.original.tokens import capital_words, fasttext_label, google_words, langdetect_label, punkt_sentences
from ifeval_multi.pack import Pack
from ifeval_multi.relations import at_least, compare, exactly
from ifeval_multi.verdict import Verdict

# The option strings of the published code; other languages take their pack's first set.
OPTIONS: dict[str, tuple[str, ...]] = {
    "en": ("My answer is yes.", "My answer is no.", "My answer is maybe."),
    "eu": ("Nire erantzuna baiezkoa da.", "Nire erantzuna ezezkoa da.", "Nire erantzuna agian da."),
    "gl": ("A resposta é si", "A resposta é non", "A resposta é pode ser"),
    "es": ("Mi respuesta es sí", "Mi respuesta es no", "Mi respuesta es tal vez"),
    "ca": ("La meva resposta és sí", "La meva resposta és no", "La meva resposta és potser"),
}
# The authors' lower-case checkers in these languages test for upper case.
LOWERCASE_TESTS_UPPERCASE = frozenset({"eu", "gl", "es", "ca"})

_DIVIDER = re.compile(r"\s?\*\*\*\s?")
_BULLETS = (re.compile(r"^[^\S\n]*\*[^*].*$", re.MULTILINE), re.compile(r"^[^\S\n]*-.*$", re.MULTILINE))
_HIGHLIGHT = re.compile(r"\*[^\n*]*\*")
_DOUBLE_HIGHLIGHT = re.compile(r"\*\*[^\n*]*\*\*")
_POSTSCRIPTS = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
_STOPS = re.compile("[.,?!'\"]")


def no_comma(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    count = response.count(",")
    return Verdict(not count, f"found {count} commas, none allowed")


def number_words(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    return compare(google_words(response), arguments, "num_words", "relation", "words (\\w+)")


def number_sentences(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    count = len(punkt_sentences(response))
    return compare(count, arguments, "num_sentences", "relation", "sentences (punkt)")


def number_paragraphs(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    pieces = _DIVIDER.split(response)
    if any(not piece.strip() for piece in pieces[1:-1]):
        return Verdict(False, "an empty paragraph between two ***")
    count = len(pieces) - sum(not pieces[edge].strip() for edge in {0, len(pieces) - 1})
    return exactly(count, arguments["num_paragraphs"], "paragraphs divided by ***")


def nth_paragraph_first_word(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    pieces = response.split("\n\n")
    count = sum(1 for piece in pieces if piece.strip())
    number = arguments["nth_paragraph"]
    if number > count or not pieces[number - 1].strip():
        return Verdict(False, f"paragraph {number} is missing or empty")
    word = pieces[number - 1].split(None, 1)[0].lstrip("'").lstrip('"')
    first = _STOPS.split(word, maxsplit=1)[0].lower()
    asked = str(arguments["first_word"]).lower()
    followed = count == arguments["num_paragraphs"] and first == asked
    return Verdict(followed, f"{count} paragraphs, number {number} begins {first!r}")


def number_placeholders(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    count = sum(map(_brackets, response.split("\n")))
    return at_least(count, arguments["num_placeholders"], "[placeholders]")


def _brackets(line: str) -> int:
    """Matches of \\[.*?\\] in a line, without looking for a ] that is not there again and again."""
    count = position = 0
    while (start := line.find("[", position)) >= 0 and (end := line.find("]", start)) >= 0:
        count, position = count + 1, end + 1
    return count


def postscript(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    marker = str(arguments["postscript_marker"]).strip()
    pattern = _POSTSCRIPTS.get(marker, marker.lower())  # the dots of a marker are not escaped
    found = re.search(pattern, response.lower())
    return Verdict(bool(found), f"{'found' if found else 'did not find'} /{pattern}/")


def number_bullet_lists(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    count = sum(1 for pattern in _BULLETS for _ in pattern.finditer(response))
    return exactly(count, arguments["num_bullets"], "bullets")


def number_highlighted_sections(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    single = sum(1 for h in _HIGHLIGHT.findall(response) if h.strip("*").strip())
    double = sum(1 for h in _DOUBLE_HIGHLIGHT.findall(response) if h[2:-2].strip())
    return at_least(single + double, arguments["num_highlights"], "highlighted sections")


def multiple_sections(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    word = str(arguments["section_spliter"]).strip()
    count = len(re.findall(rf"\s?{word}\s?\d+\s?", response))
    return at_least(count, arguments["num_sections"], f"sections {word} N")


def json_format(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    text = response.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError) as error:
        return Verdict(False, f"not JSON: {error}")
    return Verdict(True, "the answer is JSON")


def title(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    for line in response.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if start >= 0 and end >= start + 3 and line[start:end].lstrip("<").rstrip(">").strip():
            return Verdict(True, "found a <<title>>")
    return Verdict(False, "no <<title>>")


def constrained_response(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    options = OPTIONS.get(pack.code, pack.option_sets[0])
    found = next((option for option in options if option in response.strip()), None)
    return Verdict(found is not None, f"found {found!r}" if found else f"none of {options}")


def existence(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    # A string instead of a list is read letter by letter, as sorted() does.
    for keyword in sorted(arguments["keywords"]):
        if not re.search(keyword, response, re.IGNORECASE):
            return Verdict(False, f"did not find /{keyword}/")
    return Verdict(True, "all keywords found")


def frequency(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    keyword = str(arguments["keyword"]).strip()
    count = sum(1 for _ in re.finditer(keyword, response, re.IGNORECASE))
    return compare(count, arguments, "frequency", "relation", f"times /{keyword}/")


def forbidden_words(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    for word in sorted(set(arguments["forbidden_words"])):
        try:
            if re.search(rf"\b{word}\b", response, re.IGNORECASE):
                return Verdict(False, f"forbidden, but found: /{word}/")
        except re.error:
            # The authors' Spanish code returns "followed" here; the others would stop.
            return Verdict(True, f"/{word}/ is no pattern, which counts as followed")
    return Verdict(True, "no forbidden word found")


def letter_frequency(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    letter = drawn_letter(str(arguments["letter"]))
    count = response.lower().count(letter)
    return compare(count, arguments, "let_frequency", "let_relation", f"times {letter!r}")


def drawn_letter(letter: str) -> str:
    """A letter outside a-z is replaced by a random one in the published code; here by a fixed."""
    if len(letter) == 1 and "a" <= letter.lower() <= "z":
        return letter.lower()
    return "abcdefghijklmnopqrstuvwxyz"[zlib.crc32(letter.encode()) % 26]


def capital_word_frequency(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    count = len(capital_words(response))
    noun = "words in capitals"
    return compare(count, arguments, "capital_frequency", "capital_relation", noun)


def english_capital(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    if not response.isupper():
        return Verdict(False, "not in capitals")
    return _language(response, pack.code, pack)


def english_lowercase(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    if pack.code in LOWERCASE_TESTS_UPPERCASE:
        return Verdict(
            english_capital(response, arguments, pack).followed, "the published code tests for capitals here"
        )
    if not response.islower():
        return Verdict(False, "not in lower case")
    return _language(response, pack.code, pack)


def _language(response: str, code: str, pack: Pack) -> Verdict:
    """Google asks langdetect, and "do not know" is followed; the authors ask fastText."""
    if pack.code in LOWERCASE_TESTS_UPPERCASE:
        found: str | None = fasttext_label(response)
    else:
        found = langdetect_label(response)
    return Verdict(found in (code, None), f"identified as {found!r}, {code!r} asked")


def response_language(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    return _language(response, str(arguments["language"]), pack)


def repeat_prompt(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    asked = str(arguments["prompt_to_repeat"]).strip().lower()
    followed = response.strip().lower().startswith(asked)
    return Verdict(followed, "the request comes first" if followed else "not repeated exactly")


def two_responses(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    pieces = response.split("******")
    if any(not piece.strip() for piece in pieces[1:-1]):
        return Verdict(False, "an empty answer between two ******")
    found = [piece.strip() for piece in pieces if piece.strip()]
    followed = len(found) == 2 and found[0] != found[1]
    return Verdict(followed, f"found {len(found)} answers divided by ******")


def end_checker(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    asked = str(arguments["end_phrase"]).strip().lower()
    followed = response.strip().strip('"').lower().endswith(asked)
    return Verdict(followed, f"{'ends' if followed else 'does not end'} with {asked!r}")


def quotation(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    text = response.strip()
    followed = len(text) > 1 and text[0] == text[-1] == '"'
    return Verdict(followed, 'wrapped in ""' if followed else 'not wrapped in ""')
