"""Sentences without a model: punctuation, the pack's abbreviations, ordinals.

What a sentence is: a piece of running text (running_text.py) that ends in . ! ? … and a space, or where its passage
ends. Not ends: the dot of an abbreviation or an initial, whether written together or apart ("EE. UU.", "a. C.",
"J. R. R."), of a Basque ordinal ("72. Zinemaldia"), of a number; and ! or ? before a small letter, also behind a dash
or quotation mark ("—Vén axiña! —berrou Ana."). A colon, a semicolon and a comma end nothing.

Titles, names, addresses and signatures are no sentences, nor is the line that introduces a list one of its own. In an
answer that has nothing else each of them counts, so that no answer has no sentence.
"""

from __future__ import annotations

import re

import regex

from ifeval_multi.pack import Pack
from ifeval_multi.running_text import ITEM, Passage, is_label, is_section_label, is_signature, passages

# A run of closing punctuation, the quotes and brackets that close after it, the space behind.
# Nothing follows in the pattern, so it never looks back: a megabyte of dots is read once.
_END = re.compile(
    r"([.!?…‽。！？।؟]+)((?:[\"'»”’)\]*_]|\[\d{1,3}\]|[\u2600-\u27bf\ufe0f\u200d\U0001f000-\U0001faff])*)(\s*)"
)
_NEEDS_NO_SPACE = "。！？"
_ROMAN = regex.compile(r"(?=[IVXLCDM])M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")
_DOUBLED = regex.compile(r"(\p{Lu})\1")  # EE. UU., RR. HH.: the plural of an abbreviation of one letter
_INITIALS = regex.compile(r"\p{Lu}(?:\.-?\p{Lu}){1,2}")  # J.K. Rowling, J.R.R. Tolkien, J.-P. Sartre
_ORDINAL_SIGN = regex.compile(r"\d{1,3}\.?[ºª]")
_LETTER_AND_DOT = regex.compile(r"\p{L}\.")
_GLUED = regex.compile(r"[\p{Ll}]{4}[.!?…]++\p{Lu}\p{Ll}")  # "It rained.Then it stopped."
_OPENING = "([{\"'«“‘¿¡*_—–-"
_NEAR, _NEAR_ITEM = 40, 400
_LONGEST_SIGNATURE = 4
_LONGEST_TEXT = 50_000


def count_sentences(text: str, pack: Pack) -> int:
    """How many sentences a normalised text holds."""
    return len(sentence_texts(text, pack))


def sentence_texts(text: str, pack: Pack) -> list[str]:
    """The sentences of a normalised text, in order. More than 50,000 characters are not read: no answer is so long."""
    sentences, labels = [], []
    for passage in passages(text[:_LONGEST_TEXT], pack):
        if is_label(passage, pack):
            labels += _cut(passage.text, pack)
        else:
            sentences += _cut(_without_signature(passage, pack), pack, passage.items[0])
    return sentences or labels


def _without_signature(passage: Passage, pack: Pack) -> str:
    """The passage without a name or a signature that stands below a line that ends a sentence."""
    if not passage.is_open():
        return passage.text
    for place in range(max(1, len(passage.lines) - _LONGEST_SIGNATURE), len(passage.lines)):
        above, below = Passage(passage.lines[:place], passage.items[:place]), passage.lines[place:]
        if not above.is_open() and not any(passage.items[place:]) and is_signature(below, pack):
            return above.text
    return passage.text


def _cut(text: str, pack: Pack, is_item: bool = False) -> list[str]:
    cased = not (text.isupper() or text.islower())
    pieces: list[str] = []
    start = 0
    numbers = {"1", "2"}  # that may count the items of a list in a line: "Wash it. 2. Dry it. 3. Fold it."
    for end in _END.finditer(text):
        if _is_inside_word(text, end):
            continue
        short = text[start : end.start()].strip() if end.end() - start < _NEAR else "long"
        if not any(map(str.isalnum, short)):
            continue  # ". . ." is no row of sentences
        counts = short in numbers and end.group(1) == "." and text[end.end() : end.end() + 1].isupper()
        begins = counts and len(numbers) > 1 and not is_item
        if counts and not (begins and _is_answer(int(short), pieces, text[end.end() : end.end() + _NEAR_ITEM])):
            numbers = {str(int(short) + 1)}
            continue
        if text.endswith(": 1", start, end.start()) and " 2. " in text[end.end() : end.end() + _NEAR_ITEM]:
            continue  # "The steps: 1. Wash it. 2. Dry it."
        if _Dot(text, end, cased, pack).ends():
            pieces.append(text[start : end.end()])
            start = end.end()
    pieces.append(text[start:])
    whole = [piece for piece in pieces if any(map(str.isalnum, piece)) and not is_section_label(piece, pack)]
    return [piece.replace(ITEM, "") for piece in whole]


def _is_answer(number: int, before: list[str], behind: str) -> bool:
    """ "How many has Mars? 2. And Earth?": a question asks for a number, and no other follows that counts on."""
    asked = bool(before) and before[-1].rstrip().endswith("?")
    return asked and f" {number + 1}. " not in behind


def _is_inside_word(text: str, end: re.Match[str]) -> bool:
    """3.5, example.org, (sic!)-; but a space may be missing: "It rained.Then it stopped." """
    if end.group(3) or end.end() == len(text) or end.group(1)[-1] in _NEEDS_NO_SPACE:
        return False
    near = text[max(0, end.start() - _NEAR) : end.start()].split()
    glued = near and near[-1].isalpha() and _GLUED.search(text, end.start() - 4, end.end() + 2)
    return not glued


class _Dot:
    """A closing mark in a text, with what stands before and behind it."""

    def __init__(self, text: str, end: re.Match[str], cased: bool, pack: Pack) -> None:
        self.marks, self.closers, self.space = end.groups()
        self.cased, self.pack = cased, pack
        self.behind = text[end.end() : end.end() + _NEAR]
        near = text[max(0, end.start() - _NEAR) : end.start()]
        self.before = [] if near[-1:].isspace() else near.split()
        self.token = self.before[-1].lstrip(_OPENING) if self.before else ""
        if pack.apostrophe == "splits":
            self.token = self.token.replace("’", "'").rsplit("'", 1)[-1]  # l'av., d'EE. UU.
        self.next = _first_word(self.behind)
        # What would open a sentence has a capital; a text all in capitals or in small letters does not tell.
        self.goes_on = cased and next(filter(str.isalnum, self.behind), "A").islower()

    def ends(self) -> bool:
        if not self.behind or ITEM in self.space:
            return True
        if self.marks != "." or self.closers.strip("*_"):
            return not self.goes_on and (self.marks == "." or not self._is_spoken())
        return not self._belongs_to_word()

    def _is_spoken(self) -> bool:
        """ "Come here!" Ana said."""
        words = [word.strip(".,;:!?") for word in self.behind.split()[:3]]
        return bool(self.closers.strip("*_)")) and not self.pack.speech_verbs.isdisjoint(words)

    def _belongs_to_word(self) -> bool:
        if self._is_part_of_abbreviation():
            return True
        if self._is_unit():
            return False
        # A capital alone is an initial, whatever the pack says of small letters: "s." is a century, "S." is a name.
        initials = self.cased and self.token.isupper() and (len(self.token) == 1 or _DOUBLED.fullmatch(self.token))
        lowered = "" if initials else self.token.lower()
        forms = (lowered, *self._written_together())
        may_end = not self.pack.abbreviations.isdisjoint(forms)
        if not self.pack.abbreviations_before_names.isdisjoint(forms):
            return not (may_end and self.cased and not self.goes_on and self._opens_sentence())
        if may_end:
            return self._goes_on_after_abbreviation()
        if _DOUBLED.fullmatch(self.token) and not (self.pack.ordinal_dot and self._is_roman(self.token)):
            return self._goes_on_after_abbreviation()
        if len(self.token) == 1 and self.token.isalpha():
            return self._is_initial()
        if _INITIALS.fullmatch(self.token) and self.cased:
            return self._is_initial()
        if "." in self.token.strip(".") and not self.token[:1].isdigit():
            return self._goes_on_after_abbreviation()
        return self.pack.ordinal_dot and self._is_ordinal()

    def _is_unit(self) -> bool:
        """ "1,80 m. Il ...", "5 h. Vamos": a letter behind a number abbreviates no name that follows."""
        letter = len(self.token) == 1 and self.token.islower() and len(self.before) > 1
        return letter and self.cased and not self.goes_on and self.before[-2][-1].isdigit()

    def _written_together(self) -> list[str]:
        """What ends here and is written apart, as the pack writes it: "p. ej" is p.ej, "q. e. p. d" is q.e.p.d."""
        found, joined = [], self.token
        for chunk in reversed(self.before[-4:-1]):
            chunk = chunk.lstrip(_OPENING)
            if not chunk.endswith(".") or len(chunk) > 4:
                break
            joined = chunk + joined
            found.append(joined.lower())
        return found

    def _is_part_of_abbreviation(self) -> bool:
        """Does the rest of it follow: "EE." before "UU.", "a." before "C.", "p." before "ej."?"""
        following = self.behind.split()[:1]
        if not following:
            return False
        after = following[0].rstrip(",;:)»”\"'")
        if _DOUBLED.fullmatch(self.token) and _DOUBLED.fullmatch(after.rstrip(".")):
            return True
        if len(self.token) == 1 and self.token.isalpha() and _LETTER_AND_DOT.fullmatch(after):
            return True
        short = len(self.token) <= 3 and after.endswith(".") and len(after) <= 4
        return short and any(
            f"{self.token}.{after.rstrip('.')}".lower() == known[: len(self.token) + len(after)]
            for known in self.pack.abbreviations | self.pack.abbreviations_before_names
            if known.startswith(self.token.lower() + ".")
        )

    def _goes_on_after_abbreviation(self) -> bool:
        if self.goes_on or not self.cased:
            return True
        if self.pack.ordinal_dot and len(self.before) > 1 and self.before[-2][:-1].isdigit():
            return False  # Basque counts before the noun: "3. art. 7. zk." are two
        if self.behind.lstrip(_OPENING)[:1].isdigit():
            return True
        return self._is_roman(self.next) and (self.token == "s" or not self._opens_sentence())  # s. I, but "etc. I do"

    def _is_initial(self) -> bool:
        """J. Sarrionandia, J. R. R. Tolkien; but "plan B. Then" and "27 a. C. Nació"."""
        series = len(self.before) > 1 and bool(_LETTER_AND_DOT.fullmatch(self.before[-2].lstrip(_OPENING)))
        if series and self.before[-2].lstrip(_OPENING)[0].islower():
            return self._goes_on_after_abbreviation()
        if len(self.before) > 1 and _ORDINAL_SIGN.fullmatch(self.before[-2]):
            return self.goes_on  # "na sala 2.º B. Trae a acta"
        if self.token.islower():
            return self.goes_on or (self.cased and (self.behind[:1].isdigit() or self._is_roman(self.next)))
        return self.goes_on or (not self._opens_sentence() and (self.cased or series))

    def _is_ordinal(self) -> bool:
        """Basque writes ordinals with a dot: 2000. urtean, III. mendea, II. Mundu Gerra, 72. Zinemaldia."""
        number = self.token.rsplit("-", 1)[-1].replace(".", "")
        roman = self._is_roman(number)
        if not number.isdigit() and not roman:
            return False
        if self.behind.lstrip(_OPENING).lower().startswith(self.pack.ordinal_followers or ("\0",)):
            return True
        listed = len(self.before) > 1 and self.before[-2][-1] in ":=+-*/×"  # "Adina: 25. Lana: irakaslea."
        word = self.next[:1].isalpha()
        return word and (self.goes_on or not (listed or (not roman and len(number) > 4) or self._opens_sentence()))

    def _opens_sentence(self) -> bool:
        """Is the next word one that, with a capital, can only open a sentence: "Then", "Luego"?"""
        return self.next.lower() in self.pack.function_words

    @staticmethod
    def _is_roman(word: str) -> bool:
        return bool(_ROMAN.fullmatch(word))


def _first_word(text: str) -> str:
    found = re.search(r"\w+", text)
    return found.group() if found else ""
