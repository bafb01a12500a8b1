"""vLLM computes with the merge, after its first load and every swap: held against transformers on mergekit's checkpoint.

The engines run in processes of their own (`vllm_swaps.py`, `vllm_sabotage.py`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import forks
from tests.conftest import ROOT
from tests.lm_eval_iberian import vllm_swaps

pytestmark = pytest.mark.slow
# As many as there is a point in: kinds of fusion, of heads, of order, and of vLLM's own classes and transformers'.
SINGLE = ("llama_tied", "mistral", "ministral", "qwen2", "qwen3_tied", "gemma2", "gemma3", "smollm3", "olmo2", "phi3",
          "granite", "cohere2", "gpt_neox", "apertus", "bloom")  # fmt: skip
# These show each kind of fusion, head and order once; the others run in `make test-all`.
EACH_NIGHT = set(SINGLE) - {"llama_tied", "qwen3_tied", "gemma3", "phi3", "bloom"}
SHARDED = ("llama_tied", "qwen2")
# Its activation squares what it is given, and roundings with it.
TOLERANCES = {"apertus": 1e-3}


def lines(module: str, *words: str, **environment: str) -> list[dict[str, Any]]:
    """The JSON lines that a module prints."""
    command = [sys.executable, "-m", f"tests.lm_eval_iberian.{module}", *words]
    done = forks.run(command, cwd=ROOT, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds")


@pytest.fixture(scope="module")
def engines(root: Path, request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """What each kind that is tested now gave: one process, one engine after the other."""
    names = {item.name for item in request.session.items}
    kinds = [kind for kind in SINGLE if f"test_first_load_swap_and_back[{kind}]" in names]
    return {found["kind"]: found for found in lines("vllm_swaps", str(root), ",".join(kinds))}


@pytest.fixture(scope="module")
def reference(mergekit_merge: Callable[[dict[str, Any]], Path]) -> Callable[[Path, float], dict[str, Any]]:
    """Answers of lm_eval's `hf` on what mergekit writes."""

    def answers(folder: Path, weight: float) -> dict[str, Any]:
        from lm_eval.models.huggingface import HFLM

        merged = mergekit_merge(vllm_swaps.recipe(folder, weight))
        return vllm_swaps.answers(HFLM(pretrained=str(merged), dtype="float32", device="cpu"))

    return answers


def check(found: dict[str, Any], reference: Callable[[Path, float], dict[str, Any]], folder: Path) -> None:
    assert "error" not in found, found["error"]
    assert found["proof"] == ["proved"] * 3
    first, second = reference(folder, 0.3), reference(folder, 0.9)
    apart = max(abs(a - b) for a, b in zip(first["scores"], second["scores"], strict=True))
    assert apart > 0.01  # else nothing is shown
    for state, wanted in (("first", first), ("swapped", second), ("back", first)):
        tolerance = TOLERANCES.get(found["kind"], 1e-4)
        assert found[state]["scores"] == pytest.approx(wanted["scores"], abs=tolerance), state
        # vLLM leaves out half a character at the end, where transformers writes a sign for it.
        assert found[state]["text"] == [text.rstrip("\ufffd") for text in wanted["text"]], state


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.nightly] if kind in EACH_NIGHT else []) for kind in SINGLE]
)
def test_first_load_swap_and_back(kind: str, engines: Any, reference: Any, root: Path) -> None:
    check(engines[kind], reference, root / kind)


def test_two_ranks(root: Path, reference: Any) -> None:
    """Columns, rows and vocabulary sharded over two workers, which prove together."""
    arguments = json.dumps({"tensor_parallel_size": 2, "gpu_memory_utilization": 0.1})
    found = lines("vllm_swaps", str(root), ",".join(SHARDED), arguments, VLLM_CPU_OMP_THREADS_BIND="0|1")
    for one in found:
        check(one, reference, root / one["kind"])
    assert len(found) == len(SHARDED)


@pytest.mark.parametrize("kind", ["llama_tied", "qwen2"])
def test_the_proof_names_the_tensor_that_is_wrong(kind: str, root: Path) -> None:
    """Tied and untied; with biases and without."""
    (found,) = lines("vllm_sabotage", str(root), kind)
    assert found.pop("nothing") == []
    assert len(found) > 35
    attention = "model.layers.1.self_attn"
    names = {  # where it is not the tensor's own
        f"{attention}.qkv_proj.bias": [", ".join(f"{attention}.{part}_proj.bias" for part in "qkv")],
        "lm_head.weight": ["model.embed_tokens.weight" if kind == "llama_tied" else "lm_head.weight"],
    }
    for what, named in found.items():
        tensor = what.partition(" ")[0]
        assert named == names.get(tensor, [tensor]), what


def test_swaps_that_go_wrong(root: Path, reference: Any) -> None:
    """The engine answers nothing until it is whole, and an engine that is not what the recipe says is started anew."""
    (found,) = lines("vllm_restarts", str(root))
    first, second = reference(root / "llama_tied", 0.3), reference(root / "llama_tied", 0.9)

    def is_like(one: dict[str, Any], other: dict[str, Any]) -> bool:
        return one["text"] == other["text"] and one["scores"] == pytest.approx(other["scores"], abs=1e-4)

    assert "NaN" in found["refused"] and found["refused"].startswith("SourceError")
    assert all("the last swap broke off" in words for words in found["mixed"])
    assert is_like(found["first"], first) and is_like(found["mended"], second) and found["mended_proof"] == "proved"
    assert is_like(found["stale"], first)
    assert found["always"][0].startswith("UnprovedError: the engine does not compute with the merge: lm_head as head")
    assert "broke off" in found["always"][1]
    assert not is_like(found["unseen"], second) and found["unseen_proof"] == "off"  # what the proof is there for
    assert is_like(found["never"], second)
    reasons = [line.rpartition(" s: ")[2] for line in found["said"]]
    assert [reason.partition(":")[0] for reason in reasons] == [
        "the last one broke off", "the engine does not compute with the merge", "the last one broke off", "swap=never",
    ]  # fmt: skip
