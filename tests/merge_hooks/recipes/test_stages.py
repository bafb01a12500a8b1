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
