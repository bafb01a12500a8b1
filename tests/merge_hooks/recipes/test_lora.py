"""LoRA: bit for bit PEFT's merge_and_unload, and mergekit's merges of folded models; what is not done is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from merge_hooks.checks.preflight import check_fit, fit_notes
from merge_hooks.errors import SourceError
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.resolve.resolver import from_payload, resolve
from merge_hooks.sources.adapter_config import by_pattern
from merge_hooks.sources.checkpoint import open_source
from merge_hooks.stream.stream import open_stream
from tests.conftest import first_ones
from tests.merge_hooks.recipes.conftest import assert_same, streamed, tensors_of

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Every way to scale, and every kind of tensor that an adapter may bring.
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"r": 8, "lora_alpha": 12, "target_modules": ALL},
    "rslora": {"r": 8, "lora_alpha": 12, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]},
    "patterns": {"r": 8, "lora_alpha": 16, "target_modules": ALL, "rank_pattern": {"q_proj": 4, r"layers\.1\.mlp\.up_proj": 6},
                 "alpha_pattern": {"layers.0.self_attn.q_proj": 32, "o_proj": 3}},
    "dora": {"r": 4, "lora_alpha": 8, "use_dora": True, "target_modules": ["q_proj", "up_proj"]},
    "embeddings": {"r": 4, "lora_alpha": 8, "target_modules": ["embed_tokens", "v_proj"]},
    "rslora patterns": {"r": 4, "lora_alpha": 3, "use_rslora": True, "target_modules": ["v_proj"],
                        "rank_pattern": {"layers.2.self_attn.v_proj": 5}},
    "whole modules": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]},
    "all linear": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
}  # fmt: skip


def make_adapter(base: str, folder: Path, seed: int, dtype: torch.dtype = torch.float32, **settings: Any) -> Path:
    """An adapter with seeded random factors, written by PEFT."""
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), LoraConfig(**settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_magnitude" in name:
                parameter.mul_(1 + 0.1 * torch.rand(parameter.shape, generator=generator))
            elif "lora_" in name or "modules_to_save" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    model.save_pretrained(folder)
    file = folder / "adapter_model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(file).items()}, file)
    return folder


def fold(base: str, adapter: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """PEFT's own merge_and_unload."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    return dict(PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().state_dict())


def one(model: str, **more: Any) -> dict[str, Any]:
    """The recipe that is this one model with weight 1.0."""
    return {"merge_method": "linear", "models": [{"model": model, "parameters": {"weight": 1.0}}], **more}


@pytest.mark.parametrize("kind", first_ones(KINDS, 5))
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
def test_weight_one_is_merge_and_unload(kind: str, stored: torch.dtype, llama: dict[str, str], tmp_path: Path) -> None:
    adapter = make_adapter(llama["base"], tmp_path, 1, stored, **KINDS[kind])
    ours = streamed(one(f"{llama['base']}+{adapter}"))
    assert_same(ours, fold(llama["base"], adapter, torch.float32))
    changed = [name for name, tensor in tensors_of(llama["base"]).items() if not torch.equal(ours[name], tensor)]
    assert len(changed) >= 4  # the adapter did something, so the equality says something


@pytest.mark.parametrize("kind", ["plain", "dora"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
def test_in_bfloat16_too(kind: str, stored: torch.dtype, qwen: dict[str, str], tmp_path: Path) -> None:
    """PEFT computes the product in float32 and rounds the sum once; so does the stream."""
    adapter = make_adapter(qwen["base"], tmp_path, 2, stored, **KINDS[kind])
    ours = streamed(one(f"{qwen['base']}+{adapter}"))
    theirs = fold(qwen["base"], adapter, torch.bfloat16)
    assert_same(ours, {name: tensor for name, tensor in theirs.items() if name in ours})


def test_the_update_of_an_embedding_is_rounded_before_it_is_added(llama: dict[str, str], tmp_path: Path) -> None:
    """PEFT casts it to the base's dtype first; that of a layer it adds in float32."""
    base = str(tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(llama["base"], dtype=torch.bfloat16).save_pretrained(base)
    adapter = make_adapter(base, tmp_path / "adapter", 2, **KINDS["embeddings"])
    assert_same(streamed(one(f"{base}+{adapter}")), fold(base, adapter, torch.bfloat16))


SETTINGS: dict[str, dict[str, Any]] = {
    "linear": {"parameters": {"weight": 1.0, "normalize": True}},
    "ties": {"parameters": {"weight": 1.0, "density": 0.5, "normalize": True}},
    "dare_ties": {"parameters": {"weight": 1.0, "density": 1.0}},
}


@pytest.mark.slow
@pytest.mark.parametrize("method", SETTINGS)
@pytest.mark.parametrize("architecture", ["llama", pytest.param("qwen", marks=pytest.mark.nightly)])
def test_five_adapters_equal_mergekit_on_the_folded_models(
    method: str,
    architecture: str,
    tmp_path: Path,
    mergekit: Callable[..., Path],
    request: pytest.FixtureRequest,
) -> None:
    """The second paper's setting. mergekit folds each adapter, writes the folded models, and merges those."""
    base = request.getfixturevalue(architecture)["base"]
    adapters = [make_adapter(base, tmp_path / str(seed), seed, **KINDS["plain"]) for seed in range(5)]
    data = {
        "merge_method": method,
        "models": [{"model": f"{base}+{adapter}"} for adapter in adapters],
        **SETTINGS[method],
    }
    if (architecture, method) == ("qwen", "ties"):
        # In bfloat16 many deltas are equal, and which of those tied at the threshold mergekit keeps is an accident
        # of its sort (test_all_methods.py counts them). Without pruning, bytes can be compared.
        data["parameters"] = {**SETTINGS[method]["parameters"], "density": 1.0}
    if method != "linear":
        data["base_model"] = base
    assert_same(streamed(data), tensors_of(mergekit(data)))


def test_an_adapter_over_a_stage(llama: dict[str, str], tmp_path: Path) -> None:
    adapter = make_adapter(llama["base"], tmp_path / "adapter", 3, **KINDS["plain"])
    text = (
        f"name: mean\nmerge_method: linear\nparameters: {{weight: 0.5, normalize: true}}\n"
        f"models: [{{model: {llama['base']}}}, {{model: {llama['basque']}}}]\n---\n"
        f"merge_method: passthrough\nmodels: [{{model: mean+{adapter}}}]\n"
    )
    ours = streamed(text)
    model = AutoModelForCausalLM.from_pretrained(llama["base"], dtype=torch.float32)
    mean = {"merge_method": "linear", "parameters": {"weight": 0.5, "normalize": True},
            "models": [{"model": llama["base"]}, {"model": llama["basque"]}]}  # fmt: skip
    model.load_state_dict(streamed(mean))
    assert_same(ours, dict(PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().state_dict()))


def test_a_worker_rebuilds_the_adapter(llama: dict[str, str], tmp_path: Path) -> None:
    adapter = make_adapter(llama["base"], tmp_path, 4, **KINDS["plain"])
    resolved = resolve(read_recipe(one(f"{llama['base']}+{adapter}")))
    assert_same(dict(open_stream(from_payload(resolved.payload()))), dict(open_stream(resolved)))


def test_the_signature_names_base_and_adapter(llama: dict[str, str], tmp_path: Path) -> None:
    from merge_hooks.recipe.signature import sign

    def stamp(seed: int) -> Any:
        adapter = make_adapter(llama["base"], tmp_path / str(seed), seed, **KINDS["plain"])
        resolved = resolve(read_recipe(one(f"{llama['base']}+{adapter}")))
        return sign(resolved, dtype="float32", tokenizer="t", template="t", engine="torch")

    first, second = stamp(5), stamp(6)
    assert first.digest != second.digest
    assert f"{Path(llama['base']).name}@" in first.format() and "+5@" in first.format()


def _edit(adapter: Path, **changes: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


REFUSED = {
    "bias": ({"bias": "all"}, "sets bias"),
    "lora bias": ({"lora_bias": True}, "lora_bias"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa"),
    "tokens": ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
    "replication": ({"layer_replication": [[0, 2], [1, 4]]}, "layer_replication"),
    "a key to come": ({"use_something_new": True}, "use_something_new"),
    "not LoRA": ({"peft_type": "IA3"}, "IA3"),
    "rank": ({"r": 9}, "r = 9"),
    "no alpha": ({"lora_alpha": None}, "lora_alpha"),
    "slow pattern": ({"alpha_pattern": {"(a+)+b": 3}}, "too involved"),
    "many repeats": ({"alpha_pattern": {".*.*.*.*x": 3}}, "too involved"),
    "dora without magnitude": ({"use_dora": True}, "DoRA"),
}


@pytest.fixture(scope="module")
def plain(llama: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(llama["base"], tmp_path_factory.mktemp("adapter"), 7, **KINDS["plain"])


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_folded_here_is_refused(
    changes: dict[str, Any], words: str, plain: Path, llama: dict[str, str], tmp_path: Path
) -> None:
    import shutil

    adapter = shutil.copytree(plain, tmp_path / "adapter")
    _edit(adapter, **changes)
    with pytest.raises(SourceError, match=words):
        streamed(one(f"{llama['base']}+{adapter}"))


def test_an_adapter_of_another_base_is_refused(plain: Path, tmp_path: Path) -> None:
    from lm_eval_iberian.toy.tiny import build_family

    wide = build_family(tmp_path, hidden_size=96)["base"]
    with pytest.raises(SourceError, match="Was it trained on another base model"):
        streamed(one(f"{wide}+{plain}"))
    short = build_family(tmp_path / "short", num_hidden_layers=2)["base"]
    with pytest.raises(SourceError, match="is missing from"):
        streamed(one(f"{short}+{plain}"))


def test_what_an_adapter_brings_and_is_not_used_is_noted(llama: dict[str, str], plain: Path, tmp_path: Path) -> None:
    def notes(adapter: Path) -> str:
        stream = open_stream(resolve(read_recipe(one(f"{llama['base']}+{adapter}"))))
        check_fit(stream)
        return " ".join(fit_notes(stream))

    adapter = tmp_path / "adapter"
    shutil.copytree(plain, adapter)
    assert "adapter" not in notes(adapter).replace(str(adapter), "")
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "meta-llama/Llama-3.1-8B-Instruct"
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    assert f"it was trained on meta-llama/Llama-3.1-8B-Instruct; it is put on {llama['base']}" in notes(adapter)
    assert "brings a chat template of its own" in notes(adapter)
    for same in (  # as PEFT writes it where the model came from the Hub's cache, and Unsloth for QLoRA
        "unsloth/base-unsloth-bnb-4bit", "owner/Base", "/x/hub/models--owner--base/snapshots/0123abc", "/x/base/"
    ):  # fmt: skip
        (adapter / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": same}))
        assert "was trained on" not in notes(adapter), same


def test_a_pickled_adapter_is_not_read(llama: dict[str, str], plain: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text((plain / "adapter_config.json").read_text())
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(SourceError, match="pickle"):
        streamed(one(f"{llama['base']}+{tmp_path}"))


@pytest.mark.parametrize(
    "ends", [KINDS["embeddings"], {"r": 4, "target_modules": ["lm_head"]},
             {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}]
)  # fmt: skip
def test_adapters_that_touch_a_tied_embedding_are_refused(
    ends: dict[str, Any], qwen: dict[str, str], tmp_path: Path
) -> None:
    """Also where the head is adapted, which the base's files do not hold."""
    adapter = make_adapter(qwen["base"], tmp_path, 8, **ends)
    with pytest.raises(SourceError, match="ties to its other end"):
        streamed(one(f"{qwen['base']}+{adapter}"))


def _tiny(folder: Path, name: str, **settings: Any) -> str:
    """A checkpoint of transformers' class of this name, with random weights."""
    import transformers

    torch.manual_seed(1)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=64, hidden_size=16, bos_token_id=0, eos_token_id=1, **settings
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return str(folder)


GPT2 = {"n_layer": 2, "n_head": 2, "n_positions": 32}
# GPT-2 holds its matrices as (in, out), square ones too; PEFT goes by the layer, whatever fan_in_fan_out says.
TRANSPOSED: dict[str, dict[str, Any]] = {
    "all": {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    "as PEFT finds it": {"target_modules": ["c_attn", "mlp.c_proj"]},
    "square": {"target_modules": ["attn.c_proj"]},
    "said of the head, which is none": {"target_modules": ["attn.c_proj", "lm_head"]},
}


@pytest.mark.parametrize("kind", first_ones(TRANSPOSED, 1))
def test_gpt2s_layers_are_folded_as_they_lie(kind: str, tmp_path: Path) -> None:
    base = _tiny(tmp_path / "base", "GPT2", tie_word_embeddings=False, **GPT2)
    adapter = make_adapter(base, tmp_path / "adapter", 9, r=4, lora_alpha=8, **TRANSPOSED[kind])
    settings = json.loads((adapter / "adapter_config.json").read_text())
    assert settings["fan_in_fan_out"] == ("lm_head" not in settings["target_modules"])
    wanted = fold(base, adapter, torch.float32)
    assert_same(streamed(one(f"{base}+{adapter}")), wanted)
    _edit(adapter, fan_in_fan_out=not settings["fan_in_fan_out"])
    assert_same(streamed(one(f"{base}+{adapter}")), wanted)
    _edit(adapter, use_dora=True)
    with pytest.raises(SourceError, match="DoRA on"):
        streamed(one(f"{base}+{adapter}"))


@pytest.mark.slow
def test_factors_of_gpt2s_layers_multiply_to_the_delta(tmp_path: Path) -> None:
    """In KnOTS, and where vectors are compared."""
    from merge_hooks.sources.adapter import LoraSource
    from merge_hooks.tools.vectors.fit import shape_in
    from merge_hooks.tools.vectors.vector import Vector

    base = _tiny(tmp_path / "base", "GPT2", tie_word_embeddings=False, **GPT2)
    adapter = make_adapter(base, tmp_path / "adapter", 9, r=4, lora_alpha=8, **TRANSPOSED["all"])
    (source,) = resolve(read_recipe(one(f"{base}+{adapter}"))).sources.values()
    assert isinstance(source, LoraSource)
    name = "transformer.h.1.attn.c_attn.weight"
    expected = fold(base, adapter, torch.float32)[name] - source.base.read(name)
    left, right = source.low_rank_update(name, source.base)  # type: ignore[misc]
    torch.testing.assert_close(left @ right, expected)
    alone = Vector("alone", source, None)
    left, right = alone.factors(name)  # type: ignore[misc]
    torch.testing.assert_close(left @ right, expected)
    assert shape_in(alone, name) == tuple(expected.shape)


@pytest.mark.parametrize("is_whole", first_ones([True, False], 1))
@pytest.mark.parametrize(
    ("name", "settings", "embedding", "layer"),
    first_ones([
        ("Bloom", {"n_layer": 1, "n_head": 2}, "word_embeddings", "query_key_value"),
        ("GPTNeoX", {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
                     "tie_word_embeddings": True}, "embed_in", "query_key_value"),
        ("GPT2", {**GPT2}, "wte", "c_attn"),
    ], 1),
)  # fmt: skip
def test_tied_embeddings_of_any_name_are_refused(
    name: str, settings: dict[str, Any], embedding: str, layer: str, is_whole: bool, tmp_path: Path
) -> None:
    """The head followed a whole embedding; PEFT leaves it as it was."""
    base = _tiny(tmp_path / "base", name, **settings)
    whole = {"modules_to_save": [embedding]} if is_whole else {}
    targets = [layer] if is_whole else [layer, embedding]
    adapter = make_adapter(base, tmp_path / "adapter", 3, r=4, lora_alpha=8, target_modules=targets, **whole)
    with pytest.raises(SourceError, match=rf"it changes .*{embedding}\.weight, which .* ties to its other end"):
        streamed(one(f"{base}+{adapter}"))


def test_factors_are_held_in_the_dtype_of_the_base(llama: dict[str, str], tmp_path: Path) -> None:
    """PEFT casts float64 to float32, and the other way round where the base is float64."""
    adapter = make_adapter(llama["base"], tmp_path / "adapter", 1, torch.float64, **KINDS["plain"])
    file = adapter / "adapter_model.safetensors"
    save_file({key: tensor + 1e-9 for key, tensor in load_file(file).items()}, file)
    assert_same(streamed(one(f"{llama['base']}+{adapter}")), fold(llama["base"], adapter, torch.float32))
    wide = str(tmp_path / "wide")
    AutoModelForCausalLM.from_pretrained(llama["base"], dtype=torch.float64).save_pretrained(wide)
    narrow = make_adapter(llama["base"], tmp_path / "narrow", 1, **KINDS["plain"])
    assert_same(streamed(one(f"{wide}+{narrow}")), fold(wide, narrow, torch.float64))


@pytest.mark.slow
def test_a_magnitude_without_dora_is_refused(llama: dict[str, str], tmp_path: Path) -> None:
    """PEFT reads `use_dora` and leaves the magnitude out; it was folded in."""
    adapter = make_adapter(llama["base"], tmp_path, 2, **KINDS["dora"])
    _edit(adapter, use_dora=False)
    with pytest.raises(SourceError, match=r"lora_magnitude_vector, which only DoRA has, but .* does not set use_dora"):
        streamed(one(f"{llama['base']}+{adapter}"))


def test_factors_for_knots_multiply_to_the_delta(plain: Path, llama: dict[str, str]) -> None:
    from merge_hooks.sources.adapter import LoraSource

    (source,) = resolve(read_recipe(one(f"{llama['base']}+{plain}"))).sources.values()
    assert isinstance(source, LoraSource)
    name = "model.layers.1.mlp.up_proj.weight"
    b, a, scaling = source.delta_factors(name)  # type: ignore[misc]
    expected = fold(llama["base"], plain, torch.float32)[name] - tensors_of(llama["base"])[name]
    torch.testing.assert_close(b @ a * scaling, expected)
    assert source.delta_factors("model.norm.weight") is None
    left, right = source.low_rank_update(name, source.base)  # type: ignore[misc]
    torch.testing.assert_close(left @ right, expected)
    other = open_source(llama["basque"])
    assert source.low_rank_update(name, other) is None  # over another base it is no sum with these factors


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("part", ["lora_A", "lora_B", "lm_head"])
def test_a_quantised_adapter_is_refused(part: str, dtype: torch.dtype, llama: dict[str, str], tmp_path: Path) -> None:
    """int8 factors were folded as numbers."""
    adapter = make_adapter(llama["base"], tmp_path / "adapter", 0, **KINDS["whole modules"])
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = min(key for key in tensors if part in key)
    tensors[name] = tensors[name].mul(50).to(dtype)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(SourceError, match=rf"{part}.* is quantised"):
        streamed({"merge_method": "passthrough", "models": [{"model": f"{llama['base']}+{adapter}"}]})


def test_patterns_are_looked_up_as_peft_does_it() -> None:
    from peft.utils.other import get_pattern_key

    modules = ["model.layers.0.self_attn.q_proj", "model.layers.10.self_attn.q_proj", "model.layers.1.mlp.up_proj",
               "q_proj", "model.layers.0.self_attn.q_proj_old", "model.q_proj.inner"]  # fmt: skip
    for key in (
        "q_proj",
        "layers.0.self_attn.q_proj",
        r"layers\\.1\\.mlp\\.up_proj",
        "proj",
        "model",
        "0.self_attn.q_proj",
    ):
        for module in modules:
            theirs = {key: 3.0}.get(get_pattern_key([key], module), 1.0)
            assert by_pattern({key: 3.0}, module, 1.0) == theirs, (key, module)
    assert by_pattern({"q_proj": 2.0, "layers.0.self_attn.q_proj": 5.0}, modules[0], 1.0) == 2.0, "the first that fits"


def test_an_adapters_fingerprint_is_of_base_weights_and_settings(
    plain: Path, llama: dict[str, str], tmp_path: Path
) -> None:
    import shutil

    adapter = Path(shutil.copytree(plain, tmp_path / "adapter"))

    def prints(base: str = "base") -> tuple[str, str]:
        (source,) = resolve(read_recipe(one(f"{llama[base]}+{adapter}"))).sources.values()
        return source.fingerprint(), dict(source.stamps())[str(adapter)]

    found = [prints(), prints("instruct")]
    assert found[0][0] != found[1][0] and found[0][1] == found[1][1]
    _edit(adapter, lora_alpha=13)
    found.append(prints())
    file = adapter / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    found.append(prints())
    assert len({whole for whole, _ in found}) == 4 and len({own for _, own in found}) == 3
