"""Recipes of several stages against mergekit-multi's own functions, run in this process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from merge_hooks.errors import RecipeError, SourceError
from merge_hooks.recipe.recipe import find_recipe, read_recipe
from merge_hooks.recipe.signature import sign
from merge_hooks.resolve.resolver import from_payload, resolve
from merge_hooks.resolve.stages import MergedSource
from merge_hooks.stream.stream import open_stream
from tests.merge_hooks.recipes.conftest import assert_same, streamed, tensors_of


def _stages(family: dict[str, str]) -> str:
    """Two stages, the second made of the first; a final merge of both and of a checkpoint.

    The densities prune nothing: which of tied elements mergekit keeps is its sort's accident.
    """
    base, instruct, basque = family["base"], family["instruct"], family["basque"]
    documents = [
        {"name": "mean", "merge_method": "linear", "dtype": "bfloat16", "parameters": {"normalize": True},
         "models": [{"model": instruct, "parameters": {"weight": 1.0}}, {"model": basque, "parameters": {"weight": 0.5}}]},
        {"name": "tall", "merge_method": "passthrough", "dtype": "float32",
         "slices": [{"sources": [{"model": "mean", "layer_range": [0, 3]}]},
                    {"sources": [{"model": base, "layer_range": [3, 4]}]}]},
        {"merge_method": "ties", "base_model": base, "dtype": "float32", "parameters": {"normalize": False},
         "models": [{"model": "tall", "parameters": {"weight": 0.7, "density": 1.0}},
                    {"model": "mean", "parameters": {"weight": 0.5, "density": 1.0}}]},
    ]  # fmt: skip
    return "---\n".join(yaml.safe_dump(document) for document in documents)


def _mergekit_multi(text: str, folder: Path) -> Path:
    from mergekit.graph import Executor
    from mergekit.options import MergeOptions
    from mergekit.scripts.multimerge import load_config, make_tasks

    stages, out = str(folder / "stages"), str(folder / "out")
    configs, needs = load_config(text, stages)
    tasks = make_tasks(configs, needs, MergeOptions(quiet=True), stages, out, lazy=False)
    Executor(tasks, math_device="cpu", storage_device="cpu").execute()
    return Path(out)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen"])
def test_equal_to_mergekit_multi(architecture: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = _stages(request.getfixturevalue(architecture))
    assert_same(streamed(text), tensors_of(_mergekit_multi(text, tmp_path)))


def _upscaled(name: str, models: dict[str, str], **more: object) -> Any:
    """A preset of up-scaled models over four layers: 0 to 3, then 1 to 4, so six."""
    from merge_hooks.recipe.presets import fill

    return fill(f"language_scaling/{name}", {**models, "end": 3, "start": 1, "layers": 4, **more}, "float32")


def test_upscaled_models_are_merged_layer_by_layer(llama: dict[str, str]) -> None:
    """By hand: layer 3 of six is layer 1 of four. Density 1, since which of equal magnitudes is kept is an accident."""
    models = {"base": llama["base"], "first": llama["instruct"], "second": llama["basque"]}
    recipe = _upscaled("upscale_and_merge", models, density=1.0)
    assert [document["dtype"] for document in yaml.safe_load_all(recipe.text)] == ["float32"] * 4
    merged = streamed(recipe.text)
    plain = streamed(yaml.safe_dump(list(yaml.safe_load_all(recipe.text))[-1] | {
        "base_model": models["base"],
        "models": [{"model": models[one], "parameters": {"weight": 1.0, "density": 1.0}} for one in ("first", "second")],
    }))  # fmt: skip
    layers = {0: 0, 1: 1, 2: 2, 3: 1, 4: 2, 5: 3}
    expected = {name: tensor for name, tensor in plain.items() if ".layers." not in name}
    for ours, theirs in layers.items():
        prefix = f"model.layers.{theirs}."
        expected |= {
            name.replace(prefix, f"model.layers.{ours}."): tensor
            for name, tensor in plain.items() if name.startswith(prefix)
        }  # fmt: skip
    assert_same(merged, expected)


@pytest.mark.slow
def test_fine_tunes_of_an_upscaled_model_merge_over_its_recipe(llama: dict[str, str], tmp_path: Path) -> None:
    """Two models of six layers on disk, their base by slices of a checkpoint: as mergekit merges them in two runs.

    mergekit-multi 0.1.5 does not write a stage that is a base model (a circular reference).
    """
    models = dict.fromkeys(("base", "first", "second"), llama["base"])
    tall = next(yaml.safe_load_all(_upscaled("upscaled", models).text))
    base = _merged_by_mergekit({key: value for key, value in tall.items() if key != "name"}, tmp_path / "base")
    for seed, name in enumerate(("first", "second")):
        models[name] = str(_moved(base, tmp_path / name, seed))
    text = _upscaled("upscaled", models, density=1.0).text
    final = list(yaml.safe_load_all(text))[-1] | {"base_model": str(base)}
    merged = streamed(text)
    assert {name.split(".")[2] for name in merged if ".layers." in name} == set("012345")
    assert_same(merged, tensors_of(_merged_by_mergekit(final, tmp_path / "out")))


def _moved(base: Path, folder: Path, seed: int) -> Path:
    """A checkpoint a small random step away, as a fine-tune is."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def _merged_by_mergekit(recipe: dict[str, Any], folder: Path) -> Path:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    options = MergeOptions(quiet=True, copy_tokenizer=True, clone_tensors=True)
    run_merge(MergeConfiguration.model_validate(recipe), str(folder), options)
    return folder


def test_no_stage_is_written(llama: dict[str, str]) -> None:
    resolved = resolve(read_recipe(_stages(llama)))
    list(open_stream(resolved))
    written = [source.folder for source in resolved.sources.values() if source.folder.name.startswith("iberian-stage-")]
    assert len(written) == 2
    for folder in written:
        assert (folder / "config.json").is_file() and (folder / "tokenizer.json").is_file()
        assert not list(folder.glob("*.safetensors"))


@pytest.mark.slow
def test_a_worker_rebuilds_the_stages(llama: dict[str, str]) -> None:
    resolved = resolve(read_recipe(_stages(llama)))
    again = from_payload(resolved.payload())
    assert_same(dict(open_stream(again)), dict(open_stream(resolved)))


ONE = "{model: x, parameters: {weight: 1}}"
REFUSED = {
    "circle": (
        f"name: a\nmerge_method: linear\nmodels: [{ONE.replace('x', 'b')}]\n---\n"
        f"name: b\nmerge_method: linear\nmodels: [{ONE.replace('x', 'a')}]\n---\n"
        f"merge_method: linear\nmodels: [{ONE.replace('x', 'b')}]\n",
        RecipeError, "b -> a -> b",
    ),
    "itself": (f"name: a\nmerge_method: linear\nmodels: [{ONE.replace('x', 'a')}]\n", RecipeError, "circle"),
    "two names": (f"name: a\nmerge_method: linear\nmodels: [{ONE}]\n---\nname: a\nmerge_method: linear\nmodels: [{ONE}]\n",
                  RecipeError, "the name `a`"),
    "two without": (f"merge_method: linear\nmodels: [{ONE}]\n---\nmerge_method: linear\nmodels: [{ONE}]\n",
                    RecipeError, "no `name:`"),
    "which": (f"name: a\nmerge_method: linear\nmodels: [{ONE}]\n---\nname: b\nmerge_method: linear\nmodels: [{ONE}]\n",
              RecipeError, "which of its 2 documents"),
    "unknown": (f"name: a\nmerge_method: linear\nmodels: [{ONE}]\n---\n"
                f"merge_method: linear\nmodels: [{ONE.replace('x', 'aa')}]\n", SourceError, "stages of this recipe are: a"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_order_is_refused(text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        resolve(find_recipe(text))


def test_the_last_named_stage_is_scored_where_all_have_names() -> None:
    text = f"name: a\nmerge_method: linear\nmodels: [{ONE}]\n---\nname: b\nmerge_method: ties\nmodels: [{ONE.replace('x', 'a')}]\n"
    assert find_recipe(text).final.name == "b"


def stage_of(text: str, seed: int = 0) -> Any:
    """The one stage of a recipe."""
    (found,) = (
        source for source in resolve(read_recipe(text), seed).sources.values() if isinstance(source, MergedSource)
    )
    return found


def over(stage: dict[str, Any]) -> str:
    last = {"merge_method": "linear", "models": [{"model": "stage", "parameters": {"weight": 1.0}}]}
    return yaml.safe_dump({"name": "stage", **stage}) + "---\n" + yaml.safe_dump(last)


@pytest.mark.parametrize(
    "more",
    [{}, {"dtype": "bfloat16"}, {"dtype": "float32", "out_dtype": "float16"}, {"tokenizer_source": "union"},
     {"tokenizer_source": "base", "base_model": "instruct", "dtype": "float16"}],
    ids=str,
)  # fmt: skip
def test_a_stage_says_what_it_gives(more: dict[str, Any], llama: dict[str, str], tmp_path: Path) -> None:
    """Shapes and dtypes from headers alone are those of the tensors: also where a tokenizer brings more rows."""
    larger = Path(shutil.copytree(llama["basque"], tmp_path / "larger"))
    tokenizer = AutoTokenizer.from_pretrained(larger)
    if "tokenizer_source" in more:
        tokenizer.add_tokens(["itsasontzi", "mendizale"])
        tokenizer.save_pretrained(larger)
        model = AutoModelForCausalLM.from_pretrained(larger)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model.save_pretrained(larger)
    models = [{"model": str(name), "parameters": {"weight": 1.0}} for name in (llama["instruct"], larger)]
    given = {**more, **({"base_model": llama["instruct"]} if "base_model" in more else {})}
    stage = stage_of(over({"merge_method": "linear", "models": models, **given}))
    names = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    for name, entry in stage.entries.items():
        tensor = stage.read(name)
        assert (names[entry.dtype], entry.shape) == (tensor.dtype, tuple(tensor.shape)), name


def test_a_stage_is_stamped_with_its_recipe_and_its_seed(llama: dict[str, str]) -> None:
    models = [{"model": llama["basque"], "parameters": {"weight": 1.0, "density": 0.5}}]
    dare = {"merge_method": "dare_linear", "base_model": llama["base"], "models": models}
    stage = stage_of(over(dare))
    plain = {"merge_method": "linear", "models": [{"model": llama["basque"], "parameters": {"weight": 1.0}}]}
    assert stage.draws and not stage_of(over(plain)).draws
    assert [name for name, _ in stage.stamps()] == [llama["base"], llama["basque"], "stage"]
    models[0]["parameters"]["density"] = 0.4
    other = stage_of(over(dare))
    assert stage.stamps()[:2] == other.stamps()[:2] and stage.stamps()[2] != other.stamps()[2]
    signs = [sign(resolve(read_recipe(over(dare)), seed), dtype="float32", tokenizer="", template="", engine="vllm")
             for seed in (0, 1, 0)]  # fmt: skip
    assert signs[0].weights == signs[2].weights != signs[1].weights
