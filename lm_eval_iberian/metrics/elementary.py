"""Elementary tasks (LMentry): whether an answer in words is right, by one written rule for each sort of task.

    verdict("more_letters", {"answer": "river", "distractor": "sun"}, "River has more letters than sun.", "en")   # True

A rule reads the first line that says something (and the next one after a colon), in small letters. It never guesses: an
answer in which it finds no word, letter, number, yes or no, or in which it cannot tell which is meant, is None,
unreadable. The rules are ours. LMentry's own match hundreds of sentences a language by hand-written patterns; they count
an answer by its presence anywhere, ours by what is named.

Sources: Efrat et al. 2023 (LMentry), Moroni et al. 2025 (Multi-LMentry).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

# Longer answers are read no further.
LONGEST = 600
# The sorts of tasks: which facts each reads, and how its answer is held against them.
COMPARED = {
    "more_letters": "length", "less_letters": "length", "bigger_number": "size", "smaller_number": "size",
    "first_alphabetically": "order",
}  # fmt: skip
# Those that ask for the lesser one: the words of the other end speak for it.
LESSER = ("less_letters", "smaller_number")
CHOSEN = (*COMPARED, "rhyming_word", "homophones")
FROM_LIST = ("most_associated_word", "least_associated_word")
YES_OR_NO = ("any_words_from_category", "all_words_from_category")
LETTERS = ("first_letter", "last_letter")
FOUND_WORDS = ("first_word", "last_word", "word_after", "word_before")
MADE_WORDS = ("word_containing", "word_not_containing", "starts_with_letter", "ends_with_letter")
SENTENCES = ("sentence_containing", "sentence_not_containing", "starts_with_word", "ends_with_word")
TASKS = (*CHOSEN, *FROM_LIST, *YES_OR_NO, *LETTERS, *FOUND_WORDS, *MADE_WORDS, *SENTENCES)

# What a comparison is said with: (more, less), in each language.
CUES = {
    "length": {
        "en": ("more|longer|longest", "less|fewer|shorter|shortest"),
        "es": (r"más\b(?! cort)|mayor (?:número|cantidad)", r"menos\b|más cort|menor (?:número|cantidad)"),
        "ca": (r"més\b(?! curt)|major (?:nombre|quantitat)", r"menys\b|més curt|menor (?:nombre|quantitat)"),
        "gl": (r"máis\b(?! curt)|maior (?:número|cantidade)", r"menos\b|máis curt|menor (?:número|cantidade)"),
        "eu": ("gehiago|gehien|luzeago|luzeen", "gutxiago|gutxien|laburrago|laburren"),
        "pt": (r"mais\b(?! curt)|maior", r"menos\b|mais curt|menor"),
    },
    "size": {
        "en": ("bigger|biggest|larger|largest|greater|greatest|higher|highest", "smaller|smallest|less|lower|lowest"),
        "es": ("mayor|más grande|más alto", "menor|más pequeño|más bajo"),
        "ca": ("major|més gran|més alt", "menor|més petit|més baix"),
        "gl": ("maior|máis grande|máis alto", "menor|máis pequeno|máis baixo"),
        "eu": ("handiago|handien", "txikiago|txikien"),
        "pt": ("maior|mais alto", "menor|mais baixo"),
    },
    "order": {
        "en": ("first|before|earlier", "after|later|second|last"),
        "es": ("primer|antes", "después|segund|detrás"),
        "ca": ("primer|abans", "després|segon|darrere"),
        "gl": ("primeir|antes", "despois|segund|detrás"),
        "eu": ("lehen|aurre", "gero|ondoren|bigarren|atze"),
        "pt": ("primeir|antes", "depois|segund"),
    },
}
# (yes, no). Without its accent, "si" is "if": it counts as the first word only. Galician "no" is "in the".
YES_NO = {
    "en": ("yes", "no"), "es": ("sí", "no"), "ca": ("sí", "no"), "gl": ("si|sí", "non"), "eu": ("bai", "ez"),
    "pt": ("sim", "não"),
}  # fmt: skip
FIRST_YES_NO = {"es": ("si", "no"), "ca": ("si", "no"), "pt": ("sim", "nao")}
# Words of one letter that a sentence may begin with.
SHORT_WORDS = {"en": "ai", "es": "aeouy", "ca": "aeio", "gl": "aoe", "pt": "aoeé", "eu": ""}
# What may end a sentence after the word that is meant: "Letra hori c da."
LAST_VERBS = {"eu": ("da", "dira", "du", "dago", "dator")}
_JOINED = re.compile(r"[\s\",;]*(?:(?:and|or|y|e|o|u|i|ou|eta|edo)\b)?[\s\",;]*")
_QUOTED = re.compile(r'"([^"]{1,300})"')
_WORD = re.compile(r"[^\W\d_]+(?:['’·-][^\W\d_]+)*")
_MARKS = str.maketrans({**dict.fromkeys("“”«»„‟", '"'), **dict.fromkeys("*`_", "")})
# **river**, `river`, 'river': a word that is set apart in another way than by double quotes.
_APART = re.compile(r"(?<!\w)(\*{1,3}|_{1,2}|`|')([^\W_](?:[\w·-]{0,60}[^\W_])?)\1(?!\w)")


def verdict(task: str, facts: Mapping[str, Any], answer: str, language: str) -> bool | None:
    """Whether an answer is right; None where it cannot be read.

    Args:
        task: one of TASKS.
        facts: what the data set says of the question: its `metadata`.
        answer: what the model said.
        language: "eu".
    """
    text = said(answer)
    if not _WORD.search(text) and not re.search(r"\d", text):
        return None
    if task in CHOSEN:
        number = named([facts["answer"], facts["distractor"]], text, task, language)
        return None if number is None else number == 0
    if task in FROM_LIST:
        number = named([facts["answer"], *facts["distractors"]], text, task, language)
        return None if number is None else number == 0
    if task in YES_OR_NO:
        given = yes_or_no(text, language)
        return None if given is None else given == is_yes(task, facts)
    if task in LETTERS:
        return _same(letter(text, language), facts["answer"])
    if task in FOUND_WORDS:
        return _same(word(text, language, leave_out=str(facts.get("query", ""))), facts["answer"])
    if task in MADE_WORDS:
        made = words_made(text, language, leave_out=str(facts["letter"]))
        return None if not made else all(_fits(task, one, str(facts["letter"]).lower()) for one in made)
    return _sentence_fits(task, sentence(text), str(facts["word"]).lower())


def needed(task: str) -> tuple[str, ...]:
    """The facts that a task's rule reads."""
    if task in CHOSEN:
        return ("answer", "distractor")
    if task in FROM_LIST:
        return ("answer", "distractors")
    if task in YES_OR_NO:
        return ("num_distractors", "num_words")
    if task in ("word_after", "word_before"):
        return ("answer", "query")
    if task in (*LETTERS, *FOUND_WORDS):
        return ("answer",)
    return ("letter",) if task in MADE_WORDS else ("word",)


def said(answer: str) -> str:
    """The first line that says something, and the next after a colon; small letters, plain quotes.

    A single word in emphasis or single quotes is put in double ones; other emphasis is left out.
    """
    text = unicodedata.normalize("NFC", answer.rpartition("</think>")[2]).lower()
    taken: list[str] = []
    for line in text.splitlines():
        if line.translate(_MARKS).strip(' .,;:!?"-'):
            taken.append(_plain(line[: 2 * LONGEST]))
            if len(taken) == 2 or not taken[0].endswith(":"):
                break
    return " ".join(taken)[:LONGEST]


def _plain(line: str) -> str:
    """A line with single blanks, plain quotes and no emphasis."""
    set_apart = _APART.sub(r'"\2"', line.replace("’", "'").replace("‘", "'"))
    return " ".join(set_apart.translate(_MARKS).split())


def named(options: Sequence[Any], text: str, task: str, language: str) -> int | None:
    """Which option is meant; None where none is named.

    A repetition of the options ("of the words a and b, ...") is passed over. Of two that are compared it is the one
    before the comparison ("a is longer"), else the first after it ("the longer one is a"), and the other one where only
    words of the other end are used ("b is shorter"). Where nothing is compared and both are named ("b has 3 letters and a
    has 5"), it is the one that the answer begins or ends with as such ("a, not b", "b (3), a (5): a"), or none.
    Of other options it is the first.
    """
    everywhere = mentions(options, text, language)
    places = after_repetition(everywhere, text)
    if not places:
        return None
    if task not in COMPARED:
        return places[0][2]
    rest = text
    quoted = [place for place in everywhere if text[place[0] - 1 : place[0]] == '"' == text[place[1] : place[1] + 1]]
    for start, end, _ in quoted or everywhere:  # what is compared is no word of the comparison: "lesson", "after"
        rest = rest[:start] + " " * (end - start) + rest[end:]
    more, less = (re.search(rf"\b(?:{cues})", rest) for cues in CUES[COMPARED[task]][language])
    own, other = (less, more) if task in LESSER else (more, less)
    cue = own or other
    if cue is None and len({number for *_, number in places}) > 1:
        return _set_apart(places, text)
    before = [place for place in places if cue and place[1] <= cue.start()]
    chosen = (before[-1] if before else places[0])[2]
    return 1 - chosen if other and not own else chosen


def _set_apart(places: list[Place], text: str) -> int | None:
    """Of several options the one that the text begins with, before a comma or dot, or ends with, after a colon."""
    (first, end, number), (last, _, final) = places[0], places[-1]
    if not text[:first].strip('" ') and re.match(r'"?[.,;:!]', text[end:]):
        return number
    return final if re.search(r':\s*"?$', text[:last]) else None


# Where an option stands in a text: start, end, number of the option.
Place = tuple[int, int, int]


def mentions(options: Sequence[Any], text: str, language: str) -> list[Place]:
    """Where options stand, as whole words or numbers, in order; of two in one place the longer one.

    In Basque those before "baino" ("than") are left out: "b baino luzeagoa da a".
    """
    than = r"(?!\"?(?: (?:hitza|zenbakia)k?)? baino\b)" if language == "eu" else ""
    found = []
    for number, option in enumerate(options):
        whole = rf"(?<![^\W_]){re.escape(str(option).lower())}(?![^\W_]){than}"
        found += [(match.start(), match.end(), number) for match in re.finditer(whole, text)]
    kept: list[Place] = []
    for place in sorted(found, key=lambda place: (place[0], -place[1])):
        if not kept or place[0] >= kept[-1][1]:
            kept.append(place)
    return kept


def after_repetition(places: list[Place], text: str) -> list[Place]:
    """The places after the first ones, where these are different options with nothing but "and" or "or" between."""
    run = 1
    while run < len(places) and _JOINED.fullmatch(text, places[run - 1][1], places[run][0]):
        if places[run][2] in {number for *_, number in places[:run]}:
            break
        run += 1
    return places[run:] if run > 1 else places


def yes_or_no(text: str, language: str) -> bool | None:
    """True for yes: the first word, or the only one of both that occurs.

    A no inside a sentence counts only where a mark follows it or nothing: "there are no others" says neither.
    """
    words = _WORD.findall(text)
    for pairs in (YES_NO, FIRST_YES_NO):
        for is_yes_word, pattern in zip((True, False), pairs.get(language, ()), strict=False):
            if words and re.fullmatch(pattern, words[0]):
                return is_yes_word
    yes = any(re.fullmatch(YES_NO[language][0], one) for one in words)
    no = bool(re.search(rf"(?<!\w)(?:{YES_NO[language][1]})\s*(?:[^\w\s'-]|$)", text))
    return yes if yes != no else None


def is_yes(task: str, facts: Mapping[str, Any]) -> bool:
    """Whether yes is right: no word is of another category, or not all of them are."""
    others = int(facts["num_distractors"])
    return others == 0 if task == "all_words_from_category" else others < int(facts["num_words"])


def letter(text: str, language: str) -> str | None:
    """The one letter that is quoted; else the last word, else the first, where it is a letter and no short word."""
    quoted = {one.strip() for one in _QUOTED.findall(text) if len(one.strip()) == 1}
    if quoted:
        return quoted.pop() if len(quoted) == 1 else None
    words = _ended(text, language)
    if words and len(words[-1]) == 1:
        return words[-1]
    first = words[0] if words else ""
    return first if len(first) == 1 and first not in SHORT_WORDS[language] else None


def word(text: str, language: str, leave_out: str = "") -> str | None:
    """The one word that is quoted, but for `leave_out`; else the last one of the first sentence, or where that is
    `leave_out`, its first ("left comes after boat").
    """
    quoted = {one for one in _quoted_words(text) if one != leave_out.lower()}
    if quoted:
        return quoted.pop() if len(quoted) == 1 else None
    words = _ended(text, language)
    if words and words[-1] == leave_out.lower():
        words = words[:1]
    return words[-1] if words else None


def words_made(text: str, language: str, leave_out: str) -> list[str]:
    """The word that was asked for, or the words of a list: what is quoted, but for the letter; else the last word of the
    first sentence, or the first one where the last is the letter.
    """
    quoted = [one for one in _quoted_words(text) if one != leave_out.lower()]
    if quoted:
        return quoted
    parts = [part.strip(" .!") for part in text.split(",")]
    if all(_WORD.fullmatch(part) for part in parts):
        return parts
    words = _ended(text, language)
    if words and words[-1] == leave_out.lower():
        words = words[:1]
    return words[-1:]


def sentence(text: str) -> list[str]:
    """The words of the sentence that was asked for: the longest quoted one, else all of the line after its colon."""
    quoted = [words for one in _QUOTED.findall(text) if len(words := _WORD.findall(one)) > 1]
    if quoted:
        return max(quoted, key=len)
    return _WORD.findall(text.rpartition(": ")[2])


def _quoted_words(text: str) -> list[str]:
    return [one.strip(" .,;!?") for one in _QUOTED.findall(text) if _WORD.fullmatch(one.strip(" .,;!?"))]


def _ended(text: str, language: str) -> list[str]:
    """The words of the first sentence, without a verb that ends it."""
    words = _WORD.findall(re.split(r"[.!?](?:\s|$)", text, maxsplit=1)[0])
    return words[:-1] if len(words) > 1 and words[-1] in LAST_VERBS.get(language, ()) else words


def _same(found: str | None, wanted: Any) -> bool | None:
    return None if found is None else found == unicodedata.normalize("NFC", str(wanted)).lower()


def _fits(task: str, made: str, wanted: str) -> bool:
    """Whether a word is one that was asked for: two letters at least."""
    holds = {
        "word_containing": wanted in made, "word_not_containing": wanted not in made,
        "starts_with_letter": made.startswith(wanted), "ends_with_letter": made.endswith(wanted),
    }  # fmt: skip
    return len(made) > 1 and holds[task]


def _sentence_fits(task: str, words: Sequence[str], wanted: str) -> bool | None:
    """Whether a sentence is one that was asked for: two words at least, and the word where it should be, or nowhere.

    A part before or after an apostrophe or a hyphen is a word too: "l'home".
    """
    if not words:
        return None
    parts = [{one, *re.split("['-]", one)} for one in words]
    holds = {
        "sentence_containing": any(wanted in part for part in parts),
        "sentence_not_containing": not any(wanted in part for part in parts),
        "starts_with_word": wanted == words[0] or words[0].startswith((f"{wanted}'", f"{wanted}-")),
        "ends_with_word": wanted == words[-1] or words[-1].endswith((f"'{wanted}", f"-{wanted}")),
    }
    return len(words) > 1 and holds[task]
