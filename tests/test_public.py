"""What is promised from Python: the names at the top of the packages, their types, and the notebook."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian.moved import MOVED
from merge_hooks.moved import MOVED as HOOKS_MOVED
from tests.conftest import ROOT

PACKAGES = ("lm_eval_iberian", "merge_hooks")
NOTEBOOK = ROOT / "examples" / "merge_and_score.ipynb"


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_there_and_typed(package: str) -> None:
    """The stub says for each name what PUBLIC says: mypy and the interpreter see the same."""
    module = importlib.import_module(package)
    stub = ast.parse((ROOT / package / "__init__.pyi").read_text())
    typed = {alias.asname: f"{node.module}:{alias.name}" for node in stub.body if isinstance(node, ast.ImportFrom)
             for alias in node.names}  # fmt: skip
    assert typed == module.PUBLIC
    assert sorted(module.PUBLIC) == module.__all__
    for name, place in module.PUBLIC.items():
        assert getattr(module, name) is pkgutil.resolve_name(place)
    rooms = {one.name for one in pkgutil.iter_modules([str(ROOT / package)])}
    old = {name.rpartition(".")[2] for name in (*MOVED, *HOOKS_MOVED) if name.count(".") == 1}
    assert not set(module.PUBLIC) & (rooms | old), "a module of that name would take its place"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_names_them_all(package: str) -> None:
    page = (ROOT / "lm_eval_iberian" / "PYTHON.md").read_text()
    named = [name for name in importlib.import_module(package).PUBLIC if f"`{name}" not in page]
    assert named == []


def test_importing_the_packages_imports_nothing() -> None:
    program = (
        "import sys, lm_eval_iberian, merge_hooks; print([n for n in ('torch', 'yaml', 'numpy') if n in sys.modules])"
    )
    environment = {**os.environ, "IBERIAN_AUTOLOAD": "0"}
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert said.stdout.strip() == "[]"


def test_the_notebook_is_one_without_outputs() -> None:
    """As git should have it: the outputs of somebody's machine are no promise."""
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (found["nbformat"], found["nbformat_minor"]) == (4, 5) and len({one["id"] for one in found["cells"]}) > 5
    cells = [one for one in found["cells"] if one["cell_type"] == "code"]
    assert cells and all(one["outputs"] == [] and one["execution_count"] is None for one in cells)


@pytest.mark.slow
@pytest.mark.parametrize("models", ["llama", pytest.param("toys", marks=[pytest.mark.nightly])])
def test_the_notebook_runs(
    models: str, request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cell by cell in one namespace, as a kernel does: on random models by day, on trained toys in `make test-all`."""
    (tmp_path / "toys").mkdir()
    for name in ("base", "instruct", "basque"):
        (tmp_path / "toys" / name).symlink_to(request.getfixturevalue(models)[name])
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), namespace)
    said = capsys.readouterr().out
    assert "weight 1.0 minus weight 0.25:" in said and "model.safetensors" in said
    ours, theirs, found = (namespace[name] for name in ("ours", "theirs", "found"))
    assert len(ours) == 100 and found.value == pytest.approx((sum(ours) - sum(theirs)) / 100)  # type: ignore
    assert (tmp_path / "merged" / "config.json").is_file()
