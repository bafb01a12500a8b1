"""Differences of corpus metrics, which are no mean over documents: BLEU, Matthews' correlation, F1.

Each is a function of sums over documents (n-gram counts; a confusion table), so a resample needs the sums alone.

    ours, theirs = bleu_statistics(a, references), bleu_statistics(b, references)
    bleu_draws(ours, theirs, stream="flores").difference()       # BLEU points

BLEU's counts and its formula are sacreBLEU's, by its public calls, and with its seed and 1,000 resamples the resampled
scores are those of `sacrebleu --paired-bs`. The p is not: sacreBLEU's subtracts the mean of the *absolute* differences
from the absolute differences, which makes a one-sided test of it (sacrebleu 2.6.0, significance.py, `_paired_bs_test`).
Two systems that are equally good differ with p < 0.05 in some 10 of 100 test sets there (`sacrebleu_p` gives that p;
tests/lm_eval_iberian/test_significance_corpus.py measures both).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from lm_eval_iberian.scores.resampling import RESAMPLES, SEED, Draws, SignificanceError, draw

if TYPE_CHECKING:
    import numpy as np

ORDER = 4  # BLEU's longest n-gram


def bleu_statistics(hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """What BLEU needs of each document, int64, (documents, 10): sacreBLEU with all its defaults, as lm_eval scores.

    Columns: length of the answer, of the reference, 4 counts of matching n-grams, 4 of all.

    Raises:
        SignificanceError: not one reference for each answer.
    """
    import numpy as np
    from sacrebleu.metrics.bleu import BLEU

    if len(hypotheses) != len(references) or not len(references):
        raise SignificanceError(f"{len(hypotheses)} translations beside {len(references)} references.")
    metric = BLEU()
    scores = (metric.corpus_score([ours], [[theirs]]) for ours, theirs in zip(hypotheses, references, strict=True))
    return np.array([[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in scores], dtype=np.int64)


def bleu_draws(
    first: np.ndarray, second: np.ndarray, *, stream: str = "", resamples: int = RESAMPLES, seed: int = SEED
) -> Draws:
    """The difference in BLEU points over the same documents.

    Directions with the same sentences (FLORES) share a stream, and then the sentences that are drawn.

    Args:
        first, second: of `bleu_statistics`, documents in the same order; `align` gives one that a stream can share.
    """
    import numpy as np

    if first.shape != second.shape or not np.array_equal(first[:, 1], second[:, 1]):
        raise SignificanceError("the two systems were not measured on the same references.")
    width, differing = first.shape[1], int((first != second).any(axis=1).sum())

    def score(sums: np.ndarray) -> np.ndarray:
        return _bleu(sums[:, :width]) - _bleu(sums[:, width:])

    both = np.concatenate([first, second], axis=1).astype(np.float64)
    return draw(both, score, differing, stream, resamples, seed, "paired bootstrap of BLEU", together=True)


def _bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU of each row of summed statistics, by sacreBLEU's own formula with its default smoothing."""
    import numpy as np
    from sacrebleu.metrics.bleu import BLEU

    rows = sums.astype(int).tolist()
    scores = (BLEU.compute_bleu(row[2 : 2 + ORDER], row[2 + ORDER :], row[0], row[1], "exp") for row in rows)
    return np.array([one.score for one in scores])


def sacrebleu_p(found: Draws) -> float:
    """The p that `sacrebleu --paired-bs` prints for these draws, one-sided in effect: see the top of this file."""
    import numpy as np

    distances = np.abs(found.samples)
    beyond = int((distances - distances.mean() > abs(found.value)).sum())
    return (beyond + 1) / (len(distances) + 1)


def confusion_draws(
    gold: Sequence[Hashable],
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    metric: str,
    *,
    stream: str = "",
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Draws:
    """The difference of a metric of right and predicted labels.

    Args:
        gold, first, second: labels of the documents: right ones, and those of each system.
        metric: "mcc", "f1" (of label 1 among 0 and 1) or "macro_f1" (mean over labels), as sklearn defines them:
            0 where a resample leaves them undefined.
    """
    import numpy as np

    if not len(gold) == len(first) == len(second) or not len(gold):
        raise SignificanceError(f"{len(gold)} right labels beside {len(first)} and {len(second)} predicted ones.")
    labels = {label: index for index, label in enumerate(sorted({*gold, *first, *second}, key=repr))}
    known = {"mcc": _matthews, "f1": _f1, "macro_f1": _macro_f1}
    if metric not in known:
        raise SignificanceError(f"{metric}: no metric of labels. There are {', '.join(known)}.")
    if metric == "f1" and not labels.keys() <= {0, 1}:
        raise SignificanceError("f1 is of label 1 among 0 and 1; for other labels there is macro_f1.")
    if metric == "f1":
        labels = {0: 0, 1: 1}
    count = len(labels)
    right, ours, theirs = (np.array([labels[label] for label in side]) for side in (gold, first, second))
    cells = np.eye(count * count)
    both = np.concatenate([cells[right * count + ours], cells[right * count + theirs]], axis=1)
    compute = known[metric]

    def score(sums: np.ndarray) -> np.ndarray:
        tables = sums.reshape(-1, 2, count, count)
        return compute(tables[:, 0]) - compute(tables[:, 1])

    return draw(both, score, int((ours != theirs).sum()), stream, resamples, seed, f"paired bootstrap of {metric}")


def _matthews(tables: np.ndarray) -> np.ndarray:
    """Matthews' correlation for any number of labels (Gorodkin 2004) of (n, right, predicted) tables."""
    import numpy as np

    right, predicted = tables.sum(axis=2), tables.sum(axis=1)
    total, hits = right.sum(axis=1), np.trace(tables, axis1=1, axis2=2)
    above = hits * total - (right * predicted).sum(axis=1)
    square = (total**2 - (right**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
    return np.divide(above, np.sqrt(square), out=np.zeros(len(tables)), where=square > 0)


def _each_f1(tables: np.ndarray) -> np.ndarray:
    """(n, labels): F1 of each label; 0 for one that neither occurs nor is predicted."""
    import numpy as np

    hits, all_of_them = np.diagonal(tables, axis1=1, axis2=2), tables.sum(axis=2) + tables.sum(axis=1)
    return np.divide(2 * hits, all_of_them, out=np.zeros(hits.shape), where=all_of_them > 0)


def _f1(tables: np.ndarray) -> np.ndarray:
    return _each_f1(tables)[:, 1]


def _macro_f1(tables: np.ndarray) -> np.ndarray:
    """Mean over the labels that a resample holds, as sklearn, which knows no others."""
    import numpy as np

    there = (tables.sum(axis=2) + tables.sum(axis=1)) > 0
    return (_each_f1(tables) * there).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
