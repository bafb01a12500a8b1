"""Conversations of several turns, as Multi-IF has them: each turn asks for something more, and the rest still holds.

One JSON object a line:

    {"key": 1, "turns": [
        {"prompt": "...", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        {"prompt": "...", "instruction_id_list": ["startend:quotation"], "kwargs": [{}]},
        {"prompt": "...", "instruction_id_list": [], "kwargs": [], "lifts": ["punctuation:no_comma"]}]}

A turn names its new instructions, and under `lifts` the ids of earlier ones that it takes back ("you may use commas
again"). The answer to a turn is held against all that are in force then. The idea is Multi-IF's (He et al. 2024,
https://arxiv.org/abs/2410.15553); in its data every turn repeats what holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifeval_multi import documents
from ifeval_multi.documents import Document, Instruction
from ifeval_multi.errors import PackError
from ifeval_multi.evaluate import evaluate_response, is_unfinished
from ifeval_multi.instructions import RESPONSE_LANGUAGE, canonical_id
from ifeval_multi.pack import Pack

# What a metric is named after beside its turn.
LEVELS = ("prompt_level_strict_acc", "inst_level_strict_acc", "prompt_level_loose_acc", "inst_level_loose_acc")
CONVERSATION = "conversation_level_strict_acc"
EARLIER = "earlier_inst_level_strict_acc"
UNFINISHED = "unfinished_answers"


@dataclass(frozen=True)
class Turn:
    """One turn.

    Args:
        prompt: what the user says in it.
        document: what its answer is held against: every instruction in force, and all prompts so far, for what a check
            reads in them (which language, which options).
        earlier: how many of the instructions, the first ones, are of earlier turns.
    """

    prompt: str
    document: Document
    earlier: int


@dataclass(frozen=True)
class Conversation:
    """The turns of a conversation."""

    key: int | str
    turns: tuple[Turn, ...]

    @property
    def unknown(self) -> tuple[str, ...]:
        """The ids that were left out because the pack knows no such type."""
        return tuple(name for turn in self.turns for name in turn.document.unknown)


def read(path: str | Path, pack: Pack) -> list[Conversation]:
    """The conversations of a JSONL file. Raises PackError, which names the line, for a row that is none."""
    return [from_row(row, where, pack) for where, row in documents.rows(path)]


def from_row(row: Mapping[str, Any], where: str, pack: Pack) -> Conversation:
    """A Conversation from a row.

    Raises:
        PackError: it has no turns, a turn is no prompt with instructions, or one lifts what is not in force.
    """
    listed = row.get("turns")
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise PackError(where, "key `turns` holds no list of turns.", "Each is an object with a prompt.")
    in_force: list[Instruction] = []
    turns: list[Turn] = []
    for number, turn in enumerate(listed, 1):
        there = f"{where}, turn {number}"
        new = documents.from_row({**turn, "key": row.get("key", where)}, there, pack)
        in_force = _without(in_force, turn.get("lifts") or [], there)
        kept = len(in_force)
        in_force = [*in_force, *new.instructions]
        said = "\n".join([*(one.prompt for one in turns), new.prompt])
        turns.append(Turn(new.prompt, Document(new.key, said, tuple(in_force), there, new.unknown), kept))
    return Conversation(row.get("key", where), tuple(turns))


def _without(in_force: list[Instruction], lifted: Sequence[str], where: str) -> list[Instruction]:
    ids = {canonical_id(name) for name in lifted}
    missing = ids - {one.id for one in in_force}
    if missing:
        raise PackError(where, f"lifts {', '.join(sorted(missing))}, which is not in force.", "Name an earlier one.")
    return [one for one in in_force if one.id not in ids]


def evaluate(
    conversation: Conversation, answers: Sequence[str], language: str, think_end_token: str | None = None
) -> dict[str, Any]:
    """The metrics of a conversation's answers, one a turn, in the edition `corrected`.

    Returns:
        turnN_... for each turn and level, the same without a turn over all of them (lists, to be averaged over
        everything), EARLIER (the verdicts on instructions of earlier turns), CONVERSATION (everything was followed)
        and UNFINISHED.
    """
    if len(answers) != len(conversation.turns):
        told = f"{len(answers)} answers for {len(conversation.turns)} turns."
        raise PackError(f"conversation {conversation.key}", told, "Give one for each turn.")
    metrics: dict[str, Any] = {name: [] for name in (*LEVELS, EARLIER)}
    whole = True
    for number, (turn, answer) in enumerate(zip(conversation.turns, answers, strict=True), 1):
        found = evaluate_response(turn.document, answer, language, think_end_token=think_end_token)
        whole = whole and all(found["strict"])
        earlier = sum(one.id != RESPONSE_LANGUAGE for one in turn.document.instructions[: turn.earlier])
        metrics[EARLIER] += found["strict"][:earlier]
        for reading in ("strict", "loose"):
            if found[reading]:
                metrics[f"prompt_level_{reading}_acc"].append(all(found[reading]))
                metrics[f"inst_level_{reading}_acc"] += found[reading]
                metrics[f"turn{number}_prompt_level_{reading}_acc"] = [all(found[reading])]
                metrics[f"turn{number}_inst_level_{reading}_acc"] = list(found[reading])
    unfinished = sum(is_unfinished(answer, think_end_token) for answer in answers) / len(answers)
    return {**metrics, CONVERSATION: float(whole), UNFINISHED: unfinished}


def metric_names(turns: int) -> list[str]:
    """The names of all metrics of conversations with so many turns."""
    of_turns = [f"turn{number}_{level}" for number in range(1, turns + 1) for level in LEVELS]
    return [*LEVELS, CONVERSATION, EARLIER, *of_turns, UNFINISHED]


def shipped(language: str) -> Path:
    """The file of our own conversations in a language, whether it is there or not."""
    return Path(__file__).parent / "prompts" / "turns" / f"{language}.jsonl"
