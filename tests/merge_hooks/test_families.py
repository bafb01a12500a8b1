"""Models of every kind that transformers has, merged: what the engine computes is what mergekit's checkpoint gives.

Where mergekit cannot merge them, or loses tensors, a merge by hand of the models' parameters takes its place.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from merge_hooks.architectures.built import built_from
from merge_hooks.architectures.conversion import to_files, to_model
from merge_hooks.checks.preflight import check_fit, fit_notes
from merge_hooks.engines.hf import build_model, swap_into
from merge_hooks.errors import PreflightError
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.resolve.resolver import resolve
from merge_hooks.sources.checkpoint import open_source
from merge_hooks.stream.stream import Stream, open_stream
from tests.merge_hooks.families import FAMILIES, MULTIMODAL, make_family

# mergekit 0.1.5 stops at these, because its table asks for tensors that they do not have, or writes checkpoints that
# lack some of their tensors.
BY_HAND = {"phi4_mini", "cohere", "gpt_neox", "falcon_7b", "falcon_40b", "stablelm2_12b", "granite_hybrid", "nemotron_h",
           "olmo_hybrid", "ernie_moe", "deepseek_v3", "qwen3_vl", "gemma3"}  # fmt: skip
# Each stands for a way in which names or tables differ; the others are run each night.
ODD = {"phi4_mini", "falcon_7b", "nemotron_h", "mixtral", "ernie_moe", "granite_moe", "gemma3", "qwen3_vl"}
METHODS = ("linear", "task_arithmetic", "ties", "dare_ties")
TOKENS = torch.arange(5, 45)[None]


def _cases(names: Any) -> list[Any]:
    return [pytest.param(name, marks=[] if name in ODD else [pytest.mark.nightly]) for name in names]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Path]]:
    made: dict[str, dict[str, Path]] = {}

    def of(name: str) -> dict[str, Path]:
        if name not in made:
            made[name] = make_family(name, tmp_path_factory.mktemp(name))
        return made[name]

    return of


def recipe(made: dict[str, Path], method: str = "linear", weight: float = 0.5) -> dict[str, Any]:
    density = {"density": 0.6} if "ties" in method else {}
    models = [{"model": str(made[name]), "parameters": {"weight": own, **density}}
              for name, own in (("one", weight), ("two", 0.5))]  # fmt: skip
    data = {"merge_method": method, "models": models, "dtype": "float32"}
    return data if method == "linear" else data | {"base_model": str(made["base"])}


def opened(data: dict[str, Any], **options: Any) -> Stream:
    return open_stream(resolve(read_recipe(data)), **options)


def by_mergekit(data: dict[str, Any], folder: Path, kind: type) -> Any:
    """The model that transformers loads from what mergekit writes. It must not lack a tensor."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    shutil.rmtree(folder, ignore_errors=True)
    config = MergeConfiguration.model_validate(yaml.safe_load(yaml.safe_dump(data)))
    run_merge(config, str(folder), MergeOptions(quiet=True, random_seed=0))
    model, info = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)  # type: ignore[attr-defined]
    assert not info["missing_keys"]
    return model.eval()


def by_hand(made: dict[str, Path], weight: float, kind: type) -> Any:
    """A linear merge of the two models' parameters, in double precision."""
    one, two = (kind.from_pretrained(made[name], dtype=torch.float32).eval() for name in ("one", "two"))  # type: ignore[attr-defined]
    with torch.no_grad():
        for ours, theirs in zip(one.parameters(), two.parameters(), strict=True):
            ours.copy_((weight * ours.double() + 0.5 * theirs.double()) / (weight + 0.5))
    return one


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits.float()


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return float((ours - theirs).abs().max()) <= 1e-4 * max(1.0, float(theirs.std()))


@pytest.mark.parametrize("name", _cases(sorted(FAMILIES)))
def test_first_load_swap_and_back(name: str, family: Callable[[str], dict[str, Path]], tmp_path: Path) -> None:
    made, kind = family(name), None
    wanted, model = [], None
    for weight in (0.5, 0.2, 0.5):
        data = recipe(made, "linear", weight)
        stream = opened(data)
        check_fit(stream)
        if model is None:
            model = build_model(stream)
            kind = type(model)
        else:
            swap_into(model, stream)
        if len(wanted) < 2:
            merged = by_hand(made, weight, kind) if name in BY_HAND else by_mergekit(data, tmp_path / "merged", kind)
            wanted.append(logits(merged))
        assert close(logits(model), wanted[0 if weight == 0.5 else 1])
    assert not close(wanted[0], wanted[1])  # else a swap that does nothing would pass


@pytest.mark.parametrize(
    ("name", "method"),
    [pytest.param(name, method, marks=[] if (name, method) == ("mixtral", "dare_ties") else [pytest.mark.nightly])
     for name, method in itertools.product(("qwen3_moe", "mixtral", "gpt_oss", "qwen3_5", "lfm2", "falcon_h1",
                                            "qwen3_5_vl", "mistral3"), METHODS[1:])],
)  # fmt: skip
def test_methods_over_experts_hybrids_and_towers(
    name: str, method: str, family: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    data = recipe(family(name), method)
    model = build_model(opened(data, rng="mergekit", seed=0))
    assert close(logits(model), logits(by_mergekit(data, tmp_path / "merged", type(model))))


@pytest.mark.parametrize("name", _cases(sorted(FAMILIES)))
def test_names_of_files_become_those_of_the_class_and_back(name: str, family: Callable[[str], dict[str, Path]]) -> None:
    source = open_source(str(family(name)["one"]))
    assert source.built is not None
    files = {own: source.read_stored(own) for own in source.stored}
    shapes = {own: tuple(tensor.shape) for own, tensor in files.items()}
    made = dict(to_model(source.built, files, shapes).stream(files.items()))
    wanted = type(source.built.model).from_pretrained(source.folder, dtype=torch.float32).state_dict()
    assert source.built.required <= made.keys()
    assert all(torch.equal(tensor, wanted[own]) for own, tensor in made.items())
    again = dict(to_files(source.built, made, {own: tuple(t.shape) for own, t in made.items()}).stream(made.items()))
    assert again.keys() == files.keys()
    assert all(torch.equal(tensor, files[own]) for own, tensor in again.items())
    assert all(torch.equal(source.read(own), wanted[own]) for own in source.built.required)


# Two worlds


@pytest.mark.parametrize(("text", "multimodal"), [("qwen3", "qwen3_vl"), ("gemma3_text", "gemma3")])
@pytest.mark.parametrize("is_multimodal_first", [True, False])
def test_a_text_model_and_its_multimodal_sibling(
    text: str, multimodal: str, is_multimodal_first: bool, family: Callable[[str], dict[str, Path]]
) -> None:
    plain, whole = family(text)["one"], family(multimodal)["two"]
    rows = [plain, whole][:: -1 if is_multimodal_first else 1]
    data = {"merge_method": "linear", "dtype": "float32", "base_model": str(rows[0]),
            "models": [{"model": str(row), "parameters": {"weight": weight}}
                       for row, weight in zip(rows, (0.3, 0.7), strict=True)]}  # fmt: skip
    stream = opened(data)
    check_fit(stream)
    merged = dict(stream)
    ours, theirs = open_source(str(rows[0])), open_source(str(rows[1]))
    assert ours.built is not None and theirs.built is not None
    assert len(merged) == len(ours.built.required)
    start, other = ours.built.decoder, theirs.built.decoder
    for name, tensor in merged.items():
        own = ours.read(name)
        if name in ours.built.towers:
            assert torch.equal(tensor, own)
        else:
            sibling = theirs.read(name.replace(start, other, 1) if name.startswith(start) else name)
            torch.testing.assert_close(tensor, 0.3 * own + 0.7 * sibling)


def test_a_model_of_another_size_is_no_sibling(family: Callable[[str], dict[str, Path]]) -> None:
    data = recipe({"one": family("qwen3_vl")["one"], "two": family("llama")["one"]})
    with pytest.raises(PreflightError, match="weights of different architectures do not correspond"):
        check_fit(opened(data))


@pytest.mark.parametrize("name", ["qwen2_5_vl", "mistral3", "gemma3"])
@pytest.mark.parametrize("renamed", ["one", "two"])
def test_older_names_and_the_classs_in_one_merge(
    name: str, renamed: str, family: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    made = family(name)
    shutil.copytree(made[renamed], tmp_path / renamed)
    source = open_source(str(made[renamed]))
    assert source.built is not None
    tensors = {own: source.read(own).clone() for own in source.built.required}
    assert tensors.keys() != source.stored.keys()
    save_file(tensors, tmp_path / renamed / "model.safetensors", metadata={"format": "pt"})
    stream = opened(recipe(made | {renamed: tmp_path / renamed}))
    check_fit(stream)
    assert torch.equal(logits(build_model(stream)), logits(build_model(opened(recipe(made)))))


# Towers


def test_towers_are_the_donors_unless_the_recipe_names_them(family: Callable[[str], dict[str, Path]]) -> None:
    made = family("qwen3_vl")
    stream = opened(recipe(made))
    built = stream.plan.built
    assert built is not None
    one, two = open_source(str(made["one"])), open_source(str(made["two"]))
    merged = dict(stream)
    assert len(built.towers) > 40
    assert all(torch.equal(merged[name], one.read(name)) for name in built.towers)
    assert any("vision" in note and str(made["one"]) in note for note in fit_notes(stream))
    data = recipe(made)
    data["models"][0]["parameters"]["weight"] = [{"filter": "visual.blocks", "value": 0.1}, {"value": 0.5}]
    named = dict(opened(data))
    for name in built.towers:
        own = one.read(name)
        wanted = (0.1 * own + 0.5 * two.read(name)) / 0.6 if "visual.blocks" in name else own
        torch.testing.assert_close(named[name], wanted)


# Stacked layers


@pytest.mark.parametrize("name", ["smollm3", "bloom", "qwen3_5_vl", "granite_moe", "olmo3"])
def test_layers_are_stacked_without_a_table_of_mergekits(name: str, family: Callable[[str], dict[str, Path]]) -> None:
    made = family(name)
    slices = [{"sources": [{"model": str(made[own]), "layer_range": [0, 2]}]} for own in ("one", "two")]
    stream = opened({"merge_method": "passthrough", "dtype": "float32", "slices": slices})
    check_fit(stream)
    model = build_model(stream)
    assert model.config.get_text_config().num_hidden_layers == 4
    one, two = (type(model).from_pretrained(made[own], dtype=torch.float32) for own in ("one", "two"))
    layers = [*one.get_decoder().layers, *two.get_decoder().layers] if hasattr(one.get_decoder(), "layers") else [
        *one.get_decoder().h, *two.get_decoder().h]  # fmt: skip
    held = model.get_decoder().layers if hasattr(model.get_decoder(), "layers") else model.get_decoder().h
    for ours, theirs in zip(held, layers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_layers_of_the_wrong_kind_are_refused(family: Callable[[str], dict[str, Path]]) -> None:
    """Bamba says by number which layers attend; stacking must not leave one of another kind unfilled."""
    made = family("bamba")
    slices = [{"sources": [{"model": str(made[own]), "layer_range": [1, 2]}]} for own in ("one", "two")]
    with pytest.raises(PreflightError, match="nothing in these models fills"):
        check_fit(opened({"merge_method": "passthrough", "dtype": "float32", "slices": slices}))


# Checkpoints as they lie on the Hub


def test_a_tensor_in_two_files_is_read_where_the_index_says(
    family: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(family("llama")["one"], folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    name = "model.layers.0.mlp.up_proj.weight"
    stale = {name: torch.zeros_like(tensors[name])}
    for order in ((tensors, stale), (stale, tensors)):
        files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
        for file, held in zip(files, order, strict=True):
            save_file(held, folder / file, metadata={"format": "pt"})
        right = files[0] if order[0] is tensors else files[1]
        # Both files must be named, so the stale one holds a tensor of its own in the index.
        index = dict.fromkeys(tensors, right)
        extra = dict(stale) | {"extra": torch.zeros(1)}
        save_file(extra, folder / files[1 - files.index(right)], metadata={"format": "pt"})
        index["extra"] = files[1 - files.index(right)]
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        assert torch.equal(open_source(str(folder)).read(name), tensors[name])
        stream = opened(recipe(dict(family("llama")) | {"one": folder}))
        check_fit(stream)
        said = f"twice, with other numbers: {name} in {right}, which is read, and in {files[1 - files.index(right)]}"
        assert any(said in note for note in fit_notes(stream))


def test_a_tensor_with_and_without_its_prefix_is_said(family: Callable[[str], dict[str, Path]], tmp_path: Path) -> None:
    made = dict(family("llama"))
    for name in ("same", "other"):
        shutil.copytree(made["one"], tmp_path / name)
        tensors = load_file(tmp_path / name / "model.safetensors")
        factor = 1 if name == "same" else 2
        tensors |= {own.removeprefix("model."): factor * tensor for own, tensor in tensors.items()}
        save_file(tensors, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
        stream = opened(recipe(made | {"one": tmp_path / name}))
        check_fit(stream)
        told = [note for note in fit_notes(stream) if "twice, with other numbers" in note]
        assert bool(told) == (name == "other")
        assert all("embed_tokens.weight, which is read, and embed_tokens.weight" in note for note in told)


def test_a_copy_of_a_tied_head_is_left_out_and_said(family: Callable[[str], dict[str, Path]], tmp_path: Path) -> None:
    made = dict(family("llama_tied"))
    copied = tmp_path / "copied"
    shutil.copytree(made["one"], copied)
    tensors = load_file(copied / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    stream = opened(recipe(made | {"one": copied}, "dare_ties"), seed=0)
    check_fit(stream)
    assert "lm_head.weight" not in stream.names()
    assert any("a copy of the head" in note and "mergekit-yaml" in note for note in fit_notes(stream))
    model = build_model(stream)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_masks_in_files_are_left_out(family: Callable[[str], dict[str, Path]], tmp_path: Path) -> None:
    """As in Pythia's files on the Hub; in float16 masked_bias would be infinite."""
    made = {}
    for name, folder in family("gpt_neox").items():
        made[name] = tmp_path / name
        shutil.copytree(folder, made[name])
        tensors = load_file(folder / "model.safetensors")
        for layer in range(2):
            prefix = f"gpt_neox.layers.{layer}.attention"
            tensors[f"{prefix}.bias"] = torch.tril(torch.ones(64, 64, dtype=torch.bool)).view(1, 1, 64, 64)
            tensors[f"{prefix}.masked_bias"] = torch.tensor(-1e9)
            tensors[f"{prefix}.rotary_emb.inv_freq"] = torch.ones(4)
        save_file(tensors, made[name] / "model.safetensors", metadata={"format": "pt"})
    stream = opened(recipe(made) | {"dtype": "float16"})
    check_fit(stream)
    assert not [name for name in stream.names() if "masked_bias" in name or "inv_freq" in name]
    model = build_model(stream, dtype="float32")
    assert close(logits(model), logits(by_hand(made, 0.5, type(model)))) or stream.resolved.config.dtype == "float16"


def test_a_config_without_architectures(family: Callable[[str], dict[str, Path]], tmp_path: Path) -> None:
    made = dict(family("llama"))
    bare = tmp_path / "bare"
    shutil.copytree(made["one"], bare)
    config = json.loads((bare / "config.json").read_text())
    del config["architectures"]
    (bare / "config.json").write_text(json.dumps(config))
    for rows in ({"one": bare, "two": made["two"]}, {"one": made["two"], "two": bare}):
        stream = opened(recipe(rows))
        check_fit(stream)
        assert close(logits(build_model(stream)), logits(build_model(opened(recipe({**made, "one": rows["one"],
                                                                                    "two": rows["two"]})))))  # fmt: skip


@pytest.mark.parametrize("lacking", [("two",), ("one",), ("one", "two")])
def test_a_missing_expert_is_said(
    lacking: tuple[str, ...], family: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    made = dict(family("mixtral"))
    for name in lacking:
        shutil.copytree(made[name], tmp_path / name)
        made[name] = tmp_path / name
        tensors = load_file(made[name] / "model.safetensors")
        kept = {own: tensor for own, tensor in tensors.items() if ".experts.3." not in own}
        assert len(kept) == len(tensors) - 6
        save_file(kept, made[name] / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PreflightError, match=r"are 3x192x128 together, and its config\.json wants 4x192x128") as error:
        check_fit(opened(recipe(made)))
    assert all(str(made[name]) in str(error.value) for name in lacking)
    assert "differs in shape" not in str(error.value)


def test_sources_of_the_same_tensors_share_their_conversion(family: Callable[[str], dict[str, Path]]) -> None:
    """It takes seconds for a large mixture, and each point of a sweep opens its sources anew."""
    one, two = (open_source(str(family("mixtral")[name])) for name in ("one", "two"))
    other = open_source(str(family("qwen3_moe")["one"]))
    assert one.conversion is two.conversion is not None
    assert other.conversion is not one.conversion


def test_a_tensor_without_a_place_is_refused(family: Callable[[str], dict[str, Path]]) -> None:
    """A model of fewer layers must not take a part of a merge in silence, nor go on answering afterwards."""
    made = family("llama")
    both = [{"sources": [{"model": str(made[own]), "layer_range": [0, 2]}]} for own in ("one", "two")]
    model = build_model(opened(recipe(made)))
    with pytest.raises(PreflightError, match=r"model\.layers\.2\.\S+ has no place in LlamaForCausalLM"):
        swap_into(model, opened({"merge_method": "passthrough", "dtype": "float32", "slices": both}))


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "gemma3"])
def test_a_tied_head_that_differs_is_refused(
    name: str, family: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    """Whatever the embedding is called: transformers 5 would use the head, the merge would not."""
    odd = tmp_path / "odd"
    shutil.copytree(family(name)["one"], odd)
    if name == "gpt_neox":
        config = json.loads((odd / "config.json").read_text())
        (odd / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    source = open_source(str(odd))
    assert source.built is not None
    (head, embedding), *_ = source.built.tied.items()
    tensors = load_file(odd / "model.safetensors")
    tensors[head] = source.read(embedding) + 1
    tensors.pop("embed_out.weight", None)
    save_file(tensors, odd / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PreflightError, match="its files hold a head that differs"):
        check_fit(opened({"merge_method": "passthrough", "models": [{"model": str(odd)}]}))


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_endless_layers_in_a_part_of_the_configuration(
    part: str, family: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(family("qwen3_vl")["one"], odd)
    config = json.loads((odd / "config.json").read_text())
    config[part]["num_hidden_layers" if part == "text_config" else "depth"] = 10**9
    (odd / "config.json").write_text(json.dumps(config))
    with pytest.raises(PreflightError, match=r"config\.json says 1000000000 layers\. Is it damaged"):
        opened({"merge_method": "passthrough", "models": [{"model": str(odd)}]})


# Classification


def test_only_multimodal_models_have_towers() -> None:
    for name, make in FAMILIES.items():
        built = built_from(json.loads(make().to_json_string()))
        if built is not None:
            assert bool(built.towers) == (name in MULTIMODAL), name


# Adapters


@pytest.mark.slow
def test_an_adapter_that_mergekit_extracts_over_a_tied_base(
    family: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    """It brings the embedding and, once more, the head: one tensor of the tied model."""
    import os
    import subprocess
    import sys

    from lm_eval_iberian.toy import tiny
    from merge_hooks.errors import SourceError

    peft = pytest.importorskip("peft")
    made = {}
    for name, folder in family("llama_tied").items():
        made[name] = tmp_path / name
        shutil.copytree(folder, made[name])
        tiny.build_tokenizer(320).save_pretrained(made[name])
    adapter = tmp_path / "adapter"
    subprocess.run(
        [str(Path(sys.executable).parent / "mergekit-extract-lora"), "--model", str(made["one"]), "--base-model",
         str(made["base"]), "--out-path", str(adapter), "--max-rank", "8"],
        capture_output=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    data = {"merge_method": "linear", "dtype": "float32",
            "models": [{"model": f"{made['base']}+{adapter}", "parameters": {"weight": 1.0}}]}  # fmt: skip
    stream = opened(data)
    check_fit(stream)
    ours = build_model(stream)
    plain = type(ours).from_pretrained(made["base"], dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(plain, adapter).merge_and_unload()
    assert torch.equal(logits(ours), logits(theirs))
    weights = load_file(adapter / "adapter_model.safetensors")
    weights["base_model.model.lm_head.weight"] += 1
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"ties to its other end|has no place"):
        check_fit(opened(data))


def test_an_adapter_over_files_with_older_names(family: Callable[[str], dict[str, Path]], tmp_path: Path) -> None:
    """PEFT writes the names of the class that was trained; Gemma 3's files on the Hub have others."""
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForImageTextToText

    base = family("gemma3")["one"]
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"],
                             alpha_pattern={"down_proj": 16}, init_lora_weights=False)  # fmt: skip
    adapted = peft.get_peft_model(model, config)
    adapted.save_pretrained(tmp_path / "adapter")
    stream = opened({"merge_method": "linear", "dtype": "float32",
                     "models": [{"model": f"{base}+{tmp_path / 'adapter'}", "parameters": {"weight": 1.0}}]})  # fmt: skip
    check_fit(stream)
    assert torch.equal(logits(build_model(stream)), logits(adapted.merge_and_unload()))


# Verified beside mergekit


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixtral", "mistral3", "qwen3_5_vl"])
def test_verify_holds_what_mergekit_writes(name: str, family: Callable[[str], dict[str, Path]]) -> None:
    """Experts in one tensor, names of files and of the class; towers are not compared, mergekit merges them."""
    from merge_hooks.tools.verify import verify

    verdict = verify(opened(recipe(family(name), "ties"), rng="mergekit"))
    assert verdict.is_equal, (verdict.unequal, verdict.missing, verdict.engine)
    assert verdict.stream_digest == verdict.mergekit_digest
