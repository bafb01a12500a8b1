"""`iberian prefetch`: fetch data sets into a mirror and models into the Hub's cache, for nodes without network."""

from __future__ import annotations

import itertools
from pathlib import Path

import click

from lm_eval_iberian.commands.bars import bars
from lm_eval_iberian.commands.habits import other_out_option, out_option
from lm_eval_iberian.commands.terminal import echo


@click.command()
@click.option("--tasks", default="iberian_suite", show_default=True, help="Tasks and groups, with commas between.")
@out_option("--to", type=click.Path(file_okay=False, path_type=Path), required=True, help="The mirror's folder.")
@click.option(
    "--models", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A recipe whose models are fetched into the Hub's cache; may be given several times.",
)  # fmt: skip
@other_out_option(
    "pins", "--pin", "pin", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write the commit of each data set into FILE; IBERIAN_REVISIONS=FILE reads these again.",
)  # fmt: skip
def prefetch(tasks: str, out: Path, models: tuple[Path, ...], pin: Path | None) -> None:
    """Fetch everything that tasks (and recipes) read. The same command finishes a broken run.

    Afterwards, with no network: IBERIAN_DATA=DIR HF_HUB_OFFLINE=1 lm_eval ...
    """
    from lm_eval_iberian.documents.loader import DocumentsError
    from merge_hooks.errors import MergeHooksError

    try:
        whole = _data([name.strip() for name in tasks.split(",") if name.strip()], out, pin)
        for recipe in models:
            _models(recipe)
    except (DocumentsError, MergeHooksError) as error:
        raise click.ClickException(str(error)) from None
    echo(f"Use it with: IBERIAN_DATA={out} HF_HUB_OFFLINE=1")
    if not whole:
        raise click.exceptions.Exit(1)


def _data(names: list[str], to: Path, pins: Path | None) -> bool:
    """Fetch with a progress bar; say what failed and what was pinned. Returns whether the mirror is complete."""
    from lm_eval_iberian.documents.needs import needs
    from lm_eval_iberian.documents.prefetch import FLORES, FLORES_COPY, pin
    from lm_eval_iberian.documents.prefetch import prefetch as fetch

    total = len(needs(names))
    begun = itertools.count()
    with bars() as show:
        outcomes = fetch(names, to, lambda need: show("data sets", next(begun), total, f"{need.path} ({need.config})"))
        show("data sets", total, total)
    counted = {state: sum(one.state == state for one in outcomes) for state in ("fetched", "there", "failed")}
    echo(f"{to}: {counted['fetched']} fetched, {counted['there']} already there, {counted['failed']} failed.")
    copied = any(one.need.path == FLORES_COPY and one.state != "failed" for one in outcomes)
    for one in outcomes:
        if one.said:
            echo(f"- {one.state}: {one.said}", err=True)
    if copied:
        echo(
            f"- {FLORES} could not be had: its copy {FLORES_COPY} stands in, and results will say so.",
            err=True,
        )
    if pins:
        echo(f"{pins}: {len(pin(outcomes, to, pins))} commits. Read them again with IBERIAN_REVISIONS={pins}")
    return all(one.state != "failed" or (copied and one.need.path == FLORES) for one in outcomes)


def _models(recipe: Path) -> None:
    """Every source of a recipe, from the disk, the cache or the Hub."""
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve

    resolved = resolve(read_recipe(recipe))
    for source in resolved.sources.values():
        echo(f"{recipe}: {source.name} is in {source.folder}")
