"""One vLLM engine whose weights are spoilt one after the other: `python vllm_sabotage.py FOLDER KIND`.

Prints one JSON object: "what was done to which tensor" -> the tensors that the proof names.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tests.lm_eval_iberian.vllm_swaps import engine, make, recipe

# How a row-block of a linear layer's answers is spoilt: (right, stale, another layer's) -> wrong.
WAYS: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "dropped": lambda right, stale, other: torch.zeros_like(right),
    "stale": lambda right, stale, other: stale,
    "swapped": lambda right, stale, other: other,
    "scaled": lambda right, stale, other: right * 1.0001,
}


def linear_layers(model: Any) -> dict[str, Any]:
    """The layers whose weights the CPU build packs, by name."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "cpu_linear")}


def parts(model: Any) -> Iterator[tuple[str, str, slice]]:
    """(tensor of the merge, layer, rows) of each kind of matrix, of the last layer and outside of layers."""
    for name, module in linear_layers(model).items():
        if name == "model.embed_tokens" or ".0." in name:
            continue  # never used as a head here; the first layer stands in for another one
        place, _, layer = name.rpartition(".")
        fused = model.packed_modules_mapping.get(layer)
        if not fused:
            yield f"{name}.weight", name, slice(None)
            continue
        sizes = list(module.output_sizes)
        for index, part in enumerate(fused):
            yield f"{place}.{part}.weight", name, slice(sum(sizes[:index]), sum(sizes[: index + 1]))


@contextmanager
def spoilt(module: Any, rows: slice, way: str, stale: Any, other: Any) -> Iterator[None]:
    """While this lasts the layer answers wrongly in these rows."""
    right, spoil = module.cpu_linear, WAYS[way]

    def answer(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        found = right(x, weight, bias).clone()
        found[..., rows] = spoil(found, stale(x, weight, bias), other(x, weight, bias))[..., rows]
        return found

    module.cpu_linear = answer
    try:
        yield
    finally:
        module.cpu_linear = right


@contextmanager
def changed(parameter: torch.Tensor, change: Callable[[torch.Tensor], object]) -> Iterator[None]:
    """While this lasts the parameter has other values."""
    before = parameter.detach().clone()
    with torch.no_grad():
        change(parameter)
        assert not torch.equal(before, parameter)
    try:
        yield
    finally:
        with torch.no_grad():
            parameter.copy_(before)


def sabotage(folder: Path) -> dict[str, list[str]]:
    """See the module."""
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve

    merged = engine(folder)
    llm = merged.model
    (model,) = llm.apply_model(lambda model: model)
    stale = {name: module.cpu_linear for name, module in linear_layers(model).items()}
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.numel()}
    merged.swap(resolve(read_recipe(recipe(folder, 0.9))))

    def named() -> list[str]:
        (answer,) = llm.collective_rpc("merge_prove", args=(True,))
        return [line.partition(" (")[2].partition(")")[0] for line in answer["wrong"]]

    found = {"nothing": named()}
    layers = linear_layers(model)
    for tensor, name, rows in parts(model):
        other = layers.get(name.replace(".1.", ".0."), layers[name])
        for way in WAYS:
            if way == "swapped" and other is layers[name]:
                continue
            with spoilt(layers[name], rows, way, stale[name], other.cpu_linear):
                found[f"{tensor} {way}"] = named()
    for name, parameter in model.named_parameters():
        # What a head was packed from lies in memory, too, and nobody computes with it.
        if parameter.numel() and ".0." not in name and name != "lm_head.weight":
            last = (-50, slice(None)) if parameter.ndim > 1 else -1
            with changed(parameter, lambda p, name=name, last=last: p[last].copy_(values[name][last])):
                found[f"{name} stale"] = named()
            with changed(parameter, lambda p, last=last: p[last].mul_(1.0001)):
                found[f"{name} scaled"] = named()
    return found


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    place = Path(sys.argv[1]) / sys.argv[2]
    if not (place / "a").exists():
        make(sys.argv[2], place)
    print(json.dumps(sabotage(place)))
