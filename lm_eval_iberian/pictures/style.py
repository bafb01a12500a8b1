"""How pictures look: colours for light and dark, and a matplotlib figure as SVG and PNG, byte for byte the same again.

A figure is drawn once, in the colours of LIGHT. In the page its SVG stands inline, where each of these colours is
replaced by a CSS variable, so that it follows light and dark; texts stay texts, in the page's font.
The series colours are told apart by colour-blind readers (tests simulate it), and each has a marker and a dash of its own.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from lm_eval_iberian.scores.formats import short
from merge_hooks.texts import seen as seen  # by this name in tests of pages

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1b1f24", "#56606b", "#dde1e6", "#ffffff"
# After Okabe and Ito (2008), darkened to 3:1 and more on white; the dark theme's are in page.css.
SERIES = ("#0067a5", "#c44e00", "#00795c", "#a3387c", "#8a6500", "#2f8fc4", "#6b4fbb")
# Differences to parents take other colours than the lines of merges: a colour means one thing in a page.
PARENTS = (2, 3, 4, 6, 5, 0, 1)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (1, 1)), (0, (8, 2)), (0, (3, 3)))
# Of horizontal lines: parents and baselines.
RULES: tuple[Any, ...] = ((0, (7, 4)), (0, (1.5, 3)), (0, (7, 3, 1.5, 3)), (0, (12, 3)), (0, (3, 6)))
VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--panel",
    **{colour: f"--series-{number}" for number, colour in enumerate(SERIES)},
}  # fmt: skip
RC: dict[str, Any] = {
    "svg.hashsalt": "iberian", "svg.fonttype": "none", "text.parse_math": False, "font.family": "DejaVu Sans",
    "font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.labelsize": 10, "xtick.labelsize": 10, "ytick.labelsize": 10, "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED, "text.color": INK, "axes.titlecolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": GRID,
    "grid.linewidth": 0.8, "axes.linewidth": 0.8, "figure.facecolor": PAPER, "axes.facecolor": "none",
    "figure.constrained_layout.h_pad": 0.07, "figure.constrained_layout.w_pad": 0.06, "lines.linewidth": 1.8, "lines.markersize": 5.5, "figure.dpi": 100,
}  # fmt: skip
PNG_DPI = 200


def parent_colour(slot: int) -> int:
    """The series colour of differences to a parent of this slot."""
    return PARENTS[slot % len(PARENTS)]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure.

    Args:
        width, height: in CSS pixels at scale 1; a unit of text of 10 is then 10 pixels high.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72), layout="constrained")


def title(axes: Axes, text: str) -> None:
    """A panel's title, cut to its width."""
    axes.set_title(short(text, 38))


def legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend below everything, as wide as the figure has room; the figure grows by what it takes beyond two lines."""
    names = [short(name, 70) for name in names]
    room = int(figure.get_figwidth() * 72 // (6.3 * max(map(len, names), default=1) + 55))
    columns = max(1, min(len(names), room))
    lines = -(-len(names) // columns)
    figure.set_figheight(figure.get_figheight() + max(0, lines - 2) * 15 / 72)
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)


def drawing() -> Any:
    """The context in which all is drawn and written."""
    import matplotlib

    return matplotlib.rc_context(cast(Any, RC))


def as_png(figure: Figure) -> bytes:
    """The figure on white, without dates or versions."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return out.getvalue()


def as_svg(figure: Figure) -> str:
    """The figure on white, a file of its own."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return seen(out.getvalue())


def inline(svg: str, name: str, title: str, description: str) -> str:
    """An SVG file's text as an element of the page: its own ids, the page's colours and font, and words for who
    cannot see it.

    Args:
        name: a slug, unique in the page.
        title, description: escaped already.
    """
    body = svg[svg.index("<svg") :]
    head, _, rest = body.partition(">")
    # Its style sheet would be the whole page's; what it says is in page.css.
    rest = re.sub(r"<(metadata|style)\b.*?</\1>", "", rest, flags=re.DOTALL)
    # The background of the figure is the page's.
    rest = re.sub(r'(<g id="patch_1">\s*<path [^>]*?style=")fill: #ffffff', r"\1fill: none", rest, count=1)
    for colour, variable in VARIABLES.items():
        rest = rest.replace(colour, f"var({variable})")
    rest = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", rest)
    rest = re.sub(r'\bid="', f'id="{name}-', rest)
    rest = re.sub(r"url\(#", f"url(#{name}-", rest)
    rest = re.sub(r'href="#', f'href="#{name}-', rest)
    box = re.search(r'viewBox="([^"]+)"', head)
    size = box.group(1) if box else "0 0 340 250"
    width = size.split()[2]
    return (
        f'<svg viewBox="{size}" style="max-width:{float(width) * 1.2:.0f}px" role="img" '
        f'aria-labelledby="{name}-title {name}-about">'
        f'<title id="{name}-title">{title}</title><desc id="{name}-about">{description}</desc>'
        f"{rest}"
    )
