"""Which colour, marker and dash each line and each parent has: the same in every picture of a report."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval_iberian.compare.columns import Scores
from lm_eval_iberian.compare.shape import MAX_LINES, Shape, shared_parents


def line_slots(scores: Scores, shape: Shape) -> dict[str, int]:
    """line -> slot, in the order of the sweep; there are colours for the first MAX_LINES."""
    names = dict.fromkeys(shape.line(point) for point in scores.merges if point.labels)
    return {name: slot for slot, name in enumerate(names)}


def left_out(scores: Scores, shape: Shape) -> list[str]:
    """The lines for which the pictures have no colour left."""
    return [name for name, slot in line_slots(scores, shape).items() if slot >= MAX_LINES]


def legend_names(scores: Scores, shape: Shape) -> tuple[dict[int, str], dict[int, str]]:
    """What the lines and the parents of all pictures are called, by slot."""
    lines = {slot: name or "merges" for name, slot in line_slots(scores, shape).items() if slot < MAX_LINES}
    named: dict[int, list[str]] = {}
    for name, slot in rule_names(scores, shape).items():
        named.setdefault(slot, []).append(_legend_name(scores, name))
    return lines, {slot: ", ".join(found) for slot, found in sorted(named.items())}


def _legend_name(scores: Scores, name: str) -> str:
    """A parent's name; with § where it was prompted otherwise than most of a column that it stands in."""
    odd = any(scores.is_odd(scores.run[name], column) for column in scores.columns)
    return name.rstrip("/").rsplit("/", 1)[-1] + (" §" if odd else "")


def rule_names(scores: Scores, shape: Shape) -> dict[str, int]:
    """Each parent's and baseline's dash. Parents that belong to one language each share the first."""
    shared = shared_parents([point for point in scores.merges if point.labels])
    slots: dict[str, int] = {}
    own = [name for name in _ruled(scores) if name not in shared and _is_parent(scores, name)]
    together = shape.language is not None and _one_a_language(scores, shape, own)
    for name in own:
        slots[name] = 0 if together else len(slots)
    for name in _ruled(scores):
        if name not in slots:
            slots[name] = len(set(slots.values()))
    return slots


def _ruled(scores: Scores) -> list[str]:
    return [point.name for point in scores.points if point.role != "merge" or not point.labels]


def _is_parent(scores: Scores, name: str) -> bool:
    return any(name in merge.parents for merge in scores.merges)


def _one_a_language(scores: Scores, shape: Shape, parents: Sequence[str]) -> bool:
    """Whether the merges of each language have at most one of these parents."""
    for merge in scores.merges:
        language = merge.labels.get(shape.language or "")
        same = [one for one in scores.merges if one.labels.get(shape.language or "") == language]
        if len({name for one in same for name in one.parents if name in parents}) > 1:
            return False
    return True
