"""The page's texts: answers side by side, signatures and recipes. All of them untrusted."""

from __future__ import annotations

from collections.abc import Callable

from lm_eval_iberian.compare.answers import Example
from lm_eval_iberian.pictures import html
from lm_eval_iberian.pictures.gathered import Gathered
from lm_eval_iberian.pictures.html import name, text
from lm_eval_iberian.pictures.page_tables import FOLDED_ROWS, named
from lm_eval_iberian.runs.point import SweepPoint


def answers(found: Gathered) -> str:
    """Answers of several models to the same documents, folded by task."""
    if not found.examples:
        return ""
    parts = ['<p class="about">For each benchmark the documents on which the models are most divided, with the parents of the '
             "best merge, the best merges, and the worst. Answers are shown as they came.</p>"]  # fmt: skip
    for task in dict.fromkeys(example.task for example in found.examples):
        inside = "".join(_example(example, found.compact) for example in found.examples if example.task == task)
        parts.append(html.fold(name(task), inside))
    return "".join(parts)


def _example(example: Example, compact: Callable[[str], str]) -> str:
    fields = "".join(
        f"<h4>{text(key)}</h4>{html.long_text(value)}" for key, value in list(example.document.items())[:8]
    )
    target = f"<h4>right answer</h4>{html.long_text(example.target)}" if example.target else ""
    answers = "".join(
        f'<div><h4>{name(compact(one.point))}</h4><span class="verdict">{text(one.role)}{": " if one.verdict else ""}{text(one.verdict)}'
        f"</span>{html.long_text(one.answer)}</div>"
        for one in example.answers
    )
    return f'<h3>Document {example.number}</h3>{fields}{target}<div class="answers">{answers}</div>'


def signatures(found: Gathered) -> str:
    """What exactly was measured: each point's signatures and recipe."""
    rows = [(named(point.name, point.role), [f'<td class="words">{_stamps(point)}{_recipe(point)}</td>'])
            for point in found.run.points]  # fmt: skip
    table = html.table("Signatures and recipes", ["point", "signature"], rows, "words")
    return table if len(rows) <= FOLDED_ROWS else html.fold(f"Signatures and recipes of {len(rows)} points", table)


def _stamps(point: SweepPoint) -> str:
    stamps = {str((run["config"].get("iberian") or {}).get("signature", "")) for run in point.results} - {""}
    return "<br>".join(f"<code>{text(one)}</code>" for one in sorted(stamps) or [point.signature or "–"])


def _recipe(point: SweepPoint) -> str:
    return html.fold("recipe", f"<pre>{text(point.recipe)}</pre>") if point.recipe else ""
