"""report.html: one file, no script, no request; for phones and desks, light and dark, screen readers and paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lm_eval_iberian.pictures import forest, html, style
from lm_eval_iberian.pictures.answers import Example
from lm_eval_iberian.pictures.columns import Scores
from lm_eval_iberian.pictures.curves import Panel, draw_panel
from lm_eval_iberian.pictures.differences import Compared
from lm_eval_iberian.pictures.gathered import Gathered
from lm_eval_iberian.pictures.heat import Heat
from lm_eval_iberian.pictures.head import head
from lm_eval_iberian.pictures.html import name, section, text
from lm_eval_iberian.pictures.tables import DIFFERENCES_KEY, averages_of
from lm_eval_iberian.pictures.tradeoff import PARENT_MARKERS, Tradeoff, draw_tradeoff
from lm_eval_iberian.report import BEST, SECOND, Cell, Report, Table
from lm_eval_iberian.report_formats import grouped, key

PANEL_SIZE = (320, 236)


def page(found: Gathered) -> str:
    """The whole page."""
    sections = [
        ("curves", "The sweep", _curves(found)),
        ("tradeoff", "Trade-off", _tradeoffs(found)),
        ("methods", "Every merge at a glance", _heat(found.heat)),
        ("tables", "Tables", _tables(found.report, found.scores)),
        ("differences", "Differences to the parents", _differences(found)),
        ("answers", "Answers side by side", _answers(found)),
        ("signatures", "What was measured", _signatures(found)),
    ]
    there = [(slug, title, body) for slug, title, body in sections if body]
    links = "".join(f'<li><a href="#{slug}">{text(title)}</a></li>' for slug, title, _ in there)
    body = "".join(section(slug, title, part) for slug, title, part in there)
    return html.document(
        f"{found.run.name}: a sweep of merges",
        f'<a class="skip" href="#content">To the content</a>{head(found)}'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main id="content">{body}</main>'
        "<footer><p>Made by <code>iberian report</code> from the run folder alone; the same store gives the same page. "
        "Pictures (SVG, PNG) and tables (Markdown, CSV, LaTeX) lie beside it.</p></footer>",
    )


def _picture(size: tuple[float, float], slug: str, title: str, said: str, draw: object) -> str:
    """A figure element with one picture drawn by `draw(axes)`."""
    figure = style.new_figure(*size)
    draw(figure.subplots())  # type: ignore[operator]
    return f"<figure>{style.inline(style.as_svg(figure), slug, title, said)}</figure>"


def _curves(found: Gathered) -> str:
    if not found.rows:
        return ""
    swept = found.shape.swept or ""
    parts = [
        f'<p class="about">Along x: {text(swept)}. Bands are 95 % intervals over documents; horizontal lines are the '
        "parents. Panels of one kind span the same number of points, so that slopes compare. Hollow marks are not of "
        "whole benchmarks.</p>",
        _legend(found.lines, found.rules),
    ]
    if found.left_out_lines:
        parts.append(f'<p class="flag">{len(found.left_out_lines)} more lines are in the tables only: '
                     f"{text(', '.join(found.left_out_lines))}.</p>")  # fmt: skip
    for row in found.rows:
        drawn = "".join(_curve(panel, swept) for panel in row.panels)
        parts.append(f"<h3>{text(row.title)}</h3>{_panels(drawn, len(row.panels))}")
    return "".join(parts) + _columns(found)


def _panels(drawn: str, count: int) -> str:
    """Pictures beside each other where there is room."""
    return f'<div class="panels" style="--n:{2 if count == 4 else 3}">{drawn}</div>'


def _columns(found: Gathered) -> str:
    """What the columns are the means of, where that is not the suite's own average."""
    said = "".join(f"<li>{name(column.about)}</li>" for column in found.scores.columns if column.about)
    return f'<details class="fold"><summary>What the columns count</summary><ul>{said}</ul></details>' if said else ""


def _curve(panel: Panel, swept: str) -> str:
    slug, title = f"curve-{html.slug(panel.column.key)}", f"{panel.column.title} by {swept}"
    return _picture(PANEL_SIZE, slug, title, panel.described, lambda axes: draw_panel(axes, panel, swept, panel.title))


def _legend(lines: dict[int, str], rules: dict[int, str], dots: bool = False) -> str:
    entries = [(html.swatch(slot, line=True), named) for slot, named in lines.items()]
    entries += [(html.parent_swatch(slot, dots), named) for slot, named in rules.items()]
    return '<ul class="legend">' + "".join(f"<li>{mark}<span>{name(named)}</span></li>" for mark, named in entries) + "</ul>"


def _tradeoffs(found: Gathered) -> str:
    if not found.tradeoffs:
        return ""
    pictures = "".join(_tradeoff(panel, number) for number, panel in enumerate(found.tradeoffs))
    sized = f"The larger a mark, the larger {found.shape.swept}. " if found.shape.swept else ""
    return (
        f'<p class="about">Up and to the right is better. The dotted line is the Pareto front: no point beats those on it in '
        f"both (outlined). {text(sized)}</p>" + _legend(found.lines, found.rules, dots=True) + _panels(pictures, len(found.tradeoffs))
    )


def _tradeoff(panel: Tradeoff, number: int) -> str:
    title = f"{panel.y.title} against {panel.x.title}"
    return _picture((320, 270), f"tradeoff-{number}", title, panel.described, lambda axes: draw_tradeoff(axes, panel, panel.title))


def _heat(heat: Heat) -> str:
    if not heat.rows or not heat.columns:
        return ""
    heads = [text(heat.head), *(f"{text(c.language or 'all')}<br>{text(c.kind_title)}" for c in heat.columns)]
    rows = []
    for named, role, tiles in heat.rows:
        cells = [
            '<td class="none">–</td>' if tile.value is None else
            f'<td style="--p:{100 * tile.place:.0f}">{"<strong>" if tile.best else ""}{tile.value:.1f}'
            f'{tile.sign}{"</strong>" if tile.best else ""}</td>' for tile in tiles
        ]  # fmt: skip
        rows.append((_named(named, role), cells))
    left = f'<p class="flag">{heat.left_out} more merges are in the tables only.</p>' if heat.left_out else ""
    return (
        '<p class="about">The stronger the colour, the better within its column; bold is the best merge. A column\'s colours span at least the width '
        "of a 95 % interval, so that noise stays pale. † is not of whole benchmarks, ‡ has answers that are empty, looping or not a number.</p>"
        + left
        + html.table("Scores by merge and column", heads, rows, "heat")
    )


def _named(named: str, role: str) -> str:
    said = "" if role in ("merge", "model", "") or role == named else f'<span class="role">{text(role)}</span>'
    return name(named) + said


def _tables(report: Report, scores: Scores) -> str:
    parts = [_table(table) for table in report.tables]
    notes = []
    for model, said in report.notes.items():
        lines = "".join(f"<li>{text(line)}</li>" for line in grouped(said))
        notes.append(f"<details class=\"fold\"><summary>Notes on {name(model)} ({len(grouped(said))})</summary><ul>{lines}</ul></details>")
    shown = f'<div class="tables">{"".join(parts)}</div>'
    return "".join([f'<p class="about">{text(key(report))}</p>', shown, *notes]) if parts else ""


def _table(table: Table) -> str:
    rows = [(_named(named, role), [_cell(cell) for cell in cells]) for named, role, cells in table.rows]
    return html.table(table.title, ["model", *(text(one) for one in table.heads)], rows)


def _cell(cell: Cell) -> str:
    shown = {BEST: f"<strong>{cell.shown}</strong>", SECOND: f'<span class="second">{cell.shown}</span>'}.get(cell.rank, cell.shown)
    return shown + ("†" if cell.marked else "") + ("‡" if cell.flagged else "") + (f' <span class="spread">±{cell.spread:.2f}</span>' if cell.spread is not None else "")


def _differences(found: Gathered) -> str:
    columns, rows = averages_of(found.compared)
    if not rows:
        return ""
    parents = dict.fromkeys(parent for _, parent in rows)
    named = {slot: said for slot, said in found.rules.items() if any(found.slots.get(parent) == slot for parent in parents)}
    swatches = "".join(f"<li>{html.swatch(slot, line=True)}<span>minus {name(said)}</span></li>" for slot, said in named.items())
    pictures = "".join(_forest(found, number, *panel) for number, panel in enumerate(found.forests))
    body = [f'<p class="about">{text(DIFFERENCES_KEY)} Marks in the pictures are hollow where a difference is not significant.</p>',
            f'<ul class="legend">{swatches}</ul>{_panels(pictures, 3)}', "<h3>Task by task</h3>"]  # fmt: skip
    for merge, parent in rows:
        body.append(_by_task(found, merge, parent))
    return "".join(body)


def _forest(found: Gathered, number: int, title: str, compared: Sequence[Compared]) -> str:
    names = found.short_names
    merges = {one.merge for one in compared}
    said = "; ".join(f"{names[one.merge]} minus {one.parent}: {one.value:+.1f} {one.mark}".strip() for one in compared)
    size = (PANEL_SIZE[0], 84 + 22 * len(merges))
    return _picture(size, f"forest-{number}", f"{title}: differences to the parents", said,
                    lambda axes: forest.draw_forest(axes, compared, names, found.slots, title))  # fmt: skip


def _by_task(found: Gathered, merge: str, parent: str) -> str:
    mine = [one for one in found.compared if (one.merge, one.parent) == (merge, parent)]
    reach = max([abs(end) for one in mine for end in (one.value, *((one.test.low, one.test.high) if one.test else ()))] + [1.0])
    slot = found.slots.get(parent, 0)
    rows = [(_what(one), _difference_cells(one, reach, slot)) for one in mine]
    sure = sum(one.test is not None and one.test.significant() for one in mine if one.benchmark)
    counted = sum(one.benchmark is not None for one in mine)
    table = html.table(f"{merge} minus {parent}", ["", "difference", "95 % interval", "", "p", "documents"], rows)
    return (f'<details class="fold"><summary>{name(found.compact(merge))} <span class="ns">minus {name(parent)}: {sure} of {counted} '
            f"tasks differ significantly</span></summary>{table}</details>")  # fmt: skip


def _what(one: Compared) -> str:
    return text(one.what) if one.benchmark else f"<strong>{text(one.what)}</strong>"


def _difference_cells(one: Compared, reach: float, slot: int) -> list[str]:
    shown = f"{one.value:+.2f}" + ("" if one.whole else "†")
    if one.test is None:
        return [shown, f'<td class="words" colspan="4">no test: {text(one.reason)}</td>']
    test = one.test
    sure = test.significant()
    way = "up" if test.value > 0 else "down"
    return [f'<span class="{way if sure else "ns"}">{shown}</span>', f"[{test.low:+.2f}, {test.high:+.2f}]",
            html.bar(test.value, test.low, test.high, reach, slot, sure),
            (f"{test.p:.3f}" if test.p >= 0.001 else "&lt; 0.001") + ("" if sure else ' <span class="ns">n.s.</span>'),
            f"{test.documents:,}"]  # fmt: skip


def _answers(found: Gathered) -> str:
    if not found.examples:
        return ""
    parts = ['<p class="about">For each benchmark the documents on which the models are most divided, with the parents of the '
             "best merge, the best merges, and the worst. Answers are shown as they came.</p>"]  # fmt: skip
    for task in dict.fromkeys(example.task for example in found.examples):
        inside = "".join(_example(example, found.compact) for example in found.examples if example.task == task)
        parts.append(f'<details class="fold"><summary>{name(task)}</summary>{inside}</details>')
    return "".join(parts)


def _example(example: Example, compact: Callable[[str], str]) -> str:
    fields = "".join(f"<h5>{text(key)}</h5>{html.long_text(value)}" for key, value in list(example.document.items())[:8])
    target = f"<h5>right answer</h5>{html.long_text(example.target)}" if example.target else ""
    answers = "".join(
        f'<div><h5>{name(compact(one.point))}</h5><span class="verdict">{text(one.role)}{": " if one.verdict else ""}{text(one.verdict)}'
        f"</span>{html.long_text(one.answer)}</div>"
        for one in example.answers
    )
    return f'<h4>Document {example.number}</h4>{fields}{target}<div class="answers">{answers}</div>'


def _signatures(found: Gathered) -> str:
    rows = []
    for point in found.run.points:
        stamps = {str(run["config"].get("iberian", {}).get("signature", "")) for run in point.results}
        said = "<br>".join(f"<code>{text(one)}</code>" for one in sorted(stamps - {""})) or f"<code>{text(point.signature) or '–'}</code>"
        recipe = f'<details class="fold"><summary>recipe</summary><pre>{text(point.recipe)}</pre></details>' if point.recipe else ""
        rows.append((_named(point.name, point.role), [f'<td class="words">{said}{recipe}</td>']))
    return html.table("Signatures and recipes", ["point", "signature"], rows)


__all__ = ["PARENT_MARKERS", "page"]
