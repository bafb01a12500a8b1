"""The model that answers from the store: which requests share an answer, and where each answer goes."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from lm_eval_iberian.models.counts import Cut
from lm_eval_iberian.runs.store import Answer
from lm_eval_iberian.sweep.stored_lm import StoredLM


class Model:
    """Answers each request with its number, and hands answers on while it works if it is told to."""

    def __init__(self, hands_on: bool = False) -> None:
        self.hands_on, self.asked, self.hook = hands_on, list[Any](), None

    def set_cache_hook(self, hook: Any) -> None:
        self.hook = hook

    def count_too(self, requests: Any, answers: Any) -> None:
        pass

    def tok_encode(self, text: str) -> list[int]:
        return [0] * len(text)

    def _answer(self, type: str, requests: Any, answers: list[Any]) -> list[Any]:
        self.asked += requests
        for request, answer in zip(requests, answers, strict=True):
            if self.hands_on:
                self.hook.add_partial(type, request.args, answer)
        return answers

    def generate_until(self, requests: Any, disable_tqdm: bool) -> list[Any]:
        return self._answer("generate_until", requests, [f"text {len(self.asked) + n}" for n in range(len(requests))])

    def loglikelihood(self, requests: Any, disable_tqdm: bool) -> list[Any]:
        return self._answer("loglikelihood", requests, [(-1.0 - n, False) for n in range(len(requests))])


def stored(model: Model, known: dict[str, str] | None = None, stamp: str = "stamp") -> tuple[StoredLM, list[Answer]]:
    kept: list[Answer] = []
    return StoredLM(model, stamp, "digest", known or {}, kept.extend, {"task": "1.0"}, lambda *_: None), kept


def request(*args: Any) -> Any:
    return SimpleNamespace(args=args, task_name="task")


def key_of(request_: Any, type: str = "generate_until", stamp: str = "stamp") -> str:
    return stored(Model(), stamp=stamp)[0]._keys(type, [request_])[0]


def test_a_key_says_all_that_an_answer_depends_on() -> None:
    one = request("Zein?", {"until": ["\n"], "seed": 1})
    others = [
        key_of(request("Nor?", {"until": ["\n"], "seed": 1})),
        key_of(request("Zein?", {"until": ["."], "seed": 1})),
        key_of(request("Zein?", {"until": ["\n"], "seed": 2})),
        key_of(one, "loglikelihood"),
        key_of(one, stamp="another model, setting or seed"),
        stored(Model())[0]._keys("generate_until", [one, one])[1],  # the second of two equal requests
    ]
    assert len({key_of(one), *others}) == 1 + len(others)
    assert key_of(request("Zein?", {"seed": 1, "until": ["\n"]})) == key_of(one), "whatever the order of settings"
    assert key_of(one) == "c2944ef10993fa284c661b01e1bbfe90", "as stores have it that were made before"


def test_known_answers_and_new_ones_go_to_their_requests() -> None:
    requests = [request(word, {}) for word in "abcd"]
    first, kept = stored(Model())
    assert first.generate_until(requests) == ["text 0", "text 1", "text 2", "text 3"]
    known = {answer.key: answer.answer for answer in (kept[1], kept[3])}
    model = Model()
    again, new = stored(model, known)
    assert again.generate_until(requests) == ["text 0", "text 1", "text 1", "text 3"]
    assert [one.args[0] for one in model.asked] == ["a", "c"]
    assert [answer.key for answer in new] == [kept[0].key, kept[2].key]
    assert (new[0].task, new[0].version, new[0].signature, new[0].type) == ("task", "1.0", "digest", "generate_until")


@pytest.mark.parametrize("hands_on", [False, True])
def test_equal_requests_have_an_answer_each(hands_on: bool) -> None:
    """In their order, whether the model hands each answer on as it comes or all at the end; and none is kept twice."""
    requests = [request("a", {})] * 3
    lm, kept = stored(Model(hands_on))
    said = lm.generate_until(requests)
    assert [json.loads(answer.answer) for answer in kept] == said == ["text 0", "text 1", "text 2"]
    assert [answer.key for answer in kept] == lm._keys("generate_until", requests)


def test_choices_come_back_as_numbers() -> None:
    lm, kept = stored(Model())
    assert lm.loglikelihood([request("a", " b")]) == [(-1.0, False)]
    again, _ = stored(Model(), {answer.key: answer.answer for answer in kept})
    assert again.loglikelihood([request("a", " b")]) == [(-1.0, False)]


def test_that_a_text_was_cut_is_kept_with_it() -> None:
    model = Model()
    model.generate_until = lambda requests, disable_tqdm: [Cut("half a"), "whole"]  # type: ignore[method-assign]
    requests = [request("a", {}), request("b", {})]
    lm, kept = stored(model)
    lm.generate_until(requests)
    again, _ = stored(Model(), {answer.key: answer.answer for answer in kept})
    found = again.generate_until(requests)
    assert found == ["half a", "whole"] and [isinstance(one, Cut) for one in found] == [True, False]
