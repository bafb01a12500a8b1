"""The commands `iberian ifeval new | check | lint | score`, also `python -m ifeval_multi`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ifeval_multi import documents as reading
from ifeval_multi.errors import PackError
from ifeval_multi.evaluate import EDITIONS
from ifeval_multi.lint import lint as run_lint
from ifeval_multi.pack import languages
from ifeval_multi.score import score as run_score


def _errors_for_people(command: Callable[..., None]) -> Callable[..., None]:
    """A PackError ends the command with its message, not with a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except PackError as error:
            raise click.ClickException(str(error)) from None

    return wrapped


@click.group()
def ifeval() -> None:
    """Instruction following in any language."""


@ifeval.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--language", "-l", help="Language of the prompts; by default the file's name.")
@click.option("--ours", is_flag=True, help="Ask for what a prompt set of our own must have.")
@_errors_for_people
def lint(file: Path, language: str | None, ours: bool) -> None:
    """Say where prompts and kwargs of FILE disagree. Exit code 1 when they do."""
    code = language or file.name.split(".")[0]
    findings = run_lint(file, code, complete=ours)
    for finding in findings:
        click.echo(str(finding))
    click.echo(f"{len(findings)} findings in {file}", err=True)
    sys.exit(1 if findings else 0)
