"""The page's differences to the parents: a picture a column, and task by task with intervals."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval_iberian.compare.differences import Compared
from lm_eval_iberian.compare.tables import DIFFERENCES_KEY, averages_of
from lm_eval_iberian.pictures import forest, html, style
from lm_eval_iberian.pictures.gathered import Gathered
from lm_eval_iberian.pictures.html import name, text
from lm_eval_iberian.pictures.page_pictures import PANEL_SIZE, panels, picture


def differences(found: Gathered) -> str:
    _, rows = averages_of(found.compared)
    if not rows:
        return ""
    parents = dict.fromkeys(parent for _, parent in rows)
    named = {
        slot: said for slot, said in found.rules.items() if any(found.slots.get(parent) == slot for parent in parents)
    }
    swatches = "".join(
        f"<li>{html.swatch(style.parent_colour(slot), dashed=False)}<span>minus {name(said)}</span></li>"
        for slot, said in named.items()
    )
    pictures = "".join(_forest(found, number, *panel) for number, panel in enumerate(found.forests))
    body = [f'<p class="about">{text(DIFFERENCES_KEY)} Marks in the pictures are hollow where a difference is not significant.</p>',
            f'<ul class="legend">{swatches}</ul>{panels(pictures, 3)}', "<h3>Task by task</h3>"]  # fmt: skip
    for merge in dict.fromkeys(merge for merge, _ in rows):
        mine = [parent for one, parent in rows if one == merge]
        body.append(_by_task(found, merge, mine))
    return "".join(body)


def _forest(found: Gathered, number: int, title: str, compared: Sequence[Compared]) -> str:
    names = found.short_names
    merges = {one.merge for one in compared}
    said = "; ".join(f"{names[one.merge]} minus {one.parent}: {one.value:+.1f} {one.mark}".strip() for one in compared)
    size = (PANEL_SIZE[0], 84 + 22 * len(merges))
    return picture(size, f"forest-{number}", f"{title}: differences to the parents", said,
                    lambda axes: forest.draw_forest(axes, compared, names, found.slots, title))  # fmt: skip


def _by_task(found: Gathered, merge: str, parents: Sequence[str]) -> str:
    """A merge's differences to its parents, folded."""
    mine = [one for one in found.compared if one.merge == merge]
    tables, counts = [], []
    for parent in parents:
        compared = [one for one in mine if one.parent == parent and (one.benchmark or len(one.column.benchmarks) > 1)]
        ends = [
            end for one in compared for end in ((one.value, one.test.low, one.test.high) if one.test else (one.value,))
        ]
        reach = max(1.0, *map(abs, ends))
        slot = style.parent_colour(found.slots.get(parent, 0))
        rows = [(_what(one), _difference_cells(one, reach, slot)) for one in compared]
        tables.append(
            html.table(f"{merge} minus {parent}", ["", "difference", "95 % interval", "", "p", "documents"], rows)
        )
        sure = sum(one.test is not None and one.test.significant() for one in compared if one.benchmark)
        counts.append(
            f"minus {name(parent)}: {sure} of {sum(one.benchmark is not None for one in compared)} significant"
        )
    return html.fold(f'{name(found.compact(merge))} <span class="ns">{"; ".join(counts)}</span>', "".join(tables))


def _what(one: Compared) -> str:
    return text(one.what) if one.benchmark else f"<strong>{text(one.what)}</strong>"


def _difference_cells(one: Compared, reach: float, slot: int) -> list[str]:
    shown = f"{one.value:+.2f}" + one.signs
    if one.test is None:
        return [shown, f'<td class="words" colspan="4">no test: {text(one.reason)}</td>']
    test = one.test
    sure = test.significant()
    way = "up" if test.value > 0 else "down"
    return [f'<span class="{way if sure else "ns"}">{shown}</span>', f"[{test.low:+.2f}, {test.high:+.2f}]",
            html.bar(test.value, test.low, test.high, reach, slot, sure),
            (f"{test.p:.3f}" if test.p >= 0.001 else "&lt; 0.001") + ("" if sure else ' <span class="ns">n.s.</span>'),
            f"{test.documents:,}"]  # fmt: skip
