"""What is paid for what: a language's benchmarks against instruction following, with the Pareto front drawn.

Without instruction following the other two kinds that were measured are drawn against each other, and with one kind
only its first language against each other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lm_eval_iberian.compare.columns import Column, Scores
from lm_eval_iberian.compare.shape import MAX_LINES, Shape
from lm_eval_iberian.pictures import style
from lm_eval_iberian.pictures.slots import line_slots, rule_names
from lm_eval_iberian.pictures.style import GRID, INK, MARKERS, MUTED, SERIES, new_figure
from lm_eval_iberian.runs.point import SweepPoint
from lm_eval_iberian.scores.formats import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARENT_MARKERS = ("*", "p", "h", "8", "d")


@dataclass(frozen=True)
class Dot:
    """A point: what it scores on x and y.

    Args:
        parent: a parent, a baseline, or a merge on no axis; else a merge of a line.
        slot: of the parent, or of the line.
        place: along the swept axis.
        size: 0 to 1.
        front: nothing beats it in both.
    """

    name: str
    x: float
    y: float
    parent: bool
    slot: int
    place: float | None = None
    size: float = 0.5
    front: bool = False


@dataclass(frozen=True)
class Tradeoff:
    """One panel: the two columns and the dots."""

    x: Column
    y: Column
    dots: tuple[Dot, ...]
    part: str = ""

    @property
    def title(self) -> str:
        """The language, or both; and the part of the sweep."""
        languages = dict.fromkeys((self.y.language_title, self.x.language_title))
        return " and ".join(languages) + self.part

    def label(self, column: Column) -> str:
        """What stands at an axis."""
        said = column.title if self.x.kind == self.y.kind else column.kind_title
        return f"{short(said, 22)} ({column.unit})"

    @property
    def front(self) -> list[Dot]:
        """The dots that no other beats in both, by x."""
        return sorted((dot for dot in self.dots if dot.front), key=lambda dot: (dot.x, -dot.y))

    @property
    def described(self) -> str:
        """The front in words."""
        return f"Not beaten in both {self.x.title} and {self.y.title}: " + "; ".join(
            f"{dot.name} ({dot.x:.1f}, {dot.y:.1f})" for dot in self.front
        )


def pairs(scores: Scores) -> list[tuple[Column, Column]]:
    """The columns to draw against each other: (x, y)."""
    kinds = scores.kinds
    x_kind = scores.instructions or (list(kinds)[1] if len(kinds) > 1 else None)
    if x_kind is not None:
        y_kind = next(kind for kind in kinds if kind != x_kind) if len(kinds) > 1 else None
        found = [(x, y) for y in kinds.get(y_kind or "", []) if (x := scores.column(x_kind, y.language)) is not None]
        if found:
            return found
    for columns in kinds.values():
        if len(columns) > 1:
            return [(other, columns[0]) for other in columns[1:]]
    return []


def tradeoffs(scores: Scores, shape: Shape) -> list[Tradeoff]:
    """A panel for each pair of columns that at least two points were measured on."""
    made = []
    for x, y in pairs(scores):
        for part in shape.parts:
            dots = [dot for point in scores.points if shape.in_part(point, part)
                    and (dot := _dot(scores, shape, point, x, y)) is not None]  # fmt: skip
            if len(dots) > 1 and not all(dot.parent for dot in dots):
                made.append(Tradeoff(x, y, tuple(_with_front(dots)), shape.of_part(part)))
    return made


def why_none(scores: Scores) -> str:
    """Why there is no panel, in a sentence; "" where nothing was measured at all."""
    columns = scores.columns
    if len(columns) < 2:
        return "".join(f"only one figure was measured, {one.title}, and a trade-off is between two." for one in columns)
    if pairs(scores):
        return "no merge and another point were both measured on both sides of it."
    return f"no language was measured in two kinds; there are: {', '.join(column.title for column in columns)}."


def _dot(scores: Scores, shape: Shape, point: SweepPoint, x: Column, y: Column) -> Dot | None:
    """A point of a panel; None where it was not measured, or is meant for another language."""
    across, up = scores.score(point, x).value, scores.score(point, y).value
    meant = [merge for merge in scores.merges if shape.belongs(merge, y.language)]
    if across is None or up is None or (point.role == "merge" and point not in meant):
        return None
    if point.role == "parent" and not any(point.name in merge.parents for merge in meant):
        return None
    parents = rule_names(scores, shape)
    if point.name in parents:
        return Dot(point.name, across, up, True, parents[point.name])
    return Dot(
        point.name,
        across,
        up,
        False,
        line_slots(scores, shape)[shape.line(point)],
        shape.x(point),
        _size(scores, shape, point),
    )


def _size(scores: Scores, shape: Shape, point: SweepPoint) -> float:
    """How large a dot is, 0 to 1: its place along the swept axis."""
    places = list(scores.run.axes.get(shape.swept or "", []))
    label = point.labels.get(shape.swept or "")
    return places.index(label) / max(1, len(places) - 1) if label in places else 0.5


def _with_front(dots: Sequence[Dot]) -> list[Dot]:
    def beaten(dot: Dot) -> bool:
        return any(other.x >= dot.x and other.y >= dot.y and (other.x > dot.x or other.y > dot.y) for other in dots)

    return [replace(dot, front=not beaten(dot)) for dot in dots]


def draw_tradeoff(axes: Axes, panel: Tradeoff, title: str) -> None:
    """Draw one panel into matplotlib's axes. Merges of one line are joined, and grow with the swept number."""
    front = panel.front
    if len(front) > 1:
        xs = [value for dot in front for value in (dot.x, dot.x)][:-1]
        ys = [value for dot in front for value in (dot.y, dot.y)][1:]
        axes.plot(xs, ys, color=MUTED, linewidth=1.0, linestyle=(0, (2, 2)), zorder=2)
    for slot in sorted({dot.slot for dot in panel.dots if not dot.parent}):
        line = sorted(
            (dot for dot in panel.dots if not dot.parent and dot.slot == slot), key=lambda dot: dot.place or 0.0
        )
        # Lines that have no colour of their own are grey and have no name here; the tables name them.
        colour, marker = (SERIES[slot], MARKERS[slot]) if slot < MAX_LINES else (MUTED, ".")
        if len({dot.place for dot in line}) == len(line) and slot < MAX_LINES:
            axes.plot(
                [dot.x for dot in line], [dot.y for dot in line], color=colour, alpha=0.35, linewidth=1.2, zorder=3
            )
        for dot in line:
            axes.plot(dot.x, dot.y, marker, color=colour, markersize=5 + 5 * dot.size, zorder=5,
                      markeredgecolor=INK if dot.front else colour, markeredgewidth=1.4)  # fmt: skip
    for dot in panel.dots:
        if dot.parent:
            axes.plot(dot.x, dot.y, PARENT_MARKERS[dot.slot % len(PARENT_MARKERS)], color=MUTED, markersize=10, zorder=4,
                      markeredgecolor=INK if dot.front else MUTED, markeredgewidth=1.4)  # fmt: skip
    axes.margins(0.08)
    style.title(axes, title)
    axes.set_xlabel(panel.label(panel.x))
    axes.set_ylabel(panel.label(panel.y))
    axes.grid(True, color=GRID)


def draw_page(panels: Sequence[Tradeoff], lines: dict[int, str], parents: dict[int, str]) -> Figure:
    """All panels on one page with a legend below: for papers."""
    from matplotlib.lines import Line2D

    width = min(3, len(panels))
    height = -(-len(panels) // width)
    figure = new_figure(40 + 265 * width, 70 + 245 * height)
    grid = figure.subplots(height, width, squeeze=False)
    for number in range(width * height):
        axes = grid[number // width][number % width]
        if number < len(panels):
            draw_tradeoff(axes, panels[number], panels[number].title)
        else:
            axes.set_visible(False)
    handles = [Line2D([], [], color=SERIES[slot], marker=MARKERS[slot]) for slot in lines]
    handles += [
        Line2D([], [], color=MUTED, marker=PARENT_MARKERS[slot % len(PARENT_MARKERS)], linestyle="none")
        for slot in parents
    ]
    handles.append(Line2D([], [], color=MUTED, linestyle=(0, (2, 2)), linewidth=1.0))
    named = [*lines.values(), *parents.values(), "Pareto front"]
    style.legend(figure, handles, named)
    return figure
