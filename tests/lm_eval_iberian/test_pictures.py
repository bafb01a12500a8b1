"""A sweep's page, pictures and tables: the figures are the store's, texts stay texts, the same store gives the same bytes."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import itertools
import json
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import ifeval_multi
from lm_eval_iberian.benchmarks.benchmark import Benchmark
from lm_eval_iberian.commands.report import report as command
from lm_eval_iberian.compare.answers import Example, Shown, choice, examples, models, reasons
from lm_eval_iberian.compare.apart import apart
from lm_eval_iberian.compare.columns import Column, Scores
from lm_eval_iberian.compare.differences import Compared, Comparer, verdicts
from lm_eval_iberian.compare.shape import shape_of
from lm_eval_iberian.compare.tables import distinct, sweep_report
from lm_eval_iberian.pictures import style
from lm_eval_iberian.pictures.curves import rows
from lm_eval_iberian.pictures.gathered import Gathered, gather
from lm_eval_iberian.pictures.head import facts, notices
from lm_eval_iberian.pictures.heat import Heat, colour, heat_map
from lm_eval_iberian.pictures.page import Against, page
from lm_eval_iberian.pictures.slots import left_out, legend_names, line_slots, rule_names
from lm_eval_iberian.pictures.tradeoff import Dot, _with_front, tradeoffs
from lm_eval_iberian.pictures.write import write_report
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.runs.run import SweepRun, read_sweep_run
from lm_eval_iberian.runs.store import FILE, Document, Store
from lm_eval_iberian.scores.formats import write
from lm_eval_iberian.scores.significance import Difference, SignificanceError
from lm_eval_iberian.scores.suite import BELOW_CHANCE
from lm_eval_iberian.scores.tables import Report
from tests.lm_eval_iberian.sweep_maker import MadePoint, figure1_run, toy_run, write_run

FAILED = "language=gl method=linear weight=2.0"
WAITING = "language=gl method=task_arithmetic weight=2.0"
LOOPING = "language=eu method=task_arithmetic weight=2.0"


@pytest.fixture(scope="module")
def figure1(tmp_path_factory: pytest.TempPathFactory) -> SweepRun:
    """Two languages, two methods; one point failed, one is not finished, one loops."""
    folder = tmp_path_factory.mktemp("figure1")
    figure1_run(
        folder, weights=("0.5", "1.0", "2.0"), documents=12, states={FAILED: "failed", WAITING: "unfinished"},
        flags={LOOPING: {"ifeval_eu": ["75% of the answers loop"]}},
    )  # fmt: skip
    return read_sweep_run(folder)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> SweepRun:
    """Tasks that no table knows."""
    return read_sweep_run(toy_run(tmp_path_factory.mktemp("toy"), samples=True, documents=20))


@pytest.fixture(scope="module")
def reported(toy: SweepRun) -> SweepRun:
    """With the report written, which takes seconds."""
    write_report(toy.folder)
    return toy


def test_columns_of_the_suite(figure1: SweepRun) -> None:
    scores = Scores(figure1)
    assert [column.key for column in scores.columns] == [
        "bench_eu",
        "bench_gl",
        "mt_eu",
        "mt_gl",
        "ifeval_eu",
        "ifeval_gl",
    ]
    for point in scores.points:
        for column in scores.columns:
            assert scores.score(point, column) == point.model_scores.averages[column.key]
    assert not any(column.about for column in scores.columns)


def test_a_part_of_an_average_says_so(tmp_path: Path) -> None:
    tasks = ["iberian_eus_trivia", "iberian_belebele_eu"]
    run = write_run(tmp_path, "part", {}, [MadePoint("a")], tasks, lambda *_: 0.5)
    scores = Scores(read_sweep_run(run))
    (column,) = scores.columns
    (point,) = scores.points
    assert point.model_scores.averages["bench_eu"].value is None
    values = [point.results[0]["results"][task]["acc,none"] for task in tasks]
    assert scores.score(point, column).value == pytest.approx(100 * sum(values) / 2)
    assert "not the suite's average" in column.about and "EusTrivia (eu)" in column.about


@pytest.mark.slow
def test_columns_of_other_tasks(toy: SweepRun) -> None:
    scores = Scores(toy)
    assert [(column.kind, column.language) for column in scores.columns] == [
        ("acc", "eu"), ("acc", "gl"), ("bleu", "eu"), ("bleu", "gl"),
    ]  # fmt: skip
    point = toy["weight=0.5"]
    value = scores.score(point, scores.columns[2]).value
    assert value == pytest.approx(point.results[0]["results"]["toy_translation_en-eu"]["bleu,none"])


def test_where_less_is_better_nothing_is_drawn(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "x", {}, [MadePoint("a")], ["some_task_eu"], lambda *_: 0.5)
    store = Store(folder / FILE)
    results = store.results("key of a")
    results["higher_is_better"] = {"some_task_eu": {"acc": False}}
    store.finish("key of a", "a", results, {}, 1.0, [])
    store.close()
    run = read_sweep_run(folder)
    assert Scores(run).columns == []
    assert "some_task_eu: acc 0.525: in no table" in write(sweep_report(Scores(run)))
    assert write_report(folder).is_file()


def test_shape(figure1: SweepRun, toy: SweepRun) -> None:
    shape = shape_of(figure1)
    assert (shape.swept, shape.language, shape.method, shape.others) == ("weight", "language", "method", ("method",))
    assert shape.line(figure1[LOOPING]) == "task_arithmetic"
    assert not shape.belongs(figure1[LOOPING], "gl")
    assert shape_of(toy).swept == "weight" and shape_of(toy).line(toy["weight=0.5"]) == ""


def test_the_curves_show_the_scores(figure1: SweepRun) -> None:
    scores = Scores(figure1)
    found = rows(scores, shape_of(figure1))
    assert [row.title for row in found] == ["Basque", "Galician"]
    panel = found[1].panels[0]
    assert panel.column.key == "bench_gl"
    assert {line.name: [mark.x for mark in line.marks] for line in panel.lines} == {
        "linear": [0.5, 1.0], "task_arithmetic": [0.5, 1.0],
    }  # fmt: skip
    for line in panel.lines:
        for mark in line.marks:
            assert f"language=gl method={line.name} weight={mark.x}" == mark.point
            assert mark.value == scores.score(figure1[mark.point], panel.column).value
    assert {rule.name for rule in panel.rules} == {"Latxa-Llama-3.1-8B-gl", "Llama-3.1-8B-Instruct"}
    flagged = [
        mark.point
        for row in found
        for one in row.panels
        for line in one.lines
        for mark in line.marks
        if mark.sign == "‡"
    ]
    assert flagged == [LOOPING]


def test_parents_of_one_language_share_a_dash(figure1: SweepRun) -> None:
    slots = rule_names(Scores(figure1), shape_of(figure1))
    assert slots["Latxa-Llama-3.1-8B-eu"] == slots["Latxa-Llama-3.1-8B-gl"] != slots["Llama-3.1-8B-Instruct"]


def test_the_heat_map_marks_the_best_merge(figure1: SweepRun) -> None:
    scores = Scores(figure1)
    heat = heat_map(scores, shape_of(figure1))
    for number, column in enumerate(scores.columns):
        best = max(scores.score(point, column).value for point in scores.merges)
        marked = [tiles[number].value for _, role, tiles in heat.rows if tiles[number].best]
        assert marked and all(f"{value:.1f}" == f"{best:.1f}" for value in marked)
        places = [tiles[number].place for _, _, tiles in heat.rows]
        assert 0 <= min(places) <= max(places) == 1
    signs = {name: [tile.sign for tile in tiles] for name, _, tiles in heat.rows}
    assert signs["eu · task_arithmetic · 2.0"] == ["", "", "", "", "‡", ""]


POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12)


@given(POINTS)
def test_the_pareto_front(places: list[tuple[int, int]]) -> None:
    dots = [Dot(str(number), x, y, False, 0) for number, (x, y) in enumerate(places)]
    front = {dot.name for dot in _with_front(dots) if dot.front}
    for dot in dots:
        better = [o for o in dots if o.x >= dot.x and o.y >= dot.y and (o.x, o.y) != (dot.x, dot.y)]
        assert (dot.name in front) == (not better)


def test_trade_off_is_against_instructions(figure1: SweepRun) -> None:
    panels = tradeoffs(Scores(figure1), shape_of(figure1))
    assert [(panel.x.key, panel.y.key) for panel in panels] == [("ifeval_eu", "bench_eu"), ("ifeval_gl", "bench_gl")]
    assert all("language=gl" not in dot.name for dot in panels[0].dots)


def test_differences_are_those_of_the_scores(figure1: SweepRun) -> None:
    """Mean, BLEU, and IFEval by instruction: what the documents give is what the scores say."""
    scores = Scores(figure1)
    found = Comparer(scores).merge(figure1[LOOPING])
    assert {one.parent for one in found} == {"Latxa-Llama-3.1-8B-eu", "Llama-3.1-8B-Instruct"}
    assert {one.benchmark is None for one in found} == {True, False}
    for one in found:
        assert one.test is not None, one.reason
        assert one.test.value == pytest.approx(one.value, abs=1e-6)
        assert one.test.low <= one.value <= one.test.high
        assert one.mark == ("" if one.test.p < 0.05 else "n.s.")


def test_no_interval_where_documents_and_scores_disagree(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path, "x", {}, [MadePoint("a", "parent"), MadePoint("m", parents=("a",))], ["t_eu"], lambda *_: 0.5
    )
    store = Store(folder / FILE)
    results = store.results("key of m")
    rows_ = list(store.documents("key of m"))
    results["results"]["t_eu"]["acc,none"] = 0.987
    store.connection.execute("DELETE FROM evaluations")
    documents = [
        Document(task, number, json.dumps(metrics), answer, "h", "{}", "") for task, number, metrics, answer in rows_
    ]
    for point in ("a", "m"):
        store.finish(
            f"key of {point}", point, results if point == "m" else _with_value(results, 0.5), {}, 1.0, documents
        )
    store.close()
    found = Comparer(Scores(read_sweep_run(folder))).all()
    assert found and all(one.test is None and "do not agree" in one.reason for one in found)
    assert all(one.value == pytest.approx(48.7) for one in found)


def test_answers_stand_beside_the_documents_that_they_are_answers_to(tmp_path: Path) -> None:
    """The data changed in the run folder: the page shows what each point was asked, and no two questions as one."""
    task, others = "iberian_eus_trivia", range(1, 6)
    points = [MadePoint("a", "parent"), MadePoint("m", parents=("a",))]
    folder = write_run(tmp_path, "x", {}, points, [task], lambda *_: 0.5, 6)
    store = Store(folder / FILE)

    def measure_again(point: str) -> None:
        """All documents but the first say something else now."""
        key = f"key of {point}"
        again = [
            Document(task, number, json.dumps(metrics), answer, *_says(number, store.text(key, task, number)))
            for _, number, metrics, answer in store.documents(key)
        ]
        store.finish(key, point, store.results(key) or {}, {}, 1.0, again)

    def _says(number: int, before: tuple[dict, str] | None) -> tuple[str, str, str]:
        changed = {"question": "Nor?"} if number in others else (before or ({},))[0]
        return f"{'new ' * (number in others)}h{number}", json.dumps(changed), "0"

    def shown() -> dict[int, str]:
        return {one.number: one.document["question"] for one in examples(Scores(read_sweep_run(folder)))}

    assert len(shown()) == 2 and all(said.startswith(f"Galdera {number}") for number, said in shown().items())
    measure_again("m")
    assert list(shown()) == [0], "the others are other questions to each"
    measure_again("a")
    assert len(shown()) == 2 and all(said == "Nor?" for number, said in shown().items() if number in others)
    store.close()


def _with_value(results: dict, value: float) -> dict:
    changed = json.loads(json.dumps(results))
    changed["results"]["t_eu"]["acc,none"] = value
    return changed


@pytest.mark.parametrize(
    ("metric", "values"),
    [("acc", [[{}]]), ("acc", [[{"acc": None}]]), ("acc", [[{"acc": "x"}]]), ("bleu", [[{"bleu": ["one"]}]]),
     ("mcc", [[{"mcc": 3}, {"mcc": 4}], [{"mcc": 1}]]), ("acc", []), ("f1", [[{"f1": [1]}]])],
)  # fmt: skip
def test_verdicts_that_cannot_be_tested_say_so(metric: str, values: list) -> None:
    with pytest.raises(SignificanceError):
        verdicts(dict(enumerate(values)), metric)


def test_runs_of_one_document_are_averaged() -> None:
    found = verdicts({0: [{"acc": 1.0}, {"acc": 0.0}], 1: [{"acc": True}, {"acc": True}]}, "acc")
    assert found.kind == "mean" and found.data == [0.5, 1.0]
    prompts = verdicts({0: [{"i": [True, False]}, {"i": [True, True]}]}, "i")
    assert prompts.kind == "ratio" and prompts.data == [(1.5, 2.0)]


def test_tables_name_what_is_wrong(figure1: SweepRun) -> None:
    text = write(sweep_report(Scores(figure1)))
    line = next(line for line in text.splitlines() if line.startswith(f"| {LOOPING} "))
    assert "†" not in line
    assert f"Notes on {FAILED}:" in text and "PreflightError" in text
    assert f"Notes on {WAITING}:\n- not measured yet" in text
    assert "75% of the answers loop: ifeval_eu" in text
    assert re.search(r"‡", text.split("### Instruction following")[1].split("###")[0])


def test_the_head_says_what_matters(figure1: SweepRun, toy: SweepRun) -> None:
    said = str(list(notices(gather(toy))))
    assert "Embedded samples, not benchmarks" in said
    said = str(list(notices(replace(gather(toy), run=figure1))))
    assert "1 of 15 points failed" in said and "1 of 15 points are still to be measured" in said
    assert "75% of the answers loop" in said and "Embedded samples" not in said
    assert facts(figure1)[:3] == [("Measured", "2026-09-21"), ("Points", "13 of 15 finished"), ("Tasks", "47")]


class Page(HTMLParser):
    """Every element with its attributes, and every text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A run whose names, documents and answers try to be markup, mathematics, and a turn of direction."""
    bad = "<img src=x onerror=alert(1)>&\"' $x^ \u202e </script><script>alert(2)</script> ]]> <!--"
    folder = tmp_path_factory.mktemp("hostile")
    points = [MadePoint(f"parent {bad}", "parent")]
    points += [MadePoint(f"w={x} {bad}", "merge", {"w": x, "method": bad}, (points[0].name,)) for x in ("1", "2")]
    write_run(
        folder, bad, {"w": ["1", "2"], "method": [bad]}, points, ["odd_choice_eu", "odd_<b>_gl"], lambda *_: 0.5, 6
    )
    store = Store(folder / FILE)
    store.connection.execute("UPDATE documents SET answer = ?", (bad * 50,))
    store.connection.execute(
        "UPDATE texts SET question = ?, target = ?", (json.dumps({"question": bad, bad: [bad]}), bad)
    )
    store.fail("key of other", bad)
    store.close()
    return Page(write_report(folder).read_text(encoding="utf-8"))


def test_untrusted_texts_stay_texts(hostile: Page) -> None:
    tags = {tag for tag, _ in hostile.elements}
    assert not tags & {"img", "b", "iframe", "object", "link", "form", "base", "foreignobject", "a "}
    for _, attributes in hostile.elements:
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("href", "src", "xlink:href", "action"):
            assert (attributes.get(key) or "#").startswith("#")
    shown = "".join(hostile.texts)
    assert "<script>alert(2)</script>" in shown and "\u202e" not in shown
    policy = next(a["content"] for tag, a in hostile.elements if tag == "meta" and a.get("http-equiv"))
    assert "default-src 'none'" in policy
    script = (Path(style.__file__).parent / "page.js").read_bytes()
    allowed = base64.b64encode(hashlib.sha256(script).digest()).decode()
    assert re.findall(r"script-src ([^;]*);", policy or "") == [f"'sha256-{allowed}'"], "our own script and no other"
    assert [tag for tag, _ in hostile.elements].count("script") == 1


def test_the_page_is_accessible(hostile: Page) -> None:
    elements = hostile.elements
    assert ("html", {"lang": "en"}) in elements
    assert all(a.get("scope") in ("col", "row") for tag, a in elements if tag == "th")
    assert all("aria-labelledby" in a or a.get("aria-hidden") == "true" for tag, a in elements if tag == "svg")
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert all(word in ids for _, a in elements for word in (a.get("aria-labelledby") or "").split())
    assert all(a["href"][1:] in ids for tag, a in elements if tag == "a")
    levels = [int(tag[1]) for tag, _ in elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in itertools.pairwise(levels))


@pytest.mark.slow
def test_what_is_filtered_sorted_and_linked_to(figure1: SweepRun, hostile: Page) -> None:
    """Each figure says its language and benchmarks, each table that is sorted has one head row, each point an id."""
    shown = Page(page_of(figure1))
    told = {
        (a["data-language"], a["data-benchmark"]) for tag, a in shown.elements if tag == "th" and "data-language" in a
    }
    assert ("eu", "Belebele") in told and ("gl", "IFEval") in told
    figures = [a for tag, a in shown.elements if tag == "figure"]
    assert figures and all(a.get("data-language") and a.get("data-benchmark") for a in figures)
    ids = {a["id"] for _, a in shown.elements if a.get("id", "").startswith("point-")}
    assert "point-language=eu_method=linear_weight=0.5" in ids and len(ids) == len(figure1.points)
    rows = [a["data-point"] for tag, a in shown.elements if tag == "tr" and "data-point" in a]
    assert set(rows) == ids
    choices = [a["value"] for tag, a in shown.elements if tag == "option"]
    assert choices[:3] == ["", "eu", "gl"] and "Belebele" in choices
    assert any(tag == "div" and a.get("id") == "filters" and "hidden" in a for tag, a in shown.elements), (
        "by script only"
    )
    assert len([a for tag, a in hostile.elements if tag == "tr" and (a.get("id") or "").startswith("point-")]) == 3


def page_of(run: SweepRun) -> str:
    with style.drawing():
        return page(gather(run))


def test_what_sets_rows_apart(tmp_path: Path) -> None:
    """Prompts and weights differ, the rest does not; tasks that differ alike are one."""
    points = [MadePoint("a", "parent"), MadePoint("b", "parent"), MadePoint("m", parents=("a", "b"))]
    tasks = ["iberian_eus_trivia", "iberian_belebele_eu"]
    folder = write_run(tmp_path, "x", {}, points, tasks, lambda *_: 0.5, 6, plain=["a"])
    store = Store(folder / FILE)
    results = store.results("key of b") or {}
    for task in tasks:
        results["n-shot"][task] = 3
    results["lm_eval_version"] = "0.4.13"  # the others do not say theirs: nothing to compare
    store.finish("key of b", "b", results, {}, 1.0, [])
    store.close()
    found = apart(read_sweep_run(folder).points)
    rows = {point: dict(zip(found.keys, values, strict=True)) for point, values in found.rows}
    assert set(found.keys) == {
        "weights: merge", "chat: template", "chat: multiturn", "shots of 2 tasks (iberian_belebele_eu, iberian_eus_trivia)",
    }  # fmt: skip
    assert [rows[name]["chat: template"] for name in "abm"] == ["none", "ab12cd34", "ab12cd34"]
    assert [rows[name][found.keys[-1]] for name in "abm"] == ["5", "3", "5"]
    assert found.same["versions: lm_eval"] == "0.4.13"
    assert found.same["version of 2 tasks (iberian_belebele_eu, iberian_eus_trivia)"] == "1.0"


STRICT_ROW = {
    "key": 7, "prompt": "Idatzi hiru puntu.", "instruction_id_list": ["punctuation:no_comma", "keywords:existence"],
    "kwargs": [{}, {"keywords": ["mendia"]}],
}  # fmt: skip


def test_reasons_stand_beside_the_verdicts_that_were_measured() -> None:
    document = {"prompt": STRICT_ROW["prompt"], "language": "eu", "row": json.dumps(STRICT_ROW)}
    metric, answer = "inst_level_strict_acc", "Itsasoa handia da."
    found = reasons(document, answer, [{metric: [True, False]}], metric)
    assert [(one.instruction, one.followed) for one in found] == [
        ("punctuation:no_comma", True),
        ("keywords:existence", False),
    ]
    assert "mendia" in found[1].said
    assert reasons(document, answer, [{metric: [True, True]}], metric) == (), "judged otherwise: no reason fits"
    assert reasons({"question": "?"}, answer, [{metric: [True, False]}], metric) == ()
    a_file = str(Path(ifeval_multi.__file__).parent / "languages" / "eu.yaml")
    assert reasons({**document, "language": a_file}, answer, [{metric: [True, False]}], metric) == (), "may bring code"
    assert reasons({**document, "language": "xx"}, answer, [{metric: [True, False]}], metric) == ()
    assert reasons({**document, "row": "[1]"}, answer, [{metric: [True, False]}], metric) == ()


@pytest.mark.slow
def test_a_prompt_stands_beside_its_document(tmp_path: Path) -> None:
    """Two models were asked in two ways: both prompts are there, with their names; shots are cut from the beginning."""
    task = "iberian_eus_trivia"
    points = [MadePoint("a", "parent"), MadePoint("m", parents=("a",))]
    folder = write_run(tmp_path, "x", {}, points, [task], lambda *_: 0.5, 3)
    store = Store(folder / FILE)
    for name, prompt in (("a", "<b>Zein?"), ("m", "shots " * 5000 + "<user>Zein?")):
        key = f"key of {name}"
        again = [Document(task, number, json.dumps(metrics), answer, f"h{number}", *text(store, key, task, number), prompt)
                 for _, number, metrics, answer in store.documents(key)]  # fmt: skip
        store.finish(key, name, store.results(key) or {}, {}, 1.0, again)
    store.close()
    run = read_sweep_run(folder)
    (first, *_) = examples(Scores(run))
    assert list(first.prompts.values()) == [("a",), ("m",)]
    shown = Page(page_of(run))
    said = "".join(shown.texts)
    assert "<b>Zein?" in said and "<user>Zein?" in said and "10,011 characters before" in said
    assert "b" not in {tag for tag, _ in shown.elements}


def text(store: Store, key: str, task: str, number: int) -> tuple[str, str]:
    document, target = store.text(key, task, number) or ({}, "")
    return json.dumps(document), target


@pytest.fixture(scope="module")
def bare(toy: SweepRun) -> Gathered:
    """A run of which nothing is shown but what a test adds."""
    return replace(gather(toy), rows=[], tradeoffs=[], forests=[], compared=[], examples=[], heat=Heat((), (), ""),
                   report=Report([], {}))  # fmt: skip


def answered(found: Gathered, answer: str) -> str:
    """The page with one document and one answer to it."""
    return page(replace(found, examples=[Example("task", 0, {}, "", (Shown("m", "merge", answer, ""),))]))


@settings(max_examples=40, deadline=None)
@given(value=st.text("<>&;\"'!-/abp#0 \n\x00\u202e", max_size=600))
def test_any_text_comes_back_as_text(bare: Gathered, value: str) -> None:
    shown = Page(answered(bare, value))
    assert "b" not in {tag for tag, _ in shown.elements}, "a tag of the text's own"
    assert style.seen(value) in "".join(shown.texts) or not value.strip()


def test_long_answers_are_folded_and_cut(bare: Gathered) -> None:
    shown = answered(bare, "word " * 100_000)
    assert '<details class="said">' in shown and "480,000 more characters" in shown
    assert len(shown) - len(answered(bare, "x")) < 30_000
    assert "(empty)" in answered(bare, " \n")
    assert ">\ufffd\ufffda<" in answered(bare, "\x00\u2066a")


@pytest.mark.slow
def test_what_was_prompted_otherwise_is_marked_wherever_it_is_shown(tmp_path: Path) -> None:
    """A parent without a chat template among merges with one: in tables, heat map, curves, differences and the page."""
    run = read_sweep_run(toy_run(tmp_path / "run", plain=["basque"]))
    found = gather(run)
    by_table = {table.title: dict(zip((name for name, _, _ in table.rows), table.prompts, strict=True))
                for table in found.report.tables}  # fmt: skip
    for prompts in by_table.values():
        assert (prompts["basque"], prompts["instruct"], prompts["weight=0.5"]) == ("plain", "multiturn", "multiturn")
    odd = {name for table in found.report.tables for name, _, cells in table.rows if any(cell.odd for cell in cells)}
    assert odd == {"basque"}
    assert {name: {tile.sign for tile in tiles} for name, _, tiles in found.heat.rows}["basque"] == {"§"}
    assert found.rules == {0: "basque §", 1: "instruct"}
    assert {(one.parent, one.odd) for one in found.compared} == {("basque", True), ("instruct", False)}
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "Prompted otherwise than most of their column" in page and "<li>plain: basque</li>" in page
    assert '<td class="prompt">plain</td>' in page
    table = list(csv.DictReader(io.StringIO((tmp_path / "run/report/differences.csv").read_text())))
    assert {row["parent"]: row["prompted alike"] for row in table} == {"basque": "no", "instruct": "yes"}
    lines = (tmp_path / "run/report/differences.md").read_text().splitlines()
    assert all(("§" in line) == ("| basque |" in line) for line in lines if line.startswith("| weight"))
    assert r"$^\S$" in (tmp_path / "run/report/differences.tex").read_text()


def test_prompts_that_are_all_alike_are_not_marked(tmp_path: Path) -> None:
    folder = toy_run(tmp_path / "run", plain=[])
    found = gather(read_sweep_run(folder))
    assert not any("Prompted otherwise" in title for title, _ in notices(found))
    assert not any(cell.odd for table in found.report.tables for _, _, cells in table.rows for cell in cells)
    assert not any(one.odd for one in found.compared)


def test_a_score_far_below_chance_is_flagged_wherever_it_is_shown(tmp_path: Path) -> None:
    """In the tables, the heat map, the head of the page; the words stand once in the notes."""
    points = [MadePoint("m=1", labels={"m": "1"}), MadePoint("m=2", labels={"m": "2"})]
    write_run(tmp_path, "x", {"m": ["1", "2"]}, points, ["iberian_xstorycloze_eu"],
              lambda point, _: 0.1 if point.name == "m=2" else 0.6)  # fmt: skip
    found = gather(read_sweep_run(tmp_path))
    assert [tile.sign for _, _, (tile,) in found.heat.rows] == ["", "‡"]
    assert found.report.notes["m=2"].count(f"XStoryCloze (eu): {BELOW_CHANCE}") == 1
    assert BELOW_CHANCE not in str(found.report.notes.get("m=1"))
    (said,) = [lines for title, lines in notices(found) if title.startswith("Look at the answers")]
    assert said == [f"XStoryCloze (eu): {BELOW_CHANCE} (m 2)"]


def test_what_was_counted_over_the_answers_flags_the_score(tmp_path: Path) -> None:
    counts = {"cut_prompts": 2, "cut_answers": 0, "ties": 0, "empty": 0, "documents": 40}
    run = read_sweep_run(toy_run(tmp_path / "run", answers={"weight=0.5": {"toy_choice_eu": counts}}))
    assert run["weight=0.5"].flags == {"toy_choice_eu": ["prompts cut to the model's window: 2 of 40"]}
    assert run["weight=1.0"].flags == {}
    found = sweep_report(Scores(run))
    assert found.notes["weight=0.5"] == ["toy_choice_eu: prompts cut to the model's window: 2 of 40"]
    flagged = {name for table in found.tables for name, _, cells in table.rows if any(cell.flagged for cell in cells)}
    assert flagged == {"weight=0.5"}


@pytest.mark.slow
def test_the_same_store_gives_the_same_bytes(reported: SweepRun, tmp_path: Path) -> None:
    again = toy_run(tmp_path / "again", samples=True, documents=20)
    write_report(again)
    first, second = ({path.name: path.read_bytes() for path in sorted((folder / "report").iterdir())}
                     for folder in (reported.folder, again))  # fmt: skip
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert {"curves.svg", "tradeoff.png", "methods.svg", "differences.tex", "tables.md", "scores.csv"} <= first.keys()


def compared(value: float, p: float | None, of_benchmark: bool = True) -> Compared:
    """A difference; p None: not tested."""
    benchmark = Benchmark("x", "eu", "acc", ("x_eu",), metric="acc", chance=0.0, shots=None)
    column = Column("acc", "eu", (benchmark,))
    test = None if p is None else Difference(value, value - 1, value + 1, p, 100, "")
    return Compared("m", "a", "x", column, benchmark if of_benchmark else None, value, test)


def test_the_outcome_says_which_way() -> None:
    rows = [compared(3.0, 0.01), compared(2.0, 0.04), compared(-3.0, 0.01), compared(9.0, 0.05), compared(1.0, None),
            compared(5.0, 0.01, of_benchmark=False)]  # fmt: skip
    assert Against("a", 0, rows).outcome == "2 better, 1 worse, 1 not significant, 1 not tested"
    assert Against("a", 0, rows[2:3]).outcome == "1 worse"


def test_the_page_says_the_outcome_of_each_merge(hostile: Page) -> None:
    said = "".join(hostile.texts)
    assert len(re.findall(r"minus parent [^:]*: [12] (better|worse|not significant)", said)) == 2


def test_every_form_and_the_page_have_the_figures_of_tasks_that_no_table_knows(reported: SweepRun) -> None:
    """JSON had none of them."""
    report = sweep_report(Scores(reported))
    figures = [cell for table in report.tables for _, _, cells in table.rows for cell in cells]
    assert len(figures) == 2 * 2 * 5 + 2 * 2 * 5, "two tables of averages, and one a language"
    said = json.loads(write(report, "json"))["tables"]
    assert [one["value"] for table in said for row in table["rows"] for one in row["figures"]] == [
        cell.value for cell in figures
    ]
    listed = list(csv.DictReader(io.StringIO(write(report, "csv"))))
    assert [row["value"] for row in listed] == [f"{cell.value:.4f}" for cell in figures]
    markdown = re.findall(r"(?<=[|*>] )?(\d+\.\d\d)[*<†]", write(report))
    assert len(markdown) == len(figures) and sorted(markdown) == sorted(cell.shown for cell in figures)
    html = (reported.folder / "report" / "report.html").read_text()
    shown = re.findall(r"<td[^>]*>(?:<[^>]*>)?(\d+\.\d\d)(?:<[^>]*>)?†", html)
    assert shown[: len(figures)] == [cell.shown for cell in figures]
    titles = [table.title for table in sweep_report(Scores(reported), normalised=True).tables]
    assert all(title.endswith(", not normalised: what guessing scores is not known here") for title in titles)


def test_every_form_of_the_differences_agrees(reported: SweepRun) -> None:
    folder = reported.folder / "report"
    by_row = list(csv.DictReader(io.StringIO((folder / "differences.csv").read_text())))
    averages = [row for row in by_row if not row["benchmark"]]
    assert len(averages) == 3 * 2 * 4
    for row in averages:
        figure = f"{float(row['difference']):+.2f}"
        interval = f"{float(row['low']):+.2f}, {float(row['high']):+.2f}]"
        assert f"{figure}† [{interval}" in (folder / "differences.md").read_text()
        assert rf"{figure}$^\dagger$ {{[}}{interval}" in (folder / "differences.tex").read_text()
        assert (row["significant"] == "yes") == (float(row["p"]) < 0.05)


@pytest.mark.slow
def test_the_command(toy: SweepRun, figure1: SweepRun) -> None:
    runner = CliRunner()
    done = runner.invoke(command, [str(toy.folder)])
    assert done.exit_code == 0, done.output
    assert done.stdout == (toy.folder / "report" / "tables.md").read_text()
    assert "report.html" in done.stderr
    two = runner.invoke(command, [str(toy.folder), str(figure1.folder)])
    assert two.exit_code == 2 and "one sweep" in two.output


def test_without_matplotlib_the_tables_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    folder = toy_run(tmp_path / "run", documents=4)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SweepError, match=r"lm_eval_iberian\[plots\]"):
        write_report(folder)
    assert (folder / "report" / "tables.md").is_file() and not (folder / "report" / "report.html").exists()


def test_nothing_measured_yet(tmp_path: Path) -> None:
    points = [MadePoint("a", state="failed"), MadePoint("b", state="unfinished")]
    page = write_report(write_run(tmp_path, "early", {}, points, ["t_eu"], lambda *_: 0.5)).read_text()
    assert "Nothing is measured yet" in page and "PreflightError" in page


# Colours

CSS = (Path(style.__file__).parent / "page.css").read_text(encoding="utf-8")
SERIES = [f"--series-{number}" for number in range(len(style.SERIES))]


def themes() -> Iterator[dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[:2]
    for block in (light, light + dark):
        yield dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", block))


def linear(hexadecimal: str) -> list[float]:
    parts = [int(hexadecimal[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def contrast(first: str, second: str) -> float:
    """WCAG 2.2's ratio."""
    light = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (linear(first), linear(second))]
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_contrast_of_every_colour() -> None:
    """AA: 4.5 for texts, 3 for lines and marks, in both themes."""
    for theme in themes():
        for back in ("--panel", "--page"):
            for word in ("--ink", "--muted", "--link", "--bad", "--good"):
                assert contrast(theme[word], theme[back]) >= 4.5, (word, back)
        assert contrast(theme["--warn"], theme["--warn-back"]) >= 4.5
        assert contrast(theme["--ink"], theme["--heat"]) >= 4.5
        for name in SERIES:
            assert contrast(theme[name], theme["--panel"]) >= 3, name
    assert contrast(style.INK, colour(1.0)) >= 4.5
    assert next(themes())["--series-1"] == style.SERIES[1]
    assert [next(themes())[name] for name in SERIES] == list(style.SERIES)


# Viénot, Brettel and Mollon (1999), linear RGB: what protanopes and deuteranopes see.
BLINDNESS = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.11238, 0.88762, 0), (0.11238, 0.88762, 0), (0.00401, -0.00401, 1)),
    "deuteranopia": ((0.29275, 0.70725, 0), (0.29275, 0.70725, 0), (-0.02234, 0.02234, 1)),
}


@pytest.mark.parametrize("seen", BLINDNESS)
def test_lines_are_told_apart_by_all(seen: str) -> None:
    """The first four series colours differ by at least 10 in CIELAB (2.3 is just noticeable); all have own markers."""
    for theme in themes():
        labs = [lab([sum(w * p for w, p in zip(row, linear(theme[name]), strict=True)) for row in BLINDNESS[seen]])
                for name in SERIES[:4]]  # fmt: skip
        distances = [math.dist(one, other) for number, one in enumerate(labs) for other in labs[:number]]
        assert min(distances) >= 10, distances
    assert len(set(style.MARKERS)) == len(style.SERIES) == len(style.DASHES)


def lab(rgb: list[float]) -> tuple[float, float, float]:
    """CIELAB (D65) of linear RGB."""
    matrix = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    x, y, z = (max(0.0, sum(w * p for w, p in zip(row, rgb, strict=True))) / white
               for row, white in zip(matrix, (0.9505, 1.0, 1.089), strict=True))  # fmt: skip
    a, b, c = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return 116 * b - 16, 500 * (a - b), 200 * (b - c)


@pytest.mark.parametrize(
    ("document", "answer", "shown"),
    [({"candidates": ["Saturno", "Jupiter"]}, "1", "2. Jupiter"), ({"mc_answer1": "bat", "mc_answer2": "bi"}, "1", "2. bi"),
     ({"question": "?"}, "2", "choice 3"), ({"candidates": ["a"]}, "7", "choice 8"), ({}, "²", "²"), ({}, "nan", "nan"),
     ({"candidates": [{"x": 1}, 2]}, "0", "choice 1")],
)  # fmt: skip
def test_choices_are_shown_by_what_they_say(document: dict, answer: str, shown: str) -> None:
    assert choice(document, answer) == shown


def test_a_reason_is_said_once() -> None:
    assert distinct(["cannot plan", "a, b: cannot plan", "c: disk full"]) == ["cannot plan", "c: disk full"]


def test_answers_of_the_best_and_of_the_worst(figure1: SweepRun) -> None:
    scores = Scores(figure1)
    column = scores.columns[0]
    found = models(scores, column)
    assert [point.role for point in found] == ["parent", "parent", "merge", "merge", "merge", "merge"]
    values = {point.name: scores.score(point, column).value for point in scores.merges}
    ranked = sorted(values.values(), reverse=True)
    assert [values[point.name] for point in found[2:]] == [*ranked[:3], ranked[-1]]
    assert {point.name for point in found[:2]} == set(found[2].parents)


# Many axes, long names


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> SweepRun:
    """Five methods by two densities by two seeds: more lines than a panel has colours, and names without end."""
    axes = {"method": [f"a_method_with_a_long_name_{number}" for number in range(5)], "density": ["0.1", "0.9"],
            "weight": ["0.5", "1.0"], "seed": ["1", "2"]}  # fmt: skip
    parents = ("an-organisation/Some-Model-With-A-Very-Long-Name-Indeed-70B-Instruct-v0.3-2025-preview", "org/instruct")
    points = [MadePoint(name, "parent") for name in parents] + [MadePoint("fixed", parents=parents)]
    for labels in itertools.product(*axes.values()):
        named = dict(zip(axes, labels, strict=True))
        points.append(MadePoint(" ".join(f"{k}={v}" for k, v in named.items()), labels=named, parents=parents))
    folder = tmp_path_factory.mktemp("wide")
    write_run(folder, "wide", axes, points, ["x_translation_en-eu", "y_eu"], lambda *_: 0.5, documents=5)
    return read_sweep_run(folder)


def test_too_many_lines_are_split_by_an_axis(wide: SweepRun) -> None:
    scores, shape = Scores(wide), shape_of(wide)
    assert (shape.swept, shape.seed, shape.split, shape.others) == ("weight", "seed", "density", ("method",))
    panels = [panel for row in rows(scores, shape) for panel in row.panels]
    assert [panel.title for panel in panels] == [
        "BLEU, density 0.1", "BLEU, density 0.9", "Accuracy, density 0.1", "Accuracy, density 0.9",
    ]  # fmt: skip
    assert all(len(panel.lines) == 5 for panel in panels)
    for panel in panels:
        for line in panel.lines:
            for mark in line.marks:
                name = f"method={line.name} density={panel.part} weight={mark.x} seed="
                values = [scores.score(wide[f"{name}{seed}"], panel.column).value for seed in ("1", "2")]
                assert mark.value == pytest.approx(sum(values) / 2)
    assert "fixed" in {rule.name for rule in panels[0].rules}


def test_a_line_has_one_colour_in_all_pictures(wide: SweepRun) -> None:
    scores, shape = Scores(wide), shape_of(wide)
    slots = line_slots(scores, shape)
    for panel in tradeoffs(scores, shape):
        for dot in panel.dots:
            expected = rule_names(scores, shape) if dot.parent else slots
            assert dot.slot == expected[dot.name if dot.parent else shape.line(wide[dot.name])]
    assert legend_names(scores, shape)[0] == {slot: name for name, slot in slots.items()}


def test_lines_without_a_colour_are_named(wide: SweepRun, tmp_path: Path) -> None:
    points = [MadePoint(f"m={n} w={w}", labels={"m": f"m{n}", "w": w}) for n in range(9) for w in ("1", "2")]
    folder = write_run(tmp_path, "x", {}, points, ["t_eu"], lambda *_: 0.5, documents=4)
    run = read_sweep_run(folder)
    assert left_out(Scores(run), shape_of(run)) == ["m7", "m8"]
    assert "2 more lines are in the tables only: m7, m8." in write_report(folder).read_text()


@pytest.mark.slow
def test_long_names_find_room(wide: SweepRun) -> None:
    """matplotlib warns where labels leave no room for a picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert write_report(wide.folder).is_file()


def test_parents_need_not_be_measured(tmp_path: Path) -> None:
    points = [MadePoint("p", "parent", state="failed"), MadePoint("m", parents=("p", "nowhere"))]
    folder = write_run(tmp_path, "x", {}, points, ["t_eu"], lambda *_: 0.5, documents=4)
    page = write_report(folder).read_text()
    assert "Differences to the parents" not in page and "PreflightError" in page
