"""Basque: an instruction type of its own, dates as Basque writes them: 2024ko urriaren 5a.

The form is that of Euskaltzaindia's rule 37, "Data nola adierazi": the year with -ko or -eko, as its last number word
ends in a vowel or a consonant; the month in the genitive; the day with its case ending. "2024ko urriak 5" is right in
titles and appositions only, and has no case ending: it is not the form that is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import regex

from ifeval_multi.instructions import NUMBER, RELATION, InstructionType
from ifeval_multi.own_types import Example, OwnType
from ifeval_multi.pack import Pack
from ifeval_multi.relations import compare
from ifeval_multi.text import fold
from ifeval_multi.verdict import Verdict

_MONTHS = [
    "urtarril",
    "otsail",
    "martxo",
    "apiril",
    "maiatz",
    "ekain",
    "uztail",
    "abuztu",
    "irail",
    "urri",
    "azaro",
    "abendu",
]
_DATE = regex.compile(
    rf"(?<![\p{{L}}\p{{N}}])(\d{{3,4}})(e?ko) (?:{'|'.join(_MONTHS)})aren (\d{{1,2}})(\p{{L}}*)(?!\p{{N}})"
)
# The days that end in a consonant (bat, bost, hamar, hamabost, hogeita hamar ...) take -ean, -etik; the others -an, -tik.
_CONSONANT = frozenset({1, 5, 10, 15, 21, 25, 30})
# Hamaika (11, 31) ends in its own -a and takes no other: 11, 11n, 11ko; "11a" and "11an" are wrong.
_OWN_A = frozenset({11, 31})
_AFTER_CONSONANT = frozenset(
    ("a", "ak", "ari", "aren", "arekin", "az", "ean", "eko", "ekoa", "ekoak", "etik", "era", "erako", "eraino")
)
_AFTER_VOWEL = frozenset(
    ("a", "ak", "ari", "aren", "arekin", "az", "an", "ko", "koa", "koak", "tik", "ra", "rako", "raino")
)
_AFTER_OWN_A = frozenset(("", "k", "ri", "ren", "rekin", "z", "n", "ko", "koa", "koak", "tik", "ra", "rako", "raino"))


def basque_date(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """As many dates in Basque's own form as asked (at least, unless a relation is given).

    A date with the wrong ending ("2024eko urriaren 5a", "2015ko") is none, and neither is 2024/10/05.
    """
    found = [match for match in _DATE.finditer(fold(response)) if _is_right(*match.groups())]
    return compare(len(found), arguments, "num_dates", "relation", "dates in the Basque form")


def _is_right(year: str, ending: str, day: str, case: str) -> bool:
    number = int(day)
    return ending == _year_ending(int(year)) and 1 <= number <= 31 and case in _day_endings(number)


def _day_endings(day: int) -> frozenset[str]:
    if day in _OWN_A:
        return _AFTER_OWN_A
    return _AFTER_CONSONANT if day in _CONSONANT else _AFTER_VOWEL


def _year_ending(year: int) -> str:
    """-eko after a consonant: bat, bost, hamar, ehun; -ko after a vowel: bi, hamaika, hogei, mila."""
    last = year % 100
    if last == 0:
        return "ko" if year % 1000 == 0 else "eko"
    in_twenty = last % 20
    return "eko" if in_twenty in (1, 5, 10, 15) else "ko"


_ONE = {"num_dates": 1}
TYPES = (
    OwnType(
        InstructionType("detectable_format:basque_date", {"num_dates": NUMBER}, {"relation": RELATION}),
        basque_date,
        (
            Example("Bilera 2024ko urriaren 5ean izango da.", True, _ONE),
            Example("Donostian, 2015eko martxoaren 3an", True, _ONE),
            Example("1937ko apirilaren 26an bonbardatu zuten Gernika.", True, _ONE),
            Example("1918ko azaroaren 11n amaitu zen Lehen Mundu Gerra.", True, _ONE),
            Example("1918ko azaroaren 11an amaitu zen Lehen Mundu Gerra.", False, _ONE),
            Example("Iruñea, 2023ko abenduaren 31", True, _ONE),
            Example("Iruñea, 2023ko abenduaren 31a", False, _ONE),
            Example("Gutuna 2026ko azaroaren 28koa da.", True, _ONE),
            Example("2021eko maiatzaren 25era arte egongo da zabalik.", True, _ONE),
            Example("2024ko urriaren 5 izan zen.", False, _ONE),
            Example("1990eko urtarrilaren 1etik 2000ko abenduaren 31raino.", True, {"num_dates": 2}),
            Example("2024eko urriaren 5ean", False, _ONE),
            Example("2015ko martxoaren 3an", False, _ONE),
            Example("2024ko urriaren 5an", False, _ONE),
            Example("2024ko urriak 5", False, _ONE),
            Example("2024/10/05ean izango da.", False, _ONE),
            Example("5 de octubre de 2024", False, _ONE),
            Example("2024ko urriaren 32an", False, _ONE),
        ),
    ),
)
