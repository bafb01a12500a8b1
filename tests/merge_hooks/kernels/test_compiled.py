"""Compiled code on disk: found again by the next process, never stale, and never another's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from numba import config, njit

from merge_hooks.kernels import compiled, cpu
from merge_hooks.kernels.float_bits import FLOAT32, widest
from tests.conftest import ROOT


def twice(values: np.ndarray) -> float:
    return 2 * values[0]


def thrice(values: np.ndarray) -> float:
    return 3 * values[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new cache, for this test's functions."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled, "_COMPILED", {})
    compiled._facts.cache_clear()
    yield tmp_path / "merge_hooks"
    compiled._facts.cache_clear()


def files(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*.nbc")}


def test_each_function_and_signature_has_a_folder_of_its_own(folder: Path) -> None:
    """Two that shared one could overwrite each other's code, in two processes at once."""
    assert compiled.call(twice, np.ones(1)) == 2 and compiled.call(twice, np.ones(1, np.float32)) == 2
    assert compiled.call(thrice, np.ones(1)) == 3
    found = files(folder)
    assert len(found) == len({file.relative_to(folder).parts[0] for file in found}) == 3
    compiled._COMPILED.clear()
    assert compiled.call(twice, np.full(1, 21.0)) == 42 and files(folder) == found


def test_other_sources_or_another_processor_have_other_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a file's time and size are as they were, and where only a function that is called has changed."""
    read = Path.read_bytes
    compiled.call(twice, np.ones(1))
    monkeypatch.setattr(compiled.binding, "get_host_cpu_name", lambda: "another")
    for number in (2, 3):
        compiled._facts.cache_clear()
        compiled._COMPILED.clear()
        compiled.call(twice, np.ones(1))
        assert len(files(folder)) == number
        monkeypatch.setattr(Path, "read_bytes", lambda file: read(file).replace(b"0x7FFF)", b"0x7FFE)"))
        monkeypatch.setattr(compiled, "SOURCE_HASHES", compiled.source_hashes())


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (compiled, "SOURCE_HASHES", ["another"]),
        (config, "OPT", "1"),
        (compiled.platform, "python_version", lambda: "3.99"),
        (compiled.numba, "__version__", "another"),
        (compiled.llvmlite, "__version__", "another"),
        (compiled.binding, "get_host_cpu_name", lambda: "another"),
        (compiled.binding, "get_host_cpu_features", lambda: compiled.binding.FeatureMap()),
    ],
)
def test_what_code_depends_on_names_its_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, value: Any
) -> None:
    before = compiled._folder("twice", "")
    monkeypatch.setattr(where, name, value)
    compiled._facts.cache_clear()
    assert before != compiled._folder("twice", "")


def test_all_that_is_compiled_is_hashed() -> None:
    """What `cpu.py` calls, and where numbers that it uses stand."""
    used = {Path(sys.modules[value.__module__].__file__ or "").name for value in vars(cpu).values()
            if getattr(value, "__module__", "").startswith("merge_hooks.")}  # fmt: skip
    imported = {f"{line.split()[1].split('.')[-1]}.py" for line in Path(cpu.__file__).read_text().splitlines()
                if line.startswith("from merge_hooks")}  # fmt: skip
    assert used | imported | {"compiled.py"} == set(compiled.SOURCES)


@pytest.mark.parametrize("trouble", ["read-only", "damaged", "no home"])
def test_without_a_cache_it_is_compiled_anyway(folder: Path, trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled.call(twice, np.ones(1))
    compiled._COMPILED.clear()
    if trouble == "damaged":
        for file in files(folder):
            file.write_bytes(b"not a pickle")
    elif trouble == "no home":
        monkeypatch.setattr(config, "CACHE_DIR", "")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
    else:
        monkeypatch.setattr(compiled.tempfile, "TemporaryFile", lambda **_: (_ for _ in ()).throw(PermissionError()))
    assert compiled.call(twice, np.full(1, 4.0)) == 8


@pytest.mark.slow
def test_arguments_of_another_kind_do_not_take_its_code(folder: Path) -> None:
    """A float16's pattern is no bfloat16's, though both are two bytes."""
    out, weights, unit = np.empty(4, np.float32), np.ones(2, np.float32), np.float32(2)
    for pattern, one in ((np.uint16, 0x3F80), (np.int16, 0x3C00)):
        compiled.call(cpu.linear, out, (np.full(4, one, pattern),) * 2, weights, unit, FLOAT32)
        assert out.tolist() == [1.0] * 4
    assert len(files(folder)) == 2


def test_an_engine_can_start_where_numba_has_been_used() -> None:
    """As vLLM 0.32 looks through all modules (triton_utils/dispatcher.py)."""
    modules = [module for name, module in sys.modules.items() if name.startswith(("numba", "llvmlite"))]
    for value in (value for module in modules for value in list(vars(module).values())):
        assert not hasattr(value, "__dict__") or isinstance(vars(value), (dict, MappingProxyType))


@pytest.mark.slow
def test_the_next_process_compiles_nothing(tmp_path: Path) -> None:
    code = """
import numpy as np
from merge_hooks.kernels import compiled, cpu
from merge_hooks.kernels.float_bits import FLOAT32, widest
ones = np.ones(4, np.float32)
compiled.call(cpu.linear, ones, (ones, ones), ones[:2], np.float32(2), FLOAT32)
print(ones)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_DEBUG_CACHE": "1"}
    options = {"env": environment, "capture_output": True, "text": True, "timeout": 300, "check": True}
    first, second = (subprocess.run([sys.executable, "-c", code], **options) for _ in range(2))  # type: ignore[call-overload]
    assert "data saved" in first.stdout and "data saved" not in second.stdout and "data loaded" in second.stdout
    assert second.stdout.endswith("[1. 1. 1. 1.]\n")


def test_kernels_ask_for_the_widest_vectors() -> None:
    """llvmlite has no public way to that: see `float_bits.widest`."""

    @njit
    def wide(values: np.ndarray) -> float:
        widest()
        return values[0]

    wide(np.ones(1))
    assert '"prefer-vector-width"="512"' in next(iter(wide.inspect_llvm().values()))
