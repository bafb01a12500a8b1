"""The page's curves and trade-offs: each panel a picture of its own, so that a phone shows one below the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lm_eval_iberian.pictures import html, style
from lm_eval_iberian.pictures.curves import Panel, draw_panel
from lm_eval_iberian.pictures.gathered import Gathered
from lm_eval_iberian.pictures.html import name, text
from lm_eval_iberian.pictures.tradeoff import Tradeoff, draw_tradeoff

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_SIZE = (320, 236)


def picture(size: tuple[float, float], slug: str, title: str, said: str, draw: Callable[[Axes], None]) -> str:
    """A figure element with one picture drawn by `draw(axes)`."""
    figure = style.new_figure(*size)
    draw(figure.subplots())
    return f"<figure>{style.inline(style.as_svg(figure), slug, text(title), text(said))}</figure>"


def curves(found: Gathered) -> str:
    if not found.rows:
        return ""
    swept = found.shape.swept or ""
    parts = [
        f'<p class="about">Along x: {text(swept)}. Bands are 95 % intervals over documents (in panels of up to four lines); horizontal lines are the '
        "parents. Panels of one kind span the same number of points, so that slopes compare. Hollow marks are not of "
        "whole benchmarks; ‡ says that the answers should be looked at before the score.</p>",
        _legend(found.lines, found.rules),
    ]
    if found.left_out_lines:
        parts.append(f'<p class="flag">{len(found.left_out_lines)} more lines are in the tables only: '
                     f"{text(', '.join(found.left_out_lines))}.</p>")  # fmt: skip
    for row in found.rows:
        drawn = "".join(_curve(panel, swept) for panel in row.panels)
        parts.append(f"<h3>{text(row.title)}</h3>{panels(drawn, len(row.panels))}")
    return "".join(parts) + _columns(found)


def panels(drawn: str, count: int) -> str:
    """Pictures beside each other where there is room."""
    return f'<div class="panels" style="--n:{2 if count == 4 else 3}">{drawn}</div>'


def _columns(found: Gathered) -> str:
    """What the columns are the means of, where that is not the suite's own average."""
    said = "".join(f"<li>{name(column.about)}</li>" for column in found.scores.columns if column.about)
    return html.fold("What the columns count", f"<ul>{said}</ul>") if said else ""


def _curve(panel: Panel, swept: str) -> str:
    slug, title = f"curve-{html.slug(panel.column.key + panel.part)}", f"{panel.column.title} by {swept}"
    return picture(PANEL_SIZE, slug, title, panel.described, lambda axes: draw_panel(axes, panel, swept, panel.title))


def _legend(lines: dict[int, str], rules: dict[int, str], dots: bool = False) -> str:
    entries = [(html.swatch(slot), named) for slot, named in lines.items()]
    entries += [(html.parent_swatch(slot, dots), named) for slot, named in rules.items()]
    return (
        '<ul class="legend">'
        + "".join(f"<li>{mark}<span>{name(named)}</span></li>" for mark, named in entries)
        + "</ul>"
    )


def tradeoffs(found: Gathered) -> str:
    if not found.tradeoffs:
        return ""
    pictures = "".join(_tradeoff(panel, number) for number, panel in enumerate(found.tradeoffs))
    sized = f"The larger a mark, the larger {found.shape.swept}. " if found.shape.swept else ""
    return (
        f'<p class="about">Up and to the right is better. The dotted line is the Pareto front: no point beats those on it in '
        f"both (outlined). {text(sized)}</p>"
        + _legend(found.lines, found.rules, dots=True)
        + panels(pictures, len(found.tradeoffs))
    )


def _tradeoff(panel: Tradeoff, number: int) -> str:
    title = f"{panel.y.title} against {panel.x.title}"
    return picture(
        (320, 270), f"tradeoff-{number}", title, panel.described, lambda axes: draw_tradeoff(axes, panel, panel.title)
    )
