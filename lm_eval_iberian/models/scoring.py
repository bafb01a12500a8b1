"""Log-likelihoods on vLLM without a whole prompt of `prompt_logprobs` for every answer choice.

lm_eval's `vllm` sends one request for each answer choice, with the whole prompt and `prompt_logprobs=1`. That computes
logits for every prompt token and may not read the prefix cache. Here the questions of questions.py are asked instead.
`SamplingParams.logprob_token_ids` names exactly the tokens that are wanted after a prefix. The token sampled at
temperature 0 is the argmax, which gives `is_greedy`. What is read on the way comes from `prompt_logprobs` of a request
that may read the cache (`skip_reading_prefix_cache=False`). vLLM then computes, with logits, only what it did not find
there, and says how much it found (`num_cached_tokens`).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval_iberian.models.questions import Pair, Question, Said, Score, Scorer, collect_questions
from lm_eval_iberian.models.queue import Request, run_queue
from merge_hooks.errors import EngineError

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")
# vLLM takes at most 128 named tokens a request.
MAX_TOKENS_A_QUESTION = 128


def score_by_questions(
    llm: Any, pairs: Sequence[Pair], take: Callable[[int, Score], None], lora_request: Any = None
) -> None:
    """Ask a running vLLM. `take` gets each pair's index and score as soon as they are known."""
    scorer = Scorer(pairs, take)
    asked = collect_questions(pairs, _block_size(llm), MAX_TOKENS_A_QUESTION)
    while asked:
        _ask(llm, asked, scorer, lora_request)
        asked = scorer.again()


def _block_size(llm: Any) -> int:
    """How many tokens a block of the engine's prefix cache has; more than any prompt has if there is no such cache."""
    cache = llm.llm_engine.vllm_config.cache_config
    if cache.enable_prefix_caching:
        return int(cache.block_size)
    LOG.info("merged: this engine keeps no prefix cache; choices of several tokens take their whole prompt along")
    return sys.maxsize


def _ask(llm: Any, questions: list[Question], scorer: Scorer, lora_request: Any) -> None:
    def heard(place: int, output: Any) -> None:
        scorer.answer(questions[place], *read(output, questions[place]))

    run_queue(llm, (request(question) for question in questions), heard, lora_request)


def request(question: Question) -> Request:
    """What vLLM is asked."""
    from vllm import SamplingParams

    params = SamplingParams(
        temperature=0, max_tokens=1, detokenize=False, flat_logprobs=True,
        logprob_token_ids=sorted(question.wanted),
        prompt_logprobs=1 if question.on_the_way else None,
        skip_reading_prefix_cache=question.whole and bool(question.on_the_way),
    )  # fmt: skip
    return Request(question.prompt + question.lead, params)


def read(output: Any, question: Question) -> tuple[dict[int, Said], dict[int, Said]]:
    """What a finished request says, by wanted token and by index into the lead, as far as it was computed.

    Raises:
        EngineError: the answer is about other tokens.
    """
    # Read by place, not by token: the sampled token, which is the likeliest, then those named; what may follow are
    # tokens 0 at -inf, with which vLLM fills the shorter lists of a batch.
    flat, asked = output.outputs[0].logprobs, sorted(question.wanted)
    if flat.token_ids[1 : 1 + len(asked)] != asked:
        raise EngineError("vLLM answered about other tokens than were asked for. scoring=prompt_logprobs avoids this.")
    wanted = {token: (flat.logprobs[1 + column], flat.logprobs[0]) for column, token in enumerate(asked)}
    way: dict[int, Said] = {}
    length = len(question.lead)
    for index in question.on_the_way:
        # Token i of the lead is foretold at position len(prompt) + i - 1; positions before `num_cached_tokens` were
        # not computed. Counted from the end, because some vLLM runners leave these out of the list.
        if len(question.prompt) + index - 1 >= output.num_cached_tokens:
            row = output.prompt_logprobs[index - length]
            way[index] = (row[question.lead[index]].logprob, max(entry.logprob for entry in row.values()))
    return wanted, way


def score_whole_prompts(
    llm: Any,
    pairs: Sequence[Pair],
    take: Callable[[int, Score], None],
    parse: Callable[[Any, Pair], Score],
    lora_request: Any = None,
) -> None:
    """lm_eval's way: each pair is a request with `prompt_logprobs`, longest first; answers one by one.

    Args:
        parse: lm_eval's reading of a finished request.
    """
    from vllm import SamplingParams

    params = SamplingParams(temperature=0, prompt_logprobs=1, max_tokens=1, detokenize=False)
    whole = [pair.prompt + pair.continuation for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda place: (-len(whole[place]), whole[place]))

    def heard(index: int, output: Any) -> None:
        take(order[index], parse(output, pairs[order[index]]))

    run_queue(llm, (Request(whole[place], params) for place in order), heard, lora_request)
