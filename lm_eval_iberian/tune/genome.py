"""A genome of mergekit-evolve as axes and a recipe with `$names`, where mergekit-evolve puts numbers.

    search, begin = axes_of(genome)     # weight_Latxa_Llama_3_1_8B_self_attn_layers_0_7: {low: 0, high: 1}
    recipe_of(genome)

Made as mergekit 0.1.5 makes them (mergekit/evo/genome.py), so that equal numbers give equal merges.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# What mergekit-evolve searches for each model.
SEARCHED = {
    "linear": ("weight",), "task_arithmetic": ("weight",), "ties": ("weight", "density"), "dare_ties": ("weight", "density"),
    "slerp": ("t",),
}  # fmt: skip


@dataclass(frozen=True)
class Genome:
    """The checked `genome:`.

    Args:
        models: those that have parameters; for methods with a base, without it.
        groups: first and last layer of each group; one group of all layers is `()`.
        filters: parts of tensors' names, each with parameters of its own; "" is the rest, and last.
        high: of weights; low is 0, or -high where weights may be negative.
        count: how many models were listed, a base among them.
    """

    models: tuple[Any, ...]
    method: str
    base: Any
    tokenizer: Any
    groups: tuple[tuple[int, int], ...]
    filters: tuple[str, ...]
    smooth: bool
    normalize: bool
    low: float
    high: float
    count: int


# What is searched


def axes_of(genome: Genome) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """(`search:`, `begin:`). A search begins where mergekit-evolve's does: equal weights, a density of 1."""
    search: dict[str, dict[str, float]] = {}
    begin: dict[str, float] = {}
    for parameter in SEARCHED[genome.method]:
        for name in _names(genome, parameter):
            low, high = (genome.low, genome.high) if parameter == "weight" else (0.0, 1.0)
            search[name] = {"low": low, "high": high}
            begin[name] = {"weight": 1 / genome.count, "density": 1.0, "t": 0.5}[parameter]
    return search, begin


def _names(genome: Genome, parameter: str) -> Iterator[str]:
    """Every axis of a parameter."""
    models = (None,) if genome.method == "slerp" else genome.models
    for group in genome.groups or (None,):
        for model in models:
            for filter_ in genome.filters:
                yield _axis(genome, parameter, model, filter_, group)


def _axis(genome: Genome, parameter: str, model: Any, filter_: str, group: tuple[int, int] | None) -> str:
    """An axis's name: weight_Latxa_Llama_3_1_8B_self_attn_layers_0_7."""
    parts = [parameter]
    if model is not None:
        short = [word(one) for one in genome.models]
        number = genome.models.index(model)
        parts.append(short[number] if short.count(short[number]) == 1 else f"{short[number]}_{number + 1}")
    if len(genome.filters) > 1:
        parts.append(word(filter_) if filter_ else "rest")
    if group is not None:
        parts.append(f"layers_{group[0]}_{group[1]}")
    return "_".join(parts)


def word(name: Any) -> str:
    """The last part of a name, in letters that an axis may have."""
    named = name.get("model", name) if isinstance(name, Mapping) else name
    path = named.get("path", named) if isinstance(named, Mapping) else named
    return re.sub(r"\W+", "_", str(path).rstrip("/").rsplit("/", 1)[-1]).strip("_")


# The recipe, with `$names` where mergekit-evolve puts numbers


def recipe_of(genome: Genome) -> dict[str, Any]:
    recipe: dict[str, Any] = {"merge_method": genome.method}
    if genome.base is not None:
        recipe["base_model"] = genome.base
    if genome.groups and not genome.smooth:
        recipe["slices"] = [_slice(genome, group) for group in genome.groups]
    else:
        recipe["models"] = [_source(genome, model, None) for model in genome.models]
    parameters = _shared(genome)
    if genome.method == "slerp" and "models" in recipe:
        parameters["t"] = f"${_axis(genome, 't', None, '', None)}"
    if parameters:
        recipe["parameters"] = parameters
    recipe["dtype"] = "bfloat16"
    if genome.tokenizer is not None:
        recipe["tokenizer_source"] = genome.tokenizer
    return recipe


def _slice(genome: Genome, group: tuple[int, int]) -> dict[str, Any]:
    """The recipe of a group of layers."""
    spanned = {"layer_range": [group[0], group[1] + 1]}
    sources = [_source(genome, model, group) | spanned for model in genome.models]
    if genome.method == "slerp":
        return {"sources": sources, "parameters": {"t": f"${_axis(genome, 't', None, '', group)}"}}
    if genome.base is not None and genome.base not in genome.models:
        sources.append({"model": genome.base} | spanned)
    return {"sources": sources}


def _source(genome: Genome, model: Any, group: tuple[int, int] | None) -> dict[str, Any]:
    """A model with its parameters; `smooth` gives a list of values, which mergekit interpolates over all layers."""
    if genome.method == "slerp":
        return {"model": model}

    def value(parameter: str, filter_: str) -> Any:
        groups = genome.groups if genome.smooth and genome.groups else (group,)
        names = [f"${_axis(genome, parameter, model, filter_, one)}" for one in groups]
        return names if len(names) > 1 else names[0]

    parameters: dict[str, Any] = {}
    for parameter in SEARCHED[genome.method]:
        each = [({"filter": one} if one else {}) | {"value": value(parameter, one)} for one in genome.filters]
        parameters[parameter] = each if len(each) > 1 else each[0]["value"]
    return {"model": model, "parameters": parameters}


def _shared(genome: Genome) -> dict[str, Any]:
    """What mergekit-evolve writes for the whole merge, where the method knows it."""
    from merge_hooks.planning.registry import method_parameters

    known, _ = method_parameters(genome.method)
    return {key: value for key, value in {"normalize": genome.normalize, "int8_mask": True}.items() if key in known}
