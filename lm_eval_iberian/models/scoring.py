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

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from lm_eval_iberian.models.queue import Request, run_queue

Tokens = tuple[int, ...]
# (log-probability of the continuation, whether greedy decoding would have written it)
Score = tuple[float, bool]
# vLLM takes at most 128 named tokens a request.
MAX_TOKENS_A_QUESTION = 128


@dataclass(frozen=True)
class Pair:
    """A continuation to be scored.

    Args:
        key: lm_eval's (context, continuation) texts, the key of its cache; None for a window of a rolling request.
        prompt, continuation: token ids, cut to the engine's length.
    """

    key: tuple[str, str] | None
    prompt: Tokens
    continuation: Tokens


@dataclass
class Question:
    """How likely are some tokens after `prompt` and `lead`, the beginning of a continuation?

    Args:
        wanted: token id -> the pairs (their places) that ask for it.
    """

    prompt: Tokens
    lead: Tokens
    wanted: dict[int, list[int]] = field(default_factory=dict)


def truncate(context: Sequence[int], continuation: Sequence[int], limit: int) -> tuple[Tokens, Tokens]:
    """Prompt and continuation, cut from the left to `limit` tokens in all, as lm_eval's VLLM cuts them."""
    whole = (*context, *continuation)[-limit:]
    cut = len(context) - max(0, len(context) + len(continuation) - limit)
    return tuple(whole[:cut]), tuple(whole[cut:])


def is_worth_asking(pair: Pair, block_size: int) -> bool:
    """Whether questions cost less than one pass with `prompt_logprobs`.

    A question computes at most about one cache block anew; the pass computes the whole prompt, with logits.
    """
    if not pair.prompt:  # nothing to ask after; lm_eval's way scores from the second token on
        return False
    return len(pair.continuation) <= max(4, (len(pair.prompt) + len(pair.continuation)) // block_size)


def collect_questions(pairs: Iterable[tuple[int, Pair]]) -> list[Question]:
    """The distinct questions that answer these pairs (given with their places), those of a prompt side by side.

    In the order of their tokens, so that prompts with the same few-shot examples follow each other while these
    are in the cache.
    """
    prompts: dict[Tokens, dict[Tokens, Question]] = {}
    for place, pair in pairs:
        questions = prompts.setdefault(pair.prompt, {})
        for index, token in enumerate(pair.continuation):
            lead = pair.continuation[:index]
            question = questions.setdefault(lead, Question(pair.prompt, lead))
            question.wanted.setdefault(token, []).append(place)
    return [prompts[prompt][lead] for prompt in sorted(prompts) for lead in sorted(prompts[prompt])]


def parts(question: Question) -> Iterator[list[int]]:
    """The tokens that a question asks for, in portions that vLLM takes."""
    wanted = sorted(question.wanted)
    for start in range(0, len(wanted), MAX_TOKENS_A_QUESTION):
        yield wanted[start : start + MAX_TOKENS_A_QUESTION]


class Scorer:
    """Puts the scores of pairs together as answers come in.

    Args:
        pairs: what is to be scored.
        take: called with a pair's place and its score as soon as that is known.
    """

    def __init__(self, pairs: Sequence[Pair], take: Callable[[int, Score], None]) -> None:
        self.pairs, self.take = pairs, take
        self.known: list[dict[int, float]] = [{} for _ in pairs]
        self.greedy = [True] * len(pairs)
        for place, pair in enumerate(pairs):
            if not pair.continuation:
                take(place, (0.0, True))

    def answer(self, question: Question, best: float, logprobs: dict[int, float]) -> None:
        """Note what the engine said.

        Args:
            best: the log-probability of the likeliest token.
            logprobs: by token id.
        """
        index = len(question.lead)
        for token, logprob in logprobs.items():
            for place in question.wanted[token]:
                # As lm_eval's VLLM: of two equally likely tokens the one asked for counts as the greedy one.
                self.greedy[place] &= logprob >= best
                self.known[place][index] = logprob
                self._finish(place)

    def _finish(self, place: int) -> None:
        """Hand a score on once it is whole. Summed in the order of the tokens, whatever came first."""
        known, length = self.known[place], len(self.pairs[place].continuation)
        if len(known) == length:
            self.take(place, (sum(known[index] for index in range(length)), self.greedy[place]))


def score_by_questions(
    llm: Any, pairs: Sequence[Pair], take: Callable[[int, Score], None], lora_request: Any = None
) -> None:
    """Ask a running vLLM. `take` gets each pair's place and score, as soon as they are known."""
    scorer = Scorer(pairs, take)
    asked = [(question, part) for question in collect_questions(enumerate(pairs)) for part in parts(question)]
    width = max((len(part) for _, part in asked), default=0)

    def heard(index: int, output: Any) -> None:
        question, part = asked[index]
        said = output.outputs[0]
        logprobs = said.logprobs[0]
        best = logprobs[said.token_ids[0]].logprob
        scorer.answer(question, best, {token: logprobs[token].logprob for token in part})

    run_queue(llm, (_request(question, part, width) for question, part in asked), heard, lora_request)


def _request(question: Question, part: list[int], width: int) -> Request:
    from vllm import SamplingParams

    params = SamplingParams(temperature=0, max_tokens=1, detokenize=False, logprob_token_ids=_padded(part, width))
    return Request(question.prompt + question.lead, params)


def _padded(part: list[int], width: int) -> list[int]:
    """Tokens to name to vLLM.

    Requests in one batch get lists of one length: vLLM fills shorter ones with token 0 at -inf, which would hide a
    real token 0. Where 0 is asked for, the list is therefore made as long as any, with tokens nobody asks for.
    """
    if 0 not in part:
        return part
    others = (token for token in range(width + 1) if token not in part)
    return part + [next(others) for _ in range(width - len(part))]


def score_whole_prompts(
    llm: Any,
    pairs: Sequence[Pair],
    take: Callable[[int, Score], None],
    read: Callable[[Any, Pair], Score],
    lora_request: Any = None,
) -> None:
    """lm_eval's way: each pair is a request with `prompt_logprobs`, longest first; answers one by one.

    Args:
        read: lm_eval's reading of a finished request.
    """
    from vllm import SamplingParams

    params = SamplingParams(temperature=0, prompt_logprobs=1, max_tokens=1, detokenize=False)
    whole = [pair.prompt + pair.continuation for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda place: (-len(whole[place]), whole[place]))

    def heard(index: int, output: Any) -> None:
        take(order[index], read(output, pairs[order[index]]))

    run_queue(llm, (Request(whole[place], params) for place in order), heard, lora_request)
