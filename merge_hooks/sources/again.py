"""The Hub is asked again while its trouble may pass: for models and for documents alike."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from merge_hooks.texts import one_line, seen

TRIES = 6
FIRST_PAUSE_SECONDS = 1.0
TRUE = ("1", "TRUE", "ON", "YES")
# huggingface_hub's own, and those that it and `datasets` heed as well.
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
# Errors of httpx, which is httpx2 from huggingface_hub 2 on, and of `datasets`, by name.
PASSING_KINDS = {"TimeoutException", "TimeoutError", "ReadError", "RemoteProtocolError", "ConnectionResetError"}
Found = TypeVar("Found")


def patiently(fetch: Callable[[], Found], what: str, log: logging.Logger) -> Found:
    """Call `fetch`; call it again after 1, 2, 4, 8 and 16 seconds while the trouble may pass.

    Args:
        what: what is fetched, for the log.
    Raises:
        Exception: what `fetch` raised last.
    """

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            "%s: %s; trying again in %g s (%d more).",
            seen(what), in_one_line(error) if error else "", state.upcoming_sleep, TRIES - state.attempt_number,
        )  # fmt: skip

    again = Retrying(
        retry=retry_if_exception(may_pass), wait=wait_exponential(FIRST_PAUSE_SECONDS), stop=stop_after_attempt(TRIES),
        before_sleep=say, reraise=True,
    )  # fmt: skip
    return again(fetch)


def offline() -> str:
    """The variable that forbids the network, e.g. "HF_HUB_OFFLINE=1"; empty if none does."""
    for name in OFFLINE_VARIABLES:
        if os.environ.get(name, "").upper() in TRUE:
            return f"{name}={os.environ[name]}"
    return ""


def may_pass(error: BaseException) -> bool:
    """Whether to try again: a busy or broken server, a time-out, a cut connection; not a refusal, not offline."""
    if offline():
        return False
    if found := statuses(error):
        return found[0] >= 500 or found[0] in (408, 429)
    kinds = {kind.__name__ for one in chain(error) for kind in type(one).__mro__}
    return bool(kinds & PASSING_KINDS) and "ConnectTimeout" not in kinds  # a firewall that swallows everything


def statuses(error: BaseException) -> list[int]:
    """The HTTP statuses behind an error and its causes."""
    found = (getattr(getattr(one, "response", None), "status_code", None) for one in chain(error))
    return [status for status in found if isinstance(status, int)]


def chain(error: BaseException) -> list[BaseException]:
    """An error and what caused it: `datasets` and huggingface_hub wrap what they caught."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or one.__context__
    return found


def in_one_line(error: BaseException) -> str:
    """An error's kind and first line."""
    return one_line(f"{type(error).__name__}: {error}".splitlines()[0])
