"""What `merged` on transformers does otherwise than lm_eval's HFLM when it answers.

Log-likelihoods go by hf_scoring.py where the model allows it, and answers that the token limit cut are counted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lm_eval_iberian.models.generation import Written
from lm_eval_iberian.models.hf_scoring import CacheScorer, why_not
from lm_eval_iberian.models.questions import Pair, Score, Scorer, truncate
from merge_hooks.errors import EngineError

if TYPE_CHECKING:
    import torch
    from lm_eval.models.huggingface import HFLM
else:
    HFLM = object

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")
SCORINGS = ("prefix", "full")


class Answers(HFLM):
    """Goes before HFLM among the base classes."""

    def choose_scoring(self, scoring: str) -> None:
        """Raises EngineError where there is no such way."""
        if scoring not in SCORINGS:
            raise EngineError(
                f"scoring={scoring}: there is no such way on transformers. Give one of {', '.join(SCORINGS)}."
            )
        self._scoring = scoring
        self.answers = Written()

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Score]:
        """lm_eval's hook for log-likelihoods of (key, context tokens, continuation tokens)."""
        if self._scoring == "prefix" and (reason := why_not(self)):
            LOG.warning("merged: log-likelihoods are computed lm_eval's way (scoring=full), because %s", reason)
            self._scoring = "full"
        if self._scoring == "full" or not requests:
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        # As HFLM: the last token is never put in, so one more than the model's length fits.
        pairs = [Pair(key, *truncate(before, after, self.max_length + 1)) for key, before, after in requests]
        results: list[Score] = [(0.0, False)] * len(pairs)
        quiet = disable_tqdm or self.rank != 0
        with tqdm(total=len(pairs), disable=quiet, desc="Running loglikelihood requests") as progress:

            def take(place: int, score: Score) -> None:
                results[place] = score
                if pairs[place].key is not None:  # None: a window of a rolling request, cached by its caller
                    self.cache_hook.add_partial("loglikelihood", pairs[place].key, score)
                progress.update(1)

            CacheScorer(self, override_bs or self._rows(requests)).score(pairs, Scorer(pairs, take))
        return results

    def _rows(self, requests: list[Any]) -> int:
        """Sequences at a time. With batch_size=auto what HFLM finds to fit, which takes more memory than our way."""
        if self.batch_size != "auto":
            return int(self.batch_size)
        self.batch_sizes: dict[int, int] = {}
        return int(self._batch_scheduler(0, sorted(requests, key=lambda request: -len(request[1] + request[2]))))

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **options: Any) -> Any:
        """lm_eval's hook for generation. Counts the answers, and those that the token limit cut."""
        tokens = super()._model_generate(context, max_length, stop, **options)
        new = tokens[:, context.shape[1] :]
        self.answers.answers += len(new)
        if tokens.shape[1] >= max_length:
            self.answers.cut += sum(self._is_cut(row, stop) for row in new.tolist())
        return tokens

    def _is_cut(self, row: list[int], stop: list[str]) -> bool:
        """Whether an answer of full length has neither an end-of-text token nor a stop string in it."""
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        text = self.tok_decode(row, skip_special_tokens=False)
        return not set(row) & set(ends) and not any(end in text for end in stop)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """lm_eval's generation; says how many answers the token limit cut."""
        before = Written(self.answers.answers, self.answers.cut)
        texts = super().generate_until(requests, disable_tqdm)
        Written(self.answers.answers - before.answers, self.answers.cut - before.cut).warn()
        return texts
