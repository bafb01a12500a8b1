"""`iberian best`: who wins, by how much, who may not compete and why, and what --export writes."""

from __future__ import annotations

import itertools
import json
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_iberian.benchmarks.table import of_column
from lm_eval_iberian.commands import main as cli
from lm_eval_iberian.commands.best import _lead
from lm_eval_iberian.compare.best import Best, BestError, Candidate, Goal, _coverage, find_best, pareto
from lm_eval_iberian.runs.point import SweepPoint
from lm_eval_iberian.runs.run import SweepRun, read_sweep_run
from lm_eval_iberian.runs.store import FILE, Store
from lm_eval_iberian.scores import significance as sig
from lm_eval_iberian.scores.results import check_run
from lm_eval_iberian.scores.suite import BELOW_CHANCE, Score
from tests.lm_eval_iberian.results_maker import results
from tests.lm_eval_iberian.sweep_maker import MadePoint, figure1_run, figure1_tasks, toy_run, write_run


@pytest.fixture(scope="module")
def figure1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = "language=eu method=linear weight={}"
    states = {name.format("2.0"): "failed", name.format("1.5"): "unfinished"}
    return figure1_run(tmp_path_factory.mktemp("runs") / "figure1", ("eu",), documents=60, states=states)


def mean_by_hand(run: SweepRun, name: str, *columns: str) -> float:
    """The mean over columns of the means over benchmarks of the means over tasks, from lm_eval's own numbers."""
    results = {task: scores for result in run[name].results for task, scores in result["results"].items()}
    averages = []
    for column in columns:
        parts = [
            statistics.fmean(100 / one.percent * results[task][f"{one.metric},none"] for task in one.tasks)
            for one in of_column(column)
        ]
        averages.append(statistics.fmean(parts))
    return statistics.fmean(averages)


@pytest.mark.parametrize("columns", [("bench_eu",), ("ifeval_eu",), ("bench_eu", "ifeval_eu"), ("mt_eu", "ifeval_eu")])
def test_the_best_has_the_highest_mean(figure1: Path, columns: tuple[str, ...]) -> None:
    run = read_sweep_run(figure1)
    found = find_best(run, columns)
    means = {point.name: mean_by_hand(run, point.name, *columns)
             for point in run.points if point.role == "merge" and point.results}  # fmt: skip
    assert [one.point.name for one in found.ranked] == sorted(means, key=lambda name: -means[name])
    assert [one.mean for one in found.ranked] == pytest.approx(sorted(means.values(), reverse=True))
    assert found.lead is not None, found.no_test
    assert found.lead.value == pytest.approx(found.ranked[0].mean - found.ranked[1].mean, abs=1e-3)


def test_the_lead_is_the_paired_test_of_the_two_first(figure1: Path) -> None:
    from lm_eval_iberian.scores.significance import paired_bootstrap

    run = read_sweep_run(figure1)
    found = find_best(run, ["iberian_eus_trivia"])
    columns = []
    for one in found.ranked[:2]:
        documents = one.point.documents("iberian_eus_trivia")
        columns.append([100 * documents[number][0]["acc"] for number in sorted(documents)])
    expected = paired_bootstrap(*columns, stream="iberian_eus_trivia")
    assert found.lead is not None
    assert (found.lead.value, found.lead.p) == pytest.approx((expected.value, expected.p))
    assert (found.lead.low, found.lead.high) == pytest.approx((expected.low, expected.high))


def test_who_may_not_win_is_named_with_the_reason(figure1: Path) -> None:
    refused = {one.point.name: one.refused for one in find_best(read_sweep_run(figure1), ["bench_eu"]).refused}
    assert refused == {
        "Latxa-Llama-3.1-8B-eu": "a parent, not a merge",
        "Llama-3.1-8B-Instruct": "a parent, not a merge",
        "language=eu method=linear weight=1.5": "not measured yet",
        "language=eu method=linear weight=2.0": refused["language=eu method=linear weight=2.0"],
    }
    assert "models/other has 32 layers" in refused["language=eu method=linear weight=2.0"]


def test_a_parent_wins_only_where_asked(figure1: Path) -> None:
    run = read_sweep_run(figure1)
    assert find_best(run, ["ifeval_eu"]).best.point.role == "merge"
    assert find_best(run, ["ifeval_eu"], any_role=True).best.point.name == "Llama-3.1-8B-Instruct"


def _cut(folder: Path, name: str, documents: int, **versions: Any) -> None:
    """Make a point's results those of fewer documents."""
    run = read_sweep_run(folder)
    store, key = Store(folder / FILE), run[name].evaluations[0].key
    result = run[name].results[0]
    for counts in result["n-samples"].values():
        counts["effective"] = documents
    result["versions"] |= versions
    store.finish(key, name, result, {}, 1.0, [])
    store.close()


def test_points_with_fewer_documents_do_not_compete(tmp_path: Path) -> None:
    folder = figure1_run(tmp_path / "run", ("eu",), ("linear",))
    best = find_best(read_sweep_run(folder), ["bench_eu"]).best.point.name
    _cut(folder, best, 20)
    found = find_best(read_sweep_run(folder), ["bench_eu"])
    assert found.best.point.name != best
    assert "20 documents, and 40 of" in next(one.refused for one in found.refused if one.point.name == best)


def test_points_of_another_task_version_are_refused_altogether(tmp_path: Path) -> None:
    folder = figure1_run(tmp_path / "run", ("eu",), ("linear",))
    _cut(folder, "language=eu method=linear weight=1.0", 40, iberian_eus_trivia=0.5)
    with pytest.raises(BestError, match=r"iberian_eus_trivia was measured in different ways: .*version 0.5"):
        find_best(read_sweep_run(folder), ["bench_eu"])


def test_points_of_a_sweep_yml_of_before_do_not_keep_todays_from_competing(tmp_path: Path) -> None:
    """Where shots are changed, a run folder keeps what was measured before: it was refused for ever."""
    folder = figure1_run(tmp_path / "run", ("eu",), ("linear",))
    earlier = "language=eu method=linear weight=1.0"
    _cut(folder, earlier, 80, iberian_eus_trivia=0.5)  # on more documents than today's
    plan = json.loads((folder / "plan.json").read_text())
    for point in plan["points"]:
        point["earlier"] = point["name"] == earlier
    (folder / "plan.json").write_text(json.dumps(plan))
    run = read_sweep_run(folder)
    (name,) = (point.name for point in run.points if point.is_earlier)
    assert name not in [one.point.name for one in find_best(run, ["bench_eu"]).ranked]
    _cut(folder, name, 40)
    found = find_best(read_sweep_run(folder), ["bench_eu"])
    assert len(found.ranked) > 1 and not found.best.point.is_earlier
    (refused,) = (one.refused for one in found.refused if one.point.is_earlier)
    assert refused.startswith("of a sweep.yml of before, which measured iberian_eus_trivia otherwise: ")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bench_ue", "nothing of that name was measured. Did you mean bench_eu?"),
        ("bench_gl", "no point of"),
        ("iberian_eus_trivia:acc_norm", "it has no such metric. It has: acc"),
    ],
)
def test_columns_that_are_none(figure1: Path, name: str, words: str) -> None:
    with pytest.raises(BestError) as raised:
        find_best(read_sweep_run(figure1), [name])
    assert words in str(raised.value)


def test_less_is_better_is_no_column(tmp_path: Path) -> None:
    folder = toy_run(tmp_path / "run")
    store = Store(folder / FILE)
    for point in read_sweep_run(folder).points:
        result = point.results[0]
        result["results"]["toy_choice_eu"]["word_perplexity,none"] = 12.0
        result["higher_is_better"] = {"toy_choice_eu": {"acc": True, "word_perplexity": False}}
        store.finish(point.evaluations[0].key, point.name, result, {}, 1.0, [])
    store.close()
    with pytest.raises(BestError, match="less of it is better"):
        find_best(read_sweep_run(folder), ["toy_choice_eu:word_perplexity"])
    assert find_best(read_sweep_run(folder), ["toy_choice_eu"]).best.point.name == "weight=1.0"


def test_tasks_that_no_table_knows(tmp_path: Path) -> None:
    run = read_sweep_run(toy_run(tmp_path / "run", documents=200))
    assert find_best(run, ["toy_choice_eu"]).best.point.name == "weight=1.0"
    assert find_best(run, ["toy_choice_gl:acc"]).best.point.name == "weight=0.0"
    translation = find_best(run, ["toy_translation_en-eu:bleu"]).best
    assert translation.point.name == "weight=1.0"
    assert translation.mean == translation.point.results[0]["results"]["toy_translation_en-eu"]["bleu,none"]


def test_documents_of_all_runs_are_counted() -> None:
    """Three seeds of one point are three times the documents: a point with one of them was measured on fewer."""
    task = "iberian_eus_trivia"
    runs = [check_run(results({task: {"acc": value}}, documents=40), str(value)) for value in (0.1, 0.2, 0.3)]
    goal = Goal("g", tuple(one for one in of_column("bench_eu") if task in one.tasks))
    counts = [_coverage(SimpleNamespace(runs=some), [goal]) for some in (runs, runs[:1])]  # type: ignore[arg-type]
    assert counts == [{task: 120}, {task: 40}]


def _candidate(*values: float) -> Candidate:
    point = SweepPoint("point", "merge", {}, (), "", "", "")
    return Candidate(point, tuple(Score(value, None, None, 1, 0.0) for value in values))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_pareto(rows: list[tuple[int, int, int]]) -> None:
    candidates = [_candidate(*row) for row in rows]
    front = {one.values for one in pareto(candidates)}
    for row in set(rows):
        beaten = any(other != row and all(a >= b for a, b in zip(other, row, strict=True)) for other in rows)
        assert (row in front) is not beaten
    for first, second in itertools.permutations(front, 2):
        assert any(a > b for a, b in zip(first, second, strict=True))


def shown(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["best", *arguments])
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


def test_the_command(figure1: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "best.yml"
    code, out, _ = shown([str(figure1), "--by", "bench_eu,ifeval_eu", "--pareto", "--save", str(recipe)], capsys)
    found: Best = find_best(read_sweep_run(figure1), ["bench_eu", "ifeval_eu"])
    assert code == 0
    assert out.startswith(f"The best by the mean of bench_eu, ifeval_eu: {found.best.point.name}\n")
    assert f"It leads {found.ranked[1].point.name} by {found.ranked[0].mean - found.ranked[1].mean:.2f} points" in out
    assert "\nMethod: mean of 2: " in out and "mean of 1" not in out
    assert "Pareto front" in out and "†" not in out
    assert yaml.safe_load(recipe.read_text(encoding="utf-8")) == {"merge_method": "linear"}
    assert f"--model_args recipe={recipe}" in out


def lead_of(changes: dict[str, list[float]]) -> str:
    """What is said of a lead with these differences, a list of documents for each task."""
    draws = [sig.mean_draws(some, [0.0] * len(some), stream=task) for task, some in changes.items()]
    lead = sig.average([sig.average([one]) for one in draws]).times(100).difference()
    first, second = _candidate(lead.value), _candidate(0.0)
    return _lead(Best((), (first, second), (), lead, "", ()))


def test_few_documents_are_said_where_the_interval_leaves_out_0() -> None:
    said, method = lead_of({"one": [1.0] * 3 + [0.0] * 7, "two": [1.0] * 2 + [0.0] * 2}).splitlines()
    assert said.endswith("p = 0.062): not significant: either may be the better one.")
    assert "95 % interval +" in said
    assert method == (
        "Method: mean of 2: paired bootstrap, 10,000 resamples, seed 12345; p is not the bootstrap's, but the least that an "
        "exact sign test gives where 5 documents differ. The interval leaves out 0 (the bootstrap has seen these few "
        "documents only); p decides."
    )
    assert "where 1 document differs." in lead_of({"one": [1.0, 0.0, 0.0]})


def test_a_clear_lead_says_the_method_and_no_p_of_0() -> None:
    said, method = lead_of({"one": [1.0] * 90 + [-1.0] * 10 + [0.0] * 20}).splitlines()
    assert said.endswith("p < 0.001): significant.")
    assert method == "Method: paired bootstrap, 10,000 resamples, seed 12345; p is two-sided, of the same resamples."


def test_a_lead_within_luck_has_no_excuse() -> None:
    said, method = lead_of({"one": [1.0] * 11 + [-1.0] * 9 + [0.0] * 80}).splitlines()
    assert "not significant" in said and "95 % interval -" in said
    assert method.endswith("of the same resamples.")


def test_an_interval_and_a_p_of_one_bootstrap_may_part_by_a_hair() -> None:
    lead = sig.Difference(1.0, 0.001, 2.0, 0.0502, 100, "paired bootstrap", 60)
    said = _lead(Best((), (_candidate(1.0), _candidate(0.0)), (), lead, "", ()))
    assert said.endswith("The interval leaves out 0 (only just); p decides.")


def test_scores_that_are_not_whole_carry_the_dagger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = figure1_run(tmp_path / "run", ("eu",), ("linear",), ("1.0", "2.0"), samples=True)
    _, out, _ = shown([str(folder), "--by", "ifeval_eu"], capsys)
    assert "† |" in out
    assert "† IFEval (eu): embedded samples, not the benchmark" in out


def test_a_winner_far_below_chance_is_no_winner_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = "iberian_xstorycloze_eu"
    write_run(tmp_path, "x", {}, [MadePoint("m")], [task], lambda *_: 0.1)
    _, out, _ = shown([str(tmp_path), "--by", task], capsys)
    assert f"CAUTION: m: {task} (eu): {BELOW_CHANCE}.\n" in out


def test_an_error_is_one_message(figure1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown([str(figure1), "--by", "nonsense"], capsys)[0] == 1
    assert shown([str(figure1), "--by", "bench_eu", "--pareto"], capsys)[0] == 2


@pytest.mark.parametrize("by", [[], ["--by", ""], ["--by", " , "]])
def test_without_columns_those_that_may_be_named_are_listed(
    by: list[str], figure1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, wrong = shown([str(figure1), "--by", "bench_ue"], capsys)
    code, out, err = shown([str(figure1), *by], capsys)
    listed = "Columns: bench_eu, mt_eu, ifeval_eu. Tasks: "
    assert (code, out) == (2, "") and "name at least one column" in err
    assert err[err.index(listed) :].split() == wrong[wrong.index(listed) :].split()


def test_of_nothing_measured_nothing_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "x", {}, [MadePoint("m", state="unfinished")], ["t_eu"], lambda *_: 0.5)
    assert "Columns: none whole. Tasks: none measured yet." in shown([str(tmp_path)], capsys)[2]


@pytest.fixture
def merged(llama: dict[str, Path], tmp_path: Path) -> Path:
    """A run with one real merge in it, whose scores are invented and whose signature is its own."""
    from merge_hooks.recipe.recipe import Recipe
    from merge_hooks.recipe.signature import sign
    from merge_hooks.resolve.resolver import resolve

    models = [{"model": str(llama[name]), "parameters": {"weight": 1.0}} for name in ("instruct", "basque")]
    text = yaml.safe_dump({"merge_method": "linear", "models": models, "dtype": "float32"}, sort_keys=False)
    signature = sign(resolve(Recipe(text, "test")), dtype="float32", tokenizer="t", template="t", engine="transformers")
    folder = figure1_run(tmp_path / "run", ("eu",), ("linear",), ("1.0",))
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    store = Store(folder / FILE)
    for entry in plan["points"]:
        entry["recipe"] = text
        result = store.results(entry["evaluations"][0]["key"])
        assert result is not None
        result["config"]["iberian"]["signature"] = str(signature)
        store.finish(entry["evaluations"][0]["key"], "", result, {}, 1.0, [])
    store.close()
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_export_writes_the_checkpoint_with_its_scores(
    merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"
    code, _, err = shown([str(merged), "--by", "bench_eu", "--export", str(out)], capsys)
    assert code == 0, err
    card = (out / "README.md").read_text(encoding="utf-8")
    point = find_best(read_sweep_run(merged), ["bench_eu"]).best.point
    result = point.results[0]
    assert result["config"]["iberian"]["signature"] in card
    for task in figure1_tasks(("eu",)):
        assert f"| {task} | " in card
    assert (
        f"| iberian_eus_trivia | acc | {result['results']['iberian_eus_trivia']['acc,none']:.4f} | no chat template |"
        in card
    )
    assert (out / "model.safetensors").is_file()


def test_export_refuses_scores_of_another_merge(
    merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = merged / "plan.json"
    plan.write_text(plan.read_text(encoding="utf-8").replace("weight: 1.0", "weight: 0.9"), encoding="utf-8")
    code, _, err = shown([str(merged), "--by", "bench_eu", "--export", str(tmp_path / "merged")], capsys)
    assert code == 1
    assert "they are of another merge" in err
    assert not (tmp_path / "merged").exists()
