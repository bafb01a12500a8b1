"""`iberian recipe ...`: look at a merge, before any of it is computed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from lm_eval_iberian.commands.bars import bars
from lm_eval_iberian.commands.habits import json_option, old_place, out_option, required_out
from lm_eval_iberian.commands.terminal import echo, note
from lm_eval_iberian.noise import is_verbose, wrap_logs

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
        logging.basicConfig(level=logging.INFO if is_verbose() else logging.ERROR)
        wrap_logs()
        # "Did you mean ...?", before minutes are spent on a Hub that is out of reach.
        logging.getLogger("merge_hooks.sources.hub").setLevel(logging.WARNING)
        return command(*arguments, **options)

    return wrapper


@recipe.command()
@click.argument("written", metavar="RECIPE")
@click.option("--text-only", is_flag=True, help="Read only the recipe's text; do not look for its models.")
@json_option("Print the findings as JSON.")
@TRUST
@with_logging
def check(written: str, text_only: bool, as_json: bool, trust_remote_code: bool) -> None:
    """Say what is wrong or surprising in a recipe, with lines, and whether its models fit together.

    The exit code is 1 where mergekit would ignore a key or could not merge, and 0 where there are only warnings.
    """
    from merge_hooks.errors import RecipeError
    from merge_hooks.recipe.short_form import find

    found = find(written)
    said = [("error" if finding.is_error else "warning", finding.message) for finding in found.findings]
    has_errors = any(finding.is_error for finding in found.findings)
    if as_json:
        said += [] if has_errors or text_only else _fit_findings(found, trust_remote_code)
        echo(json.dumps([{"kind": kind, "message": message} for kind, message in said], indent=1, ensure_ascii=False))
        raise click.exceptions.Exit(1 if has_errors else 0)
    for kind, message in said:
        echo(f"{kind}: {message}", err=kind == "error")
    if has_errors:
        raise RecipeError("this recipe does not say what it seems to say; nothing was merged.")
    if text_only:
        echo(f"{_verdict(said)} Its models were not looked at.")
        return
    for kind, message in (fitting := _fit_findings(found, trust_remote_code)):
        echo(f"{kind}: {message}")
    echo(f"{_verdict([*said, *fitting])} Its models fit together.")


def _verdict(said: list[tuple[str, str]]) -> str:
    count = sum(kind == "warning" for kind, _ in said)
    return f"No error, and {count} warning{'s' * (count > 1)} to read." if count else "The recipe is fine."


def _fit_findings(found: Any, trust_remote_code: bool) -> list[tuple[str, str]]:
    """Warnings and notes for which the models are looked at. Raises where they do not fit together."""
    from merge_hooks.checks.filters import plan_findings
    from merge_hooks.checks.preflight import check_fit, fit_notes
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream

    stream = open_stream(resolve(found, trust_remote_code=trust_remote_code))
    check_fit(stream)
    warnings = [("warning", finding.message) for finding in plan_findings(stream)]
    return warnings + [("note", text) for text in fit_notes(stream)]


@recipe.command()
@click.argument("written", metavar="RECIPE")
@json_option("Print the same as JSON: memory in bytes, time in seconds.")
@TRUST
@with_logging
def show(written: str, as_json: bool, trust_remote_code: bool) -> None:
    """Print what would be merged: method, parameters as resolved, sources, memory and time."""
    from merge_hooks.recipe.short_form import find, refuse_errors
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream
    from merge_hooks.tools.show import plan_data, plan_text

    found = find(written)
    refuse_errors(found)
    if as_json:
        data = plan_data(open_stream(resolve(found, trust_remote_code=trust_remote_code)))
        data["warnings"] = [finding.message for finding in found.findings]
        echo(json.dumps(data, indent=1, ensure_ascii=False))
        return
    for finding in found.findings:
        echo(f"warning: {finding.message}")
    echo(plan_text(open_stream(resolve(found, trust_remote_code=trust_remote_code))))


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
    echo(f"mergekit's files      {verdict.mergekit_digest}")
    echo(f"the stream            {verdict.stream_digest}")
    for name, count in verdict.unequal.items():
        echo(f"  {name}: {count} elements differ")
    if verdict.is_equal:
        echo(f"Equal: {verdict.tensors} tensors, {verdict.elements:,} elements; and transformers holds what went in.")
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
@old_place("folder")
@out_option(type=click.Path(), help="The folder to write; it must not be there.")
@click.option(
    "--results",
    type=click.Path(exists=True),
    help="For the model card: lm_eval's results of this merge, as `iberian report` takes them: a file, or a folder.",
)
@click.option("--push", metavar="OWNER/NAME", help="Put it on the Hugging Face Hub as well, after asking.")
@click.option("--private", is_flag=True, help="With --push: a private model.")
@click.option("--yes", is_flag=True, help="With --push: do not ask.")
@click.option(
    "--shard-gb", type=float, default=5.0, show_default=True, help="The largest size of a weight file, in GB."
)
@TRUST
@with_logging
def export(
    written: str,
    folder: str | None,
    out: str | None,
    results: str | None,
    push: str | None,
    private: bool,
    yes: bool,
    shard_gb: float,
    trust_remote_code: bool,
) -> None:
    """Write the merged checkpoint to a folder (--out): weights, tokenizer, template, generation config, model card.

    The folder appears when everything is written; a stop in between leaves nothing behind.
    """
    out = required_out(out, folder)
    from pathlib import Path

    from merge_hooks.tools.export import export as write
    from merge_hooks.tools.push import check_name
    from merge_hooks.tools.push import push as send

    if push is None and (private or yes):
        raise click.UsageError("--private and --yes belong to --push OWNER/NAME.")
    if push is not None:
        check_name(push)  # before anything is computed
    stream = _fitting_stream(written, trust_remote_code)
    scores = _results_of(stream, Path(results)) if results else ()
    with bars() as show:
        files = write(stream, Path(out), scores, int(shard_gb * 1e9), partial(show, "merging"))
    echo(f"{out}: {', '.join(files)}")
    if push is None:
        return
    seen_by = "you and whom you let in" if private else "everybody"
    if yes or click.confirm(f"Upload it to {push}, where {seen_by} will see it?", default=False):
        echo(send(Path(out), push, private))
    else:
        echo(f"Nothing was uploaded. `hf upload {push} {out}` sends it later.")


def _results_of(stream: Any, given: Any) -> list[dict[str, Any]]:
    """lm_eval's results of this merge among a file or a folder, each with its identity.

    Raises:
        RecipeError: none is of this merge, or some measured one task in different ways, which must not be averaged.
    """
    from lm_eval_iberian.scores.results_files import find_runs
    from lm_eval_iberian.scores.suite import apart, grouped
    from merge_hooks.errors import RecipeError
    from merge_hooks.tools.card import are_of

    found = find_runs([given]).runs
    runs = [run for run in found if are_of(run.data, stream)]
    if not runs:
        raise RecipeError(
            f"{given}: {len(found)} results files, and none of them is of this merge. Score this recipe first."
        )
    groups = grouped(runs)
    for number, group in enumerate(groups):
        for other in groups[:number]:
            tasks = {task for run in group for task in run.tasks} & {task for run in other for task in run.tasks}
            if tasks:
                raise RecipeError(
                    f"{given}: {sorted(tasks)[0]} was measured in different ways ({', '.join(apart(group, other)[:3])}). "
                    "Give the file whose scores the card shall say."
                )
    return [{**run.data, "identity": run.identity.digest} for run in runs]


def _fitting_stream(written: str, trust_remote_code: bool, seed: int = 0, rng: str = "iberian") -> Any:
    """The stream of a recipe that passed lint and whose models fit; warnings are printed."""
    from merge_hooks.checks.preflight import check_fit
    from merge_hooks.recipe.short_form import find, refuse_errors
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream

    found = refuse_errors(find(written))
    for finding in found.findings:
        note(f"warning: {finding.message}")
    stream = open_stream(resolve(found, seed, rng, trust_remote_code))
    check_fit(stream)
    return stream
