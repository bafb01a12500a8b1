"""`iberian init`: a recipe and a sweep to start from."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lm_eval_iberian.commands.habits import out_option
from lm_eval_iberian.commands.terminal import echo, note


@click.command()
@click.option("--instruct", metavar="MODEL", help="The model that follows instructions: a folder, or a Hub id.")
@click.option("--language", metavar="MODEL", help="The model that knows the language.")
@click.option("--base", metavar="MODEL", help="What both were made from: then task arithmetic, else a linear merge.")
@click.option("--tasks", metavar="NAMES", help="What is measured, with commas between [default: iberian_eu].")
@out_option(
    type=click.Path(file_okay=False, path_type=Path), default=Path(), help="The folder to write into [default: .]."
)
def init(instruct: str | None, language: str | None, base: str | None, tasks: str | None, out: Path) -> None:
    """Look at two models, and write a recipe (merge.yml) and a sweep (sweep.yml) with comments.

    On a terminal, what is not given is asked. It says what the sweep would cost. No weights are fetched, and nothing is
    written over.
    """
    from lm_eval_iberian.commands.sweep import quiet
    from lm_eval_iberian.sweep import start

    start.refuse_existing(out)
    if instruct is None or language is None:
        instruct = _ask(instruct, "--instruct", "Model that follows instructions (a folder, or a Hub id)")
        language = _ask(language, "--language", "Model that knows the language")
        base = _ask(base, "--base", "Base that both were made from (Enter: none, a linear merge)", "")
        tasks = _ask(tasks, "--tasks", "Tasks, with commas between", "iberian_eu")
    names = tuple(name.strip() for name in (tasks or "iberian_eu").split(",") if name.strip())
    quiet()
    found = start.look(instruct, language, base or None, names)
    paths = start.write(found, out)
    for warning in found.warnings:
        echo(f"warning: {warning}", err=True)
    for path in paths:
        echo(f"Written: {path}")
    for line in start.costs(found, paths):
        echo(line)
    recipe, sweep = paths
    note(f"Next: iberian recipe check {recipe}, then: iberian sweep {sweep} --dry-run")


def _ask(given: str | None, option: str, question: str, default: str | None = None) -> str:
    """What was given, else what is answered. Raises UsageError where nobody can be asked."""
    if given is not None:
        return given
    if not sys.stdin.isatty():
        if default is None:
            raise click.UsageError(f"Missing option '{option}'.")
        return default
    answer: str = click.prompt(question, default=default, show_default=bool(default))
    return answer
