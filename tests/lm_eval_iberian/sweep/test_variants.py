"""A point that measured one task in two ways is two points; other tasks and other seeds belong together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian.compare.columns import Scores
from lm_eval_iberian.compare.differences import Comparer
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.runs.run import read_sweep_run
from lm_eval_iberian.runs.store import FILE, Document, Store
from tests.lm_eval_iberian.sweep_maker import TOY_TASKS, toy_run


def twice(folder: Path, change: Callable[[dict[str, Any]], None], names: tuple[str, ...] = ()) -> Path:
    """A run whose points (those named, else all) have a second evaluation: the first one, changed."""
    folder = toy_run(folder)
    plan = json.loads((folder / "plan.json").read_text())
    store = Store(folder / FILE)
    for entry in plan["points"]:
        if names and entry["name"] not in names:
            continue
        first = entry["evaluations"][0]
        results = store.results(first["key"])
        assert results is not None
        change(results)
        key = first["key"] + " again"
        rows = [Document(task, number, json.dumps(metrics), answer, f"h{number}", "{}", "") for task, number, metrics, answer
                in store.documents(first["key"])]  # fmt: skip
        store.finish(key, entry["name"], results, {}, 1.0, rows)
        entry["evaluations"].append(first | {"key": key})
    store.close()
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def no_shots(results: dict[str, Any]) -> None:
    results["n-shot"] = dict.fromkeys(results["n-shot"], 0)
    for scores in results["results"].values():
        scores |= {key: 0.0 for key in scores if key.endswith(",none")}


def test_two_settings_of_a_point_are_two_points(tmp_path: Path) -> None:
    run = read_sweep_run(twice(tmp_path / "run", no_shots))
    assert [point.name for point in run.points][:3] == ["basque (5 shots)", "basque (0 shots)", "instruct (5 shots)"]
    assert len(run.points) == 10
    scores = Scores(run)
    column = scores.columns[0]
    values = {point.name: scores.score(point, column) for point in run.points}
    assert {score.runs for score in values.values()} == {1}
    assert values["weight=1.0 (0 shots)"].value == 0 != values["weight=1.0 (5 shots)"].value
    merge = run["weight=1.0 (0 shots)"]
    assert merge.labels == {"weight": "1.0", "measured": "0 shots"}
    assert merge.parents == ("basque (0 shots)", "instruct (0 shots)")


def test_parents_that_were_not_measured_as_their_merge_are_not_tested_against_it(tmp_path: Path) -> None:
    run = read_sweep_run(twice(tmp_path / "run", no_shots, ("basque",)))
    merge = run["weight=1.0"]
    assert merge.parents == ("basque (5 shots)", "instruct")
    folder = toy_run(tmp_path / "other")
    store = Store(folder / FILE)
    results = store.results("key of basque")
    assert results is not None
    no_shots(results)
    store.finish("key of basque", "basque", results, {}, 1.0, [])
    store.close()
    run = read_sweep_run(folder)
    compared = [one for one in Comparer(Scores(run)).merge(run["weight=1.0"]) if one.parent == "basque"]
    assert compared and all(
        one.test is None and "the two were measured in different ways" in one.reason for one in compared
    )
    assert "5 shots" in compared[0].reason


@pytest.mark.parametrize("change", [
    lambda results: results["config"].update(torch_seed=1),
    lambda results: results["config"]["model_args"].update(batch_size=2),
])  # fmt: skip
def test_runs_of_one_measurement_stay_together(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    run = read_sweep_run(twice(tmp_path / "run", change))
    assert len(run.points) == 5
    assert {Scores(run).score(point, Scores(run).columns[0]).runs for point in run.points} == {2}


def dropped(*tasks: str) -> Callable[[dict[str, Any]], None]:
    """Without these tasks."""

    def change(results: dict[str, Any]) -> None:
        for part in ("results", "configs", "n-shot", "versions"):
            results[part] = {task: value for task, value in results[part].items() if task not in tasks}

    return change


def test_runs_that_share_a_task_are_compared_in_it(tmp_path: Path) -> None:
    """Whatever other tasks each has; and with every run of a group, not with one of them."""
    first, second, *_ = TOY_TASKS

    def few_and_without_shots(results: dict[str, Any]) -> None:
        no_shots(results)
        dropped(*TOY_TASKS[1:])(results)

    folder = twice(tmp_path / "run", few_and_without_shots, ("basque",))
    assert [point.name for point in read_sweep_run(folder).points][:2] == ["basque (5 shots)", "basque (0 shots)"]
    # Three runs: one task with shots, another with shots, both without. The third fits neither of the first two.
    folder = toy_run(tmp_path / "three")
    plan, store = json.loads((folder / "plan.json").read_text()), Store(folder / FILE)
    results = store.results("key of basque")
    assert results is not None
    entry = next(one for one in plan["points"] if one["name"] == "basque")
    entry["evaluations"] = [{"key": key, "name": key, "tasks": [], "seed": None} for key in ("one", "two", "three")]
    for key, change in (("one", dropped(*TOY_TASKS[1:])), ("two", dropped(first)), ("three", no_shots)):
        copied = json.loads(json.dumps(results))
        change(copied)
        store.finish(key, "basque", copied, {}, 1.0, [])
    store.close()
    (folder / "plan.json").write_text(json.dumps(plan))
    points = [point for point in read_sweep_run(folder).points if point.name.startswith("basque")]
    assert [[one.key for one in point.evaluations] for point in points] == [["one", "two"], ["three"]]
    assert second in points[0].tasks


def longer_window(results: dict[str, Any]) -> None:
    results["config"]["model_args"]["max_length"] = 64


def other_weights(results: dict[str, Any]) -> None:
    results["config"]["iberian"]["signature_digest"] = "f" * 16


def nothing(_: dict[str, Any]) -> None:
    """As it was."""


@pytest.mark.parametrize(("change", "points"), [(longer_window, 10), (other_weights, 10), (nothing, 5)])
def test_other_tasks_of_another_engine_or_model_are_no_part_of_a_point(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], points: int
) -> None:
    """A run folder keeps tasks that its sweep.yml no longer has: the row must not be the mean of two models."""

    def other_task(results: dict[str, Any]) -> None:
        change(results)
        for part in ("results", "configs", "n-shot", "versions"):
            results[part] = {f"other_{task}": value for task, value in results[part].items()}

    run = read_sweep_run(twice(tmp_path / "run", other_task))
    assert len(run.points) == points and sum(len(point.runs) for point in run.points) == 10


def earlier(folder: Path, *names: str, change: Callable[[dict[str, Any]], None]) -> Path:
    """A run whose points of these names are of a sweep.yml of before, and were changed."""
    folder = toy_run(folder)
    plan, store = json.loads((folder / "plan.json").read_text()), Store(folder / FILE)
    for entry in plan["points"]:
        if entry["name"] in names:
            key = entry["evaluations"][0]["key"]
            results = store.results(key)
            assert results is not None
            change(results)
            store.finish(key, "s", results, {}, 1.0, [])
            entry["earlier"] = True
    store.close()
    plan["points"].sort(key=lambda entry: "earlier" in entry)
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def test_points_of_before_say_what_was_other_then(tmp_path: Path) -> None:
    """Their rows and lines stand beside today's."""
    of_before = ("weight=0.0", "weight=0.5")

    def other_basque(results: dict[str, Any]) -> None:
        for source in results["config"]["iberian"]["sources"]:
            source["fingerprint"] += "x" if source["name"] == "basque" else ""

    def names(folder: Path) -> list[str]:
        return [point.name for point in read_sweep_run(folder).points]

    assert names(earlier(tmp_path / "same", *of_before, change=nothing))[-2:] == list(of_before)
    shots = read_sweep_run(earlier(tmp_path / "shots", *of_before, change=no_shots))
    assert [point.name for point in shots.points][-2:] == ["weight=0.0 (0 shots)", "weight=0.5 (0 shots)"]
    assert shots.points[-1].labels == {"weight": "0.5", "measured": "0 shots"}
    moved = names(earlier(tmp_path / "other", *of_before, change=other_basque))
    assert moved[-2:] == ["weight=0.0 (other basque)", "weight=0.5 (other basque)"]
    parents = read_sweep_run(earlier(tmp_path / "parents", "basque", change=no_shots))
    assert parents["weight=1.0"].parents == ("basque (0 shots)", "instruct")


def other_revision(results: dict[str, Any]) -> None:
    """Each is "other configuration" to the other; and all is wrong in the second."""
    for config in results["configs"].values():
        config["dataset_kwargs"] = {"revision": "x"}
    for scores in results["results"].values():
        scores |= {key: 0.0 for key in scores if key.endswith(",none")}


def test_two_settings_that_are_called_alike_keep_their_own_figures(tmp_path: Path) -> None:
    """Figures are kept by name: the second point had those of the first, without a word."""
    run = read_sweep_run(twice(tmp_path / "run", other_revision))
    names = [point.name for point in run.points]
    assert len(set(names)) == len(names) == 10
    assert names[1] == f"{names[0]} (2)" and names[0].endswith(": other configuration and 1 more)")
    scores = Scores(run)
    for column in scores.columns:
        values = [scores.score(point, column).value for point in run.points]
        assert all(value == 0 for value in values[1::2]) and all(value for value in values[::2])
    merges = [point for point in run.points if point.role == "merge"]
    assert len({point.labels["measured"] for point in merges}) == 2, "they lie on lines of their own"
    for first, second in zip(merges[::2], merges[1::2], strict=True):
        assert first.parents == (names[0], names[2]) and second.parents == (names[1], names[3])


def test_a_plan_in_which_a_name_comes_twice_is_refused(tmp_path: Path) -> None:
    """An edited one: the second point would have the figures of the first."""
    folder = toy_run(tmp_path / "run")
    plan = json.loads((folder / "plan.json").read_text())
    plan["points"][1]["name"] = plan["points"][0]["name"]
    (folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(SweepError, match="point 2: name, which another has, is not as a sweep writes it"):
        read_sweep_run(folder)
