"""What a running vLLM server is: its version, its model, its window, and whether it can be swapped.

served = look(Server("http://127.0.0.1:8000"))
served.why_no_swap      # "" if merges can be put in
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from lm_eval_iberian.models.merge import Prepared, prepare
from merge_hooks.engines.vllm import LOAD_FORMAT, QUANTISED
from merge_hooks.engines.vllm_server import HOW_TO_START, RefusedError, Server, understood
from merge_hooks.errors import EngineError
from merge_hooks.resolve.resolver import from_payload
from merge_hooks.stream.stream import open_stream

# The engine's name in signatures; its version is the server's.
ENGINE = "vllm-server"
KEY_VARIABLE = "VLLM_API_KEY"
# Said of a server that cannot be asked what it computes with.
NOT_PROVED = "the server cannot be asked what it computes with"
# A text that tokenizers read in different ways.
READ_ALIKE = "Kaixo! ¿Qué tal, à la mañana?  L'Ànec\n\tñandú 1234,5 — «bo día» 🦆 <s> [INST] Übung\n"


@dataclass(frozen=True)
class Served:
    """What a server said of itself.

    Args:
        name: what requests call its model; `root`: what it was started with.
        window: its context window in tokens.
        configuration: vLLM's; None if the server is not in development mode.
        states: of each worker (`MergingWorker.merge_state`); None if it has no such worker.
    """

    url: str
    version: str
    name: str
    root: str
    window: int
    block_size: int | None
    configuration: Mapping[str, Any] | None
    states: list[dict[str, Any]] | None

    @property
    def why_no_swap(self) -> str:
        """Why no merge can be put in; "" if one can."""
        if self.configuration is None:
            return "it is not in development mode (VLLM_SERVER_DEV_MODE=1)"
        if self.states is None:
            return "its workers do not have our extension (--worker-extension-cls)"
        if int(self.of("parallel_config", "data_parallel_size") or 1) > 1:
            return "it has more than one engine (--data-parallel-size)"
        if self.quantization and self.quantization not in QUANTISED:
            return f"its weights are quantised as {self.quantization}, which only {', '.join(QUANTISED)} can be for a merge"
        return ""

    def of(self, section: str, key: str) -> Any:
        """An entry of vLLM's configuration; None if it is not known."""
        return (dict(self.configuration or {}).get(section) or {}).get(key)

    @property
    def quantization(self) -> str:
        """How it quantises weights; "" if it does not, or is not known to."""
        return str(self.of("model_config", "quantization") or "")

    @property
    def holds_a_merge(self) -> bool:
        """Whether its weights are of our loader, and not those of the model that it was started with."""
        return self.states is not None and any(state["merged"] for state in self.states)

    @property
    def dtype(self) -> str | None:
        """What the server computes in, where it says so."""
        said = self.states[0]["dtype"] if self.states else self.of("model_config", "dtype")
        return None if said is None else str(said).removeprefix("torch.")

    def engine(self, is_proved: bool) -> str:
        """For signatures: the engine, its version, and what else of the server its answers depend on."""
        cache = self.of("cache_config", "cache_dtype") or "auto"
        more = "" if cache == "auto" else f" cache {cache}"
        return f"{ENGINE}={self.version} window {self.window}{more}" + ("" if is_proved else ";not proved")


def look(server: Server, name: str | None = None) -> Served:
    """Ask a server what it is.

    Args:
        name: the model, if it serves several.
    Raises:
        ServerAwayError: nobody answers. EngineError: it is of another version, or cannot give log-probabilities.
    """
    version, configuration = server.version, server.configuration
    with understood(server.base_url):
        card = _card(server, name)
        served = Served(
            server.base_url, version, str(card["id"]), str(card["root"]), int(card["max_model_len"]), server.block_size,
            configuration, None if configuration is None else _states(server),
        )  # fmt: skip
        mode = served.of("model_config", "logprobs_mode")
    if mode not in (None, "raw_logprobs"):
        raise EngineError(f"{server.base_url}: the server was started with --logprobs-mode {mode}. Start it without.")
    return served


def _card(server: Server, name: str | None) -> dict[str, Any]:
    """The model's entry in /v1/models."""
    models = [card for card in server.models if not card.get("parent")]
    found = [card for card in models if name in (None, card["id"])]
    if not found:
        names = ", ".join(str(card["id"]) for card in models)
        raise EngineError(f"{server.base_url}: the server does not serve {name}. It serves: {names}.")
    return found[0]


def _states(server: Server) -> list[dict[str, Any]] | None:
    try:
        return states_of(server)
    except RefusedError:
        return None


def states_of(server: Server) -> list[dict[str, Any]]:
    """What lies in each worker now."""
    with understood(server.base_url):
        return [
            {
                "stamp": str(one["stamp"]),
                "digest": str(one["digest"]),
                "merged": bool(one["merged"]),
                "dtype": str(one["dtype"]),
            }
            for one in server.collective_rpc("merge_state")
        ]


def server_of(arguments: Mapping[str, Any]) -> Server:
    """The server that the model's arguments name. The key comes from the environment alone.

    Raises:
        EngineError: no address, or a key among the arguments, which go into results files.
    """
    if arguments.get("api_key"):
        raise EngineError(
            f"api_key=: arguments are written into results files. Set the environment variable {KEY_VARIABLE} instead."
        )
    if not arguments.get("base_url"):
        raise EngineError("backend=server: say where it is, as base_url=http://127.0.0.1:8000.")
    server = Server(str(arguments["base_url"]), key=os.environ.get(KEY_VARIABLE))
    for key in ("timeout", "patience"):
        if arguments.get(key) is not None:
            setattr(server, key, float(arguments[key]))
    return server


@lru_cache(maxsize=8)
def _engine_of(base_url: str, name: str | None, swaps: bool) -> str:
    served = look(server_of({"base_url": base_url}), name)
    return served.engine(served.holds_a_merge or (not served.why_no_swap and swaps))


def engine_of(arguments: Mapping[str, Any]) -> str:
    """The engine behind these arguments, for a plan. The server is asked once."""
    server_of(arguments)
    name = arguments.get("served")
    return _engine_of(str(arguments["base_url"]), None if name is None else str(name), arguments.get("swap") != "never")


def prepare_running(served: Served, trust_remote_code: bool) -> Prepared:
    """What the server was started with, from this machine's files: what a merge must fit to.

    Raises:
        EngineError: its model is not to be found here.
    """
    revision = served.of("model_config", "revision")
    tokenizer = served.of("model_config", "tokenizer")
    named = None if tokenizer in (None, served.root) else str(tokenizer)
    prepared = prepare(None, served.root, revision, "auto", named, trust_remote_code)
    extra = served.of("load_config", "model_loader_extra_config") or {}
    if served.of("load_config", "load_format") == LOAD_FORMAT and isinstance(extra, dict) and extra.get("payload"):
        return replace(prepared, stream=open_stream(from_payload(extra["payload"])))
    return prepared


def refuse_other_tokenizer(server: Server, served: Served, tokenizer: Any, origin: str) -> None:
    """Raises EngineError if the server makes other tokens of a text than the tokenizer here."""
    ours = list(tokenizer(READ_ALIKE)["input_ids"])
    try:
        with understood(served.url):
            theirs = list(server.post("/tokenize", {"model": served.name, "prompt": READ_ALIKE})["tokens"])
    except RefusedError as error:
        raise EngineError(
            f"{served.url}: the server does not say how it makes tokens ({error.status}), so nobody can tell whether its "
            f"are those of {origin}. Start it without --skip-tokenizer-init and --tokens-only."
        ) from error
    if ours != theirs:
        raise EngineError(
            f"{served.url}: the server makes other tokens of a text than {origin}: {len(theirs)}, here {len(ours)}. "
            f"Start it with --tokenizer {origin}, or name the tokenizer of {served.root} with tokenizer=."
        )


def how_to_start(served: Served) -> str:
    """How the server would have to be started to be swapped."""
    return f"Start it with: {HOW_TO_START.replace('MODEL', served.root)}."
