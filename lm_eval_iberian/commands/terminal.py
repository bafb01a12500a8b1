"""How commands speak to a terminal: nothing that others wrote is obeyed by it.

    echo(text)                 # click's, of a text that is safe to show
    console = make_console()   # rich's, of texts that are safe to show; its own colours stay

See `merge_hooks.texts`. Errors of ours are safe by themselves; those of click are made so by `safe_errors`, and all others
are put in words by `no_tracebacks`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lm_eval_iberian.commands.habits import is_quiet
from merge_hooks.machine.stopping import EXIT_CODE, Terminated
from merge_hooks.texts import one_line, seen

if TYPE_CHECKING:
    from rich.console import Console


def echo(text: object, err: bool = False, nl: bool = True) -> None:
    """Print a text to stdout, or to stderr."""
    click.echo(seen(str(text)), err=err, nl=nl)


def note(text: object) -> None:
    """Say to stderr what is no result and no error; nothing with --quiet."""
    if not is_quiet():
        echo(text, err=True)


def make_console(**options: Any) -> Console:
    """A console of rich whose strings are safe to show, in tables too. With --quiet one on stderr says nothing.

    Args:
        options: rich's.
    """
    from rich.console import Console

    class SafeConsole(Console):
        def render_str(self, text: str, **options: Any) -> Any:
            return super().render_str(seen(text), **options)

    return SafeConsole(**{"quiet": bool(options.get("stderr")) and is_quiet(), **options})


@contextmanager
def interrupted() -> Iterator[None]:
    """Ctrl-C ends a command with exit code 130, SIGTERM with 143, and no traceback."""
    try:
        yield
    except (KeyboardInterrupt, click.Abort) as stop:
        echo("Stopped.", err=True)
        sys.exit(EXIT_CODE if isinstance(stop, Terminated) else 130)


@contextmanager
def no_tracebacks() -> Iterator[None]:
    """An error that is not one of ours ends a command with one message and exit code 1.

    IBERIAN_TRACEBACK=1 shows where it came from, for whoever reports it.
    """
    try:
        yield
    except Exception as error:
        is_known = getattr(error, "for_people", False) or isinstance(
            error, (click.ClickException, click.exceptions.Exit)
        )
        # Nobody reads on (`iberian models | head`): click ends quietly.
        if is_known or isinstance(error, (click.Abort, BrokenPipeError)) or os.environ.get("IBERIAN_TRACEBACK"):
            raise
        raise click.ClickException(_unforeseen(error)) from error


def _unforeseen(error: Exception) -> str:
    said = one_line(f"{type(error).__name__}: {error}").rstrip(": ")
    if isinstance(error, OSError):
        return f"{said}. Is the disk full, or a file in the way or not yours?"
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = f" ({Path(where.tb_frame.f_code.co_filename).name}, line {where.tb_lineno})" if where else ""
    return (
        f"{said:.400}{place}. A file that was read is damaged in a way that nobody foresaw, or this is a mistake of ours: "
        "with IBERIAN_TRACEBACK=1 the same command shows where; please report it."
    )


@contextmanager
def safe_errors() -> Iterator[None]:
    """click's own errors quote what they were given. A file that is not there is no mistake of the command line's form."""
    try:
        yield
    except click.ClickException as error:
        if isinstance(error, click.BadParameter) and isinstance(getattr(error.param, "type", None), click.Path):
            error.exit_code = 1  # type: ignore[misc]
        error.message = seen(error.message)  # type: ignore[misc]
        raise
