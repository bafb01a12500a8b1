"""sweep.yml: what its axes span, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.sweep.axes import fill, grid, labelled, names_in
from lm_eval_iberian.sweep.spec import check_sweep, read_sweep

RECIPE = {
    "merge_method": "$method.name",
    "base_model": "$method.base",
    "models": [
        {"model": "$language", "parameters": {"weight": "$weight"}},
        {"model": "I", "parameters": {"weight": 1}},
    ],
}
AXES = {
    "method": {"linear": {"name": "linear", "base": None}, "ta": {"name": "task_arithmetic", "base": "B"}},
    "language": {"eu": "owner/basque", "gl": "owner/galician"},
    "weight": [0.5, 1.0],
}


def sweep(**changes: Any) -> Any:
    return check_sweep({"tasks": "a,b", "recipe": RECIPE, "axes": AXES, **changes}, "trial")


def recipes(points: Any) -> dict[str, Any]:
    return {point.name: yaml.safe_load(point.recipe.text) for point in points}


def test_a_grid_is_every_combination_in_order() -> None:
    made = recipes(sweep().points)
    assert len(made) == 8
    assert next(iter(made)) == "method=linear language=eu weight=0.5"
    ta = made["method=ta language=gl weight=1.0"]
    assert ta == {"merge_method": "task_arithmetic", "base_model": "B", "models": [
        {"model": "owner/galician", "parameters": {"weight": 1.0}}, {"model": "I", "parameters": {"weight": 1}}]}  # fmt: skip


def test_null_drops_its_key() -> None:
    assert "base_model" not in recipes(sweep().points)["method=linear language=eu weight=0.5"]


def test_a_list_of_points_names_labels_or_gives_values() -> None:
    made = sweep(points=[{"method": "ta", "language": "eu", "weight": 0.7}]).points
    assert [point.name for point in made] == ["method=ta language=eu weight=0.7"]
    assert recipes(made)[made[0].name]["base_model"] == "B"


def test_exclude_leaves_points_out() -> None:
    assert len(sweep(exclude=[{"method": "ta", "weight": 0.5}]).points) == 6


def test_fixed_recipes_and_baselines_come_after_the_axes() -> None:
    made = sweep(recipes={"mine": {"merge_method": "linear", "models": []}}, baselines={"big": "owner/big"}).points
    assert [(point.name, point.role) for point in made[-2:]] == [("mine", "merge"), ("big", "baseline")]


def test_runs_with_seeds_become_evaluations_each() -> None:
    runs = [{"tasks": "a"}, {"tasks": ["c"], "seeds": [0, 1, 2], "gen_kwargs": {"do_sample": True}}]
    made = sweep(runs=runs, limit=5).points[0].evaluations
    assert [(one.tasks, one.seed) for one in made] == [(("a",), None), (("c",), 0), (("c",), 1), (("c",), 2)]
    assert made[0].settings == {"limit": 5} and made[1].settings == {"limit": 5, "gen_kwargs": {"do_sample": True}}


def test_tasks_may_depend_on_an_axis() -> None:
    axes = {"language": {"eu": {"model": "M", "tasks": ["t_eu"]}}}
    made = check_sweep({
        "runs": [{"tasks": "$language.tasks"}], "axes": axes,
        "recipe": {"merge_method": "linear", "models": [{"model": "$language.model"}]},
    }, "trial").points  # fmt: skip
    assert made[0].evaluations[0].tasks == ("t_eu",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"taks": "a"}, "`taks`: no such key. Did you mean `tasks`?"),
        ({"axes": {"weight": []}}, "weight has no values"),
        ({"axes": {**AXES, "density": [0.5]}}, r"\$density stands nowhere"),
        ({"axes": {key: AXES[key] for key in ("method", "language")}}, r"\$weight is neither an axis nor a parameter"),
        ({"axes": {**AXES, "weight": [1.0, 1.0]}}, "1.0 comes twice"),
        ({"axes": {**AXES, "method": {"x": {"name": "linear"}}}}, "has no `base`"),
        ({"axes": {**AXES, "weight": list(range(5000))}}, "more than 10000"),
        ({"tasks": ""}, "give `tasks:`"),
        ({"model_args": {"recipe": "x"}}, "`recipe` belongs to the points"),
        ({"runs": [{"tasks": "a", "sedes": [1]}]}, "Did you mean `seeds`"),
        ({"parameters": {"weight": 1}, "runs": ["a"]}, "write a list of"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SweepError, match=words):
        _ = sweep(**changes).points


def test_a_parameter_without_a_value_must_be_given(tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    data = {"tasks": "a", "parameters": {"instruct": None}, "axes": {"weight": [1.0]},
            "recipe": {"merge_method": "linear", "models": [{"model": "$instruct", "parameters": {"weight": "$weight"}}]}}  # fmt: skip
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(SweepError, match="--set instruct="):
        read_sweep(path)
    points = read_sweep(path, {"instruct": "owner/model", "weight": [0.1, 0.2]}).points
    assert [yaml.safe_load(point.recipe.text)["models"][0]["model"] for point in points] == ["owner/model"] * 2
    with pytest.raises(SweepError, match="no such parameter or axis"):
        read_sweep(path, {"instuct": "owner/model"})


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(), min_size=1, max_size=4, unique=True)))
def test_a_grid_holds_each_combination_once(axes: dict[str, list[int]]) -> None:
    named = {axis: labelled(axis, values) for axis, values in axes.items()}
    made = [tuple(point.items()) for point in grid(named)]
    size = 1
    for values in axes.values():
        size *= len(values)
    assert len(made) == len(set(made)) == size


@given(st.text(), st.text())
def test_values_never_become_yaml(value: str, other: str) -> None:
    """What is put in for a name stays one value, whatever is in it; only a whole `$name` is a placeholder."""
    filled = fill({"model": "$name", "also": [other]}, {"name": [value]}, "here") if other[:1] != "$" else None
    assert filled is None or (filled["also"] == [other] and yaml.safe_load(yaml.safe_dump(filled)) == filled)


def test_names_in_finds_every_placeholder() -> None:
    assert names_in({"a": ["$x", {"b": "$y.z"}], "c": "no $name here"}) == {"x", "y"}


def test_a_run_comes_before_the_sweep_and_everything_is_handed_on() -> None:
    said = {
        "num_fewshot": 5,
        "limit": 9,
        "gen_kwargs": {"top_p": 1},
        "system_instruction": "Labur.",
        "merge_seed": 4,
        "rng": "mergekit",
    }
    runs = [{"tasks": "a", "num_fewshot": 0, "apply_chat_template": False}, {"tasks": "b", "seeds": [2]}]
    point = sweep(**said, runs=runs, apply_chat_template=True).points[0]
    settings = {key: said[key] for key in ("num_fewshot", "limit", "gen_kwargs", "system_instruction")}
    first, second = point.evaluations
    assert first.as_data() == {
        "tasks": ["a"],
        "settings": settings | {"num_fewshot": 0, "apply_chat_template": False},
        "seed": None,
    }
    assert second.as_data() == {"tasks": ["b"], "settings": settings, "seed": 2}
    assert (point.merge_seed, point.rng, point.chat) == (4, "mergekit", (True, None))


def test_an_axis_comes_before_the_parameter_of_its_name() -> None:
    made = sweep(parameters={"weight": 9.0}).points
    assert {yaml.safe_load(point.recipe.text)["models"][0]["parameters"]["weight"] for point in made} == {0.5, 1.0}


def test_only_what_is_whole_a_name_is_filled_and_only_what_was_filled_with_null_is_dropped() -> None:
    values = {"x": None, "y": 1, "z": {"k": "$y"}}
    assert fill({"a": "$x", "b": None, "c": "$y and more", "d": ["$x", "$y"], "e": "$z.k"}, values, "here") == {
        "b": None, "c": "$y and more", "d": [1], "e": 1}  # fmt: skip


def test_labels_are_the_last_part_of_a_name() -> None:
    assert list(labelled("m", ["owner/model", "models/eu/", None, 0.5, True])) == ["model", "eu", "none", "0.5", "True"]
