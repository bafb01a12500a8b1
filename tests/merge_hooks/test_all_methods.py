"""The stream against mergekit itself, whole models: every registered method, three architectures, every
dtype.

Golden values are what mergekit.merge.run_merge (the code behind mergekit-yaml) writes to disk.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from mergekit import merge_methods
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import LoaderCache
from mergekit.merge import run_merge
from mergekit.merge_methods.base import BasePolicy, InputContract, TensorGroup
from mergekit.options import MergeOptions
from safetensors.torch import load_file

from lm_eval_iberian.toy.tiny import build_family
from merge_hooks.errors import RecipeError, SourceError
from merge_hooks.kernels.choose import DETERMINISTIC
from merge_hooks.methods import register as own_methods
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.recipe.signature import sign
from merge_hooks.resolve.resolver import resolve
from merge_hooks.sources.residents import Residents
from merge_hooks.stream.stream import Stream, open_stream
from tests.conftest import first_ones

Tensors = dict[str, torch.Tensor]
METHODS = {method.spec.name for method in merge_methods.registered_methods()}
SEED = 42
# Twelve layers, so that layer 10 comes before layer 2 in mergekit's order and after it in ours.
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 12, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 16}  # fmt: skip
VALUES = {"weight": 0.6, "density": 0.4, "t": 0.3, "gamma": 0.05, "epsilon": 0.1}
# Whose draws are known. A method that is in neither list is taken for a random one.
RANDOM = ("dare_linear", "dare_ties", "della", "della_linear", "arcee_fusion", "knots_dare_ties")
PRUNED = ("ties", "breadcrumbs", "breadcrumbs_ties")


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Path]]:
    """Makes each family of tiny models once."""
    made: dict[tuple[str, str], dict[str, Path]] = {}

    def family(architecture: str, dtype: str = "bfloat16") -> dict[str, Path]:
        key = (architecture, dtype)
        if key not in made:
            folder = tmp_path_factory.mktemp(f"{architecture}_{dtype}")
            made[key] = build_family(folder, architecture, dtype=dtype, **SMALL)
        return made[key]

    return family


@pytest.fixture
def by_mergekit(tmp_path: Path) -> Callable[[dict[str, Any]], Tensors]:
    """Runs mergekit on a recipe and reads what it wrote."""

    def merged(recipe: dict[str, Any]) -> Tensors:
        LoaderCache.loaders.clear()  # it must not read through our readers
        options = MergeOptions(quiet=True, copy_tokenizer=False, random_seed=SEED, write_model_card=False)
        run_merge(MergeConfiguration.model_validate(recipe), str(tmp_path / "merged"), options)
        return written(tmp_path / "merged")

    return merged


def written(folder: Path) -> Tensors:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def recipe_for(method: str, models: dict[str, Path], **parameters: Any) -> dict[str, Any]:
    """A recipe for any method, from its own specification: the models it takes, all its parameters."""
    spec = merge_methods.get(method).spec
    needs_base = spec.contract.base == BasePolicy.REQUIRED
    count = min(spec.contract.max_inputs or 3, spec.contract.max_non_base or 3, 3)
    chosen = [models[name] for name in ("base", "instruct", "basque")[:count]]
    per_model = {item.name: VALUES[item.name] for item in spec.input_parameters if item.name in VALUES}
    shared = {item.name: VALUES[item.name] for item in spec.shared_parameters if item.name in VALUES}
    recipe: dict[str, Any] = {
        "merge_method": method,
        "models": [{"model": str(model), "parameters": per_model} for model in chosen],
        "parameters": {**shared, **parameters},
        "dtype": "bfloat16",
    }
    if needs_base:
        recipe["base_model"] = str(models["base"])
    return recipe


def streamed(recipe: dict[str, Any], **options: Any) -> Stream:
    return open_stream(resolve(read_recipe(recipe)), **options)


def bytes_differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype != other.dtype or not torch.equal(one.view(torch.uint8), other.view(torch.uint8))


@pytest.mark.parametrize("architecture", first_ones(["llama", "qwen3", "mistral"], 1))
@pytest.mark.parametrize("method", sorted(METHODS - set(own_methods.OURS)))
def test_every_method_gives_mergekits_model(method: str, architecture: str, families: Any, by_mergekit: Any) -> None:
    """Random ones with `rng=mergekit`. Pruned ones may differ in tied elements (see kernels/test_ways.py)."""
    recipe = recipe_for(method, families(architecture))
    golden = by_mergekit(recipe)
    ours = dict(streamed(recipe, seed=SEED, rng="mergekit"))
    assert ours.keys() == golden.keys()
    assert [ours[name].shape for name in golden] == [tensor.shape for tensor in golden.values()]
    if method not in PRUNED:
        assert [name for name in golden if bytes_differ(ours[name], golden[name])] == []
        return
    differing = sum(int((ours[name] != golden[name]).sum()) for name in golden)
    assert differing < 0.02 * sum(tensor.numel() for tensor in golden.values())


@pytest.mark.parametrize(
    "dtypes",
    [("float32", "bfloat16", None), ("float16", "float32", "float16"), ("bfloat16", None, "float32")],
)
@pytest.mark.parametrize("method", first_ones(["linear", "task_arithmetic", "dare_ties"], 1))
def test_dtypes_of_sources_recipe_and_result(
    method: str, dtypes: tuple[str, str | None, str | None], families: Any, by_mergekit: Any
) -> None:
    stored, dtype, out_dtype = dtypes
    recipe = recipe_for(method, families("llama", stored)) | {"dtype": dtype, "out_dtype": out_dtype}
    recipe = {key: value for key, value in recipe.items() if value is not None}
    golden = by_mergekit(recipe)
    ours = dict(streamed(recipe, seed=SEED, rng="mergekit"))
    assert [name for name in golden if bytes_differ(ours[name], golden[name])] == []


@pytest.mark.slow
def test_filters_gradients_and_slices(families: Any, by_mergekit: Any) -> None:
    models = families("llama")
    weight = [
        {"filter": "self_attn", "value": [0, 0.5, 1]},
        {"filter": "mlp", "value": [1, 0]},
        {"value": 0.5},
    ]
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": str(models["base"]),
        "slices": [
            {"sources": [{"model": str(models[name]), "layer_range": layers, "parameters": {"weight": weight}}
                         for name in ("base", "instruct", "basque")]}
            for layers in ([0, 4], [2, 9])
        ],
        "parameters": {"normalize": True, "lambda": 0.9},
        "dtype": "float32",
    }  # fmt: skip
    golden = by_mergekit(recipe)
    ours = dict(streamed(recipe))
    assert [name for name in golden if bytes_differ(ours[name], golden[name])] == []
    assert any(name.startswith("model.layers.10.") for name in ours)


@pytest.mark.slow
def test_the_command_line_draws_the_same(families: Any, tmp_path: Path) -> None:
    """`mergekit-yaml --random-seed`, a process of its own."""
    recipe = recipe_for("dare_ties", families("llama"))
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mergekit.scripts.run_yaml",
        "recipe.yml",
        "merged",
        "--random-seed",
        str(SEED),
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    golden = written(tmp_path / "merged")
    ours = dict(streamed(recipe, seed=SEED, rng="mergekit"))
    assert [name for name in golden if bytes_differ(ours[name], golden[name])] == []
    other = dict(streamed(recipe, seed=SEED + 1, rng="mergekit"))
    assert any(bytes_differ(other[name], golden[name]) for name in golden)


@pytest.mark.parametrize("method", first_ones(RANDOM, 1))
def test_random_methods_repeat(method: str, families: Any) -> None:
    """Read again, in another order or alone, a tensor has the same bytes; another seed's differ."""
    recipe = recipe_for(method, families("llama"))
    stream = streamed(recipe, seed=7)
    state = torch.get_rng_state()
    first = dict(stream)
    assert torch.equal(torch.get_rng_state(), state), "the caller's generator was moved"
    torch.rand(10)
    assert [name for name, tensor in stream if bytes_differ(tensor, first[name])] == []
    resumed = streamed(recipe, seed=7)
    for name in reversed(stream.names()):
        alone = resumed.tensor(name)
        assert alone is not None and not bytes_differ(alone, first[name])
    if method != "arcee_fusion":  # draws only in tensors above a million elements
        other = dict(streamed(recipe, seed=8))
        assert all(bytes_differ(other[name], first[name]) for name in first if first[name].numel() > 500)


def test_mergekit_brings_no_method_that_nobody_has_looked_at() -> None:
    """Does a new one draw? Until somebody has looked, its signature has a seed: then it goes into one of the lists."""
    assert METHODS | set(own_methods.OURS) == set(RANDOM) | set(DETERMINISTIC)


@pytest.fixture
def noisy() -> Iterator[str]:
    """A plugin's method that draws from every global generator there is."""
    from mergekit.merge_methods import registry
    from mergekit.merge_methods.easy_define import merge_method

    @merge_method(name="noisy", contract=InputContract(base=BasePolicy.REQUIRED, min_inputs=2, max_inputs=2))
    def noisy(group: TensorGroup) -> torch.Tensor:
        draws = torch.rand(1) + float(np.random.rand()) + random.random()
        return group.base.tensor + draws

    registry.register(noisy)
    yield "noisy"
    del registry._METHODS["noisy"]


@pytest.mark.parametrize("rng", ["iberian", "mergekit"])
def test_a_plugins_method_is_stamped_with_its_seed(rng: str, noisy: str, families: Any, tmp_path: Path) -> None:
    models = families("llama", "float32")
    recipe = {"merge_method": noisy, "base_model": str(models["base"]),
              "models": [{"model": str(models["base"])}, {"model": str(models["basque"])}], "dtype": "float32"}  # fmt: skip
    found, stamps = [], []
    for seed in (1, 1, 2):
        np.random.seed(None)
        random.seed()
        torch.seed()
        resolved = resolve(read_recipe(recipe), seed, rng)
        found.append(dict(open_stream(resolved)))
        stamps.append(str(sign(resolved, dtype="float32", tokenizer="", template="", engine="transformers")))
    first, again, other = found
    assert [name for name in first if bytes_differ(first[name], again[name])] == []
    assert all(bytes_differ(first[name], other[name]) for name in first)
    assert stamps[0] == stamps[1] != stamps[2]
    if rng == "mergekit":
        options = MergeOptions(quiet=True, copy_tokenizer=False, random_seed=2, write_model_card=False)
        LoaderCache.loaders.clear()
        run_merge(MergeConfiguration.model_validate(recipe), str(tmp_path), options)
        golden = written(tmp_path)
        assert [name for name in golden if bytes_differ(other[name], golden[name])] == []


@pytest.mark.parametrize("rng", ["iberian", "mergekit"])
@pytest.mark.parametrize("method", ["della", "slerp"])
def test_the_generators_of_a_gpu_are_left_alone(method: str, rng: str, families: Any, monkeypatch: Any) -> None:
    """An engine samples from them. torch.manual_seed reseeds all of them, and fork_rng(devices=[]) puts none back."""
    touched: list[str] = []
    models = families("llama")
    for name in ("manual_seed", "manual_seed_all", "seed", "set_rng_state"):
        for device in (torch.cuda, torch.xpu, torch.mps):
            monkeypatch.setattr(device, name, lambda *_, name=name: touched.append(name), raising=False)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    dict(streamed(recipe_for(method, models), seed=5, rng=rng))
    assert touched == []
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())


@pytest.mark.slow
def test_streams_in_two_threads_are_those_of_one(families: Any) -> None:
    """mergekit draws from the one generator of the process."""
    recipes = [recipe_for("della", families(name)) for name in ("llama", "mistral")]
    alone = [dict(streamed(recipe, seed=seed)) for seed, recipe in enumerate(recipes)]
    start = threading.Barrier(2)

    def read(number: int) -> Tensors:
        stream = streamed(recipes[number], seed=number)
        start.wait(60)
        return dict(stream)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(read, range(2)))
    finally:
        sys.setswitchinterval(switch)
    for one, other in zip(alone, together, strict=True):
        assert [name for name in one if bytes_differ(one[name], other[name])] == []


@pytest.mark.slow
@pytest.mark.parametrize("resident", [False, True])
def test_stages_in_two_threads_do_not_wait_for_each_other_for_ever(resident: bool, families: Any) -> None:
    """One reads a stage, which mergekit computes, out of residents; the other computes by mergekit out of the same."""
    models = families("llama")
    della = recipe_for("della", models)
    stage = "name: stage\n" + yaml.safe_dump(recipe_for("slerp", models)) + "---\n" + yaml.safe_dump(
        {"merge_method": "linear", "dtype": "bfloat16", "models": [
            {"model": model, "parameters": {"weight": 0.5}} for model in ("stage", str(models["base"]))]})  # fmt: skip
    wanted = [dict(streamed(recipe)) for recipe in (della, stage)]
    for _ in range(3):
        residents = Residents("memory") if resident else None
        found: list[Tensors] = [{}, {}]

        def read(number: int, found: Any = found, residents: Any = residents) -> None:
            found[number] = dict(streamed((della, stage)[number], residents=residents))

        threads = [threading.Thread(target=read, args=(number,), daemon=True) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert not any(thread.is_alive() for thread in threads), "they wait for each other"
        for one, other in zip(wanted, found, strict=True):
            assert [name for name in one if bytes_differ(one[name], other[name])] == []


def test_an_unknown_generator_is_refused(families: Any) -> None:
    with pytest.raises(RecipeError, match="rng=dice"):
        streamed(recipe_for("linear", families("llama")), rng="dice")


@pytest.mark.parametrize("method", ["ties", "slerp"])
def test_nan_in_a_source_is_named(method: str, tmp_path: Path) -> None:
    """Also where pruning would have dropped it, and where mergekit computes."""
    from safetensors.torch import save_file

    models = build_family(tmp_path, dtype="bfloat16", **SMALL)
    file = models["instruct"] / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.3.mlp.up_proj.weight"][5, 6] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"instruct.*model\.layers\.3\.mlp\.up_proj\.weight"):
        dict(streamed(recipe_for(method, models)))
