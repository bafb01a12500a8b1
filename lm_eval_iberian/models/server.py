"""`merged` on a vLLM server that is already running: scored over its OpenAI-compatible API, swapped over its own.

    lm_eval --model merged --model_args backend=server,base_url=http://127.0.0.1:8000,recipe=merge.yml ...

Where the server can be swapped (`Served.why_no_swap`), the merge goes in as into an engine in this process, and each
worker proves what it computes with, before and after every batch of answers. Where it cannot, the model that the server
serves is scored, and the results say that it is not proved.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any
from uuid import uuid4

from tqdm import tqdm

from lm_eval_iberian.models.counted import Counted
from lm_eval_iberian.models.counts import Cut
from lm_eval_iberian.models.merge import Prepared, prepare, switched_on, way_of_swapping
from lm_eval_iberian.models.questions import Pair, Score
from lm_eval_iberian.models.served import Served, look, refuse_other_tokenizer, server_of
from lm_eval_iberian.models.server_arguments import LEAST_SEED, flag, mapping, side, whole
from lm_eval_iberian.models.server_batches import Body, ask_in_batches
from lm_eval_iberian.models.server_scoring import score_by_questions
from lm_eval_iberian.models.server_texts import ServerTexts
from lm_eval_iberian.models.server_weights import HoldsWeights
from merge_hooks.errors import EngineError
from merge_hooks.recipe.signature import Signature
from merge_hooks.sources.residents import refuse_unknown_place
from merge_hooks.sources.trust import trusts

# Requests under way at once.
CONCURRENT = 32
# What the engine is started with; a server was.
OF_ENGINES = (
    "tensor_parallel_size", "pipeline_parallel_size", "gpu_memory_utilization", "max_num_seqs", "enforce_eager",
    "block_size", "enable_prefix_caching", "quantization", "load_format", "data_parallel_size", "parallelize",
)  # fmt: skip


class MergedServer(HoldsWeights, Counted, ServerTexts):
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
        max_length, max_model_len = (
            whole(name, said, 2) for name, said in (("max_length", max_length), ("max_model_len", max_model_len))
        )
        prefix_token_id, seed = whole("prefix_token_id", prefix_token_id, 0), whole("seed", seed, LEAST_SEED)
        add_bos_token, enable_thinking = flag("add_bos_token", add_bos_token), flag("enable_thinking", enable_thinking)
        concurrent = whole("num_concurrent", num_concurrent) or CONCURRENT
        chat_template_args = mapping("chat_template_args", chat_template_args)
        self.server = server_of({"base_url": base_url, **arguments})
        for key in ("timeout", "patience", "api_key", "batch_size", "max_batch_size", "device", "scoring"):
            arguments.pop(key, None)
        _refuse(arguments)
        refuse_unknown_place(resident)
        self._swaps, self._resident, self._proves = way_of_swapping(swap), resident, switched_on("proof", proof)
        trust_remote_code = trusts(trust_remote_code)
        served = None if served is None else str(served)
        self._name, self._owner = served, f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self.served: Served = look(self.server, served)
        self.add_bos_token, self.custom_prefix_token_id = add_bos_token, prefix_token_id
        self.enable_thinking, self.chat_template_args = enable_thinking, chat_template_args
        self.think_end_token, self.truncation_side, self.seed = think_end_token, side(truncation_side), seed
        self._max_gen_toks, self._concurrent = whole("max_gen_toks", max_gen_toks) or 256, concurrent
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
            "enable_thinking": enable_thinking, "chat_template_args": chat_template_args or None,
            "think_end_token": think_end_token, "truncation_side": truncation_side, "seed": seed,
            "quantization": self.served.quantization or None,
        }  # fmt: skip
        choice = self.prepared.tokenizer
        self.tokenizer = choice.load(add_bos_token)
        self._refuse_other_dtype()
        refuse_other_tokenizer(self.server, self.served, choice.load(), choice.folder)
        self._adopt()

    def _encode_all(self, texts: list[str]) -> list[list[int]]:
        encoded: list[list[int]] = ServerTexts.tok_encode(self, texts)
        return encoded

    def _set_window(self, length: int | None) -> None:
        length = length or self.served.window
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

        def ask(pairs: Sequence[Pair], take: Callable[[int, Score], None]) -> None:
            score_by_questions(self._ask, pairs, take, self.served.block_size)

        results = self._scored(self._pairs(requests), disable_tqdm, ask)
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
    def signature(self) -> Signature:  # type: ignore[override]
        """The stamp of what is measured; that of a server that cannot be asked is never that of one that was."""
        return self._sign(self._dtype_name, self.served.engine(self._is_proved), self.served.quantization)

    @property
    def _dtype_name(self) -> str:  # type: ignore[override]
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
