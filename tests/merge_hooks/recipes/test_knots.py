"""KnOTS against the paper's formulas in numpy, its two ways to the basis against each other, and whole models.

numpy's SVD has its own signs of U and V, so only merged weights are compared.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from mergekit.merge_methods import TensorGroup

from lm_eval_iberian.toy.tiny import build_family
from merge_hooks.errors import SourceError
from merge_hooks.kernels import choose
from merge_hooks.methods.knots import METHODS
from merge_hooks.methods.knots_basis import tie_factors, tie_updates
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.resolve.resolver import resolve
from merge_hooks.stream.stream import open_stream
from tests.merge_hooks.recipes.conftest import Tensors, assert_same, streamed, tensors_of
from tests.merge_hooks.recipes.test_lora import ALL, make_adapter

ROOT = Path(__file__).resolve().parents[3]
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 16}  # fmt: skip
PAIR = tuple[torch.Tensor, torch.Tensor]


def draw(shape: tuple[int, int], ranks: list[int], seed: int = 0) -> tuple[torch.Tensor, list[PAIR]]:
    """A base weight, and the factors of one update for each rank."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    rows, columns = shape
    return normal(*shape), [(normal(rows, rank), normal(rank, columns)) for rank in ranks]


def merge(base: torch.Tensor, sources: list[torch.Tensor], method: str = "knots_ties", **given: Any) -> torch.Tensor:
    """One weight, by the mergekit method, through mergekit's own front door."""
    parameters = {"weight": 1.0, "density": 1.0, **given}
    group = TensorGroup.from_tensors([base, *sources], base_index=0, name="w")
    return METHODS[method]([group], parameters=parameters)[0]


def in_numpy(
    base: torch.Tensor, sources: list[torch.Tensor], weights: list[float], density: float, scaled: bool, factor: float
) -> np.ndarray[Any, Any]:
    """KnOTS-TIES, written from the two papers: SVD, trim, elect, weighted disjoint mean, back."""
    start = base.double().numpy()
    updates = [source.double().numpy() - start for source in sources]
    left, values, right = np.linalg.svd(np.concatenate(updates, axis=1), full_matrices=False)
    kept = values > 1e-4
    left, values, right = left[:, kept], values[kept], right[kept]
    parts = np.split(right, len(sources), axis=1)
    if scaled:
        parts, values = [values[:, None] * part for part in parts], np.ones_like(values)
    trimmed = []
    for part in parts:
        cut = np.sort(np.abs(part), axis=None)[part.size - int(density * part.size)]
        trimmed.append(np.where(np.abs(part) >= cut, part, 0.0))
    signs = np.sign(sum(weight * part for weight, part in zip(weights, trimmed, strict=True)))
    total, share = np.zeros_like(parts[0]), np.zeros_like(parts[0])
    for weight, part in zip(weights, trimmed, strict=True):
        agrees = np.sign(weight * part) == signs
        total += np.where(agrees, weight * part, 0)
        share += np.where(agrees & (part != 0), weight, 0)
    mean = np.divide(total, share, out=np.zeros_like(total), where=share != 0)
    return start + factor * (left * values) @ mean


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("density", [1.0, 0.5, 0.2])
@pytest.mark.parametrize(("shape", "ranks"), [((20, 24), [3, 4, 2]), ((24, 9), [9, 9]), ((90, 8), [8, 8, 8])])
def test_the_papers_formulas(shape: tuple[int, int], ranks: list[int], density: float, scaled: bool) -> None:
    """Low rank, full rank, and more rows than all columns together."""
    base, factors = draw(shape, ranks)
    sources = [base + left @ right for left, right in factors]
    weights = [1.0, 0.6, 0.3][: len(ranks)]
    ours = merge(base, sources, weight=weights, density=density, scaled=scaled, **{"lambda": 0.8})
    golden = in_numpy(base, sources, weights, density, scaled, 0.8)
    np.testing.assert_allclose(ours.numpy(), golden, atol=2e-5)
    assert np.abs(golden - base.numpy()).max() > 0.1  # it did merge something


def test_scaling_matters_only_below_density_1() -> None:
    base, factors = draw((20, 24), [3, 4])
    sources = [base + left @ right for left, right in factors]
    merged = {(density, scaled): merge(base, sources, density=density, scaled=scaled)
              for density in (1.0, 0.3) for scaled in (True, False)}  # fmt: skip
    torch.testing.assert_close(merged[1.0, True], merged[1.0, False], atol=2e-5, rtol=0)
    assert (merged[0.3, True] - merged[0.3, False]).abs().max() > 0.1


@settings(max_examples=40, deadline=None)
@example(rows=5, columns=1, ranks=[1, 0, 2], seed=0)  # one that did not move: its noise was once counted as a vote
@given(
    st.integers(1, 30), st.integers(1, 30), st.lists(st.integers(0, 4), min_size=1, max_size=5), st.integers(0, 1000)
)
def test_both_ways_to_the_basis_give_one_merge(rows: int, columns: int, ranks: list[int], seed: int) -> None:
    """From the factors, and from the folded weights, whatever the ranks: also 0, also more than fit the shape."""
    base, factors = draw((rows, columns), ranks, seed)
    updates = [left @ right for left, right in factors]
    parameters = {"weight": dict.fromkeys(range(len(ranks)), 0.7), "density": dict.fromkeys(range(len(ranks)), 1.0),
                  "normalize": True, "rescale": False, "int8_mask": False, "lambda": 1.0, "scaled": False}  # fmt: skip
    low, full = (
        METHODS["knots_ties"].merge_tied(base, tied, range(len(ranks)), parameters)
        for tied in (tie_factors(factors), tie_updates(updates))
    )
    # An element whose sum over sources is 0 but for rounding may be elected either way: leave those draws out.
    total = sum(tie_updates(updates).parts)
    assert tie_factors(factors).basis.shape == tie_updates(updates).basis.shape
    assume(not total.numel() or total.abs().min() > 1e-5)
    torch.testing.assert_close(low, full, atol=3e-4, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["knots_ties", "knots_dare_ties"]), st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_one_source_is_that_source(method: str, rows: int, columns: int, seed: int) -> None:
    base, factors = draw((rows, columns), [3], seed)
    source = base + factors[0][0] @ factors[0][1]
    torch.testing.assert_close(merge(base, [source], method), source, atol=2e-5, rtol=1e-5)
    assert torch.equal(merge(base, [base], method), base)
    torch.testing.assert_close(merge(base, [source], method, weight=0.0), base)


@pytest.mark.parametrize("density", [1.0, 0.4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_order_of_the_sources_changes_nothing(density: float, dtype: torch.dtype) -> None:
    base, factors = draw((20, 24), [3, 4, 2])
    sources = [(base + left @ right).to(dtype) for left, right in factors]
    base, weights = base.to(dtype), [1.0, 0.6, 0.3]
    merged = merge(base, sources, weight=weights, density=density)
    turned = merge(base, [sources[2], *sources[:2]], weight=[0.3, 1.0, 0.6], density=density)
    assert merged.dtype == dtype
    torch.testing.assert_close(merged, turned, atol=2e-5 if dtype == torch.float32 else 0.02, rtol=1e-2)


def test_orthogonal_updates_in_shared_directions_do_not_disturb_each_other() -> None:
    """What KnOTS is for: one direction of the output, moved by different inputs, is one row of every V."""
    direction = torch.tensor([[3.0], [4.0], [0.0]])
    sources = [direction @ torch.tensor([[1.0, 0, 0, 0]]), direction @ torch.tensor([[0, -2.0, 0, 0]])]
    tied = tie_updates(sources)
    torch.testing.assert_close(tied.basis.abs(), direction.double() / 5)
    torch.testing.assert_close(merge(torch.zeros(3, 4), sources), sources[0] + sources[1])


@pytest.mark.parametrize("shape", [(4, 6), (9, 2)], ids=["few rows", "few columns"])
def test_directions_are_dropped_by_their_singular_values(shape: tuple[int, int]) -> None:
    """Not by their squares, which are the eigenvalues of the Gram matrix."""
    update = torch.zeros(shape)
    update[0, 0], update[1, 1] = 0.2, 0.05
    assert tie_updates([update], smallest=0.1).values.tolist() == pytest.approx([0.2])
    assert tie_updates([update], smallest=0.3).values.tolist() == []


def test_vectors_are_merged_as_ties_merges_them() -> None:
    from mergekit import merge_methods

    group = TensorGroup.from_tensors(list(torch.randn(3, 50)), base_index=0)
    parameters = {"weight": [1.0, 0.5], "density": 0.3, "lambda": 0.7}
    ours, theirs = (
        method([group], parameters=parameters)[0] for method in (METHODS["knots_ties"], merge_methods.get("ties"))
    )
    assert torch.equal(ours, theirs)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A float32 base, and three adapters on it: different ranks, scalings and modules, embeddings too."""
    folder = tmp_path_factory.mktemp("knots")
    base = build_family(folder, "llama", **SMALL)["base"]
    kinds: list[dict[str, Any]] = [
        {"r": 4, "lora_alpha": 8, "target_modules": ALL},
        {"r": 3, "lora_alpha": 6, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]},
        {"r": 2, "lora_alpha": 2, "target_modules": ["q_proj", "up_proj", "embed_tokens"]},
    ]
    return base, [
        make_adapter(str(base), folder / f"adapter-{place}", place, **kind) for place, kind in enumerate(kinds)
    ]


def recipe_of(adapters: tuple[Path, list[Path]], method: str = "knots_ties", **parameters: Any) -> dict[str, Any]:
    base, folders = adapters
    models = [
        {"model": f"{base}+{folder}", "parameters": {"weight": weight, "density": parameters.get("density", 0.5)}}
        for folder, weight in zip(folders, (1.0, 0.7, 0.5), strict=True)
    ]
    return {"merge_method": method, "base_model": str(base), "models": models, "dtype": "float32"}


@pytest.mark.parametrize("method", ["knots_ties", "knots_dare_ties"])
@pytest.mark.parametrize("density", [1.0, 0.5])
def test_adapters_from_factors_as_from_folded_weights(
    method: str, density: float, adapters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole model. The same masks: the factors' ranks are those that the folded float32 weights show."""
    recipe = recipe_of(adapters, method, density=density)
    ways: list[choose.Way] = []
    way_of = choose.way_of
    monkeypatch.setattr(choose, "way_of", lambda operands: ways.append(way_of(operands)) or ways[-1])
    ours = streamed(recipe)
    assert ways == [choose.Way.FACTORS if tensor.ndim == 2 else choose.Way.MERGEKIT for tensor in ours.values()]
    monkeypatch.setattr(choose, "way_of", lambda operands: choose.Way.MERGEKIT)
    full = streamed(recipe)
    _assert_close(ours, full)
    base = tensors_of(adapters[0])
    assert torch.equal(ours["lm_head.weight"], base["lm_head.weight"])  # no adapter touches it
    moved = {name for name in ours if not torch.equal(ours[name], base[name])}
    assert "model.embed_tokens.weight" in moved and "model.layers.1.mlp.gate_proj.weight" in moved


def _assert_close(ours: Tensors, theirs: Tensors) -> None:
    """Within float32's tolerance, but for elements of V that trimming or the election decides by its last bit."""
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=2e-5, rtol=1e-4, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_model_and_an_adapter_together_go_through_mergekit(
    scaled: bool, adapters: Any, mergekit: Callable[..., Path]
) -> None:
    """Bit for bit, as folded models; random masks of whole models: tests/merge_hooks/test_all_methods.py."""
    base, folders = adapters
    models = [f"{base}+{folders[0]}", str(base.parent / "basque")]
    recipe = {
        "merge_method": "knots_ties",
        "base_model": str(base),
        "models": [{"model": model, "parameters": {"weight": 0.6, "density": 0.6}} for model in models],
        "parameters": {"scaled": scaled},
        "dtype": "float32",
    }
    assert_same(streamed(recipe), tensors_of(mergekit(recipe)))


def test_one_adapter_is_that_adapter(adapters: Any) -> None:
    base, folders = adapters
    single = recipe_of((base, folders), density=1.0)
    single["models"] = single["models"][:1]
    alone = {"merge_method": "linear", "models": [{"model": f"{base}+{folders[0]}", "parameters": {"weight": 1.0}}],
             "dtype": "float32"}  # fmt: skip
    _assert_close(streamed(single), streamed(alone))


def test_dora_has_no_factors(tmp_path: Path, adapters: Any) -> None:
    base, folders = adapters
    dora = make_adapter(str(base), tmp_path / "dora", 9, r=2, lora_alpha=4, use_dora=True, target_modules=["q_proj"])
    recipe = recipe_of((base, [dora, *folders[:2]]))
    resolved = resolve(read_recipe(recipe))
    source = resolved.sources[f"{base}+{dora}"]
    name = "model.layers.0.self_attn.q_proj.weight"
    assert source.low_rank_update(name, resolved.sources[str(base)]) is None
    assert source.low_rank_update(name, resolved.sources[f"{base}+{folders[0]}"]) is None  # another base
    assert torch.isfinite(dict(open_stream(resolved))[name]).all()


def test_nan_in_an_adapter_is_named(tmp_path: Path, adapters: Any) -> None:
    from safetensors.torch import load_file, save_file

    base, folders = adapters
    broken = make_adapter(str(base), tmp_path / "broken", 9, r=2, lora_alpha=4, target_modules=["q_proj"])
    file = broken / "adapter_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, file)
    for method in METHODS:
        with pytest.raises(SourceError, match="broken"):
            streamed(recipe_of((base, [broken, *folders[:2]]), method))


@pytest.mark.parametrize("method", ["knots_ties", "knots_dare_ties"])
def test_nan_in_a_model_is_named(method: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    models = build_family(tmp_path, **SMALL)
    file = models["basque"] / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][5, 6] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    recipe = {"merge_method": method, "base_model": str(models["base"]), "dtype": "float32",
              "models": [{"model": str(models[name]), "parameters": {"weight": 1.0, "density": 0.5}}
                         for name in ("instruct", "basque")]}  # fmt: skip
    with pytest.raises(SourceError, match=r"basque.*model\.layers\.1\.mlp\.up_proj\.weight"):
        streamed(recipe)


def _mergekit_yaml(recipe: dict[str, Any], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "recipe.yml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    command = [str(Path(sys.executable).parent / "mergekit-yaml"), "recipe.yml", "merged", "--quiet", "--lora-merge-cache", "folded"]  # fmt: skip
    # In a checkout that is not installed the watch is started by hand, as the .pth file starts it.
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"} | environment
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_mergekit_yaml_knows_the_methods(tmp_path: Path, adapters: Any) -> None:
    """The real command, a process of its own, that no one told of this package."""
    recipe = recipe_of(adapters)
    done = _mergekit_yaml(recipe, tmp_path)
    assert done.returncode == 0, done.stderr
    _assert_close(streamed(recipe), tensors_of(tmp_path / "merged"))
    assert "KnOTS-TIES" in (tmp_path / "merged" / "README.md").read_text()
    off = _mergekit_yaml(recipe, tmp_path, IBERIAN_AUTOLOAD="0")
    assert off.returncode != 0 and "Unimplemented merge method knots_ties" in off.stderr


@pytest.mark.slow
def test_a_changed_mergekit_goes_on_with_one_warning(tmp_path: Path) -> None:
    package = tmp_path / "mergekit"
    (package / "merge_methods").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "merge_methods" / "__init__.py").write_text("")
    code = "import lm_eval_iberian.autoload, mergekit.merge_methods; print('still here')"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], env=os.environ | {"PYTHONPATH": path},
                          capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0 and done.stdout == "still here\n", done.stderr
    assert done.stderr.count("could not register its merge methods with mergekit") == 1
    assert "IBERIAN_AUTOLOAD=0" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    ["lm_eval_iberian.autoload, merge_hooks.stream.stream", "lm_eval_iberian.autoload"],
)
def test_registered_whatever_is_imported_first(imports: str) -> None:
    """Also where our module is what loads mergekit, whose watch then meets a half imported module."""
    code = (
        f"import {imports}; from mergekit.merge_methods import registered_methods; "
        "print(sorted(method.spec.name for method in registered_methods() if 'knots' in method.spec.name))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "IBERIAN_AUTOLOAD": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120,
                          check=False)  # fmt: skip
    assert (done.stdout, done.returncode) == ("['knots_dare_ties', 'knots_ties']\n", 0), done.stderr
    assert "could not register" not in done.stderr
