"""Paired tests against scipy, exact enumeration, and the false positives they may make."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from lm_eval_iberian.scores import significance as sig
from tests.conftest import ROOT

NUMBERS = st.floats(-100, 100).map(lambda number: round(number, 3))
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=40)


def scores(documents: int, seed: int = 0) -> tuple[list[float], list[float]]:
    """Two correlated systems with real-valued scores."""
    random = np.random.default_rng(seed)
    first = random.random(documents)
    return first.tolist(), (0.8 * first + 0.2 * random.random(documents) - 0.01).tolist()


def test_the_interval_is_scipys() -> None:
    """Documents drawn one by one, and kinds of documents drawn as a multinomial: both are scipy's interval."""
    random = np.random.default_rng(1)
    real = scores(300)
    right = (random.random(300) < 0.6).astype(float), (random.random(300) < 0.5).astype(float)
    for first, second in (real, right):
        golden = stats.bootstrap(
            (np.asarray(first) - np.asarray(second),), np.mean, n_resamples=20_000, method="percentile", rng=2
        ).confidence_interval
        found = sig.paired_bootstrap(first, second, resamples=20_000)
        width = golden.high - golden.low
        assert found.value == pytest.approx(np.mean(first) - np.mean(second))
        assert found.low == pytest.approx(golden.low, abs=0.03 * width)
        assert found.high == pytest.approx(golden.high, abs=0.03 * width)


def test_p_belongs_to_the_interval() -> None:
    """Where the interval at 1 - p touches 0: that is what p means here. And it is near the t test's."""
    luck = np.random.default_rng(3).normal(size=400)
    first, second = luck - luck.mean() + 1.7 * stats.sem(luck), np.zeros(400)  # t is 1.7, so p some 0.09
    draws = sig.mean_draws(first, second)
    p = draws.difference().p
    edges = draws.difference(confidence=1 - p)
    assert min(abs(edges.low), abs(edges.high)) < 0.01 * (edges.high - edges.low)
    assert p == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=0.02)


@given(PAIRS)
@settings(max_examples=50)
def test_two_systems_change_places(pairs: list[tuple[float, float]]) -> None:
    first, second = map(list, zip(*pairs, strict=True))
    there = sig.paired_bootstrap(first, second, resamples=500)
    back = sig.paired_bootstrap(second, first, resamples=500)
    assert there.value == pytest.approx(-back.value)
    assert there.low <= there.high and 0 < there.p <= 1
    if 8 * len(np.unique(np.subtract(first, second))) >= len(pairs):  # drawn one by one: the same documents
        assert (there.low, there.p) == (pytest.approx(-back.high), pytest.approx(back.p))


def test_resamples_without_a_difference_speak_for_none() -> None:
    """Resamples with as many wins as losses are against either side: p by how often wins do not outnumber losses."""
    first, second = [1.0] * 14 + [0.0] * 86, [0.0] * 14 + [1.0] * 6 + [0.0] * 80
    wins, losses, _ = np.random.default_rng(1).multinomial(100, [0.14, 0.06, 0.8], size=200_000).T
    found = sig.paired_bootstrap(first, second, resamples=20_000)
    assert found.p == pytest.approx(2 * (wins <= losses).mean(), abs=0.01)
    assert 2 * (wins == losses).mean() > 0.03  # else they would not show


@given(PAIRS)
@settings(max_examples=50)
def test_a_system_does_not_differ_from_itself(pairs: list[tuple[float, float]]) -> None:
    first = [one for one, _ in pairs]
    found = sig.paired_bootstrap(first, first, resamples=200)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


@given(st.integers(1, 5))
def test_few_documents_prove_nothing(documents: int) -> None:
    """All documents favour A, so every resample does; no exact test of five pairs goes below 1/16 either."""
    found = sig.paired_bootstrap([1.0] * documents, [0.0] * documents)
    assert found.p == 2.0 ** (1 - documents)
    assert not found.significant()


@given(st.lists(st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1)]), min_size=1, max_size=10))
@settings(max_examples=40)
def test_sign_test_by_enumeration(pairs: list[tuple[int, int]]) -> None:
    """The exact p: of all ways to toss a coin for each document that differs, how many are as far from even."""
    first, second = map(list, zip(*pairs, strict=True))
    differing = [a - b for a, b in pairs if a != b]
    tosses = [abs(sum(toss)) for toss in product((-1, 1), repeat=len(differing))]
    golden = sum(toss >= abs(sum(differing)) for toss in tosses) / len(tosses)
    assert sig.sign_test(first, second, resamples=100).p == pytest.approx(golden)


def test_p_is_never_0() -> None:
    """100 of 100 documents favour A: no resample of 999 says otherwise, so p is 2 / 1000 and not less."""
    found = sig.paired_bootstrap([1.0] * 100, [0.0] * 100, resamples=999)
    assert found.p == pytest.approx(2 / 1000) and found.significant()
    assert not replace(found, p=0.05).significant() and replace(found, p=0.05).significant(level=0.06)


def test_which_documents_are_drawn() -> None:
    """Resamples are means over documents drawn by numpy's generator, seeded by the seed and the stream's name."""
    first, second = scores(30)
    changes = np.subtract(first, second)
    for stream, seed in (("", 3), ("eu", 3), ("eu", 4)):
        generator = np.random.default_rng([seed, *stream.encode()] if stream else seed)
        golden = [changes[drawn].mean() for drawn in generator.integers(0, 30, size=(20, 30))]
        found = sig.mean_draws(first, second, stream=stream, resamples=20, seed=seed)
        assert found.samples == pytest.approx(golden)


def test_sign_test_wants_right_or_wrong() -> None:
    with pytest.raises(sig.SignificanceError, match="0 and 1"):
        sig.sign_test([0.5, 1.0], [0.0, 1.0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["real", "right or wrong", "prompts with instructions", "average of two"])
def test_false_positives(kind: str) -> None:
    """Equal systems differ with p < 0.05 about 5 times in 100. 800 trials: 5 % gives 21 to 61 with all but 1 in 1000."""
    random = np.random.default_rng(7)
    count = sum(null_p(kind, random, trial) < 0.05 for trial in range(800))
    assert 21 <= count <= 61


def null_p(kind: str, random: np.random.Generator, trial: int) -> float:
    """p of one trial with two systems that are equally good."""
    documents, arguments = 150, {"resamples": 400, "seed": trial}
    if kind == "prompts with instructions":
        asked = random.integers(1, 4, documents)
        sides = [
            [(float(random.binomial(n, 0.2 + 0.6 * luck)), float(n)) for n, luck in zip(asked, lucks, strict=True)]
            for lucks in random.random((2, documents))
        ]
        return sig.ratio_draws(*sides, **arguments).difference().p
    if kind == "average of two":
        draws = [sig.mean_draws(*random.random((2, size)), stream=f"{size}", **arguments) for size in (documents, 60)]
        return sig.average(draws).difference().p
    both = random.random((2, documents))
    return sig.paired_bootstrap(*(both if kind == "real" else (both < 0.6).astype(float)), **arguments).p


def test_instructions_of_a_prompt_stay_together() -> None:
    """Ten instructions that stand and fall together are one observation: the interval is that of 40 prompts."""
    random = np.random.default_rng(5)
    right = random.integers(0, 2, (2, 40)).astype(float)
    prompts = [[(10 * one, 10.0) for one in side] for side in right]
    whole, single = sig.ratio_draws(*prompts).difference(), sig.paired_bootstrap(*right)
    assert whole.value == pytest.approx(single.value)
    assert whole.high - whole.low == pytest.approx(single.high - single.low, rel=0.05)


def test_ratio_is_over_instructions() -> None:
    """A prompt with three instructions counts three times, as IFEval counts."""
    first, second = [(3.0, 3.0), (0.0, 1.0)], [(0.0, 3.0), (1.0, 1.0)]
    assert sig.ratio_draws(first, second).value == pytest.approx(3 / 4 - 1 / 4)
    with pytest.raises(sig.SignificanceError, match="same number of instructions"):
        sig.ratio_draws(first, [(0.0, 2.0), (1.0, 1.0)])


def test_average_is_the_mean_of_means() -> None:
    """The spread of a mean of independent benchmarks: variances add (scipy's on each)."""
    sizes = (400, 100, 50)
    sides = [scores(size, seed=size) for size in sizes]
    draws = [sig.mean_draws(*side, stream=str(size)) for side, size in zip(sides, sizes, strict=True)]
    whole = sig.average(draws).times(100)
    assert whole.value == pytest.approx(100 * np.mean([np.mean(a) - np.mean(b) for a, b in sides]))
    errors = [stats.sem(np.subtract(*side)) for side in sides]
    assert whole.samples.std() == pytest.approx(100 * np.linalg.norm(errors) / 3, rel=0.04)
    assert whole.documents == 550


def test_average_refuses_draws_that_agree() -> None:
    """Two benchmarks of one size would be drawn alike without names, and their luck would add up."""
    one, other = (sig.mean_draws(*scores(50, seed)) for seed in (0, 1))
    with pytest.raises(sig.SignificanceError, match="stream="):
        sig.average([one, other])
    for sizes in ((50, 60), (50, 50)):
        named = [sig.mean_draws(*scores(size), stream="same") for size in sizes]
        with pytest.raises(sig.SignificanceError, match=f"not drawn together .*{sizes[1]} documents"):
            sig.average(named)
    with pytest.raises(sig.SignificanceError, match="resamples"):
        sig.average([sig.mean_draws(*scores(50), stream=f"{n}", resamples=n) for n in (100, 200)])


def test_streams_are_independent() -> None:
    draws = [sig.mean_draws(*scores(50), stream=name).samples for name in ("belebele_eu", "belebele_gl")]
    assert abs(np.corrcoef(*draws)[0, 1]) < 0.05


@given(st.dictionaries(st.one_of(st.integers(), st.text(max_size=3)), NUMBERS, min_size=1), st.randoms())
def test_align_does_not_depend_on_order(values: dict[object, float], random: object) -> None:
    """A run that was stopped and went on holds the same documents in another order, and must give the same bytes."""
    keys = list(values)
    random.shuffle(keys)  # type: ignore[attr-defined]
    shuffled = {key: values[key] for key in keys}
    assert sig.align(values, values) == sig.align(shuffled, values) == sig.align(values, shuffled)


def test_align_counts_what_is_missing() -> None:
    with pytest.raises(sig.SignificanceError, match=r"1 of 3 are missing from the first and 0 of 2 .*\(e\.g\. 'c'\)"):
        sig.align({"a": 1.0, "b": 1.0}, {"b": 1.0, "a": 0.0, "c": 1.0})


def test_mean_over_runs() -> None:
    runs = [{1: 0.0, 2: 1.0}, {2: 1.0, 1: 1.0}, {1: 0.5, 2: 1.0}]
    assert sig.mean_over_runs(runs) == {1: 0.5, 2: 1.0}
    with pytest.raises(sig.SignificanceError, match="same documents"):
        sig.mean_over_runs([{1: 0.0}, {2: 0.0}])


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 2.0]), ([float("nan")], [1.0])])
def test_what_cannot_be_compared(first: list[float], second: list[float]) -> None:
    with pytest.raises(sig.SignificanceError):
        sig.paired_bootstrap(first, second)


def test_what_no_test_can_be_made_with_is_said() -> None:
    """Each was a traceback of numpy's, or an interval of nothing."""
    for resamples in (0, -1):
        with pytest.raises(sig.SignificanceError, match=f"{resamples} resamples: an interval wants 10,000"):
            sig.paired_bootstrap([1.0, 0.0], [0.0, 1.0], resamples=resamples)
    with pytest.raises(sig.SignificanceError, match="confidence is 95: it is a share"):
        sig.mean_draws([1.0, 0.0], [0.0, 1.0]).difference(95)
    with pytest.raises(sig.SignificanceError, match="a document has several scores"):
        sig.mean_draws([[1.0, 0.0]], [[0.0, 1.0]])  # type: ignore[list-item]


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=8))
@example([0.01, 0.04])
def test_holm_by_its_definition(values: list[float]) -> None:
    """Against the step-down procedure itself: at each level, walk up the sorted p until one is too large."""
    family = {index: sig.Difference(0, 0, 0, p, 1, "") for index, p in enumerate(values)}
    adjusted = sig.holm(family)
    for level in (0.01, 0.05, 0.3):
        rejected: set[int] = set()
        for rank, index in enumerate(sorted(family, key=lambda index: values[index])):
            if values[index] * (len(values) - rank) > level:
                break
            rejected.add(index)
        assert {index for index, found in adjusted.items() if found.p <= level} == rejected


def test_ten_thousand_resamples_are_quick() -> None:
    """2,000 documents: a tenth of a second or so on an idle core; the bound leaves room for a busy machine."""
    first, second = scores(2_000)
    sig.paired_bootstrap(first, second, resamples=10)
    start = time.process_time()
    sig.paired_bootstrap(first, second)
    assert time.process_time() - start < 2


def test_the_example_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "lm_eval_iberian" / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", text.partition("## Is a difference real?")[2], re.S | re.M)
    exec(compile(example, "README.md", "exec"), {})
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("+0.167 [") and first.endswith("True")
    assert float(second) < 0.01 and "mean of 2" in third
