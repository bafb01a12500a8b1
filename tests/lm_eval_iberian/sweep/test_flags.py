"""Collapsed answers are found, and prose in our languages is not taken for collapsed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian.sweep import flags

ROOT = Path(__file__).resolve().parents[3]


def test_prose_does_not_loop() -> None:
    """Every passage and every sentence in the embedded samples."""
    texts = [text for file in (ROOT / "tasks").glob("*/samples/**/*.jsonl") for line in file.read_text().splitlines()
             for text in json.loads(line).values() if isinstance(text, str)]  # fmt: skip
    assert len(texts) > 500
    assert not [text for text in texts if flags.is_looping(text)]


def test_real_answers_do_not_loop_often(shared: Path) -> None:
    """Answers of real models: a few loop indeed."""
    rows = [json.loads(line) for file in (shared / "data/ifeval/verdicts").glob("*.jsonl") for line in file.open()]
    answers = [row["response"] for row in rows if isinstance(row.get("response"), str)]
    assert len(answers) > 50
    assert sum(map(flags.is_looping, answers)) / len(answers) < 0.1


@pytest.mark.parametrize("text", ["bai " * 100, "Euskal Herria da, " * 30, "\n" * 300, "a" * 200])
def test_loops_are_found(text: str) -> None:
    assert flags.is_looping(text)


def test_shares_decide() -> None:
    assert flags.of_texts(["bai " * 100, "ez"]) == ["50% of the answers loop"]


def test_what_the_model_counted_is_said() -> None:
    assert flags.of_counts({}) == []
    assert flags.of_counts({"cut_prompts": 2, "empty": 1, "documents": 7}) == [
        "prompts cut to the model's window: 2 of 7",
        "empty answers: 1 of 7",
    ]


def test_one_choice_for_all_is_said() -> None:
    assert flags.of_choices([[-1.0, -2.0]] * 50) == ["one choice is taken for 100% of the documents"]
    assert flags.of_choices([[-1.0, -2.0]] * 10) == []
    assert flags.of_choices([[-1.0, -2.0], [-2.0, -1.0]] * 25) == []


def choice_samples(scores: list[list[float]], targets: list[Any], ending: str | None = None) -> list[dict[str, Any]]:
    """lm_eval's samples of two choices, "bai" and "ez"; `ending`: the choices stand before it."""
    texts = [("Galdera", " bai"), ("Galdera", " ez")] if ending is None else [("bai", ending), ("ez", ending)]
    return [{"resps": [[(value, False)] for value in row], "arguments": texts, "target": target}
            for row, target in zip(scores, targets, strict=True)]  # fmt: skip


FIRST, SECOND = [-1.0, -2.0], [-2.0, -1.0]
ALWAYS_FIRST = "one choice is taken for 100% of the documents"


@pytest.mark.parametrize(
    ("scores", "targets", "said"),
    [
        ([FIRST] * 99 + [SECOND], [0] * 100, []),  # minimal pairs: the first is always the right one
        ([FIRST] * 100, ["bai"] * 95 + [" ez"] * 5, []),  # choices as texts; nearly always the first
        ([FIRST] * 100, [[0, 1]] * 95 + [[1]] * 5, []),  # several right ones
        ([FIRST] * 100, [0, 1] * 50, [f"{ALWAYS_FIRST}, and right for 50%"]),
        ([FIRST] * 100, ["bai", "ez"] * 50, [f"{ALWAYS_FIRST}, and right for 50%"]),
        ([FIRST] * 100, [0] * 80 + [1] * 20, [f"{ALWAYS_FIRST}, and right for 80%"]),
        ([SECOND] * 100, [0] * 100, [f"{ALWAYS_FIRST}, and right for 0%"]),
        ([FIRST] * 100, ["who knows"] * 100, [ALWAYS_FIRST]),
    ],
)
def test_one_choice_is_held_against_the_right_answers(scores: list[Any], targets: list[Any], said: list[str]) -> None:
    assert flags.of_samples(choice_samples(scores, targets)) == said


def test_an_ending_after_the_choices_is_no_right_answer() -> None:
    """Winogrande's targets: the first of two equal endings must not count as the first choice."""
    assert flags.of_samples(choice_samples([FIRST] * 100, ["da."] * 100, " da.")) == [ALWAYS_FIRST]


def test_numbers_that_are_none_are_said() -> None:
    assert flags.of_choices([[float("nan"), 0.0], [1.0, 2.0]]) == [
        "1 of 2 documents have log-likelihoods that are not numbers"
    ]
