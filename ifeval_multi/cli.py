"""The commands `iberian ifeval new | check | lint | score`, also `python -m ifeval_multi`."""

from __future__ import annotations

import functools
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ifeval_multi import documents as reading
from ifeval_multi.errors import PackError
from ifeval_multi.evaluate import EDITIONS
from ifeval_multi.lint import lint as run_lint
from ifeval_multi.lint_rules import PUBLISHED
from ifeval_multi.new_language import problems as find_problems
from ifeval_multi.new_language import refuse_unfinished, write_new
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


def _some(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _counted(number: int, noun: str) -> str:
    """ "1 finding", "2 findings"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _say_findings(data: Path, language: str, edition: str) -> None:
    """One line on stderr where lint has something to say about the prompts that were scored."""
    found = run_lint(data, language)
    if any(finding.rule != PUBLISHED or edition != "corrected" for finding in found):
        said = f"lint has {_counted(len(found), 'finding')} about these prompts"
        click.echo(f"{said}: iberian ifeval lint {shlex.quote(str(data))} --language {shlex.quote(language)}", err=True)


def _refuse_to_write(out: Path | None, *read: Path) -> None:
    """Before anything is scored: a file that cannot be written, or that is read."""
    if out is None:
        return
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise PackError(str(out), "cannot be written: no file can be there.", "Give a file in a folder that is there.")
    if any(out.exists() and path.exists() and out.samefile(path) for path in read):
        raise PackError(str(out), "is the file that is read.", "Give another name.")


JSON = click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def ifeval() -> None:
    """Instruction following in any language."""


@ifeval.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--language", "-l", help="Language of the prompts; by default the file's name.")
@click.option("--ours", is_flag=True, help="Ask for what a prompt set of our own must have.")
@JSON
@_errors_for_people
def lint(file: Path, language: str | None, ours: bool, as_json: bool) -> None:
    """Say where prompts and kwargs of FILE disagree. Exit code 1 when they do."""
    code = language or file.name.split(".")[0]
    refuse_unfinished(load_pack(code))
    findings = run_lint(file, code, complete=ours)
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in findings], indent=1, ensure_ascii=False, default=str))
    for finding in findings if not as_json else ():
        click.echo(str(finding))
    click.echo(f"{_counted(len(findings), 'finding')} in {file}", err=True)
    sys.exit(1 if findings else 0)


@ifeval.command()
@click.argument("code")
@click.option("--name", default="", help="The language's name in English.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder to write into; by default the current one.")
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
@click.option("--from-nothing", is_flag=True, help="Also where a pack of the language ships.")
@_errors_for_people
def new(code: str, name: str, out: Path | None, folder: Path | None, from_nothing: bool) -> None:
    """Write a commented pack for the language CODE, to be filled in, with its test and a task of lm_eval."""
    written = write_new(code, out or folder, name, from_nothing)
    for path in written:
        click.echo(f"wrote {path.resolve()}")
    click.echo(f"Fill in every TODO, then: iberian ifeval check {written[0]}")


@ifeval.command()
@click.argument("language", required=False)
@JSON
@_errors_for_people
def check(language: str | None, as_json: bool) -> None:
    """Say what is missing or wrong in the pack LANGUAGE (a code or a .yaml file), or in all."""
    codes = [language] if language else languages()
    problems = {code: find_problems(code) for code in codes}
    if as_json:
        click.echo(json.dumps(problems, indent=1, ensure_ascii=False))
    for code, said in problems.items() if not as_json else ():
        for problem in said:
            click.echo(f"{code}: {problem}")
        if not said:
            click.echo(f"{code}: ready, {len(probes(load_pack(code)))} built-in answers judged rightly")
    sys.exit(1 if any(problems.values()) else 0)


@ifeval.command()
@click.option("--language", "-l", required=True, help="A code, or the path of a pack.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Prompts, JSONL.")
@click.option(
    "--responses",
    required=True,
    type=click.Path(path_type=Path),
    help='Answers, JSONL: {"key": ..., "response": ...} or {"prompt": ..., "response": ...}, or samples that lm_eval logged.',
)
@click.option(
    "--edition",
    type=click.Choice([*EDITIONS, "both"]),
    default="corrected",
    show_default=True,
    help="original: what published code says, faults included; for the languages and prompts it was published for.",
)
@click.option("--response-language", is_flag=True, help="Score language:response_language as well.")
@click.option("--think-end-token", help="What ends the reasoning, where it is not </think>.")
@click.option("--out", type=click.Path(path_type=Path), help="Write every verdict as JSONL.")
@click.option("--verdicts", type=click.Path(path_type=Path), hidden=True)
@JSON
@_errors_for_people
def score(
    language: str,
    data: Path,
    responses: Path,
    edition: str,
    response_language: bool,
    think_end_token: str | None,
    out: Path | None,
    verdicts: Path | None,
    as_json: bool,
) -> None:
    """Score the answers to a prompt set, without lm_eval."""
    refuse_unfinished(pack := load_pack(language))
    to = out or verdicts
    _refuse_to_write(to, data, responses)
    asked = reading.read(data, pack)
    if not asked:
        raise PackError(str(data), "no prompt in it.", "Give the prompts as JSONL, one a line.")
    answers = reading.match_responses(asked, responses)
    if unused := reading.answers_to_no_prompt(asked, responses):
        said = f"{_counted(len(unused), 'answer')} not used, no prompt of {data} is theirs: {_some(unused)}"
        click.echo(f"{responses}: {said}", err=True)
    lines: list[str] = []
    reports = []
    for name in EDITIONS if edition == "both" else (edition,):
        report = run_score(
            asked,
            answers,
            language=language,
            edition=name,
            include_response_language=response_language,
            think_end_token=think_end_token,
        )
        reports.append(report.as_mapping())
        if not as_json:
            click.echo(report.text() + "\n")
        lines += [json.dumps(verdict, ensure_ascii=False) for verdict in report.verdicts()]
    if as_json:
        click.echo(json.dumps(reports, indent=1, ensure_ascii=False))
    _say_findings(data, language, edition)
    if to:
        to.write_text("\n".join(lines) + "\n", encoding="utf-8")
        click.echo(f"wrote {len(lines)} verdicts to {to}", err=as_json)
