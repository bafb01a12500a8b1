"""Log-likelihoods on transformers: a prompt is computed once, and its keys and values serve all its choices.

lm_eval's HFLM runs every choice with its whole prompt, and computes logits and log-probabilities at every position.
Here the questions of questions.py are asked. A batch of prompts goes through the model once, with logits at their last
tokens only (`logits_to_keep`). Its `DynamicCache` is then repeated for the choices, of which only their own tokens go
through. A beginning that several prompts share (few-shot examples) goes through once for all of them.

Prompts of a batch are padded on the left, choices on the right. So every distance that a sliding window measures is the
true one. A shared beginning would put the padding between itself and the rest, so models with a sliding window do not
share across prompts.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from lm_eval_iberian.models.questions import Pair, Question, Said, Scorer, Tokens, collect_questions

if TYPE_CHECKING:
    import torch

# Tokens that prompts must have in common for it to go through apart; below that, another pass costs more.
WORTH_SHARING = 32


def why_not(model: Any) -> str | None:
    """Why a `MergedHF` cannot be scored this way, or None if it can. Tried once, with two tokens."""
    import torch
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    if model.backend != "causal":
        return "it is an encoder-decoder model"
    cache, name = DynamicCache(config=model.model.config), name_of_cache(model.model)
    try:
        with torch.no_grad():
            output = model.model(torch.zeros((1, 2), dtype=torch.long, device=model.device), **{name: cache})
    except (TypeError, ValueError, AttributeError) as error:
        return f"its forward takes no DynamicCache ({error})"
    strange = {type(layer).__name__ for layer in cache.layers} - {
        DynamicLayer.__name__,
        DynamicSlidingWindowLayer.__name__,
    }
    if strange:
        return f"its cache has layers of a kind not known here ({', '.join(sorted(strange))})"
    # RecurrentGemma answers without one, and in older transformers Mamba 2.
    if getattr(output, name, None) is not cache or cache.get_seq_length() != 2:
        return "its forward keeps no DynamicCache"
    return None


def name_of_cache(model: Any) -> str:
    """What a model's forward and its output call the cache: transformers 5.24 says `cache`, and warns of the old name."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


class CacheScorer:
    """Asks a transformers model.

    Args:
        model: a `MergedHF`.
        batch_size: how many sequences go through the model at a time.
    """

    def __init__(self, model: Any, batch_size: int) -> None:
        self.lm, self.model, self.batch_size = model, model.model, batch_size
        config = self.model.config
        self.keeps = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        self.cache_name = name_of_cache(self.model)
        self.slides = any(self._new_cache().is_sliding) if config else False

    def score(self, pairs: Sequence[Pair], scorer: Scorer) -> None:
        """Answer all questions of these pairs; `scorer` gets each answer as it comes."""
        groups: dict[Tokens, list[Question]] = {}
        for question in collect_questions(pairs, block_size=1, most=10**9):
            groups.setdefault(question.prompt, []).append(question)
        for beginning, prompts in clusters(list(groups), sharing=not self.slides):
            shared = self._forward([beginning], None, 0)[1] if beginning else None
            prompts.sort(key=len, reverse=True)
            for start in range(0, len(prompts), self.batch_size):
                self._score_batch([groups[prompt] for prompt in prompts[start : start + self.batch_size]],
                                  len(beginning), shared, scorer)  # fmt: skip

    def _score_batch(self, groups: list[list[Question]], known: int, shared: Any, scorer: Scorer) -> None:
        """Score one batch of prompts, whose first `known` tokens are in the cache `shared`, and then their choices."""
        cache = None
        if shared is not None:
            cache = copy.deepcopy(shared)
            cache.batch_repeat_interleave(len(groups))
        prompts = [group[0].prompt[known:] for group in groups]
        last, cache, mask = self._prefill(prompts, cache, known)
        tails: list[tuple[int, Question]] = []
        for row, group in enumerate(groups):
            for question in group:
                if question.lead:
                    tails.append((row, question))
                else:
                    scorer.answer(question, read(last[row, 0], list(question.wanted)), {})
        tails.sort(key=lambda tail: -len(tail[1].lead))
        lengths = [known + len(prompt) for prompt in prompts]
        for start in range(0, len(tails), self.batch_size):
            self._score_tails(tails[start : start + self.batch_size], cache, mask, lengths, scorer)

    def _prefill(self, prompts: list[Tokens], cache: Any, known: int) -> tuple[torch.Tensor, Any, torch.Tensor | None]:
        """Log-probabilities after each prompt [prompts, 1, vocabulary], the cache, and its mask if there is padding."""
        import torch

        width = max(map(len, prompts))
        if all(len(prompt) == width for prompt in prompts):
            return (*self._forward(prompts, cache, 1), None)
        padding = torch.tensor([width - len(prompt) for prompt in prompts], device=self.lm.device)[:, None]
        columns = torch.arange(width, device=self.lm.device)[None]
        rest = columns >= padding
        mask = torch.cat([rest.new_ones((len(prompts), known)), rest], dim=1).long()
        positions = (columns - padding).clamp(min=0) + known
        padded = [(0,) * (width - len(prompt)) + prompt for prompt in prompts]
        return (*self._forward(padded, cache, 1, attention_mask=mask, position_ids=positions), mask)

    def _score_tails(
        self,
        tails: list[tuple[int, Question]],
        cache: Any,
        mask: torch.Tensor | None,
        lengths: list[int],
        scorer: Scorer,
    ) -> None:
        """Score the choices of a batch of prompts: only their own tokens go through the model."""
        import torch

        rows = torch.tensor([row for row, _ in tails], device=self.lm.device)
        mine = copy.copy(cache)
        mine.layers = [copy.copy(layer) for layer in cache.layers]  # selecting makes new tensors
        mine.batch_select_indices(rows)
        width = max(len(question.lead) for _, question in tails)
        padded = [question.lead + (0,) * (width - len(question.lead)) for _, question in tails]
        options: dict[str, torch.Tensor] = {}
        if mask is not None:
            options["attention_mask"] = torch.cat([mask[rows], mask.new_ones((len(tails), width))], dim=1)
            begin = torch.tensor([lengths[row] for row, _ in tails], device=self.lm.device)[:, None]
            options["position_ids"] = begin + torch.arange(width, device=self.lm.device)[None]
        logprobs, _ = self._forward(padded, mine, width, **options)
        for row, (_, question) in enumerate(tails):
            wanted = read(logprobs[row, len(question.lead) - 1], list(question.wanted))
            on_the_way = {
                index: read(logprobs[row, index - 1], [question.lead[index]])[question.lead[index]]
                for index in question.on_the_way
            }
            scorer.answer(question, wanted, on_the_way)

    def _forward(self, tokens: list[Tokens], cache: Any, keep: int, **options: Any) -> tuple[torch.Tensor, Any]:
        """Log-probabilities at the last `keep` positions (at least one), and the cache with these tokens in it."""
        import torch
        from torch.nn.functional import log_softmax

        cache = self._new_cache() if cache is None else cache
        if self.keeps:
            options["logits_to_keep"] = max(keep, 1)
        with torch.no_grad(), self._autocast():
            ids = torch.tensor(tokens, dtype=torch.long, device=self.lm.device)
            output = self.model(ids, use_cache=True, **{self.cache_name: cache}, **options)
        logits = output.logits[:, -max(keep, 1) :]
        return log_softmax(logits, dim=-1, dtype=self.lm.softmax_dtype), getattr(output, self.cache_name)

    def _new_cache(self) -> Any:
        from transformers.cache_utils import DynamicCache

        return DynamicCache(config=self.model.config)

    def _autocast(self) -> AbstractContextManager[Any]:
        """The same autocast as in HFLM's own calls of the model."""
        import torch

        dtype = self.lm.mixed_precision_dtype
        return torch.autocast(device_type=self.lm.device.type, dtype=dtype, enabled=dtype is not None)


def read(logprobs: torch.Tensor, tokens: list[int]) -> dict[int, Said]:
    """What log-probabilities [vocabulary] say of tokens. Of equally likely tokens the first is greedy, as in HFLM."""
    best = int(logprobs.argmax())
    values = logprobs[tokens].tolist()
    return {
        token: (value, value if token == best else float("inf")) for token, value in zip(tokens, values, strict=True)
    }


def clusters(prompts: list[Tokens], sharing: bool) -> Iterator[tuple[Tokens, list[Tokens]]]:
    """(common beginning, prompts): sorted prompts that share at least half of their tokens; the others alone.

    A beginning is shorter than every prompt of its cluster. It is empty if nothing is worth sharing; all prompts
    without one form the last cluster.
    """
    rest: list[Tokens] = []
    cluster: list[Tokens] = []
    common: Tokens = ()
    for prompt in [*sorted(prompts), ()]:
        length = shared_length(common, prompt)
        if sharing and cluster and prompt and length >= max(WORTH_SHARING, len(prompt) // 2, len(common) // 2):
            cluster.append(prompt)
            common = common[:length]
            continue
        if len(cluster) > 1:
            yield common, cluster
        else:
            rest += cluster
        cluster, common = [prompt] if prompt else [], prompt[:-1]
    if rest:
        yield (), rest


def shared_length(first: Tokens, second: Tokens) -> int:
    """How many first tokens two prompts have in common, but at most one less than the second one has."""
    limit = min(len(first), len(second) - 1)
    return next((index for index in range(limit) if first[index] != second[index]), max(limit, 0))
