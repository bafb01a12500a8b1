"""Functions compiled by numba, kept on disk from process to process.

numba's own cache could give stale or wrong code in three ways, each of which would be a wrong number: it does not
see a change in a function that a cached one calls; it knows files by their time, which some installers set to one
date for all; and two processes that compile one function for different types at once may take each other's file. So
each compiled function has a folder of its own, named by a hash of everything that its code depends on: the sources
of all kernels, the types of its arguments, the processor, and the versions of Python, numba and LLVM. Whoever finds
the folder finds the right code, and two processes that write it at once write the same.

The folders lie in $NUMBA_CACHE_DIR, else in the user's cache folder ($XDG_CACHE_HOME or ~/.cache, lm_eval_iberian).
Where neither can be written to, each process compiles for itself: about a second for each combination of dtypes and
options.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite import binding
from numba import config, njit, typeof

LOG = logging.getLogger(__name__)
SOURCES = ("compiled.py", "constants.py", "cpu.py", "float_bits.py")
OPTIONS: Any = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}  # called from Python alone
_SETTING = threading.Lock()
_COMPILED: dict[Any, Callable[..., Any]] = {}


@cache
def mend_llvmlite() -> None:
    """Let llvmlite's library say that it has no `__dict__`, for which it makes up a function now. Twice does no harm.

    vLLM 0.32 on CPUs looks through the values of all modules when an engine starts (triton_utils/dispatcher.py), and
    would stumble over it.
    """
    library = type(binding.ffi.lib)
    found = library.__getattr__

    def attribute(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return found(self, name)

    library.__getattr__ = attribute


mend_llvmlite()


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's value, computed by code that is compiled or read from disk when such arguments come first.

    Args:
        function: plain Python that numba can compile. Functions that it calls must lie in SOURCES.
        arguments: numbers, None, contiguous arrays and tuples of such arrays.
    """
    key = function, tuple(map(_kind, arguments))
    if key not in _COMPILED:
        _COMPILED[key] = _compiled(function, tuple(map(typeof, arguments)))
    return _COMPILED[key](*arguments)


def _kind(argument: Any) -> Any:
    """What tells two arguments of different numba types apart; faster than `typeof`."""
    if isinstance(argument, np.ndarray):
        return argument.dtype.char, argument.ndim
    return tuple(map(_kind, argument)) if isinstance(argument, tuple) else type(argument)


def _compiled(function: Callable[..., Any], signature: tuple[Any, ...]) -> Callable[..., Any]:
    folder = _folder(function.__name__, str(signature))
    if folder is not None:
        try:
            return _from_folder(function, signature, folder)
        except Exception as error:  # numba passes on what reading, unpickling or a full disk may raise
            LOG.warning("merged: %s is compiled anew in this process, for its cache %s fails (%s)",
                        function.__name__, folder, error)  # fmt: skip
    dispatcher = njit(**OPTIONS)(function)
    dispatcher.compile(signature)
    return dispatcher


def _from_folder(function: Callable[..., Any], signature: tuple[Any, ...], folder: Path) -> Any:
    with _SETTING:  # numba looks at the setting when it decorates
        before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
        try:
            dispatcher = njit(**OPTIONS, cache=True)(function)
        finally:
            config.CACHE_DIR = before
    dispatcher.compile(signature)
    dispatcher.disable_compile()  # other types would share the folder
    return dispatcher


def _folder(name: str, signature: str) -> Path | None:
    """Where code for this signature is kept; None where nothing can be written."""
    facts = (_facts(), name, signature)
    try:
        folder = _base() / hashlib.sha256(repr(facts).encode()).hexdigest()[:24]
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    return folder


def _base() -> Path:
    if config.CACHE_DIR:
        return Path(config.CACHE_DIR) / "merge_hooks"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lm_eval_iberian" / "kernels"


@cache
def _facts() -> tuple[Any, ...]:
    """What all compiled code depends on."""
    settings = {name: getattr(config, name) for name in ("CPU_NAME", "CPU_FEATURES", "OPT", "LOOP_VECTORIZE")}
    processor = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    versions = platform.python_version(), numba.__version__, llvmlite.__version__
    return SOURCE_HASHES, settings, processor, versions


def source_hashes() -> list[str]:
    """Of the files of SOURCES as they are now."""
    return [hashlib.sha256(Path(__file__).with_name(name).read_bytes()).hexdigest() for name in SOURCES]


# Looked at when this is imported, as the sources are: they may be edited while the process runs.
SOURCE_HASHES = source_hashes()
