"""Words beside a score that should not be read without them: answers that are cut, empty, that loop, or are no numbers.

In the paper, Breadcrumbs collapsed on translation: the score alone (BLEU near 0) does not say that the model wrote
one word a hundred times. Thresholds are shares of the documents of a task; what the model counts itself (prompts and
answers cut, ties, empty answers) has none.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from lm_eval_iberian.scores.results import in_words

LOOPING_SHARE = 0.1
ONE_CHOICE_SHARE = 0.98
# By how much it must be above that choice's share of the right answers. In minimal pairs (MultiBLiMP, BLiMP) the right
# sentence always comes first, and a good model takes it nearly always.
ONE_CHOICE_EXCESS = 0.1
# Text of at least so many bytes that deflates to less than 1/LOOP_RATIO of its size repeats itself; prose in our
# languages deflates to a half or a third.
LOOP_BYTES = 120
LOOP_RATIO = 6.0
# Of fewer documents nothing is said about choices.
MIN_DOCUMENTS = 50


def is_looping(text: str) -> bool:
    """Whether a text says the same over and over."""
    data = text.encode()
    return len(data) >= LOOP_BYTES and len(data) > LOOP_RATIO * len(zlib.compress(data, 9))


def of_texts(texts: Sequence[str]) -> list[str]:
    """What is wrong with the generated answers of a task."""
    if not texts:
        return []
    looping = sum(map(is_looping, texts)) / len(texts)
    return [f"{looping:.0%} of the answers loop"] if looping >= LOOPING_SHARE else []


def of_counts(counts: Mapping[str, int]) -> list[str]:
    """What the model counted for a task; see `lm_eval_iberian.models.counts`."""
    return in_words(counts)


def of_choices(scores: Iterable[Sequence[float]], right: Iterable[Collection[int]] = ()) -> list[str]:
    """What is wrong with the log-likelihoods of a task's choices, a list a document.

    Args:
        right: for each document the choices that are right; empty where that is not known.
    """
    rows = [list(row) for row in scores]
    broken = sum(any(math.isnan(value) for value in row) for row in rows)
    if broken:
        return [f"{broken} of {len(rows)} documents have log-likelihoods that are not numbers"]
    picked = Counter(max(range(len(row)), key=row.__getitem__) for row in rows if len(row) > 1)
    if len(rows) < MIN_DOCUMENTS or not picked:
        return []
    choice, times = picked.most_common(1)[0]
    share = times / sum(picked.values())
    known = [choices for choices in right if choices]
    deserved = sum(choice in choices for choices in known) / max(1, len(known))
    if share >= ONE_CHOICE_SHARE and share - deserved > ONE_CHOICE_EXCESS:
        beside = f", and right for {deserved:.0%}" if known else ""
        return [f"one choice is taken for {share:.0%} of the documents{beside}"]
    return []


def of_samples(samples: Sequence[dict[str, Any]]) -> list[str]:
    """The flags of one task, from lm_eval's samples."""
    answers = [response for sample in samples for response in _responses(sample)]
    if answers and all(isinstance(answer, str) for answer in answers):
        return of_texts(answers)
    rows = [[_loglikelihood(response) for response in _responses(sample)] for sample in samples]
    return of_choices([[value for value in row if value is not None] for row in rows], map(_right_choices, samples))


def _right_choices(sample: Mapping[str, Any]) -> set[int]:
    """The numbers of a document's right choices; none where lm_eval's sample does not say.

    It says them as numbers or as the choices' texts; not where the choices stand before one and the same ending, as in
    Winogrande: there `target` is that ending.
    """
    texts = [str(arguments[1]).strip() for arguments in sample.get("arguments") or () if len(arguments) > 1]
    if len(set(texts)) < 2:
        return set()
    target = sample.get("target")
    found = set()
    for one in target if isinstance(target, list) else [target]:
        if isinstance(one, int):
            found.add(int(one))
        elif isinstance(one, str) and one.strip() in texts:
            found.add(texts.index(one.strip()))
    return found


def _responses(sample: dict[str, Any]) -> list[Any]:
    return [response for request in sample["resps"] for response in request]


def _loglikelihood(response: Any) -> float | None:
    if isinstance(response, (tuple, list)) and response and isinstance(response[0], (int, float)):
        return float(response[0])
    return float(response) if isinstance(response, (int, float)) else None
