"""What libraries report of themselves is kept out of the way, so that our lines and lm_eval's table can be read; and what
is long is wrapped where no terminal does it.

Errors and warnings still come, those of transformers too, because a warning may be about a number; but for the messages
of `merge_hooks.machine.hushed`. IBERIAN_VERBOSE=1, or `-v` of a command of `iberian`, shows everything, and whoever has
set VLLM_LOGGING_LEVEL gets what it says.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap

from merge_hooks.machine.hushed import VERBOSE as VERBOSE
from merge_hooks.machine.hushed import hush_imports
from merge_hooks.machine.hushed import is_verbose as is_verbose

# vLLM's own variable, which the processes of its engine inherit.
LEVEL = "VLLM_LOGGING_LEVEL"
# Of a line in a log, in characters.
LONGEST = 120
# Loggers with handlers of their own, and the root.
_LOGGERS = ("", "lm_eval")


def quieten() -> None:
    """Called before vLLM and mergekit are loaded, and of no harm later."""
    hush_imports()
    if not is_verbose() and os.environ.setdefault(LEVEL, "WARNING") == "WARNING":
        logging.getLogger("vllm").setLevel(logging.WARNING)


def wrapped(text: str, width: int = LONGEST) -> str:
    """The text with lines of at most `width` characters, but for single words that are longer; its own line ends stay."""
    return "\n".join(_wrapped_line(line, width) if len(line) > width else line for line in text.split("\n"))


def _wrapped_line(line: str, width: int) -> str:
    indent = " " * (len(line) - len(line.lstrip(" ")) + 4)
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


class Wrapping(logging.Formatter):
    """Another formatter's warnings and errors, wrapped. A traceback stays as it is."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self.inner = inner

    def format(self, record: logging.LogRecord) -> str:
        text = self.inner.format(record)
        return text if record.exc_info or record.stack_info or record.levelno < logging.WARNING else wrapped(text)


def wrap_logs() -> None:
    """Wrap what goes from logs to a file or a pipe. A terminal wraps by itself."""
    handlers = [handler for name in _LOGGERS for handler in logging.getLogger(name).handlers]
    for handler in (*handlers, logging.lastResort):
        stream = getattr(handler, "stream", None)
        if handler is None or stream not in (sys.stderr, sys.stdout) or stream.isatty():
            continue
        if not isinstance(handler.formatter, Wrapping):
            handler.setFormatter(Wrapping(handler.formatter or logging.Formatter()))


def git_commit() -> str | None:
    """What lm_eval's `get_git_commit_hash` says, without git's "fatal: not a git repository" on stderr."""
    from lm_eval.loggers.utils import get_commit_from_path

    try:
        return subprocess.run(["git", "describe", "--always"], capture_output=True, check=True).stdout.strip().decode()
    except (subprocess.CalledProcessError, FileNotFoundError):
        found: str | None = get_commit_from_path(os.getcwd())  # noqa: PTH109 (the same call as lm_eval's)
        return found
