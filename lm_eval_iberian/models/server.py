"""`merged` on a vLLM server that is already running: scored over its OpenAI-compatible API, swapped over its own.

    lm_eval --model merged --model_args backend=server,base_url=http://127.0.0.1:8000,recipe=merge.yml ...

Where the server can be swapped (`Served.why_no_swap`), the merge goes in as into an engine in this process, and each
worker proves what it computes with, before and after every batch of answers. Where it cannot, the model that the server
serves is scored, and the results say that it is not proved.
"""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any
from uuid import uuid4

from tqdm import tqdm

from lm_eval_iberian.models.counted import Counted
from lm_eval_iberian.models.counts import Cut
from lm_eval_iberian.models.merge import (
    Prepared,
    Swapping,
    prepare,
    prepare_swap,
    sign_model,
    switched_on,
    way_of_swapping,
)
from lm_eval_iberian.models.questions import Pair, Score, truncate
from lm_eval_iberian.models.served import (
    NOT_PROVED,
    Served,
    how_to_start,
    look,
    prepare_running,
    refuse_other_tokenizer,
    server_of,
    states_of,
)
from lm_eval_iberian.models.server_batches import COMPLETIONS, Body, ChangedError, ask_in_batches
from lm_eval_iberian.models.server_scoring import PLAIN, score_by_questions
from lm_eval_iberian.models.server_texts import ServerTexts
from merge_hooks.engines import vllm as vllm_loader
from merge_hooks.engines.vllm_server import ServerAwayError, understood
from merge_hooks.engines.weights_digest import digest_of
from merge_hooks.errors import EngineError, UnprovedError
from merge_hooks.planning.config import dump_config
from merge_hooks.recipe.resolved import Resolved
from merge_hooks.recipe.signature import Signature, is_plain
from merge_hooks.sources.residents import refuse_unknown_place
from merge_hooks.sources.trust import trusts

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")
# Requests under way at once.
CONCURRENT = 32
# How long the turn to swap is ours without a word of us (seconds).
LEASE_SECONDS = 120.0
# By how much the log-probabilities of one text may differ between two requests, in any dtype (nats).
ALIKE = 0.05
# What the engine is started with; a server was.
OF_ENGINES = (
    "tensor_parallel_size", "pipeline_parallel_size", "gpu_memory_utilization", "max_num_seqs", "enforce_eager",
    "block_size", "enable_prefix_caching", "quantization", "load_format", "data_parallel_size", "parallelize",
)  # fmt: skip


class MergedServer(Swapping, Counted, ServerTexts):
    """A model on a running vLLM server.

    Attributes:
        proof: what the server was found to compute with.
        served: what the server said of itself.

    Args:
        base_url: where it is. Its key comes from the environment (VLLM_API_KEY).
        recipe, pretrained: what to score. Neither: the model that the server serves.
        served: the model's name, if the server serves several.
        dtype: refused if the server computes in another; "auto": what it computes in.
        swap: "auto" and "always": weights are put in; "never": the server is left as it is, and a recipe is scored only
            if the server shows that it computes with it.
        timeout: seconds that one answer may take; `patience`: seconds to wait for a server that is away, or for
            somebody else's turn.
        num_concurrent: requests under way at once.
        max_length: a smaller window than the server's (max_model_len is the same).
        resident, proof: as on vLLM.
        arguments: those of the short form of a recipe, and lm_eval's of texts (add_bos_token, enable_thinking, ...).
    """

    def __init__(
        self,
        base_url: str | None = None,
        recipe: str | Mapping[str, Any] | None = None,
        pretrained: str | None = None,
        revision: str | None = None,
        dtype: str | None = "auto",
        tokenizer: str | None = None,
        trust_remote_code: bool = False,
        served: str | None = None,
        swap: str = "auto",
        resident: str = "off",
        proof: str | bool = "on",
        num_concurrent: int = CONCURRENT,
        max_length: int | None = None,
        max_model_len: int | None = None,
        max_gen_toks: int = 256,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        enable_thinking: bool | None = None,
        chat_template_args: dict[str, Any] | None = None,
        think_end_token: str | None = None,
        truncation_side: str = "left",
        seed: int | None = None,
        **arguments: Any,
    ) -> None:
        ServerTexts.__init__(self)
        self.server = server_of({"base_url": base_url, **arguments})
        for key in ("timeout", "patience", "api_key", "batch_size", "max_batch_size", "device", "scoring"):
            arguments.pop(key, None)
        _refuse(arguments)
        refuse_unknown_place(resident)
        self._swaps, self._resident, self._proves = way_of_swapping(swap), resident, switched_on("proof", proof)
        trust_remote_code = trusts(trust_remote_code)
        self._name, self._owner = served, f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self.served: Served = look(self.server, served)
        self.add_bos_token, self.custom_prefix_token_id = add_bos_token, prefix_token_id
        self.enable_thinking, self.chat_template_args = enable_thinking, dict(chat_template_args or {})
        self.think_end_token, self.truncation_side, self.seed = think_end_token, truncation_side, seed
        self._max_gen_toks, self._concurrent = int(max_gen_toks), int(num_concurrent)
        self._set_window(max_length or max_model_len)
        if enable_thinking and think_end_token is None:
            raise EngineError("enable_thinking needs think_end_token, after which the answer begins, as </think>.")
        if recipe is None and pretrained is None and "method" not in arguments:
            pretrained = self.served.root
        self.prepared: Prepared = prepare(
            recipe, pretrained, revision, dtype, tokenizer, trust_remote_code, arguments, holds_model=False
        )
        _refuse_unknown(arguments)
        self.arguments = {
            "trust_remote_code": trust_remote_code, "max_length": max_length, "max_model_len": max_model_len,
            "max_gen_toks": self._max_gen_toks, "add_bos_token": add_bos_token, "prefix_token_id": prefix_token_id,
            "enable_thinking": enable_thinking, "chat_template_args": chat_template_args,
            "think_end_token": think_end_token, "truncation_side": truncation_side, "seed": seed,
            "quantization": self.served.quantization or None,
        }  # fmt: skip
        self.tokenizer = self.prepared.tokenizer.load()
        self._refuse_other_dtype()
        refuse_other_tokenizer(self.server, self.served, self.tokenizer, self.prepared.tokenizer.folder)
        self._adopt()

    # What the server holds

    def _adopt(self) -> None:
        """Come to terms with the server: put the merge in, prove what is in it, or say that nobody can tell."""
        # Of each worker, where our weights are known to lie in it; empty where that is not known.
        self._states: list[dict[str, Any]] = []
        self._is_proved = True
        if self._can_swap:
            prepare_swap(prepare_running(self.served, self.prepared.resolved.trust_remote_code), self.prepared.resolved)
            self.swap_digest = self._put_in(self.prepared)
        elif self.served.holds_a_merge:
            self.swap_digest = self._recognise()
        else:
            self._take_as_it_is()

    @property
    def _can_swap(self) -> bool:
        return not self.served.why_no_swap and self._swaps != "never"

    def swap(self, resolved: Resolved) -> str:
        """See `Swapping.swap`. Where the server cannot be swapped, what it holds is all that can be asked for.

        Returns:
            The digest of its weights; "" for a server that cannot be asked.
        """
        if self._can_swap:
            return super().swap(resolved)
        prepared = prepare_swap(self.prepared, resolved)
        wanted = sign_model(prepared, self._dtype_name, self.served.engine(self._is_proved))
        if wanted.weights != self.signature.weights:
            raise EngineError(self._no_swap(prepared))
        return self.swap_digest or ""

    def _put_in(self, prepared: Prepared) -> str:
        """Swap the server. See `Swapping.swap`."""
        for is_last in (False, True):
            self.recover()
            self._states = []
            try:
                self._refuse_other_sources(prepared)
                self._take_turn()
                return self._swap_now(prepared)
            except (ServerAwayError, ChangedError):
                if is_last:
                    raise
            finally:
                self.release()
        raise AssertionError("the last time returns or raises")

    def _swap_now(self, prepared: Prepared) -> str:
        """Swap, in our turn."""
        try:
            with understood(self.served.url), self.server.paused():
                proof = vllm_loader.swap(self.server, prepared.resolved, self._resident, self._proves)
        except UnprovedError as error:
            raise UnprovedError(
                f"{self.served.url}: this server cannot be shown to compute with {prepared.resolved.recipe.origin} after a "
                f"swap, and nothing is scored: {error} Start the server anew, and score this merge with backend=vllm."
            ) from error
        states = states_of(self.server)
        if {state["digest"] for state in states} != {proof.digest}:
            raise ChangedError(f"{self.served.url}: somebody else swapped this server at the same time.")
        self.proof, self._states = proof, states
        return proof.digest

    def _recognise(self) -> str:
        """The digest of what is in the server, if it is this recipe. Merges it here, to know."""
        with understood(self.served.url):
            proof = vllm_loader.prove(self.server, self._proves)
        wanted = digest_of(iter(self.prepared.stream))
        if proof.digest != wanted:
            raise EngineError(
                f"{self.served.url}: the server holds other weights (digest {proof.digest or 'unknown'}) than "
                f"{self.prepared.resolved.recipe.origin} ({wanted}). Without swap=never they are put in, if "
                f"the server can be swapped. {how_to_start(self.served)}"
            )
        if proof.unproved:
            raise UnprovedError(f"{self.served.url}: {proof.in_words}")
        self.proof, self._states = proof, states_of(self.server)
        return wanted

    def _take_as_it_is(self) -> None:
        """Score what the server serves, under its own name and marked; refuse any other."""
        resolved = self.prepared.resolved
        if not is_plain(resolved, dump_config(resolved.config)) or not self._serves(str(resolved.donor.folder)):
            raise EngineError(self._no_swap(self.prepared))
        self._is_proved, self.proof = False, vllm_loader.Proof("", (NOT_PROVED,))
        self._canary = self._sing()
        LOG.warning("merged: %s serves %s; not proved: %s", self.served.url, self.served.root, NOT_PROVED)

    def _serves(self, folder: str) -> bool:
        """Whether the server says that it was started with the model in this folder."""
        donor, root = self.prepared.resolved.donor, self.served.root
        return donor.name == root or os.path.realpath(root) == os.path.realpath(folder)

    def _no_swap(self, prepared: Prepared) -> str:
        why = self.served.why_no_swap or "swap=never was said"
        return (
            f"{self.served.url}: the server serves {self.served.root}, and {prepared.resolved.recipe.origin} cannot be put "
            f"in, because {why}. {how_to_start(self.served)} Or score what it serves: pretrained={self.served.root}."
        )

    def _refuse_other_sources(self, prepared: Prepared) -> None:
        """The server reads the sources from its own disk: they must be the same files."""
        theirs: dict[str, str] = {}
        with understood(self.served.url):
            for answer in self.server.collective_rpc("merge_prints", args=(prepared.resolved.payload(),)):
                if answer.get("error"):
                    error = vllm_loader.error_of(*answer["error"])
                    raise type(error)(f"on the machine of {self.served.url}: {error}")
                theirs |= answer["prints"]
        ours = {
            folder: found for source in prepared.resolved.sources.values() for folder, found in source.prints().items()
        }
        other = [folder for folder, found in ours.items() if theirs.get(folder) != found]
        if other:
            raise EngineError(
                f"{self.served.url}: on its machine {other[0]} holds other files than here. Both must see the same sources, "
                "under the same paths."
            )

    def _refuse_other_dtype(self) -> None:
        dtype, wanted = self.served.dtype, self.prepared.dtype
        if dtype is not None and wanted not in ("auto", dtype):
            raise EngineError(
                f"{self.served.url}: the server computes in {dtype}, wanted is {wanted}. Start it with --dtype {wanted}, or "
                f"give dtype={dtype}, which scores the merge as rounded to it."
            )

    # Before and after each batch: `server_batches.Holder`

    def hold(self) -> None:
        """See `Holder`."""
        if not self._is_proved:
            return
        if not self._can_swap:
            self.check()
            return
        self._take_turn()
        if states_of(self.server) != self._states:
            LOG.warning("merged: somebody changed the weights of %s; they are put in again", self.served.url)
            before = self.swap_digest
            if self._swap_now(self.prepared) != before:
                raise EngineError(
                    f"{self.served.url}: the same recipe gave other weights. Do the sources' files change?"
                )

    def renew(self) -> None:
        """See `Holder`."""
        self._lease(LEASE_SECONDS)

    def release(self) -> None:
        """See `Holder`. A server that is away has forgotten whose turn it was."""
        with suppress(ServerAwayError):
            self._lease(0.0)

    def _lease(self, seconds: float) -> None:
        if self._is_proved and self._can_swap:
            self.server.collective_rpc("merge_lease", args=(self._owner, seconds))

    def check(self) -> None:
        """See `Holder`."""
        if not self._is_proved:
            self._refuse_other_canary()
            return
        if states_of(self.server) != self._states:
            raise ChangedError(f"{self.served.url}: somebody else changed the server's weights meanwhile.")
        try:
            with understood(self.served.url):
                found = vllm_loader.prove(self.server, self._proves)
        except UnprovedError as error:
            self._states = []  # loaded by other means than ours: `hold` puts them in again
            raise ChangedError(
                f"{self.served.url}: somebody else changed the server's weights meanwhile: {error}"
            ) from error
        if found.digest != self.swap_digest:
            raise ChangedError(f"{self.served.url}: somebody else changed the server's weights meanwhile.")

    def recover(self) -> None:
        """See `Holder`."""
        self.server.wait()
        now, before = look(self.server, self._name), self.served
        for what in ("version", "name", "root", "window", "dtype", "why_no_swap"):
            if getattr(now, what) != getattr(before, what):
                raise EngineError(
                    f"{before.url}: the server came back as another one: {what} is {getattr(now, what)!r}, before "
                    f"{getattr(before, what)!r}."
                )
        if self._is_proved and not self._can_swap:
            self._recognise()

    def _take_turn(self) -> None:
        """Wait until nobody else swaps the server, and say that it is our turn. Raises EngineError after `patience`."""
        waited = 0.0
        while True:
            answers = self.server.collective_rpc("merge_lease", args=(self._owner, LEASE_SECONDS))
            with understood(self.served.url):
                others = [answer for answer in answers if answer["owner"] != self._owner]
            if not others:
                self.server.resume()  # who was killed over a swap has left it paused
                return
            if waited >= self.server.patience:
                raise EngineError(
                    f"{self.served.url}: {others[0]['owner']} is using this server. Wait, or use another."
                )
            LOG.info("merged: %s is using %s; waiting", others[0]["owner"], self.served.url)
            self.server.pause(5.0)
            waited += 5.0

    def _sing(self) -> list[float]:
        """The log-probabilities of a text, computed anew: other weights give others."""
        tokens = self.tokenizer("Kaixo, zer moduz? Bon dia. Hola, ¿qué tal? Bo día.")["input_ids"][
            : self.max_length - 1
        ]
        body = {**PLAIN, "model": self.served.name, "prompt": tokens, "max_tokens": 1, "prompt_logprobs": 1}
        with understood(self.served.url):
            rows = self.server.post(COMPLETIONS, body)["choices"][0]["prompt_logprobs"]
            return [float(row[str(token)]["logprob"]) for token, row in zip(tokens[1:], rows[1:], strict=True)]

    def _refuse_other_canary(self) -> None:
        now = self._sing()
        if len(now) != len(self._canary) or max(map(abs, map(float.__sub__, now, self._canary))) > ALIKE:
            raise EngineError(
                f"{self.served.url}: the server answers otherwise than at the start of this run: somebody changed its "
                "weights. The last answers were dropped. Start this again."
            )

    # What lm_eval asks

    def _encode_all(self, texts: list[str]) -> list[list[int]]:
        encoded: list[list[int]] = ServerTexts.tok_encode(self, texts)
        return encoded

    def _set_window(self, length: int | None) -> None:
        length = int(length or self.served.window)
        if length > self.served.window:
            raise EngineError(
                f"max_length={length}: the server's window is {self.served.window}. Start it with --max-model-len {length}."
            )
        self._max_length = length

    @property
    def max_length(self) -> int:  # type: ignore[override]
        return self._max_length

    @property
    def max_gen_toks(self) -> int:  # type: ignore[override]
        return self._max_gen_toks

    @property
    def _window(self) -> int:
        """As on vLLM, which needs room for one generated token."""
        return self.max_length - 1

    @property
    def _salt(self) -> str:
        """Blocks of the prefix cache that were computed with other weights are not found."""
        return "+".join(state["stamp"] for state in self._states) if self._states else self._owner

    def _ask(self, bodies: Any, take: Any) -> None:
        def named() -> Iterator[Body]:
            for body in bodies:
                yield {**body, "model": self.served.name}

        ask_in_batches(
            self, named(), take, self._concurrent, finish=lambda body: {**body, "cache_salt": self._salt[:1024]}
        )

    def _loglikelihood_tokens(self, requests: list[Any], disable_tqdm: bool = False, **_: Any) -> list[Score]:
        """lm_eval's hook for log-likelihoods of (key, context tokens, continuation tokens)."""
        if not self.examine(requests):
            return []
        pairs = [Pair(key, *truncate(before, after, self._window)) for key, before, after in requests]
        results: list[Score] = [(math.nan, False)] * len(pairs)
        with tqdm(total=len(pairs), disable=disable_tqdm, desc="Running loglikelihood requests") as progress:

            def take(place: int, score: Score) -> None:
                results[place] = score
                if pairs[place].key is not None:  # None: a window of a rolling request
                    self.cache_hook.add_partial("loglikelihood", pairs[place].key, score)
                progress.update(1)

            score_by_questions(self._ask, pairs, take, self.served.block_size)
        if any(math.isnan(score) for score, _ in results):
            raise EngineError(f"{self.served.url}: the server did not answer every request.")
        return results

    def _write(self, requests: list[Any], disable_tqdm: bool) -> list[str]:
        """lm_eval's generation: the longest first, each answer passed on when its batch is known to count."""
        from lm_eval.models.utils import postprocess_generated_text

        jobs = self.bodies([request.args for request in requests])
        order = sorted(
            range(len(jobs)), key=lambda place: -len(jobs[place][0]["prompt"]) - jobs[place][0]["max_tokens"]
        )
        texts = [""] * len(jobs)
        with tqdm(total=len(jobs), disable=disable_tqdm, desc="Running generate_until requests") as progress:

            def take(number: int, answer: Any) -> None:
                place = order[number]
                body, until = jobs[place]
                choice = answer["choices"][0]
                is_cut = choice["finish_reason"] == "length"
                if is_cut and int(answer["usage"]["completion_tokens"]) < body["max_tokens"]:
                    raise EngineError(
                        f"{self.served.url}: the server cuts answers after {answer['usage']['completion_tokens']} tokens, "
                        f"wanted are up to {body['max_tokens']}. Start it without max_new_tokens in "
                        "--override-generation-config and in the model's generation_config.json."
                    )
                text = postprocess_generated_text(choice["text"], until, self.think_end_token)
                texts[place] = Cut(text) if is_cut else text
                self.cache_hook.add_partial("generate_until", requests[place].args, texts[place])
                progress.update(1)

            self._ask((jobs[place][0] for place in order), take)
        return texts

    @cached_property
    def signature(self) -> Signature:
        """The stamp of what is measured; that of a server that cannot be asked is never that of one that was."""
        return self._sign(self._dtype_name, self.served.engine(self._is_proved), self.served.quantization)

    @property
    def _dtype_name(self) -> str:
        said = self.served.dtype or self.prepared.dtype
        return said if said != "auto" else str(self.prepared.stream.model_config.dtype).removeprefix("torch.")

    def get_model_info(self) -> dict[str, Any]:
        """For the results JSON."""
        info = self.prepared.info("server", self._dtype_name, self.signature, self.arguments)
        info["iberian"] |= self.answers.told()
        info["iberian"]["proof"] = self.proof.in_words
        info["iberian"]["server"] = {"url": self.served.url, "model": self.served.name, "root": self.served.root}
        return info


def _refuse(arguments: Mapping[str, Any]) -> None:
    given = [name for name in OF_ENGINES if arguments.get(name)]
    if given:
        raise EngineError(
            f"{', '.join(given)}: the server was started with its own. Leave it out, or start it anew with it."
        )


def _refuse_unknown(arguments: Mapping[str, Any]) -> None:
    strange = [name for name in arguments if name not in OF_ENGINES]
    if strange:
        raise EngineError(
            f"{', '.join(strange)}: no such argument of the model `merged` on a server, nor of this recipe."
        )
