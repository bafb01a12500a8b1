"""Our requests against lm_eval's own, byte for byte, from the same documents."""

from __future__ import annotations

import functools
from itertools import permutations
from typing import Any

import datasets
import pytest
from lm_eval.api.registry import get_aggregation

from lm_eval_iberian.benchmarks.benchmark import CHOICE
from lm_eval_iberian.benchmarks.benchmark import PAIRS as MINIMAL_PAIRS
from lm_eval_iberian.benchmarks.table import benchmarks
from lm_eval_iberian.documents import loader as documents
from lm_eval_iberian.errors import TaskCodeError
from tests.conftest import first_ones
from tests.tasks.common import build, from_samples, manager, requests

DIFFERENT = {
    "BertaQA": "two halves", "EusExams": "62 exams, two of them are compared",
    "mCSQA": "lm_eval has none: test_companion", "BLiMP": "67 sets of pairs, two are compared",
}  # fmt: skip
PAIRS = [
    (ours, upstream)
    for benchmark in benchmarks()
    if benchmark.kind in (CHOICE, MINIMAL_PAIRS) and benchmark.tasks and benchmark.name not in DIFFERENT
    for ours, upstream in zip(benchmark.tasks, benchmark.upstream, strict=True)
] + [
    ("iberian_eus_exams_eu_osakidetza5e", "eus_exams_eu_osakidetza5e"),
    ("iberian_eus_exams_es_ejtecnico", "eus_exams_es_ejtecnico"),
    ("iberian_blimp_english_adjunct_island", "blimp_adjunct_island"),
    ("iberian_blimp_english_wh_island", "blimp_wh_island"),
]
BENCHES = {"eu": "basque", "gl": "galician", "ca": "catalan", "pt": "portuguese", "es": "spanish"}


@pytest.fixture(autouse=True)
def _lm_eval_reads_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", from_samples)


def build_upstreams(name: str) -> Any:
    """lm_eval's own task, where it loads: lm_eval 0.4.13 imports what transformers 5.24 no longer has."""
    try:
        return build(name)
    except TaskCodeError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("ours", "upstream"), PAIRS)
def test_requests_are_upstreams(ours: str, upstream: str) -> None:
    """With the paper's shots, and without any."""
    mine, theirs = build(ours), build_upstreams(upstream)
    for shots in (5, 0):
        if "blimp" in upstream:
            shots = 0
        assert requests(mine, shots) == requests(theirs, shots)


@pytest.mark.slow
@pytest.mark.parametrize(("ours", "upstream"), [p for p in PAIRS if "belebele_eu" in p[0] or "openbookqa_ca" in p[0]])
def test_as_chat(ours: str, upstream: str) -> None:
    """Merges and instruct models: --apply_chat_template --fewshot_as_multiturn."""
    options = {"apply_chat_template": True, "fewshot_as_multiturn": True, "chat_template": as_text}
    assert requests(build(ours), 3, **options) == requests(build(upstream), 3, **options)


def as_text(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """A chat template."""
    said = "".join(f"<{message['role']}>{message['content']}" for message in messages)
    return said + "<assistant>" * add_generation_prompt


@functools.cache
def upstream_direction(direction: str) -> str:
    """The bench of lm_eval that has a direction."""
    names = [f"{bench}_bench_flores_{direction}" for language, bench in BENCHES.items() if language in direction]
    return next(name for name in names if name in manager().all_subtasks)


DIRECTIONS = {f"{one}-{other}" for one, other in permutations(("eu", "gl", "ca", "es", "en", "pt"), 2)}


@pytest.mark.parametrize(
    "direction",
    first_ones(["es-eu", "pt-gl", *sorted(DIRECTIONS - {"es-eu", "pt-gl"})]),
)
def test_flores_requests_are_upstreams(direction: str) -> None:
    mine, theirs = build(f"iberian_flores_{direction}"), build(upstream_direction(direction))
    ours, upstream = requests(mine, 5), requests(theirs, 5)
    # Ours says that decoding is greedy; upstream leaves it open, and lm_eval's vLLM then samples.
    greedy = {"do_sample": False, "temperature": 0.0}
    assert ours == [(text, settings | greedy, target) for text, settings, target in upstream]


@pytest.mark.parametrize("language", ["eu", "en"])
@pytest.mark.parametrize(("half", "group"), [("global", "Gai orokorrak"), ("local", "Euskal gaiak")])
def test_bertaqa_is_upstreams_on_half_of_the_documents(
    monkeypatch: pytest.MonkeyPatch, language: str, half: str, group: str
) -> None:
    def only_half(path: str, name: str | None = None, **options: Any) -> Any:
        found = from_samples(path, name, **options)
        return {split: data.filter(lambda row: row["group"] == group) for split, data in found.items()}

    monkeypatch.setattr(datasets, "load_dataset", only_half)
    theirs = requests(build(f"bertaqa_{language}"), 5)
    assert requests(build(f"iberian_bertaqa_{language}_{half}"), 5) == theirs


@pytest.mark.parametrize(("ours", "upstream"), PAIRS)
def test_metrics_are_upstreams(ours: str, upstream: str) -> None:
    """The same names, and the same directions of better; ours may have more."""
    mine, theirs = build(ours), build_upstreams(upstream)
    assert set(theirs.aggregation()) <= set(mine.aggregation())
    for metric, better in theirs.higher_is_better().items():
        assert mine.higher_is_better()[metric] == better


def test_accuracy_is_lm_evals_mean() -> None:
    """Also of tasks that upstream scores by another metric."""
    mean = get_aggregation("mean")
    for benchmark in benchmarks():
        if benchmark.kind in (CHOICE, MINIMAL_PAIRS) and benchmark.tasks:
            task = build(benchmark.tasks[0])
            assert task.aggregation()["acc"] is mean and task.higher_is_better()["acc"], benchmark.title


def test_matthews_is_sklearns() -> None:
    import random

    from sklearn.metrics import matthews_corrcoef

    aggregate = build("iberian_cola_en").aggregation()["mcc"]
    generator = random.Random(0)
    for size in (1, 2, 5, 50):
        items = [(generator.randint(0, 1), generator.randint(0, 1)) for _ in range(size)]
        gold, predicted = zip(*items, strict=True)
        assert aggregate(items) == pytest.approx(matthews_corrcoef(gold, predicted))


def test_documents_are_read_through_our_loader() -> None:
    """The comparison above means nothing if both read one patched function."""
    assert (
        build("iberian_belebele_eu").dataset["test"].to_list()
        == documents.load("facebook/belebele", "eus_Latn")["test"].to_list()
    )
