"""Pieces of HTML: escaped texts, tables that a screen reader can read, long texts folded away.

Every text of a recipe, a document or a model passes through `text`. The page forbids scripts and every request by its
Content-Security-Policy as well, so that nothing happens even where an escape was forgotten.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from pathlib import Path

from lm_eval_iberian.pictures.style import DASHES, RULES, seen

FOLDED = 280  # characters of an answer before it is folded
LONGEST = 20_000  # characters of an answer that go into the page at all


def text(value: object) -> str:
    """Any text, escaped for an element or an attribute."""
    return html.escape(seen(str(value)), quote=True)


def name(value: str) -> str:
    """A name: it may be broken after slashes and underscores."""
    return re.sub(r"([/_])", r"\1<wbr>", text(value))


def long_text(value: str) -> str:
    """An untrusted text as it stands, line breaks kept; a long one opens on demand."""
    left = f"\n[... {len(value) - LONGEST:,} more characters]" if len(value) > LONGEST else ""
    value = value[:LONGEST] + left
    if not value.strip():
        return '<p class="empty">(empty)</p>'
    if len(value) <= FOLDED and value.count("\n") < 8:
        return f'<div class="said" dir="auto">{text(value)}</div>'
    start = " ".join(value[:FOLDED].split())
    return (
        f'<details class="said"><summary dir="auto">{text(start)} … <span class="more">all '
        f'{len(value):,} characters</span></summary><div dir="auto">{text(value)}</div></details>'
    )


def table(caption: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], kind: str = "") -> str:
    """A table whose first column names its rows. Everything given is HTML already, but for the caption.

    Args:
        heads: of all columns, the first included.
        rows: (head, cells); a cell that begins with "<td" is taken whole.
    """
    top = "".join(f'<th scope="col">{head}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{head}</th>'
        + "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
        for head, cells in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(caption)}"><table class="{kind}">'
        f"<caption>{text(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def fold(summary: str, body: str) -> str:
    """Something that opens on demand. Both are HTML already."""
    return f'<details class="fold"><summary>{summary}</summary>{body}</details>'


def section(slug: str, title: str, *parts: str) -> str:
    """A section with its heading; "" where it would be empty."""
    body = "".join(part for part in parts if part)
    return (
        f'<section id="{slug}" aria-labelledby="{slug}-h"><h2 id="{slug}-h">{text(title)}</h2>{body}</section>'
        if body
        else ""
    )


def document(title: str, body: str) -> str:
    """The whole page. No script, no request: its policy says so."""
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{text(title)}</title>
<style>
{style}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def slug(value: str) -> str:
    """A text as part of an id or a file's name."""
    return re.sub(r"[^\w.+-]+", "_", value)[:100]


def swatch(slot: int, dashed: bool = True) -> str:
    """A line's colour, dash and marker, for a legend of the page."""
    colour = f"var(--series-{slot})"
    marks = _stroke(colour, DASHES[slot] if dashed else "-") + _MARKS[slot].replace("COLOUR", colour)
    return f'<svg viewBox="0 0 44 16" aria-hidden="true">{marks}</svg>'


def parent_swatch(slot: int, dot: bool) -> str:
    """A parent's dash, with its marker in scatters."""
    mark = f'<g transform="translate(22 8)"><path d="{_star(slot)}" fill="var(--muted)"/></g>' if dot else ""
    return f'<svg viewBox="0 0 44 16" aria-hidden="true">{"" if dot else _stroke("var(--muted)", RULES[slot % len(RULES)])}{mark}</svg>'


def _stroke(colour: str, dash: object) -> str:
    dashes = "" if isinstance(dash, str) else f' stroke-dasharray="{" ".join(f"{2 * one:g}" for one in dash[1])}"'  # type: ignore[index]
    return f'<line x1="1" y1="8" x2="43" y2="8" stroke="{colour}" stroke-width="2"{dashes}/>'


_MARKS = (
    '<circle cx="22" cy="8" r="4.5" fill="COLOUR"/>', '<rect x="18" y="4" width="8" height="8" fill="COLOUR"/>',
    '<path d="M22 3l5 9h-10z" fill="COLOUR"/>', '<path d="M22 2.5l5.5 5.5l-5.5 5.5l-5.5-5.5z" fill="COLOUR"/>',
    '<path d="M22 13l5-9h-10z" fill="COLOUR"/>', '<path d="M20 3h4v3h3v4h-3v3h-4v-3h-3v-4h3z" fill="COLOUR"/>',
    '<path d="M18 4l8 8M26 4l-8 8" stroke="COLOUR" stroke-width="3"/>',
)  # fmt: skip


def _star(slot: int) -> str:
    """matplotlib's "*", "p", "h", "8", "d", drawn by hand."""
    corners = (5, 5, 6, 8, 4)[slot % 5]
    inner = 0.4 if slot % 5 == 0 else None
    points = []
    for step in range(corners):
        for turn, radius in ((0.0, 7.0), (0.5, 7.0 * inner)) if inner else ((0.0, 6.5),):
            angle = 2 * math.pi * (step + turn) / corners - math.pi / 2
            points.append(f"{radius * math.cos(angle):.2f} {radius * math.sin(angle):.2f}")
    return "M" + "L".join(points) + "z"


def bar(value: float, low: float, high: float, reach: float, slot: int, sure: bool) -> str:
    """An interval about zero as a small picture; hollow where it is not significant. Decoration: its row says it in figures."""

    def place(figure: float) -> str:
        return f"{75 + 72 * max(-1.0, min(1.0, figure / reach)):.1f}"

    colour = f"var(--series-{slot})"
    return (
        '<svg class="bar" viewBox="0 0 150 18" aria-hidden="true"><line class="zero" x1="75" y1="0" x2="75" y2="18"/>'
        f'<line class="span" x1="{place(low)}" y1="9" x2="{place(high)}" y2="9" stroke="{colour}"/>'
        f'<circle cx="{place(value)}" cy="9" r="4" stroke="{colour}" fill="{colour if sure else "var(--panel)"}"/></svg>'
    )
