"""`iberian rescue RUN`: save what can be read of a damaged store."""

from __future__ import annotations

from pathlib import Path

import click

from lm_eval_iberian.commands.terminal import echo


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
def rescue(run: Path) -> None:
    """Save what can be read of the damaged stores in RUN. They are kept beside the new ones.

    Stop the sweep before. Started again afterwards, it measures what was lost, and nothing else.
    """
    from lm_eval_iberian.runs.rescue import rescue as save

    found = save(run)
    for one in found:
        rows = ", ".join(f"{count:,} {table}" for table, count in one.rows.items() if count)
        echo(f"{one.store}: {rows or 'nothing'} saved; the damaged store is now {one.kept}.")
    if not found:
        echo(f"{run}: every store is whole.")
