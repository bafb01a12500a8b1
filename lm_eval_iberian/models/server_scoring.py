"""Log-likelihoods over vLLM's OpenAI-compatible API: the questions of questions.py as requests for completions.

`logprob_token_ids` names the tokens that are wanted after a prompt of token ids; `return_tokens_as_token_ids` names the
answers by them. At temperature 0 the sampled token is the likeliest. Such a request may read the prefix cache. One with
`prompt_logprobs` may not over this API, so a choice of several tokens is asked token by token, unless computing the
whole prompt again is less work.

vLLM fills the lists of a batch up to the longest with token 0 at -inf. In a JSON object that entry hides the true one of
token 0, so where token 0 seems impossible it is asked for once more, by `prompt_logprobs`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Any

from lm_eval_iberian.models.questions import Pair, Question, Said, Score, Scorer, collect_questions
from lm_eval_iberian.models.server_batches import Body
from merge_hooks.errors import EngineError

# vLLM takes at most 128 named tokens a request.
MAX_TOKENS_A_QUESTION = 128
# Prompts in one request: their choices have the same first tokens (A, B, C, D), so one list serves all.
PROMPTS_A_REQUEST = 16
# What JSON says for -inf.
IMPOSSIBLE = -9999.0
# Settings of a server's generation_config.json would else hold for requests that do not say them.
PLAIN: Body = {
    "temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0, "add_special_tokens": False,
}  # fmt: skip
# Log-probabilities above this are none; nor do they differ by more between two places in one answer.
ROUNDING = 1e-4
# By how much the probabilities of an answer may be more than 1 together.
SURPLUS = 1e-3

Ask = Callable[[Iterable[Body], Callable[[int, Any], None]], None]


@dataclass(frozen=True)
class _Asked:
    """Questions that go in one request: they want the same tokens."""

    questions: tuple[Question, ...]

    def body(self) -> Body:
        """The request."""
        first = self.questions[0]
        named: Body = {"logprob_token_ids": sorted(first.wanted)} if first.wanted else {}
        way: Body = {"prompt_logprobs": 1} if first.on_the_way else {}
        prompts = [[*question.prompt, *question.lead] for question in self.questions]
        return {
            **PLAIN, "prompt": prompts, "max_tokens": 1, "logprobs": 1, "return_tokens_as_token_ids": True, **named, **way
        }  # fmt: skip


def score_by_questions(
    ask: Ask, pairs: Sequence[Pair], take: Callable[[int, Score], None], block_size: int | None
) -> None:
    """Score pairs.

    Args:
        ask: sends requests and passes on what counts (`server_batches.ask_in_batches`).
        take: gets each pair's index and score as soon as they are known.
        block_size: of the server's prefix cache; None if it has none.
    """
    scorer = Scorer(pairs, take)
    asked = collect_questions(pairs, block_size or sys.maxsize, MAX_TOKENS_A_QUESTION)
    while asked:
        grouped = list(_grouped([part for question in asked for part in _apart(question, block_size)]))
        hidden: list[Question] = []

        def heard(place: int, answer: Any, grouped: list[_Asked] = grouped, hidden: list[Question] = hidden) -> None:
            questions = grouped[place].questions
            choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
            for question, choice in zip(questions, choices, strict=True):
                wanted, way, again = read(choice, question)
                scorer.answer(question, wanted, way)
                hidden += again

        ask((one.body() for one in grouped), heard)
        asked = hidden


def _apart(question: Question, block_size: int | None) -> list[Question]:
    """The same question, token by token where that is less work than the whole prompt with its log-probabilities."""
    whole = len(question.prompt) + len(question.lead)
    is_single = not question.on_the_way or question.whole
    if is_single or block_size is None or len(question.on_the_way) * block_size >= whole:
        return [question]
    each = [
        Question(question.prompt, question.lead[:index], {question.lead[index]: places})
        for index, places in question.on_the_way.items()
    ]
    return [*each, replace(question, on_the_way={})]


def _grouped(questions: Iterable[Question]) -> Iterable[_Asked]:
    """Neighbours that want the same tokens and nothing on the way, together."""
    for (_, single), group in groupby(questions, lambda one: (tuple(sorted(one.wanted)), bool(one.on_the_way))):
        while some := tuple(islice(group, 1 if single else PROMPTS_A_REQUEST)):
            yield _Asked(some)


def read(choice: Any, question: Question) -> tuple[dict[int, Said], dict[int, Said], list[Question]]:
    """What an answer says, by wanted token and by index into the lead, and what must be asked again.

    Raises:
        EngineError: it does not say what was asked, or says what is no log-probability.
    """
    logprobs = choice["logprobs"]
    if not logprobs or len(logprobs["tokens"]) != 1:
        raise EngineError("the server did not answer with the log-probabilities of one token.")
    found = {_token(name): value for name, value in logprobs["top_logprobs"][0].items()}
    sampled, top = _token(logprobs["tokens"][0]), _number(logprobs["token_logprobs"][0])
    missing = [token for token in question.wanted if token not in found]
    if missing:
        raise EngineError(f"the server answered about other tokens than were asked for ({missing[0]} is missing).")
    is_hidden = sampled == 0 and top == -math.inf
    numbers = {token: _number(value) for token, value in found.items()}
    if not is_hidden and (above := max(numbers.values())) > top + ROUNDING:
        raise EngineError(
            f"the server says that another token ({above:.4f}) is likelier than the one that it wrote ({top:.4f}), though "
            "it was asked for the likeliest. Does something between change requests, or is vLLM started with logits processors?"
        )
    if (total := math.fsum(map(math.exp, numbers.values()))) > 1.0 + SURPLUS:
        raise EngineError(
            f"the server's log-probabilities are none: {len(numbers)} tokens together are likelier than sure ({total:.4g}). "
            "Is it started with another --logprobs-mode?"
        )
    hidden = [token for token in question.wanted if is_hidden or (token == 0 and _number(found[0]) == -math.inf)]
    wanted = {token: (numbers[token], top) for token in question.wanted if token not in hidden}
    again = [
        Question(question.prompt, (*question.lead, token), {}, {len(question.lead): question.wanted[token]}, whole=True)
        for token in hidden
    ]
    return wanted, _way(choice, question), again


def _way(choice: Any, question: Question) -> dict[int, Said]:
    """The tokens of the lead, from the log-probabilities of the whole prompt."""
    if not question.on_the_way:
        return {}
    rows = choice["prompt_logprobs"]
    if len(rows) != len(question.prompt) + len(question.lead):
        raise EngineError("the server left out log-probabilities of the prompt.")
    found = {}
    for index in question.on_the_way:
        row = rows[len(question.prompt) + index]
        values = {int(token): _number(entry["logprob"]) for token, entry in row.items()}
        found[index] = (values[question.lead[index]], max(values.values()))
    return found


def _token(name: str) -> int:
    """The id in "token_id:17"."""
    if not name.startswith("token_id:"):
        raise EngineError(f"the server names tokens by texts ({name!r}) and not by ids. Is it vLLM 0.32 or newer?")
    return int(name.removeprefix("token_id:"))


def _number(value: Any) -> float:
    """A log-probability."""
    number = float(value)
    if math.isnan(number) or number > ROUNDING:
        raise EngineError(
            f"the server answered {number} for a log-probability. Is it started with another --logprobs-mode, or are its "
            "weights damaged?"
        )
    return -math.inf if number <= IMPOSSIBLE else number
