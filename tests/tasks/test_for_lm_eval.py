"""The folders for lm_eval: they load without us, ask what our own tasks and lm_eval's ask, and score alike."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from lm_eval.tasks import TaskManager

from ifeval_multi import load_pack
from lm_eval_iberian.documents.manifests import manifests
from lm_eval_iberian.folders import tasks_folder
from tests.tasks.common import SEED, build, from_samples, requests

SCRIPT = tasks_folder() / "for_lm_eval.py"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("for_lm_eval", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    script().write(folder)
    return folder


@pytest.fixture
def theirs(written: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Builds a task of the folders, as lm_eval would that has no other; the Hub is our samples."""
    asked = []

    def load(path: str, name: str | None = None, revision: str | None = None, **other: Any) -> Any:
        asked.append((path, revision))
        return from_samples(path, name, **other)

    monkeypatch.setattr(datasets, "load_dataset", load)
    manager = TaskManager(include_path=str(written), include_defaults=False)

    def made(name: str) -> Any:
        task = manager.load([name])["tasks"][name]
        task.set_fewshot_seed(SEED)
        return task

    made.asked = asked  # type: ignore[attr-defined]
    return made


def test_nothing_of_ours_is_imported_but_the_verdicts(written: Path) -> None:
    """Read as text: the folders are to run where lm_eval_iberian is not."""
    for file in written.rglob("utils.py"):
        roots = {(node.module or "").partition(".")[0] if isinstance(node, ast.ImportFrom) else alias.name.partition(".")[0]
                 for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, (ast.Import, ast.ImportFrom))
                 for alias in node.names}  # fmt: skip
        assert roots <= {"datasets", "json", "pathlib", "ifeval_multi"}
    assert not [file for file in written.rglob("*") if file.is_file() and "lm_eval_iberian." in file.read_text()]


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["es-eu", "gl-en"])
def test_flores_asks_what_ours_does(direction: str, theirs: Any) -> None:
    task, ours = theirs(f"flores_plus_{direction}"), build(f"iberian_flores_{direction}")
    for shots in (5, 0):
        assert requests(task, shots) == requests(ours, shots)
    assert set(theirs.asked) == {("openlanguagedata/flores_plus", manifests()["openlanguagedata/flores_plus"].revision)}
    assert task.config.generation_kwargs == ours.config.generation_kwargs
    assert {one["metric"] for one in task.config.metric_list} == {one["metric"] for one in ours.config.metric_list}


def test_flores_refuses_sentences_that_do_not_pair(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"eus_Latn": [1, 2], "spa_Latn": [1, 3]}
    monkeypatch.setattr(datasets, "load_dataset", lambda _, name, **__: {
        split: {"id": rows[name], "text": ["a", "b"]} for split in ("dev", "devtest")})  # fmt: skip
    spec = importlib.util.spec_from_file_location("utils_of_flores", written / "flores_plus" / "utils.py")
    assert spec and spec.loader
    utils = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(utils)
    with pytest.raises(ValueError, match="do not have the same sentences"):
        utils.load(["eus_Latn", "spa_Latn"])


@pytest.mark.slow
@pytest.mark.parametrize("language", ["eu", "gl"])
def test_ifeval_asks_and_judges_as_ours(language: str, theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every prompt, and the verdicts on an answer that follows some instructions and not others."""
    monkeypatch.setenv(f"IBERIAN_IFEVAL_{language.upper()}", "own")
    task, ours = theirs(f"ifeval_{language}"), build(f"ifeval_{language}")
    assert [one[0] for one in requests(task)] == [one[0] for one in requests(ours)]
    answer = load_pack(language).sample + "\n\n* bat\n* bi"
    levels = [f"{level}_{reading}_acc" for level in ("prompt_level", "inst_level") for reading in ("strict", "loose")]
    judged: dict[str, list[Any]] = {level: [] for level in levels}
    for mine, other in zip(ours.eval_docs, task.eval_docs, strict=True):
        expected, found = ours.process_results(mine, [answer]), task.process_results(other, [answer])
        for level in levels:
            assert found.get(level) == expected.get(level)
            judged[level] += [found[level]] if level in found else []
    for level in levels:
        assert task.aggregation()[level](judged[level]) == ours.aggregation()[level](judged[level])
    assert 0 < task.aggregation()["inst_level_strict_acc"](judged["inst_level_strict_acc"]) < 1


def test_each_folder_has_lm_evals_readme(written: Path) -> None:
    for name in ("flores_plus", "ifeval_iberian"):
        text = (written / name / "README.md").read_text()
        tasks = {file.stem for file in (written / name).glob("*.yaml")}
        assert all(f"* `{task}`" in text for task in tasks) and "### Checklist" in text
    assert len(list((written / "flores_plus").glob("*.yaml"))) == 30
    assert json.loads((written / "ifeval_iberian" / "eu.jsonl").read_text().splitlines()[0])["prompt"]


def test_nothing_is_overwritten(written: Path) -> None:
    with pytest.raises(SystemExit, match="there is something already"):
        script().write(written)
