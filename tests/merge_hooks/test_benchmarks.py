"""The swap benchmarks run, at a small size, and say what they measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def run(script: str, folder: Path, *arguments: str) -> tuple[str, dict[str, object]]:
    command = [
        sys.executable,
        str(ROOT / "tests" / "benchmarks" / script),
        *arguments,
        "--json",
        str(folder / "out.json"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, json.loads((folder / "out.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.nightly
def test_gpu_swap_runs_on_a_cpu(tmp_path: Path) -> None:
    table, result = run("gpu_swap.py", tmp_path, "--small", "--device", "cpu", "--repeats", "1")
    assert result["methods"] and table.count("\n| ") == len(result["methods"]) + 1  # type: ignore[arg-type]


@pytest.mark.nightly
def test_swap_speed_runs_in_transformers(tmp_path: Path) -> None:
    wanted = ["--small", "--engines", "hf", "--dtypes", "bfloat16", "--methods", "linear", "ties", "--repeats", "1"]
    table, result = run("swap_speed.py", tmp_path, *wanted)
    assert result["runs"] and "| hf | bfloat16 | ties | new density |" in table


@pytest.mark.nightly
def test_swap_kernels_runs() -> None:
    command = [sys.executable, str(ROOT / "tests" / "benchmarks" / "swap_kernels.py")]
    settings = {"PYTHONPATH": str(ROOT), "ELEMENTS": str(1 << 16)}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("\n| float32") == 10 and "a new density" in done.stdout
