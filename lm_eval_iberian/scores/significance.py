"""Is the difference between two systems more than the luck of the documents? Paired tests over the same documents.

    first, second = align(scores_of_a, scores_of_b)              # {document id: score}, refused where documents differ
    paired_bootstrap(first, second, stream="belebele_eu")        # Difference(value, low, high, p, documents, method)

Values and intervals are A minus B, in the unit of the scores that come in. The bootstrap draws documents with
replacement, the same ones for both systems (Efron and Tibshirani 1993, chapters 13 and 15; Koehn 2004 for
translation). Its interval is the percentile interval, and p turns that interval round: the smallest level at which it
leaves out 0, so `low > 0 or high < 0` and `p < 0.05` say the same (but for the rule of few documents, below).

What comes from few documents: the bootstrap knows only the documents it has, and when all of three favour A, every
resample does. So p is never below 2^(1-k), the least that any exact paired test gives where k documents differ.
Real-valued scores of equal systems come out with p < 0.05 in 10 of 100 test sets of 10 documents, 7 of 20, 5 of 50
and more (measured, 1,500 each; scores of 0 and 1 in 1, 4 and 4 to 6).

An average over benchmarks is the plain mean of their differences. Each benchmark has a `stream`, its name:
benchmarks with different streams are drawn apart, and benchmarks with one stream (FLORES directions: one set of
sentences) are drawn together. `average` refuses streams without a name, because unnamed ones all draw alike.

Corpus metrics (BLEU, Matthews, F1) are in `lm_eval_iberian.scores.significance_corpus`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from lm_eval_iberian.scores.resampling import RESAMPLES, SEED, Difference, Draws, SignificanceError, Stream, draw

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "RESAMPLES", "SEED", "Difference", "Draws", "SignificanceError", "align", "average", "holm", "mean_draws",
    "mean_over_runs", "paired_bootstrap", "ratio_draws", "sign_test",
]  # fmt: skip

Value = TypeVar("Value")


def align(first: Mapping[Any, Value], second: Mapping[Any, Value]) -> tuple[list[Value], list[Value]]:
    """The values of two systems, document by document, in an order that depends on the ids alone.

    Args:
        first, second: document id -> what was measured there.
    Raises:
        SignificanceError: the documents are not the same; how many each lacks.
    """
    if missing := first.keys() ^ second.keys():
        example = min(missing, key=repr)
        raise SignificanceError(
            f"the two systems were not measured on the same documents: {len(second.keys() - first.keys())} of "
            f"{len(second)} are missing from the first and {len(first.keys() - second.keys())} of {len(first)} from "
            f"the second (e.g. {example!r}). Measure both on the same documents."
        )
    order = sorted(first, key=repr)
    return [first[key] for key in order], [second[key] for key in order]


def mean_over_runs(runs: Sequence[Mapping[Hashable, float]]) -> dict[Hashable, float]:
    """One value a document from several runs of one system (seeds): their mean.

    Raises:
        SignificanceError: there is no run, or their documents differ.
    """
    if not runs:
        raise SignificanceError("there is no run to average.")
    for run in runs[1:]:
        align(runs[0], run)
    return {key: math.fsum(run[key] for run in runs) / len(runs) for key in runs[0]}


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], *, stream: str = "", resamples: int = RESAMPLES, seed: int = SEED
) -> Difference:
    """The difference of two means over the same documents."""
    return mean_draws(first, second, stream=stream, resamples=resamples, seed=seed).difference()


def mean_draws(
    first: Sequence[float], second: Sequence[float], *, stream: str = "", resamples: int = RESAMPLES, seed: int = SEED
) -> Draws:
    """As `paired_bootstrap`, for averages.

    Args:
        first, second: a score for each document, in the same order (`align`).
    Raises:
        SignificanceError: lengths differ, there is none, or a score is no finite number.
    """
    import numpy as np

    change = _column(first, second)
    ones = np.ones_like(change)
    return draw(
        np.stack([change, ones], axis=1), _ratio, int((change != 0).sum()), stream, resamples, seed, "paired bootstrap"
    )


def ratio_draws(
    first: Sequence[tuple[float, float]],
    second: Sequence[tuple[float, float]],
    *,
    stream: str = "",
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Draws:
    """The difference of two ratios of sums, where a document has several parts: IFEval at the level of instructions.

    Prompts are drawn with all their instructions, because instructions of one prompt share its answer.

    Args:
        first, second: (followed, asked) for each prompt. Over several runs of a system: the mean of `followed`.
    """
    import numpy as np

    (kept_a, of_a), (kept_b, of_b) = (np.asarray(side, dtype=np.float64).reshape(-1, 2).T for side in (first, second))
    change = _column(kept_a, kept_b)
    if not np.array_equal(of_a, of_b) or not (of_a > 0).all():
        raise SignificanceError("each prompt must have the same number of instructions for both systems, at least one.")
    return draw(
        np.stack([change, of_a], axis=1), _ratio, int((change != 0).sum()), stream, resamples, seed,
        "paired bootstrap over prompts",
    )  # fmt: skip


def sign_test(
    first: Sequence[float], second: Sequence[float], *, stream: str = "", resamples: int = RESAMPLES, seed: int = SEED
) -> Difference:
    """Scores of 0 and 1: the exact McNemar test, that is the sign test over the documents where A and B differ.

    The interval is the bootstrap's; p is exact and, the test being discrete, errs on the careful side.

    Raises:
        SignificanceError: a score is neither 0 nor 1. A sign test of other scores would test something else than
            the difference of means that is printed beside it.
    """
    from scipy.stats import binomtest

    if not set(map(float, first)) | set(map(float, second)) <= {0.0, 1.0}:
        raise SignificanceError("the sign test is for scores of 0 and 1; use the paired bootstrap for others.")
    found = mean_draws(first, second, stream=stream, resamples=resamples, seed=seed)
    wins = sum(a > b for a, b in zip(first, second, strict=True))
    p = float(binomtest(wins, found.differing).pvalue) if found.differing else 1.0
    method = f"exact McNemar test; interval: {found.method}"
    return replace(found.difference(), p=p, method=method)


def average(benchmarks: Sequence[Draws]) -> Draws:
    """The plain mean of several benchmarks' differences, as the paper averages.

    Raises:
        SignificanceError: there is none, streams have no name, or one name stands for different documents.
    """
    import numpy as np

    if not benchmarks:
        raise SignificanceError("there is no benchmark to average.")
    if any("" in one.streams for one in benchmarks):
        raise SignificanceError("every benchmark of an average needs stream=, its name, or their draws would agree.")
    if len({len(one.samples) for one in benchmarks}) > 1:
        raise SignificanceError("the benchmarks of an average must have the same number of resamples.")
    method = "; ".join(dict.fromkeys(one.method for one in benchmarks))
    return Draws(
        math.fsum(one.value for one in benchmarks) / len(benchmarks),
        np.mean([one.samples for one in benchmarks], axis=0),
        sum(one.documents for one in benchmarks),
        sum(one.differing for one in benchmarks),
        _joined_streams(benchmarks),
        f"mean of {len(benchmarks)}: {method}" if len(benchmarks) > 1 else method,
    )


def _joined_streams(benchmarks: Sequence[Draws]) -> dict[str, Stream]:
    streams: dict[str, Stream] = {}
    for name, stream in (item for one in benchmarks for item in one.streams.items()):
        if name in streams and not (stream.together and streams[name] == stream):
            raise SignificanceError(
                f"two benchmarks have the stream {name!r}, and were not drawn together ({streams[name].documents} "
                f"documents, seed {streams[name].seed}; {stream.documents} documents, seed {stream.seed}). Give each "
                "its own name; only BLEU over the same sentences shares one."
            )
        streams[name] = stream
    return streams


def holm(family: Mapping[Hashable, Difference]) -> dict[Hashable, Difference]:
    """The same differences with p adjusted for their number (Holm 1979); intervals stay those of each alone.

    Reports do not do this unless asked: with it, fewer than 1 family in 20 has even one false finding.
    """
    adjusted, least = {}, 0.0
    for rank, (key, found) in enumerate(sorted(family.items(), key=lambda item: item[1].p)):
        least = max(least, min(1.0, found.p * (len(family) - rank)))
        adjusted[key] = replace(found, p=least, method=f"{found.method}; Holm over {len(family)}")
    return {key: adjusted[key] for key in family}


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]


def _column(first: Any, second: Any) -> np.ndarray:
    """First minus second as float64, (documents,), checked."""
    import numpy as np

    if len(first) != len(second) or not len(first):
        raise SignificanceError(f"{len(first)} documents of one system beside {len(second)} of the other.")
    change = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if change.ndim != 1:
        raise SignificanceError(
            "a document has several scores. Give one for each, or take `mean_over_runs` of the runs."
        )
    if not np.isfinite(change).all():
        raise SignificanceError(f"{int((~np.isfinite(change)).sum())} of {len(change)} scores are no finite numbers.")
    return change
