"""What is paid for what: a language's benchmarks against instruction following, with the Pareto front drawn.

Without instruction following the other two kinds that were measured are drawn against each other, and with one kind
only its first language against each other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lm_eval_iberian.pictures.columns import Column, Scores
from lm_eval_iberian.pictures.curves import rule_names
from lm_eval_iberian.pictures.shape import Shape
from lm_eval_iberian.pictures.style import GRID, INK, MARKERS, MUTED, SERIES, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARENT_MARKERS = ("*", "p", "h", "8", "d")


@dataclass(frozen=True)
class Dot:
    """A point: what it scores on x and y, its place among lines (slot) or parents, whether nothing beats it."""

    name: str
    label: str
    x: float
    y: float
    parent: bool
    slot: int
    front: bool = False
    size: float = 0.5


@dataclass(frozen=True)
class Tradeoff:
    """One panel: the two columns and the dots."""

    x: Column
    y: Column
    dots: tuple[Dot, ...]

    @property
    def title(self) -> str:
        return self.y.language_title if self.x.kind != self.y.kind else f"{self.y.language_title} and {self.x.language_title}"

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
    slots = rule_names(scores, shape)
    names = list(dict.fromkeys(shape.line(point) for point in scores.merges))
    made = []
    for x, y in pairs(scores):
        wanted = {parent for merge in scores.merges if shape.belongs(merge, y.language) for parent in merge.parents}
        dots = []
        for point in scores.points:
            across, up = scores.score(point, x).value, scores.score(point, y).value
            if across is None or up is None:
                continue
            if point.role == "parent" and point.name not in wanted:
                continue
            if point.role == "merge" and not shape.belongs(point, y.language):
                continue
            if point.name in slots:
                dots.append(Dot(point.name, point.name.rsplit("/", 1)[-1], across, up, True, slots[point.name]))
            else:
                slot = names.index(shape.line(point)) % len(SERIES)
                dots.append(Dot(point.name, _label(shape, point.labels), across, up, False, slot, size=_size(scores, shape, point.labels)))
        if len(dots) > 1:
            made.append(Tradeoff(x, y, tuple(_with_front(dots))))
    return made


def _label(shape: Shape, labels: object) -> str:
    return str(labels.get(shape.swept, "")) if isinstance(labels, dict) and shape.swept else ""


def _size(scores: Scores, shape: Shape, labels: object) -> float:
    """How large a dot is, 0 to 1: its place along the swept axis."""
    places = [label for label in scores.run.axes.get(shape.swept or "", [])]
    label = _label(shape, labels)
    return places.index(label) / max(1, len(places) - 1) if label in places else 0.5


def _with_front(dots: Sequence[Dot]) -> list[Dot]:
    def beaten(dot: Dot) -> bool:
        return any(other.x >= dot.x and other.y >= dot.y and (other.x > dot.x or other.y > dot.y) for other in dots)

    return [Dot(d.name, d.label, d.x, d.y, d.parent, d.slot, not beaten(d), d.size) for d in dots]


def draw_tradeoff(axes: Axes, panel: Tradeoff, title: str) -> None:
    """Draw one panel into matplotlib's axes. Merges of one line are joined, and grow with the swept number."""
    front = panel.front
    if len(front) > 1:
        xs = [value for dot in front for value in (dot.x, dot.x)][:-1]
        ys = [value for dot in front for value in (dot.y, dot.y)][1:]
        axes.plot(xs, ys, color=MUTED, linewidth=1.0, linestyle=(0, (2, 2)), zorder=2)
    for slot in sorted({dot.slot for dot in panel.dots if not dot.parent}):
        line = [dot for dot in panel.dots if not dot.parent and dot.slot == slot]
        axes.plot([d.x for d in line], [d.y for d in line], color=SERIES[slot], alpha=0.35, linewidth=1.2, zorder=3)
        for dot in line:
            axes.plot(dot.x, dot.y, MARKERS[slot], color=SERIES[slot], markersize=5 + 5 * dot.size, zorder=5,
                      markeredgecolor=INK if dot.front else SERIES[slot], markeredgewidth=1.4)  # fmt: skip
    for dot in panel.dots:
        if dot.parent:
            axes.plot(dot.x, dot.y, PARENT_MARKERS[dot.slot % len(PARENT_MARKERS)], color=MUTED, markersize=10, zorder=4,
                      markeredgecolor=INK if dot.front else MUTED, markeredgewidth=1.4)  # fmt: skip
    axes.margins(0.08)
    axes.set_title(title)
    axes.set_xlabel(f"{panel.x.title} ({panel.x.unit})" if panel.x.kind == panel.y.kind else f"{panel.x.kind_title} ({panel.x.unit})")
    axes.set_ylabel(f"{panel.y.title} ({panel.y.unit})" if panel.x.kind == panel.y.kind else f"{panel.y.kind_title} ({panel.y.unit})")
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
    handles += [Line2D([], [], color=MUTED, marker=PARENT_MARKERS[slot % len(PARENT_MARKERS)], linestyle="none") for slot in parents]
    handles.append(Line2D([], [], color=MUTED, linestyle=(0, (2, 2)), linewidth=1.0))
    named = [*lines.values(), *parents.values(), "Pareto front"]
    figure.legend(handles, named, loc="outside lower center", ncols=max(1, min(len(named), width)), frameon=False)
    return figure
