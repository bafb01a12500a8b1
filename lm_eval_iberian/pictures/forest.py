"""Differences to the parents with their intervals, a panel a column: filled where significant, hollow where not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lm_eval_iberian.compare.differences import Compared
from lm_eval_iberian.pictures import style
from lm_eval_iberian.pictures.style import MARKERS, MUTED, SERIES, new_figure, parent_colour
from lm_eval_iberian.scores.formats import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_forest(
    axes: Axes, found: Sequence[Compared], names: dict[str, str], slots: Mapping[str, int], title: str
) -> None:
    """One column's differences.

    Args:
        found: of one column; a row a merge, beside each other its parents.
        names: merge -> how its row is called, in order.
        slots: parent -> its colour.
    """
    merges = [merge for merge in names if any(one.merge == merge for one in found)]
    axes.axvline(0, color=MUTED, linewidth=1.0, zorder=1)
    present = sorted({slots[one.parent] for one in found})
    for one in found:
        slot = parent_colour(slots[one.parent])
        place = merges.index(one.merge) + 0.26 * (present.index(slots[one.parent]) - (len(present) - 1) / 2)
        sure = one.test is not None and one.test.significant()
        if one.test is not None:
            axes.plot([one.test.low, one.test.high], [place, place], color=SERIES[slot], linewidth=1.6, zorder=2)
        axes.plot(one.value, place, MARKERS[slot], color=SERIES[slot], markersize=5, zorder=3, markeredgewidth=1.3,
                  markerfacecolor=SERIES[slot] if sure else "#ffffff")  # fmt: skip
    axes.set_yticks(range(len(merges)), [short(names[merge], 24) for merge in merges])
    axes.set_ylim(len(merges) - 0.4, -0.6)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    style.title(axes, title)
    axes.set_xlabel("merge minus parent, points")


def draw_page(
    panels: Sequence[tuple[str, Sequence[Compared]]],
    names: dict[str, str],
    slots: Mapping[str, int],
    legend: dict[int, str],
) -> Figure:
    """All columns on one page with a legend below: for papers."""
    from matplotlib.lines import Line2D

    width = min(3, len(panels))
    height = -(-len(panels) // width)
    most = max(len({one.merge for one in found}) for _, found in panels)
    figure = new_figure(330 * width, 60 + (80 + 22 * most) * height)
    grid = figure.subplots(height, width, squeeze=False)
    for number in range(width * height):
        axes = grid[number // width][number % width]
        if number < len(panels):
            draw_forest(axes, panels[number][1], names, slots, panels[number][0])
        else:
            axes.set_visible(False)
    colours = [parent_colour(slot) for slot in legend]
    handles = [Line2D([], [], color=SERIES[slot], marker=MARKERS[slot]) for slot in colours]
    handles.append(Line2D([], [], color=MUTED, marker="o", markerfacecolor="#ffffff", linestyle="none"))
    named = [*(f"minus {name}" for name in legend.values()), "hollow: not significant"]
    style.legend(figure, handles, named)
    return figure
