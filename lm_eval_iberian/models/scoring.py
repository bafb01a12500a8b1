"""Log-likelihoods on vLLM without `prompt_logprobs`: each distinct prefix is asked once, for the tokens needed.

lm_eval's `vllm` sends one request an answer choice, each with the whole prompt and `prompt_logprobs=1`. That
computes logits for every prompt token and may not read the prefix cache. Here a choice of tokens c1 c2 ... after
a prompt P becomes the questions "after P, how likely is c1?", "after P c1, how likely is c2?", ... Choices that
share a prefix share the question, the questions of one prompt share its cached blocks, and each asks for exactly
the tokens it needs (`SamplingParams.logprob_token_ids`). The token sampled at temperature 0 is the argmax, so
`is_greedy` comes for free.

Long continuations would become very many questions; those go lm_eval's way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Tokens = tuple[int, ...]
# (log-probability of the continuation, whether greedy decoding would have written it)
Score = tuple[float, bool]
# vLLM takes at most 128 named tokens a request.
MAX_TOKENS_A_QUESTION = 128


@dataclass
class Answers:
    """What the engine said of one prefix: the argmax, and log-probabilities by token id."""

    best: int = -1
    logprobs: dict[int, float] = field(default_factory=dict)


def truncate(context: Sequence[int], continuation: Sequence[int], limit: int) -> tuple[Tokens, Tokens]:
    """Prompt and continuation, cut from the left to `limit` tokens in all, as lm_eval's VLLM cuts them."""
    whole = (*context, *continuation)[-limit:]
    cut = len(context) - max(0, len(context) + len(continuation) - limit)
    return tuple(whole[:cut]), tuple(whole[cut:])


def is_worth_asking(prompt: Tokens, continuation: Tokens, block_size: int) -> bool:
    """Whether questions cost less than one pass with `prompt_logprobs`.

    A question computes at most about one cache block anew; the pass computes the whole prompt, with logits.
    """
    if not prompt:  # nothing to ask after; lm_eval's way scores from the second token on
        return False
    return len(continuation) <= max(4, (len(prompt) + len(continuation)) // block_size)


def collect_questions(pairs: Iterable[tuple[Tokens, Tokens]]) -> dict[Tokens, set[int]]:
    """prefix -> the tokens to be known after it."""
    questions: dict[Tokens, set[int]] = defaultdict(set)
    for prompt, continuation in pairs:
        for index, token in enumerate(continuation):
            questions[prompt + continuation[:index]].add(token)
    return questions


def batches(questions: dict[Tokens, set[int]]) -> Iterable[list[tuple[Tokens, list[int]]]]:
    """Questions in groups that ask for equally many tokens, each group in the order of its prefixes.

    Equally many: vLLM pads shorter lists with token 0 at -inf, which would hide a real token 0. In order: so
    that prompts with the same few-shot examples follow each other while these are in the cache.
    """
    groups: dict[int, list[tuple[Tokens, list[int]]]] = defaultdict(list)
    for prefix, wanted in questions.items():
        ordered = sorted(wanted)
        for start in range(0, len(ordered), MAX_TOKENS_A_QUESTION):
            part = ordered[start : start + MAX_TOKENS_A_QUESTION]
            groups[len(part)].append((prefix, part))
    for group in groups.values():
        yield sorted(group)


def score(
    pairs: Sequence[tuple[Tokens, Tokens]],
    ask: Callable[[list[tuple[Tokens, list[int]]]], Iterable[tuple[int, dict[int, float]]]],
) -> list[Score]:
    """The score of each (prompt, continuation).

    Args:
        pairs: not empty prompts, as `truncate` gives them.
        ask: for a list of (prefix, token ids), the argmax after each prefix and the log-probability of each token.
    """
    answers: dict[Tokens, Answers] = defaultdict(Answers)
    for batch in batches(collect_questions(pairs)):
        for (prefix, _), (best, logprobs) in zip(batch, ask(batch), strict=True):
            answers[prefix].best = best
            answers[prefix].logprobs.update(logprobs)
    return [_sum(prompt, continuation, answers) for prompt, continuation in pairs]


def _sum(prompt: Tokens, continuation: Tokens, answers: dict[Tokens, Answers]) -> Score:
    total, is_greedy = 0.0, True
    for index, token in enumerate(continuation):
        answer = answers[prompt + continuation[:index]]
        total += answer.logprobs[token]
        is_greedy = is_greedy and answer.best == token
    return total, is_greedy


def ask_vllm(llm: Any, batch: list[tuple[Tokens, list[int]]], **options: Any) -> Iterable[tuple[int, dict[int, float]]]:
    """Ask a running vLLM. Yields, for each question in order, the argmax and {token id: log-probability}."""
    from vllm import SamplingParams, TokensPrompt

    prompts = [TokensPrompt(prompt_token_ids=list(prefix)) for prefix, _ in batch]
    params = [
        SamplingParams(temperature=0, max_tokens=1, detokenize=False, logprob_token_ids=wanted) for _, wanted in batch
    ]
    for output in llm.generate(prompts, sampling_params=params, **options):
        said = output.outputs[0]
        yield said.token_ids[0], {token: entry.logprob for token, entry in said.logprobs[0].items()}
