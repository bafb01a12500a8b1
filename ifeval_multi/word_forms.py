"""Which forms of a word are that word? Plurals by rule, Basque cases by the stem's last letter, function words as is.

A form is a stem with the tails that may follow it inside a word: "luz" is "lu" + z | ces, Basque "etxe" is "etxe" +
nothing | a | ak | ren | ... What a language does is written in its pack, under `keywords`:

    function_words            have no plural: "o" is not "os", "it" is not "its"
    plurals                   {final: [its plurals]}; the longest final that fits decides ("luz": z -> ces)
    irregular                 {word: [its other forms]}: {foot: [feet]}
    endings                   what may follow any word; forbidden_endings: the same for words that are forbidden
    endings_after_vowel       what may follow a word that ends in a vowel (Basque: -ra, -ren); and
    endings_after_consonant   in a consonant (Basque: -era, -en): so "ur" is not in "urra", nor "egun" in "egunon"
    doubled_final             a last letter that an ending in a vowel doubles (Basque r: "lur", "lurra"), but not in
    not_doubled               these words ("ur", "ura")
    replaced_final            a last letter whose place an ending in e- or o- takes ("neska", "neskek")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from ifeval_multi.pack import Pack
from ifeval_multi.text import fold, positions

_VOWELS = "aeiouáéíóúàèìòùäëïöüâêîôûãõy"
_GLIDES = "iu"
# Plurals of one or two letters are left out: "os" is the plural of "o" in no language here, nor "is" of "i".
_SHORTEST_WITH_PLURAL = 3
Form = tuple[str, frozenset[str]]


def count(folded: str, keyword: str, pack: Pack, forbidden: bool = False) -> int:
    """How often a keyword (one word or several) stands in a folded text, in any of its forms.

    Args:
        folded: the text, through fold().
        keyword: as in the prompt.
        pack: the language.
        forbidden: a word that must not be used: only that form, in the cases that the language has. A ban on "casa"
            says nothing of "casas"; one on Basque "arazo" is one on "arazoa".
    """
    spelled = keyword.isupper() and len(keyword) > 1
    found = forms(fold(keyword), pack, forbidden, spelled)
    return sum(sum(1 for _ in positions(folded, stem, tails)) for stem, tails in found)


@lru_cache(maxsize=512)
def forms(wanted: str, pack: Pack, forbidden: bool = False, spelled: bool = False) -> tuple[Form, ...]:
    """The stems and tails of a folded keyword; no two of them match at the same place.

    One that is spelled ("EITB") takes the endings after a vowel too: so end the names of its letters.
    """
    if not wanted:
        return ()
    if not wanted[-1].isalpha() or wanted in pack.function_words:
        return ((wanted, frozenset({""})),)
    # Where words have cases and no plurals by rule, `irregular` has cases.
    plurals = () if forbidden and pack.plurals else _plurals(wanted, pack)
    endings = pack.forbidden_endings if forbidden else pack.endings
    return tuple(_by_stem([wanted, *plurals, *_with_endings(wanted, endings, pack, spelled)]))


def _by_stem(words: list[str]) -> Iterator[Form]:
    """Groups of words that share their beginning, so that no place in a text is counted twice."""
    while words:
        shared = _shared_start(words)
        stem = shared if len(shared) * 2 >= len(words[0]) else words[0]
        yield stem, frozenset(word[len(stem) :] for word in words if word.startswith(stem))
        words = [word for word in words if not word.startswith(stem)]


def _shared_start(words: list[str]) -> str:
    first, last = min(words), max(words)
    same = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:same]


def _plurals(wanted: str, pack: Pack) -> Iterator[str]:
    before, _, word = wanted.rpartition(" ")
    start = f"{before} " if before else ""
    for form in (*pack.irregular.get(word, ()), *_regular(word, pack.plurals)):
        yield start + form
    parts = [(part, *pack.irregular.get(part, ()), *_regular(part, pack.plurals)) for part in wanted.split()]
    if before and all(len(part) > 1 for part in parts):
        yield " ".join(part[1] for part in parts)  # casa blanca: casas blancas
    head, *more = wanted.split()
    if len(more) > 1 and more[0] in pack.function_words and head not in pack.function_words:
        for form in parts[0][1:]:
            yield " ".join([form, *more])  # fin de semana: fins de semana


def _regular(word: str, plurals: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    if len(word) < _SHORTEST_WITH_PLURAL:
        return
    final = next((word[start:] for start in range(len(word) + 1) if word[start:] in plurals), None)
    for plural in plurals.get(final, ()) if final is not None else ():
        yield word[: len(word) - len(final or "")] + plural


def _with_endings(wanted: str, anywhere: frozenset[str], pack: Pack, spelled: bool) -> Iterator[str]:
    last = wanted.rpartition(" ")[2]
    if last in pack.function_words:
        return
    vowel = wanted[-1] in _VOWELS
    glide = wanted[-1] in _GLIDES and wanted[-2:-1] in ("a", "e", "o")  # gau, jai: both kinds of endings
    endings = set(anywhere)
    if vowel or spelled:
        endings |= pack.endings_after_vowel
    if not vowel or glide:
        endings |= pack.endings_after_consonant
    doubled = pack.doubled_final and wanted.endswith(pack.doubled_final) and last not in pack.not_doubled
    for ending in endings:
        joint = pack.doubled_final if doubled and ending[0] in _VOWELS else ""
        yield wanted + joint + ending
        if pack.replaced_final and wanted.endswith(pack.replaced_final) and ending[0] in "eo" and len(wanted) > 2:
            yield wanted[: -len(pack.replaced_final)] + ending
