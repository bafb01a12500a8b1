"""Catalan: an instruction type of its own, the ela geminada (l·l), which no other language writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import regex

from ifeval_multi.instructions import NUMBER, RELATION, InstructionType
from ifeval_multi.own_types import Example, OwnType
from ifeval_multi.pack import Pack
from ifeval_multi.relations import compare
from ifeval_multi.text import normalise, words
from ifeval_multi.verdict import Verdict

# Signs that stand for the raised dot in careless typing. l.l and l-l are read so inside a word only.
# "mal.Luego" lacks a space.
_WRONG = regex.compile(r"\p{L}*(?!(?-i:l\.L))l[.\-•∙⋅‧]l\p{Ll}+", regex.IGNORECASE)
_ADDRESS = regex.compile(r"\S*(?://|www\.|@)\S*")
_RIGHT = "l·l"


def ela_geminada(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """As many words with l·l as asked (at least, unless a relation is given), and none with another sign for the dot.

    The dot is U+00B7 (IEC, Ortografia catalana, 2017); the older signs ŀ and Ŀ hold it and are right too. "al.lot",
    "col-legi" and "col•legi" are misspelt; an address of the web or of mail is no word.
    """
    text = normalise(response).replace("ŀ", "l·").replace("Ŀ", "L·")
    wrong = _WRONG.search(_ADDRESS.sub(" ", text))
    if wrong:
        return Verdict(False, f"misspelt: {wrong.group()!r}; the sign is the raised dot ·")
    count = sum(1 for word in words(text.lower(), pack) if _RIGHT in word)
    return compare(count, arguments, "num_words", "relation", "words with l·l")


_TWO = {"num_words": 2}
TYPES = (
    OwnType(
        InstructionType("special_character:ela_geminada", {"num_words": NUMBER}, {"relation": RELATION}),
        ela_geminada,
        (
            Example("El col·legi fa una pel·lícula.", True, _TWO),
            Example("EL COL·LEGI FA UNA PEL·LÍCULA.", True, _TWO),
            Example("El coŀlegi i la noveŀla.", True, _TWO),
            Example("El col·legi és gran.", False, _TWO),
            Example("El col·legi i la pel.lícula i la novel·la.", False, _TWO),
            Example("És igual.La cel·la i la novel·la.", True, _TWO),
            Example("LA CEL·LA, LA NOVEL·LA I EL COL.LEGI.", False, _TWO),
            Example("El col·legi fa una pel·lícula: www.hotel.lleida.cat", True, _TWO),
            Example("Fa calor. La calor no para.", False, _TWO),
            Example("La cel·la.", True, {"num_words": 2, "relation": "less than"}),
        ),
    ),
)
