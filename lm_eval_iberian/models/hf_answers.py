"""How `merged` on transformers answers differently from lm_eval's HFLM.

Log-likelihoods are computed by hf_scoring.py if the model allows it. Softmax is computed in float32. What happens to
prompts and answers is counted (counted.py) instead of logged in a line for each document.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lm_eval_iberian.models.counted import Counted
from lm_eval_iberian.models.counts import Cut
from lm_eval_iberian.models.hf_scoring import CacheScorer, why_not
from lm_eval_iberian.models.questions import Pair, Score, Scorer, Tokens
from merge_hooks.errors import EngineError

if TYPE_CHECKING:
    import torch
    from lm_eval.models.huggingface import HFLM
else:
    HFLM = object

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")
SCORINGS = ("prefix", "full")


class Answers(Counted, HFLM):
    """Stands before HFLM among the base classes."""

    cache_hook: Any
    logits_cache: bool
    softmax_dtype: torch.dtype | None
    # Of the rows of the last batch, whether the token limit cut the answer.
    _cut_rows: tuple[bool, ...] = ()

    @property
    def _window(self) -> int:
        """As in HFLM: the last token is never an input, so one token more than the model's length fits."""
        return int(self.max_length) + 1

    def sum_in_float32(self) -> None:
        """Take the softmax in float32 unless the user named a dtype. In the model's own dtype long choices tie."""
        import torch

        if self.softmax_dtype is None and self.model.dtype is not torch.float64:
            self.softmax_dtype = torch.float32

    def choose_scoring(self, scoring: str) -> None:
        """Raises EngineError if there is no such way."""
        if scoring not in SCORINGS:
            raise EngineError(
                f"scoring={scoring}: there is no such way on transformers. Give one of {', '.join(SCORINGS)}."
            )
        self._scoring = scoring

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Score]:
        """lm_eval's hook for log-likelihoods of (key, context tokens, continuation tokens)."""
        if not self.examine(requests) or not requests:
            return []
        if self._scoring == "prefix" and (reason := why_not(self)):
            LOG.warning("merged: log-likelihoods are computed lm_eval's way (scoring=full), because %s", reason)
            self._scoring = "full"
        pairs = self._pairs(requests)
        if self._scoring == "full":
            # Cut already: HFLM has a warning for each request that it cuts.
            cut = [(pair.key, list(pair.prompt), list(pair.continuation)) for pair in pairs]
            cached = self.logits_cache
            self.logits_cache = cached and not _are_split_differently(pairs)
            try:
                return super()._loglikelihood_tokens(cut, disable_tqdm, override_bs)
            finally:
                self.logits_cache = cached
        scorer = CacheScorer(self, override_bs or self._rows(requests))
        quiet = disable_tqdm or self.rank != 0
        return self._scored(pairs, quiet, lambda pairs, take: scorer.score(pairs, Scorer(pairs, take)))

    def _rows(self, requests: list[Any]) -> int:
        """How many sequences go through at a time. With batch_size=auto: what HFLM finds to fit; our way needs less."""
        if self.batch_size != "auto":
            return int(self.batch_size)
        self.batch_sizes: dict[int, int] = {}
        return int(self._batch_scheduler(0, sorted(requests, key=lambda request: -len(request[1] + request[2]))))

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """lm_eval's hook for prompts of generation. Prompts are cut as there, without its warning for each batch."""
        tokens, mask = super().tok_batch_encode(strings, padding_side, None, truncation)
        start = -left_truncate_len if left_truncate_len else 0
        return tokens[:, start:], mask[:, start:]

    def _prompt_room(self, limit: int) -> int:
        """See `Counted`. With `truncation` the tokenizer cuts as well, at a length of its own."""
        room = super()._prompt_room(limit)
        return min(room, int(self.tokenizer.model_max_length)) if self.truncation else room

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **options: Any) -> Any:
        """lm_eval's hook for generation. Notes which answers the token limit cut."""
        tokens = super()._model_generate(context, max_length, stop, **options)
        full = tokens.shape[1] >= max_length
        self._cut_rows = tuple(full and self._is_cut(row, stop) for row in tokens[:, context.shape[1] :].tolist())
        return tokens

    def _is_cut(self, row: list[int], stop: list[str]) -> bool:
        """Whether an answer of full length holds neither an end-of-text token nor a stop string."""
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        text = self.tok_decode(row, skip_special_tokens=False)
        return not set(row) & set(ends) and not any(end in text for end in stop)

    def _write(self, requests: list[Any], disable_tqdm: bool) -> list[str]:
        """lm_eval's generation; see `Counted`."""
        hook, marking = self.cache_hook, _Marking(self)
        self.cache_hook = marking
        self._encoded.expect(request.args[0] for request in requests)
        try:
            texts: list[str] = super(Counted, self).generate_until(requests, disable_tqdm)  # HFLM's own
        finally:
            self.cache_hook = hook
            self._encoded.expect(())
        return [marking.marked(request.args, text) for request, text in zip(requests, texts, strict=True)]


def _are_split_differently(pairs: Sequence[Pair]) -> bool:
    """Whether two texts, alike up to their last token, have their prompts end at different places.

    HFLM computes such texts once (`logits_cache`), and reads the choice of one of them at the place of the other's.
    """
    lengths: dict[Tokens, int] = {}
    return any(
        lengths.setdefault(pair.prompt + pair.continuation[:-1], len(pair.prompt)) != len(pair.prompt) for pair in pairs
    )


class _Marking:
    """Stands before lm_eval's cache hook, which gets a batch's answers row by row, and marks those that were cut."""

    def __init__(self, model: Answers) -> None:
        self.model, self.hook = model, model.cache_hook
        self.rows: deque[bool] = deque()
        # request -> its answers that were cut
        self.cut: dict[str, list[str]] = defaultdict(list)

    def add_partial(self, type: str, arguments: Any, text: str) -> None:
        """lm_eval's (`CacheHook.add_partial`)."""
        self.rows = self.rows or deque(self.model._cut_rows)
        if self.rows.popleft():
            self.cut[_name(arguments)].append(text)
            text = Cut(text)
        self.hook.add_partial(type, arguments, text)

    def marked(self, arguments: Any, text: str) -> str:
        """The answer, as `Cut` if it was cut."""
        cut = self.cut[_name(arguments)]
        if text not in cut:
            return text
        cut.remove(text)
        return Cut(text)


def _name(arguments: Any) -> str:
    return json.dumps(list(arguments), sort_keys=True, default=str)
