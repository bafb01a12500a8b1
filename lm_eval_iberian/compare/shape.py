"""Which axis of a sweep plays which part in the pictures: the swept number, the language, the method, the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lm_eval_iberian.benchmarks.languages import language_names
from lm_eval_iberian.runs.point import SweepPoint
from lm_eval_iberian.runs.run import SweepRun

SEEDS = ("seed", "merge_seed")
MAX_LINES = 7  # of a panel: as many as there are colours
MAX_PARTS = 6
METHODS = ("method", "merge_method")


@dataclass(frozen=True)
class Shape:
    """The parts of a sweep's axes.

    Args:
        swept: the axis of numbers that goes along x, or None.
        language: the axis whose labels are languages, or None.
        seed: the axis over which figures are averaged, or None.
        method: the axis that methods are told apart by, or None.
        others: all axes but the swept one, the language, the seed and the split: what tells lines apart.
        split: an axis whose labels get panels of their own, because one panel would have too many lines; or None.
        parts: the labels of the split; [""] where there is none.
    """

    swept: str | None
    language: str | None
    seed: str | None
    method: str | None
    others: tuple[str, ...]
    split: str | None = None
    parts: tuple[str, ...] = ("",)

    def x(self, point: SweepPoint) -> float | None:
        """A point's place along the swept axis, or None."""
        return number(point.labels.get(self.swept or "", ""))

    def line(self, point: SweepPoint) -> str:
        """The line that a point lies on: the labels of the other axes."""
        labels = [(axis, point.labels[axis]) for axis in self.others if axis in point.labels]
        return " · ".join(label if axis == self.method else f"{axis} {label}" for axis, label in labels)

    def short(self, point: SweepPoint) -> str:
        """A point's name without what its panel says already."""
        if not point.labels:
            return point.name
        said = {*self.others, self.split, self.swept, self.seed}
        labels = [(axis, label) for axis, label in point.labels.items() if axis in said]
        if len(labels) == 1:
            return " ".join(labels[0])
        return " · ".join(label for _, label in labels) or point.name

    def compact(self, point: SweepPoint) -> str:
        """A point's name for the first column of a table: its labels, or its name."""
        if len(point.labels) == 1:
            return " ".join(*point.labels.items())
        return " · ".join(point.labels.values()) or point.name

    def in_part(self, point: SweepPoint, part: str) -> bool:
        """Whether a point stands in the panels of a label of the split axis."""
        return self.split is None or point.labels.get(self.split, part) == part

    def of_part(self, part: str) -> str:
        """What the panels of a label are called besides."""
        return f", {self.split} {part}" if self.split else ""

    def belongs(self, point: SweepPoint, language: str) -> bool:
        """Whether a merge is meant for a language: its label says so, or says no language at all."""
        label = point.labels.get(self.language or "")
        return label is None or not language or label == language or label not in language_names()


def number(label: str) -> float | None:
    """A label as a number, or None."""
    try:
        found = float(label)
    except ValueError:
        return None
    return found if abs(found) < float("inf") else None


def shape_of(run: SweepRun) -> Shape:
    """The parts of a run's axes. Among several axes of numbers "weight" is swept, else the longest."""
    axes = {axis: labels for axis, labels in _axes(run).items() if len(labels) > 1}
    language = next((axis for axis, labels in axes.items() if _are_languages(axis, labels)), None)
    seed = next((axis for axis in axes if axis in SEEDS), None)
    numeric = [axis for axis in axes if axis not in (language, seed) and _are_numbers(axes[axis])]
    swept = max(numeric, key=lambda axis: (axis == "weight", len(axes[axis])), default=None)
    others = tuple(axis for axis in axes if axis not in (swept, language, seed))
    method = next((axis for axis in METHODS if axis in others), None)
    method = method or next((axis for axis in others if not _are_numbers(axes[axis])), None)
    split = _split(run, others)
    parts = tuple(axes[split]) if split else ("",)
    return Shape(swept, language, seed, method, tuple(axis for axis in others if axis != split), split, parts)


def _split(run: SweepRun, others: Sequence[str]) -> str | None:
    """The axis with the fewest labels without which the lines are few enough for one panel."""
    found = [point.labels for point in run.points if point.role == "merge" and point.labels]

    def lines(axes: Sequence[str]) -> int:
        return len({tuple(labels.get(axis) for axis in axes) for labels in found})

    for axis in sorted(others, key=lambda axis: lines([axis])) if lines(others) > MAX_LINES else ():
        if lines([axis]) <= MAX_PARTS and lines([other for other in others if other != axis]) <= MAX_LINES:
            return axis
    return None


def _axes(run: SweepRun) -> dict[str, list[str]]:
    """The axes with the labels that the points have, which may be listed without any axis."""
    found: dict[str, list[str]] = {axis: [] for axis in run.axes}
    for point in run.points:
        for axis, label in point.labels.items():
            found.setdefault(axis, [])
            found[axis] += [label] if label not in found[axis] else []
    return found


def _are_numbers(labels: Sequence[str]) -> bool:
    return all(number(label) is not None for label in labels)


def _are_languages(axis: str, labels: Sequence[str]) -> bool:
    known = sum(label in language_names() for label in labels)
    return known == len(labels) or (known > 0 and axis in ("language", "languages", "lang"))


def shared_parents(merges: Sequence[SweepPoint]) -> set[str]:
    """The parents that every merge of the axes has."""
    sets = [set(point.parents) for point in merges if point.labels] or [set(point.parents) for point in merges]
    return set.intersection(*sets) if sets else set()
