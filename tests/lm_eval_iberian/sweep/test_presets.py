"""The sweeps that ship: they span the paper's points, and their recipes are mergekit's and merge_hooks' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lm_eval_iberian.benchmarks.benchmark import PAPER_COLUMNS
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
            task for column in PAPER_COLUMNS if column.startswith(("bench_", "mt_")) for task in _of(column)
        }
        assert [_leaves(run.tasks) for run in runs] == 3 * [
            {task for column in columns("ifeval") for task in _of(column)}
        ]


# The second paper -----------------------------------------------------------------------------------------------------

CODES = {"en": "english", "de": "german", "fr": "french", "ja": "japanese", "zh": "chinese"}
BY_LANGUAGE = {code: f"org/{name}" for code, name in CODES.items()}
BY_TASK = {task: {code: f"org/{task}-{code}" for code in CODES} for task in ("reasoning", "summarization", "sentiment")}
FOUR = {"TIES": "ties", "DARE-TIES": "dare_ties", "KnOTS-TIES": "knots_ties", "KnOTS-DARE-TIES": "knots_dare_ties"}


def of_adapters(name: str) -> list[Point]:
    adapters = BY_LANGUAGE if name in ("table1", "table6") else BY_TASK
    return read_sweep(f"preset:language_specific/{name}", {"instruct": "org/instruct", "adapters": adapters}).points


def adapters_in(models: list[dict[str, Any]]) -> list[str]:
    """The adapters of a merge's models, all of one instruct model, with weights of 1."""
    assert {one["model"]["model"] for one in models} == {"org/instruct"}
    assert {one["parameters"]["weight"] for one in models} == {1.0}
    return [one["model"]["lora"] for one in models]


def test_the_second_papers_sweeps() -> None:
    found = [name for name in presets() if name.startswith("language_specific/")]
    assert found == [f"language_specific/{name}" for name in ("table1", "table6", "table7", "table8")]
    for name in found:
        *merges, last = of_adapters(name.partition("/")[2])
        assert (last.name, last.role) == ("instruct", "baseline")
        assert [point.labels["method"] for point in merges] == [one for one in FOUR for _ in range(len(merges) // 4)]
        assert {one.tasks for point in merges for one in point.evaluations} == {("companion_suite",)}
        assert "2601.16127" in read_sweep(f"preset:{name}", {"instruct": "I", "adapters": "A"}).data["about"]


def test_table_1_is_the_recipes_of_merge_hooks() -> None:
    from merge_hooks.recipe.presets import fill

    merges = [point for point in of_adapters("table1") if point.role == "merge"]
    assert len(merges) == 4 * 2
    for point in merges:
        arguments = {CODES[code]: adapter for code, adapter in BY_LANGUAGE.items()}
        arguments |= {"instruct": "org/instruct", "density": float(point.labels["density"])}
        expected = fill(f"language_specific/{FOUR[point.labels['method']]}", arguments)
        assert yaml.safe_load(point.recipe.text) == yaml.safe_load(expected.text)


def test_clusters_are_merges_of_some_adapters() -> None:
    found = {point.labels["cluster"]: adapters_in(yaml.safe_load(point.recipe.text)["models"])
             for point in of_adapters("table6") if point.role == "merge"}  # fmt: skip
    wanted = {"all five": CODES, "European": ("en", "de", "fr"), "Germanic": ("en", "de"), "East Asian": ("ja", "zh")}
    assert found == {label: [BY_LANGUAGE[code] for code in codes] for label, codes in wanted.items()}
    own = {"instruct": "org/instruct", "adapters": BY_LANGUAGE, "cluster.mine": ["$de", "$zh"]}
    (ties, *_) = [
        point
        for point in read_sweep("preset:language_specific/table6", own).points
        if point.labels.get("cluster") == "mine"
    ]
    assert adapters_in(yaml.safe_load(ties.recipe.text)["models"]) == ["org/german", "org/chinese"]


def test_all_tasks_and_languages_in_one_and_in_two_stages() -> None:
    every = [adapter for of_task in BY_TASK.values() for adapter in of_task.values()]
    for point in of_adapters("table7")[:-1]:
        assert adapters_in(yaml.safe_load(point.recipe.text)["models"]) == every
    for point in of_adapters("table8")[:-1]:
        *stages, last = yaml.safe_load_all(point.recipe.text)
        assert sorted(one for stage in stages for one in adapters_in(stage["models"])) == sorted(every)
        groups = BY_TASK.values() if point.labels["first"] == "languages" else [
            {task: of_task[code] for task, of_task in BY_TASK.items()} for code in CODES
        ]  # fmt: skip
        assert [adapters_in(stage["models"]) for stage in stages] == [list(group.values()) for group in groups]
        assert [one["model"] for one in last["models"]] == [stage["name"] for stage in stages]
        assert {stage["merge_method"] for stage in (*stages, last)} == {FOUR[point.labels["method"]]}
        assert "name" not in last


@pytest.mark.parametrize("name", ["table1", "table6", "table7", "table8"])
def test_the_second_papers_recipes_are_mergekits(name: str) -> None:
    from mergekit.config import MergeConfiguration

    for point in of_adapters(name)[:-1]:
        for stage in yaml.safe_load_all(point.recipe.text):
            MergeConfiguration.model_validate({key: value for key, value in stage.items() if key != "name"})
        assert not [finding.message for finding in point.recipe.findings if finding.is_error]
        assert all("prunes nothing" in finding.message for finding in point.recipe.findings)


def test_adapters_must_be_given() -> None:
    with pytest.raises(SweepError, match=r"give --set instruct=\.\.\., --set adapters=\.\.\."):
        read_sweep("preset:language_specific/table1")
    given = {"instruct": "I", "adapters": {"en": "org/english"}}
    with pytest.raises(SweepError, match=r"\$adapters.de: this value of `adapters` has no `de`"):
        read_sweep("preset:language_specific/table1", given).points[0]


def test_a_model_without_a_public_name_must_be_given_unless_its_language_is_left_out() -> None:
    with pytest.raises(SweepError, match=r"give --set catalan=\.\.\., --set spanish="):
        read_sweep("preset:merge_and_conquer/figure1")
    with pytest.raises(SweepError, match=r"give --set galician=\.\.\., --set catalan="):
        read_sweep("preset:merge_and_conquer/table6")
    basque = read_sweep("preset:merge_and_conquer/figure1", {"language": "eu"}).points
    assert {point.labels["language"] for point in basque} == {"eu"}
    assert len(basque) == 8


@pytest.mark.parametrize(
    ("name", "languages", "on_cards"),
    [
        ("figure1", "eu,gl", {"HiTZ/Latxa-Llama-3.1-8B", "HiTZ/gl_Llama-3.1-8B"}),
        ("table6", "eu,es", {"HiTZ/eu_Qwen3-8B-Base", "HiTZ/es_Qwen3-8B-Base"}),
    ],
)
def test_names_that_were_read_on_cards_are_defaults(name: str, languages: str, on_cards: set[str]) -> None:
    """facts/stack.md, and the cards of the collection."""
    made = read_sweep(f"preset:merge_and_conquer/{name}", {"language": languages.split(",")}).points
    named = {model["model"] for point in made for model in yaml.safe_load(point.recipe.text)["models"]}
    assert {model for model in named if model.startswith("HiTZ/")} == on_cards


def test_labels_of_an_axis_may_be_chosen_in_any_order() -> None:
    made = points("table5", language=["es", "eu"], method="nearswap")
    assert [point.name for point in made] == ["method=nearswap language=es", "method=nearswap language=eu"]


def test_layers_are_swapped_as_an_axis() -> None:
    """Each point takes all 32 layers of both models once, with the language's at both ends and two in transition."""
    made = read_sweep("preset:layer_swapping/layers").points
    merges = [yaml.safe_load(point.recipe.text) for point in made if point.role == "merge"]
    assert [point.labels["swapped"] for point in made if point.role == "merge"] == ["3", "5", "7"]
    for number, recipe in zip((3, 5, 7), merges, strict=True):
        weights = [{name: one["parameters"]["weight"] for one, name in zip(part["sources"], "LI", strict=True)}
                   for part in recipe["slices"]]  # fmt: skip
        assert [one["L"] for one in weights] == [1.0, 0.5, 0.0, 0.5, 1.0]
        assert all(one["L"] + one["I"] == 1 for one in weights)
        ranges = [part["sources"][0]["layer_range"] for part in recipe["slices"]]
        assert ranges == [part["sources"][1]["layer_range"] for part in recipe["slices"]]
        assert ranges[0] == [0, number] and ranges[-1] == [32 - number, 32]
        assert [layer for start, end in ranges for layer in range(start, end)] == list(range(32))
        assert [end - start for start, end in ranges[1::2]] == [2, 2]


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
