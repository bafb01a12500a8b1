"""A vLLM server that is already running, asked over HTTP. No vLLM is needed on this machine.

`Server` has the calls of `vllm.LLM` that `merge_hooks.engines.vllm` needs (`collective_rpc`, `reset_prefix_cache`), so
a swap and its proof are the same code as in process. vLLM has these endpoints in its development mode only. Read in
vLLM 0.32: `entrypoints/serve/dev`, `entrypoints/rl/online`, `entrypoints/openai/completion`.

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --host 127.0.0.1 \
        --worker-extension-cls merge_hooks.engines.vllm_worker.MergingWorker
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from merge_hooks.engines.vllm import CHECKED_VERSIONS, WORKER
from merge_hooks.errors import EngineError
from merge_hooks.texts import one_line

# How to start a server that can be swapped, for errors.
HOW_TO_START = (
    f"VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --host 127.0.0.1 --worker-extension-cls {WORKER} (with lm_eval_iberian "
    "installed beside vLLM)"
)
# Answers after which the same request may be sent again.
PASSING = (429, 502, 503, 504)
TRIES = 5
# Calls of workers that change no weights.
HARMLESS = ("merge_state", "merge_prove", "merge_prints", "merge_lease")
LONGEST_PAUSE = 30.0  # seconds
REDIRECTS = (301, 302, 303, 307, 308)
# What is left out of an address: lm_eval's `local-completions` wants the whole path of its requests.
ENDS = ("/v1/completions", "/v1/chat/completions", "/v1")
LONGEST_WATCH = 5.0  # seconds between two looks whether a server is back
# The longest answer that is read: log-probabilities of a prompt take some 100 bytes a token.
MOST_BYTES = 1_000_000_000
# What the engine takes at most a request, from tokens to named tokens; see `_block_size`.
USUAL_BLOCK_SIZE = 16


class ServerAwayError(EngineError):
    """The server does not answer: it was stopped, has died, or cannot be reached."""


class RefusedError(EngineError):
    """The server answered that it will not.

    Args:
        status: the HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class _Said:
    """What came of a request.

    Args:
        status: the HTTP status; None if there was no answer.
        content: JSON or text; without an answer, what went wrong.
        wait: seconds to wait before the same request, as the server says.
        location: where a redirect leads to.
        is_late: whether the time was up.
    """

    status: int | None
    content: Any
    wait: float = 0.0
    location: str = ""
    is_late: bool = False


@dataclass
class Server:
    """One vLLM server.

    Args:
        base_url: "http://host:8000"; what follows from "/v1" on is left out.
        key: what the server was given as --api-key.
        timeout: seconds that one answer may take.
        patience: seconds to wait for a server that is away, or that says how long it is busy.
        pause: waits so many seconds (for tests).
    Raises:
        EngineError: the address is none, or holds a key; or the key is none.
    """

    base_url: str
    key: str | None = None
    timeout: float = 600.0
    patience: float = 600.0
    pause: Callable[[float], None] = field(default=time.sleep, repr=False)

    def __post_init__(self) -> None:
        self.base_url = _address(self.base_url)
        self.key = (self.key or "").strip() or None
        if self.key and not (self.key.isascii() and self.key.isprintable()):
            raise EngineError(
                "VLLM_API_KEY holds line breaks or letters that no HTTP header takes. Set it to the server's --api-key, "
                "and nothing else."
            )

    @cached_property
    def _client(self) -> Any:
        import httpx

        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        timeout = httpx.Timeout(self.timeout, connect=10.0)
        return httpx.Client(base_url=self.base_url, headers=headers, limits=limits, timeout=timeout)

    def get(self, path: str) -> Any:
        """The JSON, or the text, that lies there. See `_ask` for errors."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Any = None, tries: int = TRIES) -> Any:
        """The JSON that is answered. See `_ask` for errors.

        Args:
            tries: 1 where a request must not be sent twice.
        """
        return self._ask("POST", path, body, tries)

    def _ask(self, method: str, path: str, body: Any, tries: int = TRIES) -> Any:
        """Ask, and again after a while where that may help. What took too long would take as long again.

        Raises:
            ServerAwayError: no answer, after so many tries.
            RefusedError: the server's own words.
        """
        trouble, waited = "", 0.0
        for number in range(1, tries + 1):
            said = self._send(method, path, body)
            if said.status == 200:
                return said.content
            trouble = f"{said.content}" if said.status is None else f"status {said.status}: {message_of(said.content)}"
            if said.status is not None and said.status not in PASSING:
                raise self._refusal(path, said)
            if said.is_late or number == tries or (said.wait and waited + said.wait > self.patience):
                break
            pause = max(said.wait, min(LONGEST_PAUSE, 0.25 * 2**number) * random.uniform(0.5, 1.0))
            self.pause(pause)
            waited += pause
        raise ServerAwayError(
            f"{self.base_url}: the server does not answer ({path}: {trouble:.300}). Is it running, and is this its address?"
            f"{self._proxy_in_words()}"
        )

    def _send(self, method: str, path: str, body: Any) -> _Said:
        """The answer, or what went wrong if there was none."""
        import httpx

        until = time.monotonic() + self.timeout
        try:
            with self._client.stream(method, path, json=body) as answer:
                content = b"".join(_pieces(answer.iter_bytes(), until))
            is_json = answer.headers.get("content-type", "").startswith("application/json")
            said = json.loads(content) if is_json and content else content.decode(errors="replace")
            head = answer.headers
            return _Said(answer.status_code, said, _seconds(head.get("retry-after", "")), head.get("location", ""))
        except (httpx.TimeoutException, TimeoutError) as error:
            is_late = not isinstance(error, (httpx.ConnectTimeout, httpx.PoolTimeout))
            return _Said(None, f"no answer within {self.timeout:.0f} s; timeout= waits longer", is_late=is_late)
        except (httpx.HTTPError, ValueError, RecursionError) as error:  # ValueError: no JSON, or too long
            return _Said(None, f"{type(error).__name__}: {error}")

    def _refusal(self, path: str, said: _Said) -> EngineError:
        status, words = int(said.status or 0), message_of(said.content)
        if status in REDIRECTS:
            return RefusedError(
                f"{self.base_url}{path}: there is only a redirect ({status}) to {one_line(said.location):.300}, which is not "
                "followed, because prompts and key would go there. If that is the server, say so with base_url=.",
                status,
            )
        if status in (401, 403):
            return RefusedError(
                f"{self.base_url}{path}: the server wants a key, or another one ({status}). Set VLLM_API_KEY to its "
                f"--api-key.{self._proxy_in_words()}",
                status,
            )
        if status >= 500 and not self.is_healthy():
            return ServerAwayError(f"{self.base_url}: the server's engine has died ({path}: {words:.300}).")
        return RefusedError(f"{self.base_url}{path}: the server refused ({status}): {words:.600}", status)

    def _proxy_in_words(self) -> str:
        """For errors: that requests go through a proxy; "" if they do not."""
        from urllib.request import getproxies, proxy_bypass

        import httpx

        address = httpx.URL(self.base_url)
        scheme, host = address.scheme, address.host
        if not any(getproxies().get(kind) for kind in (scheme, "all")) or proxy_bypass(host):
            return ""
        return (
            f" Requests go through the proxy that {scheme.upper()}_PROXY (or ALL_PROXY) names: if it cannot reach the "
            f"server, export NO_PROXY={host}."
        )

    def is_healthy(self) -> bool:
        """Whether the server and its engine live, asked once."""
        return self._send("GET", "/health", None).status == 200

    def wait(self) -> None:
        """Return when the server is healthy. Raises ServerAwayError after `patience` seconds."""
        start, pause = time.monotonic(), 0.5
        while not self.is_healthy():
            left = self.patience - (time.monotonic() - start)
            if left <= 0:
                raise ServerAwayError(
                    f"{self.base_url}: no healthy server there for {self.patience:.0f} s. Start it (again), and then the "
                    "same command: what was answered before is kept where answers are stored. patience= waits longer."
                )
            self.pause(min(pause, left))
            pause = min(LONGEST_WATCH, pause * 1.6)

    @property
    def version(self) -> str:
        """vLLM's version. Raises EngineError for a server that is no vLLM, or one that was not checked."""
        try:
            found = self.get("/version")
            version = str(found["version"])
        except (RefusedError, TypeError, LookupError):
            raise EngineError(
                f"{self.base_url}: no vLLM answers there (it has no /version). backend=server is for `vllm serve`."
            ) from None
        low, high = (text.lstrip("><=") for text in CHECKED_VERSIONS)
        if not _numbers(low) <= _numbers(version[:100]) < _numbers(high):
            raise EngineError(
                f"{self.base_url}: the server is vLLM {version}; checked are {' and '.join(CHECKED_VERSIONS)}. Others "
                "answer log-probabilities otherwise. Start the server with one of these."
            )
        return version

    @property
    def models(self) -> list[dict[str, Any]]:
        """What it serves: `id`, `root` (what it was started with), `max_model_len`."""
        with understood(self.base_url):
            found: list[dict[str, Any]] = _dicts(self.get("/v1/models")["data"])
        return found

    @property
    def cache_facts(self) -> dict[str, str]:
        """vLLM's configuration of its key-value cache, as its metrics have it; empty where they are not to be had."""
        try:
            line = re.search(r"^vllm:cache_config_info\{(.*)\}", str(self.get("/metrics")), re.MULTILINE)
        except RefusedError:
            line = None
        return dict(re.findall(r'(\w+)="([^"]*)"', line[1])) if line else {}

    @staticmethod
    def block_size(facts: Mapping[str, str]) -> int | None:
        """Tokens in a block of its prefix cache, by its `cache_facts`; None if it has none."""
        if facts.get("enable_prefix_caching") == "False":
            return None
        size = facts.get("block_size", "")
        return int(size) if size.isdigit() else USUAL_BLOCK_SIZE

    @property
    def configuration(self) -> dict[str, Any] | None:
        """vLLM's configuration of the server; None if it is not in development mode, or a gateway keeps it from us."""
        try:
            with understood(self.base_url):
                (found,) = _dicts([self.get("/server_info?config_format=json")["vllm_config"]])
        except RefusedError as error:
            if error.status in (403, 404, 405):
                return None
            raise
        return found

    # What `vllm.LLM` has

    def collective_rpc(self, method: str, timeout: float | None = None, args: Sequence[Any] = ()) -> list[Any]:
        """What each worker answers to a call by name. The request is sent once, but for calls that may be made twice.

        Raises:
            RefusedError: the server is not in development mode, or its workers do not have this method.
        """
        body = {"method": method, "args": list(args)}
        with understood(self.base_url):
            tries = TRIES if method in HARMLESS else 1
            found: list[Any] = _dicts(self.post("/collective_rpc", body, tries)["results"])
        return found

    def reset_prefix_cache(self) -> bool:
        """Whether nothing of the old weights is left in it."""
        with understood(self.base_url):
            return bool(self.post("/reset_prefix_cache")["success"])

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While this lasts no request is computed: those under way end first, others wait."""
        self.post("/pause?mode=wait")
        try:
            yield
        finally:
            self.resume()

    def resume(self) -> None:
        """Let requests be computed."""
        self.post("/resume")


@contextmanager
def understood(base_url: str) -> Iterator[None]:
    """What a server answers is read in here. Raises EngineError where it is not what vLLM answers. Also a decorator."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        said = one_line(f"{type(error).__name__}: {error}")
        raise EngineError(
            f"{base_url}: the server answered otherwise than vLLM does ({said:.200}). Is it vLLM {' '.join(CHECKED_VERSIONS)} "
            "that listens there, with nothing between that changes answers?"
        ) from error


def _address(url: str) -> str:
    """A server's address, without what its paths begin with. Raises EngineError if it is none, or holds a secret."""
    import httpx

    url = url.strip().rstrip("/")
    if not re.match(r"https?://[^/:]", url):
        raise EngineError(f"base_url={url:.200}: write it with http://, as http://127.0.0.1:8000.")
    if "@" in url:
        raise EngineError(
            "base_url= holds a name or a password (before an @), and arguments are written into results files. Leave it out, "
            "and set the environment variable VLLM_API_KEY to the server's key."
        )
    if "?" in url or "#" in url:
        raise EngineError(f"base_url={re.split('[?#]', url)[0]:.200}: write it so, without what follows the path.")
    for end in ENDS:
        url = url.removesuffix(end)
    try:
        if not 0 < int(httpx.URL(url).port or 80) < 1 << 16 or not re.fullmatch(r"[!-~]+", url):
            raise ValueError("its port")
        httpx.Request("GET", url)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise EngineError(f"base_url={url:.200}: this is no address. Write it as http://127.0.0.1:8000.") from None
    return url.rstrip("/")


def _seconds(said: str) -> float:
    """How long to wait, by the header Retry-After: seconds, or a date. 0 where it does not say."""
    try:
        if re.fullmatch(r"\s*\d{1,9}(\.\d*)?\s*", said):
            return float(said)
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _dicts(found: Any) -> list[dict[str, Any]]:
    """The list. Raises TypeError if it is no list of mappings with something in it."""
    if not isinstance(found, list) or not found or not all(isinstance(one, dict) for one in found):
        raise TypeError("no list of objects")
    return found


def _pieces(pieces: Iterator[bytes], until: float) -> Iterator[bytes]:
    """An answer as it comes. Raises ValueError for one that is too long, TimeoutError for one that does not end."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MOST_BYTES:
            raise ValueError(f"an answer of more than {MOST_BYTES / 1e9:.0f} GB")
        if time.monotonic() > until:
            raise TimeoutError
        yield piece


def message_of(said: Any) -> str:
    """The message of an error, as OpenAI's API and FastAPI write it."""
    if isinstance(said, dict):
        error = said.get("error", said.get("detail", said))
        said = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(said).split())


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
