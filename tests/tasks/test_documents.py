"""Which rows are scored, and what is made of them, where a task's own code decides: rows made for the purpose."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset

from tests.tasks.common import build


def processed(task: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return build(task).config.process_docs(Dataset.from_list(rows)).to_list()


@pytest.mark.parametrize("task", ["iberian_eus_exams_eu_ejteknikari", "iberian_eus_exams_es_ejtecnico"])
def test_exam_questions_need_an_answer_and_options(task: str) -> None:
    full, empty = ["a", "b", "c", "d"], [""] * 4
    rows = [{"id": number, "answer": answer, "candidates": options} for number, (answer, options) in enumerate(
        [(0, full), (1, full), (2, full), (3, ["", "", "", "d"]), (4, full), (-1, full), (None, full), (0, empty)]
    )]  # fmt: skip
    assert [row["id"] for row in processed(task, rows)] == [0, 1, 2, 3]


@pytest.mark.parametrize("language", ["eu", "en"])
def test_bertaqas_halves(language: str) -> None:
    rows = [{"id": 0, "group": "Gai orokorrak"}, {"id": 1, "group": "Euskal gaiak"}]
    for half, kept in (("global", [0]), ("local", [1])):
        assert [row["id"] for row in processed(f"iberian_bertaqa_{language}_{half}", rows)] == kept


def test_paraphrases_are_joined_into_one_sentence() -> None:
    made = processed("iberian_parafrases_gl", [
        {"Frase": first, "Paráfrase": second, "Avaliación": 0}
        for first, second in [("Chove .", "Está a chover ."), ("Chove;", "Orballa"), ("Chove,", "Ó"), ("Chove?", "Non"),
                              ("Chove.", " "), ("", "Orballa"), ("Chove.", None)]
    ])  # fmt: skip
    assert [(row["Frase"], row["Paráfrase"]) for row in made] == [
        ("Chove", "está a chover."), ("Chove", "orballa"), ("Chove", "ó"), ("Chove?", "non"),
    ]  # fmt: skip


def test_grades_of_paraphrases() -> None:
    """0 is no; 1 and 2 are yes."""
    task = build("iberian_parafrases_gl")
    row = {"Frase": "Chove", "Paráfrase": "orballa"}
    assert [task.doc_to_target({**row, "Avaliación": grade}) for grade in (0, 1, 2)] == [0, 1, 1]
    assert task.doc_to_choice(row) == ["Chove, verdadeiro? Non, orballa", "Chove, verdadeiro? Si, orballa"]
