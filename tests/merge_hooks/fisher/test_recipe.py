"""`merge_method: fisher` in our stream, in mergekit itself, and in the signature."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lm_eval_iberian import autoload
from lm_eval_iberian.toy.tiny import build_family
from merge_hooks.checks.preflight import check_fit
from merge_hooks.errors import FisherError, PreflightError, RecipeError, SourceError
from merge_hooks.methods.register import register_methods
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.recipe.signature import recipe_digest
from merge_hooks.resolve.resolver import from_payload, refuse_changed, resolve
from merge_hooks.sources.fisher_file import read_map, write_map
from merge_hooks.stream.stream import Stream, open_stream
from merge_hooks.tools.fisher import make_map
from tests.merge_hooks.fisher.conftest import CPU, SMALL

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("basque", "instruct")


def recipe_of(family: Any, maps: Any, dtype: str = "float32", **parameters: Any) -> dict[str, Any]:
    models = [
        {"model": str(family[name]), "parameters": {"weight": weight, "fisher": str(maps[name])}}
        for name, weight in zip(NAMES, (1.0, 0.5), strict=True)
    ]
    return {"merge_method": "fisher", "models": models, "parameters": parameters, "dtype": dtype}


def stream_of(recipe: Any) -> Stream:
    stream = open_stream(resolve(read_recipe(recipe)))
    check_fit(stream)
    return stream


def test_the_stream_is_the_closed_form(family: Any, maps: Any) -> None:
    weights = {name: load_file(family[name] / "model.safetensors") for name in NAMES}
    squares = {name: load_file(maps[name]) for name in NAMES}
    merged = dict(stream_of(recipe_of(family, maps, epsilon=1e-12)))
    assert merged.keys() == weights["basque"].keys()
    moved = 0
    for name, tensor in merged.items():
        one, other = (squares[key][name].double() for key in NAMES)
        one, other = one + 1e-30, other * 0.5 + 0.5e-30  # unseen rows of the embedding: the weighted mean
        golden = (one * weights["basque"][name] + other * weights["instruct"][name]) / (one + other)
        torch.testing.assert_close(tensor.double(), golden, rtol=0, atol=2e-6)
        mean = (weights["basque"][name] + 0.5 * weights["instruct"][name]) / 1.5
        moved += int(not torch.allclose(tensor, mean, atol=1e-4))
    assert moved > 10


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_mergekit_itself_gives_the_same_bytes(dtype: str, family: Any, maps: Any, mergekit_merge: Any) -> None:
    register_methods()
    register_methods()
    recipe = recipe_of(family, maps, dtype)
    golden = load_file(mergekit_merge(recipe) / "model.safetensors")
    merged = dict(stream_of(recipe))
    assert [name for name in golden if not torch.equal(merged[name], golden[name])] == []


@pytest.mark.skipif(
    "mergekit" not in Path(autoload.__file__).read_text(encoding="utf-8"),
    reason="lm_eval_iberian/autoload.py does not watch mergekit yet",
)
@pytest.mark.slow
def test_the_mergekit_yaml_process_gives_the_same_bytes(family: Any, maps: Any, tmp_path: Path) -> None:
    recipe = recipe_of(family, maps)
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(recipe))
    command = [str(Path(sys.executable).parent / "mergekit-yaml"), str(tmp_path / "merge.yml"), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    golden = load_file(tmp_path / "out" / "model.safetensors")
    merged = dict(stream_of(recipe))
    assert [name for name in golden if not torch.equal(merged[name], golden[name])] == []


def test_one_source_is_that_source(family: Any, maps: Any) -> None:
    recipe = recipe_of(family, maps)
    del recipe["models"][1]
    golden = load_file(family["basque"] / "model.safetensors")
    assert all(torch.equal(tensor, golden[name]) for name, tensor in stream_of(recipe))


def test_paths_are_found_beside_the_recipe_and_survive_the_payload(family: Any, maps: Any, tmp_path: Path) -> None:
    for name in NAMES:
        shutil.copy(maps[name], tmp_path / f"{name}.fisher")
    recipe = recipe_of(family, {name: f"{name}.fisher" for name in NAMES})
    recipe["models"][0]["parameters"]["fisher"] = [
        {"filter": "mlp", "value": "basque.fisher"},
        {"value": "basque.fisher"},
    ]
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(recipe))
    resolved = resolve(read_recipe(tmp_path / "merge.yml"))
    golden = dict(stream_of(recipe_of(family, maps)))
    for stream in (open_stream(resolved), open_stream(from_payload(resolved.payload()))):
        assert all(torch.equal(tensor, golden[name]) for name, tensor in stream)


def test_the_digest_follows_the_maps_content_and_not_its_place(family: Any, maps: Any, tmp_path: Path) -> None:
    def digest(paths: Any) -> str:
        return recipe_digest(resolve(read_recipe(recipe_of(family, paths))))

    moved = {name: tmp_path / f"moved-{name}" for name in NAMES}
    for name in NAMES:
        shutil.copy(maps[name], moved[name])
    same = digest(maps)
    assert digest(moved) == same
    found = read_map(moved["basque"])
    tensors = load_file(moved["basque"])
    tensors["model.norm.weight"][0] *= 2
    write_map(moved["basque"], tensors, found.facts)
    assert digest(moved) != same


def test_the_signature_is_of_the_map_that_was_merged(family: Any, maps: Any, tmp_path: Path) -> None:
    """It is asked for when all answers are there, hours after the weights were read."""
    moving = tmp_path / "map.safetensors"
    shutil.copy(maps["basque"], moving)
    resolved = resolve(read_recipe(recipe_of(family, {**maps, "basque": moving})))
    assert str(moving) in resolved.prints  # as in `prepare`
    before = recipe_digest(resolve(read_recipe(recipe_of(family, {**maps, "basque": moving}))))
    refuse_changed(resolved)
    found = read_map(moving)
    write_map(moving, {name: tensor + 1 for name, tensor in load_file(moving).items()}, found.facts)
    assert recipe_digest(resolved) == before
    assert recipe_digest(resolve(read_recipe(recipe_of(family, {**maps, "basque": moving})))) != before
    with pytest.raises(SourceError, match=r"map\.safetensors changed on disk"):
        refuse_changed(resolved)


def test_a_map_of_another_model_is_refused(family: Any, maps: Any) -> None:
    """Same names and shapes: only the values tell."""
    with pytest.raises(FisherError, match="other values than in"):
        list(stream_of(recipe_of(family, {"basque": maps["base"], "instruct": maps["instruct"]})))


def test_a_map_that_changes_during_the_merge_is_noticed(family: Any, maps: Any, tmp_path: Path) -> None:
    copy = shutil.copy(maps["basque"], tmp_path / "copy")
    stream = iter(stream_of(recipe_of(family, {**maps, "basque": copy})))
    next(stream)
    os.utime(copy, ns=(1, 1))
    with pytest.raises(SourceError, match="changed during the merge"):
        list(stream)


def cut_map(path: Path, to: Path, change: Any) -> Path:
    tensors = load_file(path)
    change(tensors)
    write_map(to, tensors, read_map(path).facts)
    return to


def test_missing_entries_and_other_shapes_are_refused_before_a_weight_is_read(
    family: Any, maps: Any, tmp_path: Path
) -> None:
    name = "model.norm.weight"
    lacking = cut_map(maps["basque"], tmp_path / "lacking", lambda tensors: tensors.pop(name))
    with pytest.raises(PreflightError, match="has no entry for model"):
        stream_of(recipe_of(family, {**maps, "basque": lacking}))
    with pytest.raises(FisherError, match="missing: mean"):
        list(open_stream(resolve(read_recipe(recipe_of(family, {**maps, "basque": lacking})))))
    smaller = cut_map(maps["basque"], tmp_path / "smaller", lambda tensors: tensors.update({name: torch.ones(3)}))
    with pytest.raises(PreflightError, match="has 3 numbers for model"):
        stream_of(recipe_of(family, {**maps, "basque": smaller}))
    merged = dict(stream_of(recipe_of(family, {**maps, "basque": lacking}, missing="mean")))
    one, other = (load_file(family[key] / "model.safetensors")[name] for key in NAMES)
    torch.testing.assert_close(merged[name], (one + 0.5 * other) / 1.5, rtol=0, atol=1e-6)
    usual = dict(stream_of(recipe_of(family, maps)))
    assert all(torch.equal(merged[key], usual[key]) for key in usual if key != name)


def test_layers_that_move_are_refused(family: Any, maps: Any, mergekit_merge: Any) -> None:
    """mergekit tells a method the name of the output only; by our preflight, and by the prints in mergekit."""
    sources = [
        {"model": str(family[name]), "layer_range": [1, 2], "parameters": {"fisher": str(maps[name])}} for name in NAMES
    ]
    recipe = {"merge_method": "fisher", "slices": [{"sources": sources}], "dtype": "float32"}
    with pytest.raises(PreflightError, match="cannot follow layers"):
        stream_of(recipe)
    with pytest.raises(FisherError, match="layers must"):
        mergekit_merge(recipe)


def test_values_that_are_no_squares_are_refused(family: Any, maps: Any, tmp_path: Path) -> None:
    def negate(tensors: Any) -> None:
        tensors["model.norm.weight"][0] = -1

    negative = cut_map(maps["basque"], tmp_path / "negative", negate)
    with pytest.raises(FisherError, match="negative"):
        list(stream_of(recipe_of(family, {**maps, "basque": negative})))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epsilon": 0}, "epsilon"),
        ({"epsilon": 2}, "epsilon"),
        ({"missing": "skip"}, "missing: skip"),
        ({"density": 0.5}, "no parameter `density`"),
    ],
)
def test_parameters_out_of_range_are_refused(change: dict[str, Any], said: str, family: Any, maps: Any) -> None:
    with pytest.raises(RecipeError, match=said):
        list(stream_of(recipe_of(family, maps, **change)))


def test_weights_that_mean_nothing_are_refused(family: Any, maps: Any) -> None:
    recipe = recipe_of(family, maps)
    recipe["models"][0]["parameters"]["weight"] = -0.5
    with pytest.raises(RecipeError, match=r"weights -0\.5, 0\.5"):
        list(stream_of(recipe))


def test_a_missing_map_is_told_with_the_command_that_makes_it(family: Any, maps: Any) -> None:
    with pytest.raises(FisherError, match="iberian fisher MODEL"):
        stream_of(recipe_of(family, {**maps, "basque": "nowhere.safetensors"}))
    recipe = recipe_of(family, maps)
    del recipe["models"][0]["parameters"]["fisher"]
    with pytest.raises(PreflightError, match="Missing required parameter fisher"):
        stream_of(recipe)


def test_a_float32_model_keeps_its_map_in_a_float16_merge(family: Any, maps: Any) -> None:
    """Values that float16 rounds first and the print's bfloat16 then: why a weight has a second print."""
    name = "model.embed_tokens.weight"
    assert len(read_map(maps["basque"]).facts.prints[name]) == 2
    assert dict(stream_of(recipe_of(family, maps, "float16")))[name].dtype == torch.float16


def test_tied_bfloat16_models_and_mergekit_agree(texts: Path, tmp_path: Path, mergekit_merge: Any) -> None:
    register_methods()
    tied = build_family(tmp_path, "qwen3", dtype="bfloat16", **SMALL)
    paths = {name: tmp_path / f"{name}.fisher" for name in NAMES}
    for name, path in paths.items():
        make_map(str(tied[name]), texts, path, CPU)
    recipe = recipe_of(tied, paths, "bfloat16")
    golden = load_file(mergekit_merge(recipe) / "model.safetensors")
    merged = dict(stream_of(recipe))
    assert merged.keys() == golden.keys()
    assert [name for name in golden if not torch.equal(merged[name], golden[name])] == []
