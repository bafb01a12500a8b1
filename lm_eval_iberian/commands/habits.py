"""What all commands share: `--quiet`, `--verbose`, `--version`, `--out` with its older names, and exit codes.

`with_habits` gives the first three to a command and to all its subcommands. A command declares `out_option` for what it
writes, `other_out_option` for what it writes besides, and `json_option` where it prints a table. Exit codes: 0; 1, a mistake or a failure; 2, a wrong command line; 130,
Ctrl-C (143, SIGTERM).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from lm_eval_iberian import __version__
from lm_eval_iberian.noise import VERBOSE

QUIET = "IBERIAN_QUIET"


class FirstName(click.Option):
    """An option of which the first name is shown; the others are those of earlier versions, and work."""

    def get_help_record(self, context: click.Context) -> tuple[str, str] | None:
        every, self.opts = self.opts, self.opts[:1]
        try:
            return super().get_help_record(context)
        finally:
            self.opts = every


def out_option(*old: str, **attributes: Any) -> Callable[[Any], Any]:
    """The option `--out`, passed as `out`. `old`: its names in earlier versions. `attributes`: click's."""
    return click.option("--out", *old, "out", cls=FirstName, **attributes)


def other_out_option(what: str, old: str, name: str, **attributes: Any) -> Callable[[Any], Any]:
    """The option `--out-WHAT` for what a command writes beside its `--out`. `old`: its name in earlier versions."""
    return click.option(f"--out-{what}", old, name, cls=FirstName, **attributes)


def json_option(text: str = "Print the table as JSON.") -> Callable[[Any], Any]:
    """The option `--json`, passed as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def old_place(name: str) -> Callable[[Any], Any]:
    """Where earlier versions took the output: as the last argument, which is not shown any more."""
    return click.argument(name, required=False, metavar="", type=click.Path())


def required_out(out: Any, old: Any) -> Any:
    """The output, by its option or in its old place. Raises UsageError without one."""
    if out is None and old is None:
        raise click.UsageError("Missing option '--out'.")
    return old if out is None else out


def with_habits(command: click.Command) -> click.Command:
    """The command, with the options that all have."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            with_habits(inner)
        return command
    shared = (_quiet, _verbose, _version)
    known = {name for parameter in command.params for name in parameter.opts}
    command.params += [option for make in shared if (option := make()).opts[0] not in known]
    return command


def is_quiet() -> bool:
    """Whether this process is to print results and errors only."""
    return os.environ.get(QUIET, "") not in ("", "0")


def _sets(variable: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if not value:
            return
        before = os.environ.get(variable)
        os.environ[variable] = "1"  # processes that a command starts are as quiet as it is

        def restore() -> None:
            if before is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = before

        context.call_on_close(restore)

    return callback


def _quiet() -> click.Option:
    return click.Option(
        ["--quiet"], is_flag=True, expose_value=False, is_eager=True, callback=_sets(QUIET),
        help="Print results and errors only.",
    )  # fmt: skip


def _verbose() -> click.Option:
    return click.Option(
        ["--verbose", "-v"], is_flag=True, expose_value=False, is_eager=True, callback=_sets(VERBOSE),
        help="Show what vLLM, transformers and lm_eval log, too.",
    )  # fmt: skip


def _version() -> click.Option:
    def callback(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            click.echo(f"iberian, version {__version__}")
            context.exit()

    return click.Option(
        ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=callback,
        help="Show the version and exit.",
    )  # fmt: skip
