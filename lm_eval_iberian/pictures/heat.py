"""Methods compared: a row a merge, a column an average, the stronger the colour the better within its column.

The colours of a column span at least a 95 % interval of its scores, so that what is only noise stays pale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lm_eval_iberian.compare.columns import Column, Scores
from lm_eval_iberian.compare.shape import Shape
from lm_eval_iberian.pictures.curves import NORMAL
from lm_eval_iberian.pictures.style import INK, new_figure
from lm_eval_iberian.scores.formats import short
from lm_eval_iberian.scores.suite import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

# Pale to full, one hue; INK reads on both ends (tests measure it).
PALE, FULL = (255, 255, 255), (120, 180, 222)
MAX_ROWS = 80


@dataclass(frozen=True)
class Tile:
    """A figure and its place between the column's worst (0) and best (1). `value`: None where there is none."""

    value: float | None
    place: float
    best: bool
    whole: bool
    flagged: bool = False
    odd: bool = False

    @property
    def sign(self) -> str:
        """† not whole, ‡ flagged, § prompted otherwise than most of the column."""
        return "†" * (not self.whole) + "‡" * self.flagged + "§" * self.odd


@dataclass(frozen=True)
class Heat:
    """The heat map: (name, role, tiles) rows. `left_out`: how many merges have no room in it."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, str, tuple[Tile, ...]], ...]
    head: str
    left_out: int = 0

    @property
    def described(self) -> str:
        """The best of each column in words."""
        said = []
        for number, column in enumerate(self.columns):
            best = [f"{name} ({tiles[number].value:.1f})" for name, _, tiles in self.rows if tiles[number].best]
            if best:
                said.append(f"{column.title}: best is {', '.join(best)}")
        return "; ".join(said)


def heat_map(scores: Scores, shape: Shape) -> Heat:
    """All merges and parents against all columns; merges in the order of the sweep, parents below."""
    order = [*scores.merges[:MAX_ROWS], *(point for point in scores.points if point.role != "merge")]
    by_column = [[scores.score(point, column) for point in order] for column in scores.columns]
    merges = sum(point.role == "merge" for point in order)
    tiles = [_column(found, merges) for found in by_column]
    rows = tuple(
        (shape.compact(point), point.role, tuple(
            replace(tile[number], flagged=scores.is_flagged([point.name], column), odd=scores.is_odd(point, column))
            for tile, column in zip(tiles, scores.columns, strict=True)
        ))
        for number, point in enumerate(order)
    )  # fmt: skip
    head = " · ".join(scores.run.axes) or "merge"
    return Heat(tuple(scores.columns), rows, head, max(0, len(scores.merges) - MAX_ROWS))


def _column(scores: Sequence[Score], merges: int) -> list[Tile]:
    """A column's tiles; best is the best merge (the first `merges` scores) among whole ones, as printed."""
    there = [score.value for score in scores if score.value is not None]
    if not there:
        return [Tile(None, 0.0, False, False) for _ in scores]
    known = [score.stderr for score in scores if score.stderr is not None]
    least = 2 * NORMAL * sum(known) / len(known) if known else 0.0
    span = max(max(there) - min(there), least, 1e-9)
    ranked = [score.value for score in scores[:merges] if score.value is not None and score.whole]
    best = f"{max(ranked):.1f}" if len(ranked) > 1 else ""
    return [Tile(score.value, 0.0 if score.value is None else 1 - (max(there) - score.value) / span,
                 number < merges and score.whole and f"{score.value:.1f}" == best, score.whole)
            for number, score in enumerate(scores)]  # fmt: skip


def colour(place: float) -> str:
    """The tile's colour on white, #rrggbb."""
    mixed = [round(pale + (full - pale) * place) for pale, full in zip(PALE, FULL, strict=True)]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def draw_heat(heat: Heat) -> Figure:
    """The heat map as a figure: for papers; the page has it as a table."""
    rows, columns = len(heat.rows), len(heat.columns)
    longest = min(60, max((len(name) for name, _, _ in heat.rows), default=10))
    figure = new_figure(60 + 6.0 * longest + 52 * columns, 90 + 20 * rows)
    axes = figure.subplots()
    axes.grid(False)
    for down, (_, _, tiles) in enumerate(heat.rows):
        for across, tile in enumerate(tiles):
            if tile.value is not None:
                axes.add_patch(_square(across, down, colour(tile.place)))
                axes.text(across, down, f"{tile.value:.1f}" + tile.sign, ha="center", va="center",
                          color=INK, fontsize=9, fontweight="bold" if tile.best else "normal")  # fmt: skip
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xticks(range(columns), [f"{c.language or 'all'}\n{c.kind_title}" for c in heat.columns], fontsize=8)
    axes.set_yticks(range(rows), [short(name, 60) for name, _, _ in heat.rows], fontsize=9)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    for side in ("left", "bottom", "top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def _square(across: int, down: int, colour: str) -> Rectangle:
    from matplotlib.patches import Rectangle

    return Rectangle((across - 0.48, down - 0.46), 0.96, 0.92, facecolor=colour, linewidth=0)
