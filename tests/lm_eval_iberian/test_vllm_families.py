"""Every class of models that vLLM runs on a CPU gives the answers that transformers gives, and swaps as the table says.

On a GPU, with vllm installed: `pytest -m "slow or not slow" tests/lm_eval_iberian/test_vllm_families.py` (not seen there).
transformers itself is held against mergekit's checkpoints in `tests/merge_hooks/test_families.py`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from merge_hooks.architectures.built import Built, class_of, make
from merge_hooks.architectures.kinds import Family, families, family_of, kinds_of
from tests import forks
from tests.conftest import ROOT
from tests.merge_hooks.families import FAMILIES

STAND_IN = ROOT / "tests" / "lm_eval_iberian" / "without_torchvision"
# One of each kind by day; the others run in `make test-all`.
BY_DAY = ("qwen3_vl", "mixtral")
NOT_IN_VLLM = ("stablelm2_12b",)  # another model of a class that is
SEEN = {family.model_class: family for family in families()}
# Both engines round to bfloat16 on their own ways.
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.6}
# vLLM's own loader of the written checkpoint differs from transformers as much, on processors with AVX-512 BF16: by 0.007
# of -70.5 (gemma2; in float64 it is transformers that is right).
VLLM_ROUNDS = 3e-4


def built(name: str) -> Built:
    import torch

    config = FAMILIES[name]()
    kind = class_of(config)
    assert kind is not None
    with torch.device("meta"):
        return Built(make(kind, config, dtype=torch.float32))


def way(family: Family) -> str:
    return family.vllm.partition(";")[0]


def vllm_runs(name: str) -> bool:
    """Whether the table says that vLLM runs a family."""
    kind = class_of(FAMILIES[name]())
    family = family_of(kind.__name__) if kind is not None else None
    return family is not None and name not in NOT_IN_VLLM and way(family) in ("swaps", "restarts")


def is_packed(proofs: list[str]) -> bool:
    """Whether vLLM has packed the weights of a convolution, as it does on a CPU with AVX-512 BF16 (0.32,
    `model_executor/layers/utils.py`). What is packed cannot be proved, so the engine is started anew."""
    import torch

    return torch.cpu._is_avx512_bf16_supported() and all("linear_attn.conv1d.weight" in said for said in proofs)


def differ(first: dict[str, Any], second: dict[str, Any]) -> float:
    return max(abs(a - b) for a, b in zip(first["scores"], second["scores"], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in BY_DAY else [pytest.mark.nightly]) for name in FAMILIES]
)
def test_answers_and_swaps(name: str, tmp_path: Path) -> None:
    if name not in BY_DAY and not vllm_runs(name):  # not asked at collection: it imports every class, for seconds
        pytest.skip("the table says that vLLM does not run it")
    stand_in = "" if importlib.util.find_spec("torchvision") else str(STAND_IN)
    done = forks.run(
        [sys.executable, "-m", "tests.lm_eval_iberian.vllm_families", str(tmp_path), name],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), stand_in])}, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    family = family_of(type(built(name).model).__name__)
    assert family is not None
    expected = "restarts" if is_packed(found["proofs"]) else way(family)
    assert found["way"] == expected, found["proofs"]
    assert (found["proofs"][0] == "proved") == (expected == "swaps")
    first, second = found["transformers"]
    apart, most = differ(first, second), TOLERANCES[found["dtype"]] + VLLM_ROUNDS * max(map(abs, first["scores"]))
    assert apart > 3 * most  # else nothing is shown
    for answered, wanted in zip(found["vllm"], (first, second, first), strict=True):
        assert answered["scores"] == pytest.approx(wanted["scores"], abs=TOLERANCES[found["dtype"]], rel=VLLM_ROUNDS)
    assert found["vllm"][2]["scores"] == pytest.approx(found["vllm"][0]["scores"], abs=TOLERANCES[found["dtype"]])


def test_each_family_has_a_row_of_its_kinds() -> None:
    missing = []
    for name in FAMILIES:
        own = built(name)
        family = SEEN.get(type(own.model).__name__)
        if family is None:
            missing.append(type(own.model).__name__)
        else:
            assert set(kinds_of(own)) <= set(family.kinds), name
    assert missing == []


def test_each_row_has_a_family() -> None:
    tested = {kind.__name__ for make in FAMILIES.values() if (kind := class_of(make())) is not None}
    assert [family.name for family in families() if family.model_class not in tested] == []
