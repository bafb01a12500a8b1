"""Consensus merging, the geometric median, isotropic merging and layer swapping, each against a reference that shares no code with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.merge_methods import TensorGroup
from scipy.optimize import minimize

from lm_eval_iberian.toy.tiny import build_family
from merge_hooks.errors import RecipeError
from merge_hooks.methods import consensus, geometric_median, isotropic
from merge_hooks.recipe.presets import fill
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.resolve.resolver import resolve
from merge_hooks.stream.stream import open_stream


def tensors(count: int, shape: tuple[int, ...] = (6, 5), seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for _ in range(count)]


def merged(method: Any, found: list[torch.Tensor], base: int | None = None, **parameters: Any) -> torch.Tensor:
    """By the mergekit method, through mergekit's own front door."""
    return method([TensorGroup.from_tensors(found, base_index=base, name="w")], parameters=parameters)[0]


# Consensus


def ties_by_hand(updates: np.ndarray, weights: list[float], density: float) -> np.ndarray:
    """TIES of the paper, element by element: trim by magnitude, elect a sign, weighted mean of those that agree."""
    trimmed = []
    for update in updates:
        kept = int(density * update.size)
        order = np.argsort(-np.abs(update.ravel()), kind="stable")[:kept]
        mask = np.zeros(update.size, bool)
        mask[order] = True
        trimmed.append(update.ravel() * mask)
    out = np.zeros(updates[0].size)
    for place in range(out.size):
        values = [(weight * one[place], weight) for weight, one in zip(weights, trimmed, strict=True)]
        sign = np.sign(sum(value for value, _ in values)) or 1.0
        agreeing = [(value, weight) for value, weight in values if value * sign > 0]
        if agreeing:
            out[place] = sum(value for value, _ in agreeing) / sum(weight for _, weight in agreeing)
    return out.reshape(updates[0].shape)


def by_hand(
    base: np.ndarray, models: np.ndarray, merged_update: np.ndarray, mask_lambda: float, agree: int
) -> np.ndarray:
    """The paper's equations 4 and 6 with loops."""
    out = base.copy()
    for place in np.ndindex(base.shape):
        needing = 0
        for model in models:
            own = model[place] - base[place]
            needing += abs(own) >= mask_lambda * abs(merged_update[place] - own)
        if needing >= agree:
            out[place] += merged_update[place]
    return out


@pytest.mark.parametrize(("mask_lambda", "agree"), [(0.4, 2), (0.4, 3), (0.2, 1), (1.5, 2), (0.4, 0)])
def test_consensus_ties_is_the_papers(mask_lambda: float, agree: int) -> None:
    base, *models = tensors(4)
    weights = [1.0, 0.5, 0.8]
    found = merged(
        consensus.METHODS["consensus_ties"], [base, *models], 0, mask_lambda=mask_lambda, agree=agree,
        density=0.6, weight=weights,
    )  # fmt: skip
    arrays = np.stack([model.double().numpy() for model in models])
    update = ties_by_hand(arrays - base.double().numpy(), weights, 0.6)
    expected = by_hand(base.double().numpy(), arrays, update, mask_lambda, agree)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    if agree == 3:
        assert (found == base).any() and not (found == base).all(), "some weights go back to the base"


def test_consensus_over_task_arithmetic_is_its_sum_under_the_mask() -> None:
    base, *models = tensors(4, seed=1)
    found = merged(consensus.METHODS["consensus_ta"], [base, *models], 0, weight=[1.0, 0.5, 0.8], **{"lambda": 0.7})
    arrays = np.stack([model.double().numpy() for model in models])
    update = np.tensordot([1.0, 0.5, 0.8], arrays - base.double().numpy(), 1)
    expected = by_hand(base.double().numpy(), arrays, update, 0.4, 2)
    np.testing.assert_allclose(found.numpy(), base.numpy() + 0.7 * (expected - base.double().numpy()), atol=1e-5)


def test_consensus_refuses_what_no_merge_can_be() -> None:
    base, *models = tensors(3)
    for wrong, words in (({"agree": 3}, "of 2 models"), ({"mask_lambda": -1.0}, "below 0")):
        with pytest.raises(RecipeError, match=words):
            merged(consensus.METHODS["consensus_ties"], [base, *models], 0, weight=1.0, **wrong)


# The geometric median


def distance_sum(at: np.ndarray, points: np.ndarray, weights: list[float]) -> float:
    return float(sum(w * np.linalg.norm(at - point) for w, point in zip(weights, points, strict=True)))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(0, 1000), st.lists(st.floats(0.1, 3.0), min_size=6, max_size=6))
def test_no_point_is_nearer_to_all(count: int, seed: int, weights: list[float]) -> None:
    """scipy finds none from the median, nor from the mean."""
    points = np.stack([one.double().numpy().ravel() for one in tensors(count, (3, 2), seed)])
    shares = geometric_median.coefficients(points @ points.T, weights[:count])
    assert sum(shares) == pytest.approx(1.0, abs=1e-12) and min(shares) > -1e-6
    mine = distance_sum(np.asarray(shares) @ points, points, weights[:count])
    for start in (np.asarray(shares) @ points + 1e-3, points.mean(0)):
        theirs = minimize(distance_sum, start, (points, weights[:count]), "Nelder-Mead", options={"maxiter": 4000})
        assert mine <= theirs.fun + 1e-5


def test_one_model_far_away_pulls_no_harder() -> None:
    found = tensors(3, seed=3)
    far = [*found, found[0] + 10.0]
    farther = [*found, found[0] + 1000.0]
    method = geometric_median.METHODS["geometric_median"]
    assert torch.allclose(merged(method, far), merged(method, farther), atol=0.2)
    assert (sum(farther) / 4 - merged(method, farther)).abs().max() > 100, "the mean follows it"


def test_medians_that_are_known() -> None:
    """On a line the middle one; of two the heavier; equal models themselves; NaN is seen."""
    method = geometric_median.METHODS["geometric_median"]
    (first, second) = tensors(2, seed=4)
    line = [first, first + 1 * (second - first), first + 9 * (second - first)]
    assert torch.allclose(merged(method, line), line[1], atol=1e-3)
    assert torch.allclose(merged(method, [first, second], weight=[1.0, 3.0]), second, atol=1e-3)
    assert torch.allclose(merged(method, [first, second]), (first + second) / 2, atol=1e-5)
    torch.testing.assert_close(merged(method, [first, first.clone(), first.clone()]), first)
    assert merged(method, [first, torch.full_like(first, float("nan"))]).isnan().all()
    with pytest.raises(RecipeError, match="above 0"):
        merged(method, [first, second], weight=[1.0, 0.0])


def test_the_products_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tensors(3, (7, 11))
    whole = geometric_median.products(found)
    flat = np.stack([(one - found[0]).double().numpy().ravel() for one in found])
    np.testing.assert_allclose(whole, flat @ flat.T, atol=1e-5)
    monkeypatch.setattr(geometric_median, "BLOCK", 10)
    np.testing.assert_allclose(geometric_median.products(found), whole, rtol=1e-12)


@pytest.mark.parametrize("method", ["consensus_ties", "consensus_ta", "geometric_median", "iso_c"])
def test_whole_models(method: str, llama: dict[str, Path]) -> None:
    """The stream gives what the method gives for each tensor, and stamps no seed: nothing is drawn."""
    models: list[dict[str, Any]] = [
        {"model": str(llama[name]), "parameters": {"weight": 1.0}} for name in ("basque", "instruct")
    ]
    recipe: dict[str, Any] = {"merge_method": method, "models": models, "dtype": "float32"}
    if method != "geometric_median":
        recipe["base_model"] = str(llama["base"])
    stream = open_stream(resolve(read_recipe(recipe)))
    assert stream.resolved.draws == "none"
    name, tensor = next((name, tensor) for name, tensor in stream if name.endswith("q_proj.weight"))
    read = {kind: stream.resolved.sources[str(llama[kind])].read(name) for kind in llama if kind != "base"}
    expected = (read["basque"] + read["instruct"]) / 2
    if method != "geometric_median":
        base = stream.resolved.sources[str(llama["base"])].read(name)
        expected = merged(
            (consensus.METHODS | isotropic.METHODS)[method], [base, read["basque"], read["instruct"]], 0, weight=1.0
        )
    assert torch.allclose(tensor, expected, atol=1e-6)


# Isotropic merging


def iso_by_hand(base: np.ndarray, models: list[np.ndarray], weights: list[float], scale: float) -> np.ndarray:
    """The paper's equations in float64, by LAPACK's SVD."""
    update = sum(weight * (model - base) for weight, model in zip(weights, models, strict=True))
    left, values, right = np.linalg.svd(update, full_matrices=False)
    found: np.ndarray = base + scale * (values.mean() * left @ right)
    return found


@pytest.mark.parametrize("shape", [(6, 6), (5, 12), (12, 5)])
def test_iso_c_is_the_papers(shape: tuple[int, int]) -> None:
    base, *models = tensors(4, shape, seed=5)
    weights = [1.0, 0.5, -0.8]
    found = merged(isotropic.METHODS["iso_c"], [base, *models], 0, weight=weights, **{"lambda": 0.7})
    expected = iso_by_hand(base.double().numpy(), [one.double().numpy() for one in models], weights, 0.7)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    lengths = torch.linalg.svdvals(found - base)
    assert lengths.max() / lengths.min() < 1.0001, "every direction is as long"


def test_iso_c_of_a_low_rank_leaves_the_other_directions_alone() -> None:
    """Two updates of rank 1, as of adapters: two directions of the same length, nothing else."""
    base, *_ = tensors(1, (8, 6))
    columns = [torch.outer(one, other) for one, other in zip(tensors(2, (8,), 1), tensors(2, (6,), 2), strict=True)]
    found = merged(isotropic.METHODS["iso_c"], [base, *(base + one for one in columns)], 0)
    values = np.linalg.svd(sum(one.double().numpy() for one in columns), compute_uv=False)
    lengths = torch.linalg.svdvals(found - base).numpy()
    np.testing.assert_allclose(lengths[:2], values[:2].mean(), rtol=1e-4)
    assert lengths[2:].max() < 1e-5


def test_iso_c_of_what_is_no_matrix_and_of_what_did_not_move() -> None:
    method = isotropic.METHODS["iso_c"]
    base, first, second = tensors(3, (7,))
    found = merged(method, [base, first, second], 0, weight=[1.0, 3.0], **{"lambda": 0.5})
    torch.testing.assert_close(found, base + 0.5 * ((first - base) + 3 * (second - base)) / 4)
    with pytest.raises(RecipeError, match="add up to 0"):
        merged(method, [base, first, second], 0, weight=[1.0, -1.0])
    (matrix,) = tensors(1)
    assert torch.equal(merged(method, [matrix, matrix.clone(), matrix.clone()], 0), matrix)
    assert merged(method, [matrix, torch.full_like(matrix, float("nan")), matrix], 0).isnan().all()


# Layer swapping


def test_layers_are_swapped_with_transitions(tmp_path: Path) -> None:
    """Tensor by tensor: whose each layer is, and that the embeddings go with the first layers."""
    llama = build_family(tmp_path, num_hidden_layers=5)
    places = {"bottom": 1, "middle": 2, "middle_end": 3, "top": 4, "layers": 5}
    models = {"instruct": str(llama["instruct"]), "language": str(llama["basque"])}
    stream = open_stream(resolve(fill("layer_swapping/layers", {**models, **places}, "float32")))
    language, instruct = (stream.resolved.sources[str(llama[name])] for name in ("basque", "instruct"))
    shares = {0: 1.0, 1: 0.5, 2: 0.0, 3: 0.5, 4: 1.0}
    seen = set()
    for name, tensor in stream:
        layer = int(name.split(".")[2]) if ".layers." in name else 4 if "norm" in name or "lm_head" in name else 0
        share = shares[layer]
        expected = share * language.read(name).float() + (1 - share) * instruct.read(name).float()
        assert torch.equal(tensor, expected.to(tensor.dtype)), name
        seen.add(layer)
    assert seen == set(shares)
