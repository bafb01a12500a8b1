"""Questions by prefix and the queue that asks them, on a made-up engine; the real one is in test_models.py."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_iberian.models.queue import AHEAD, Request, run_queue
from lm_eval_iberian.models.scoring import Pair, Score, collect_questions, parts, score_by_questions, truncate

pytest.importorskip("vllm")
tokens = st.lists(st.integers(0, 5), min_size=1, max_size=6)


def toy_logprobs(prefix: tuple[int, ...]) -> list[float]:
    """A made-up language model over six tokens: anything that depends on the whole prefix."""
    raw = [math.sin(7 * token + sum((index + 2) * value for index, value in enumerate(prefix))) for token in range(6)]
    total = math.log(sum(math.exp(value) for value in raw))
    return [value - total for value in raw]


class ToyEngine:
    """As much of a vLLM engine as the queue needs. Requests end in an order of its own; short lists of tokens are
    filled with token 0 at -inf, as vLLM does."""

    def __init__(self, at_once: int = 3, breaks_at: int | None = None) -> None:
        self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=at_once))
        self.running: dict[str, tuple[list[int], Any]] = {}
        self.at_once, self.breaks_at, self.steps, self.most = at_once, breaks_at, 0, 0

    def add_request(self, name: str, prompt: Any, params: Any, lora_request: Any = None) -> None:
        assert name not in self.running
        self.running[name] = (prompt["prompt_token_ids"], params)
        self.most = max(self.most, len(self.running))

    def step(self) -> list[Any]:
        self.steps += 1
        if self.steps == self.breaks_at:
            raise RuntimeError("the engine broke")
        batch = list(self.running)[: self.at_once]
        width = max(len(self.running[name][1].logprob_token_ids) for name in batch)
        outputs = [self.output(name, width) for name in batch]
        for name in batch:
            del self.running[name]
        return outputs[::-1]

    def output(self, name: str, width: int) -> Any:
        prompt, params = self.running[name]
        logprobs = toy_logprobs(tuple(prompt))
        best = logprobs.index(max(logprobs))
        said = {best: logprobs[best]} | {token: logprobs[token % 6] for token in params.logprob_token_ids}
        if len(params.logprob_token_ids) < width:
            said[0] = -math.inf
        entries = {token: SimpleNamespace(logprob=value) for token, value in said.items()}
        return SimpleNamespace(
            request_id=name, finished=True, outputs=[SimpleNamespace(token_ids=[best], logprobs=[entries])]
        )

    def abort_request(self, names: list[str]) -> None:
        for name in names:
            self.running.pop(name, None)


class ToyLLM:
    """A `vllm.LLM` around it."""

    def __init__(self, **options: Any) -> None:
        self.llm_engine = ToyEngine(**options)
        self.request_counter = iter(range(10**6))
        self.resets = 0

    def reset_prefix_cache(self) -> bool:
        self.resets += 1
        return not self.llm_engine.running


@given(st.lists(st.tuples(tokens, st.lists(st.integers(0, 5), max_size=6)), min_size=1, max_size=8))
def test_sums_what_the_model_says(given_pairs: list[tuple[list[int], list[int]]]) -> None:
    pairs = [Pair(None, tuple(prompt), tuple(continuation)) for prompt, continuation in given_pairs]
    found: dict[int, Score] = {}
    score_by_questions(ToyLLM(), pairs, lambda place, score: found.update({place: score}))
    for place, pair in enumerate(pairs):
        steps = [
            (toy_logprobs(pair.prompt + pair.continuation[:i]), token) for i, token in enumerate(pair.continuation)
        ]
        assert math.isclose(found[place][0], sum(logprobs[token] for logprobs, token in steps), abs_tol=1e-12)
        assert found[place][1] == all(logprobs[token] == max(logprobs) for logprobs, token in steps)


@given(tokens, tokens, st.integers(2, 12))
def test_cuts_from_the_left_as_lm_eval_does(context: list[int], continuation: list[int], limit: int) -> None:
    prompt, rest = truncate(context, continuation, limit)
    whole = (context + continuation)[-limit:]
    length = len(context) - max(0, len(context) + len(continuation) - limit)
    assert list(prompt + rest) == whole
    assert list(rest) == whole[length:]


def test_choices_that_share_a_prompt_share_a_question() -> None:
    prompt = (1, 2, 3)
    pairs = [Pair(None, prompt, choice) for choice in ((4,), (5,), (4, 9), (4, 8))]
    found = {question.lead: question.wanted for question in collect_questions(enumerate(pairs))}
    assert found == {(): {4: [0, 2, 3], 5: [1]}, (4,): {9: [2], 8: [3]}}


def test_more_tokens_than_vllm_takes_are_asked_for_in_parts() -> None:
    [question] = collect_questions((token, Pair(None, (1,), (token,))) for token in range(300))
    asked = list(parts(question))
    assert sorted(token for part in asked for token in part) == list(range(300))
    assert max(map(len, asked)) <= 128


def requests(count: int) -> list[Request]:
    from vllm import SamplingParams

    return [Request([1, place % 6], SamplingParams(max_tokens=1, logprob_token_ids=[1])) for place in range(count)]


def test_the_engine_never_holds_more_than_it_should() -> None:
    llm, taken = ToyLLM(at_once=4), []
    fed = iter(requests(100))
    run_queue(llm, fed, lambda place, _output: taken.append(place))
    assert sorted(taken) == list(range(100))
    assert llm.llm_engine.most == AHEAD * 4


@pytest.mark.parametrize("breaks", ["engine", "taker"])
def test_answers_before_an_error_were_handed_on_and_the_engine_is_free_again(breaks: str) -> None:
    llm = ToyLLM(at_once=4, breaks_at=3 if breaks == "engine" else None)
    taken: list[int] = []

    def take(place: int, _output: Any) -> None:
        taken.append(place)
        if breaks == "taker" and len(taken) == 8:
            raise RuntimeError("no room on the disk")

    with pytest.raises(RuntimeError, match=r"the engine broke|no room"):
        run_queue(llm, requests(100), take)
    assert sorted(taken) == list(range(8))
    assert not llm.llm_engine.running and llm.resets == 1
    llm.llm_engine.breaks_at = None
    run_queue(llm, requests(3), lambda place, _output: taken.append(place))
    assert len(taken) == 11
