"""report.html: one file, no request; for phones and desks, light and dark, screen readers and paper.

What stands in it is in page.html.j2; here are the figures and what the template is told. Its one script, page.js, filters
and sorts; the page's policy lets that script run and no other, by its hash, and all is said without it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from lm_eval_iberian.benchmarks.benchmark import Benchmark
from lm_eval_iberian.compare.apart import Apart, apart
from lm_eval_iberian.compare.differences import Compared
from lm_eval_iberian.compare.result import what_bold_says
from lm_eval_iberian.compare.tables import DIFFERENCES_KEY, averages_of
from lm_eval_iberian.pictures import style
from lm_eval_iberian.pictures.curves import Panel, draw_panel
from lm_eval_iberian.pictures.forest import draw_forest
from lm_eval_iberian.pictures.found_by import anchors, document_id, facets, link, of_columns, tags
from lm_eval_iberian.pictures.gathered import Gathered
from lm_eval_iberian.pictures.head import axes, facts, notices
from lm_eval_iberian.pictures.tradeoff import Tradeoff, draw_tradeoff, why_none
from lm_eval_iberian.runs.point import SweepPoint
from lm_eval_iberian.scores.formats import key
from lm_eval_iberian.scores.notes import notes_of
from merge_hooks.files import slug
from merge_hooks.texts import seen

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def page(found: Gathered) -> str:
    """The whole page. Call it within `style.drawing()`."""
    examples = {task: [one for one in found.examples if one.task == task]
                for task in dict.fromkeys(one.task for one in found.examples)}  # fmt: skip
    sections = {
        "curves": _curves(found), "tradeoff": _tradeoffs(found),
        "methods": found.heat if found.heat.rows and found.heat.columns else None, "tables": found.report.tables,
        "differences": _differences(found), "answers": examples, "apart": _apart(found), "signatures": found.run.points,
    }  # fmt: skip
    script = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    points = anchors(found.run)
    return _environment().get_template("page.html.j2").render(
        found=found, sections=sections, axes=axes(found.run), facts=facts(found.run), notices=list(notices(found)),
        swept=found.shape.swept or "", bold=what_bold_says(found.results), key=key(found.report), stamps=_stamps, facets=facets(found.scores),
        anchors=points | {found.compact(name): anchor for name, anchor in points.items()},
        benchmarks=_benchmarks(found), script=Markup(script),  # our own file
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        notes=notes_of(found.report, found.compact),
    )  # fmt: skip


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
        # Each text that is printed: what would not be seen, or would turn the direction of the rest, is shown.
        finalize=lambda value: value if isinstance(value, Markup) else seen(str(value)),
    )  # fmt: skip
    made.filters |= {"breakable": breakable, "tags": tags}
    made.globals |= {
        "DASHES": list(map(_dasharray, style.DASHES)), "RULES": list(map(_dasharray, style.RULES)),
        "document_id": document_id, "link": link,
    }  # fmt: skip
    return made


def breakable(name: str) -> Markup:
    """A name, escaped, that may be broken after slashes and underscores."""
    return escape(seen(name)).replace("/", Markup("/<wbr>")).replace("_", Markup("_<wbr>"))


def _dasharray(dash: Any) -> str:
    """matplotlib's dash as SVG's; "" for a whole line."""
    return "" if dash == "-" else " ".join(f"{2 * one:g}" for one in dash[1])


def _figure(size: tuple[float, float], name: str, title: str, said: str, draw: Callable[[Axes], None]) -> Markup:
    """One picture, drawn by `draw(axes)`. Each is by itself, so that a phone shows one below the other."""
    figure = style.new_figure(*size)
    draw(figure.subplots())
    return Markup(style.inline(style.as_svg(figure), name, escape(seen(title)), escape(seen(said))))


@dataclass(frozen=True)
class Drawn:
    """A picture, and by what it is found."""

    drawing: Markup
    tags: Markup


def _benchmarks(found: Gathered) -> dict[str, list[Benchmark]]:
    """task -> the benchmark that it counts in."""
    return {task: [benchmark] for column in found.scores.columns for benchmark in column.benchmarks
            for task in (*benchmark.tasks, *benchmark.upstream)}  # fmt: skip


def _apart(found: Gathered) -> Apart | None:
    """What sets the rows apart; None where there is one row, or nothing sets them apart."""
    made = apart(found.run.points)
    return made if len(made.rows) > 1 and made.keys else None


def _curves(found: Gathered) -> list[tuple[str, list[Drawn]]]:
    """(title, figures) of each row."""
    swept = found.shape.swept or ""

    def figure(panel: Panel) -> Drawn:
        name, title = f"curve-{slug(panel.column.key + panel.part)}", f"{panel.column.title} by {swept}"
        drawn = partial(draw_panel, panel=panel, x_label=swept, title=panel.title)
        return Drawn(_figure((320, 236), name, title, panel.described, drawn), of_columns(panel.column))

    return [(row.title, [figure(panel) for panel in row.panels]) for row in found.rows]


def _tradeoffs(found: Gathered) -> dict[str, Any] | None:
    """The pictures, or why there are none; None where nothing was measured."""
    figures = [_tradeoff(number, panel) for number, panel in enumerate(found.tradeoffs)]
    why = "" if figures else why_none(found.scores)
    return {"figures": figures, "why": why} if figures or why else None


def _tradeoff(number: int, panel: Tradeoff) -> Drawn:
    title = f"{panel.y.title} against {panel.x.title}"
    drawn = partial(draw_tradeoff, panel=panel, title=panel.title)
    figure = _figure((320, 270), f"tradeoff-{number}", title, panel.described, drawn)
    return Drawn(figure, of_columns(panel.x, panel.y))


@dataclass(frozen=True)
class Against:
    """A merge's differences to one parent, task by task, and the parent's colour."""

    parent: str
    colour: int
    rows: Sequence[Compared]

    @property
    def reach(self) -> float:
        """How far the widest interval goes from 0."""
        ends = [(one.value, one.test.low, one.test.high) if one.test else (one.value,) for one in self.rows]
        return max(1.0, *(abs(end) for of_one in ends for end in of_one))

    @property
    def outcome(self) -> str:
        """In how many tasks the merge is better, worse, or neither: "1 better, 2 not significant"."""
        tests = [one.test for one in self.rows if one.benchmark]
        sure = [test.value > 0 for test in tests if test is not None and test.significant()]
        counts = {
            "better": sum(sure),
            "worse": len(sure) - sum(sure),
            "not significant": sum(test is not None and not test.significant() for test in tests),
            "not tested": tests.count(None),
        }
        return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def _differences(found: Gathered) -> dict[str, Any] | None:
    """What is said of the differences: None where nothing was compared."""
    _, pairs = averages_of(found.compared)
    if not pairs:
        return None
    used = {found.slots.get(parent) for _, parent in pairs}
    merges: dict[str, list[Against]] = {}
    for merge, parent in pairs:
        rows = [one for one in found.compared if (one.merge, one.parent) == (merge, parent)
                and (one.benchmark or len(one.column.benchmarks) > 1)]  # fmt: skip
        merges.setdefault(merge, []).append(Against(parent, style.parent_colour(found.slots.get(parent, 0)), rows))
    return {
        "key": DIFFERENCES_KEY, "merges": merges,
        "legend": [(style.parent_colour(slot), said) for slot, said in found.rules.items() if slot in used],
        "figures": [_forest(found, number, *panel) for number, panel in enumerate(found.forests)],
    }  # fmt: skip


def _forest(found: Gathered, number: int, title: str, compared: Sequence[Compared]) -> Drawn:
    names = found.short_names
    said = "; ".join(f"{names[one.merge]} minus {one.parent}: {one.value:+.1f} {one.mark}".strip() for one in compared)
    size = (320, 84 + 22 * len({one.merge for one in compared}))
    drawn = partial(draw_forest, found=compared, names=names, slots=found.slots, title=title)
    figure = _figure(size, f"forest-{number}", f"{title}: differences to the parents", said, drawn)
    return Drawn(figure, of_columns(*(one.column for one in compared[:1])))


def _stamps(point: SweepPoint) -> list[str]:
    """A point's signatures."""
    stamps = {str((run["config"].get("iberian") or {}).get("signature", "")) for run in point.results} - {""}
    return sorted(stamps) or [point.signature or "–"]
