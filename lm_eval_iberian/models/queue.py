"""Requests into a running vLLM, answers out as soon as each is complete.

`LLM.generate` returns nothing before all of its requests are done. Here the engine is driven through the calls that
vLLM documents for this (`add_request`, `step`, `abort_request`: its example llm_engine_example.py). So a run that is
killed loses only what was in flight. This works with the engine in this process or in its own, and with tensor
parallelism. A bounded number of requests is in the engine at a time; the rest wait here, in their order.

    run_queue(llm, [Request(tokens, SamplingParams(...)), ...], lambda index, output: ...)
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from merge_hooks.engines.alive import asking
from merge_hooks.errors import EngineLostError

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")
# Requests in the engine, as a multiple of those that run at once: the next are at hand whenever one ends.
AHEAD = 2
# Where an `LLM` notes the requests that are under way. If they broke off and this is still there, its prefix cache may
# hold blocks that no step has computed.
UNDER_WAY = "iberian_under_way"


@dataclass(frozen=True)
class Request:
    """What the engine is asked.

    Args:
        tokens: the prompt, token ids.
        params: a `vllm.SamplingParams`; its `output_kind` is set to "final only".
    """

    tokens: Sequence[int]
    params: Any


def run_queue(
    llm: Any, requests: Iterable[Request], take: Callable[[int, Any], None], lora_request: Any = None
) -> None:
    """Run requests through the engine, first come first served.

    If anything ends it early (an error, Ctrl-C), requests in the engine are aborted and its prefix cache is emptied, so
    that the engine can go on; then the error is raised. A first Ctrl-C waits for the engine's step, a second does not.

    Args:
        llm: a `vllm.LLM` with nothing else under way.
        requests: read as room becomes free.
        take: called with a request's index in `requests` and its finished `vllm.RequestOutput`, in the order in which
            they finish.
        lora_request: vLLM's, for all of them.
    Raises:
        EngineLostError: the engine has died, or its prefix cache cannot be emptied after requests that broke off before.
    """
    engine = llm.llm_engine
    if hasattr(llm, UNDER_WAY) and not _empty(llm):
        raise EngineLostError(
            "vLLM's prefix cache could not be emptied after an interruption, so its answers may be wrong. Start a new engine."
        )
    limit = AHEAD * engine.vllm_config.scheduler_config.max_num_seqs
    waiting = enumerate(requests)
    # vLLM's name of a request in the engine -> its place
    running: dict[str, int] = {}
    setattr(llm, UNDER_WAY, running)
    try:
        with asking(llm, "while it answered") as ask, _interrupts_between_steps() as pause:
            _fill(llm, waiting, running, limit, lora_request)
            while running:
                for output in ask(engine.step):
                    if output.finished:
                        take(running.pop(output.request_id), output)
                pause()
                _fill(llm, waiting, running, limit, lora_request)
    except EngineLostError:
        raise
    except BaseException:
        _abandon(llm)
        raise
    delattr(llm, UNDER_WAY)


def _fill(
    llm: Any, waiting: Iterator[tuple[int, Request]], running: dict[str, int], limit: int, lora_request: Any
) -> None:
    """Add requests to the engine, once half of those that wait in it have been used."""
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind

    if len(running) > limit * 3 // 4:
        return
    while len(running) < limit:
        place, request = next(waiting, (-1, None))
        if request is None:
            return
        request.params.output_kind = RequestOutputKind.FINAL_ONLY
        # The counter that `LLM.generate` takes its names from: no name is given twice.
        name = str(next(llm.request_counter))
        running[name] = place
        llm.llm_engine.add_request(name, tokens_input(list(request.tokens)), request.params, lora_request=lora_request)


def _abandon(llm: Any) -> None:
    """Take requests back out of the engine. If that fails it is only logged: the first error matters more.

    Whoever asks next tries again, and is refused if it still fails; so it is if this is interrupted in its turn.
    """
    try:
        if not _empty(llm):
            LOG.warning("merged: vLLM's prefix cache could not be emptied after an interruption; start a new engine.")
    except Exception as error:
        LOG.warning("merged: the engine did not survive the interruption (%s: %s).", type(error).__name__, error)


def _empty(llm: Any) -> bool:
    """Take the requests under way out of the engine, and its prefix cache with them. Returns whether nothing is left."""
    llm.llm_engine.abort_request(list(getattr(llm, UNDER_WAY)))
    # vLLM counts blocks as cached as soon as they are planned, even if no step ever computed them.
    with asking(llm, "after an interruption") as ask:
        is_empty = bool(ask(llm.reset_prefix_cache))
    if is_empty:
        delattr(llm, UNDER_WAY)
    return is_empty


@contextmanager
def _interrupts_between_steps() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back while the engine computes: an interrupted step would leave it unusable.

    Yields a function that raises the KeyboardInterrupt that came meanwhile. Only the main thread gets signals. In other
    threads, and if somebody else handles Ctrl-C, nothing is changed.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or previous is not signal.default_int_handler:
        yield lambda: None
        return
    came: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    def pause() -> None:
        if came:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handler)
    try:
        yield pause
    finally:
        signal.signal(signal.SIGINT, previous)
