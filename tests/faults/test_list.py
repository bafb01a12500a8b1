"""The list of faults against every command: (name, what is done, what must hold).

What is done: `models.py` breaks a model in each way of its list, and others break a recipe, a sweep, results. What must
hold, whatever the command: it ends, with success or with one message of ours; the message says more than a class's name;
nothing that a terminal obeys is printed; nothing is left where the output would have been.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from lm_eval_iberian.commands.main import cli
from merge_hooks.stream import template
from tests.conftest import first_ones
from tests.faults.models import ADAPTERS, BROKEN, adapter, spoiled
from tests.faults.test_texts import MARKS
from tests.faults.test_yaml import EVIL

Done = tuple[int, str]


def run(*words: str) -> Done:
    """(exit code, what was said) of a command. Raises what is no error of ours."""
    result = CliRunner(env={"IBERIAN_TRACEBACK": "1"}).invoke(cli, list(words))  # the net is not what is tested
    error = result.exception
    if error is not None and not isinstance(error, SystemExit):
        assert getattr(error, "for_people", False), repr(error)
    return result.exit_code, result.output + ("" if isinstance(error, SystemExit) or error is None else str(error))


def lm_eval(recipe: Path, folder: Path) -> Done:
    """What `lm_eval --model merged --model_args recipe=...` does before it evaluates."""
    from lm_eval_iberian.models import Merged

    try:
        Merged(recipe=str(recipe), backend="hf", dtype="float32", device="cpu")
    except BaseException as error:
        assert getattr(error, "for_people", False), repr(error)
        return 1, str(error)
    return 0, ""


def sweep(recipe: Path, folder: Path) -> Done:
    """The plan of a sweep, in which the recipe is one point."""
    from lm_eval_iberian.sweep.plan import _Planner
    from lm_eval_iberian.sweep.spec import check_sweep

    data = {"tasks": "a", "recipes": {"one": str(recipe)}, "model_args": {"backend": "hf", "dtype": "float32"}}
    made = check_sweep(data, "sweep.yml")
    (point,) = [_Planner(made).plan(point) for point in made.points]
    return int(bool(point.problem)), point.problem


def prefetch(recipe: Path, folder: Path) -> Done:
    """The part of `iberian prefetch --models` that reads the recipe."""
    from lm_eval_iberian.commands.prefetch import _models

    try:
        _models(recipe)
    except BaseException as error:
        assert getattr(error, "for_people", False), repr(error)
        return 1, str(error)
    return 0, ""


COMMANDS: dict[str, Callable[[Path, Path], Done]] = {
    "lm_eval": lm_eval,
    "sweep": sweep,
    "export": lambda recipe, folder: run("recipe", "export", str(recipe), str(folder / "out")),
    "prefetch": prefetch,
    "check": lambda recipe, folder: run("recipe", "check", str(recipe)),
    "show": lambda recipe, folder: run("recipe", "show", str(recipe)),
    "vectors": lambda recipe, folder: run("vectors", str(recipe)),
}


@pytest.fixture
def tmpdir_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(template, "SECONDS", 1)
    return tmp_path / "tmp"


def must_hold(done: Done, folder: Path) -> None:
    code, said = done
    assert code in (0, 1, 2)
    assert code == 0 or len(said.strip()) > 40, said
    assert not set(said) & set(MARKS) and len(said) < 100_000
    assert "Traceback" not in said
    assert code == 0 or not (folder / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "fault", first_ones([*BROKEN, *(f"adapter: {one}" for one in ADAPTERS)], 2, pytest.mark.nightly)
)
def test_a_fault_of_a_model(
    llama: dict[str, Path], tmp_path: Path, tmpdir_of_this_test: Path, command: str, fault: str
) -> None:
    if fault.startswith("adapter: "):
        said = ADAPTERS[fault.removeprefix("adapter: ")]
        model = f"{llama['instruct']}+{adapter(tmp_path / 'adapter', **said)}"
    else:
        model = str(spoiled(llama["instruct"], tmp_path, fault))
    recipe: dict[str, Any] = {
        "merge_method": "task_arithmetic", "base_model": str(llama["base"]), "dtype": "float32",
        "models": [{"model": one, "parameters": {"weight": 1.0}} for one in (model, str(llama["basque"]))],
    }  # fmt: skip
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(recipe))
    must_hold(COMMANDS[command](tmp_path / "merge.yml", tmp_path), tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("fault", first_ones(EVIL, 3, pytest.mark.nightly))
def test_a_fault_of_a_recipe(tmp_path: Path, tmpdir_of_this_test: Path, command: str, fault: str) -> None:
    (tmp_path / "merge.yml").write_text(EVIL[fault])
    done = COMMANDS[command](tmp_path / "merge.yml", tmp_path)
    must_hold(done, tmp_path)
    assert done[0] != 0


@pytest.mark.parametrize("command", [("sweep", "--dry-run"), ("slurm",), ("tune",)], ids=str)
@pytest.mark.parametrize("fault", EVIL)
def test_a_fault_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], fault: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yml").write_text(EVIL[fault])
    done = run(command[0], "sweep.yml", *command[1:])
    must_hold(done, tmp_path)
    assert done[0] != 0 and [path.name for path in tmp_path.iterdir()] == ["sweep.yml"]


RESULTS = {
    "nothing": "", "no JSON": "{", "a list": "[]", "depth": "[" * 100_000, "digits": '{"results": ' + "9" * 10_000 + "}",
    "no results": "{}", "results of texts": '{"results": {"a": "b"}}', "results of lists": '{"results": {"a": {"acc,none": [1]}}}',
    "configs of texts": '{"results": {"iberian_eus_trivia": {"acc,none": 1}}, "configs": {"iberian_eus_trivia": "x"}}',
    "samples of numbers": '{"results": {"iberian_eus_trivia": {"acc,none": 1}}, "n-samples": {"iberian_eus_trivia": 5}}',
    "a stamp of texts": '{"results": {"a": {"acc,none": 1}}, "config": {"iberian": {"sources": "x", "answers": []}}}',
    "sources of texts": '{"results": {"a": {"acc,none": 1}}, "config": {"iberian": {"sources": ["x"]}}}',
    "a date that is none": '{"results": {"a": {"acc,none": 1}}, "date": {}, "config": {"model_args": 5}}',
}  # fmt: skip


@pytest.mark.parametrize("fault", RESULTS)
def test_a_fault_of_results(tmp_path: Path, fault: str) -> None:
    """Named itself, and in a folder."""
    (tmp_path / "results_1.json").write_text(RESULTS[fault])
    for given in (tmp_path / "results_1.json", tmp_path):
        for form in ("markdown", "json"):
            must_hold(run("report", str(given), "--format", form), tmp_path)


@pytest.mark.parametrize("limit", ["nan", "inf", "-1", "0", "1e400", "-inf"])
@pytest.mark.parametrize("command", ["sweep", "slurm"])
def test_a_limit_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, limit: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yml").write_text(yaml.safe_dump({"tasks": ["a"], "recipes": {"one": {"pretrained": "x"}}}))
    code, said = run(command, "sweep.yml", f"--limit={limit}")
    assert code != 0 and "limit" in said


@pytest.mark.parametrize("limit", ["nan", "inf", "-1", "0", "-0.5"])
def test_a_limit_of_lm_eval_that_is_none(limit: str) -> None:
    """`lm_eval --limit nan` with our model: one message. Of other models it is lm_eval's to say."""
    from lm_eval import evaluator

    from lm_eval_iberian.errors import DocumentsError

    with pytest.raises(DocumentsError, match=r"--limit .* whole number of documents"):
        evaluator.evaluate(SimpleNamespace(prepared=True), {}, limit=float(limit))  # type: ignore[arg-type]
    with pytest.raises(Exception) as other:
        evaluator.evaluate(SimpleNamespace(), {}, limit=float(limit))  # type: ignore[arg-type]
    assert not isinstance(other.value, DocumentsError)


def test_a_large_limit_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yml").write_text(yaml.safe_dump({"tasks": ["a"], "recipes": {"one": {"pretrained": "x"}}}))
    assert "--limit 1234567 " in run("slurm", "sweep.yml", "--limit", "1234567")[1]
