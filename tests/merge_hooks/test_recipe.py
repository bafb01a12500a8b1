"""Recipes from everywhere, and every bad one gets one message that names the place and the mend."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from merge_hooks.errors import RecipeError, SourceError
from merge_hooks.recipe.recipe import Recipe, passthrough, read_recipe
from merge_hooks.resolve.resolver import from_payload, resolve
from merge_hooks.sources.checkpoint import Source
from merge_hooks.sources.hub import explain_hub_error
from tests.conftest import linear, task_arithmetic

GOOD = "merge_method: linear\nmodels:\n  - model: ./a\n    parameters: {weight: 1.0}\n  - model: ./b\n    parameters: {weight: 0.5}\n"

# (what is wrong, the recipe, what the message must say)
BAD = [
    ("empty", "", "is empty"),
    ("blank file", "\n# nothing here\n", "the recipe is empty"),
    ("not YAML", "merge_method: [linear\nmodels: }", "line 2: not valid YAML"),
    ("a list", "- merge_method: linear\n- b", "a recipe is a mapping"),
    ("no method", "models:\n- model: a\n", "no `merge_method:`"),
    (
        "unknown method",
        "merge_method: linaer\nmodels:\n- model: a\n",
        "line 1: unknown merge_method `linaer`. Did you mean `linear`?",
    ),
    (
        "density at the top",
        "merge_method: dare_ties\ndensity: 0.5\nbase_model: b\nmodels:\n- model: a\n  parameters: {weight: 1}\n",
        "line 2: mergekit ignores `density` here: `dare_ties` reads it under `parameters:`",
    ),
    (
        "weight beside a model",
        "merge_method: linear\nmodels:\n- model: a\n  weight: 0.5\n",
        "line 4: mergekit ignores `weight` here: `linear` reads it under `parameters:` of the model",
    ),
    (
        "a slip of the pen",
        "merge_method: linear\nmodelz: []\nmodels: []\n",
        "line 2: .*no key `modelz`.*Did you mean `models`?",
    ),
    (
        "a parameter the method lacks",
        "merge_method: linear\nmodels:\n- model: a\n  parameters: {weight: 1, density: 0.5}\n",
        "line 4: `linear` has no parameter `density`",
    ),
    (
        "a whole-merge parameter under a model",
        "merge_method: task_arithmetic\nbase_model: b\nmodels:\n- model: a\n  parameters: {weight: 1, normalize: true}\n",
        "line 5: `normalize` belongs to the whole merge",
    ),
    ("a key twice", "merge_method: linear\nmerge_method: ties\nmodels: []\n", "line 2: `merge_method` is given twice"),
    (
        "models and slices",
        "merge_method: linear\nmodels: [{model: a}]\nslices: [{sources: [{model: a, layer_range: [0, 1]}]}]\n",
        "Exactly one of",
    ),
    ("a wrong type", "merge_method: linear\nmodels: 3\n", "`models`"),
]


@pytest.mark.parametrize(
    ("text", "message"), [(text, message) for _, text, message in BAD], ids=[name for name, *_ in BAD]
)
def test_bad_recipes(text: str, message: str, write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = write_recipe(text)
    with pytest.raises(RecipeError) as caught:
        resolve(read_recipe(path))
    assert re.search(message.replace("?", r"\?"), str(caught.value), re.DOTALL)
    assert "merge.yml" in str(caught.value)


def test_inline_recipes_are_checked_too() -> None:
    with pytest.raises(RecipeError, match="inline recipe, line 2"):
        read_recipe("merge_method: ties\ndensity: 0.5\nmodels: []\nbase_model: x\n")


@pytest.mark.parametrize("form", ["file", "folder", "text", "mapping"])
def test_every_form_reads_the_same(form: str, tmp_path: Path) -> None:
    (tmp_path / "mergekit_config.yml").write_text(GOOD)
    forms: dict[str, Any] = {
        "file": tmp_path / "mergekit_config.yml",
        "folder": str(tmp_path),
        "text": GOOD,
        "mapping": yaml.safe_load(GOOD),
    }
    assert read_recipe(forms[form]).data == yaml.safe_load(GOOD)


@pytest.mark.parametrize("name", ["nowhere.yml", "./nowhere", "/nowhere/at/all", "too/many/parts"])
def test_a_recipe_that_is_not_there(name: str) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        read_recipe(name)


def test_a_folder_without_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"holds no mergekit_config\.yml"):
        read_recipe(str(tmp_path))


def test_a_source_that_does_not_exist(write_recipe: Callable[..., Path]) -> None:
    with pytest.raises(SourceError, match=r"\./a: no such folder"):
        resolve(read_recipe(write_recipe(GOOD)))


def test_a_source_on_the_hub_while_offline(write_recipe: Callable[..., Path]) -> None:
    said = r"owner/name@v1: .*there is no network here, or it is forbidden.*`hf download owner/name --revision v1`"
    with pytest.raises(SourceError, match=said):
        resolve(read_recipe(write_recipe("merge_method: passthrough\nmodels:\n- model: owner/name@v1\n")))


@pytest.mark.parametrize("kind", ["ConnectError", "ConnectTimeout", "ReadTimeout", "RemoteProtocolError"])
def test_a_connection_that_fails_is_no_answer_of_the_hub(kind: str) -> None:
    from huggingface_hub import errors

    httpx = importlib.import_module(errors.HTTPError.__module__.partition(".")[0])  # httpx2, from version 2 on
    said = explain_hub_error(getattr(httpx, kind)("[Errno -2] Name or service not known"), "owner/name", None)
    assert "there is no network here" in said and "iberian prefetch --models RECIPE" in said
    assert "the Hub answered" not in said


def test_paths_may_be_relative_to_the_recipe(llama: dict[str, Path], write_recipe: Callable[..., Path]) -> None:
    path = write_recipe(GOOD)
    for name, target in (("a", "basque"), ("b", "instruct")):
        (path.parent / name).symlink_to(llama[target])
    assert [source.name for source in resolve(read_recipe(path)).sources.values()] == ["./a", "./b"]


def test_a_folder_of_pickles_is_not_read(llama: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(llama["base"], tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    resolved = resolve(passthrough(str(tmp_path / "pickled")))
    with pytest.raises(SourceError, match="pickles, which can run code"):
        _ = resolved.donor.entries


def test_an_index_cannot_lead_out_of_its_folder(llama: dict[str, Path], tmp_path: Path) -> None:
    import json
    import shutil

    shutil.copytree(llama["base"], tmp_path / "model")
    index = {"weight_map": {"x": "../outside.safetensors"}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copy(llama["base"] / "model.safetensors", tmp_path / "outside.safetensors")
    with pytest.raises(SourceError, match="outside"):
        _ = resolve(passthrough(str(tmp_path / "model"))).donor.entries


def test_the_base_model_lends_config_and_tokenizer(llama: dict[str, Path]) -> None:
    assert resolve(read_recipe(task_arithmetic(llama))).donor.folder == llama["base"].resolve()
    assert resolve(read_recipe(linear(llama))).donor.folder == llama["basque"].resolve()


def test_yaml_that_unfolds_without_end_is_refused() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(RecipeError, match="too large for a recipe"):
        _ = Recipe("merge_method: linear\n" + "\n".join(levels), "bomb").data


def test_the_results_dtype_is_the_recipes_last_word(llama: dict[str, Path]) -> None:
    for said, dtype in (({}, None), ({"dtype": "float32"}, "float32"), ({"dtype": "float32", "out_dtype": "bfloat16"}, "bfloat16"),
                        ({"out_dtype": "float16"}, "float16")):  # fmt: skip
        recipe = {key: value for key, value in linear(llama).items() if key != "dtype"} | said
        assert resolve(read_recipe(recipe)).dtype == dtype


def test_a_revision_goes_with_its_model(llama: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def opened(path: str, revision: str | None = None, beside: Path | None = None) -> Source:
        asked.append((path, revision))
        return Source(path, llama["base"] if path.endswith("a") else llama["basque"], revision)

    monkeypatch.setattr("merge_hooks.resolve.resolver.open_source", opened)
    models = [{"model": name, "parameters": {"weight": 1.0}} for name in ("o/a@v1", "o/b")]
    resolve(read_recipe({"merge_method": "linear", "models": models}))
    resolve(passthrough("o/a", "v2"))
    assert asked == [("o/a", "v1"), ("o/b", None), ("o/a", "v2")]


@pytest.mark.parametrize(
    ("seed", "rng", "draws"), [(0, "iberian", "0"), (7, "iberian", "7"), (7, "mergekit", "7-mergekit")]
)
def test_what_is_drawn_is_said_and_handed_on(llama: dict[str, Path], seed: int, rng: str, draws: str) -> None:
    """By the recipe, by one whose stage alone draws, and by what a worker makes of either."""
    models = [{"model": str(llama["basque"]), "parameters": {"weight": 1.0, "density": 0.5}}]
    dare = {"merge_method": "dare_linear", "base_model": str(llama["base"]), "models": models}
    linear_ = {"merge_method": "linear", "models": [{"model": "stage", "parameters": {"weight": 1.0}}]}
    stage = yaml.safe_dump({"name": "stage", **dare}) + "---\n" + yaml.safe_dump(linear_)
    for recipe in (dare, stage):
        resolved = resolve(read_recipe(recipe), seed, rng, trust_remote_code=True)
        assert resolved.draws == draws
        again = from_payload(resolved.payload())
        assert (again.draws, again.seed, again.rng, again.trust_remote_code) == (draws, seed, rng, True)
    assert resolve(read_recipe(linear(llama)), seed, rng).draws == "none"


@pytest.mark.parametrize(
    ("written", "meant"), [("merge.ymll", "merge.yml"), ("toys/merg.yml", "toys/merge.yml"), ("./toys/basqe", "toys/basque"),
                           ("toys/merge", "toys/merge.yml"), ("quite-another.yml", "")],
)  # fmt: skip
def test_a_recipe_that_is_nearly_there(
    written: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toys/basque").mkdir(parents=True)
    for name in ("merge.yml", "toys/merge.yml"):
        (tmp_path / name).write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    with pytest.raises((RecipeError, SourceError), match=r"no such (recipe|folder)") as found:
        read_recipe(written)
    assert f"Did you mean {meant}?" in str(found.value) if meant else "Did you mean" not in str(found.value)
