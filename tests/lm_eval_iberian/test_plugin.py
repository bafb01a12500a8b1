"""What the plugin does to lm_eval in a process where it is active."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lm_eval_iberian import plugin
from lm_eval_iberian.errors import NotToBeHad, OutputError, TaskCodeError
from lm_eval_iberian.folders import tasks_folder
from merge_hooks.errors import EngineError


@pytest.fixture(autouse=True)
def active() -> None:
    plugin.activate()


@pytest.mark.parametrize("first", ["a", "b"])
def test_caches_are_keyed_by_identity(first: str, tmp_path: Path) -> None:
    """`--use_cache` keys answers by request only: two merges, or two settings, must not share a file."""
    from lm_eval.api.model import CachingLM

    def cache(digest: str | None) -> Any:
        identity = SimpleNamespace(answers=digest) if digest else None
        model = SimpleNamespace(identity=identity, set_cache_hook=lambda hook: None)
        return CachingLM(model, str(tmp_path / "cache_rank0.db"))

    for digest in (first, "c", None):
        cache(digest)
    names = {path.name for path in tmp_path.iterdir()}
    assert {f"cache_rank0.{first}.db", "cache_rank0.c.db", "cache_rank0.db"} <= names


def test_activating_twice_is_activating_once() -> None:
    from lm_eval.tasks.manager import TaskManager

    before = TaskManager.__init__
    plugin.activate()
    assert TaskManager.__init__ is before


def test_our_tasks_come_with_the_defaults_only() -> None:
    from lm_eval.tasks import TaskManager

    assert "iberian_suite" not in TaskManager(include_defaults=False).all_groups


@pytest.mark.slow
def test_own_include_paths_are_kept(tmp_path: Path) -> None:
    from lm_eval.tasks import TaskManager

    (tmp_path / "mine.yaml").write_text("task: mine_alone\ndataset_path: x\n")
    manager = TaskManager(include_path=str(tmp_path), include_defaults=True)
    assert {"mine_alone", "iberian_eus_trivia", "hellaswag"} <= set(manager.all_tasks)


def test_tasks_are_there_though_the_index_of_a_later_lm_eval_is_another() -> None:
    """Groups of what was added go into lm_eval's index; where that cannot be, only they are missing, and it is said."""
    given: list[Any] = []

    class TaskManager:
        def __init__(self, verbosity: Any = None, include_path: Any = None) -> None:
            given.extend(include_path)

    module: Any = ModuleType("lm_eval.tasks.manager")
    module.TaskManager = TaskManager
    with pytest.warns(UserWarning, match="could not register itself with lm_eval"):
        plugin.after_import(module)
    TaskManager()
    assert given == [str(tasks_folder())]


def test_our_errors_are_shown_without_the_name_of_a_class(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever ends `lm_eval`; errors of others go to the hook that was there."""
    others: list[BaseException] = []
    monkeypatch.setattr("sys.excepthook", lambda kind, error, trace: others.append(error))
    plugin._install_excepthook()
    sys.excepthook(NotToBeHad, NotToBeHad("EusTrivia cannot be had."), None)
    sys.excepthook(ValueError, ValueError("x"), None)
    assert capsys.readouterr().err == "\nError: EusTrivia cannot be had.\n"
    assert [type(error) for error in others] == [ValueError]


RECIPE = {"merge_method": "linear", "models": [{"model": "org/a"}, {"model": "org/b"}], "dtype": "float32"}


@pytest.mark.parametrize(
    ("source", "model_args", "name"),
    [
        ("merged", "recipe=runs/mine.yml,backend=hf", "mine"),
        ("merged", {"recipe": "runs/mine.yml"}, "mine"),
        ("merged", {"recipe": RECIPE}, "linear a+b"),
        ("merged", "method=linear,models=org/a:1.0;org/b:0.5", "linear a+b"),
        ("merged", "pretrained=org/model", "org/model"),
        ("hf", "pretrained=org/model,recipe=runs/mine.yml", "org/model"),
    ],
)
def test_results_are_named_by_their_recipe(
    source: str, model_args: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm_eval 0.4.13 gives a random name where there is no `pretrained=`."""
    from lm_eval.loggers import EvaluationTracker

    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/mine.yml").write_text(str(RECIPE))
    tracker = EvaluationTracker(output_path="out")
    tracker.general_config_tracker.log_experiment_args(
        model_source=source, model_args=model_args, system_instruction=None, chat_template=None,
        fewshot_as_multiturn=False,
    )  # fmt: skip
    assert tracker.general_config_tracker.model_name == name
    tracker.save_results_aggregated(results={"results": {}})
    (file,) = Path("out").rglob("results_*.json")
    assert file.parent.name == name.replace("/", "__")


def test_code_of_a_task_that_wants_another_transformers_is_named(tmp_path: Path) -> None:
    """lm_eval 0.4.13's own tasks of three benches import what transformers 5.20 removed. What else is missing passes."""
    from lm_eval.tasks import TaskManager

    for name, module in (("old", "transformers.data.gone"), ("other", "gone")):
        (tmp_path / f"code_{name}.py").write_text(f"import {module}\n")
        (tmp_path / f"{name}.yaml").write_text(
            f"task: {name}_task\ndataset_path: json\nprocess_docs: !function code_{name}.scored\n"
        )
    tasks = TaskManager(include_path=str(tmp_path), include_defaults=False)
    with pytest.raises(TaskCodeError, match=r"code_old.py, which .* imports transformers\.data\.gone\. .*<5\.20"):
        tasks.load(["old_task"])
    with pytest.raises(ModuleNotFoundError, match="gone"):
        tasks.load(["other_task"])


def test_a_task_that_is_nearly_one_of_ours_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """lm_eval's command line ends in a traceback; tasks that are like none of ours stay its own business."""
    others: list[str] = []
    monkeypatch.setattr("sys.excepthook", lambda kind, error, trace: others.append(str(error)))
    plugin._install_excepthook()
    for said in ("Tasks not found: iberian_eu_trivia, nothing", "Tasks not found: helaswag", "no Tasks not found: a"):
        sys.excepthook(ValueError, ValueError(said), None)
    shown = capsys.readouterr().err
    assert "iberian_eu_trivia: no such task. Did you mean iberian_eus_trivia" in shown and "lm_eval ls tasks" in shown
    assert "nothing: no such task." in shown
    assert others == ["Tasks not found: helaswag", "no Tasks not found: a"]


@pytest.mark.parametrize(
    ("task", "problem", "said"),
    [("arc_eu_challenge", ConnectionError("Couldn't reach"), "lm_eval --model dummy --tasks arc_eu_challenge --limit 1"),
     ("arc_eu_challenge", KeyError("x"), ""), ("hellaswag", ConnectionError("Couldn't reach"), "")],
)  # fmt: skip
def test_lm_evals_own_tasks_of_ours_say_what_they_lack(
    task: str, problem: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `iberian_more` takes from lm_eval; other errors and other tasks are as they were."""
    from lm_eval.api.task import ConfigurableTask

    def load_dataset(*_: Any, **__: Any) -> None:
        raise problem

    monkeypatch.setattr("lm_eval.api.task.datasets.load_dataset", load_dataset)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = {"task": task, "dataset_path": "HiTZ/ARC-eu", "dataset_name": "ARC-Challenge", "test_split": "test"}
    with pytest.raises(NotToBeHad if said else type(problem)) as caught:
        ConfigurableTask(config=config)
    if said:
        assert said in str(caught.value) and "HiTZ/ARC-eu (ARC-Challenge)" in str(caught.value)
        assert "IBERIAN_DATA" not in str(caught.value)  # which these tasks do not read


@pytest.mark.parametrize("path", ["file/out", "file/out.json"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_loaded(path: str, tmp_path: Path) -> None:
    """lm_eval logs a warning when all is measured, and ends with exit code 0."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker

    (tmp_path / "file").write_text("in the way")
    tracker = EvaluationTracker(output_path=str(tmp_path / path))
    with pytest.raises(OutputError, match="no results can be written there"):
        simple_evaluate(
            model="merged", model_args={"recipe": "nowhere.yml"}, tasks=["toy_eu"], evaluation_tracker=tracker
        )


@pytest.mark.parametrize("args", ["backend=nowhere,batch_size=8,device=cpu", {"backend": "nowhere", "device": "cpu"}])
def test_what_model_args_say_counts_above_lm_evals_own(args: Any) -> None:
    """lm_eval gives batch_size=1 by itself, which would be a second value."""
    from lm_eval_iberian.models.merged import Merged

    make = Merged.create_from_arg_obj if isinstance(args, dict) else Merged.create_from_arg_string
    with pytest.raises(EngineError, match="there is no such back end"):
        make(args, {"batch_size": 1, "max_batch_size": None, "device": "cuda:0"})
