"""A merge is never whole in memory: a stream takes a few layers, with experts as without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.merge_hooks.memory_of_streams import KINDS, make

BY_DAY = ("mixtral", "hf")
CASES = [(kind, engine) for kind in KINDS for engine in ("stream", "hf")]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says there what is anonymous")
@pytest.mark.parametrize(
    ("kind", "engine"),
    [pytest.param(*case, marks=[] if case == BY_DAY else [pytest.mark.nightly]) for case in CASES],
)
def test_about_a_layer_of_each_source(kind: str, engine: str, tmp_path: Path) -> None:
    """Three sources of twelve layers: one layer of each, their float32 copies, the result, and what the compiler of the
    kernels takes. The sources have 36 layers.
    """
    make(kind, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "tests.merge_hooks.memory_of_streams", str(tmp_path), kind, engine],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["layer"] > 10e6
    assert found["grown"] < 12 * found["layer"], f"{found['grown'] / found['layer']:.1f} layers"
