"""A sweep's tasks: found in the small index where ours are enough, settled as lm_eval does it, their requests built once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lm_eval_iberian.models.backends import named
from lm_eval_iberian.sweep.kept_tasks import KeptTasks, LoadedOnce, generation_of, results_head
from lm_eval_iberian.sweep.spec import Evaluation


def test_our_groups_hold_tasks_of_ours_only() -> None:
    """Else the small index could not load them."""
    kept = KeptTasks()
    index = kept._index(["iberian_suite"])
    assert "iberian_suite" in index.all_tasks and "arc_easy" not in index.all_tasks
    others = {name for name in index.all_groups if not kept._is_ours(name)}
    assert {"iberian_suite", "companion_suite", "iberian_ifbench", "iberian_turns"}.isdisjoint(others)
    assert "iberian_more" in others  # lm_eval's own tasks under one roof


def test_a_group_with_tasks_of_lm_evals_is_looked_up_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeptTasks, "_every_task", "the whole index")
    assert KeptTasks()._index(["iberian_more"]) == "the whole index"


def test_tasks_of_lm_eval_and_of_the_user_are_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeptTasks, "_every_task", "the whole index")
    assert KeptTasks()._index(["iberian_eus_trivia", "arc_easy"]) == "the whole index"
    assert KeptTasks("folder")._index(["iberian_eus_trivia"]) == "the whole index"


class Task:
    """As much of a task of lm_eval as is settled."""

    VERSION = 1.0

    def __init__(self, shots: int | None, output_type: str = "generate_until") -> None:
        self.config = SimpleNamespace(num_fewshot=shots, metadata={"version": 2.0})
        self.values: dict[str, Any] = {"num_fewshot": shots, "output_type": output_type, "generation_kwargs": {"until": [], "top_p": 1}}  # fmt: skip
        self.instances: list[Any] = []
        self.seed: int | None = None
        self.built: list[dict[str, Any]] = []

    def get_config(self, key: str) -> Any:
        return self.values[key]

    def set_config(self, key: str, value: Any, update: bool = False) -> None:
        self.values[key] = {**self.values[key], **value} if update else value
        self.config.num_fewshot = self.values["num_fewshot"]

    def set_fewshot_seed(self, seed: int) -> None:
        self.seed = seed

    def build_all_requests(self, **options: Any) -> None:
        self.built.append(options)
        self.instances = [SimpleNamespace(resps=["old"], filtered_resps={"none": "old"})]


def loaded(evaluation: Evaluation, **tasks: Task) -> LoadedOnce:
    return LoadedOnce(SimpleNamespace(load=lambda names: {"tasks": tasks}), evaluation)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "asked", "expected"),
    [(None, None, 0), (None, 3, 3), (5, None, 5), (5, 3, 3), (5, 0, 0), (0, None, 0), (0, 3, 0)],
)
def test_shots_are_settled_as_lm_eval_does_it(own: int | None, asked: int | None, expected: int) -> None:
    """A number that is asked for holds, but where a task's YAML says 0; a task that says nothing has none."""
    task = Task(own)
    loaded(Evaluation(("task",), {} if asked is None else {"num_fewshot": asked}, seed=7), task=task).settle(None)
    assert task.values["num_fewshot"] == expected
    assert task.seed == 1234, "lm_eval's default, whatever the seed of sampling: all runs have the same shots"


def test_generation_settings_are_laid_over_the_tasks_own() -> None:
    generates, chooses = Task(0), Task(0, "multiple_choice")
    kept = loaded(Evaluation(("a",)), one=generates, two=chooses)
    kept.settle({"max_gen_toks": 3, "top_p": 0.5})
    assert generates.values["generation_kwargs"] == {"until": [], "top_p": 0.5, "max_gen_toks": 3}
    assert chooses.values["generation_kwargs"] == {"until": [], "top_p": 1}
    assert list(kept.generation_settings) == ["one"]


def test_requests_are_built_anew_when_what_they_depend_on_has_changed() -> None:
    task = Task(2)
    kept = loaded(Evaluation(("task",)), task=task)
    kept.template = "one template"
    (one,) = kept.tasks.values()
    for count, change in enumerate(
        (
            lambda: None,
            lambda: setattr(kept, "template", "another"),
            lambda: task.set_config("num_fewshot", 3),
        ),
        start=1,
    ):
        change()
        for _ in range(2):
            one.build_all_requests(limit=4, apply_chat_template=True, chat_template=str.strip)
            assert len(task.built) == count
            assert (task.instances[0].resps, task.instances[0].filtered_resps) == ([], {}), "of the last point"
            task.instances[0].resps.append("an answer")
    one.build_all_requests(limit=5, apply_chat_template=True, chat_template=str.strip)
    assert len(task.built) == 4


def test_each_evaluation_has_tasks_of_its_own() -> None:
    """Its settings are written into them."""
    kept = KeptTasks()
    first, second, third = (
        kept.of(Evaluation(("iberian_eus_trivia",), settings, seed))
        for settings, seed in (({}, None), ({"num_fewshot": 1}, None), ({}, 2))
    )
    assert len({id(one) for one in (first, second, third)}) == 3
    assert kept.of(Evaluation(("iberian_eus_trivia",), {}, None)) is first


@pytest.mark.parametrize(
    ("given", "seed", "backend", "expected"),
    [
        (None, None, "vllm", None),
        (None, 0, "vllm", {"seed": 0}),
        (None, 0, "hf", None),
        ({"top_p": 0.5}, 3, "server", {"top_p": 0.5, "seed": 3}),
        ("top_p=0.5,do_sample=True", None, "vllm", {"top_p": 0.5, "do_sample": True}),
    ],
)
def test_the_seed_goes_with_each_request_where_the_engine_takes_one(
    given: Any, seed: int | None, backend: str, expected: dict[str, Any] | None
) -> None:
    """The seed 0 as well."""
    assert generation_of(Evaluation(("a",), {"gen_kwargs": given}, seed), named(backend)) == expected


def test_results_say_the_seeds_that_lm_eval_was_given() -> None:
    said = results_head(Evaluation(("a",), {"limit": 4}, 3), named("hf"), {"dtype": "float32"}, {"x": 1})["config"]
    seeds = {key: said[key] for key in ("random_seed", "numpy_seed", "torch_seed", "fewshot_seed")}
    assert seeds == {"random_seed": 3, "numpy_seed": 1237, "torch_seed": 1237, "fewshot_seed": 1234}
    assert (said["limit"], said["model_args"], said["x"]) == (4, {"dtype": "float32"}, 1)
