"""The sweep's curves, in the manner of Figure 1 of "Merge and Conquer": x is the swept number, a panel a column, the
parents horizontal lines. `rows` gathers what is drawn, `draw_panel` and `draw_page` draw it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lm_eval_iberian.compare.columns import Column, Scores
from lm_eval_iberian.compare.shape import MAX_LINES, Shape
from lm_eval_iberian.pictures import style
from lm_eval_iberian.pictures.slots import line_slots, rule_names
from lm_eval_iberian.pictures.style import DASHES, MARKERS, MUTED, RULES, SERIES, new_figure
from lm_eval_iberian.runs.point import SweepPoint
from lm_eval_iberian.scores.formats import short
from lm_eval_iberian.scores.suite import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NORMAL = 1.959964  # 95 %
MAX_BANDS = 4  # of a panel with more lines no intervals are drawn
LEAST_SPAN = 5.0  # of a y axis, in points: less would make much of little


@dataclass(frozen=True)
class Mark:
    """One figure on a line: where, how much, and half the width of its 95 % interval (None where unknown).

    Args:
        sign: ‡ where its answers should be looked at first, § where it was prompted otherwise than most of the column.
    """

    x: float
    value: float
    half: float | None
    whole: bool
    point: str
    sign: str = ""

    @property
    def ends(self) -> tuple[float, float]:
        """The interval; no score is below 0 or above 100."""
        half = self.half or 0.0
        low, high = self.value - half, self.value + half
        return (max(0.0, low) if self.value >= 0 else low), (min(100.0, high) if self.value <= 100 else high)


@dataclass(frozen=True)
class Line:
    """A line of a panel; `slot` says its colour, marker and dash, the same in every panel."""

    name: str
    slot: int
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Rule:
    """A horizontal line: a parent, a baseline, or a merge that lies on no axis."""

    name: str
    slot: int
    value: float


@dataclass(frozen=True)
class Panel:
    """One column as curves. `low`, `high`: of the y axis."""

    column: Column
    lines: tuple[Line, ...]
    rules: tuple[Rule, ...]
    low: float
    high: float
    title: str = ""
    part: str = ""

    @property
    def described(self) -> str:
        """The figures in words, for those who cannot see them."""
        said = [f"{line.name or 'merges'}: " + ", ".join(f"{mark.value:.1f} at {mark.x:g}" for mark in line.marks)
                for line in self.lines]  # fmt: skip
        return ". ".join([*said, *(f"{rule.name}: {rule.value:.1f}" for rule in self.rules)]) + "."


@dataclass(frozen=True)
class Row:
    """Panels that stand beside each other: the kinds of a language, or the languages of the only kind."""

    title: str
    panels: tuple[Panel, ...]


def rows(scores: Scores, shape: Shape) -> list[Row]:
    """All panels. Empty where no axis of numbers was swept."""
    if shape.swept is None:
        return []
    by_kind = []
    for columns in scores.kinds.values():
        found = [_panel(scores, shape, column, part) for column in columns for part in shape.parts]
        by_kind.append(_same_span([panel for panel in found if panel.lines]))
    by_kind = [made for made in by_kind if made]
    if len(by_kind) == 1:
        (made,) = by_kind
        return [Row(made[0].column.kind_title, tuple(_titled(one, one.column.language_title, shape) for one in made))]
    together = [panel for made in by_kind for panel in made]
    grouped = {code: [one for one in together if one.column.language == code] for code in scores.languages}
    return [Row(same[0].column.language_title, tuple(_titled(one, one.column.kind_title, shape) for one in same))
            for same in grouped.values() if same]  # fmt: skip


def _titled(panel: Panel, title: str, shape: Shape) -> Panel:
    return replace(panel, title=title + shape.of_part(panel.part))


def _panel(scores: Scores, shape: Shape, column: Column, part: str) -> Panel:
    merges = [point for point in scores.merges if shape.x(point) is not None and point.labels
              and shape.belongs(point, column.language) and shape.in_part(point, part)]  # fmt: skip
    slots = {name: slot for name, slot in line_slots(scores, shape).items() if slot < MAX_LINES}
    found = [Line(name, slot, _marks(scores, shape, column, [one for one in merges if shape.line(one) == name]))
             for name, slot in slots.items()]  # fmt: skip
    lines = tuple(line for line in found if line.marks)
    rules = _rules(scores, shape, column, [point.name for point in merges])
    marks = [mark for line in lines for mark in line.marks]
    values = [end for mark in marks for end in mark.ends] + [rule.value for rule in rules]
    return Panel(column, lines, rules, min(values, default=0.0), max(values, default=1.0), part=part)


def _marks(scores: Scores, shape: Shape, column: Column, points: Sequence[SweepPoint]) -> tuple[Mark, ...]:
    """The marks of a line, by x."""
    by_place: dict[float, list[tuple[str, Score]]] = {}
    for point in points:
        x, score = shape.x(point), scores.score(point, column)
        if x is not None and score.value is not None:
            by_place.setdefault(x, []).append((point.name, score))
    return tuple(
        _mark(x, found, _sign(scores, [name for name, _ in found], column)) for x, found in sorted(by_place.items())
    )


def _sign(scores: Scores, names: Sequence[str], column: Column) -> str:
    odd = any(scores.is_odd(scores.run[name], column) for name in names)
    return ("‡" if scores.is_flagged(names, column) else "") + ("§" if odd else "")


def _mark(x: float, found: Sequence[tuple[str, Score]], sign: str) -> Mark:
    """One mark for all points of a place: several where an axis of seeds was swept."""
    values = [score.value for _, score in found if score.value is not None]
    mean = sum(values) / len(values)
    errors = [score.stderr for _, score in found]
    half = None if None in errors else NORMAL * sum(error for error in errors if error is not None) / len(errors)
    return Mark(x, mean, half, all(score.whole for _, score in found), found[0][0], sign)


def _rules(scores: Scores, shape: Shape, column: Column, merges: Sequence[str]) -> tuple[Rule, ...]:
    """The parents of the merges that a panel shows, every baseline, and merges that lie on no axis."""
    wanted = {parent for name in merges for parent in scores.run[name].parents}
    found = []
    for name, slot in rule_names(scores, shape).items():
        point = scores.run[name]
        score = scores.score(point, column)
        if score.value is not None and (name in wanted or point.role != "parent"):
            found.append(Rule(name, slot, score.value))
    return tuple(found)


def _same_span(found: Sequence[Panel]) -> list[Panel]:
    """Panels of one kind get y axes of one length, so that their slopes compare; each about its own middle, and none
    below 0 or above 100, where no score can be.
    """
    span = min(104.0, max([LEAST_SPAN, *(panel.high - panel.low for panel in found)]) * 1.12)
    made = []
    for panel in found:
        low = (panel.low + panel.high - span) / 2
        low = min(max(low, -0.02 * span), 102.0 - span) if panel.low >= 0 and panel.high <= 100 else low
        made.append(replace(panel, low=low, high=low + span))
    return made


def draw_panel(axes: Axes, panel: Panel, x_label: str, title: str) -> None:
    """Draw one panel into matplotlib's axes."""
    for rule in panel.rules:
        axes.axhline(rule.value, color=MUTED, linestyle=RULES[rule.slot % len(RULES)], linewidth=1.4, zorder=2)
    for line in panel.lines:
        colour = SERIES[line.slot]
        x, y = [mark.x for mark in line.marks], [mark.value for mark in line.marks]
        low, high = zip(*(mark.ends for mark in line.marks), strict=True)
        if len(panel.lines) > MAX_BANDS:
            pass  # bands over bands are mud; the tables have the intervals
        elif len(x) > 1 and low != high:
            axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0, zorder=1)
        elif low != high:
            axes.plot([x[0], x[0]], [low[0], high[0]], color=colour, linewidth=1.2, zorder=3)
        axes.plot(x, y, color=colour, linestyle=DASHES[line.slot], zorder=4)
        for mark in line.marks:
            axes.plot(mark.x, mark.value, MARKERS[line.slot], color=colour, zorder=5,
                      markerfacecolor=colour if mark.whole else "#ffffff", markeredgewidth=1.5)  # fmt: skip
            if mark.sign:
                axes.annotate(
                    mark.sign, (mark.x, mark.value), (0, 6), textcoords="offset points", ha="center", fontsize=11
                )
    places = sorted({mark.x for line in panel.lines for mark in line.marks})
    if len(places) <= 8:
        axes.set_xticks(places, [f"{place:g}" for place in places])
    if len(places) == 1:
        axes.set_xlim(places[0] - 1, places[0] + 1)
    else:
        axes.margins(x=0.06)
    axes.set_ylim(panel.low, panel.high)
    style.title(axes, title)
    axes.set_xlabel(short(x_label, 40))
    axes.set_ylabel(panel.column.unit)


def page_title(panel: Panel, row: Row) -> str:
    """A panel's title where no heading stands above its row."""
    return f"{row.title} · {panel.title}"


def draw_page(found: Sequence[Row], x_label: str, lines: dict[int, str], rules: dict[int, str]) -> Figure:
    """All panels on one page, with a legend below: for papers."""
    from matplotlib.lines import Line2D

    width = max(len(row.panels) for row in found)
    figure = new_figure(60 + 235 * width, 60 + 205 * len(found))
    grid = figure.subplots(len(found), width, squeeze=False)
    for number, row in enumerate(found):
        for place in range(width):
            axes = grid[number][place]
            if place < len(row.panels):
                draw_panel(axes, row.panels[place], x_label, page_title(row.panels[place], row))
            else:
                axes.set_visible(False)
    handles = [Line2D([], [], color=SERIES[slot], linestyle=DASHES[slot], marker=MARKERS[slot]) for slot in lines]
    handles += [Line2D([], [], color=MUTED, linestyle=RULES[slot % len(RULES)]) for slot in rules]
    named = [*lines.values(), *rules.values()]
    style.legend(figure, handles, named)
    return figure
