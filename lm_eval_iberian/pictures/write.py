"""All files of a sweep's report, in RUN/report: the page, each picture as SVG and PNG, each table in three forms.

    report.html  curves.svg  tradeoff.svg  methods.svg  differences.svg (and .png)
    tables.md  tables.csv  tables.tex  tables.json  differences.md  .csv  .tex  scores.csv

The same store gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_iberian.compare import tables
from lm_eval_iberian.pictures import curves, forest, style, tradeoff
from lm_eval_iberian.pictures.gathered import Gathered, gather
from lm_eval_iberian.pictures.heat import draw_heat
from lm_eval_iberian.pictures.page import page
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.runs.run import SweepRun, read_sweep_run
from lm_eval_iberian.scores.formats import write as formatted
from merge_hooks.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "report"
PAGE = "report.html"


def write_report(folder: Path) -> Path:
    """Write everything that can be said of a run folder, finished or not.

    Returns:
        the path of report.html.
    Raises:
        SweepError: not a run folder, matplotlib is missing, or the disk is full.
    """
    return write_files(read_sweep_run(folder))


def write_files(run: SweepRun) -> Path:
    """As `write_report`, of a run that was read already."""
    found = gather(run)
    try:
        for name, text in _tables(found).items():
            write_whole(run.folder / FOLDER / name, text)
        _check_matplotlib(run.folder / FOLDER)
        with style.drawing():
            write_whole(run.folder / FOLDER / PAGE, page(found))
            for name, figure in _figures(found):
                write_whole(run.folder / FOLDER / f"{name}.svg", style.as_svg(figure))
                write_whole(run.folder / FOLDER / f"{name}.png", style.as_png(figure))
    except OSError as error:
        raise SweepError(f"{run.folder / FOLDER}: cannot be written ({error}).") from error
    return run.folder / FOLDER / PAGE


def _check_matplotlib(folder: Path) -> None:
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise SweepError(
            f"The tables are in {folder}; the page and its pictures need matplotlib. Install it: pip install "
            "'lm_eval_iberian[plots]', then `iberian report` writes them."
        ) from None


def _tables(found: Gathered) -> dict[str, str]:
    forms = {"md": "markdown", "csv": "csv", "tex": "latex", "json": "json"}
    made = {f"tables.{ending}": formatted(found.report, form) for ending, form in forms.items()}
    made["scores.csv"] = tables.score_csv(found.scores)
    if found.compared:
        made["differences.csv"] = tables.differences_csv(found.compared)
        made["differences.md"] = tables.differences_markdown(found.compared)
        made["differences.tex"] = tables.differences_latex(found.compared)
    return made


def _figures(found: Gathered) -> Iterator[tuple[str, Figure]]:
    """The pictures for papers: everything of a kind on one page."""
    if found.rows:
        yield "curves", curves.draw_page(found.rows, found.shape.swept or "", found.lines, found.rules)
    if found.tradeoffs:
        yield "tradeoff", tradeoff.draw_page(found.tradeoffs, found.lines, found.rules)
    if found.heat.rows and found.heat.columns:
        yield "methods", draw_heat(found.heat)
    if found.forests:
        used = {found.slots[one.parent] for _, panel in found.forests for one in panel}
        named = {slot: said for slot, said in found.rules.items() if slot in used}
        yield "differences", forest.draw_page(found.forests, found.short_names, found.slots, named)
