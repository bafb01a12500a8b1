"""Tokens, prompts and generation settings as lm_eval's `VLLM` makes them, without vLLM on this machine.

lm_eval's class asks for vLLM when it is imported. What it does between a text and a request is short, and is repeated
here, so that a server's scores are those of an engine in this process. tests/lm_eval_iberian/test_server.py compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import TemplateLM

from lm_eval_iberian.models.server_scoring import PLAIN
from merge_hooks.errors import EngineError

# Settings that the API takes as vLLM's SamplingParams does.
SETTINGS = frozenset({
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed",
    "stop_token_ids", "include_stop_str_in_output", "ignore_eos", "min_tokens", "skip_special_tokens",
    "spaces_between_special_tokens", "allowed_token_ids", "bad_words",
})  # fmt: skip


class ServerTexts(TemplateLM):
    """What stands between texts and token ids. The class below sets the attributes."""

    tokenizer: Any
    max_length: int
    max_gen_toks: int
    cache_hook: Any
    add_bos_token: bool | None
    enable_thinking: bool | None
    chat_template_args: dict[str, Any]
    think_end_token: str | None
    truncation_side: str
    custom_prefix_token_id: int | None
    seed: int | None

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What a text without a prompt follows."""
        if self.custom_prefix_token_id is not None:
            return self.custom_prefix_token_id
        bos = self.tokenizer.bos_token_id
        return int(bos if bos is not None else self.tokenizer.eos_token_id)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: Any, add_special_tokens: bool | None = None, **options: Any) -> Any:
        """Tokens of a text, or of each of several. A text that begins with BOS gets no second one."""
        from lm_eval.models.utils import _add_special_kwargs, has_bos_prefix

        if not string:
            return []
        texts = [string] if isinstance(string, str) else list(string)
        bos = self.tokenizer.decode(self.prefix_token_id)
        usual = {**options, **_add_special_kwargs(add_special_tokens, self.add_bos_token)}
        found: list[Any] = [None] * len(texts)
        for begins in (True, False):
            places = [place for place, text in enumerate(texts) if has_bos_prefix(text, bos) is begins]
            if places:
                chosen = {**usual, "add_special_tokens": False} if begins else usual
                encoded = self.tokenizer([texts[place] for place in places], return_attention_mask=False, **chosen)
                for place, tokens in zip(places, encoded["input_ids"], strict=True):
                    found[place] = tokens
        return found[0] if isinstance(string, str) else found

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as one text. A template that takes no system prompt gets none, as in lm_eval."""
        import jinja2

        def render(history: list[dict[str, str]]) -> str:
            return str(self.tokenizer.apply_chat_template(
                history, tokenize=False, add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt, enable_thinking=self.enable_thinking, **self.chat_template_args,
            ))  # fmt: skip

        try:
            return render(chat_history)
        except jinja2.exceptions.TemplateError:
            return render([message for message in chat_history if message["role"] != "system"])

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text, in windows."""
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        windows: list[tuple[None, list[int], list[int]]] = []
        counts = []
        for (text,) in (request.args for request in requests):
            # Room for one token of context, and one that vLLM generates.
            rolling = get_rolling_token_windows(
                token_list=self.tok_encode(text), prefix_token=self.prefix_token_id, max_seq_len=self.max_length - 2,
                context_len=1,
            )  # fmt: skip
            some = [(None, *make_disjoint_window(window)) for window in rolling]
            windows += some
            counts.append(len(some))
        scores = iter(self._loglikelihood_tokens(windows, disable_tqdm=disable_tqdm))
        totals = [float(sum(next(scores)[0] for _ in range(count))) for count in counts]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def bodies(self, arguments: Sequence[tuple[str, dict[str, Any]]]) -> list[tuple[dict[str, Any], list[str]]]:
        """A request for each (context, generation settings), and where its text is cut."""
        prompts = self.tok_encode([context for context, _ in arguments])
        end = self.tokenizer.decode(self.eot_token_id) or self.tokenizer.eos_token
        return [self._body(tokens, settings, end) for tokens, (_, settings) in zip(prompts, arguments, strict=True)]

    def _body(self, tokens: list[int], settings: dict[str, Any], end: str) -> tuple[dict[str, Any], list[str]]:
        from lm_eval.models.utils import handle_stop_sequences, maybe_truncate, normalize_gen_kwargs

        if "temperature" not in settings and not settings.get("do_sample"):
            settings = {**settings, "do_sample": False, "temperature": 0.0}  # see `MergedVLLM.modify_gen_kwargs`
        said = dict(normalize_gen_kwargs(settings, default_max_gen_toks=self.max_gen_toks))
        until = handle_stop_sequences(said.pop("until", None), eos=end)
        limit = int(said.pop("max_gen_toks", self.max_gen_toks))
        said.pop("do_sample", None)
        tokens, limit = maybe_truncate(
            tokens, max_gen_toks=limit, max_model_len=self.max_length, side=self.truncation_side, verbose=False
        )
        if strange := [key for key in said if key not in SETTINGS]:
            raise EngineError(f"{', '.join(strange)}: no such generation setting over a server. Leave it out.")
        if self.seed is not None:
            said = {"seed": self.seed, **said}
        stop = [text for text in until if text == end] if self.think_end_token else until
        # Over the API a temperature is 1 where nothing is said; so is vLLM's own.
        plain = {**PLAIN, "temperature": 1.0, "skip_special_tokens": False, "spaces_between_special_tokens": False}
        return {**plain, **said, "prompt": tokens, "max_tokens": limit, "stop": stop}, until
