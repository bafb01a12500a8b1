"""Fisher-weighted averaging as a mergekit method: `merge_method: fisher`.

    merge_method: fisher
    models:
      - {model: basque, parameters: {weight: 1.0, fisher: basque.fisher.safetensors}}
      - {model: instruct, parameters: {weight: 1.0, fisher: instruct.fisher.safetensors}}
    parameters: {epsilon: 1.0e-8, missing: error}

Matena & Raffel 2022, "Merging Models with Fisher-Weighted Averaging" (arXiv 2111.09832), equation 3: elementwise

    theta = sum_i w_i F_i theta_i / sum_i w_i F_i

Imported by `merge_hooks.methods.register` only, as it imports mergekit and torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from mergekit.merge_methods.base import PerInput, TensorGroup
from mergekit.merge_methods.easy_define import merge_method

from merge_hooks.errors import FisherError, RecipeError
from merge_hooks.sources.fisher_file import FisherMap

MISSING = ("error", "mean")
LEAST_EPSILON = 1e-20


@merge_method(name="fisher", pretty_name="Fisher-weighted averaging", reference_url="https://arxiv.org/abs/2111.09832")
def fisher_merge(
    group: TensorGroup,
    *,
    fisher: PerInput[str],
    weight: PerInput[float] = 1.0,
    epsilon: float = 1e-8,
    missing: str = "error",
) -> torch.Tensor:
    """One merged tensor, in the dtype of the inputs; computed in float32 (float64 for float64 inputs).

    Args:
        fisher: of each model, the path of its map.
        weight: of each model, at least 0; only their ratios count.
        epsilon, missing: see `fisher_average` and MISSING, which says what happens to a tensor that some map lacks.
    Raises:
        RecipeError, FisherError.
    """
    _check(weight.values_for(group.entries), epsilon, missing)
    tensors = [entry.tensor for entry in group.entries]
    maps = _read_maps(group, fisher.values_for(group.entries), missing)
    if maps is None:  # a plain weighted mean: equal maps
        maps = [torch.ones_like(tensors[0], dtype=torch.float32)] * len(tensors)
    return fisher_average(tensors, maps, weight.values_for(group.entries), epsilon)


def fisher_average(
    tensors: Sequence[torch.Tensor], maps: Sequence[torch.Tensor], weights: Sequence[float], epsilon: float = 1e-8
) -> torch.Tensor:
    """sum_i w_i F_i theta_i / sum_i w_i F_i, every F_i raised to a floor: epsilon times the largest entry of all maps.

    The floor is relative, since squared gradients have no scale of their own: they grow with the length of the texts.
    It is taken over this tensor in all maps together, so an element for which no model cares becomes the weighted mean.
    It comes from the maximum and not from the mean, because a maximum does not depend on the order of a sum, and so not
    on the number of threads.

    Args:
        tensors: one for each source, of one shape and float dtype.
        maps: F_i, one for each source, of that shape, float32, none negative.
        weights: w_i, at least 0, not all 0.
        epsilon: from 1e-20 to 1; at 1 the result is the weighted mean.
    """
    first = tensors[0]
    if not first.numel():
        return first.clone()
    dtype = torch.promote_types(first.dtype, torch.float32)
    maps = [values.to(first.device) for values in maps]
    largest = max(float(values.max()) for values in maps)
    # A power of two, so exact: keeps products with small weights away from the end of float32's range.
    scale = 2.0 ** -min(max(math.frexp(largest)[1], -120), 120)
    floor = epsilon * largest * scale if largest else 1.0
    whole = math.fsum(weights)

    def share(index: int) -> torch.Tensor:
        return maps[index].to(dtype).mul(scale).clamp_(min=floor).mul_(weights[index] / whole)

    total = torch.zeros_like(first, dtype=dtype)
    for index in range(len(tensors)):
        total += share(index)
    # Shares are divided before they meet the weights: equal maps of two sources give exactly 1/2.
    result = torch.zeros_like(total)
    for index, tensor in enumerate(tensors):
        result += share(index).div_(total).mul_(tensor.to(dtype))
    return result.to(first.dtype)


def _check(weights: Sequence[float], epsilon: float, missing: str) -> None:
    if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise RecipeError(
            f"`fisher`: the weights {', '.join(f'{weight:g}' for weight in weights)} cannot be used. Each is at least 0, "
            "and one of them more."
        )
    if not LEAST_EPSILON <= epsilon <= 1:
        raise RecipeError(f"`fisher`: `epsilon: {epsilon:g}` is not from {LEAST_EPSILON:g} to 1. The default is 1e-8.")
    if missing not in MISSING:
        raise RecipeError(f"`fisher`: `missing: {missing}` is unknown. Give one of: {', '.join(MISSING)}.")


def _read_maps(group: TensorGroup, paths: Sequence[str], missing: str) -> list[torch.Tensor] | None:
    """The maps of one tensor; None if one of them lacks it and the recipe asks for the mean in that case."""
    name = str(group.metadata.name)
    maps = [FisherMap.open(Path(path).expanduser()) for path in paths]
    lacking = [found for found in maps if found.entry(name) is None]
    if lacking and missing == "error":
        raise FisherError(
            f"{lacking[0].path}: this Fisher map of {lacking[0].facts.model} has no entry for {name}. Make it from the "
            "model that it stands beside, or write `missing: mean` under `parameters:` for a plain mean there."
        )
    if lacking:
        return None
    return [found.read(name, entry.tensor) for found, entry in zip(maps, group.entries, strict=True)]


METHODS = {"fisher": fisher_merge}
