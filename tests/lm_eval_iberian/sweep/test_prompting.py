"""How the points of a sweep are prompted: parents as their merges, a run by its own word, nothing by a text "false"."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.runs.run import read_sweep_run
from lm_eval_iberian.sweep import kept_tasks
from lm_eval_iberian.sweep.plan import Plan, make_plan
from lm_eval_iberian.sweep.spec import check_sweep
from tests.conftest import ROOT, linear
from tests.lm_eval_iberian.sweep.local_tasks import write_tasks
from tests.lm_eval_iberian.sweep.runner import ONLY_OURS, run


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"), 4)


@pytest.fixture(scope="module")
def bare(llama: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The language model without a chat template, as base models are."""
    folder = tmp_path_factory.mktemp("bare") / "bare"
    shutil.copytree(llama["basque"], folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def planned(models: dict[str, Path], tasks: Path, **said: Any) -> Plan:
    recipe = linear(models) | {"tokenizer_source": str(models[said.pop("tokens", "instruct")])}
    data = {
        "tasks": ["local_choice"], "include_path": str(tasks), "model_args": {"backend": "hf", "device": "cpu"},
        "recipe": recipe, "axes": {"weight": [1.0]}, "parameters": {"weight": 1.0},
    }  # fmt: skip
    recipe["models"][0]["parameters"]["weight"] = "$weight"
    with patch.object(kept_tasks, "TaskManager", ONLY_OURS):
        return make_plan(check_sweep(data | said, "test"))


def chats(plan: Plan) -> dict[str, tuple[bool, bool]]:
    """point -> what its first evaluation is told: apply_chat_template, fewshot_as_multiturn."""
    return {job.point: job.chat for job in plan.jobs}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, (True, True)),
        ({"apply_chat_template": False}, (False, False)),
        ({"apply_chat_template": True}, (True, True)),
        ({"apply_chat_template": True, "fewshot_as_multiturn": False}, (True, False)),
        ({"fewshot_as_multiturn": False}, (True, False)),
        ({"apply_chat_template": False, "fewshot_as_multiturn": True}, (False, False)),  # lm_eval does the same
    ],
)
def test_what_was_said_holds_for_parents_too(
    llama: dict[str, Path], tasks: Path, said: dict[str, bool], expected: tuple[bool, bool]
) -> None:
    plan = planned(llama, tasks, **said)
    assert {point.point.role for point in plan.points} == {"merge", "parent"}
    assert chats(plan) == {"weight=1.0": expected, "basque": expected, "instruct": expected}


def test_where_nothing_is_said_only_a_model_without_a_template_is_prompted_without(
    llama: dict[str, Path], tasks: Path, bare: Path
) -> None:
    models = llama | {"basque": bare}
    assert chats(planned(models, tasks)) == {
        "weight=1.0": (True, True),
        "bare": (False, False),
        "instruct": (True, True),
    }
    # ... and of a merge without a template, no parent is prompted with one
    assert set(chats(planned(models, tasks, tokens="basque")).values()) == {(False, False)}


def test_a_template_that_is_asked_for_and_is_not_there_is_a_problem(
    llama: dict[str, Path], tasks: Path, bare: Path
) -> None:
    plan = planned(llama | {"basque": bare}, tasks, apply_chat_template=True)
    assert {point.name: "no chat template" in point.problem for point in plan.points} == {
        "weight=1.0": False, "bare": True, "instruct": False}  # fmt: skip


def test_parents_of_merges_that_are_prompted_in_two_ways_are_measured_in_both(
    llama: dict[str, Path], tasks: Path
) -> None:
    plan = planned(llama, tasks, axes={"chat": [True, False]}, apply_chat_template="$chat")
    assert chats(plan) == {
        "chat=True": (True, True), "chat=False": (False, False),
        "basque": (True, True), "instruct": (True, True), "basque (2)": (False, False), "instruct (2)": (False, False),
    }  # fmt: skip
    parents = {point.name: point.parents for point in plan.points if point.point.role == "merge"}
    assert parents == {"chat=True": ("basque", "instruct"), "chat=False": ("basque (2)", "instruct (2)")}
    assert len({job.key for job in plan.jobs}) == 6


def test_the_word_of_a_run_holds_and_is_in_its_key(llama: dict[str, Path], tasks: Path) -> None:
    runs = [{"tasks": "local_choice", "apply_chat_template": True}]
    said: list[dict[str, Any]] = [{}, {"fewshot_as_multiturn": False}]
    plans = [planned(llama, tasks, parents=False, apply_chat_template=False, runs=runs, **more) for more in said]
    assert [chats(plan)["weight=1.0"] for plan in plans] == [(True, True), (True, False)]
    assert plans[0].jobs[0].key != plans[1].jobs[0].key


@pytest.mark.parametrize("value", ["false", "False", "chatml", 0, 1])
@pytest.mark.parametrize("key", ["apply_chat_template", "fewshot_as_multiturn"])
def test_only_true_and_false_are_true_and_false(llama: dict[str, Path], tasks: Path, key: str, value: object) -> None:
    for said in ({key: value}, {"runs": [{"tasks": "local_choice", key: value}]}):
        with pytest.raises(SweepError, match=f"{key}: {value}: write true or false"):
            planned(llama, tasks, **said)


@pytest.mark.slow
def test_the_sweep_of_the_toys_readme_prompts_each_run_in_its_own_way(llama: dict[str, Path], tmp_path: Path) -> None:
    """Over tiny models under the same names, two documents of each task and one weight."""
    text = (ROOT / "lm_eval_iberian/toy/README.md").read_text(encoding="utf-8")
    (written,) = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    data = yaml.safe_load(written)
    assert data["axes"] == {"weight": [0.5, 1.0, 1.5]}
    (tmp_path / "toys").mkdir()
    for name in ("base", "instruct", "basque"):
        (tmp_path / "toys" / name).symlink_to(llama[name])
    data |= {"axes": {"weight": [1.0]}, "parents": False, "limit": 2}
    assert run(data, tmp_path / "run", here=tmp_path) == {}
    (point,) = read_sweep_run(tmp_path / "run").points
    asked = {task: found.prompt.word for found in point.runs for task in found.data["configs"]}
    assert asked == {
        "toy_pairs_eu": "plain", "toy_story_eu": "plain", "toy_exam_eu": "plain", "toy_ifeval_eu": "multiturn",
        "toy_ifeval_es": "multiturn",
    }  # fmt: skip
