"""Merges that bitsandbytes quantises as they come: lm_eval's `hf` on mergekit's checkpoint says the same.

lm_eval's own `load_in_8bit=True` ends in a TypeError with transformers 5, so its `hf` is given the loaded model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian.models.hf import MergedHF
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


def recipe(llama: dict[str, Path], weight: float) -> dict[str, Any]:
    return {**linear(llama, weights=(weight, round(1 - weight, 2))), "dtype": "bfloat16"}


@pytest.mark.slow
@pytest.mark.parametrize("quantization", THEIRS)
def test_first_load_swap_and_back(quantization: str, llama: dict[str, Path], mergekit_merge: Any) -> None:
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    pytest.importorskip("bitsandbytes")
    model = MergedHF(recipe=recipe(llama, 0.3), quantization=quantization, **COMMON)
    scales = [name for name, _ in hf_proof.held_by(model.model) if name.endswith(".scales")]
    assert len(scales) == 4 * 7  # the linear layers of four blocks; not the head
    found = [answers(model)]
    for weight in (0.9, 0.3):
        model.swap(resolve(read_recipe(recipe(llama, weight))))
        found.append(answers(model))
    assert (
        f"|quantization:{quantization}|" in str(model.signature)
        and model.get_model_info()["iberian"]["proof"] == "proved"
    )
    wanted = []
    for weight in (0.3, 0.9):
        written = str(mergekit_merge(recipe(llama, weight)))
        loaded = AutoModelForCausalLM.from_pretrained(
            written,
            quantization_config=BitsAndBytesConfig(**THEIRS[quantization]),
            device_map={"": "cpu"},
            dtype="bfloat16",
        )
        wanted.append(answers(HFLM(pretrained=loaded, tokenizer=written, batch_size=1, softmax_dtype="float32")))
    plain = answers(HFLM(pretrained=str(mergekit_merge(recipe(llama, 0.3))), batch_size=1, **COMMON))
    for ours, theirs in zip(found, (wanted[0], wanted[1], wanted[0]), strict=True):
        assert ours["scores"] == pytest.approx(theirs["scores"], abs=1e-2)  # bfloat16, prompts computed in two parts
        assert ours["text"] == theirs["text"]
    for other in (wanted[1], plain):
        assert max(abs(a - b) for a, b in zip(wanted[0]["scores"], other["scores"], strict=True)) > 0.02


@pytest.mark.parametrize("quantization", THEIRS)
@pytest.mark.parametrize("what", ["a number", "a scale"])
def test_the_proof_sees_what_changes_in_the_model(
    quantization: str, what: str, llama: dict[str, Path], monkeypatch: pytest.MonkeyPatch
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
        MergedHF(recipe=recipe(llama, 0.3), quantization=quantization, **COMMON)


@pytest.mark.parametrize(
    ("quantization", "function"), [("bnb_int8", "int8_vectorwise_quant"), ("bnb_nf4", "quantize_4bit")]
)
def test_what_is_no_rounding_is_seen(
    quantization: str, function: str, llama: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    right = getattr(bitsandbytes.functional, function)

    def wrong(matrix: Any, **ways: Any) -> Any:
        return right(matrix.roll(1, dims=0), **ways)

    monkeypatch.setattr(bitsandbytes.functional, function, wrong)
    with pytest.raises(EngineError, match=r"_proj\.weight: what bitsandbytes made .* is no rounding of it"):
        MergedHF(recipe=recipe(llama, 0.3), quantization=quantization, **COMMON)


def test_other_ways_are_refused(llama: dict[str, Path]) -> None:
    with pytest.raises(EngineError, match="quantization=fp8_per_tensor: on transformers give one of bnb_int8, bnb_nf4"):
        MergedHF(recipe=recipe(llama, 0.3), quantization="fp8_per_tensor", **COMMON)
    with pytest.raises(EngineError, match=r"load_in_4bit: .*quantization=bnb_int8 or bnb_nf4"):
        MergedHF(recipe=recipe(llama, 0.3), load_in_4bit=True, **COMMON)
