"""The sweeps that ship: they span the paper's points, and their recipes are mergekit's and merge_hooks' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lm_eval_iberian.benchmarks.table import columns, of_column
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.sweep.plan import make_plan
from lm_eval_iberian.sweep.spec import Point, presets, read_sweep

MODELS = {"basque": "org/basque", "galician": "org/galician", "catalan": "org/catalan", "spanish": "org/spanish"}
METHODS = {"linear": "linear", "task arithmetic": "task_arithmetic", "DARE": "dare", "DARE as run": "dare_as_run",
           "breadcrumbs": "breadcrumbs", "nearswap": "nearswap"}  # fmt: skip
BY_CODE = {"eu": "basque", "gl": "galician", "ca": "catalan", "es": "spanish"}
WITH_METHODS = ["figure1", "table5", "table6"]


def points(name: str, **given: Any) -> list[Point]:
    return read_sweep(f"preset:merge_and_conquer/{name}", {**MODELS, **given}).points


def test_every_preset_is_here_and_says_what_it_is() -> None:
    ours = [name for name in presets() if name.startswith("merge_and_conquer/")]
    assert ours == [f"merge_and_conquer/{name}" for name in ("figure1", "table3", "table5", "table6")]
    for name in ours:
        assert "Merge and Conquer" in read_sweep(f"preset:{name}", MODELS).data["about"]


@pytest.mark.parametrize(
    ("name", "merges"),
    [
        ("figure1", 2 * 4 * 4),  # methods, languages, weights
        ("table3", 4 + 1),  # languages, and all of them in one
        ("table5", 6 * 4),
        ("table6", 6 * 4),
    ],
)
def test_points(name: str, merges: int) -> None:
    made = points(name)
    assert sum(point.role == "merge" for point in made) == merges
    assert [point.name for point in made if point.role == "baseline"] == (
        ["base", "joint-EU"] if name == "table3" else []
    )


@pytest.mark.parametrize("name", ["figure1", "table3", "table5", "table6"])
def test_recipes_are_accepted_by_mergekit_and_by_the_lint(name: str) -> None:
    from mergekit.config import MergeConfiguration

    for point in points(name):
        MergeConfiguration.model_validate(yaml.safe_load(point.recipe.text))
        messages = [finding.message for finding in point.recipe.findings]
        if point.labels.get("method") == "DARE as run":  # that nothing is dropped is the point of it
            assert len(messages) == 2
            assert all("`density` is 1: `dare_ties` prunes nothing" in message for message in messages)
        else:
            assert messages == []


@pytest.mark.parametrize("name", WITH_METHODS)
def test_recipes_are_those_of_merge_hooks(name: str) -> None:
    from merge_hooks.recipe.presets import fill

    for point in points(name):
        arguments: dict[str, Any] = {
            "base": "Qwen/Qwen3-8B-Base" if name == "table6" else "meta-llama/Llama-3.1-8B",
            "instruct": "Qwen/Qwen3-8B" if name == "table6" else "meta-llama/Llama-3.1-8B-Instruct",
            "language": MODELS[BY_CODE[point.labels["language"]]],
        }
        if "weight" in point.labels:
            arguments["weight"] = float(point.labels["weight"])
        method = METHODS[point.labels["method"]]
        expected = yaml.safe_load(fill(f"merge_and_conquer/{method}", dict(arguments)).text)
        found = yaml.safe_load(point.recipe.text)
        # Where the base model comes first, the tokenizer is the instruct model's all the same.
        assert found.get("tokenizer_source") == (
            arguments["instruct"] if found.get("base_model") == arguments["base"] else None
        )
        assert found == expected


def test_table3_is_linear_and_the_joint_merge() -> None:
    from merge_hooks.recipe.presets import fill

    instruct = {"instruct": "meta-llama/Llama-3.1-8B-Instruct"}
    made = {point.name: yaml.safe_load(point.recipe.text) for point in points("table3")}
    for code, name in BY_CODE.items():
        arguments = {**instruct, "language": MODELS[name], "weight": 1.0}
        assert made[f"language={code}"] == yaml.safe_load(fill("merge_and_conquer/linear", arguments).text)
    expected = yaml.safe_load(fill("merge_and_conquer/linear_multi", {**instruct, **MODELS}).text)
    assert made["multi"] == expected


def _leaves(names: tuple[str, ...]) -> set[str]:
    """Leaf tasks of tasks and groups, by the YAML of tasks/_groups and the exams' own group."""
    folder = Path(__file__).resolve().parents[3] / "tasks" / "_groups"
    found: set[str] = set()
    for name in names:
        group = folder / f"{name}.yaml"
        if group.is_file():
            found |= _leaves(tuple(yaml.safe_load(group.read_text(encoding="utf-8"))["task"]))
        elif name == "iberian_eus_exams_eu":
            found |= set(next(one for one in of_column("bench_eu") if one.name == "EusExams").tasks)
        elif name in ("iberian_bertaqa_eu", "iberian_bertaqa_en"):
            found |= {f"{name}_{part}" for part in ("global", "local")}
        else:
            found.add(name)
    return found


def _of(column: str) -> set[str]:
    return {task for benchmark in of_column(column) for task in benchmark.tasks}


@pytest.mark.parametrize("name", WITH_METHODS)
def test_a_language_is_measured_on_what_the_paper_averages(name: str) -> None:
    for point in points(name):
        code = point.labels["language"]
        plain, *runs = point.evaluations
        assert _leaves(plain.tasks) == _of(f"bench_{code}") | _of(f"mt_{code}")
        assert [run.seed for run in runs] == [0, 1, 2]
        for run in runs:
            assert _leaves(run.tasks) == _of(f"ifeval_{code}")
            assert run.settings["gen_kwargs"]["do_sample"] is True
            assert run.settings["gen_kwargs"]["temperature"] > 0


def test_table3_measures_every_average() -> None:
    for point in points("table3"):
        plain, *runs = point.evaluations
        assert _leaves(plain.tasks) == {
            task for kind in ("bench", "mt") for column in columns(kind) for task in _of(column)
        }
        assert [_leaves(run.tasks) for run in runs] == 3 * [
            {task for column in columns("ifeval") for task in _of(column)}
        ]


def test_a_model_without_a_public_name_must_be_given_unless_its_language_is_left_out() -> None:
    with pytest.raises(SweepError, match=r"--set galician=\.\.\., --set catalan=\.\.\., --set spanish="):
        read_sweep("preset:merge_and_conquer/figure1")
    basque = read_sweep("preset:merge_and_conquer/figure1", {"language": "eu"}).points
    assert {point.labels["language"] for point in basque} == {"eu"}
    assert len(basque) == 8


def test_labels_of_an_axis_may_be_chosen_in_any_order() -> None:
    made = points("table5", language=["es", "eu"], method="nearswap")
    assert [point.name for point in made] == ["method=nearswap language=es", "method=nearswap language=eu"]


def test_an_unknown_preset_names_those_that_are() -> None:
    with pytest.raises(SweepError, match=r"merge_and_conquer/figure1, merge_and_conquer/table3"):
        read_sweep("preset:merge_and_conquer/figure2")


@pytest.mark.slow
def test_all_methods_share_one_engine_and_the_chat_template(llama: dict[str, Path]) -> None:
    """The base has neither the template nor the end tokens of the instruct model."""
    tiny = {"model": str(llama["basque"]), "tasks": ["iberian_eus_trivia"], "instructions": ["ifeval_eu"]}
    given = {"base": str(llama["base"]), "instruct": str(llama["instruct"]), "language": "eu", "language.eu": tiny,
             "model_args": {"backend": "hf", "device": "cpu"}, "limit": 2, "parents": False}  # fmt: skip
    plan = make_plan(read_sweep("preset:merge_and_conquer/table5", given))
    assert [point.problem for point in plan.points] == [""] * 6
    assert len({point.engine for point in plan.points}) == 1
    assert {point.chat for point in plan.points} == {(True, True)}
