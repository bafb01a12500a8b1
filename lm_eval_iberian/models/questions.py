"""Which questions answer which log-likelihoods. Pure logic: no engine is known here.

A choice of tokens c1 c2 ... cn after a prompt P needs "after P, how likely is c1?", "after P c1, how likely is c2?" and
so on. Two kinds of question give that:

    head   after P, how likely are ...?            asked once a prompt, for the first tokens of all its choices
    tail   after P c1 ... c(n-1), how likely is cn?    and, read on the way, c2 after P c1, c3 after P c1 c2, ...

A tail finds P in the engine's cache. So it computes only the choice itself, and what is left of P after its last whole
cache block. Choices that share a beginning share questions. If a prompt fills no cache block there is nothing to find,
and its tails also read c1 on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

Tokens = tuple[int, ...]
# (log-probability of the continuation, whether greedy decoding would have written it)
Score = tuple[float, bool]
# What the engine says of a token: (its log-probability, that of the likeliest token there)
Said = tuple[float, float]
FEW = 4


@dataclass(frozen=True)
class Pair:
    """A continuation to be scored.

    Args:
        key: lm_eval's (context, continuation) texts, the key of its cache; None for a window of a rolling request.
        prompt, continuation: token ids, cut to the engine's length; at least one of each.
    """

    key: tuple[str, str] | None
    prompt: Tokens
    continuation: Tokens

    def __post_init__(self) -> None:
        if not (self.prompt and self.continuation):  # see counted.py, which refuses such requests
            raise ValueError("a continuation without tokens, or nothing that it follows, has no likelihood")


@dataclass
class Question:
    """How likely are some tokens after `prompt` and `lead`, the beginning of a continuation?

    Args:
        wanted: token id -> the pairs (their indices) that ask for it.
        on_the_way: index into `lead` -> the pairs that ask for that token after what precedes it.
        whole: whether the engine must compute all of it, and find nothing in its cache.
    """

    prompt: Tokens
    lead: Tokens
    wanted: dict[int, list[int]] = field(default_factory=dict)
    on_the_way: dict[int, list[int]] = field(default_factory=dict)
    whole: bool = False


def truncate(context: Sequence[int], continuation: Sequence[int], limit: int) -> tuple[Tokens, Tokens]:
    """Prompt and continuation, cut from the left to `limit` tokens in all, as lm_eval's VLLM cuts them."""
    whole = (*context, *continuation)[-limit:]
    cut = len(context) - max(0, len(context) + len(continuation) - limit)
    return tuple(whole[:cut]), tuple(whole[cut:])


def collect_questions(pairs: Sequence[Pair], block_size: int, most: int) -> list[Question]:
    """The questions that answer these pairs, in the order in which to ask them.

    They are sorted by their tokens. So prompts with the same few-shot examples follow each other while these are in the
    cache, and a prompt's head comes before its tails.

    Args:
        block_size: tokens in a block of the engine's cache.
        most: how many tokens one question may ask for.
    """
    prompts: dict[Tokens, list[int]] = {}
    for place, pair in enumerate(pairs):
        prompts.setdefault(pair.prompt, []).append(place)
    return [
        question
        for prompt in sorted(prompts)
        for question in _questions_of(
            prompt, [(place, pairs[place].continuation) for place in prompts[prompt]], len(prompt) >= block_size
        )
        for question in _portions(question, most)
    ]


def _questions_of(prompt: Tokens, choices: list[tuple[int, Tokens]], cached: bool) -> list[Question]:
    """The questions of one prompt, its head first."""
    found: dict[Tokens, Question] = {}
    single = all(len(choice) == 1 for _, choice in choices)
    if single or cached:
        found[()] = Question(prompt, ())
    for _, choice in choices:
        found.setdefault(choice[:-1], Question(prompt, choice[:-1], whole=not (cached or single)))
    # beginning of a choice, its last token included -> the pairs that need to know of that token
    needed: dict[Tokens, list[int]] = {}
    for place, choice in choices:
        for index in range(len(choice)):
            needed.setdefault(choice[: index + 1], []).append(place)
    found = dict(sorted(found.items()))
    for lead, question in found.items():
        for index in range(len(lead)):
            if lead[:index] not in found and (places := needed.pop(lead[: index + 1], None)):
                question.on_the_way[index] = places
    for beginning, places in needed.items():
        found[beginning[:-1]].wanted[beginning[-1]] = places
    return list(found.values())


def _portions(question: Question, most: int) -> Iterator[Question]:
    """The same question, split so that no part asks for more tokens than that. What is on the way is asked once."""
    wanted = sorted(question.wanted.items())
    for start in range(0, len(wanted), most):
        part = dict(wanted[start : start + most])
        yield replace(question, wanted=part, on_the_way={} if start else question.on_the_way)


class Scorer:
    """Puts the scores of pairs together as answers arrive.

    Args:
        pairs: what is to be scored.
        take: called with a pair's index and its score as soon as it is known.
    """

    def __init__(self, pairs: Sequence[Pair], take: Callable[[int, Score], None]) -> None:
        self.pairs, self.take = pairs, take
        self.known: list[dict[int, Said]] = [{} for _ in pairs]
        self.missing: list[tuple[Question, dict[int, list[int]]]] = []

    def answer(self, question: Question, wanted: dict[int, Said], on_the_way: dict[int, Said]) -> None:
        """Note an answer of the engine, by token id and by index into the lead."""
        for token, said in wanted.items():
            self._note(question.wanted[token], len(question.lead), said)
        for index, said in on_the_way.items():
            self._note(question.on_the_way[index], index, said)
        if missing := {index: places for index, places in question.on_the_way.items() if index not in on_the_way}:
            self.missing.append((question, missing))

    def again(self) -> list[Question]:
        """Questions for what the engine did not compute because it found it in its cache."""
        questions = [again for question, missing in self.missing for again in _again(question, missing)]
        self.missing = []
        return questions

    def _note(self, places: Iterable[int], index: int, said: Said) -> None:
        for place in places:
            known, length = self.known[place], len(self.pairs[place].continuation)
            known[index] = said
            if len(known) == length:
                # Summed in the order of the tokens, whatever came first. Of two equally likely tokens the one asked
                # for counts as the greedy one, as with lm_eval's VLLM.
                total = sum(known[i][0] for i in range(length))
                self.take(place, (total, all(known[i][0] >= known[i][1] for i in range(length))))


def _again(question: Question, missing: dict[int, list[int]]) -> list[Question]:
    """Questions for missing tokens: one by one if they are few; if they are many, everything is computed again."""
    if len(missing) > FEW:
        last = max(missing)
        again = Question(question.prompt, question.lead[:last], whole=True)
        again.wanted = {question.lead[last]: missing[last]}
        again.on_the_way = {index: places for index, places in missing.items() if index != last}
        return [again]
    return [
        Question(question.prompt, question.lead[:index], {question.lead[index]: places})
        for index, places in missing.items()
    ]
