"""The page's heat map, which is a table, and its tables of scores."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval_iberian.pictures import html
from lm_eval_iberian.pictures.gathered import Gathered
from lm_eval_iberian.pictures.heat import Heat
from lm_eval_iberian.pictures.html import name, text
from lm_eval_iberian.scores.formats import grouped, key
from lm_eval_iberian.scores.tables import BEST, SECOND, Cell, Table

FOLDED_ROWS = 16  # of a table of details, before it is folded


def heat(heat: Heat) -> str:
    if not heat.rows or not heat.columns:
        return ""
    heads = [text(heat.head), *(f"{text(c.language or 'all')}<br>{text(c.kind_title)}" for c in heat.columns)]
    rows = []
    for row_name, role, tiles in heat.rows:
        cells = [
            '<td class="none">–</td>' if tile.value is None else
            f'<td style="--p:{100 * tile.place:.0f}">{"<strong>" if tile.best else ""}{tile.value:.1f}'
            f'{tile.sign}{"</strong>" if tile.best else ""}</td>' for tile in tiles
        ]  # fmt: skip
        rows.append((named(row_name, role), cells))
    left = f'<p class="flag">{heat.left_out} more merges are in the tables only.</p>' if heat.left_out else ""
    return (
        '<p class="about">The stronger the colour, the better within its column; bold is the best merge. A column\'s colours span at least the width '
        "of a 95 % interval, so that noise stays pale. † is not of whole benchmarks, ‡ has answers that should be looked at first, § was prompted otherwise than most of its column (the head of the page names them).</p>"
        + left
        + html.table("Scores by merge and column", heads, rows, "heat")
    )


def named(point: str, role: str) -> str:
    """A row's name, with what it is where that is not a merge."""
    said = "" if role in ("merge", "model", "") or role == point else f'<span class="role">{text(role)}</span>'
    return name(point) + said


def tables(found: Gathered) -> str:
    """The averages, then benchmark by benchmark; long ones are folded."""
    report = found.report
    if not report.tables:
        return ""
    open_ones = [table for table in report.tables if not _is_detail(table) or len(table.rows) <= FOLDED_ROWS]
    shown = "".join(_table(found, table) for table in open_ones)
    folded = "".join(
        html.fold(text(table.title), _table(found, table)) for table in report.tables if table not in open_ones
    )
    notes = "".join(_notes(found, point, grouped(said)) for point, said in report.notes.items())
    return f'<p class="about">{text(key(report))}</p><div class="tables">{shown}</div>{folded}{notes}'


def _is_detail(table: Table) -> bool:
    """Whether a table is of single benchmarks, not of averages."""
    return all(len(counted) == 1 and head != counted[0].language
               for head, counted in zip(table.heads, table.counted, strict=True))  # fmt: skip


def _notes(found: Gathered, point: str, said: Sequence[str]) -> str:
    lines = "".join(f"<li>{name(line)}</li>" for line in said)
    return html.fold(f"Notes on {name(found.compact(point))} ({len(said)})", f"<ul>{lines}</ul>")


def _table(found: Gathered, table: Table) -> str:
    rows = [(named(found.compact(point), role), [_prompt(prompt), *(_cell(cell) for cell in cells)])
            for (point, role, cells), prompt in zip(table.rows, table.prompts, strict=True)]  # fmt: skip
    return html.table(table.title, [text(found.heat.head), "prompt", *(text(one) for one in table.heads)], rows)


def _prompt(word: str) -> str:
    return f'<td class="prompt">{text(word)}</td>'


def _cell(cell: Cell) -> str:
    shown = {BEST: f"<strong>{cell.shown}</strong>", SECOND: f'<span class="second">{cell.shown}</span>'}.get(
        cell.rank, cell.shown
    )
    return shown + cell.signs + (f' <span class="spread">±{cell.spread:.2f}</span>' if cell.spread is not None else "")
