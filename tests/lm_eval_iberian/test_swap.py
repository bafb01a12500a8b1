"""Swaps in transformers: the weights, stamps and answers of a fresh model, in place; what does not fit is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_eval_iberian.models.hf import MergedHF
from lm_eval_iberian.models.merge import prepare_swap
from lm_eval_iberian.toy.tiny import build_family
from merge_hooks.errors import EngineError, PreflightError, SourceError
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.resolve.resolver import resolve
from tests.conftest import linear, task_arithmetic
from tests.merge_hooks.test_stream import corrupt


def resolved(recipe: Any) -> Any:
    return resolve(read_recipe(recipe))


def weights(model: MergedHF) -> dict[str, torch.Tensor]:
    return {name: parameter.clone() for name, parameter in model.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "dtype"), [("llama", "float32"), ("qwen3", "bfloat16"), ("llama", "bfloat16")])
def test_a_swap_gives_the_fresh_model_and_back(family: str, dtype: str, request: Any) -> None:
    """qwen3 ties its head to its embedding."""
    models = request.getfixturevalue(family)
    first, second = linear(models, dtype), task_arithmetic(models, dtype)
    model, fresh = MergedHF(recipe=first, device="cpu"), MergedHF(recipe=second, device="cpu")
    before, places = weights(model), [parameter.data_ptr() for parameter in model.model.parameters()]
    stamp = model.signature.digest
    model.swap(resolved(second))
    assert same(weights(model), weights(fresh)) and not same(weights(model), before)
    assert model.signature.digest == fresh.signature.digest != stamp
    assert model.get_model_info()["iberian"]["recipe_resolved"]["merge_method"] == "task_arithmetic"
    model.swap(resolved(first))
    assert same(weights(model), before) and model.signature.digest == stamp
    assert places == [parameter.data_ptr() for parameter in model.model.parameters()]
    head = model.model.get_output_embeddings().weight
    assert (head is model.model.get_input_embeddings().weight) == (family == "qwen3")


def test_another_model_is_refused_before_anything_changes(llama: dict[str, Path], tmp_path: Path) -> None:
    model = MergedHF(recipe=linear(llama), device="cpu")
    before, stamp = weights(model), model.signature.digest
    larger = build_family(tmp_path / "larger", num_hidden_layers=2)
    with pytest.raises(PreflightError, match="`num_hidden_layers` of the configuration is 2"):
        model.swap(resolved(linear(larger)))
    assert same(weights(model), before) and model.signature.digest == stamp


@pytest.mark.slow
def test_another_rope_is_refused(llama: dict[str, Path], tmp_path: Path) -> None:
    """Its weights would fit, and be scored wrongly."""
    import json

    base = Path(shutil.copytree(llama["base"], tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    config["rms_norm_eps"] = 1e-3
    (base / "config.json").write_text(json.dumps(config))
    model = MergedHF(recipe=task_arithmetic(llama), device="cpu")
    with pytest.raises(PreflightError, match=r"`rms_norm_eps` of the configuration is 0\.001"):
        model.swap(resolved(task_arithmetic({**llama, "base": base})))


@pytest.mark.slow
def test_a_template_comes_with_its_merge(llama: dict[str, Path]) -> None:
    """And goes with it; also where the user named the tokenizer for all."""
    first = linear(llama)
    other = {**first, "chat_template": "{% for message in messages %}<{{ message['content'] }}>{% endfor %}"}
    model = MergedHF(recipe=first, device="cpu")
    stamp, chat = model.signature.digest, [{"role": "user", "content": "kaixo"}]
    before, prompts_of = model.apply_chat_template(chat), model.tokenizer_name
    model.swap(resolved(other))
    assert model.apply_chat_template(chat) == "<kaixo>"
    assert model.tokenizer_name != prompts_of  # by which `--cache_requests` keeps prompts
    assert model.signature.digest == MergedHF(recipe=other, device="cpu").signature.digest != stamp
    model.swap(resolved(first))
    assert model.apply_chat_template(chat) == before and model.signature.digest == stamp
    assert model.tokenizer_name == prompts_of
    named = MergedHF(recipe=first, device="cpu", tokenizer=str(llama["base"]))
    named.swap(resolved(other))
    fresh = MergedHF(recipe=other, device="cpu", tokenizer=str(llama["base"]))
    assert named.apply_chat_template(chat) == fresh.apply_chat_template(chat) == "<kaixo>"
    assert named.signature.digest == fresh.signature.digest


def test_a_recipe_that_names_its_tokenizer_follows_a_plain_model(llama: dict[str, Path]) -> None:
    """As a merge follows its parents in a sweep."""
    named = {**linear(llama), "tokenizer_source": str(llama["instruct"])}
    model = MergedHF(pretrained=str(llama["basque"]), dtype="float32", device="cpu")
    model.swap(resolved(named))
    assert same(weights(model), weights(MergedHF(recipe=named, device="cpu")))


def test_other_end_tokens_are_refused_by_an_engine_that_keeps_its_own(llama: dict[str, Path], tmp_path: Path) -> None:
    """vLLM stops where it was told to at its start; transformers takes them with the weights."""
    other = tmp_path / "basque"
    shutil.copytree(llama["basque"], other)
    config = other / "generation_config.json"
    config.write_text(config.read_text().replace("1,", "1, 4,", 1))
    model = MergedHF(recipe=linear(llama), device="cpu")
    swapped = resolved(linear({**llama, "basque": other}))
    with pytest.raises(PreflightError, match="end tokens"):
        prepare_swap(model.prepared, swapped)
    model.swap(swapped)
    assert model.model.generation_config.eos_token_id == [1, 4, 3]


def test_what_a_files_damage_breaks_before_a_swap_is_said(
    llama: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MergedHF(recipe=linear(llama), device="cpu")
    monkeypatch.setattr("lm_eval_iberian.models.merge.check_swap", lambda *_: {}["layer_types"])
    with pytest.raises(SourceError, match=r"this merge cannot be prepared .KeyError: 'layer_types'"):
        prepare_swap(model.prepared, resolved(linear(llama)))


def test_another_normaliser_is_another_tokenizer(llama: dict[str, Path], tmp_path: Path) -> None:
    """With the same tokens, it must not be read with the running one's."""
    other = tmp_path / "basque"
    shutil.copytree(llama["basque"], other)
    file = other / "tokenizer.json"
    file.write_text(file.read_text().replace('"normalizer": null', '"normalizer": {"type": "Lowercase"}'))
    model = MergedHF(recipe=linear(llama), device="cpu")
    with pytest.raises(PreflightError, match="this merge has the tokenizer of"):
        model.swap(resolved(linear({**llama, "basque": other})))
    assert MergedHF(recipe=linear({**llama, "basque": other}), device="cpu").signature.digest != model.signature.digest


def test_no_result_of_a_swap_that_broke_off(llama: dict[str, Path], tmp_path: Path) -> None:
    def poison(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.2.mlp.up_proj.weight"][3, 5] = torch.nan

    bad = corrupt(llama["instruct"], tmp_path / "bad", poison)
    model = MergedHF(recipe=linear(llama), device="cpu")
    stamp = model.signature.digest
    with pytest.raises(SourceError, match="NaN"):
        model.swap(resolved(linear({**llama, "instruct": bad})))
    with pytest.raises(EngineError, match="Swap again"):
        model.get_model_info()
    model.swap(resolved(linear(llama)))
    assert model.signature.digest == stamp


def test_what_changed_since_it_was_opened_is_refused(llama: dict[str, Path], tmp_path: Path) -> None:
    """A recipe that was opened for an earlier swap: its signature was of the files that lay there then."""
    moving = Path(shutil.copytree(llama["instruct"], tmp_path / "moving"))
    recipe = linear({**llama, "instruct": moving})
    model, opened = MergedHF(recipe=linear(llama), device="cpu"), resolved(recipe)
    model.swap(opened)
    stamp, first = model.signature.digest, weights(model)
    os.utime(moving / "model.safetensors", ns=(1, 1))
    model.swap(opened)  # the same bytes
    assert model.signature.digest == stamp and same(weights(model), first)
    corrupt(llama["instruct"], tmp_path / "other", lambda tensors: tensors["model.norm.weight"].add_(1))
    (tmp_path / "other" / "model.safetensors").replace(moving / "model.safetensors")
    with pytest.raises(SourceError, match="moving changed on disk since this recipe's sources were opened"):
        model.swap(opened)
    assert model.signature.digest == stamp and same(weights(model), first)
    model.swap(resolved(recipe))
    assert model.signature.digest != stamp and not same(weights(model), first)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["start", "swap"])
def test_what_changes_between_the_hash_and_the_weights_is_noticed(
    when: str, llama: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine takes minutes to start; the merge itself sees nothing change."""
    from lm_eval_iberian.models import hf

    moving = corrupt(llama["instruct"], tmp_path / "moving", lambda tensors: None)
    changed = corrupt(llama["instruct"], tmp_path / "other", lambda tensors: tensors["model.norm.weight"].add_(1))
    recipe = linear({**llama, "instruct": moving})
    model = MergedHF(recipe=linear(llama), device="cpu")
    name = "build_model" if when == "start" else "swap_into"
    usual = getattr(hf, name)

    def late(*arguments: Any, **options: Any) -> Any:
        (changed / "model.safetensors").replace(moving / "model.safetensors")
        return usual(*arguments, **options)

    monkeypatch.setattr(hf, name, late)
    with pytest.raises(SourceError, match="moving changed on disk"):
        if when == "start":
            MergedHF(recipe=recipe, device="cpu")
        else:
            model.swap(resolved(recipe))
    if when == "swap":
        with pytest.raises(EngineError, match="Swap again"):
            model.get_model_info()


def test_a_model_can_be_made_anew_instead(llama: dict[str, Path]) -> None:
    first, second = linear(llama), task_arithmetic(llama, "float32")
    model = MergedHF(recipe=first, device="cpu", swap="never")
    before = model.model
    model.swap(resolved(second))
    assert model.model is not before
    assert same(weights(model), weights(MergedHF(recipe=second, device="cpu")))
    with pytest.raises(EngineError, match="swap=sometimes: there is no such way"):
        MergedHF(recipe=first, device="cpu", swap="sometimes")
    assert model.get_model_info()["iberian"]["proof"] == "proved"


def test_nothing_answers_between_two_merges(llama: dict[str, Path], tmp_path: Path) -> None:
    """lm_eval asks by these three ways."""
    from lm_eval.api.instance import Instance

    def poison(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.2.mlp.up_proj.weight"][3, 5] = torch.nan

    bad = corrupt(llama["instruct"], tmp_path / "bad", poison)
    model = MergedHF(recipe=linear(llama), device="cpu")
    with pytest.raises(SourceError, match="NaN"):
        model.swap(resolved(linear({**llama, "instruct": bad})))
    asked = {
        "loglikelihood": ("Kaixo", " mundua"),
        "loglikelihood_rolling": ("Kaixo mundua",),
        "generate_until": ("Kaixo", {"until": ["."], "max_gen_toks": 2}),
    }
    for way, arguments in asked.items():
        with pytest.raises(EngineError, match="holds weights of two merges"):
            getattr(model, way)([Instance(way, {}, arguments, 0)], disable_tqdm=True)
    model.swap(resolved(linear(llama)))
    assert model.loglikelihood([Instance("loglikelihood", {}, asked["loglikelihood"], 0)], disable_tqdm=True)
