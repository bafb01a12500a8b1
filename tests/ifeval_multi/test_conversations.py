"""Conversations: what is in force in each turn, and what its answer is held against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ifeval_multi import PackError, conversations, lint, load_pack

LANGUAGES = ("eu", "gl", "ca", "es")
WORDS, COMMA, QUOTES = "length_constraints:number_words", "punctuation:no_comma", "startend:quotation"


def turn(prompt: str, *asked: tuple[str, dict[str, Any]], lifts: list[str] | None = None) -> dict[str, Any]:
    names, kwargs = [name for name, _ in asked], [given for _, given in asked]
    return {"prompt": prompt, "instruction_id_list": names, "kwargs": kwargs, **({"lifts": lifts} if lifts else {})}


ROW = {
    "key": 5,
    "turns": [
        turn("Sin comas.", (COMMA, {}), (WORDS, {"num_words": 3, "relation": "at least"})),
        turn("Entre comillas.", (QUOTES, {})),
        turn("Ya puedes usar comas.", lifts=[COMMA]),
    ],
}


def conversation(row: dict[str, Any] = ROW) -> conversations.Conversation:
    return conversations.from_row(row, "c.jsonl, line 1", load_pack("es"))


def test_what_is_in_force() -> None:
    found = [[one.id for one in turn.document.instructions] for turn in conversation().turns]
    assert found == [[COMMA, WORDS], [COMMA, WORDS, QUOTES], [WORDS, QUOTES]]
    assert [turn.earlier for turn in conversation().turns] == [0, 2, 2]
    assert conversation().turns[1].document.prompt == "Sin comas.\nEntre comillas."


def test_each_turn_is_held_against_what_holds() -> None:
    """The second answer forgets "no commas"; the third may use them, and forgets the quotation marks."""
    found = conversations.evaluate(conversation(), ["uno dos tres", "«uno, dos tres»", "uno, dos, tres"], "es")
    assert found["turn1_inst_level_strict_acc"] == [True, True]
    assert found["turn2_inst_level_strict_acc"] == [False, True, True]
    assert found["turn3_inst_level_strict_acc"] == [True, False]
    assert found["turn2_prompt_level_strict_acc"] == [False]
    assert found["inst_level_strict_acc"] == [True, True, False, True, True, True, False]
    assert found["prompt_level_strict_acc"] == [True, False, False]
    assert found["earlier_inst_level_strict_acc"] == [False, True, True, False]
    assert found["conversation_level_strict_acc"] == 0.0 and found["unfinished_answers"] == 0.0
    good = conversations.evaluate(conversation(), ["uno dos tres", "«uno dos tres»", "«uno, dos, tres»"], "es")
    assert good["conversation_level_strict_acc"] == 1.0
    assert set(found) <= set(conversations.metric_names(3))


def test_loose_and_unfinished() -> None:
    found = conversations.evaluate(conversation(), ["Vale, aquí:\nuno dos tres", "<think>hmm", "«uno dos tres»"], "es")
    assert (found["turn1_inst_level_strict_acc"], found["turn1_inst_level_loose_acc"]) == ([False, True], [True, True])
    assert found["unfinished_answers"] == pytest.approx(1 / 3)


def test_a_language_that_is_not_scored_is_no_earlier_verdict() -> None:
    first = turn("En inglés, sin comas.", ("language:response_language", {"language": "en"}), (COMMA, {}))
    row = {"key": 1, "turns": [first, turn("Entre comillas.", (QUOTES, {}))]}
    found = conversations.evaluate(conversation(row), ["One.", "One."], "es")
    assert found["earlier_inst_level_strict_acc"] == [True] and found["turn2_inst_level_strict_acc"] == [True, False]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"key": 1}, "line 1: key `turns` holds no list of turns"),
        ({"key": 1, "turns": []}, "line 1: key `turns` holds no list of turns"),
        ({"key": 1, "turns": [turn("a", lifts=[COMMA])]}, "line 1, turn 1: lifts punctuation:no_comma, .*not in force"),
        ({"key": 1, "turns": [turn("a"), {"prompt": ""}]}, "line 1, turn 2: key `prompt` holds no text"),
    ],
)
def test_faults_name_line_and_turn(row: dict[str, Any], told: str) -> None:
    with pytest.raises(PackError, match=told):
        conversation(row)


def test_as_many_answers_as_turns() -> None:
    with pytest.raises(PackError, match="conversation 5: 1 answers for 3 turns"):
        conversations.evaluate(conversation(), ["uno"], "es")


@pytest.mark.parametrize("language", LANGUAGES)
def test_our_own(language: str, tmp_path: Path) -> None:
    """30 of three turns, each with something new; every turn's prompt says what its kwargs say."""
    pack = load_pack(language)
    found = conversations.read(conversations.shipped(language), pack)
    assert len(found) >= 30 and [one.key for one in found] == list(range(1, len(found) + 1))
    assert not [one.key for one in found if one.unknown or len(one.turns) != 3]
    assert all(len(one.document.instructions) > one.earlier for all_ in found for one in all_.turns)
    flat = tmp_path / f"{language}.jsonl"
    lines = conversations.shipped(language).read_text(encoding="utf-8").splitlines()
    turns = [(key, one) for key, line in enumerate(lines) for one in json.loads(line)["turns"]]
    flat.write_text("".join(json.dumps({**one, "key": f"{key}"}) + "\n" for key, one in turns), encoding="utf-8")
    # A short request ("No commas, please") may come in two conversations.
    findings = [one for one in lint(flat, language) if one.rule not in ("duplicate", "published-code")]
    assert [str(one) for one in findings] == []


def test_languages_are_asked_the_same() -> None:
    ids = {
        code: [
            [[i.id for i in one.document.instructions] for one in all_.turns]
            for all_ in conversations.read(conversations.shipped(code), load_pack(code))
        ]
        for code in LANGUAGES
    }
    assert all(found == ids["eu"] for found in ids.values())
    assert sum(len(turn) for all_ in ids["eu"] for turn in all_) > 150
