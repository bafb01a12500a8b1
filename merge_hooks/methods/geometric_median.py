"""The geometric median as a mergekit method: `merge_method: geometric_median`.

    merge_method: geometric_median
    models:
      - {model: EU, parameters: {weight: 1.0}}
      - {model: GL, parameters: {weight: 1.0}}
      - {model: CA, parameters: {weight: 1.0}}

Tensor by tensor the point whose weighted sum of distances to the models is least: one model far from all others pulls on
it with its direction, not with its distance. Of two models it is the heavier one, and between equal ones any point is a
median: the mean is taken. The first use on models that we know is Pillutla et al. 2022, "Robust Aggregation for Federated
Learning" (arXiv 1912.13445).

The median lies among the models, y = sum_i a_i x_i with a_i >= 0, sum_i a_i = 1, so Weiszfeld's iteration needs their
distances to each other only. They come from one pass in float64; the iteration then runs on n numbers. Where it meets a
model, it stops there or leaves it as Vardi & Zhang 2000 (PNAS 97, 1423) say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from mergekit.merge_methods.base import PerInput, TensorGroup
from mergekit.merge_methods.easy_define import merge_method

from merge_hooks.errors import RecipeError

BLOCK = 1 << 22  # elements that are widened to float64 at a time
STEPS = 1000
ENOUGH = 1e-10  # of the coefficients: less than float32 can tell
# Coefficients are rounded to this, so that the last bits of a sum over threads change no weight.
GRID = 2.0**-24


@merge_method(name="geometric_median", pretty_name="Geometric median", reference_url="https://arxiv.org/abs/1912.13445")
def geometric_median_merge(group: TensorGroup, *, weight: PerInput[float] = 1.0) -> torch.Tensor:
    """One merged tensor, in the dtype of the inputs; summed in float32 (float64 for float64 inputs).

    Args:
        weight: of each model, above 0; only their ratios count.
    Raises:
        RecipeError: a weight that cannot be used.
    """
    weights = weight.values_for(group.entries)
    if not all(0 < one < math.inf for one in weights):
        said = ", ".join(f"{one:g}" for one in weights)
        raise RecipeError(f"`geometric_median`: the weights {said} cannot be used. Each is above 0.")
    tensors = [entry.tensor for entry in group.entries]
    first = tensors[0]
    shares = coefficients(products(tensors), weights)
    dtype = torch.promote_types(first.dtype, torch.float32)
    result = torch.zeros_like(first, dtype=dtype)
    for share, tensor in zip(shares, tensors, strict=True):
        result += share * tensor.to(dtype)
    return result.to(first.dtype)


def products(tensors: Sequence[torch.Tensor]) -> np.ndarray:
    """The scalar products of x_i - x_1 with each other, (n, n), float64."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    total = torch.zeros((len(flat), len(flat)), dtype=torch.float64)
    for start in range(0, flat[0].numel(), BLOCK):
        block = torch.stack([one[start : start + BLOCK].double() for one in flat])
        block -= block[0].clone()
        total += (block @ block.T).cpu()
    return total.numpy()


def coefficients(gram: np.ndarray, weights: Sequence[float]) -> list[float]:
    """The a_i of the median, from the scalar products of the points about any origin.

    NaN where a point has one, so that it is seen.
    """
    if not np.isfinite(gram).all():
        return [float("nan")] * len(weights)
    pull = np.asarray(weights, dtype=np.float64) / math.fsum(weights)
    found = pull.copy()
    for _ in range(STEPS):
        step = _step(gram, pull, found)
        done = float(np.abs(step - found).max()) < ENOUGH
        found = step
        if done:
            break
    rounded = np.round(found / GRID) * GRID
    rounded[int(np.argmax(rounded))] += 1.0 - rounded.sum()
    return [float(one) for one in rounded]


def _step(gram: np.ndarray, pull: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Weiszfeld's step; at a point of the data that of Vardi & Zhang, which stays there if it is the median."""
    distances = _distances(gram, at)
    scale = float(np.sqrt(np.max(np.diag(gram)) + np.max(np.abs(gram)))) or 1.0
    apart = distances > 1e-12 * scale
    if not apart.any():  # all points are one
        return at
    inverse = np.where(apart, pull / np.where(apart, distances, 1.0), 0.0)
    weiszfeld = inverse / inverse.sum()
    if apart.all():
        return weiszfeld
    # How hard the other points pull away from here, against the weight of what lies here.
    away = inverse - inverse.sum() * at
    strength = math.sqrt(max(0.0, float(away @ gram @ away)))
    stay = min(1.0, float(pull[~apart].sum()) / strength) if strength else 1.0
    return (1.0 - stay) * weiszfeld + stay * at


def _distances(gram: np.ndarray, at: np.ndarray) -> np.ndarray:
    """From the point with these coefficients to each of the data."""
    squares = at @ gram @ at - 2 * (gram @ at) + np.diag(gram)
    return np.sqrt(np.maximum(squares, 0.0))


METHODS = {"geometric_median": geometric_median_merge}
