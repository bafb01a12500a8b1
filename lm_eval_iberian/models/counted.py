"""No wrong answer in silence: refuse what would give a wrong number, and count what happens to prompts and answers.

A log-likelihood is refused, before the first one is computed, if it would be that of another text than the task's. A
choice that the prompt's last token swallows has no tokens left: it would score 0.0, probability 1, and win. A choice
longer than the window would be scored in part. Nothing can follow a prompt without tokens, or one that the tokenizer
ended. A choice of which a part is left has lm_eval's number, and is counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from tqdm import tqdm

from lm_eval_iberian.models.counts import Tally, task_of
from lm_eval_iberian.models.encoding import EncodesAhead
from lm_eval_iberian.models.questions import Pair, Score, truncate
from merge_hooks.errors import EngineError


class Counted(EncodesAhead):
    """Mixin before lm_eval's class of a back end, and after `Swapping`. A back end provides `_window` and `_write`."""

    _tally: tuple[Any, Tally] | None = None
    # Requests whose answers are known, for the next call: see `count_too`.
    _known: tuple[Sequence[Any], Sequence[Any]] = ((), ())
    # The instances of the tokens that lm_eval is about to hand over, and whether these are to be looked at only.
    _instances: Sequence[Any] | None = None
    _only_looks = False
    _end: tuple[int, ...] = ()  # the tokens that the tokenizer adds after a text

    @cached_property
    def _joined(self) -> set[tuple[str, str]]:
        """(prompt, choice) of the requests at hand of which the tokenizer makes a common token."""
        return set()

    @property
    def _window(self) -> int:
        """How many tokens a prompt and a choice may have together."""
        raise NotImplementedError

    def _write(self, requests: list[Any], disable_tqdm: bool) -> list[str]:
        """The texts for lm_eval's `generate_until`; `Cut` if the limit cut them."""
        raise NotImplementedError

    def _prompt_room(self, limit: int) -> int:
        """How many tokens a prompt may have if an answer may have `limit`."""
        return int(self.max_length) - limit  # type: ignore[attr-defined]

    @property
    def answers(self) -> Tally:
        """The counts of this evaluation of this merge. They start again after a swap."""
        merge = getattr(self, "prepared", None)
        if self._tally is None or self._tally[0] is not merge:
            self._tally = (merge, Tally())
        return self._tally[1]

    def count_too(self, requests: Sequence[Any], answers: Sequence[Any]) -> None:
        """Count requests that somebody else answers, together with those of the next call of the same type.

        Whoever stands before the model and answers a part of the requests calls this, and then the model, even if
        nothing is left to ask. So the counts are those of a run without a store.
        """
        self._known = (requests, answers)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """lm_eval's log-likelihoods.

        Raises:
            EngineError: a request that would give a wrong number; nothing was computed.
        """
        (known, answers), self._known = self._known, ((), ())
        self.answers.begin("loglikelihood")
        self._only_looks = True
        try:
            self._hand_over(known)
        finally:
            self._only_looks = False
        scores = self._hand_over(requests, disable_tqdm)
        self.answers.note_ties([*known, *requests], [*answers, *scores])
        self.answers.warn()
        return scores

    def _hand_over(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Hand requests to lm_eval, which makes tokens of them and passes these to `examine`."""
        if not requests:
            return []
        self._refuse_nothing(requests)
        self._joined.clear()
        self._end = self._added_at_the_end()
        self._instances = requests
        try:
            return super().loglikelihood(list(requests), disable_tqdm=disable_tqdm)
        finally:
            self._instances = None

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """lm_eval's. It takes as many tokens from the whole text's front as the prompt has, whichever these are."""
        # Before lm_eval asks for both: texts are encoded ahead in that order, and one that is behind takes long.
        whole = self.tok_encode(context + continuation)
        prompt, choice = super()._encode_pair(context, continuation)  # type: ignore[misc]
        if self.backend == "causal" and whole[: len(prompt)] != prompt:  # type: ignore[attr-defined]
            self._joined.add((context, continuation))
        return prompt, choice

    def _added_at_the_end(self) -> tuple[int, ...]:
        """As `add_eos_token` makes it."""
        plain, (usual,) = self.tok_encode("a", add_special_tokens=False), self.encode_each(["a"])
        starts = range(len(usual) - len(plain) + 1) if self.backend == "causal" else ()  # type: ignore[attr-defined]
        start = next((one for one in starts if usual[one : one + len(plain)] == plain), len(usual))
        return tuple(usual[start + len(plain) :])

    def _why_ended(self, context: str, prompt: Sequence[int]) -> str | None:
        """Why nothing can follow a prompt: the tokenizer ended it, and not its own text."""
        end = self.tokenizer.decode(self._end) if self._end else ""  # type: ignore[attr-defined]
        if not self._end or tuple(prompt[-len(self._end) :]) != self._end or context.rstrip().endswith(end):
            return None
        return (
            f"the tokenizer ends each prompt with {end}, so what follows would be the beginning of another text. Set "
            "add_eos_token to false in a copy of its tokenizer_config.json and name that folder with tokenizer=, or give "
            "add_bos_token=False, which adds no special token at all, BOS neither."
        )

    def _refuse_nothing(self, requests: Iterable[Any]) -> None:
        """Refuse empty choices. lm_eval reads the first token of a choice without a context, so there must be one."""
        refuse([
            (request, _no_tokens(*request.args)) for request in requests
            if request.args[0] == "" and not self.tok_encode(request.args[1], add_special_tokens=False)
        ])  # fmt: skip

    def examine(self, requests: Sequence[tuple[Any, list[int], list[int]]]) -> bool:
        """Look at (key, prompt, choice) in tokens, as lm_eval made them. Back ends call this before they score.

        Returns:
            Whether to go on and score them.
        Raises:
            EngineError: with task, document and mend.
        """
        instances = self._instances or [None] * len(requests)
        refused, window = [], self._window
        for instance, (key, prompt, choice) in zip(instances, requests, strict=True):
            if why := self._why_refused(key, prompt, choice, window):
                refused.append((instance, why))
            elif instance is not None:
                self.answers.saw(instance)
                if len(prompt) + len(choice) > window:
                    self.answers.note("cut_prompts", instance)
                if key in self._joined:
                    self.answers.note("joined", instance)
        refuse(refused)
        if not self._only_looks:
            self.answers.warn()
        return not self._only_looks

    def _pairs(self, requests: Sequence[tuple[Any, list[int], list[int]]]) -> list[Pair]:
        """What is to be scored, cut to the window."""
        window = self._window
        return [Pair(key, *truncate(before, after, window)) for key, before, after in requests]

    def _scored(
        self, pairs: Sequence[Pair], quiet: bool, ask: Callable[[Sequence[Pair], Callable[[int, Score], None]], None]
    ) -> list[Score]:
        """Log-likelihoods; lm_eval's cache gets each as soon as it is known. One that is not answered is not a number.

        Args:
            ask: asks the engine, and calls what it is given with each pair's index and score.
        """
        results: list[Score] = [(math.nan, False)] * len(pairs)
        with tqdm(total=len(pairs), disable=quiet, desc="Running loglikelihood requests") as progress:

            def take(place: int, score: Score) -> None:
                results[place] = score
                if pairs[place].key is not None:  # None: a window of a rolling request, cached by its caller
                    self.cache_hook.add_partial("loglikelihood", pairs[place].key, score)  # type: ignore[attr-defined]
                progress.update(1)

            ask(pairs, take)
        return results

    def _why_refused(self, key: Any, prompt: list[int], choice: list[int], window: int) -> str | None:
        context, continuation = key or ("", "")
        if not choice:
            return _no_tokens(context, continuation)
        if not prompt:
            return (
                f"its prompt {_shown(context)} has no tokens, so there is nothing that the choice could follow. Leave the "
                "prompt empty, which lm_eval gives a BOS token, or set add_bos_token=True."
            )
        if why := self._why_ended(context, prompt):
            return why
        if len(choice) >= window:
            return (
                f"its choice {_shown(continuation)} has {len(choice)} tokens, and beside one of the prompt the window "
                f"(max_length={self.max_length}) holds {window - 1}: it would be scored in part. "  # type: ignore[attr-defined]
                "Raise max_length (on vLLM max_model_len), or leave this task out."
            )
        return None

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """lm_eval's generation.

        Raises:
            EngineError: the window cannot hold an answer of the limit's length; nothing was generated.
        """
        (known, answers), self._known = self._known, ((), ())
        self.answers.begin("generate_until")
        everything = [*known, *requests]
        self._examine_prompts(everything)
        self.answers.warn()
        texts = self._write(requests, disable_tqdm) if requests else []
        self.answers.note_answers(everything, [*answers, *texts])
        self.answers.warn()
        return texts

    def _examine_prompts(self, requests: Sequence[Any]) -> None:
        """Refuse limits that leave no room for a prompt, and prompts that are ended; count the prompts that are cut."""
        self._end = self._added_at_the_end()
        refused = []
        rooms: dict[str, int] = {}
        for request in requests:
            settings = str(request.args[1])
            if settings not in rooms:
                rooms[settings] = self._prompt_room(self._limit(task_of(request), request.args[1]))
        prompts = self.encode_each([request.args[0] for request in requests])
        for request, prompt in zip(requests, prompts, strict=True):
            self.answers.saw(request)
            if why := self._why_ended(request.args[0], prompt):
                refused.append((request, why))
            if len(prompt) > rooms[str(request.args[1])]:
                self.answers.note("cut_prompts", request)
        refuse(refused)

    def _limit(self, task: str, settings: Mapping[str, Any]) -> int:
        """How many tokens an answer may have. Raises EngineError if that leaves no token of the prompt."""
        from lm_eval.models.utils import normalize_gen_kwargs

        length = int(self.max_length)  # type: ignore[attr-defined]
        said: Mapping[str, Any] = normalize_gen_kwargs(dict(settings), self.max_gen_toks)  # type: ignore[attr-defined]
        limit, total = int(said["max_gen_toks"]), said.get("max_length")
        if limit >= length or (total is not None and int(total) > length):
            what = f"max_gen_toks={limit}" if limit >= length else f"max_length={total} among the generation settings"
            raise EngineError(
                f"{task}: {what} does not fit into the window (max_length={length}), which holds the prompt, too. Raise "
                f"max_length (on vLLM max_model_len), or give --gen_kwargs max_gen_toks=N with N well below {length}."
            )
        return limit

    def check_limits(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Check, before anything is scored, that the window can hold the answers.

        Args:
            settings: task -> its generation settings.
        Raises:
            EngineError: see `generate_until`.
        """
        for task, of_task in settings.items():
            self._limit(task, of_task)


def refuse(found: Sequence[tuple[Any, str]]) -> None:
    """Raise EngineError if there are requests that would give a wrong number.

    Args:
        found: lm_eval's instance (None if the request belongs to no document), and why it is refused.
    """
    if not found:
        return
    first, why = found[0]
    where = "a request" if first is None else task_of(first)
    if first is not None and first.doc_id is not None:
        where += f", document {first.doc_id}"
    tasks = Counter(task_of(request) for request, _ in found if request is not None)
    more = ", ".join(f"{count} of {task}" for task, count in tasks.items())
    rest = f" Refused in all: {more} requests." if len(found) > 1 and more else ""
    raise EngineError(f"{where}: {why} Nothing was scored.{rest}")


def _no_tokens(context: str, continuation: str) -> str:
    if not continuation:
        return (
            "an answer choice is empty: it would score 0.0, which is probability 1, and always be taken. Give it a text "
            "in the task (doc_to_choice, target_delimiter)."
        )
    return (
        f"of its choice {_shown(continuation)} no token is left: the tokenizer joins it to the end of the prompt "
        f"{_shown(context[-20:], '…')}. It would score 0.0, which is probability 1, and always be taken. Part the two in the "
        'task (target_delimiter: " "), or let the choices begin where a word begins.'
    )


def _shown(text: str, before: str = "") -> str:
    return f"{before}{text!r}" if len(text) <= 40 else f"{before}{text[:40]!r}…"
