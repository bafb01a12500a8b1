"""Questions by prefix: pure logic here; agreement with lm_eval's way is in test_models.py."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from lm_eval_iberian.models.scoring import batches, collect_questions, score, truncate

tokens = st.lists(st.integers(0, 5), min_size=1, max_size=6)


def toy_logprobs(prefix: tuple[int, ...]) -> list[float]:
    """A made-up language model over six tokens: anything that depends on the whole prefix."""
    raw = [math.sin(7 * token + sum((index + 2) * value for index, value in enumerate(prefix))) for token in range(6)]
    total = math.log(sum(math.exp(value) for value in raw))
    return [value - total for value in raw]


def ask(batch: list[tuple[tuple[int, ...], list[int]]]) -> Iterable[tuple[int, dict[int, float]]]:
    for prefix, wanted in batch:
        logprobs = toy_logprobs(prefix)
        yield logprobs.index(max(logprobs)), {token: logprobs[token] for token in wanted}


@given(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=8))
def test_sums_what_the_model_says(pairs: list[tuple[list[int], list[int]]]) -> None:
    given_pairs = [(tuple(prompt), tuple(continuation)) for prompt, continuation in pairs]
    for (prompt, continuation), (total, is_greedy) in zip(given_pairs, score(given_pairs, ask), strict=True):
        steps = [(toy_logprobs(prompt + continuation[:index]), token) for index, token in enumerate(continuation)]
        assert math.isclose(total, sum(logprobs[token] for logprobs, token in steps), abs_tol=1e-12)
        assert is_greedy == all(logprobs[token] == max(logprobs) for logprobs, token in steps)


@given(tokens, tokens, st.integers(2, 12))
def test_cuts_from_the_left_as_lm_eval_does(context: list[int], continuation: list[int], limit: int) -> None:
    prompt, rest = truncate(context, continuation, limit)
    whole = (context + continuation)[-limit:]
    length = len(context) - max(0, len(context) + len(continuation) - limit)
    assert list(prompt + rest) == whole
    assert list(rest) == whole[length:]


def test_choices_that_share_a_prompt_share_a_question() -> None:
    prompt = (1, 2, 3)
    questions = collect_questions([(prompt, (4,)), (prompt, (5,)), (prompt, (4, 9)), (prompt, (4, 8))])
    assert questions == {prompt: {4, 5}, (1, 2, 3, 4): {8, 9}}


def test_a_batch_asks_for_equally_many_tokens() -> None:
    """vLLM pads shorter lists with token 0 at -inf; a mixed batch would hide a real token 0."""
    questions = {(1,): {0, 7}, (2,): {0}, (3,): set(range(300))}
    found = list(batches(questions))
    assert all(len({len(wanted) for _, wanted in batch}) == 1 for batch in found)
    asked: dict[tuple[int, ...], set[int]] = {}
    for batch in found:
        for prefix, wanted in batch:
            asked.setdefault(prefix, set()).update(wanted)
            assert len(wanted) <= 128
    assert asked == questions
