"""lm_eval knows `merged` and our tasks after an install, wheel or editable, and knows nothing after an uninstall.

Each test has a virtual environment of its own, with its own site-packages and so its own `.pth` files. The
packages that take minutes to install (lm_eval, torch, ...) are seen in the environment of the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

# What lm_eval knows, seen from a process that imports it as its command line does.
INVENTORY = """
import json, warnings
from lm_eval.api.registry import get_model, model_registry
get_model("dummy")
from lm_eval.tasks import TaskManager
merged = get_model("merged").__name__ if "merged" in model_registry else None
print("RESULT" + json.dumps({"models": sorted(model_registry.keys()), "tasks": TaskManager().all_tasks, "merged": merged}))
"""


class Environment:
    """A virtual environment."""

    def __init__(self, folder: Path, with_packages: bool = True) -> None:
        venv.create(folder, with_pip=False)
        self.python = folder / "bin" / "python"
        self.site = next((folder / "lib").glob("python*/site-packages"))
        self.empty = folder / "empty"
        self.empty.mkdir()
        if with_packages:
            # A path in a .pth is searched, but the .pth files there are not read: ours is not active through it.
            (self.site / "packages.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def pip(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check", *arguments]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHONPATH", "IBERIAN"))}
        return subprocess.run(
            [str(self.python), *arguments], capture_output=True, text=True, cwd=self.empty, timeout=300,
            env=clean | environment, check=False,
        )  # fmt: skip

    def inventory(self, **environment: str) -> dict[str, Any]:
        done = self.run("-c", INVENTORY, **environment)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
        assert lines, done.stderr
        return json.loads(lines[0].removeprefix("RESULT"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What lm_eval knows where we are not installed."""
    return Environment(tmp_path_factory.mktemp("before") / "venv").inventory()


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_installed_and_uninstalled(kind: str, wheel: Path, before: dict[str, Any], tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv")
    assert "merged" not in before["models"] and before["merged"] is None
    what = [str(wheel)] if kind == "wheel" else ["--no-build-isolation", "--editable", str(ROOT)]
    environment.pip("install", "--quiet", "--no-deps", *what)

    after = environment.inventory()
    assert set(after["models"]) == {*before["models"], "merged"} and after["merged"] == "Merged"
    ours = set(after["tasks"]) - set(before["tasks"])
    assert "iberian_suite" in ours and all(
        name.startswith(("iberian", "toy_", "companion_")) or "ifeval" in name for name in ours
    )
    assert set(before["tasks"]) <= set(after["tasks"])
    if kind == "wheel":
        assert environment.inventory(IBERIAN_AUTOLOAD="0") == before

    listed = environment.run("-m", "lm_eval", "validate", "--tasks", "iberian_suite,hellaswag")
    assert listed.returncode == 0 and "All tasks found and valid" in listed.stdout, listed.stderr

    environment.pip("uninstall", "--quiet", "--yes", "lm_eval_iberian")
    assert environment.inventory() == before
    assert not [path.name for path in environment.site.iterdir() if "iberian" in path.name]


def test_a_start_of_the_interpreter_imports_next_to_nothing(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv", with_packages=False)
    list_modules = "import sys; print(*sorted(sys.modules))"
    before = set(environment.run("-c", list_modules).stdout.split())
    environment.pip("install", "--quiet", "--no-deps", str(wheel))
    done = environment.run("-c", list_modules)
    assert done.stderr == ""
    assert set(done.stdout.split()) - before == {"lm_eval_iberian", "lm_eval_iberian.autoload"}


def test_no_lm_eval_at_all(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv", with_packages=False)
    environment.pip("install", "--quiet", "--no-deps", str(wheel))
    done = environment.run("-c", "print('fine')")
    assert (done.stdout, done.stderr, done.returncode) == ("fine\n", "", 0)


def test_a_changed_lm_eval_gives_one_warning(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv", with_packages=False)
    environment.pip("install", "--quiet", "--no-deps", str(wheel))
    changed = environment.site / "lm_eval"
    for package in ("", "models", "api", "tasks"):
        (changed / package).mkdir(exist_ok=True)
        (changed / package / "__init__.py").write_text("")
    (changed / "tasks" / "manager.py").write_text("TaskManager = None\n")
    done = environment.run("-W", "always", "-c", "import lm_eval.tasks.manager; print('still here')")
    assert done.returncode == 0 and done.stdout == "still here\n"
    assert done.stderr.count("lm_eval_iberian could not register itself") == 1
    assert "pip install lm_eval==" in done.stderr and "IBERIAN_AUTOLOAD=0" in done.stderr


def test_the_wheel_holds_tasks_and_samples(wheel: Path) -> None:
    import zipfile

    names = set(zipfile.ZipFile(wheel).namelist())
    assert "iberian_autoload.pth" in names
    assert "lm_eval_iberian/tasks/eus_trivia/iberian_eus_trivia.yaml" in names
    assert {"lm_eval_iberian/tasks/languages.yml", "lm_eval_iberian/tasks/eus_trivia/manifest.yml"} <= names
    assert "lm_eval_iberian/tasks/eus_trivia/samples/HiTZ/EusTrivia/default/test.jsonl" in names
    assert not [name for name in names if name.startswith(("tests/", "tasks/")) or "/shared/" in name]
