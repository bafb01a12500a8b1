"""Requests to a running server, in batches; no answer is passed on before it is known whose weights gave it.

Others may swap the same server, and it may die. So the server is asked what it holds before a batch and after it. If
that is not the same, the answers of the batch are dropped, the server is put right, and the batch is asked again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import chain
from typing import Any, Protocol

from merge_hooks.engines.vllm_server import Server, ServerAwayError, message_of, understood
from merge_hooks.errors import ChangedError, EngineError

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")
# How long a batch takes requests (seconds): what a killed run loses at most, beside what is under way.
BATCH_SECONDS = 10.0
# How often one batch is asked before that is given up.
TIMES = 4
RENEW_SECONDS = 20.0
COMPLETIONS = "/v1/completions"
# How an answer ends that counts: by itself or at a stop, or at the number of tokens that was asked for.
ENDINGS = ("stop", "length")
_NOTHING_BETWEEN = "Give the address of vLLM itself: something between it and here changes requests or answers."

Body = dict[str, Any]
Numbered = tuple[int, Body]


class Holder(Protocol):
    """Who answers for the server's weights."""

    server: Server

    def hold(self) -> None:
        """Make sure that the server holds the right weights, and ask for the turn. Puts them in where needed."""

    def renew(self) -> None:
        """Keep the turn, now and then, while a batch is under way."""

    def check(self) -> None:
        """Raises ChangedError if the server may have held other weights since `hold`."""

    def release(self) -> None:
        """Give the turn to others."""

    def recover(self) -> None:
        """Wait for a server that is away, and see that it is the same."""


def ask_in_batches(
    holder: Holder, bodies: Iterable[Body], take: Callable[[int, Any], None], concurrent: int,
    finish: Callable[[Body], Body] = dict, seconds: float | None = None,
) -> None:  # fmt: skip
    """Ask the server everything.

    Args:
        bodies: of requests for completions; read as room becomes free.
        take: called with a body's index and the answer, once it is known that the answer counts.
        concurrent: requests under way at once.
        finish: completes a body as it is sent, with what may have changed since a batch before.
        seconds: of a batch; BATCH_SECONDS.
    Raises:
        EngineError: the server refused; or it went away or changed again and again.
    """
    try:
        _ask(holder, enumerate(bodies), take, concurrent, finish, BATCH_SECONDS if seconds is None else seconds)
    finally:
        holder.release()


def _ask(
    holder: Holder, waiting: Iterator[Numbered], take: Callable[[int, Any], None], concurrent: int,
    finish: Callable[[Body], Body], seconds: float,
) -> None:  # fmt: skip
    times = 0
    with ThreadPoolExecutor(concurrent, thread_name_prefix="ask") as pool:
        while True:
            sent: list[Numbered] = []
            try:
                holder.hold()
                answers = _batch(holder, pool, waiting, sent, finish, seconds)
                holder.check()
            except (ServerAwayError, ChangedError) as error:
                times += 1
                if times >= TIMES:
                    raise
                LOG.warning("merged: %s Its last answers are dropped and asked again.", error)
                holder.recover()
                waiting = chain(sent, waiting)
                continue
            if not sent:
                return
            times = 0
            for place, answer in answers:
                with understood(holder.server.base_url):
                    take(place, answer)


def complete(server: Server, body: Body) -> Any:
    """The answer to a request for completions, if it is one to this request.

    Raises:
        ChangedError: somebody else had it aborted. EngineError: see `_check`, and `Server.post`.
    """
    answer = server.post(COMPLETIONS, body)
    with understood(server.base_url):
        _check(server.base_url, answer, body)
    return answer


def _check(url: str, answer: Any, body: Body) -> None:
    """See that an answer is to every prompt of its request, that these were read as sent, and that it has an end.

    vLLM answers so. Something between (a gateway, a router) may leave out prompts, cut them, or filter answers.
    """
    if answer.get("error") and "choices" not in answer:
        raise EngineError(f"{url}: the server answered with an error: {message_of(answer):.300}")
    prompts = body["prompt"] if body["prompt"] and isinstance(body["prompt"][0], list) else [body["prompt"]]
    places = sorted(int(choice["index"]) for choice in answer["choices"])
    if places != list(range(len(prompts))):
        raise EngineError(f"{url}: the server answered prompts {places!s:.60} of {len(prompts)}. {_NOTHING_BETWEEN}")
    for choice in answer["choices"]:
        if choice["finish_reason"] == "abort":
            raise ChangedError(f"{url}: somebody else had the requests of this server aborted.")
        if choice["finish_reason"] not in ENDINGS:
            raise EngineError(
                f"{url}: the server ended an answer for another reason than its end or its length "
                f"({choice['finish_reason']!r:.60}). {_NOTHING_BETWEEN}"
            )
    sent, read = sum(map(len, prompts)), (answer.get("usage") or {}).get("prompt_tokens")
    if read is not None and int(read) != sent:  # vLLM always says it; what stands between may leave it out
        raise EngineError(f"{url}: the server read {read} tokens of the prompts, sent were {sent}. {_NOTHING_BETWEEN}")


def _batch(
    holder: Holder, pool: ThreadPoolExecutor, waiting: Iterator[Numbered], sent: list[Numbered],
    finish: Callable[[Body], Body], seconds: float,
) -> list[tuple[int, Any]]:  # fmt: skip
    """Ask until time is up, and wait for what is under way. What was taken from `waiting` is noted in `sent`."""
    start = renewed = time.monotonic()
    running: dict[Future[Any], int] = {}
    answers: list[tuple[int, Any]] = []
    try:
        while True:
            while len(running) < 2 * pool._max_workers and (not sent or time.monotonic() - start < seconds):
                found = next(waiting, None)
                if found is None:
                    break
                sent.append(found)
                running[pool.submit(complete, holder.server, finish(found[1]))] = found[0]
            if not running:
                return answers
            done, _ = wait(running, timeout=RENEW_SECONDS, return_when=FIRST_COMPLETED)
            answers += [(running.pop(future), future.result()) for future in done]
            if time.monotonic() - renewed > RENEW_SECONDS:
                holder.renew()
                renewed = time.monotonic()
    finally:
        for future in running:
            future.cancel()
