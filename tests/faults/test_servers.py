"""Servers that are hostile, broken, or no vLLM at all: each is an error of ours, in bounded time and memory."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from lm_eval_iberian.models import server_batches
from lm_eval_iberian.models.questions import Pair
from lm_eval_iberian.models.served import look, states_of
from lm_eval_iberian.models.server_batches import ask_in_batches
from lm_eval_iberian.models.server_scoring import score_by_questions
from merge_hooks.engines import vllm, vllm_server
from merge_hooks.engines.vllm_server import Server, understood
from merge_hooks.errors import EngineError
from tests.conftest import first_ones


def http(body: bytes, more: str = "", status: str = "200 OK") -> bytes:
    """An answer as it goes over the wire."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def slowly(connection: socket.socket) -> None:
    """A letter now and then: each comes in time, and all together never."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n")
    for _ in range(1000):
        connection.sendall(b" ")
        time.sleep(0.05)


def endlessly(connection: socket.socket) -> None:
    """More and more, of a length that is not said."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        connection.sendall(b"x" * 100_000)


# fault -> the bytes of every answer, or what is done with the connection.
ANSWERS: dict[str, bytes | Callable[[socket.socket], None]] = {
    "a list": http(b"[]"), "a number": http(b"5"), "nothing": http(b""), "null": http(b"null"), "a text": http(b'"x"'),
    "empty": http(b"{}"), "no JSON": http(b"{"), "depth": http(b"[" * 100_000), "digits": http(b'{"version": ' + b"9" * 10_000 + b"}"),
    "no UTF-8": http(b'{"a": "\xff"}'), "a redirect": http(b"{}", "Location: http://127.0.0.1:1/\r\n", "302 Found"),
    "broken gzip": http(b"abc", "Content-Encoding: gzip\r\n"), 
    "a lie about its length": http(b"{}").replace(b": 2", b": 20000"), "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n", "a long header": http(b"{}", f"X: {'x' * 1_000_000}\r\n"),
    "lists for objects": http(b'{"version": [], "data": [[]], "results": [[]], "vllm_config": [], "success": []}'),
    "numbers for lists": http(b'{"version": 5, "data": 5, "results": 5, "vllm_config": 5}'),
    "nothing in it": http(b'{"version": "0.32.0", "data": [], "results": [], "vllm_config": {}}'),
    "words for numbers": http(json.dumps({
        "version": "0.32.0", "data": [{"id": 1, "root": [], "max_model_len": "long"}], "vllm_config": {"model_config": 5},
        "results": [{"digest": 5, "wrong": 3, "unproved": None}],
    }).encode()),
    "infinite": http(b'{"version": "0.32.0", "data": [{"id": "a", "root": "a", "max_model_len": Infinity}], "vllm_config": {}}'),
    "obeyed by terminals": http(b'{"version": "\\u001b[2J"}'),
    "a bomb": http(gzip.compress(b" " * 5_000_000), "Content-Encoding: gzip\r\n"), "endless": endlessly, "slow": slowly,
}  # fmt: skip


class Hostile:
    """Gives every connection the same."""

    def __init__(self, said: bytes | Callable[[socket.socket], None]) -> None:
        self.said, self.socket = said, socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(65536)
            if callable(self.said):
                self.said(connection)
            else:
                connection.sendall(self.said)


class Holder:
    """Whoever asks it has the turn, always."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def hold(self) -> None: ...

    check = release = recover = renew = hold


def score(server: Server, pairs: list[Pair]) -> None:
    score_by_questions(lambda bodies, take: ask_in_batches(Holder(server), bodies, take, 1), pairs, lambda *_: None, 4)  # type: ignore[arg-type]


def understood_prove(server: Server) -> Any:
    with understood(server.base_url):
        return vllm.prove(server)


CALLS: dict[str, Callable[[Server], Any]] = {
    "look": look, "states": states_of, "prove": understood_prove, "block size": lambda server: server.block_size,
    "reset": lambda server: server.reset_prefix_cache(), "configuration": lambda server: server.configuration,
    "healthy": lambda server: server.is_healthy(), "models": lambda server: server.models,
    "score": lambda server: score(server, [Pair(("", ""), (1, 2), (3,))]),
}  # fmt: skip
# Of these any answer may be one.
ANY = ("block size", "reset", "healthy", "configuration")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_server, "MOST_BYTES", 1_000_000)
    monkeypatch.setattr(server_batches, "TIMES", 1)


@pytest.mark.parametrize("fault", first_ones(ANSWERS, len(ANSWERS) - 3))
def test_a_hostile_server_is_one_message(hasty: None, fault: str) -> None:
    hostile = Hostile(ANSWERS[fault])
    for name, call in CALLS.items():
        server, start = Server(hostile.url, timeout=0.2, pause=lambda _: None), time.monotonic()
        try:
            call(server)
        except EngineError as error:
            assert len(str(error)) > 40 and "\x1b" not in str(error), (name, error)
        else:
            assert name in ANY or fault in ("nothing in it", "words for numbers", "infinite"), name
        assert time.monotonic() - start < 30, name
    hostile.socket.close()


# What is wrong with one of the answers to a request for log-probabilities.
CHOICES: dict[str, Any] = {
    "NaN": {"top_logprobs": [{"token_id:3": float("nan"), "token_id:0": -1.0}]}, "a word": {"top_logprobs": [{"token_id:3": "high", "token_id:0": -1.0}]},
    "null": {"top_logprobs": [{"token_id:3": None, "token_id:0": -1.0}]}, "likelier than sure": {"top_logprobs": [{"token_id:3": 700.0, "token_id:0": -1.0}]},
    "a list": {"top_logprobs": []}, "a text": {"top_logprobs": "x"}, "no id": {"tokens": ["token_id:x"]}, "a number": {"tokens": 5},
    "NaN on top": {"token_logprobs": [float("nan")]}, "an object": {"token_logprobs": {}}, "huge": {"tokens": ["token_id:" + "9" * 5000]},
}  # fmt: skip


@pytest.mark.parametrize("fault", CHOICES)
def test_log_probabilities_that_are_none_are_refused(hasty: None, fault: str) -> None:
    good = {
        "tokens": ["token_id:0"],
        "token_logprobs": [-1.0],
        "top_logprobs": [{"token_id:0": -1.0, "token_id:3": -2.0}],
    }
    found: list[Any] = []
    for said in (good, good | CHOICES[fault]):
        choice = {"index": 0, "finish_reason": "length", "logprobs": said}
        hostile = Hostile(http(json.dumps({"choices": [choice], "usage": {"prompt_tokens": 2}}).encode()))
        server = Server(hostile.url, timeout=5.0, pause=lambda _: None)
        try:
            score(server, [Pair(("", ""), (1, 2), (3,))])
        except EngineError as error:
            found.append(str(error))
        else:
            found.append("")
        hostile.socket.close()
    assert found[0] == "" and len(found[1]) > 40
