"""Messages of libraries that are no reader's business: they say nothing of a merge, and nobody here can mend them.

- bitsandbytes, which peft imports for mergekit: one more package would make its 4-bit kernels for CPUs faster.
- transformers: mergekit writes `torch_dtype` into a configuration, where it is `dtype` now.

Whatever else these loggers say still comes. IBERIAN_VERBOSE=1 (`-v` of a command of `iberian`) shows everything.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

VERBOSE = "IBERIAN_VERBOSE"
# logger -> how its message begins.
AT_IMPORT = {"bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward from kernels-community"}
TORCH_DTYPE = ("transformers.configuration_utils", "`torch_dtype` is deprecated")


def is_verbose() -> bool:
    """Whether everything is to be shown."""
    return os.environ.get(VERBOSE, "") not in ("", "0")


@dataclass(frozen=True)
class Hush:
    """A filter that leaves out one message."""

    beginning: str

    def filter(self, record: logging.LogRecord) -> bool:
        return is_verbose() or not record.getMessage().startswith(self.beginning)


def hush_imports() -> None:
    """Before mergekit is imported, in every process that does; twice does no harm."""
    for name, beginning in AT_IMPORT.items():
        logger, hush = logging.getLogger(name), Hush(beginning)
        if hush not in logger.filters:
            logger.addFilter(hush)


@contextmanager
def hidden_bars() -> Iterator[None]:
    """Libraries draw no bars where no terminal shows them: a log would hold each of their states. Before tqdm is imported.

    The variable does not stay: a notebook that calls a command goes on, and vLLM's `LLM.generate` divides by zero under it.
    """
    hides = not sys.stderr.isatty() and "TQDM_DISABLE" not in os.environ
    if hides:
        os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        if hides:
            os.environ.pop("TQDM_DISABLE", None)


@contextmanager
def hushed(name: str, beginning: str) -> Iterator[None]:
    """While mergekit does what a library warns of."""
    logger, hush = logging.getLogger(name), Hush(beginning)
    logger.addFilter(hush)
    try:
        yield
    finally:
        logger.removeFilter(hush)
