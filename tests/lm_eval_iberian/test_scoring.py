"""Questions by prefix and the queue that asks them, on a made-up engine; the real one is in test_models.py."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_iberian.models.questions import Pair, Question, Score, collect_questions, truncate
from lm_eval_iberian.models.queue import AHEAD, Request, run_queue
from lm_eval_iberian.models.scoring import request, score_by_questions, score_whole_prompts
from merge_hooks.errors import EngineLostError

pytest.importorskip("vllm")
tokens = st.lists(st.integers(0, 5), min_size=1, max_size=6)


def toy_logprobs(prefix: tuple[int, ...]) -> list[float]:
    """A made-up language model over six tokens: anything that depends on the whole prefix."""
    raw = [math.sin(7 * token + sum((index + 2) * value for index, value in enumerate(prefix))) for token in range(6)]
    total = math.log(sum(math.exp(value) for value in raw))
    return [value - total for value in raw]


class ToyEngine:
    """As much of a vLLM engine as the queue needs. Requests end in an order of its own; short lists of tokens are
    filled with token 0 at -inf and what it finds in its cache has no rows that mean anything, as with vLLM."""

    def __init__(self, at_once: int = 3, breaks_at: int | None = None, block_size: int = 2) -> None:
        self.vllm_config = SimpleNamespace(
            scheduler_config=SimpleNamespace(max_num_seqs=at_once),
            cache_config=SimpleNamespace(block_size=block_size or 16, enable_prefix_caching=block_size > 0),
        )
        self.cached: set[tuple[int, ...]] = set()
        self.computed = 0
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
        waiting = [SimpleNamespace(request_id=name, finished=False) for name in self.running]
        return [*outputs[::-1], *waiting]

    def output(self, name: str, width: int) -> Any:
        prompt, params = self.running[name]
        reads = self.vllm_config.cache_config.enable_prefix_caching and not params.skip_reading_prefix_cache
        found = self.look_up(prompt) if reads else 0
        self.computed += len(prompt) - found
        logprobs = toy_logprobs(tuple(prompt))
        best = logprobs.index(max(logprobs))
        named = params.logprob_token_ids
        empty = width - len(named)
        said = SimpleNamespace(
            token_ids=[best, *named, *[0] * empty],
            logprobs=[logprobs[best], *(logprobs[token] for token in named), *[-math.inf] * empty],
        )
        rows = None
        if params.prompt_logprobs is not None:
            rows = [None, *(row(prompt, index, found) for index in range(1, len(prompt)))]
        return SimpleNamespace(
            request_id=name, finished=True, num_cached_tokens=found, prompt_logprobs=rows,
            outputs=[SimpleNamespace(token_ids=[best], logprobs=said)],
        )  # fmt: skip

    def look_up(self, prompt: list[int]) -> int:
        """Tokens found in the cache: whole blocks, and never the last token. Then the prompt's own are there."""
        size = self.vllm_config.cache_config.block_size
        blocks = [tuple(prompt[:end]) for end in range(size, len(prompt) + 1, size)]
        found = max((len(block) for block in blocks if block in self.cached and len(block) < len(prompt)), default=0)
        self.cached.update(blocks)
        return found

    def abort_request(self, names: list[str]) -> None:
        for name in names:
            self.running.pop(name, None)


def entries(logprobs: dict[int, float]) -> dict[int, Any]:
    return {token: SimpleNamespace(logprob=value) for token, value in logprobs.items()}


def row(prompt: list[int], index: int, found: int) -> dict[int, Any]:
    """The likelihood of a prompt's token, and that of the likeliest; nonsense where it was found in the cache."""
    if index - 1 < found:
        return entries({prompt[index]: 7.0, 0: 9.0})
    logprobs = toy_logprobs(tuple(prompt[:index]))
    best = logprobs.index(max(logprobs))
    return entries({prompt[index]: logprobs[prompt[index]], best: logprobs[best]})


class ToyLLM:
    """A `vllm.LLM` around it."""

    def __init__(self, **options: Any) -> None:
        self.llm_engine = ToyEngine(**options)
        self.request_counter = iter(range(10**6))
        self.resets = 0

    def reset_prefix_cache(self) -> bool:
        self.resets += 1
        return not self.llm_engine.running


@given(
    st.lists(st.tuples(tokens, st.lists(st.integers(0, 5), min_size=1, max_size=9)), min_size=1, max_size=8),
    st.integers(0, 4),  # 0: an engine without a prefix cache
    st.integers(1, 5),
)
def test_sums_what_the_model_says(
    given_pairs: list[tuple[list[int], list[int]]], block_size: int, at_once: int
) -> None:
    """Twice, so that the second time all is in the cache."""
    pairs = [Pair(None, tuple(prompt), tuple(continuation)) for prompt, continuation in given_pairs]
    llm = ToyLLM(block_size=block_size, at_once=at_once)
    for _ in range(2):
        found: dict[int, Score] = {}
        score_by_questions(llm, pairs, lambda place, score, found=found: found.update({place: score}))
        for place, pair in enumerate(pairs):
            steps = [
                (toy_logprobs(pair.prompt + pair.continuation[:index]), token)
                for index, token in enumerate(pair.continuation)
            ]
            assert math.isclose(found[place][0], sum(logprobs[token] for logprobs, token in steps), abs_tol=1e-12)
            assert found[place][1] == all(logprobs[token] == max(logprobs) for logprobs, token in steps)


def test_a_prompt_is_computed_once_for_all_its_choices() -> None:
    prompt, choices = (1, 2) * 50, [(0, 1, 2, 3), (1, 1, 1, 1), (5, 4, 3, 2), (0, 1, 2, 4)]
    llm = ToyLLM(block_size=10, at_once=1)
    score_by_questions(llm, [Pair(None, prompt, choice) for choice in choices], lambda *_: None)
    # The prompt once, then the three distinct beginnings of the choices.
    assert llm.llm_engine.computed == 100 + 3 * 3
    assert len(llm.llm_engine.cached) == 10


@given(tokens, tokens, st.integers(2, 12))
def test_cuts_from_the_left_as_lm_eval_does(context: list[int], continuation: list[int], limit: int) -> None:
    prompt, rest = truncate(context, continuation, limit)
    whole = (context + continuation)[-limit:]
    length = len(context) - max(0, len(context) + len(continuation) - limit)
    assert list(prompt + rest) == whole
    assert list(rest) == whole[length:]


def test_choices_that_share_a_beginning_share_questions() -> None:
    prompt = (1, 2, 3)
    pairs = [Pair(None, prompt, choice) for choice in ((4,), (5,), (4, 9), (4, 8), (4, 7, 6, 5), (4, 7, 6, 3))]
    found = collect_questions(pairs, 2, 128)
    assert [(question.lead, question.wanted, question.on_the_way) for question in found] == [
        ((), {4: [0, 2, 3, 4, 5], 5: [1]}, {}),
        ((4,), {9: [2], 8: [3], 7: [4, 5]}, {}),
        ((4, 7, 6), {5: [4], 3: [5]}, {2: [4, 5]}),
    ]


def test_what_the_engine_must_compute_is_not_looked_up() -> None:
    """vLLM gives no log-probabilities for what it finds in its cache: only where it may, a request reads that."""
    for whole, on_the_way, skips in ((True, {0: [0]}, True), (True, {}, False), (False, {0: [0]}, False)):
        params = request(Question((1, 2), (3,), {4: [0]}, on_the_way, whole)).params
        assert params.skip_reading_prefix_cache is skips
        assert params.prompt_logprobs == (1 if on_the_way else None)


def test_more_tokens_than_vllm_takes_are_asked_for_in_parts() -> None:
    asked = collect_questions([Pair(None, (1,), (token,)) for token in range(300)], 1, 128)
    assert sorted(token for question in asked for token in question.wanted) == list(range(300))
    assert max(len(question.wanted) for question in asked) <= 128


def test_what_is_on_the_way_is_asked_for_once() -> None:
    """Three tokens, of which the last is any of 300: the second and third are read with the first part alone."""
    asked = collect_questions([Pair(None, (1,), (2, 3, token)) for token in range(300)], 10, 128)
    assert [len(question.wanted) for question in asked] == [128, 128, 44]
    assert [sorted(question.on_the_way) for question in asked] == [[0, 1], [], []]


def test_whole_prompts_go_longest_first_and_scores_come_back_to_their_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    def queue(_llm: Any, requests: Any, heard: Any, _lora: Any) -> None:
        for index, one in enumerate(requests):
            asked.append(tuple(one.tokens))
            heard(index, one.tokens)

    monkeypatch.setattr("lm_eval_iberian.models.scoring.run_queue", queue)
    pairs = [Pair(None, (1,), (2,)), Pair(None, (1, 2), (5, 6, 7)), Pair(None, (1, 2, 3), (4,))]
    found: dict[int, Score] = {}
    score_whole_prompts(
        None, pairs, lambda place, score: found.update({place: score}),
        lambda output, pair: (float(sum(pair.continuation)), tuple(output) == pair.prompt + pair.continuation),
    )  # fmt: skip
    assert asked == [(1, 2, 5, 6, 7), (1, 2, 3, 4), (1, 2)]
    assert found == {0: (2.0, True), 1: (18.0, True), 2: (4.0, True)}


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


@pytest.mark.parametrize("reset", [False, KeyboardInterrupt()])
def test_an_engine_that_was_not_emptied_answers_nothing(reset: bool | BaseException) -> None:
    """Blocks that were planned, and never computed, would be read from its prefix cache; also after a second Ctrl-C."""
    llm, empties = ToyLLM(at_once=4, breaks_at=2), ToyLLM.reset_prefix_cache

    def fails(_: ToyLLM) -> bool:
        if isinstance(reset, BaseException):
            raise reset
        return reset

    taken: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToyLLM, "reset_prefix_cache", fails)
        with pytest.raises((RuntimeError, KeyboardInterrupt)):
            run_queue(llm, requests(20), lambda place, _output: taken.append(place))
        with pytest.raises((EngineLostError, KeyboardInterrupt)):
            run_queue(llm, requests(3), lambda place, _output: taken.append(place))
    assert ToyLLM.reset_prefix_cache is empties and llm.resets == 0
    assert sorted(taken) == [0, 1, 2, 3]  # before the error; then none
    run_queue(llm, requests(3), lambda place, _output: taken.append(place))
    run_queue(llm, requests(3), lambda place, _output: taken.append(place))
    assert llm.resets == 1 and len(taken) == 10
