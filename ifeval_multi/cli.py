"""The commands `iberian ifeval new | check | lint | score`, also `python -m ifeval_multi`."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ifeval_multi import documents as reading
from ifeval_multi.errors import PackError
from ifeval_multi.evaluate import EDITIONS
from ifeval_multi.lint import lint as run_lint
from ifeval_multi.new_language import problems as find_problems
from ifeval_multi.new_language import write_new
from ifeval_multi.pack import languages, load_pack
from ifeval_multi.probes import probes
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


@ifeval.command()
@click.argument("code")
@click.option("--name", default="", help="The language's name in English.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write; by default here.")
@_errors_for_people
def new(code: str, name: str, folder: Path | None) -> None:
    """Write a commented pack for the language CODE, to be filled in."""
    for path in write_new(code, folder, name):
        click.echo(f"wrote {path}")
    target = str(folder / f"{code}.yaml") if folder else code
    click.echo(f"Fill in every TODO, then: iberian ifeval check {target}")


@ifeval.command()
@click.argument("language", required=False)
@_errors_for_people
def check(language: str | None) -> None:
    """Say what is missing or wrong in the pack LANGUAGE (a code or a .yaml file), or in all."""
    found = 0
    for code in [language] if language else languages():
        said = find_problems(code)
        found += len(said)
        for problem in said:
            click.echo(f"{code}: {problem}")
        if not said:
            click.echo(f"{code}: ready, {len(probes(load_pack(code)))} built-in answers judged rightly")
    sys.exit(1 if found else 0)


@ifeval.command()
@click.option("--language", "-l", required=True, help="A code, or the path of a pack.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Prompts, JSONL.")
@click.option(
    "--responses",
    required=True,
    type=click.Path(path_type=Path),
    help='Answers, JSONL: {"key": ..., "response": ...} or {"prompt": ..., "response": ...}.',
)
@click.option("--edition", type=click.Choice([*EDITIONS, "both"]), default="both")
@click.option("--response-language", is_flag=True, help="Score language:response_language as well.")
@click.option("--think-end-token", help="What ends the reasoning, where it is not </think>.")
@click.option("--verdicts", type=click.Path(path_type=Path), help="Write every verdict as JSONL.")
@_errors_for_people
def score(
    language: str,
    data: Path,
    responses: Path,
    edition: str,
    response_language: bool,
    think_end_token: str | None,
    verdicts: Path | None,
) -> None:
    """Score the answers to a prompt set, without lm_eval."""
    asked = reading.read(data)
    answers = reading.match_responses(asked, responses)
    lines: list[str] = []
    for name in EDITIONS if edition == "both" else (edition,):
        report = run_score(
            asked,
            answers,
            language=language,
            edition=name,
            include_response_language=response_language,
            think_end_token=think_end_token,
        )
        click.echo(report.text() + "\n")
        lines += [json.dumps(verdict, ensure_ascii=False) for verdict in report.verdicts()]
    if verdicts:
        verdicts.write_text("\n".join(lines) + "\n", encoding="utf-8")
        click.echo(f"wrote {len(lines)} verdicts to {verdicts}")
