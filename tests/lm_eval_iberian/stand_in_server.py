"""A local server that speaks as much of a vLLM server's HTTP as `backend=server` needs, with its bad days.

Its model is a table: the log-probabilities after a prompt are made from the prompt and the name of the weights. So the
right answers are known without any engine. As vLLM does, it hides token 0 behind -9999 where lists of named tokens are
filled up, and gives log-probabilities of a prompt without its first token.
"""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

VOCABULARY = 50


def row_after(weights: str, tokens: list[int]) -> list[float]:
    """The log-probabilities of all tokens after a prompt; those from VOCABULARY on are as likely as the first ones."""
    dice = random.Random(f"{weights} {tokens}")
    drawn = [dice.uniform(-6, 0) for _ in range(VOCABULARY)]
    total = math.log(sum(map(math.exp, drawn)))
    return [value - total for value in drawn]


def complete(weights: str, body: dict[str, Any], fills_up: bool = True) -> dict[str, Any]:
    """vLLM's answer to a request for completions of one token, or of more: then "abc"."""
    prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
    choices = [_choice(weights, body, prompt, fills_up) | {"index": place} for place, prompt in enumerate(prompts)]
    usage = {"completion_tokens": body["max_tokens"], "prompt_tokens": sum(map(len, prompts))}
    return {"choices": choices[::-1], "usage": usage}


def _choice(weights: str, body: dict[str, Any], prompt: list[int], fills_up: bool) -> dict[str, Any]:
    row = row_after(weights, prompt)
    sampled = max(range(VOCABULARY), key=row.__getitem__)
    found = {f"token_id:{token}": row[token % VOCABULARY] for token in [sampled, *body.get("logprob_token_ids", [])]}
    if fills_up and body.get("logprob_token_ids"):
        found["token_id:0"] = -9999.0
    logprobs = {
        "tokens": [f"token_id:{sampled}"],
        "token_logprobs": [found[f"token_id:{sampled}"]],
        "top_logprobs": [found],
    }
    rows: list[Any] = [None]
    for place in range(1, len(prompt)):
        before = row_after(weights, prompt[:place])
        top = max(range(VOCABULARY), key=before.__getitem__)
        rows.append({str(token): {"logprob": before[token % VOCABULARY]} for token in (prompt[place], top)})
    return {
        "text": "abc", "finish_reason": "length", "logprobs": logprobs,
        "prompt_logprobs": rows if body.get("prompt_logprobs") is not None else None,
    }  # fmt: skip


class StandInServer:
    """The server, running in a thread until `close`.

    Attributes:
        answers: path -> (status, JSON), instead of what would be answered.
        trouble: statuses to answer next, one a request; 0 closes the connection without a word.
        weights: name of what is in it. `stamp`, `digest`, `merged`: what its worker says of it.
        changes_after: after so many completions somebody else changes the weights, once.
        spoil: what somebody between does to an answer to a request for completions: (request, answer) -> answer.
        headers: sent with every answer. `served`: entries of /v1/models, where these are others than usual.
        asked: path -> how often.
    """

    def __init__(self, root: str = "toy", window: int = 64, tokens: Any = None, is_dev: bool = True) -> None:
        self.root, self.window, self.tokens, self.is_dev = root, window, tokens, is_dev
        self.weights, self.stamp, self.digest, self.merged = "first", uuid4().hex, "", False
        self.version, self.owner, self.key, self.seconds = "0.32.0", "", "", 0.0
        self.answers: dict[str, tuple[int, Any]] = {}
        self.trouble: list[int] = []
        self.changes_after: int | None = None
        self.spoil: Callable[[Any, Any], Any] = lambda body, answer: answer
        self.headers: dict[str, str] = {}
        self.served: list[dict[str, Any]] = []
        self.asked: Counter[str] = Counter()
        self.salts: set[str] = set()
        self.model_config: dict[str, Any] = {"model": root, "tokenizer": root, "dtype": "torch.float32"}
        self.configuration: dict[str, Any] = {}  # other sections
        handler = type("Handler", (_Handler,), {"server_of": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def change(self, weights: str, digest: str = "") -> None:
        """Other weights."""
        self.weights, self.stamp, self.digest, self.merged = weights, uuid4().hex, digest, True

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        """(status, JSON or text)."""
        self.asked[path] += 1
        if self.trouble:
            return self.trouble.pop(0), {"error": {"message": "a bad day"}}
        if path in self.answers:
            return self.answers[path]
        simple = {
            "/health": "", "/version": {"version": self.version}, "/pause": {}, "/resume": {},
            "/v1/models": {"data": self.served or [{"id": self.root, "root": self.root, "max_model_len": self.window}]},
            "/metrics": 'vllm:cache_config_info{block_size="4",enable_prefix_caching="True"} 1.0\n',
            "/reset_prefix_cache": {"success": True},
        }  # fmt: skip
        if path in simple and (self.is_dev or path not in ("/pause", "/resume", "/reset_prefix_cache")):
            return 200, simple[path]
        if path == "/v1/completions":
            return self._completions(body)
        if path == "/tokenize" and self.tokens:
            return 200, {"tokens": self.tokens(body["prompt"])}
        if path == "/server_info" and self.is_dev:
            return 200, {"vllm_config": {"model_config": self.model_config, **self.configuration}}
        if path == "/collective_rpc" and self.is_dev:
            return 200, {"results": [self._worker(body["method"], body["args"])]}
        return 404, {"detail": "Not Found"}

    def _completions(self, body: Any) -> tuple[int, Any]:
        time.sleep(self.seconds)
        self.salts.add(body.get("cache_salt", ""))
        if self.changes_after is not None:
            self.changes_after -= 1
            if self.changes_after == 0:
                self.change("somebody else's", "0" * 32)
        return 200, self.spoil(body, complete(self.weights, body))

    def _worker(self, method: str, arguments: list[Any]) -> Any:
        if method == "merge_state":
            return {"stamp": self.stamp, "digest": self.digest, "merged": self.merged, "dtype": "float32"}
        if method == "merge_lease":
            if self.owner in ("", arguments[0]):
                self.owner = arguments[0] if arguments[1] else ""
            return {"owner": self.owner, "seconds": 60.0}
        if method == "merge_swap":
            self.change("ours", "d" * 32)
            return {"digest": self.digest}
        if method == "merge_prove":
            return {"digest": self.digest, "wrong": [], "unproved": [], "unused": []}
        from merge_hooks.resolve.resolver import from_payload

        return {"prints": from_payload(arguments[0]).prints}


class _Handler(BaseHTTPRequestHandler):
    server_of: StandInServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else head and body of an answer come 40 ms apart

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(json.loads(text) if text else None)

    def _answer(self, body: Any) -> None:
        server = self.server_of
        if server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
            status, said = 401, {"error": "Unauthorized"}
        else:
            status, said = server.answer(self.path.partition("?")[0], body)
        if status == 0:
            self.close_connection = True
            self.connection.close()
            return
        data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(said, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
