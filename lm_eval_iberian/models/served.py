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
from lm_eval_iberian.models.server_arguments import seconds
from merge_hooks.engines.vllm import LOAD_FORMAT, QUANTISED
from merge_hooks.engines.vllm_server import HOW_TO_START, RefusedError, Server, understood
from merge_hooks.errors import EngineError
from merge_hooks.hashing import digest
from merge_hooks.resolve.resolver import from_payload
from merge_hooks.stream.stream import open_stream

# The engine's name in signatures; its version is the server's.
ENGINE = "vllm-server"
KEY_VARIABLE = "VLLM_API_KEY"
# Said of a server that cannot be asked what it computes with.
NOT_PROVED = "the server cannot be asked what it computes with"
# vLLM's configuration, by section (all of it where no keys are named): what changes answers, though the weights are the
# same.
OF_ANSWERS: Mapping[str, tuple[str, ...]] = {
    "model_config": (
        "hf_overrides", "hf_config_path", "disable_sliding_window", "override_attention_dtype", "logits_processors",
        "generation_config",
    ),
    "cache_config": ("cache_dtype", "mamba_cache_dtype", "kv_cache_dtype_skip_layers"),
    "watermark_config": (), "diffusion_config": (),
}  # fmt: skip
# A text that tokenizers read in different ways.
READ_ALIKE = "Kaixo! ¿Qué tal, à la mañana?  L'Ànec\n\tñandú 1234,5 — «bo día» 🦆 <s> [INST] Übung\n"

# How many special tokens are compared, and how many in one text, which must fit into the window.
MOST_SPECIAL, TOKENS_A_TEXT = 128, 32


@dataclass(frozen=True)
class Served:
    """What a server said of itself.

    Args:
        name: what requests call its model; `root`: what it was started with.
        window: its context window in tokens.
        configuration: vLLM's; None if the server is not in development mode.
        states: of each worker (`MergingWorker.merge_state`); None if it has no such worker.
        cache_dtype: of its key-value cache, by its metrics; None if they do not say.
    """

    url: str
    version: str
    name: str
    root: str
    window: int
    block_size: int | None
    configuration: Mapping[str, Any] | None
    states: list[dict[str, Any]] | None
    cache_dtype: str | None = None

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

    @property
    def settings(self) -> dict[str, Any]:
        """What else it was started with that answers depend on, but not weights; empty if it does not say."""
        said: dict[str, Any] = {}
        for section, keys in OF_ANSWERS.items():
            said |= {key: self.of(section, key) for key in keys} or {section: (self.configuration or {}).get(section)}
        said["cache_dtype"] = said["cache_dtype"] or self.cache_dtype
        # "vllm" is a generation_config that is not read, of which requests say all but the tokens at which answers end.
        return {key: value for key, value in said.items() if value not in (None, "", "auto", "vllm", False, [], {})}

    @property
    def facts(self) -> dict[str, Any]:
        """What must stay as it is while a run lasts. Weights may be put in again."""
        named = ("version", "name", "root", "window", "dtype", "quantization", "why_no_swap", "block_size", "settings")
        return {what: getattr(self, what) for what in named}

    def engine(self, is_proved: bool) -> str:
        """For signatures: the engine, its version, and what else of the server its answers depend on."""
        settings = dict(self.settings)
        cache = settings.pop("cache_dtype", None)
        more = f" {self.quantization}" if self.quantization else ""
        more += f" cache {cache}" if cache else ""
        more += f" settings {digest(settings, 8)}" if settings else ""
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
        card, facts = _card(server, name), server.cache_facts
        served = Served(
            server.base_url, version, str(card["id"]), str(card["root"]), int(card["max_model_len"]), server.block_size(facts),
            configuration, None if configuration is None else _states(server), facts.get("cache_dtype"),
        )  # fmt: skip
        mode, connector = served.of("model_config", "logprobs_mode"), served.of("kv_transfer_config", "kv_connector")
    if mode not in (None, "raw_logprobs"):
        raise EngineError(f"{server.base_url}: the server was started with --logprobs-mode {mode}. Start it without.")
    if connector:
        raise EngineError(
            f"{server.base_url}: the server keeps keys and values outside of its engine ({connector}), where those of other "
            "weights may be found. Start it without --kv-transfer-config and --kv-offloading-size."
        )
    return served


def _card(server: Server, name: str | None) -> dict[str, Any]:
    """The model's entry in /v1/models."""
    models = {str(card["id"]): card for card in server.models}
    own = {name: card for name, card in models.items() if not card.get("parent")}
    names = ", ".join(own)
    if name in models and name not in own:
        raise EngineError(
            f"{server.base_url}: {name} is an adapter over {models[name]['parent']}, which is not asked here. Score it as "
            "pretrained=base+adapter, with the folders of both, where the server can be swapped."
        )
    found = [card for id_, card in own.items() if name in (None, id_)]
    if not found:
        raise EngineError(f"{server.base_url}: the server does not serve {name}. It serves: {names}.")
    if len({str(card["root"]) for card in found}) > 1:
        raise EngineError(f"{server.base_url}: there are several models: {names}. Name one with served=.")
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
    for key, least in (("timeout", 0.01), ("patience", 0.0)):
        if (found := seconds(key, arguments.get(key), least)) is not None:
            setattr(server, key, found)
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
    for text in (READ_ALIKE, *_special_texts(tokenizer)):
        ours = list(tokenizer(text)["input_ids"])
        try:
            with understood(served.url):
                theirs = list(server.post("/tokenize", {"model": served.name, "prompt": text})["tokens"])
        except RefusedError as error:
            raise EngineError(
                f"{served.url}: the server does not say how it makes tokens ({error.status}), so nobody can tell whether its "
                f"are those of {origin}. Start it without --skip-tokenizer-init and --tokens-only."
            ) from error
        if ours != theirs:
            raise EngineError(
                f"{served.url}: the server makes other tokens of a text ({text.strip()!r:.40}) than {origin}: {len(theirs)}, "
                f"here {len(ours)}. Start it with --tokenizer {origin}, or name the tokenizer of {served.root} with "
                "tokenizer=."
            )


def _special_texts(tokenizer: Any) -> list[str]:
    """The tokens of turns and ends, as texts: they are tokens of the merge, and the server ends and decodes answers."""
    template = str(tokenizer.chat_template or "")
    named = [*tokenizer.all_special_tokens, *(token for token in tokenizer.get_added_vocab() if token in template)]
    found = list(dict.fromkeys(token for token in named if token.strip()))[:MOST_SPECIAL]
    return ["".join(found[start : start + TOKENS_A_TEXT]) for start in range(0, len(found), TOKENS_A_TEXT)]


def how_to_start(served: Served) -> str:
    """How the server would have to be started to be swapped."""
    return f"Start it with: {HOW_TO_START.replace('MODEL', served.root)}."
