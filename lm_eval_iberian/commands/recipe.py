"""`iberian recipe ...`: look at a merge, before any of it is computed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import click

TRUST = click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Let the configurations of models bring Python code of their own.",
)


@click.group()
def recipe() -> None:
    """Check, show, verify or export a merge recipe.

    RECIPE is a YAML file, a folder or Hub model that holds mergekit_config.yml, YAML itself, a preset
    (preset:merge_and_conquer/linear,instruct=...,language=...), or the short form
    (method=linear,models=A:1.0;B:0.5).
    """


def with_logging(command: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the libraries' log messages out of the tables."""
    import functools

    @functools.wraps(command)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        logging.basicConfig(level=logging.ERROR)
        return command(*arguments, **options)

    return wrapper


@recipe.command()
@click.argument("written", metavar="RECIPE")
@click.option("--text-only", is_flag=True, help="Read only the recipe's text; do not look for its models.")
@TRUST
@with_logging
def check(written: str, text_only: bool, trust_remote_code: bool) -> None:
    """Say what is wrong or surprising in a recipe, with lines, and whether its models fit together.

    The exit code is 1 where mergekit would ignore a key or could not merge, and 0 where there are only warnings.
    """
    from merge_hooks.checks.filters import plan_findings
    from merge_hooks.checks.preflight import check_fit, fit_notes
    from merge_hooks.errors import RecipeError
    from merge_hooks.recipe.short_form import find
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream

    found = find(written)
    for finding in found.findings:
        click.echo(f"{'error' if finding.is_error else 'warning'}: {finding.message}", err=finding.is_error)
    if any(finding.is_error for finding in found.findings):
        raise RecipeError("this recipe does not say what it seems to say; nothing was merged.")
    if text_only:
        click.echo("The text is fine. Its models were not looked at.")
        return
    stream = open_stream(resolve(found, trust_remote_code=trust_remote_code))
    check_fit(stream)
    for finding in plan_findings(stream):
        click.echo(f"warning: {finding.message}")
    for note in fit_notes(stream):
        click.echo(f"note: {note}")
    click.echo("The recipe is fine, and its models fit together.")


@recipe.command()
@click.argument("written", metavar="RECIPE")
@TRUST
@with_logging
def show(written: str, trust_remote_code: bool) -> None:
    """Print what would be merged: method, parameters as resolved, sources, memory and time."""
    from merge_hooks.recipe.short_form import find, refuse_errors
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream
    from merge_hooks.tools.show import plan_text

    found = find(written)
    refuse_errors(found)
    for finding in found.findings:
        click.echo(f"warning: {finding.message}")
    click.echo(plan_text(open_stream(resolve(found, trust_remote_code=trust_remote_code))))


@recipe.command()
@click.argument("written", metavar="RECIPE")
@click.option("--seed", type=int, default=0, show_default=True, help="Of methods that draw at random.")
@TRUST
@with_logging
def verify(written: str, seed: int, trust_remote_code: bool) -> None:
    """Compare what goes into the engine with what mergekit itself writes, tensor by tensor.

    mergekit runs into a temporary folder, so there must be disk for one merged checkpoint. The exit code is 0 where
    all checksums agree, and 1 otherwise. Methods that draw at random are compared by mergekit's own draws
    (rng=mergekit, `mergekit-yaml --random-seed`).
    """
    from merge_hooks.errors import EngineError
    from merge_hooks.tools.verify import verify as compare

    stream = _fitting_stream(written, trust_remote_code, seed, "mergekit")
    verdict = compare(stream)
    click.echo(f"mergekit's files      {verdict.mergekit_digest}")
    click.echo(f"the stream            {verdict.stream_digest}")
    for name, count in verdict.unequal.items():
        click.echo(f"  {name}: {count} elements differ")
    if verdict.is_equal:
        click.echo(
            f"Equal: {verdict.tensors} tensors, {verdict.elements:,} elements; and transformers holds what went in."
        )
        return
    hint = " Elements that tie at a pruning threshold may: which of them mergekit keeps is its sort's accident."
    hint = hint if verdict.has_ties else ""
    raise EngineError(
        f"{sum(verdict.unequal.values()):,} of {verdict.elements:,} elements in {len(verdict.unequal)} of "
        f"{verdict.tensors} tensors differ from mergekit's; only one side has {verdict.missing or 'nothing'}; "
        f"changed in the engine: {verdict.engine or 'nothing'}.{hint}"
    )


@recipe.command()
@click.argument("written", metavar="RECIPE")
@click.argument("out", type=click.Path())
@click.option("--results", type=click.Path(), help="The results JSON of lm_eval for this merge, for its model card.")
@click.option(
    "--shard-gb", type=float, default=5.0, show_default=True, help="The largest size of a weight file, in GB."
)
@TRUST
@with_logging
def export(written: str, out: str, results: str | None, shard_gb: float, trust_remote_code: bool) -> None:
    """Write the merged checkpoint to the folder OUT: weights, tokenizer, template, generation config, model card.

    The folder appears when everything is written; a stop in between leaves nothing behind.
    """
    from pathlib import Path

    from merge_hooks.tools.export import export as write

    stream = _fitting_stream(written, trust_remote_code)
    files = write(stream, Path(out), Path(results) if results else (), int(shard_gb * 1e9))
    click.echo(f"{out}: {', '.join(files)}")


def _fitting_stream(written: str, trust_remote_code: bool, seed: int = 0, rng: str = "iberian") -> Any:
    """The stream of a recipe that passed lint and whose models fit; warnings are printed."""
    from merge_hooks.checks.preflight import check_fit
    from merge_hooks.recipe.short_form import find, refuse_errors
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream

    found = refuse_errors(find(written))
    for finding in found.findings:
        click.echo(f"warning: {finding.message}", err=True)
    stream = open_stream(resolve(found, seed, rng, trust_remote_code))
    check_fit(stream)
    return stream
