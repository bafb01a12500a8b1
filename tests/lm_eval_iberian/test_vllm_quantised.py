"""Merges that vLLM quantises to float8 while it loads them: lm_eval's `vllm` on mergekit's checkpoint says the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lm_eval_iberian.identity.identity import of_model
from lm_eval_iberian.models.merge import prepare, sign_model
from lm_eval_iberian.sweep.plan import planned_signature
from merge_hooks.engines import vllm as vllm_loader
from merge_hooks.errors import EngineError
from tests import forks
from tests.conftest import ROOT, linear
from tests.lm_eval_iberian import vllm_quantised, vllm_swaps


@pytest.mark.skipif(not vllm_loader.distribution(), reason="vLLM is not installed")
@pytest.mark.parametrize("quantization", ["awq", "fp8_per_block", "bitsandbytes"])
def test_what_cannot_be_proved_is_refused(quantization: str) -> None:
    from lm_eval_iberian.models.vllm import MergedVLLM

    with pytest.raises(EngineError, match=f"quantization={quantization}: .* fp8_per_tensor, fp8_per_channel"):
        MergedVLLM(recipe="nowhere.yml", quantization=quantization)


def test_it_is_in_the_signature_and_in_the_identity(llama: dict[str, Path]) -> None:
    """So no cache, no row of a report and no average takes one for the other."""
    prepared = prepare(linear(llama), None)
    plain, quantised = (sign_model(prepared, "bfloat16", "vllm", kind) for kind in ("", "fp8_per_channel"))
    assert plain.weights == quantised.weights and plain.digest != quantised.digest
    rows = {
        of_model(prepared.info("vllm", "bfloat16", plain, arguments), 1).row
        for arguments in ({}, {"quantization": "fp8_per_tensor"}, {"quantization": "fp8_per_channel"})
    }
    assert len(rows) == 3


def test_a_plan_signs_what_the_engine_will(llama: dict[str, Path]) -> None:
    prepared = prepare(linear(llama), None)
    plain, *quantised = (
        planned_signature(prepared, "bfloat16", "vllm", {"quantization": kind, "batch_size": 1})
        for kind in (None, "fp8", "fp8_per_tensor")
    )
    assert plain == sign_model(prepared, "bfloat16", "vllm").digest
    assert quantised == [sign_model(prepared, "bfloat16", "vllm", "fp8_per_tensor").digest] * 2


@pytest.mark.skipif(not vllm_loader.distribution(), reason="vLLM is not installed")
def test_the_names_are_vllms() -> None:
    """They are classes of vLLM's and values of its own argument; and each way of ours has a layer that is known."""
    from vllm.config.quantization import ONLINE_QUANT_SHORTHAND_NAMES
    from vllm.model_executor.layers.quantization.online import fp8

    from merge_hooks.engines.vllm_proof import FLOAT8

    assert set(vllm_loader.QUANTISED) <= set(ONLINE_QUANT_SHORTHAND_NAMES)
    assert len(FLOAT8) == len(vllm_loader.QUANTISED) and all(hasattr(fp8, name) for name in FLOAT8)


@pytest.mark.skipif(not vllm_loader.distribution(), reason="vLLM is not installed")
@pytest.mark.parametrize(
    ("method", "peaks"),
    [("Fp8PtpcOnlineLinearMethod", [3.0, 1.0, 5.0]), ("Fp8PerTensorOnlineLinearMethod", [5.0, 5.0, 5.0]),
     ("UnquantizedLinearMethod", None)],
)  # fmt: skip
def test_scales_are_of_a_row_or_of_the_whole_fused_layer(method: str, peaks: list[float] | None) -> None:
    """The CPU build cannot run `fp8_per_tensor`, so what is expected of it is shown here: q, k and v share one scale."""
    import torch

    from merge_hooks.engines.proof import take
    from merge_hooks.engines.vllm_proof import _Proof

    proof = object.__new__(_Proof)
    parts = {"q": [[1.0, -3.0], [1.0, 0.5]], "k": [[5.0, 4.0]]}
    proof.prints = {name: take(torch.tensor(rows), quantised=True) for name, rows in parts.items()}
    layer = SimpleNamespace(quant_method=type(method, (), {})())
    found = proof._whole(["q", "k"], layer).peaks
    assert (None if found is None else found.tolist()) == peaks


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama_tied", pytest.param("qwen2", marks=[pytest.mark.nightly])])
def test_first_load_swap_and_back(kind: str, tmp_path: Path, mergekit_merge: Any) -> None:
    folder = tmp_path / kind
    vllm_swaps.make(kind, folder)
    written = [str(mergekit_merge(vllm_quantised.merge(folder, weight))) for weight in (0.3, 0.9)]
    command = [sys.executable, "-m", "tests.lm_eval_iberian.vllm_quantised", str(folder), *written]
    done = forks.run(command, cwd=ROOT, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert found["proof"] == ["proved"] * 4
    assert "|quantization:fp8_per_channel|" in found["signature"]
    first, second = found["theirs 0.3"], found["theirs 0.9"]
    for state, theirs in (("first", first), ("swapped", second), ("back", first)):
        assert found[state]["scores"] == pytest.approx(theirs["scores"], abs=1e-5), state
    assert found["first"]["text"] == found["back"]["text"]  # lm_eval's own class would sample
    for other in (second, found["unquantised"]):
        assert first["scores"] != pytest.approx(other["scores"], abs=1e-3)
    for way, said in found["spoilt"].items():
        assert "model.layers.1.mlp.down_proj.weight" in said, way
