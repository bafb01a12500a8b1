"""BLEU against sacreBLEU's command line; Matthews and F1 against sklearn and scipy."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.significance import estimate_ci
from scipy import stats
from sklearn import metrics

from lm_eval_iberian.scores import significance as sig
from lm_eval_iberian.scores import significance_corpus as corpus

WORDS = ["etxea", "mendia", "itsasoa", "liburu", "gorria", "handia", "da", "dira", "eta", ",", "«bai»", "3,5", "ñandú"]


def translations(count: int, noise: tuple[float, ...], seed: int) -> tuple[list[str], ...]:
    """References, and for each noise a system's answers: of that share of the words each is another, or left out.

    So answers are shorter than their references, and BLEU's brevity penalty counts.
    """
    luck = random.Random(seed)
    references = [" ".join(luck.choices(WORDS, k=luck.randint(3, 25))) for _ in range(count)]

    def spoilt(text: str, share: float) -> str:
        words = (luck.choice([*WORDS, ""]) if luck.random() < share else word for word in text.split())
        return " ".join(filter(None, words))

    return references, *([spoilt(text, share) for text in references] for share in noise)


def test_numbers_of_the_command_line(tmp_path: Path) -> None:
    """`sacrebleu --paired-bs`: scores, resampled means and intervals of both systems, and its p."""
    references, first, second = translations(200, (0.3, 0.33), seed=1)
    for name, lines in (("ref", references), ("first", first), ("second", second)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "sacrebleu",
        *["ref", "-i", "first", "second", "--paired-bs", "-f", "json", "-w", "6"],
    ]
    environment = {name: value for name, value in os.environ.items() if name != "SACREBLEU_SEED"}
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    baseline, system = (entry["BLEU"] for entry in json.loads(answer.stdout))

    ours, theirs = (corpus.bleu_statistics(side, references) for side in (first, second))
    found = corpus.bleu_draws(theirs, ours, resamples=1_000)
    assert found.value == pytest.approx(system["score"] - baseline["score"], abs=2e-6)
    assert found.samples.mean() == pytest.approx(system["mean"] - baseline["mean"], abs=1e-3)
    assert corpus.sacrebleu_p(found) == pytest.approx(system["p_value"], abs=1e-6)
    # A system of nothing but wrong words has BLEU 0 in every resample, so its difference is the score itself.
    nothing = corpus.bleu_statistics(["x"] * len(references), references)
    alone = corpus.bleu_draws(theirs, nothing, resamples=1_000).samples
    assert estimate_ci(alone) == pytest.approx((system["mean"], system["ci"]), abs=1e-3)


@given(st.integers(1, 12), st.integers(0, 10_000))
@settings(max_examples=25)
def test_bleu_of_the_documents_is_corpus_bleu(count: int, seed: int) -> None:
    """Any texts, also with no match at all, as lm_eval scores them (`sacrebleu.corpus_bleu` with its defaults)."""
    references, first, second = translations(count, (0.2, 0.9), seed)
    statistics = [corpus.bleu_statistics(side, references) for side in (first, second)]
    golden = [sacrebleu.corpus_bleu(side, [references]).score for side in (first, second)]
    assert corpus.bleu_draws(*statistics, resamples=1).value == pytest.approx(golden[0] - golden[1], abs=1e-9)


def test_directions_with_the_same_sentences_are_drawn_together() -> None:
    """Two directions of one set of sentences: a resample of the average is a resample of the sentences."""
    references, *sides = translations(60, (0.3, 0.4, 0.3, 0.4), seed=2)
    a, b, c, d = (corpus.bleu_statistics(side, references) for side in sides)
    one, other = (corpus.bleu_draws(*pair, stream="flores", resamples=50) for pair in ((a, b), (c, d)))
    generator = np.random.default_rng([sig.SEED, *b"flores"])
    sentences = generator.integers(0, 60, size=(50, 60))[7]
    texts = [[side[index] for index in sentences] for side in sides]
    drawn = [references[index] for index in sentences]
    golden = [sacrebleu.corpus_bleu(side, [drawn]).score for side in texts]
    expected = (golden[0] - golden[1] + golden[2] - golden[3]) / 2
    assert sig.average([one, other]).samples[7] == pytest.approx(expected)


@pytest.mark.slow
def test_false_positives_of_bleu() -> None:
    """Two equally good systems: ours calls 5 in 100 different, sacreBLEU's p 10 (said at the top of the module).

    300 trials: 5 % is 15 ± 3.8, 10 % is 30 ± 5.2.
    """
    ours = theirs = 0
    for seed in range(300):
        references, *sides = translations(80, (0.3, 0.3), seed)
        found = corpus.bleu_draws(*(corpus.bleu_statistics(side, references) for side in sides), resamples=200)
        ours += found.difference().p < 0.05
        theirs += corpus.sacrebleu_p(found) < 0.05
    assert 5 <= ours <= 27
    assert theirs > ours + 5


def test_a_stream_is_of_one_set_of_sentences() -> None:
    """Two directions share a stream only where they have as many sentences, drawn with one seed."""
    draws = []
    for count, seed in ((20, 1), (21, 1), (20, 2), (20, 1)):
        references, *sides = translations(count, (0.3, 0.4), seed=count)
        statistics = (corpus.bleu_statistics(side, references) for side in sides)
        draws.append(corpus.bleu_draws(*statistics, stream="flores", resamples=10, seed=seed))
    for other in draws[1:3]:
        with pytest.raises(sig.SignificanceError, match="not drawn together"):
            sig.average([draws[0], other])
    assert sig.average([draws[0], draws[3]]).value == pytest.approx(draws[0].value)


def test_a_short_answer_pays_for_its_brevity() -> None:
    """Half of the words, all of them right: exp(1 - 2) of what the precisions give (Papineni 2002)."""
    reference = " ".join(WORDS[:8])
    half = " ".join(WORDS[:4])
    statistics = [corpus.bleu_statistics([text], [reference]) for text in (half, "x")]
    found = corpus.bleu_draws(*statistics, resamples=1)
    assert found.value == pytest.approx(100 * math.exp(1 - 8 / 4))


def test_bleu_of_other_references_is_refused() -> None:
    references, first, second = translations(10, (0.3, 0.3), seed=3)
    longer = [f"{text} bai" for text in references]
    with pytest.raises(sig.SignificanceError, match="same references"):
        corpus.bleu_draws(corpus.bleu_statistics(first, references), corpus.bleu_statistics(second, longer))
    with pytest.raises(sig.SignificanceError, match="9 translations beside 10"):
        corpus.bleu_statistics(first[:9], references)


LABELS = st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=1, max_size=30)
THREE = st.lists(st.tuples(*[st.sampled_from(["yes", "no", "both"])] * 3), min_size=1, max_size=30)
GOLDEN = {
    "mcc": metrics.matthews_corrcoef,
    "f1": lambda gold, said: metrics.f1_score(gold, said, zero_division=0),
    "macro_f1": lambda gold, said: metrics.f1_score(
        gold, said, labels=sorted({*gold, *said}), average="macro", zero_division=0
    ),
}


@given(LABELS, st.sampled_from(sorted(GOLDEN)))
@settings(max_examples=40)
def test_metrics_of_two_labels_are_sklearns(rows: list[tuple[int, int, int]], metric: str) -> None:
    check_metric(rows, metric)


@given(THREE, st.sampled_from(["mcc", "macro_f1"]))
@settings(max_examples=40)
def test_metrics_of_three_labels_are_sklearns(rows: list[tuple[str, str, str]], metric: str) -> None:
    check_metric(rows, metric)


def check_metric(rows: list[tuple], metric: str) -> None:
    gold, first, second = map(list, zip(*rows, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        golden = GOLDEN[metric](gold, first) - GOLDEN[metric](gold, second)
    found = corpus.confusion_draws(gold, first, second, metric, resamples=2)
    assert found.value == pytest.approx(golden, abs=1e-12)


def test_intervals_are_scipys() -> None:
    generator = np.random.default_rng(4)
    gold = generator.integers(0, 2, 200)
    first, second = (np.where(generator.random(200) < share, gold, 1 - gold) for share in (0.75, 0.65))

    def difference(gold: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
        """Matthews' correlation is Pearson's of labels of 0 and 1."""
        return np.corrcoef(gold, first)[0, 1] - np.corrcoef(gold, second)[0, 1]

    golden = stats.bootstrap(
        (gold, first, second), difference, paired=True, vectorized=False, n_resamples=2_000, method="percentile", rng=0
    ).confidence_interval
    found = corpus.confusion_draws(gold.tolist(), first.tolist(), second.tolist(), "mcc").difference()
    width = golden.high - golden.low
    assert (found.low, found.high) == pytest.approx((golden.low, golden.high), abs=0.06 * width)


def test_f1_wants_two_labels() -> None:
    with pytest.raises(sig.SignificanceError, match="macro_f1"):
        corpus.confusion_draws([0, 2], [0, 2], [0, 0], "f1")


def test_a_metric_that_is_none_of_labels_is_said() -> None:
    with pytest.raises(sig.SignificanceError, match="acc: no metric of labels"):
        corpus.confusion_draws([0, 1], [0, 1], [1, 1], "acc")
