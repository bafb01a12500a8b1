"""The figures under a sweep's pictures: columns, differences and axes, without any picture."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from lm_eval_iberian.benchmarks.table import benchmarks, of_column
from lm_eval_iberian.commands.main import cli
from lm_eval_iberian.compare.columns import Column, Scores, others
from lm_eval_iberian.compare.differences import Verdicts, _compared, _draws, prompted_otherwise, verdicts
from lm_eval_iberian.compare.shape import number, shared_parents
from lm_eval_iberian.compare.tables import score_csv
from lm_eval_iberian.identity.prompting import Prompt
from lm_eval_iberian.runs.run import SweepPoint, read_sweep_run
from lm_eval_iberian.runs.store import FILE, Document, Store
from lm_eval_iberian.scores.significance import mean_draws
from lm_eval_iberian.scores.suite import Score
from tests.lm_eval_iberian.sweep_maker import MadePoint, write_run


def measured(task: str, scores: dict[str, float], **result: Any) -> Any:
    """As much of a run as columns need: one task, measured once."""
    point = SimpleNamespace(scores=lambda _: {name: [value] for name, value in scores.items()}, results=[result])
    return SimpleNamespace(tasks=[task], points=[point])


@pytest.mark.parametrize(
    ("scores", "metric", "percent"),
    [
        ({"acc": 0.5, "f1": 0.4}, "acc", 1.0),
        ({"bleu": 0.6}, "bleu", 100.0),
        ({"chrf": 0.8}, "chrf", 100.0),
        ({"chrf": 40.0}, "chrf", 100.0),
        ({"points": 37.0}, "points", 100.0),
        ({"word_perplexity": 12.0, "bits_per_byte": 0.8, "ter": 60.0, "exact_match": 0.3}, "exact_match", 1.0),
    ],
)
def test_a_task_that_no_table_knows_is_read_by_its_first_metric_for_which_more_is_better(
    scores: dict[str, float], metric: str, percent: float
) -> None:
    (found,) = others(measured("some_task_gl_multi", scores))
    assert (found.metric, found.percent, found.language, found.chance) == (metric, percent, "gl", 0.0)


def test_what_lm_eval_says_of_a_metric_goes_before_what_its_name_says() -> None:
    said = {"higher_is_better": {"t": {"ter": True, "acc": False}}}
    (found,) = others(measured("t", {"acc": 0.5, "ter": 60.0}, **said))
    assert found.metric == "ter"


@pytest.mark.parametrize("language", ["eu", "gl", "ca", "es", "en"])
def test_a_column_of_the_suite_holds_what_the_average_holds(language: str) -> None:
    tasks = [task for one in benchmarks() for task in one.tasks]
    columns = Scores(SimpleNamespace(tasks=tasks, points=[])).columns  # type: ignore[arg-type]
    (found,) = [one for one in columns if one.key == f"bench_{language}"]
    assert (list(found.benchmarks), found.left_out) == (of_column(f"bench_{language}"), ())


def test_scores_in_percent(tmp_path: Path) -> None:
    points = [MadePoint("a", "parent"), MadePoint("m", labels={"w": "1"}, parents=("a",))]
    folder = write_run(tmp_path, "x", {"w": ["1"]}, points, ["t_eu", "u_translation_en-eu"], lambda *_: 0.5)
    run = read_sweep_run(folder)
    rows = {row["point"]: row for row in csv.DictReader(io.StringIO(score_csv(Scores(run))))}
    for point in run.points:
        scores = point.results[0]["results"]
        assert float(rows[point.name]["acc_eu"]) == pytest.approx(100 * scores["t_eu"]["acc,none"], abs=1e-4)
        assert float(rows[point.name]["bleu_eu"]) == pytest.approx(scores["u_translation_en-eu"]["bleu,none"], abs=1e-4)
    assert [rows[name]["w"] for name in ("a", "m")] == ["", "1"]


COLUMN = Column("acc", "eu", ())


def compared(ours: Score, theirs: Score, draws: Any = "none") -> Any:
    return _compared(("merge", ours), ("parent", theirs), "what", COLUMN, None, draws)


def test_a_difference_is_the_merge_minus_the_parent() -> None:
    ours, theirs = Score(60.0, None, None, 1, 0.0), Score(40.0, None, None, 1, 0.0)
    right, wrong = [1.0] * 6 + [0.0] * 4, [1.0] * 4 + [0.0] * 6
    found = compared(ours, theirs, mean_draws(right, wrong).times(100))
    assert found.value == pytest.approx(20.0) and found.test is not None and found.test.value == pytest.approx(20.0)
    turned = compared(ours, theirs, mean_draws(wrong, right).times(100))
    assert turned.test is None and "-20.000: scores and documents do not agree" in turned.reason


def test_a_difference_is_whole_where_both_scores_are() -> None:
    whole, part = Score(60.0, None, None, 1, 0.0), Score(40.0, None, None, 1, 0.0, problems=("limited",))
    assert [compared(*pair).whole for pair in ((whole, whole), (whole, part), (part, whole))] == [True, False, False]
    assert (compared(whole, whole).signs, compared(whole, part).signs) == ("", "†")


def test_scores_of_other_prompts_are_told() -> None:
    plain, chat = (Score(60.0, None, None, 1, 0.0, prompts=(Prompt(template),)) for template in (None, "ab"))
    assert prompted_otherwise(plain, chat) and not prompted_otherwise(chat, chat)
    assert (compared(plain, chat).signs, compared(chat, chat).signs) == ("§", "")


def test_documents_stand_in_the_order_of_their_numbers() -> None:
    found = verdicts({2: [{"acc": 1.0}], 0: [{"acc": 0.0}], 10: [{"acc": 0.5}]}, "acc")
    assert (found.documents, found.data) == ((0, 2, 10), [0.0, 1.0, 0.5])


def test_bleu_tells_the_answer_from_the_reference() -> None:
    """lm_eval writes (reference, answer); sacreBLEU's statistics begin with the answer's length."""
    found = verdicts({0: [{"bleu": ["bat bi hiru lau bost", "bat bi hiru"]}]}, "bleu")
    assert found.kind == "bleu" and found.data[0][0][:2].tolist() == [3, 5]


def test_documents_are_paired() -> None:
    """A and B are right on other documents: without pairs the difference would never vary."""
    first, second = [1.0, 0.0] * 10, [0.0, 1.0] * 10
    sides = [Verdicts("mean", tuple(range(20)), side) for side in (first, second)]
    found = _draws(*sides, "t", "acc")
    assert found.samples.std() > 0.1
    assert found.samples.tolist() == mean_draws(first, second, stream="t").samples.tolist()


@pytest.mark.parametrize(
    ("task", "stream"),
    [
        ("iberian_flores_es-eu", "flores, 2 documents"), ("iberian_flores_en-gl", "flores, 2 documents"),
        ("toy_mt_es-eu", "toy_mt, 2 documents"), ("some_translation", "some_translation"),
    ],
)  # fmt: skip
def test_directions_of_one_set_of_sentences_share_their_stream(task: str, stream: str) -> None:
    sides = [verdicts({n: [{"bleu": ["bat bi hiru lau", text]}] for n in (0, 1)}, "bleu") for text in ("bat bi", "lau")]
    assert set(_draws(*sides, task, "bleu").streams) == {stream}


@pytest.mark.parametrize(
    ("label", "value"), [("0.5", 0.5), ("-1", -1.0), ("inf", None), ("nan", None), ("linear", None)]
)
def test_labels_that_are_numbers(label: str, value: float | None) -> None:
    assert number(label) == value


def test_parents_of_every_merge() -> None:
    points = [SweepPoint(name, "merge", {"w": name}, parents, "", "", "") for name, parents in (
        ("1", ("base", "eu")), ("2", ("base", "gl")))]  # fmt: skip
    assert shared_parents(points) == {"base"} and shared_parents([]) == set()


def test_an_export_is_json_that_every_reader_takes(tmp_path: Path) -> None:
    """A stderr that lm_eval could not compute, and a log-likelihood that is none, were NaN, which JSON does not know."""
    points = [MadePoint("a", "parent")]
    folder = write_run(tmp_path / "run", "x", {}, points, ["t_eu"], lambda *_: 0.5, 4)
    store = Store(folder / FILE)
    result = store.results("key of a")
    assert result is not None
    result["results"]["t_eu"]["acc_stderr,none"] = float("nan")
    rows = [Document("t_eu", 0, json.dumps({"acc": 1.0, "log": [float("-inf")]}), "0", "h", "{}", "")]
    store.finish("key of a", "a", result, {}, 1.0, rows)
    store.close()
    done = CliRunner().invoke(cli, ["sweep-export", str(folder)])
    assert done.exit_code == 0, done.output

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = {name: [json.loads(line, parse_constant=refuse) for line in (folder / "export" / name).read_text().splitlines()]
             for name in ("scores.jsonl", "documents.jsonl")}  # fmt: skip
    assert found["documents.jsonl"][0]["metrics"] == {"acc": 1.0, "log": [None]}
    assert {row["metric"]: row["value"] for row in found["scores.jsonl"]}["acc_stderr"] is None
