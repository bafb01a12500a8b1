"""What went wrong with a point, for people and for the store: whatever the error is, a sweep goes on.

Our own errors say what is wrong and how to mend it. Any other is told in one line; its traceback goes into the store
(`failures.details`), where whoever reports it finds it.
"""

from __future__ import annotations

import traceback

from merge_hooks.texts import one_line

LONGEST = 400  # characters of somebody else's error on the screen


def ends_everything(error: BaseException) -> bool:
    """Whether an error is somebody's wish to stop. Panics of Rust libraries and a library's `sys.exit` are not."""
    return isinstance(error, (KeyboardInterrupt, GeneratorExit))


def explain(error: BaseException) -> str:
    """Why a point failed: our own errors as they are, any other on one line."""
    if getattr(error, "for_people", False):
        return str(error)
    words = f"{type(error).__name__}: {error}".strip().rstrip(":")
    if "out of memory" in str(error).lower() or isinstance(error, MemoryError):
        words = (
            f"out of memory ({words}). Lower max_model_len, gpu_memory_utilization or max_num_seqs, or use bfloat16."
        )
    said = one_line(words)
    return said if len(said) <= LONGEST else f"{said[:LONGEST]} ..."


def details(error: BaseException) -> str:
    """The traceback, for the store."""
    return "".join(traceback.format_exception(error))
