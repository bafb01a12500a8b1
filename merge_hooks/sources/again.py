"""The Hub is asked again while its trouble may pass, and no more where it cannot be connected to: for models and for
documents alike.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
    wait_fixed,
)

from merge_hooks.texts import one_line, seen

TRIES = 6
FIRST_PAUSE_SECONDS = 1.0
# Seconds for a connection to the Hub. A name server that swallows questions takes its own time.
CONNECT_SECONDS = 10.0
# What takes longer to fail is not tried again.
AT_ONCE_SECONDS = 3.0
CONNECTION_KINDS = {"ConnectError", "ConnectTimeout", "ConnectionError", "ProxyError"}
TRUE = ("1", "TRUE", "ON", "YES")
# huggingface_hub's own, and those that it and `datasets` heed as well.
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
# Errors of httpx, which is httpx2 from huggingface_hub 2 on, and of `datasets`, by name.
PASSING_KINDS = {"TimeoutException", "TimeoutError", "ReadError", "RemoteProtocolError", "ConnectionResetError"}
Found = TypeVar("Found")
# The Hubs that this process looked for and did not find.
_AWAY: set[str] = set()


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


def look_for_the_hub(log: logging.Logger) -> None:
    """Before the first request of a process: where the Hub cannot be connected to, say so, and go on as if
    HF_HUB_OFFLINE were set, in this process and in those that it starts.

    On a node whose firewall swallows packets each request waits for its whole time-out, and huggingface_hub makes each
    up to six times, many for each model and data set: minutes without a word, also where its cache holds everything.
    """
    from huggingface_hub import constants

    if not (offline() or constants.HF_HUB_OFFLINE) and (said := away(constants.ENDPOINT)):
        log.warning("%s. What its cache holds is read, as with HF_HUB_OFFLINE=1, which saves this wait.", seen(said))
        _AWAY.add(constants.ENDPOINT)
        os.environ[OFFLINE_VARIABLES[0]] = "1"
        constants.HF_HUB_OFFLINE = True
        if config := sys.modules.get("datasets.config"):  # its own copy
            config.HF_HUB_OFFLINE = config.HF_DATASETS_OFFLINE = True  # type: ignore[attr-defined]


@cache
def away(endpoint: str) -> str:
    """Why the Hub cannot be connected to; "" where something answers there. Asked once.

    What fails at once, as a name server may for a moment, is tried three times.
    """
    from huggingface_hub import get_session

    again = Retrying(
        retry=retry_if_exception(_has_no_connection), wait=wait_fixed(FIRST_PAUSE_SECONDS), reraise=True,
        stop=stop_after_attempt(3) | stop_after_delay(AT_ONCE_SECONDS),
    )  # fmt: skip
    try:
        again(get_session().head, endpoint, timeout=CONNECT_SECONDS)
    except Exception as error:
        if _has_no_connection(error):
            return f"The Hub ({endpoint}) is out of reach: {in_one_line(error)}"
    return ""


def _has_no_connection(error: BaseException) -> bool:
    return bool(CONNECTION_KINDS & kinds(error))


def offline() -> str:
    """The variable that forbids the network, e.g. "HF_HUB_OFFLINE=1"; empty if none does."""
    for name in OFFLINE_VARIABLES:
        if os.environ.get(name, "").upper() in TRUE:
            return f"{name}={os.environ[name]}"
    return ""


def no_way() -> str:
    """What keeps this process from the Hub, in words; empty if nothing does."""
    found = offline()
    return "The Hub is out of reach" if found and _AWAY else f"{found} forbids the network" if found else ""


def may_pass(error: BaseException) -> bool:
    """Whether to try again: a busy or broken server, a time-out, a cut connection; not a refusal, not offline."""
    if offline():
        return False
    if found := statuses(error):
        return found[0] >= 500 or found[0] in (408, 429)
    names = kinds(error)
    return bool(names & PASSING_KINDS) and "ConnectTimeout" not in names  # a firewall that swallows everything


def statuses(error: BaseException) -> list[int]:
    """The HTTP statuses behind an error and its causes."""
    found = (getattr(getattr(one, "response", None), "status_code", None) for one in chain(error))
    return [status for status in found if isinstance(status, int)]


def kinds(error: BaseException) -> set[str]:
    """The names of the classes of an error and of its causes, and of what these are derived from."""
    return {kind.__name__ for one in chain(error) for kind in type(one).__mro__}


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
