"""`iberian models`: which models can be merged and scored, and what a given one is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from lm_eval_iberian.commands.habits import json_option
from lm_eval_iberian.commands.terminal import make_console

if TYPE_CHECKING:
    from merge_hooks.architectures.kinds import Family


@click.command()
@click.argument("model", required=False)
@click.option("--revision", help="Branch, tag or commit of MODEL on the Hub.")
@json_option()
def models(model: str | None, revision: str | None, as_json: bool) -> None:
    """The classes of models that were tested: merged, swapped, and held against mergekit's checkpoints.

    With MODEL (a folder or a Hub id), what that model is, and whether its class is among them. Only its config.json and
    the headers of its files are read.
    """
    from merge_hooks.architectures.kinds import families, tested_with
    from merge_hooks.errors import MergeHooksError

    if model is not None:
        try:
            _show_one(model, revision, as_json)
        except MergeHooksError as error:
            raise click.ClickException(str(error)) from None
        return
    if as_json:
        rows = [{**vars(family), "kinds": list(family.kinds)} for family in families()]
        click.echo(json.dumps({"tested with": tested_with(), "families": rows}, indent=1))
        return
    _show_table(list(families()))
    versions = ", ".join(f"{package} {version}" for package, version in tested_with().items())
    click.echo(f"\nTested with {versions}, on a CPU; no GPU was seen.")
    click.echo("swaps: another merge comes into the running engine, and each layer is proved to compute with it.")
    click.echo("restarts: an engine is started for each merge, because some of its layers cannot be asked.")
    click.echo("A class that is not here is tried all the same: what transformers loads, the proof decides.")


def _show_table(rows: list[Family]) -> None:
    from rich.table import Table

    table = Table("model", "kind", "transformers", "vLLM", box=None, pad_edge=False, header_style="bold")
    for family in rows:
        table.add_row(family.name, ", ".join(family.kinds), family.transformers, family.vllm)
    make_console().print(table)


def _show_one(model: str, revision: str | None, as_json: bool) -> None:
    from merge_hooks.architectures.kinds import family_of, kinds_of
    from merge_hooks.sources.checkpoint import open_source
    from merge_hooks.sources.facts import facts_of, is_quantised

    source = open_source(model, revision)
    built = source.built
    family = family_of(type(built.model).__name__) if built is not None else None
    facts = facts_of(source)
    found: dict[str, Any] = {
        "model": model,
        "class": facts.row["architecture"],
        "kinds": list(kinds_of(built)) if built is not None else [],
        "tested as": family.name if family else None,
        "transformers": family.transformers if family else "not tested",
        "vLLM": family.vllm if family else "not tested",
        "quantised": is_quantised(source.config),
        "towers": len(built.towers) if built is not None else 0,
    }
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for key in ("model", "class", "kinds", "tested as", "transformers", "vLLM"):
        value = ", ".join(found[key]) if isinstance(found[key], list) else found[key]
        click.echo(f"{key:<13}{value or 'no'}")
    if built is None:
        click.echo("transformers has no class for this config.json, so nothing is merged but by mergekit's tables.")
    if found["quantised"]:
        click.echo("Its weights are quantised: merge the original weights instead.")
    if found["towers"]:
        click.echo(f"{found['towers']} tensors of towers are taken from one model; it is scored on text alone.")
