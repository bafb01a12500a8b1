"""The documents of the toy tasks, in the columns of the real ones: made when they are read, the same every time.

`test` is made from the held-out part of the toy world, `train` (for shots) from the part that the models have read.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from lm_eval_iberian.toy import instructions, texts
from lm_eval_iberian.toy.grammar import mistakes, say
from lm_eval_iberian.toy.world import sentence

Row = dict[str, Any]
ORIGIN = "toy grammar, held-out part"
TRAIN_ROWS = 16
# Documents a task: enough that two standard errors are below ten points.
TEST_ROWS = {"pairs": 200, "story": 150, "exam": 150, "mt": 40, "ifeval": 60}


def documents(kind: str, language: str) -> dict[str, list[Row]]:
    """The splits of a toy task.

    Args:
        kind: a key of TEST_ROWS.
        language: its code; for "mt" a direction, e.g. "es-eu".
    """
    return {
        "train": _rows(kind, language, TRAIN_ROWS, held_out=False),
        "test": _rows(kind, language, TEST_ROWS[kind], held_out=True),
    }


def _rows(kind: str, language: str, count: int, held_out: bool) -> list[Row]:
    """So many rows, none twice."""
    draw = random.Random(f"{kind} {language} {held_out}")
    rows: dict[str, Row] = {}
    while len(rows) < count:
        row = _MAKERS[kind](draw, language, held_out)
        rows.setdefault(repr(sorted(row.items())), row)
    return [{**row, "id": number} for number, row in enumerate(rows.values())]


def _pair(draw: random.Random, language: str, held_out: bool) -> Row:
    """As MultiBLiMP: a sentence, and the same with one mistake; every kind of mistake as often as any other."""
    while True:
        made = sentence(draw, held_out)
        if possible := mistakes(made, language):
            break
    mistake = draw.choice(possible)
    return {"sen": say(made, language), "wrong_sen": say(made, language, mistake), "phenomenon": mistake}


def _story(draw: random.Random, language: str, held_out: bool) -> Row:
    """As XStoryCloze."""
    told = texts.story(draw, held_out)
    row: Row = {f"input_sentence_{n}": say(part, language) for n, part in enumerate(told.told, start=1)}
    right = draw.choice((1, 2))
    endings = (told.right, told.wrong) if right == 1 else (told.wrong, told.right)
    row |= {f"sentence_quiz{n}": say(ending, language) for n, ending in enumerate(endings, start=1)}
    return row | {"answer_right_ending": right}


def _exam(draw: random.Random, language: str, held_out: bool) -> Row:
    """As EusTrivia, except that the prompt is one whole text."""
    asked = texts.question(draw, held_out)
    return {"prompt": texts.question_text(asked, language), "answer": asked.answer}


def _translation(draw: random.Random, direction: str, held_out: bool) -> Row:
    """As FLORES; the same sentences in every direction."""
    source, target = direction.split("-")
    made = sentence(draw, held_out)
    text = say(made, source)
    return {"prompt": texts.translation_prompt(text, source, target), "translation": say(made, target)}


def _instruction(draw: random.Random, language: str, held_out: bool) -> Row:
    """As IFEval; `row` is what ifeval_multi reads."""
    made = instructions.row(instructions.instruction(draw, held_out), language, 0)
    return {"prompt": made["prompt"], "row": made}


_MAKERS: dict[str, Callable[[random.Random, str, bool], Row]] = {
    "pairs": _pair, "story": _story, "exam": _exam, "mt": _translation, "ifeval": _instruction,
}  # fmt: skip
