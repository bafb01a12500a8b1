"""A point that cannot be measured is recorded with its reason, and the sweep goes on, whatever the error is."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian.models.merge import prepare
from lm_eval_iberian.runs.run import read_sweep_run
from lm_eval_iberian.runs.store import FILE
from lm_eval_iberian.sweep import kept_tasks, plan, worker
from lm_eval_iberian.sweep.spec import check_sweep
from merge_hooks.errors import MergeHooksError
from merge_hooks.stream import template
from tests.conftest import first_ones
from tests.faults.models import ADAPTERS, BROKEN, TEMPLATES, adapter, spoiled, with_text
from tests.lm_eval_iberian.sweep.local_tasks import write_tasks
from tests.lm_eval_iberian.sweep.runner import ONLY_OURS, run

# These are no fault of the model's files as they are read, only later, or never.
MAY_BE_READ = (
    "experts that are a word",  # a Llama has none: nobody reads it
    "no architectures",  # model_type says it, as for transformers
    "a width of 0",
    "a negative width",
    "an unknown tokenizer",
    "a template that is no Jinja",
    "a template with a macro of itself",
)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"), 4)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates have one second, not ten."""
    monkeypatch.setattr(template, "SECONDS", 1)
    template._trial.cache_clear()


def linear(*models: object) -> dict[str, Any]:
    return {"merge_method": "linear", "dtype": "float32",
            "models": [{"model": str(model), "parameters": {"weight": 1.0}} for model in models]}  # fmt: skip


def sweep_of(tasks: Path, recipes: dict[str, Any], **more: Any) -> dict[str, Any]:
    arguments = {"backend": "hf", "dtype": "float32", "device": "cpu", "batch_size": 4}
    return {"tasks": ["local_choice"], "include_path": str(tasks), "model_args": arguments, "recipes": recipes, **more}


@pytest.mark.parametrize("fault", first_ones(BROKEN, 4, pytest.mark.nightly))
def test_a_broken_model_is_refused_in_words(llama: dict[str, Path], tmp_path: Path, hasty: None, fault: str) -> None:
    try:
        prepare(linear(spoiled(llama["instruct"], tmp_path, fault), llama["basque"]), None, dtype="float32")
    except MergeHooksError as error:
        assert len(str(error)) > 40 and "\x1b" not in str(error)
    else:
        assert fault in MAY_BE_READ


@pytest.mark.parametrize("fault", first_ones(ADAPTERS, 4, pytest.mark.nightly))
def test_a_broken_adapter_is_refused_in_words(llama: dict[str, Path], tmp_path: Path, fault: str) -> None:
    model = f"{llama['instruct']}+{adapter(tmp_path / 'adapter', **ADAPTERS[fault])}"
    with pytest.raises(MergeHooksError, match="adapter"):
        prepare(linear(model, llama["basque"]), None, dtype="float32")


def test_a_good_adapter_is_not_refused(llama: dict[str, Path], tmp_path: Path) -> None:
    """So that those above are refused for their fault."""
    prepare(linear(f"{llama['instruct']}+{adapter(tmp_path / 'adapter')}", llama["basque"]), None, dtype="float32")


def failures(folder: Path) -> dict[str, tuple[str, str]]:
    """key -> (reason, details)."""
    with sqlite3.connect(folder / FILE) as connection:
        return {key: (reason, details) for key, reason, details in
                connection.execute("SELECT key, reason, details FROM failures")}  # fmt: skip


@pytest.mark.slow
def test_a_sweep_over_every_fault_measures_what_is_whole(
    llama: dict[str, Path], tasks: Path, tmp_path: Path, hasty: None
) -> None:
    broken = {fault: spoiled(llama["instruct"], tmp_path / str(n), fault) for n, fault in enumerate(BROKEN)}
    adapters = {f"adapter: {fault}": f"{llama['instruct']}+{adapter(tmp_path / f'adapter {n}', **ADAPTERS[fault])}"
                for n, fault in enumerate(ADAPTERS)}  # fmt: skip
    recipes = {fault: linear(model, llama["basque"]) for fault, model in {**broken, **adapters}.items()}
    recipes["no such file"] = "nowhere/merge.yml"
    recipes["no YAML"] = str(tmp_path / "bad.yml")
    (tmp_path / "bad.yml").write_text("merge_method: [")
    recipes["whole"] = linear(llama["instruct"], llama["basque"])
    failed = run(sweep_of(tasks, recipes, parents=False), tmp_path / "run")
    found = read_sweep_run(tmp_path / "run")
    assert len(found["whole"].finished) == 1
    for name in {**broken, **adapters, "no such file": "", "no YAML": ""}:
        point = found[name]
        assert point.failures or name in MAY_BE_READ, name
        assert all(reason.strip() for reason in point.failures)
    assert len(failed) == len([point for point in found.points if point.failures])


def test_any_error_while_planning_is_recorded_with_its_traceback(
    llama: dict[str, Path], tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Panic(BaseException):
        """As pyo3's PanicException: no Exception."""

    monkeypatch.setattr(kept_tasks, "TaskManager", ONLY_OURS)
    whole = plan.prepare
    for error in (
        ZeroDivisionError("integer modulo by zero"),
        Panic("in Rust\nsomewhere"),
        SystemExit(3),
        RecursionError(),
    ):

        def fail(recipe: Any, *given: Any, error: BaseException = error) -> Any:
            if recipe.origin.endswith("broken"):
                raise error
            return whole(recipe, *given)

        monkeypatch.setattr(plan, "prepare", fail)
        recipes = {
            "broken": linear(llama["instruct"], llama["basque"]),
            "whole": linear(llama["basque"], llama["instruct"]),
        }
        made = plan.make_plan(check_sweep(sweep_of(tasks, recipes, parents=False), "test"))
        broken, good = made.points
        assert type(error).__name__ in broken.problem and "\n" not in broken.problem
        assert "Traceback" in broken.details and good.prepared is not None
        assert len(made.jobs) == 1


def test_ctrl_c_while_planning_ends_the_sweep(
    llama: dict[str, Path], tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(plan, "prepare", stop)
    with pytest.raises(KeyboardInterrupt):
        plan.make_plan(check_sweep(sweep_of(tasks, {"one": linear(llama["basque"])}), "test"))


def test_an_error_that_is_not_ours_goes_into_the_store(
    llama: dict[str, Path], tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's: SystemExit of a library, a panic, whatever; the next point is measured."""
    whole = worker.Worker._evaluate

    def fail(self: Any, job: Any, loaded: Any) -> Any:
        if job.point == "broken":
            raise SystemExit("a library\nhas had enough")
        return whole(self, job, loaded)

    monkeypatch.setattr(worker.Worker, "_evaluate", fail)
    recipes = {"broken": linear(llama["instruct"]), "whole": linear(llama["basque"])}
    failed = run(sweep_of(tasks, recipes, parents=False), tmp_path / "run")
    assert list(failed.values()) == ["broken: local_choice: SystemExit: a library has had enough"]
    ((reason, details),) = failures(tmp_path / "run").values()
    assert reason == "SystemExit: a library has had enough" and "Traceback" in details
    assert read_sweep_run(tmp_path / "run")["whole"].finished


@pytest.mark.parametrize("name", first_ones(TEMPLATES, 1))
def test_a_template_without_an_end_is_refused(llama: dict[str, Path], tmp_path: Path, hasty: None, name: str) -> None:
    if name == "a macro of itself":
        pytest.skip("Jinja stops it")
    template.refuse_endless("{% for message in messages %}{{ message.content }}{% endfor %}", "good")
    with pytest.raises(MergeHooksError, match="chat template"):
        template.refuse_endless({"default": "x", "other": TEMPLATES[name]}, "evil")


def test_a_template_that_loops_on_one_conversation_only_is_stopped(
    llama: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval_iberian.models import merge
    from lm_eval_iberian.models.hf import MergedHF
    from merge_hooks.errors import SourceError

    monkeypatch.setattr(merge, "RENDER_SECONDS", 0.2)
    loops = "{% if messages[0].content == 'now' %}" + TEMPLATES["two loops"] + "{% endif %}{{ messages[0].content }}"
    model = tmp_path / "model"
    import shutil

    shutil.copytree(llama["instruct"], model)
    with_text("chat_template.jinja", loops)(model)
    engine = MergedHF(pretrained=str(model), dtype="float32", device="cpu")
    assert engine.apply_chat_template([{"role": "user", "content": "later"}]) == "later"
    with pytest.raises(SourceError, match="does not end"):
        engine.apply_chat_template([{"role": "user", "content": "now"}])
    assert engine.apply_chat_template([{"role": "user", "content": "later"}]) == "later"
