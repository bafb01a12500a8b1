"""`iberian report RESULTS...`: the paper's tables from lm_eval's results files; of a run folder, all of a sweep."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from lm_eval_iberian.commands.habits import json_option
from lm_eval_iberian.commands.terminal import echo, note
from lm_eval_iberian.scores.formats import FORMATS
from lm_eval_iberian.scores.tables import report_files


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="markdown",
    show_default=True,
)
@click.option(
    "--against",
    metavar="paper|FILE",
    help="Put published figures beside yours: the paper's, a CSV file's, or a leaderboard's JSON (EuroEval, La Leaderboard).",
)
@json_option("The same as --format json.")
@click.option("--normalised", is_flag=True, help="0 is chance, 100 a full score, as IberoBench reports.")
def report(results: tuple[Path, ...], form: str, against: str | None, as_json: bool, normalised: bool) -> None:
    """Tables of averages and benchmarks from RESULTS: lm_eval's results files, or folders that hold them.

    Files of one measurement are one row: one file for every task, several runs of one task, or both. In folders every
    results file is read, whatever its name; what is left out is named.

    For the run folder of a sweep the tables are printed, and report.html with all pictures is written into its
    `report` folder.
    """
    from lm_eval_iberian.runs.run import is_sweep_run
    from lm_eval_iberian.scores.formats import write
    from lm_eval_iberian.scores.results import SuiteError

    form = "json" if as_json else form
    if against and normalised:
        raise click.UsageError("--against and --normalised: published figures are not normalised.")
    if any(is_sweep_run(path) for path in results):
        return _sweep(results, form, against, normalised)
    try:
        made = report_files(results, against, normalised)
    except SuiteError as error:
        raise click.ClickException(str(error)) from None
    return echo(write(made, form, _width()), nl=False)


def _sweep(given: tuple[Path, ...], form: str, against: str | None, normalised: bool) -> None:
    """Print a sweep's tables, and write its page. The tables go to stdout, the path of the page to stderr."""
    from lm_eval_iberian.compare.columns import Scores
    from lm_eval_iberian.compare.tables import sweep_report
    from lm_eval_iberian.pictures.write import write_files
    from lm_eval_iberian.runs.errors import SweepError
    from lm_eval_iberian.runs.run import read_sweep_run
    from lm_eval_iberian.scores.formats import write
    from lm_eval_iberian.scores.results import SuiteError

    if len(given) > 1:
        raise click.UsageError("give the run folder of one sweep, and nothing beside it.")
    try:
        run = read_sweep_run(given[0])
        echo(write(sweep_report(Scores(run), against, normalised), form, _width()), nl=False)
        if not os.access(given[0], os.W_OK):
            note(f"{given[0]}: it is read-only, so no page is written there; copy it to have one.")
            return
        page = write_files(run)
    except (SuiteError, SweepError) as error:
        raise click.ClickException(str(error)) from None
    note(f"{page}: the page, with its pictures (SVG, PNG) and tables (Markdown, CSV, LaTeX) beside it.")


def _width() -> int | None:
    """How wide the terminal is; None if the output goes elsewhere, where Markdown is shown by other programs."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
