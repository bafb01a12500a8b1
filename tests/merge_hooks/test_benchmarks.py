"""The swap benchmarks run, at a small size, and say what they measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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


@pytest.mark.slow
def test_gpu_check_runs_on_a_cpu(tmp_path: Path) -> None:
    table, result = run("gpu_check.py", tmp_path, "--small", "--device", "cpu")
    parts: Any = result["parts"]
    assert list(parts) == ["speed", "bytes", "toys", "scoring", "large"]
    assert all(part["ok"] for part in parts.values()) and "cpu: all parts passed" in table
    assert parts["bytes"]["count"] == 48 and parts["toys"]["texts"][1] > 0 and parts["toys"]["scores"][1] > 0


@pytest.mark.slow
def test_a_part_of_gpu_check_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    import gpu_check

    def breaks(_: Any) -> dict[str, Any]:
        raise gpu_check.WrongError("3 elements differ")

    monkeypatch.setattr(gpu_check, "PARTS", {"one": lambda _: {"text": "fine"}, "two": breaks,
                                             "three": lambda _: 1 / 0, "four": lambda _: {"text": "done"}})  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--device", "cpu", "--json", str(tmp_path / "out.json")])
    with pytest.raises(SystemExit) as ended:
        gpu_check.main()
    parts = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["parts"]
    assert ended.value.code == 1 and "failed: two, three" in capsys.readouterr().out
    assert [part["ok"] for part in parts.values()] == [True, False, False, True]
    assert parts["two"]["error"] == "3 elements differ" and parts["three"]["error"].startswith("ZeroDivisionError")


@pytest.mark.slow
@pytest.mark.nightly
def test_gpu_check_vllm_runs_on_a_cpu(tmp_path: Path) -> None:
    table, result = run("gpu_check_vllm.py", tmp_path, "--small")
    parts: Any = result["parts"]
    assert parts["swaps"]["proof_after"] == "proved" and len(parts["swaps"]["swaps"]) == 3
    assert result["classes"]["stablelm"]["proofs"][-1] == "proved" and "all parts passed" in table  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.nightly
def test_ranks_speed_runs(tmp_path: Path) -> None:
    wanted = ["--small", "--ranks", "1", "2", "--repeats", "1", "--methods", "linear", "--residents", "memory"]
    _, result = run("ranks_speed.py", tmp_path, *wanted)
    read = {(row["way"], row["ranks"]): row["read"] for row in result["runs"]}  # type: ignore[attr-defined]
    assert read["shared", 2] == read["shared", 1] == read["alone", 1] and read["alone", 2] == 2 * read["alone", 1]


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
