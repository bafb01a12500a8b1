"""The table of benchmarks, figure by figure, against what the papers print and what documents say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lm_eval_iberian.benchmarks.benchmark import CHOICE, INSTRUCTIONS, KINDS, TRANSLATION, Benchmark, shown_of
from lm_eval_iberian.benchmarks.table import benchmarks, columns, full_score_of, of_column

# Latxa (arXiv 2403.20266), table 3, for the Basque sets; one in so many options for all others.
CHANCE = {
    "Belebele": 25.0, "XStoryCloze": 50.0, "EusReading": 25.83, "EusProficiency": 25.0, "BertaQA": 100 / 3,
    "EusTrivia": 26.55, "EusExams": 25.0, "GalCoLA": 50.0, "CatCoLA": 50.0, "EsCoLA": 50.0, "CoLA": 50.0,
    "OpenBookQA": 25.0, "Parafrases": 50.0, "mCSQA": 20.0,
}  # fmt: skip


def of_kind(kind: str) -> list[Benchmark]:
    """Those that tasks of ours measure."""
    return [benchmark for benchmark in benchmarks() if benchmark.kind == kind and benchmark.tasks]


def test_chance() -> None:
    assert {(one.name, one.chance) for one in of_kind(CHOICE)} == set(CHANCE.items())
    assert {one.chance for one in (*of_kind(TRANSLATION), *of_kind(INSTRUCTIONS))} == {0.0}


def test_the_chance_of_eustrivia_is_that_of_its_documents(shared: Path) -> None:
    with (shared / "data" / "hitz" / "eus_trivia.jsonl").open(encoding="utf-8") as lines:
        options = [len(json.loads(line)["candidates"]) for line in lines]
    assert 100 * sum(1 / number for number in options) / len(options) == pytest.approx(CHANCE["EusTrivia"], abs=0.005)


def test_shots() -> None:
    """Five, says the paper; its authors' scripts run XStoryCloze without, and IFEval has none."""
    for kind in (CHOICE, TRANSLATION, INSTRUCTIONS):
        for one in of_kind(kind):
            none = one.name in ("XStoryCloze", "mCSQA")
            assert one.shots == (None if kind == INSTRUCTIONS else 0 if none else 5), one.title


def test_metrics_and_their_full_scores() -> None:
    assert {(one.metric, one.percent) for one in of_kind(CHOICE)} == {("acc", 1.0)}
    assert {(one.metric, one.percent) for one in of_kind(TRANSLATION)} == {("bleu", 100.0)}
    assert {(one.metric, one.percent) for one in of_kind(INSTRUCTIONS)} == {("inst_level_strict_acc", 1.0)}


@pytest.mark.parametrize(("task", "metric", "highest", "shown", "added"), [
    ("squadv2", "f1", 75.3, 100.0, 100.0), ("squadv2", "f1", 0.7, 100.0, 100.0), ("squadv2", "HasAns_exact", 0.5, 100.0, 100.0),
    ("scrolls_qasper", "f1", 0.4, 100.0, 100.0), ("scrolls_quality", "em,none", 40.0, 100.0, 100.0),
    ("scrolls_quality", "acc", 0.4, 1.0, 1.0), ("scrolls_govreport", "rougeL", 0.9, 100.0, 100.0),
    ("meqsum", "bleu", 0.03, 1.0, 1.0), ("wmt16-ro-en", "bleu", 0.03, 100.0, 100.0), ("x", "chrf++", 0.8, 100.0, 100.0),
    ("truthfulqa_gen", "rouge1_max", 0.9, 100.0, 100.0), ("truthfulqa_gen", "bleu_acc", 0.4, 1.0, 1.0),
    ("drop", "f1", 0.4, 1.0, 1.0), ("coqa", "em,none", 0.4, 1.0, 1.0), ("x", "words", 12.0, 100.0, 100.0),
    ("x", "rougeL", 0.4, 1.0, 100.0),
])  # fmt: skip
def test_a_metric_has_the_scale_of_its_task(task: str, metric: str, highest: float, shown: float, added: float) -> None:
    """In tables, and in weighted sums: SQuAD 2's f1 is in percent, and 75.3 was added as 7530; 0.7 was shown as 70."""
    assert (shown_of(task, metric, highest), full_score_of(task, metric)) == (shown, added)


@pytest.mark.parametrize(
    ("column", "names"),
    [
        ("bench_eu", "Belebele XStoryCloze EusReading EusProficiency BertaQA EusTrivia EusExams"),
        ("bench_gl", "Belebele XStoryCloze GalCoLA OpenBookQA Parafrases"),
        ("bench_ca", "Belebele XStoryCloze CatCoLA OpenBookQA"),
        ("bench_es", "Belebele XStoryCloze EsCoLA OpenBookQA"),
        ("bench_en", "Belebele XStoryCloze"),
        ("mt_eu", "es-eu en-eu"),
        ("mt_gl", "es-gl en-gl"),
        ("mt_ca", "es-ca en-ca"),
        ("mt_es", "eu-es gl-es ca-es en-es"),
        ("mt_en", "eu-en gl-en ca-en es-en"),
        *((f"ifeval_{language}", "IFEval") for language in ("eu", "gl", "ca", "es")),
    ],
)
def test_what_the_paper_counts(column: str, names: str) -> None:
    assert [one.name for one in of_column(column)] == names.split()


def test_columns_stand_in_the_order_of_the_papers_tables() -> None:
    assert columns(CHOICE) == ["bench_eu", "bench_gl", "bench_ca", "bench_es", "bench_en", "bench_pt"]
    assert columns(INSTRUCTIONS) == ["ifeval_eu", "ifeval_gl", "ifeval_ca", "ifeval_es"]


@pytest.mark.parametrize(("name", "tasks"), [("EusExams", {"eu": 29, "es": 33}), ("BertaQA", {"eu": 2, "en": 2})])
def test_exams_and_halves_are_one_benchmark_of_several_tasks(name: str, tasks: dict[str, int]) -> None:
    assert {one.language: len(set(one.tasks)) for one in benchmarks() if one.name == name} == tasks


def test_no_task_counts_twice() -> None:
    tasks = [task for one in benchmarks() for task in one.tasks]
    assert len(tasks) == len(set(tasks))
    assert {one.kind for one in benchmarks()} == set(KINDS)
