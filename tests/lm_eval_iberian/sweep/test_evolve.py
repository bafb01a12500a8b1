"""Weighted sums as objectives, and `iberian tune --from`: held against mergekit-evolve's own genome and score."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from lm_eval_iberian.commands import main as cli
from lm_eval_iberian.compare.best import BestError, find_best, goals_of, sum_name, terms_of
from lm_eval_iberian.compare.columns import Scores
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.runs.point import SweepPoint
from lm_eval_iberian.runs.run import SweepRun, read_sweep_run
from lm_eval_iberian.runs.store import FILE, Store
from lm_eval_iberian.tune.evolve import Evolved, count_layers, evolved, read_evolve
from lm_eval_iberian.tune.space import Space, check_space, make_space
from tests.conftest import first_ones
from tests.lm_eval_iberian.sweep.tuning import OPTIMUM, OTHER, TASK, Invented, search
from tests.lm_eval_iberian.sweep_maker import MadePoint, figure1_run, toy_run, write_run

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "lm_eval_iberian" / "tune" / "mergekit_evolve.md"


# Weighted sums


def change(folder: Path, made: Callable[[str, dict[str, Any]], None]) -> SweepRun:
    """Change every point's results (name, results), and read the folder."""
    store = Store(folder / FILE)
    for point in read_sweep_run(folder).points:
        if point.results:
            result = point.results[0]
            made(point.name, result)
            store.finish(point.evaluations[0].key, point.name, result, {}, 1.0, [])
    store.close()
    return read_sweep_run(folder)


@pytest.fixture(scope="module")
def toys_run(tmp_path_factory: pytest.TempPathFactory) -> SweepRun:
    """Tasks that no table knows, with a perplexity and two filters; the last point's perplexity is below 1."""

    def add(name: str, result: dict[str, Any]) -> None:
        scores = result["results"]["toy_choice_eu"]
        lowest = name == "weight=1.0"
        scores |= {"word_perplexity,none": 0.8 if lowest else 12.5, "word_perplexity_stderr,none": 0.1}
        scores |= {"exact_match,strict": 0.25, "exact_match_stderr,strict": 0.02, "exact_match,loose": 0.75}
        result["higher_is_better"] = {"toy_choice_eu": {"acc": True, "word_perplexity": False, "exact_match": True}}

    return change(toy_run(tmp_path_factory.mktemp("toys") / "run"), add)


def figure(run: SweepRun, name: str, point: str) -> Any:
    (goal,) = goals_of(Scores(run), [name])
    return goal.score(Scores(run), run[point])


def test_a_weighted_sum_by_hand(toys_run: SweepRun) -> None:
    """Shares in percent, BLEU and perplexities as lm_eval writes them; the same scale for all points."""
    name = "toy_choice_eu:acc + 0.5*toy_translation_en-eu:bleu + -2*toy_choice_eu:word_perplexity"
    for point in (one for one in toys_run.points if one.results):
        results = point.results[0]["results"]
        choice, translation = results["toy_choice_eu"], results["toy_translation_en-eu"]
        expected = 100 * choice["acc,none"] + 0.5 * translation["bleu,none"] - 2 * choice["word_perplexity,none"]
        score = figure(toys_run, name, point.name)
        assert score.value == pytest.approx(expected, abs=1e-9)
        errors = (100 * choice["acc_stderr,none"], 0.5 * translation["bleu_stderr,none"], 2 * 0.1)
        assert score.stderr == pytest.approx(math.hypot(*errors))
        assert score.chance == 0.0 and score.deviation is None


@pytest.fixture(scope="module")
def truth_run(tmp_path_factory: pytest.TempPathFactory) -> SweepRun:
    """A benchmark whose metric is a share that only the suite knows as one."""
    points = [MadePoint("weight=1.0", "merge", {"weight": "1.0"})]
    folder = tmp_path_factory.mktemp("truth") / "run"
    return read_sweep_run(write_run(folder, "truth", {"weight": ["1.0"]}, points, [TRUTH], lambda *_: 0.5))


TRUTH = "iberian_veritasqa_gl"


@pytest.mark.parametrize("column", [TRUTH, f"{TRUTH}:mc1", f"{TRUTH}:mc1,none"])
def test_a_metric_that_tables_show_in_percent_is_added_in_percent(truth_run: SweepRun, column: str) -> None:
    """Also where it is named: MC1 was a hundredth of what it is in tables. mergekit-evolve's sum stays the same."""
    written = truth_run["weight=1.0"].results[0]["results"][TRUTH]["mc1,none"]
    assert 0 < written < 1
    assert figure(truth_run, f"2*{column}", "weight=1.0").value == pytest.approx(200 * written)
    objective = make_space(
        read(GENOME, [{"name": TRUTH, "metric": "mc1,none", "weight": 0.5}]).data, "e", None
    ).objectives[0]
    assert figure(truth_run, objective, "weight=1.0").value == pytest.approx(100 * 0.5 * written)


def test_an_f1_in_percent_is_added_in_percent(toys_run: SweepRun, tmp_path: Path) -> None:
    """SQuAD 2 writes it so: 75.3 was added as 7530. A share above 1 of a task that is not known so is no score."""

    def add(name: str, result: dict[str, Any]) -> None:
        for task in ("squadv2", "own_task"):
            result["results"][task] = {"f1,none": 75.3, "f1_stderr,none": 1.5}
            result["configs"][task] = {}

    run = change(toy_run(tmp_path / "run"), add)
    score = figure(run, "squadv2:f1 + 0.5*toy_choice_eu:acc", "weight=1.0")
    accuracy = run["weight=1.0"].results[0]["results"]["toy_choice_eu"]["acc,none"]
    assert score.value == pytest.approx(75.3 + 50 * accuracy)
    assert figure(run, "1*squadv2:f1", "weight=1.0").stderr == pytest.approx(1.5)
    (goal,) = goals_of(Scores(run), ["squadv2:f1"])
    assert goal.score(Scores(run), run["weight=1.0"]).value == 75.3
    refused = figure(run, "own_task:f1 + 0.5*toy_choice_eu:acc", "weight=1.0")
    assert refused.value is None and "f1 is 75.3, which it cannot be" in refused.problems[0]


def test_a_filter_is_taken_as_it_is_named(toys_run: SweepRun) -> None:
    strict, loose = (
        figure(toys_run, f"2*toy_choice_eu:exact_match,{one}", "weight=1.0") for one in ("strict", "loose")
    )
    assert (strict.value, strict.stderr) == (50.0, 4.0) and (loose.value, loose.stderr) == (150.0, None)
    with pytest.raises(BestError, match=r"no such metric.* exact_match with loose, strict\."):
        figure(toys_run, "2*toy_choice_eu:exact_match,none", "weight=1.0")


def test_where_less_is_better_the_weight_is_negative(toys_run: SweepRun) -> None:
    with pytest.raises(BestError, match=r"less of it is better.*give it a negative weight"):
        figure(toys_run, "0.1*toy_choice_eu:word_perplexity", "weight=1.0")


def test_averages_weigh_as_one_column(tmp_path: Path) -> None:
    """And the test of the lead is of the sum: its value is the difference of the two."""
    run = read_sweep_run(figure1_run(tmp_path / "run", ("eu",), ("linear",), documents=60))
    name = "bench_eu + 0.25*ifeval_eu"
    found = find_best(run, [name])
    for one in found.ranked:
        bench, ifeval = (figure(run, column, one.point.name).value for column in ("bench_eu", "ifeval_eu"))
        assert one.mean == pytest.approx(bench + 0.25 * ifeval)
    order = [one.point.name for one in found.ranked]
    assert order != [one.point.name for one in find_best(run, ["bench_eu", "ifeval_eu"]).ranked]
    assert found.lead is not None, found.no_test
    assert found.lead.value == pytest.approx(found.ranked[0].mean - found.ranked[1].mean, abs=1e-3)


def test_a_failed_task_leaves_no_score_and_no_part_of_one(tmp_path: Path) -> None:
    def fail(name: str, result: dict[str, Any]) -> None:
        if name == "weight=1.0":
            result["results"]["toy_choice_gl"]["acc,none"] = float("nan")

    run = change(toy_run(tmp_path / "run"), fail)
    name = "toy_choice_eu:acc + 0.001*toy_choice_gl:acc"
    assert figure(run, name, "weight=1.0").value is None
    found = find_best(run, [name])
    assert "weight=1.0" in [one.point.name for one in found.refused]
    assert found.best.point.name != "weight=1.0" == find_best(run, ["toy_choice_eu"]).best.point.name


@pytest.mark.parametrize("name", ["a + 2*a", "0*a", "1*", "2*3*a", "x*a", "nan*a"])
def test_a_sum_that_means_nothing(name: str) -> None:
    with pytest.raises(BestError, match="each column once, and no weight of 0"):
        terms_of(name)


def test_a_sum_has_one_name() -> None:
    terms = {"bench_eu": 1.0, "gsm8k:exact_match,strict-match": 0.1, "wiki:word_perplexity": -1e-05, "a": 1 / 3}
    assert (
        sum_name(terms) == f"1*bench_eu + 0.1*gsm8k:exact_match,strict-match + -1e-05*wiki:word_perplexity + {1 / 3}*a"
    )
    assert terms_of(sum_name(terms)) == terms
    assert terms_of(".5*a + 1e+2*b + c") == {"a": 0.5, "b": 100.0, "c": 1.0} and terms_of("c") == {"c": 1.0}


def space(**changes: Any) -> Space:
    pytest.importorskip("optuna")
    models = [{"model": "a", "parameters": {"weight": "$weight"}}, {"model": "b", "parameters": {"weight": 1.0}}]
    data = {"tasks": [TASK], "recipe": {"merge_method": "linear", "models": models},
            "search": {"weight": {"low": 0, "high": 1}}, "objective": [TASK]}  # fmt: skip
    return check_space({**data, **changes}, "space")


def test_a_space_says_sums_and_columns() -> None:
    assert space(objective={"bench_eu": 1, "ifeval_eu": 0.5}).objectives == ("1*bench_eu + 0.5*ifeval_eu",)
    several = space(objective=["mt_eu", {"bench_eu": 1, "ifeval_eu": 0.5}, "a + 2*b"])
    assert several.objectives == ("mt_eu", "1*bench_eu + 0.5*ifeval_eu", "a + 2*b") and several.sampler[0] == "nsgaii"
    assert space(objective="a + 2*b:exact_match,strict").objectives == ("a + 2*b:exact_match,strict",)
    assert space(objective="a,b").objectives == ("a", "b")
    assert space(objective={"a": 1, "b": 2}, rungs=[5]).rungs == (5,), "a sum is one objective"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"objective": {"a": 0}}, "no weight of 0"),
        ({"objective": {"a": "high"}}, "objective: a: give a number"),
        ({"objective": {"a": True}}, "objective: a: give a number"),
        ({"objective": {}}, "give `objective:`"),
        ({"begin": {"weight": 3}}, "begin: weight: 3 is not among what is searched"),
        ({"begin": {"wieght": 1}}, "begin: give a value for each of weight"),
        ({"begin": {"weight": 0.3}, "search": {"weight": {"low": 0, "high": 1, "step": 0.2}}}, "not among what is searched"),
        ({"begin": {"weight": 2}, "search": {"weight": [0, 1]}}, "begin: weight: 2: there are 0, 1"),
        ({"begin": {"weight": 1}, "sampler": "grid", "search": {"weight": [0, 1]}}, "a grid is walked in its own order"),
    ],
)  # fmt: skip
def test_mistakes_are_said(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(SweepError) as raised:
        space(**changed)
    assert words in str(raised.value)


# mergekit-evolve's configurations

GENOME: dict[str, Any] = {"models": ["org/A", "org/B"], "merge_method": "linear"}
TASKS: list[Any] = [{"name": TASK}, {"name": OTHER, "weight": 0.5, "metric": "acc,none"}]


def read(genome: dict[str, Any], tasks: Any = None, layers: int = 4, **other: Any) -> Evolved:
    data = {"genome": genome, "tasks": TASKS if tasks is None else tasks} | other
    return evolved(data, "evolve.yml", Path(), lambda model: layers)


def test_what_a_configuration_says() -> None:
    found = read(GENOME, limit=20, num_fewshot=3).data
    assert {key: found[key] for key in ("tasks", "limit", "num_fewshot", "model_args", "parents", "trials")} == {
        "tasks": [TASK, OTHER], "limit": 20, "num_fewshot": 3, "model_args": {"dtype": "bfloat16"}, "parents": False,
        "trials": 100,
    }  # fmt: skip
    assert found["apply_chat_template"] is found["fewshot_as_multiturn"] is True
    assert found["objective"] == {f"{TASK}:acc,none": 1.0, f"{OTHER}:acc,none": 0.5}
    assert found["search"] == {"weight_A": {"low": 0.0, "high": 1.0}, "weight_B": {"low": 0.0, "high": 1.0}}
    assert found["begin"] == {"weight_A": 0.5, "weight_B": 0.5}
    assert "begin" not in read(GENOME, random_init=True).data
    plain = read(GENOME, apply_chat_template=False).data
    assert plain["apply_chat_template"] is plain["fewshot_as_multiturn"] is False
    assert read(GENOME, tasks=["a", "a", {"name": "a", "metric": "bleu,none", "weight": 2}]).data["objective"] == {
        "a:acc,none": 2.0, "a:bleu,none": 200.0,
    }  # fmt: skip
    wide = read({**GENOME, "normalize": False, "allow_negative_weights": True}).data
    assert (
        wide["search"]["weight_A"] == {"low": -2.0, "high": 2.0} and wide["recipe"]["parameters"]["normalize"] is False
    )
    alike = read({**GENOME, "models": ["one/A", "two/A"]}).data["search"]
    assert list(alike) == ["weight_A_1", "weight_A_2"]


@pytest.mark.parametrize(
    ("genome", "other", "words"),
    [
        ({}, {"shuffle": True}, "shuffle: here all trials are measured on the same documents"),
        ({}, {"tsaks": 1}, "Did you mean `tasks`?"),
        ({"filter": ["mlp"]}, {}, "Did you mean `filters`?"),
        ({"merge_method": "della"}, {}, "mergekit-evolve knows linear"),
        ({"merge_method": "ties"}, {}, "base_model: ties needs one"),
        ({"models": ["org/A"]}, {}, "two models or more"),
        ({"models": ["org/A", 3]}, {}, "name each model"),
        ({"layer_granularity": 3}, {}, "the models have 4 layers"),
        ({"layer_granularity": True}, {}, "a whole number of layers"),
        ({"normalize": "no"}, {}, "normalize: 'no': write true or false"),
        ({"filters": "mlp"}, {}, "filters: give a list"),
        ({"filters": ["mlp", "mlp"]}, {}, "filters: mlp, mlp: two of them are alike"),
        ({"base_model": "org/C"}, {}, "a linear merge has none"),
        ({"merge_method": "slerp", "models": ["a", "b", "c"]}, {}, "slerp of 3 models"),
        ({"merge_method": "slerp", "base_model": "org/C"}, {}, "slerp merges two models, and this would be a third"),
        ({"merge_method": "slerp", "smooth": True}, {}, "smooth: slerp knows none"),
        ({}, {"tasks": []}, "tasks: give a list"),
        ({}, {"tasks": [{"name": "a", "weight": 0}]}, "entry 1: weight: 0"),
        ({}, {"tasks": ["a", {"name": "a", "weight": float("nan")}]}, "entry 2: weight: nan"),
        ({}, {"tasks": [{"name": "a", "wieght": 1}]}, "Did you mean `weight`?"),
        ({}, {"tasks": [{"metric": "acc"}]}, "give `name:`"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(genome: dict[str, Any], other: dict[str, Any], words: str) -> None:
    with pytest.raises(SweepError) as raised:
        read({**GENOME, **genome}, **other)
    assert words in str(raised.value)


@pytest.mark.parametrize("text", ["a: [", "genome: {models: 1, models: 2}", "- a", "genome: {}", "a: 2024-01-01", ""])
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "evolve.yml"
    path.write_text(text)
    with pytest.raises(SweepError, match=r"evolve\.yml"):
        read_evolve(path)
    with pytest.raises(SweepError, match="no such file"):
        read_evolve(tmp_path / "none.yml")


KINDS: dict[str, dict[str, Any]] = {
    "linear in groups": {"merge_method": "linear", "layer_granularity": 2, "normalize": False},
    "ties of parts": {"merge_method": "ties", "filters": ["self_attn", "mlp"]},
    "arithmetic": {"merge_method": "task_arithmetic", "layer_granularity": 1, "filters": ["mlp"], "allow_negative_weights": True},
    "smooth": {"merge_method": "task_arithmetic", "layer_granularity": 2, "smooth": True, "filters": ["self_attn"]},
    "slerp": {"merge_method": "slerp", "layer_granularity": 2},
    "slerp of all": {"merge_method": "slerp"},
    "linear": {"merge_method": "linear"},
    "its own base": {"merge_method": "ties", "base": "instruct"},
}  # fmt: skip


@pytest.mark.parametrize("kind", first_ones([*KINDS], 1))
def test_recipes_are_those_of_mergekit_evolve(kind: str, llama: dict[str, Path]) -> None:
    """One genotype in both: every tensor of the merge is the same."""
    import torch

    from merge_hooks.recipe.recipe import Recipe
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream

    genome_module = pytest.importorskip("mergekit.evo.genome")
    written = dict(KINDS[kind])
    base = str(llama[written.pop("base", "base")])
    genome = {"models": [str(llama["instruct"]), str(llama["basque"])]} | written
    if genome["merge_method"] not in ("linear", "slerp"):
        genome["base_model"] = base
    theirs = genome_module.ModelGenome(genome_module.ModelGenomeDefinition.model_validate(genome))
    shape = theirs.initial_genotype().shape
    values = 0.1 + 0.8 * torch.rand(shape, generator=torch.Generator().manual_seed(4))
    found = evolved({"genome": genome, "tasks": TASKS}, "e", Path(), lambda model: count_layers(model, Path()))
    assert max(map(len, found.data["search"])) < 60
    named = ours(found.data["search"], values, genome)
    recipe = (
        make_space(found.data, "e", None).sweep({axis: (str(v), v) for axis, v in named.items()}, 0).points[0].recipe
    )
    expected = theirs.genotype_merge_config(values).to_yaml()
    streams = [dict(open_stream(resolve(one))) for one in (recipe, Recipe(expected, "theirs"))]
    assert streams[0].keys() == streams[1].keys() and len(streams[0]) > 20
    for name, tensor in streams[0].items():
        assert torch.equal(tensor, streams[1][name]), name


def ours(search: dict[str, Any], values: Any, genome: dict[str, Any]) -> dict[str, float]:
    """The axes' values for a genotype (groups, models, filters, parameters)."""
    if genome["merge_method"] == "slerp":  # the higher weight is the base; t is the share of the other
        values[..., 0, 0, 0] = values[..., 1, 0, 0] + values[..., 0, 0, 0]
        weights = values[:, :, 0, 0]
        return dict(zip(search, weights.softmax(1)[:, 1].tolist(), strict=True))
    parameters = ["weight", "density"][: values.shape[3]]
    filters = [*(genome.get("filters") or []), "rest"]
    size = genome.get("layer_granularity", 0)
    named = {}
    for (group, model, part, parameter), value in flat(values):
        axis = f"{parameters[parameter]}_{Path(genome['models'][model]).name}"
        axis += f"_{filters[part]}" if len(filters) > 1 else ""
        axis += f"_layers_{group * size}_{group * size + size - 1}" if size else ""
        named[axis] = value
    return {axis: value for axis, value in named.items() if axis in search}


def flat(values: Any) -> list[tuple[tuple[int, ...], float]]:
    import torch

    return [(tuple(place.tolist()), float(values[tuple(place)])) for place in torch.nonzero(values > -9)]


def their_score(results: dict[str, Any], tasks: list[dict[str, Any]]) -> float:
    """What mergekit-evolve makes of results of lm_eval."""
    pytest.importorskip("ray")
    helpers = pytest.importorskip("mergekit.evo.helpers")
    from mergekit.evo.config import TaskConfiguration

    with patch.object(helpers.lm_eval, "simple_evaluate", lambda **_: {"results": results}):
        configured = [TaskConfiguration.model_validate(task) for task in tasks]
        return float(helpers._eval_model("hf", configured)["score"])


@pytest.mark.slow
def test_the_score_is_that_of_mergekit_evolve(toys_run: SweepRun) -> None:
    """Their code on the same results; it imports ray."""
    tasks = [{"name": "toy_choice_eu", "weight": 0.7}, {"name": "toy_translation_en-eu", "metric": "bleu,none", "weight": 0.01},
             {"name": "toy_choice_eu", "metric": "word_perplexity,none", "weight": -0.03},
             {"name": "toy_choice_eu", "metric": "exact_match,strict", "weight": 2}]  # fmt: skip
    objective = make_space(read(GENOME, tasks).data, "e", None).objectives[0]
    for point in (one for one in toys_run.points if one.results):
        theirs = their_score(point.results[0]["results"], tasks)
        assert figure(toys_run, objective, point.name).value == pytest.approx(100 * theirs, abs=1e-9)


# The command


@pytest.fixture
def write_evolve(tmp_path: Path, llama: dict[str, Path]) -> Callable[..., Path]:
    def write(**other: Any) -> Path:
        genome = {"models": [str(llama["instruct"]), str(llama["basque"])], "merge_method": "linear"}
        path = tmp_path / "evolve.yml"
        path.write_text(yaml.safe_dump({"genome": genome, "tasks": TASKS} | other))
        return path

    return write


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


def test_a_dry_run_prints_a_space_that_finds_the_optimum(
    write_evolve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    code, out, err = run(["tune", "--from", str(write_evolve()), "--trials", "3", "--dry-run"], capsys)
    assert code == 0 and "evolve.yml: Weights go from 0 to 1; mergekit-evolve sets no bounds." in err
    assert "100 times that of mergekit-evolve" in err and "Optuna's TPE" in err
    path = tmp_path / "space.yml"
    path.write_text(out.replace("model_args:", "model_args:\n  backend: hf\n  device: cpu"))
    tuner = search(path, tmp_path / "run")
    first = tuner.study.trials[0]
    assert first.params == {"weight_instruct": 0.5, "weight_basque": 0.5}, "it begins where mergekit-evolve does"
    for trial in tuner.study.trials:
        weight = trial.params["weight_basque"]
        expected = 100 * (0.9 - 0.2 * abs(weight - OPTIMUM)) + 0.5 * 100 * (0.9 - 0.3 * weight)
        assert trial.values == [pytest.approx(expected)]
    assert len(tuner.study.trials) == 3


def test_a_trial_without_one_of_its_tasks_fails(write_evolve: Any, tmp_path: Path) -> None:
    class Half(Invented):
        def finished(self, job: Any, handle: Any) -> Any:
            found = super().finished(job, handle)
            found.results["results"][OTHER]["acc,none"] = float("nan")
            return found

    found = read_evolve(write_evolve())
    path = tmp_path / "space.yml"
    path.write_text(yaml.safe_dump(found.data | {"trials": 1, "model_args": {"backend": "hf", "device": "cpu"}}))
    (trial,) = search(path, tmp_path / "run", Half()).study.trials
    assert trial.state.name == "FAIL" and trial.values is None
    assert "no number for acc,none" in trial.user_attrs["reason"]


def test_a_metric_has_one_scale_in_all_trials(write_evolve: Any, tmp_path: Path) -> None:
    """A ROUGE of 0.4 in a hundred is no 40."""

    class Rouge(Invented):
        def finished(self, job: Any, handle: Any) -> Any:
            found = super().finished(job, handle)
            found.results["results"][TASK]["rouge,none"] = 0.4 if len(self.jobs) == 1 else 30.0
            return found

    data = read_evolve(write_evolve()).data | {"objective": f"{TASK}:rouge", "trials": 2}
    path = tmp_path / "space.yml"
    path.write_text(yaml.safe_dump(data | {"model_args": {"backend": "hf", "device": "cpu"}}))
    assert [trial.values for trial in search(path, tmp_path / "run", Rouge()).study.trials] == [[0.4], [30.0]]


def test_best_takes_a_sum(toys_run: SweepRun, capsys: pytest.CaptureFixture[str]) -> None:
    name = "toy_choice_eu:acc + 0.5*toy_choice_eu:exact_match,strict"
    code, out, err = run(["best", str(toys_run.folder), "--by", name, "--json"], capsys)
    assert code == 0, err
    (found,) = find_best(toys_run, [name]).best.values
    assert json.loads(out)["ranked"][0]["columns"] == {name: found}
    assert json.loads(out)["added_as_written"] == []


def test_best_says_what_it_adds_on_a_scale_that_it_does_not_know(
    toys_run: SweepRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A ROUGE of 0.7 beside accuracies in percent is a hundredth of one."""

    def add(name: str, result: dict[str, Any]) -> None:
        result["results"]["toy_choice_eu"]["rougeL,none"] = 0.7

    run_ = change(toy_run(tmp_path / "run"), add)
    name = "toy_choice_eu:rougeL + 1*toy_choice_eu:acc + 1*toy_translation_en-eu:bleu"
    _, out, _ = run(["best", str(run_.folder), "--by", name], capsys)
    said = "Added as lm_eval writes it, for what a full score of it is, is not known here: toy_choice_eu:rougeL."
    assert said in out.splitlines()
    assert "Added as lm_eval" not in run(["best", str(run_.folder), "--by", "toy_choice_eu:rougeL"], capsys)[1]


@pytest.mark.parametrize("arguments", [["tune"], ["tune", "space.yml", "--from", "evolve.yml"]])
def test_one_of_the_two_is_given(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(arguments, capsys)
    assert code == 2 and "Give SPACE, or --from" in err


@pytest.mark.slow
def test_from_end_to_end(write_evolve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With an engine: each trial's value is 100 times mergekit-evolve's score of the results that lie in the folder."""
    optuna = pytest.importorskip("optuna")
    path = write_evolve(limit=4, apply_chat_template=False)
    folder = tmp_path / "run"
    arguments = [
        "tune",
        "--from",
        str(path),
        "--trials",
        "3",
        "--out",
        str(folder),
        "--set",
        "model_args={backend: hf, device: cpu}",
    ]
    code, out, err = run(arguments, capsys)
    assert code == 0, err
    assert f"The best by 1*{TASK}:acc,none + 0.5*{OTHER}:acc,none: weight_instruct=" in out
    study = optuna.load_study(study_name="tune", storage=f"sqlite:///{folder / 'optuna.sqlite'}")
    points: dict[str, SweepPoint] = {point.name: point for point in read_sweep_run(folder).points}
    assert len(study.trials) == 3 and {point.role for point in points.values()} == {"merge"}
    for trial in study.trials:
        results = points[trial.user_attrs["point"]].results[0]["results"]
        assert trial.value == pytest.approx(100 * their_score(results, TASKS), abs=1e-9)
    best = max(study.trials, key=lambda trial: trial.value)
    assert f"The best by 1*{TASK}:acc,none + 0.5*{OTHER}:acc,none: {best.user_attrs['point']}\n" in out
    assert json.loads((folder / "plan.json").read_text())["name"] == "evolve"


def test_the_configuration_on_the_page_is_read() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    found = evolved(yaml.safe_load(blocks[0]), "page", Path(), lambda model: 32)
    assert make_space(found.data, "page", None).trials == 100
    pytest.importorskip("mergekit.evo.config").EvolMergeConfiguration.model_validate(yaml.safe_load(blocks[0]))
