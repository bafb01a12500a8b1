"""The held-out types: every row is judged as it says, by hand and not by the code."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ifeval_multi import check, evaluate_response, load_pack
from ifeval_multi.held_out import HELD_OUT
from ifeval_multi.instructions import (
    HELD_OUT_TYPES,
    IFEVAL_TYPES,
    INSTRUCTIONS,
    NUMBER,
    NUMBERS,
    RELATION,
    SPANISH_ONLY,
    TEXT,
    TEXTS,
)

AT_LEAST, LESS = {"relation": "at least"}, {"relation": "less than"}
VERSE = {"text": "Mar e vento"}
FOUR = {"text": "Gaur egun ederra dugu hemen"}
CSV = {"columns": ["nome", "prezo"], "num_rows": 2}
TABLE = "| a | b |\n|---|:-:|\n| 1 | 2 |\n| 3 | 4 |"
# type -> (language, arguments, answer, followed)
ROWS: dict[str, list[tuple[str, dict[str, Any], str, bool]]] = {
    "count:emoji": [
        ("es", {"num_emoji": 2}, "Hola 👋🏽 y adiós 👨‍👩‍👧‍👦.", True),
        ("es", {"num_emoji": 2}, "Hola 👋.", False),
        ("es", {"num_emoji": 2}, "🇪🇸 y ❤️", True),
        ("es", {"num_emoji": 1}, "Marca® 2025© #1", False),
        ("es", {"num_emoji": 2, **AT_LEAST}, "😀😀😀", True),
        ("es", {"num_emoji": 1}, "Primero 1️⃣.", True),
    ],
    "count:keywords": [
        ("gl", {"keywords": ["mar", "ceo"], "frequencies": [2, 1]}, "O mar, o mar e o ceo.", True),
        ("gl", {"keywords": ["mar", "ceo"], "frequencies": [2, 1]}, "O mar e o ceo.", False),
        ("gl", {"keywords": ["mar", "ceo"], "frequencies": [1, 1]}, "O mar, os mares e o Ceo.", True),
        ("gl", {"keywords": ["mar", "ceo"], "frequencies": [1, 2]}, "O mar e o ceo.", False),
    ],
    "count:marks": [
        ("ca", {"marks": [";", "?", "…"]}, "Qui? Ell; o no…", True),
        ("ca", {"marks": [";", "?", "…"]}, "Qui? Ell, o no…", False),
        ("ca", {"marks": [":"]}, "Qui ve", False),
        ("ca", {"marks": [":", "…"]}, "Ve: ell...", True),
    ],
    "count:numbers": [
        ("eu", {"num_numbers": 2}, "1936an hasi eta 3,5 urte iraun zuen.", True),
        ("es", {"num_numbers": 2}, "Empezó en 1936 y duró 3,5 años.", True),
        ("es", {"num_numbers": 2}, "1. Compra 3 kilos.\n2. Paga 12,50 euros.", True),
        ("es", {"num_numbers": 1}, "Son las 10:30.", True),
        ("es", {"num_numbers": 1}, "Tres kilos.", False),
        ("es", {"num_numbers": 1}, "Un coche de F1 y CO2.", False),
        ("es", {"num_numbers": 2, **LESS}, "Hay 7 días.", True),
    ],
    "count:unique_words": [
        ("ca", {"num_words": 3, **AT_LEAST}, "Pluja, pluja i vent.", True),
        ("ca", {"num_words": 4, **AT_LEAST}, "Pluja, PLUJA i vent.", False),
        ("ca", {"num_words": 3, **LESS}, "Pluja i pluja.", True),
        ("ca", {"num_words": 2, **LESS}, "Pluja i pluja.", False),
    ],
    "count:word_range": [
        ("eu", {"min_words": 2, "max_words": 3}, "Bat bi.", True),
        ("eu", {"min_words": 2, "max_words": 3}, "Bat bi hiru.", True),
        ("eu", {"min_words": 2, "max_words": 3}, "Bat.", False),
        ("eu", {"min_words": 2, "max_words": 3}, "Bat bi hiru lau.", False),
    ],
    "ratio:long_words": [
        ("es", {"num_letters": 6, "percent": 50}, "Caminos largos al mar.", True),
        ("es", {"num_letters": 6, "percent": 51}, "Caminos largos al mar.", False),
        ("es", {"num_letters": 7, "percent": 50, **LESS}, "Caminos largos al mar.", True),
        ("es", {"num_letters": 6, "percent": 50, **LESS}, "Caminos largos al mar.", False),
    ],
    "ratio:questions": [
        ("eu", {"percent": 50}, "Nor zara? Ni naiz. Zer nahi duzu?", True),
        ("eu", {"percent": 67}, "Nor zara? Ni naiz. Zer nahi duzu?", False),
        ("eu", {"percent": 66}, "Nor zara? Ni naiz. «Zer nahi duzu?»", True),
        ("eu", {"percent": 50}, "Ni naiz. Hor dago.", False),
        ("eu", {"percent": 100}, "Nor zara?! Zer nahi duzu?", True),
        ("eu", {"percent": 66, "relation": "exactly"}, "Nor zara? Ni naiz. Zer nahi duzu?", False),
        ("eu", {"percent": 50, "relation": "exactly"}, "Nor zara? Ni naiz.", True),
    ],
    "ratio:unique_words": [
        ("gl", {"percent": 75}, "O mar e o ceo", True),
        ("gl", {"percent": 80}, "O mar e O ceo", True),
        ("gl", {"percent": 81}, "O mar e o ceo", False),
        ("gl", {"percent": 100}, "O mar e a serra", True),
    ],
    "words:acrostic": [
        ("ca", {"text": "MEL"}, "Ara no: **Més** tard", False),
        ("ca", {"text": "MEL"}, "**Mireu** el camp.\n\nÈs obert.\n- La tarda cau.", True),
        ("ca", {"text": "MEL"}, "Mireu.\nLa tarda.\nÈs obert.", False),
        ("ca", {"text": "MEL"}, "Mireu.\nÈs obert.\nLa tarda.\nAdeu.", False),
        ("es", {"text": "ÑU"}, "Nada.\nUna.", False),
        ("es", {"text": "sí"}, "Sol.\nIsla.", True),
    ],
    "words:last_first": [
        ("gl", {}, "Vexo o mar. Mar que canta.", True),
        ("gl", {}, "Vexo o mar. O mar canta.", False),
        ("gl", {}, "Vexo o mar.", False),
        ("gl", {}, "Vexo o «mar»! Mar que canta. Canta a noite.", True),
    ],
    "words:max_repeats": [
        ("es", {"max_times": 1}, "El perro mira la luna.", True),
        ("es", {"max_times": 1}, "El perro mira el suelo.", False),
        ("es", {"max_times": 2}, "El perro, EL gato, la luna.", True),
        ("es", {"max_times": 2}, "El perro, el gato y el pez.", False),
    ],
    "words:no_same_neighbours": [
        ("eu", {}, "Etxea handia da.", True),
        ("eu", {}, "Hau handia da.", False),
        ("es", {}, "Una ágil abeja.", False),
        ("es", {}, "Nadie ñoño niega.", True),
    ],
    "words:order": [
        ("ca", {"keywords": ["sol", "pluja", "neu"]}, "Primer sol, després pluja i neu; sol un altre cop.", True),
        ("ca", {"keywords": ["sol", "pluja", "neu"]}, "Primer pluja, després sol i neu.", False),
        ("ca", {"keywords": ["sol", "neu"]}, "Només sol.", False),
        ("ca", {"keywords": ["sol", "neu"]}, "El solet i la NEU i el sol.", False),
    ],
    "words:palindromes": [
        ("es", {"num_words": 2, "num_letters": 4}, "Ana ve el radar y reconocer cuesta.", True),
        ("es", {"num_words": 2, "num_letters": 6}, "El radar y reconocer.", False),
        ("es", {"num_words": 2, "num_letters": 3}, "Ana y ANA.", False),
        ("es", {"num_words": 1, "num_letters": 5}, "Sometemos.", True),
        ("es", {"num_words": 1, "num_letters": 4}, "En 2002.", False),
    ],
    "words:paragraph_last_first": [
        ("eu", {"num_paragraphs": 2}, "Itsasoa urdina da, itsasoa.\n\nZerua ere bai, zerua!", True),
        ("eu", {"num_paragraphs": 2}, "Itsasoa urdina da.\n\nZerua ere bai, zerua!", False),
        ("eu", {"num_paragraphs": 2}, "Itsasoa urdina da, itsasoa.", False),
        ("eu", {"num_paragraphs": 1}, "**Itsasoa** da Itsasoa.", True),
    ],
    "words:position": [
        ("gl", {"keyword": "mar", "nth_word": 2, "nth_from_end": 2}, "O mar canta. Canta o mar hoxe.", True),
        ("gl", {"keyword": "mar", "nth_word": 2, "nth_from_end": 2}, "O mar canta.", True),
        ("gl", {"keyword": "mar", "nth_word": 2, "nth_from_end": 2}, "O mar canta hoxe.", False),
        ("gl", {"keyword": "mar", "nth_word": 2}, "O MAR canta hoxe.", True),
        ("gl", {"keyword": "mar", "nth_from_end": 1}, "Canta o mar", True),
        ("gl", {"keyword": "mar", "nth_word": 9}, "Canta o mar", False),
    ],
    "words:same_initial": [
        ("es", {"letter": "a"}, "Ana adora ágiles abejas.", True),
        ("es", {"letter": "a"}, "Ana adora las abejas.", False),
        ("es", {"letter": "N"}, "Nadie nota ñandúes.", False),
        ("es", {"letter": "a"}, "…", False),
    ],
    "sentence:emoji_end": [
        ("ca", {}, "Hola! 👋 Com va? 😀", True),
        ("ca", {}, "Hola 👋! Com va 😀?", True),
        ("ca", {}, "Hola! 👋 Com va?", False),
        ("ca", {}, "Hola 👋\nCom va.", False),
        ("ca", {}, "Hola. Com va? 😀", False),
        ("ca", {}, "**Hola!** ❤️", True),
    ],
    "sentence:increment": [
        ("es", {"num_sentences": 3, "num_words": 1}, "Ven. Ven aquí. Ven aquí ya.", True),
        ("es", {"num_sentences": 3, "num_words": 1}, "Ven. Ven aquí. Ven aquí ahora mismo.", False),
        ("es", {"num_sentences": 2, "num_words": 2}, "Ven. Ven aquí ya.", True),
        ("es", {"num_sentences": 3, "num_words": 1}, "Ven. Ven aquí.", False),
    ],
    "sentence:keyword": [
        ("eu", {"keyword": "euria", "nth_sentence": 2}, "Kaixo. Gaur euria dator.", True),
        ("eu", {"keyword": "euria", "nth_sentence": 1}, "Kaixo. Gaur euria dator.", False),
        ("eu", {"keyword": "euria", "nth_sentence": 3}, "Kaixo. Gaur euria dator.", False),
        ("eu", {"keyword": "euri", "nth_sentence": 2}, "Kaixo. Gaur euria dator.", False),
    ],
    "sentence:max_words": [
        ("gl", {"num_words": 3}, "O mar canta. A serra cala.", True),
        ("gl", {"num_words": 3}, "O mar canta. A serra cala hoxe.", False),
        ("gl", {"num_words": 3}, "…", False),
        ("gl", {"num_words": 4}, "A serra cala hoxe.", True),
    ],
    "sentence:word_position": [
        ("ca", {"keyword": "vent", "nth_sentence": 2, "nth_word": 1}, "Plou. Vent fort.", True),
        ("ca", {"keyword": "vent", "nth_sentence": 2, "nth_word": 2}, "Plou. Vent fort.", False),
        ("ca", {"keyword": "vent", "nth_sentence": 1, "nth_word": 1}, "Plou. Vent fort.", False),
        ("ca", {"keyword": "vent", "nth_sentence": 2, "nth_word": 7}, "Plou. Vent fort.", False),
    ],
    "copy:exactly": [
        ("gl", VERSE, "Mar e vento", True),
        ("gl", VERSE, "  «Mar  e\nvento»  ", True),
        ("gl", VERSE, "Mar e vento.", False),
        ("gl", VERSE, "mar e vento", False),
        ("gl", VERSE, "Aquí está: Mar e vento", False),
    ],
    "copy:times": [
        ("gl", {**VERSE, "num_times": 2}, "Mar e vento\nMar e vento", True),
        ("gl", {**VERSE, "num_times": 2}, "- Mar e vento\n\n- Mar e vento\n", True),
        ("gl", {**VERSE, "num_times": 2}, "Mar e vento Mar e vento", False),
        ("gl", {**VERSE, "num_times": 2}, "Mar e vento\nMar e vento\nMar e vento", False),
        ("gl", {**VERSE, "num_times": 1}, "Velaquí:\nMar e vento", False),
    ],
    "copy:reversed_words": [
        ("eu", FOUR, "hemen dugu ederra egun gaur", True),
        ("eu", FOUR, "Hemen, dugu ederra egun Gaur.", True),
        ("eu", FOUR, "Gaur egun ederra dugu hemen", False),
        ("eu", FOUR, "hemen dugu ederra egun", False),
    ],
    "copy:span": [
        ("eu", {**FOUR, "first_word": 2, "last_word": 4}, "egun ederra dugu", True),
        ("eu", {**FOUR, "first_word": 2, "last_word": 4}, "«Egun ederra dugu»", True),
        ("eu", {**FOUR, "first_word": 2, "last_word": 4}, "Gaur egun ederra dugu", False),
        ("eu", {**FOUR, "first_word": 2, "last_word": 4}, "egun ederra", False),
    ],
    "format:brackets": [
        ("es", {"depth": 3}, "Ven (si puedes [y quieres {hoy}])", True),
        ("es", {"depth": 3}, "Ven (si puedes) [y quieres] {hoy}", False),
        ("es", {"depth": 2}, "a) Ven (si puedes (hoy))", True),
        ("es", {"depth": 2}, "Ven (si puedes [hoy)", False),
    ],
    "format:csv": [
        ("gl", CSV, "nome,prezo\npan,1\nviño,5", True),
        ("gl", CSV, '```csv\nNome, Prezo\n"pan, de millo","1,20"\nviño,5\n```', True),
        ("gl", CSV, "nome,prezo\npan,1", False),
        ("gl", CSV, "nome,prezo\npan,1,20\nviño,5", False),
        ("gl", CSV, "prezo,nome\n1,pan\n5,viño", False),
        ("gl", CSV, "nome;prezo\npan;1\nviño;5", False),
        ("gl", {**CSV, "delimiter": ";"}, "nome;prezo\npan;1,20\nviño;5", True),
        ("gl", CSV, "nome,prezo\npan,\nviño,5", False),
        ("gl", CSV, "Aquí o tes:\nnome,prezo\npan,1\nviño,5", False),
    ],
    "format:sorted_list": [
        ("es", {"num_bullets": 3}, "* ágata\n* árbol\n* barco", True),
        ("es", {"num_bullets": 3}, "* nube\n* ñandú\n* ojo", True),
        ("es", {"num_bullets": 3}, "* ñandú\n* nube\n* ojo", False),
        ("es", {"num_bullets": 3}, "* árbol\n* barco", False),
        ("es", {"num_bullets": 2}, "* **Barco**\n* casa", True),
        ("ca", {"num_bullets": 2}, "- col·legi\n- coma", True),
    ],
    "format:stairs": [
        ("eu", {"num_lines": 3}, "bat\n bi\n  hiru", True),
        ("eu", {"num_lines": 3}, "bat\nbi\nhiru", False),
        ("eu", {"num_lines": 3}, "bat\n bi\n   hiru", False),
        ("eu", {"num_lines": 3}, "```\nbat\n bi\n  hiru\n```", True),
        ("eu", {"num_lines": 3}, "bat\n bi", False),
    ],
    "format:table": [
        ("ca", {"num_columns": 2, "num_rows": 2}, TABLE, True),
        ("ca", {"num_columns": 2, "num_rows": 2}, f"Aquí la tens:\n\n{TABLE}\n", True),
        ("ca", {"num_columns": 2, "num_rows": 3}, TABLE, False),
        ("ca", {"num_columns": 3, "num_rows": 2}, TABLE, False),
        ("ca", {"num_columns": 2, "num_rows": 1}, "Festa | Mes\n---|---\nDiada | set\\|embre", True),
        ("ca", {"num_columns": 2, "num_rows": 2}, TABLE.replace("|---|:-:|\n", ""), False),
        ("ca", {"num_columns": 2, "num_rows": 2}, f"{TABLE}\n\n{TABLE}", False),
    ],
    "format:template": [
        ("es", {"labels": ["Autor:", "Precio:"]}, "Autor: Ana\nPrecio: 3 €", True),
        ("es", {"labels": ["Autor:", "Precio:"]}, "**Autor:** Ana\n**Precio:**\n3 €", True),
        ("es", {"labels": ["Autor:", "Precio:"]}, "Precio: 3 €\nAutor: Ana", False),
        ("es", {"labels": ["Autor:", "Precio:"]}, "Autor: Ana\nPrecio:", False),
        ("es", {"labels": ["Autor:", "Precio:"]}, "Autor: Ana", False),
        ("es", {"labels": ["Autor:", "Precio:"]}, "Autor: Ana\nAutor: Eva\nPrecio: 3 €", False),
    ],
    "format:word_lines": [
        ("gl", {"num_lines": 3}, "o\nmar\ncanta", True),
        ("gl", {"num_lines": 3}, "1. o\n2. mar\n3. canta", True),
        ("gl", {"num_lines": 3}, "o mar\ncanta", False),
        ("gl", {"num_lines": 3}, "o\nmar", False),
    ],
}  # fmt: skip
EVERY = [(name, *row) for name, rows in ROWS.items() for row in rows]


@pytest.mark.parametrize("row", EVERY, ids=lambda row: f"{row[0]}-{row[3][:25]!r}")
def test_row(row: tuple[str, str, dict[str, Any], str, bool]) -> None:
    name, language, arguments, answer, followed = row
    for edition in ("corrected", "original"):  # nobody has published them
        verdict = check(name, answer, arguments, load_pack(language), edition)
        assert verdict.followed == followed and verdict.reason, verdict.reason


def test_every_type_has_rows_of_both_kinds() -> None:
    assert set(ROWS) == set(HELD_OUT) == set(HELD_OUT_TYPES) and len(HELD_OUT) >= 20
    for name, rows in ROWS.items():
        assert min(Counter(row[3] for row in rows).get(kind, 0) for kind in (True, False)) >= 1, name
        assert len(rows) >= 4, name


def test_they_are_none_of_ifevals() -> None:
    assert not set(HELD_OUT_TYPES) & {*IFEVAL_TYPES, *SPANISH_ONLY}
    assert len(IFEVAL_TYPES) == 25 and len(SPANISH_ONLY) == 5


def test_an_empty_answer_follows_nothing() -> None:
    for name in HELD_OUT_TYPES:
        values = {NUMBER: 0, NUMBERS: [0], TEXTS: ["a"], TEXT: "a", RELATION: "at least"}
        given = {key: values[kind] for key, kind in INSTRUCTIONS[name].needed.items()}
        assert not check(name, " \n", given, load_pack("es")).followed


def test_loose_forgives_a_first_line() -> None:
    row = {"key": 1, "prompt": "p", "instruction_id_list": ["copy:exactly"], "kwargs": [{"text": "Mar e vento"}]}
    found = evaluate_response(row, "Aquí o tes:\nMar e vento", "gl")
    assert (found["strict"], found["loose"]) == ([False], [True])
