"""A model that answers from the store what it has answered before, and hands on every new answer as it comes.

lm_eval's `CachingLM` keeps answers by request alone. Here a key says all that an answer depends on: what
`Identity.answers` holds, the request with its generation settings, and which of several equal requests it is.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lm_eval.api.model import LM

from lm_eval_iberian.models.counts import Cut
from lm_eval_iberian.runs.store import Answer

TYPES = ("loglikelihood", "loglikelihood_rolling", "generate_until")


class StoredLM(LM):
    """What the evaluator sees instead of the model.

    Args:
        model: a `MergedVLLM` or `MergedHF`.
        stamp: what all its answers depend on (`Identity.answers`).
        signature: the signature's digest, which the store keeps beside each answer.
        known: answers that are there: key -> JSON.
        keep: called with new answers as they come.
        versions: leaf task -> version, for the store.
        ask: told of every batch before it goes to the model: requests, tokens (about), requests that are known.
    """

    def __init__(
        self, model: Any, stamp: str, signature: str, known: Mapping[str, str], keep: Callable[[list[Answer]], None],
        versions: Mapping[str, str], ask: Callable[[int, int, int], None],
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.stamp, self.digest, self.known, self.keep = model, stamp, signature, known, keep
        self.versions, self.ask = versions, ask
        self._waiting: dict[str, deque[tuple[str, str]]] = {}

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        return [(float(value), bool(greedy)) for value, greedy in self._through("loglikelihood", requests)]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        return self._through("loglikelihood_rolling", requests)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        return self._through("generate_until", requests)

    def add_partial(self, type: str, request: Any, answer: Any) -> None:
        """lm_eval's hook (`CacheHook.add_partial`): one answer is there."""
        waiting = self._waiting.get(_text(type, request))
        if waiting:
            key, task = waiting.popleft()
            self.keep([self._answer(key, type, task, answer)])

    def _through(self, type: str, requests: list[Any]) -> list[Any]:
        """Answers to all requests, in order: known ones, and the model's."""
        keys = self._keys(type, requests)
        missing = [index for index, key in enumerate(keys) if key not in self.known]
        self._waiting = defaultdict(deque)
        for index in missing:
            self._waiting[_text(type, requests[index].args)].append((keys[index], str(requests[index].task_name)))
        self.ask(len(missing), self._tokens([requests[index] for index in missing]), len(keys) - len(missing))
        self.model.set_cache_hook(self)
        asked = [requests[index] for index in missing]
        stored = {index: _read(self.known[key]) for index, key in enumerate(keys) if key in self.known}
        counted = type != "loglikelihood_rolling"
        if counted:
            self.model.count_too([requests[index] for index in stored], list(stored.values()))
        # The sweep has a progress bar of its own.
        fresh = getattr(self.model, type)(asked, disable_tqdm=True) if asked or counted else []
        # What the model did not hand on by itself (transformers' rolling requests, say), kept now.
        left = {key for waiting in self._waiting.values() for key, _ in waiting}
        self.keep([
            self._answer(keys[index], type, str(requests[index].task_name), answer)
            for index, answer in zip(missing, fresh, strict=True)
            if keys[index] in left
        ])  # fmt: skip
        answers = stored | dict(zip(missing, fresh, strict=True))
        return [answers[index] for index in range(len(keys))]

    def _tokens(self, requests: Sequence[Any]) -> int:
        """About how many tokens the prompts have: their characters, by the rate of the first few."""
        texts = [str(request.args[0]) for request in requests]
        probe = "".join(texts[:10])
        if not probe:
            return 0
        return round(sum(map(len, texts)) * len(self.model.tok_encode(probe)) / len(probe))

    def _keys(self, type: str, requests: Sequence[Any]) -> list[str]:
        """A key each; equal requests (repeats, duplicates) are numbered."""
        seen: dict[str, int] = defaultdict(int)
        keys = []
        for request in requests:
            text = _text(type, request.args)
            keys.append(hashlib.sha256(f"{self.stamp}\n{text}\n{seen[text]}".encode()).hexdigest()[:32])
            seen[text] += 1
        return keys

    def _answer(self, key: str, type: str, task: str, answer: Any) -> Answer:
        return Answer(key, self.digest, task, self.versions.get(task, ""), type, _write(answer))

    # What the evaluator asks a model beside answers

    def __getattr__(self, name: str) -> Any:
        if name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)

    @property
    def rank(self) -> int:
        return int(self.model.rank)

    @property
    def world_size(self) -> int:
        return int(self.model.world_size)

    @property
    def tokenizer_name(self) -> str:
        return str(self.model.tokenizer_name)

    def apply_chat_template(self, *arguments: Any, **options: Any) -> str:
        return str(self.model.apply_chat_template(*arguments, **options))

    def chat_template(self, *arguments: Any, **options: Any) -> str | None:
        found = self.model.chat_template(*arguments, **options)
        return None if found is None else str(found)


def _write(answer: Any) -> str:
    """As the store keeps it: that the token limit cut a text is kept with it."""
    return json.dumps({"cut": answer} if isinstance(answer, Cut) else answer, default=_plain)


def _read(stored: str) -> Any:
    answer = json.loads(stored)
    return Cut(answer["cut"]) if isinstance(answer, dict) else answer


def _text(type: str, request: Any) -> str:
    return json.dumps([type, list(request)], sort_keys=True, default=str, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """numpy's and torch's numbers, as Python's."""
    return value.item()
