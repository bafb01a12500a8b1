"""`iberian tune`: it finds what is known to be best, goes on after kill -9, and asks nothing twice."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from lm_eval_iberian.commands import main as cli
from lm_eval_iberian.commands.tune import importance
from lm_eval_iberian.compare.best import find_best
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.runs.run import read_sweep_run
from lm_eval_iberian.runs.store import FILE, Store
from lm_eval_iberian.tune.space import Choices, check_space
from lm_eval_iberian.tune.tune import AGAIN, counted
from tests import forks
from tests.lm_eval_iberian.sweep.tuning import OPTIMUM, OTHER, TASK, Invented, search

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def write_space(tmp_path: Path, llama: dict[str, Path]) -> Any:
    """Writes a SPACE.yml over the tiny family; keys given replace its own, None removes one."""

    def write(**other: Any) -> Path:
        models = [{"model": str(llama["instruct"]), "parameters": {"weight": 1.0}},
                  {"model": str(llama["basque"]), "parameters": {"weight": "$weight"}}]  # fmt: skip
        normalize = {"normalize": "$method.normalize"}
        space = {
            "tasks": [TASK, OTHER],
            "model_args": {"backend": "hf", "device": "cpu"},
            "recipe": {"merge_method": "$method.name", "base_model": "$method.base", "models": models, "parameters": normalize, "dtype": "float32"},
            "search": {
                "weight": {"low": 0.0, "high": 2.0},
                "method": {"choices": {"linear": {"name": "linear", "base": None, "normalize": True},
                                       "arithmetic": {"name": "task_arithmetic", "base": str(llama["base"]), "normalize": False}}},
            },
            "objective": [TASK], "trials": 8, "parents": False,
        } | other  # fmt: skip
        path = tmp_path / "space.yml"
        path.write_text(
            yaml.safe_dump({key: value for key, value in space.items() if value is not None}, sort_keys=False)
        )
        return path

    return write


def proposed(folder: Path) -> list[tuple[Any, ...]]:
    """The parameters of all trials that count, in order, with what they were found to be worth."""
    import optuna

    study = optuna.load_study(study_name="tune", storage=f"sqlite:///{folder / 'optuna.sqlite'}")
    return [(trial.params, trial.state.name, trial.values) for trial in counted(study)]


@pytest.mark.slow
def test_a_known_optimum_is_found(write_space: Any, tmp_path: Path) -> None:
    tuner = search(write_space(trials=12), tmp_path / "run")
    best = tuner.study.best_trial
    assert best.params["method"] == "linear"
    assert best.params["weight"] == pytest.approx(OPTIMUM, abs=0.1)  # the first ten, drawn at random, are further off
    assert best.value == pytest.approx(100 * (0.9 - 0.2 * abs(best.params["weight"] - OPTIMUM)))
    # The run folder is a sweep's: best and Optuna name the same point.
    run = read_sweep_run(tmp_path / "run")
    assert find_best(run, [TASK]).best.point.name == best.user_attrs["point"]
    assert {point.labels["method"] for point in run.points} == {"linear", "arithmetic"}
    assert len(run.points) == len(tuner.study.trials) == 12
    assert not run.unfinished
    (said,) = [line for line in importance(tuner.study, 12) if line]
    shares = {axis: int(share) for axis, share in re.findall(r"(\w+) (\d+)%", said)}
    assert set(shares) == {"weight", "method"} and abs(sum(shares.values()) - 100) <= 1


def test_a_grid_is_walked_once_and_costs_what_it_has(write_space: Any, tmp_path: Path) -> None:
    search_ = {
        "weight": {"low": 0.5, "high": 2.0, "step": 0.5},
        "method": {"choices": [{"name": "linear", "base": None, "normalize": True}]},
    }
    with pytest.raises(SweepError, match="give values that are mappings a label"):
        search(write_space(search=search_), tmp_path / "run")
    search_["method"] = {"choices": {"linear": {"name": "linear", "base": None, "normalize": True}}}
    pool = Invented()
    search(write_space(search=search_, sampler="grid", trials=None), tmp_path / "run", pool)
    weights = Counter(yaml.safe_load(job.recipe[0])["models"][1]["parameters"]["weight"] for job in pool.jobs)
    assert weights == {0.5: 1, 1.0: 1, 1.5: 1, 2.0: 1}


def test_equal_trials_cost_nothing(write_space: Any, tmp_path: Path) -> None:
    axis = {
        "weight": {"low": 1, "high": 2, "whole": True},
        "method": {"choices": {"linear": {"name": "linear", "base": None, "normalize": True}}},
    }
    pool = Invented()
    tuner = search(write_space(search=axis, sampler="random", trials=6), tmp_path / "run", pool)
    assert len(tuner.study.trials) == 6
    assert len(pool.jobs) == 2
    assert len(read_sweep_run(tmp_path / "run").points) == 2


@pytest.mark.slow
def test_more_trials_go_on_where_it_ended(write_space: Any, tmp_path: Path) -> None:
    search(write_space(trials=4), tmp_path / "whole")
    search(write_space(trials=2), tmp_path / "parts")
    pool = Invented()
    search(write_space(trials=4), tmp_path / "parts", pool)
    assert proposed(tmp_path / "parts") == proposed(tmp_path / "whole")
    assert len(pool.jobs) == 2
    again = Invented()
    search(write_space(trials=4), tmp_path / "parts", again)
    assert again.jobs == []


def test_trials_that_were_measured_in_another_way_are_not_compared(write_space: Any, tmp_path: Path) -> None:
    """As when the tasks' code, the documents or lm_eval changed between two sessions of one search."""
    search(write_space(trials=2), tmp_path / "run")
    store = Store(tmp_path / "run" / FILE)
    for point in read_sweep_run(tmp_path / "run").points:
        data = point.results[0] | {"n-shot": {TASK: 0}}
        store.finish(point.evaluations[0].key, point.signature, data, {}, 1.0, [])
    store.close()
    with pytest.raises(SweepError, match=r"an earlier trial, was measured in another way than .* \(5 shots\)"):
        search(write_space(trials=4), tmp_path / "run")


def test_another_space_does_not_go_into_the_same_folder(write_space: Any, tmp_path: Path) -> None:
    search(write_space(trials=1), tmp_path / "run")
    with pytest.raises(SweepError, match="another space, objective or recipe"):
        search(write_space(trials=2, objective=[OTHER]), tmp_path / "run")


@pytest.mark.slow
def test_rungs_stop_what_falls_behind(write_space: Any, tmp_path: Path) -> None:
    pool = Invented()
    space = write_space(trials=12, rungs=[3, 6], pruner={"name": "median", "n_startup_trials": 3})
    tuner = search(space, tmp_path / "run", pool)
    states = Counter(trial.state.name for trial in tuner.study.trials)
    assert states["PRUNED"] > 3 and states["COMPLETE"] > 3
    assert tuner.study.best_trial.params["weight"] == pytest.approx(OPTIMUM, abs=0.2)
    limits = Counter(job.evaluation.settings.get("limit") for job in pool.jobs)
    assert limits[3] == 12 and limits[3] > limits[6] >= limits[None] == states["COMPLETE"]
    assert max(Counter(pool.asked).values()) == 1  # a rung asks only for what the one before did not
    # In the folder, a stopped trial has the scores that it got, and may not win.
    run = read_sweep_run(tmp_path / "run")
    found = find_best(run, [TASK])
    assert not run.unfinished
    assert len(found.ranked) == states["COMPLETE"]
    assert sum("documents, and 12 of" in one.refused for one in found.refused) == states["PRUNED"]


@pytest.mark.slow
def test_several_objectives_find_the_front(write_space: Any, tmp_path: Path) -> None:
    tuner = search(write_space(trials=10, objective=[TASK, OTHER]), tmp_path / "run")
    run = read_sweep_run(tmp_path / "run")
    front = {one.point.name for one in find_best(run, [TASK, OTHER]).front}
    assert front == {trial.user_attrs["point"] for trial in tuner.study.best_trials}
    # Beyond the optimum both fall, so nothing there is on the front.
    weights = [trial.params["weight"] for trial in tuner.study.best_trials]
    assert len(weights) > 1 and sum(weight > OPTIMUM for weight in weights) <= 1


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(write_space: Any, tmp_path: Path) -> None:
    pool = Invented(fails=lambda job: "task_arithmetic" in job.recipe[0])
    tuner = search(write_space(trials=5, sampler="random"), tmp_path / "run", pool)
    states = {trial.state.name for trial in tuner.study.trials if trial.params["method"] == "arithmetic"}
    assert states == {"FAIL"}
    assert {t.state.name for t in tuner.study.trials if t.params["method"] == "linear"} == {"COMPLETE"}
    assert len(tuner.study.trials) == 5
    assert all(
        reasons == [f"{TASK}, {OTHER}: out of memory"] for reasons in read_sweep_run(tmp_path / "run").failures.values()
    )


def test_models_that_are_not_there_fail_their_trials_only(
    write_space: Any, tmp_path: Path, llama: dict[str, Path]
) -> None:
    models = [{"model": str(llama["instruct"]), "parameters": {"weight": 1.0}},
              {"model": "$language", "parameters": {"weight": 1.0}}]  # fmt: skip
    recipe = {"merge_method": "linear", "models": models, "dtype": "float32"}
    languages = {"language": {"choices": {"there": str(llama["basque"]), "gone": str(tmp_path / "gone")}}}
    tuner = search(write_space(recipe=recipe, search=languages, sampler="grid", trials=None), tmp_path / "run")
    assert {trial.params["language"]: trial.state.name for trial in tuner.study.trials} == {
        "there": "COMPLETE",
        "gone": "FAIL",
    }


def test_parents_are_measured_once_on_all_documents(write_space: Any, tmp_path: Path) -> None:
    pool = Invented()
    search(write_space(trials=2, rungs=[3], parents=True), tmp_path / "run", pool)
    run = read_sweep_run(tmp_path / "run")
    parents = [point for point in run.points if point.role == "parent"]
    assert {point.name for point in parents} >= {"instruct", "basque"}
    for point in parents:
        assert point.finished and [job.point for job in pool.jobs].count(point.name) == 1
        assert [job.evaluation.settings.get("limit") for job in pool.jobs if job.point == point.name] == [None]
    assert all({"instruct", "basque"} <= set(point.parents) for point in run.points if point.role == "merge")


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_killed_between_two_parameters_of_a_trial(
    write_space: Any, tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Optuna was only told half of is asked for again as a whole."""
    weights = {"weight": {"low": 0.0, "high": 2.0, "step": 0.5}} if sampler == "grid" else {}
    written = yaml.safe_load(write_space().read_text())
    space = write_space(search={**written["search"], **weights}, trials=4, sampler=sampler)
    search(space, tmp_path / "undisturbed")
    suggest, calls = Choices.suggest, iter(range(100))

    def killed(axis: Choices, trial: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return suggest(axis, trial)

    monkeypatch.setattr(Choices, "suggest", killed)
    with pytest.raises(KeyboardInterrupt):
        search(space, tmp_path / "killed")
    search(space, tmp_path / "killed")
    found, expected = proposed(tmp_path / "killed"), proposed(tmp_path / "undisturbed")
    if sampler == "grid":  # the rest of the grid waits already: the killed one comes after it
        found, expected = sorted(found, key=repr), sorted(expected, key=repr)
    assert found == expected


@pytest.mark.slow
def test_kill_9_loses_nothing(write_space: Any, tmp_path: Path) -> None:
    space = write_space(trials=8, rungs=[4])
    undisturbed = tmp_path / "undisturbed"
    search(space, undisturbed)
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.lm_eval_iberian.sweep.tuning", str(space), str(killed), "0.4"]
    for evaluations in (3, 8):
        process = forks.Popen(command, cwd=ROOT)
        wait_for(process, lambda: len(list(killed.glob("points/*/*.json"))) >= evaluations)  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    pool = Invented()
    tuner = search(space, killed, pool)
    assert any(AGAIN in trial.user_attrs for trial in tuner.study.trials)
    assert proposed(killed) == proposed(undisturbed)
    assert (killed / "plan.json").read_bytes() == (undisturbed / "plan.json").read_bytes()
    files = [
        sorted(str(file.relative_to(folder)) for file in folder.glob("points/*/*.json"))
        for folder in (killed, undisturbed)
    ]
    assert files[0] == files[1]
    assert len(pool.jobs) < len(files[0])


def wait_for(process: forks.Popen, there: Any) -> None:
    for _ in range(6000):
        if there():
            return
        assert process.poll() is None, "the search ended before it could be killed"
        time.sleep(0.05)
    raise AssertionError("nothing came in five minutes")


def test_one_search_a_folder(write_space: Any, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / "tune.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SweepError, match="another process searches in it"):
            search(write_space(trials=1), tmp_path / "run")
    search(write_space(trials=1), tmp_path / "run")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_no_other_search(
    write_space: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As Lustre that is mounted without `flock`."""

    def flock(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    (tmp_path / "run").mkdir()
    with pytest.raises(SweepError, match="file system that refuses locks"):
        search(write_space(trials=1), tmp_path / "run")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"search": None}, "give `search:`"),
        ({"axes": {"weight": [1, 2]}}, "What `iberian tune` varies stands under `search:`"),
        ({"search": {"weight": {"low": 2, "high": 1}}}, "low 2 is above high 1"),
        ({"search": {"weight": {"low": 0, "high": 1, "stpe": 1}}}, "Did you mean `step`?"),
        ({"search": {"weight": {"low": 0, "high": 1, "log": True}}}, "with `log`, low is above 0"),
        ({"search": {"weight": {"low": 0, "high": 1}, "densty": [1]}}, "$densty stands nowhere in the recipe"),
        ({"search": {"wieght": {"low": 0, "high": 1}}}, "$wieght stands nowhere in the recipe"),
        ({"objective": []}, "give `objective:`"),
        ({"sampler": "bayes"}, "there are tpe, nsgaii, random, grid"),
        ({"sampler": {"name": "tpe", "n_startup": 3}}, "Did you mean `n_startup_trials`?"),
        ({"sampler": "grid"}, "a grid needs a `step`"),
        ({"rungs": [50, 20]}, "numbers of documents that grow"),
        ({"rungs": [50], "limit": 40}, "stay below `limit`"),
        ({"rungs": [50], "objective": ["a", "b"]}, "one objective only"),
        ({"pruner": "median"}, "give `rungs"),
        ({"trials": 0}, "whole numbers from 1"),
    ],
)
def test_mistakes_are_said_before_anything_starts(changed: dict[str, Any], words: str) -> None:
    models = [{"model": "a", "parameters": {"weight": "$weight"}}, {"model": "b", "parameters": {"weight": 1.0}}]
    data = {"tasks": [TASK], "recipe": {"merge_method": "linear", "models": models},
            "search": {"weight": {"low": 0, "high": 1}}, "objective": [TASK]} | changed  # fmt: skip
    with pytest.raises(SweepError) as raised:
        check_space({key: value for key, value in data.items() if value is not None}, "space")
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("objective", "words"),
    [("bench_eu", "tasks lacks Belebele (eu), EusReading (eu), "), ("trivia", "neither a column nor among the tasks")],
)
def test_an_objective_that_is_not_measured(write_space: Any, tmp_path: Path, objective: str, words: str) -> None:
    with pytest.raises(SweepError) as raised:
        search(write_space(objective=[objective]), tmp_path / "run")
    assert words in str(raised.value)
    assert not (tmp_path / "run" / "optuna.sqlite").exists()


@pytest.mark.slow
def test_the_command_with_an_engine(write_space: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three trials in one engine; the second command asks nothing, and report reads the folder."""
    space = write_space(tasks=[TASK], trials=3, rungs=[2], limit=4, parents=False)
    arguments = ["tune", str(space), "--out", str(tmp_path / "run")]
    texts = []
    for _ in range(2):
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        captured = capsys.readouterr()
        assert not stopped.value.code, captured.err
        texts.append(captured.out)
    assert captured.err.count("engine started") == 0
    assert texts[0] == texts[1]
    assert texts[0].startswith("Trials: ") and f"The best by {TASK}: weight=" in texts[0]
    plan = json.loads((tmp_path / "run" / "plan.json").read_text(encoding="utf-8"))
    assert {*plan["axes"]} == {"weight", "method"} and len(plan["points"]) == 3


def test_the_space_in_the_readme_is_one() -> None:
    readme = (ROOT / "lm_eval_iberian" / "sweep" / "README.md").read_text(encoding="utf-8")
    text = readme.partition("## Tuning")[2].partition("```yaml")[2].partition("```")[0]
    space = check_space(yaml.safe_load(text), "README")
    assert space.objectives == ("bench_eu",) and space.rungs == (50, 200)
