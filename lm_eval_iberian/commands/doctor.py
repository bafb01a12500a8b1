"""`iberian doctor`: what is there, gated or missing for each task, and the command that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lm_eval_iberian.wording import some

if TYPE_CHECKING:
    from lm_eval_iberian.documents.doctor import Finding


@click.command()
@click.option("--tasks", default="iberian_suite", show_default=True, help="Tasks and groups, with commas between.")
@click.option("--all", "everything", is_flag=True, help="Show what is in order, too.")
def doctor(tasks: str, everything: bool) -> None:
    """Look for every document that TASKS read: in IBERIAN_DATA, else on the Hub (or its cache, when offline)."""
    from lm_eval_iberian.documents.doctor import GOOD, examine
    from lm_eval_iberian.documents.loader import DocumentsError

    try:
        findings = examine(name.strip() for name in tasks.split(",") if name.strip())
    except DocumentsError as error:
        raise click.ClickException(str(error)) from None
    bad = [one for one in findings if one.state not in GOOD]
    for one in findings if everything else bad:
        _show(one)
    click.echo(f"{len(findings) - len(bad)} of {len(findings)} data sets in order{_where(findings)}.")
    if bad:
        raise click.exceptions.Exit(1)


def _show(one: Finding) -> None:
    click.echo(f"{one.state:<11} {one.need.path} ({one.need.config}), {one.where}: {some(one.need.tasks, 3)}")
    if one.mend:
        click.echo(f"{'':<11} -> {one.mend}")


def _where(findings: list[Finding]) -> str:
    places = list(dict.fromkeys(one.where for one in findings if one.where))
    return f" ({'; '.join(places[:4])})" if places else ""
