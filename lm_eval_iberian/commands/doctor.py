"""`iberian doctor`: what is there, gated or missing for each task, and the command that mends it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from lm_eval_iberian.commands.habits import json_option
from lm_eval_iberian.commands.terminal import echo
from lm_eval_iberian.wording import some

if TYPE_CHECKING:
    from lm_eval_iberian.documents.doctor import Finding


@click.command()
@click.option("--tasks", default="iberian_suite", show_default=True, help="Tasks and groups, with commas between.")
@click.option("--all", "everything", is_flag=True, help="Show what is in order, too.")
@json_option()
def doctor(tasks: str, everything: bool, as_json: bool) -> None:
    """Look for every document that TASKS read: in IBERIAN_DATA, else on the Hub (or its cache, when offline)."""
    from lm_eval_iberian.benchmarks.groups import MORE
    from lm_eval_iberian.documents.doctor import GOOD, MISSING, examine, fetch_command
    from lm_eval_iberian.documents.loader import DocumentsError
    from lm_eval_iberian.documents.manifests import unmeasured
    from lm_eval_iberian.documents.needs import is_read_by_lm_eval

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    try:
        findings = examine(names)
        left_out = unmeasured() if MORE in names else {}
    except DocumentsError as error:
        raise click.ClickException(str(error)) from None
    bad = [one for one in findings if one.state not in GOOD]
    shown = findings if everything else bad
    if as_json:
        echo(json.dumps({"findings": [_row(one) for one in shown], "unmeasured": left_out}, indent=1))
        raise click.exceptions.Exit(1 if bad else 0)
    for one in shown:
        _show(one)
    for path, reason in left_out.items():
        echo(f"{'unmeasured':<11} {path}: {reason}")
    echo(f"{len(findings) - len(bad)} of {len(findings)} data sets in order{_where(findings)}.")
    if sum(one.state == MISSING and not is_read_by_lm_eval(one.need) for one in bad) > 1:
        echo(f"All that is missing, at once: {fetch_command(','.join(names))}")
    if bad:
        raise click.exceptions.Exit(1)


def _row(one: Finding) -> dict[str, Any]:
    need = one.need
    return {"data set": need.path, "config": need.config, "state": one.state, "where": one.where,
            "tasks": list(need.tasks), "mend": one.mend}  # fmt: skip


def _show(one: Finding) -> None:
    echo(f"{one.state:<11} {one.need.path} ({one.need.config}), {one.where}: {some(one.need.tasks, 3)}")
    if one.mend:
        echo(f"{'':<11} -> {one.mend}")


def _where(findings: list[Finding]) -> str:
    places = list(dict.fromkeys(one.where for one in findings if one.where))
    return f" ({'; '.join(places[:4])})" if places else ""
