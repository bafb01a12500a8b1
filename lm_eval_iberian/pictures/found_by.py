"""By what the parts of the page are found: their languages and benchmarks, and the names of points, documents.

The page says them as attributes (`data-language`, `data-benchmark`, `id`); page.js reads them to filter, and a link
`report.html#point-NAME` leads to them without any script.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from lm_eval_iberian.benchmarks.benchmark import Benchmark
from lm_eval_iberian.benchmarks.languages import language_names
from lm_eval_iberian.compare.columns import Column, Scores
from lm_eval_iberian.runs.run import SweepRun
from merge_hooks.files import slug
from merge_hooks.texts import one_line


def tags(benchmarks: Iterable[Benchmark]) -> Markup:
    """The attributes of a part that shows these benchmarks; nothing for a part that shows none.

    A line each: no name has a line's end in it.
    """
    found = list(benchmarks)
    if not found:
        return Markup("")
    languages, names = ("\n".join(dict.fromkeys(one_line(word) for word in words)) for words in (
        [one.language or "all" for one in found], [one.name for one in found]
    ))  # fmt: skip
    return Markup(' data-language="{}" data-benchmark="{}"').format(languages, names)


def of_columns(*columns: Column) -> Markup:
    """The attributes of a part that shows these columns."""
    return tags(benchmark for column in columns for benchmark in column.benchmarks)


def facets(scores: Scores) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """What the page can be filtered by: (attribute, title, its values as (value, said)); one value is no choice."""
    benchmarks = [benchmark for column in scores.columns for benchmark in column.benchmarks]
    languages = [(one or "all", language_names().get(one, one) or "all") for one in scores.languages]
    names = [(one, one) for one in sorted({one_line(benchmark.name) for benchmark in benchmarks})]
    found = [("language", "Language", languages), ("benchmark", "Benchmark", names)]
    return [facet for facet in found if len(facet[2]) > 1]


def anchors(run: SweepRun) -> dict[str, str]:
    """point -> the id of its row under "What was measured"."""
    return _ids("point", [point.name for point in run.points])


def document_id(task: str, number: int) -> str:
    """The id of a document."""
    return f"document-{slug(task)}-{number}"


def _ids(kind: str, names: Sequence[str]) -> dict[str, str]:
    """An id each, all different: slugs of two names may be one."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        number, free = 2, f"{kind}-{slug(name)}"
        while free in taken:
            number, free = number + 1, f"{kind}-{slug(name)}-{number}"
        taken.add(free)
        found[name] = free
    return found


def link(identifier: str, name: Markup) -> Markup:
    """A link to a part of this page."""
    return Markup('<a href="#{}">{}</a>').format(escape(identifier), name)
