"""Merges that bitsandbytes quantises as they come: lm_eval's `hf` on mergekit's checkpoint says the same.

lm_eval's own `load_in_8bit=True` ends in a TypeError with transformers 5, so its `hf` is given the loaded model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian.models.hf import MergedHF
from lm_eval_iberian.toy.tiny import build_family
from merge_hooks.engines import hf_proof, hf_quantised
from merge_hooks.errors import EngineError
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.resolve.resolver import resolve
from tests.conftest import linear
from tests.lm_eval_iberian.vllm_swaps import answers

THEIRS: dict[str, dict[str, Any]] = {
    "bnb_int8": {"load_in_8bit": True},
    "bnb_nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"},
}
COMMON = {"dtype": "bfloat16", "device": "cpu"}


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Llama family whose rows are whole blocks of 64, as those of published models are."""
    return build_family(tmp_path_factory.mktemp("blocks"), intermediate_size=192)


def recipe(family: dict[str, Path], weight: float) -> dict[str, Any]:
    return {**linear(family, weights=(weight, round(1 - weight, 2))), "dtype": "bfloat16"}


@pytest.mark.slow
@pytest.mark.parametrize("quantization", THEIRS)
def test_first_load_swap_and_back(quantization: str, blocks: dict[str, Path], mergekit_merge: Any) -> None:
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    pytest.importorskip("bitsandbytes")
    model = MergedHF(recipe=recipe(blocks, 0.3), quantization=quantization, **COMMON)
    scales = [name for name, _ in hf_proof.held_by(model.model) if name.endswith(".scales")]
    assert len(scales) == 4 * 7  # the linear layers of four blocks; not the head
    found = [answers(model)]
    for weight in (0.9, 0.3):
        model.swap(resolve(read_recipe(recipe(blocks, weight))))
        found.append(answers(model))
    assert (
        f"|quantization:{quantization}|" in str(model.signature)
        and model.get_model_info()["iberian"]["proof"] == "proved"
    )
    wanted = []
    for weight in (0.3, 0.9):
        written = str(mergekit_merge(recipe(blocks, weight)))
        loaded = AutoModelForCausalLM.from_pretrained(
            written,
            quantization_config=BitsAndBytesConfig(**THEIRS[quantization]),
            device_map={"": "cpu"},
            dtype="bfloat16",
        )
        wanted.append(answers(HFLM(pretrained=loaded, tokenizer=written, batch_size=1, softmax_dtype="float32")))
    plain = answers(HFLM(pretrained=str(mergekit_merge(recipe(blocks, 0.3))), batch_size=1, **COMMON))
    # Within bfloat16 (prompts are computed in two parts), and nearer than to what another merge or no rounding gives.
    near = min(_apart(wanted[0], other) for other in (wanted[1], plain)) / 2
    assert near > 1e-3
    for ours, theirs in zip(found, (wanted[0], wanted[1], wanted[0]), strict=True):
        assert _apart(ours, theirs) < near
        assert ours["text"] == theirs["text"]


def _apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    return max(abs(a - b) for a, b in zip(one["scores"], other["scores"], strict=True))


@pytest.mark.parametrize("quantization", THEIRS)
@pytest.mark.parametrize("what", ["a number", "a scale"])
def test_the_proof_sees_what_changes_in_the_model(
    quantization: str, what: str, blocks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bitsandbytes")
    prove = hf_proof.prove

    def spoil(model: Any, expected: dict[str, str]) -> None:
        weight = model.get_submodule("model.layers.1.mlp.up_proj").weight
        (hf_quantised.scales(weight) if what == "a scale" else weight.data).view(-1)[5] += 1
        prove(model, expected)

    monkeypatch.setattr(hf_proof, "prove", spoil)
    named = "model.layers.1.mlp.up_proj.weight" + (".scales" if what == "a scale" else "")
    with pytest.raises(EngineError, match=rf"1 of \d+ tensors in the model are not those of the merge: {named}\."):
        MergedHF(recipe=recipe(blocks, 0.3), quantization=quantization, **COMMON)


@pytest.mark.parametrize(
    ("quantization", "function"), [("bnb_int8", "int8_vectorwise_quant"), ("bnb_nf4", "quantize_4bit")]
)
def test_what_is_no_rounding_is_seen(
    quantization: str, function: str, blocks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    right = getattr(bitsandbytes.functional, function)

    def wrong(matrix: Any, **ways: Any) -> Any:
        return right(matrix.roll(1, dims=0), **ways)

    monkeypatch.setattr(bitsandbytes.functional, function, wrong)
    with pytest.raises(EngineError, match=r"_proj\.weight: what bitsandbytes made .* is no rounding of it"):
        MergedHF(recipe=recipe(blocks, 0.3), quantization=quantization, **COMMON)


def test_rows_that_end_within_a_block_are_right_or_refused(llama: dict[str, Path]) -> None:
    """bitsandbytes reads rows of 160 numbers wrongly on CPUs with AVX-512, and rightly on others."""
    pytest.importorskip("bitsandbytes")
    try:
        model = MergedHF(recipe=recipe(llama, 0.3), quantization="bnb_nf4", **COMMON)
    except EngineError as refused:
        assert "rows of 160 numbers end within a block of 64" in str(refused)
    else:
        assert model.get_model_info()["iberian"]["proof"] == "proved"


def test_other_ways_are_refused(llama: dict[str, Path]) -> None:
    with pytest.raises(EngineError, match="quantization=fp8_per_tensor: on transformers give one of bnb_int8, bnb_nf4"):
        MergedHF(recipe=recipe(llama, 0.3), quantization="fp8_per_tensor", **COMMON)
    with pytest.raises(EngineError, match=r"load_in_4bit: .*quantization=bnb_int8 or bnb_nf4"):
        MergedHF(recipe=recipe(llama, 0.3), load_in_4bit=True, **COMMON)
