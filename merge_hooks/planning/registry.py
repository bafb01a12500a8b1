"""mergekit's registry of merge methods, ours included: names, parameters, the keys of a recipe.

Its answers about the mergekit that we know are also kept as data: see `merge_hooks.planning.table`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from merge_hooks.planning import table


@cache
def known_keys() -> dict[str, set[str]]:
    """The keys that mergekit reads at each level of a recipe."""
    kept = table.kept()
    return {level: set(keys) for level, keys in kept["keys"].items()} if kept else _asked_keys()


def _asked_keys() -> dict[str, set[str]]:
    from mergekit import config
    from mergekit.tokenizer.config import TokenizerConfig

    levels = {
        "recipe": config.MergeConfiguration,
        "model": config.InputModelDefinition,
        "slice": config.OutputSliceDefinition,
        "source": config.InputSliceDefinition,
        "module": config.OutputModuleDefinition,
        "tokenizer": TokenizerConfig,
    }
    return {level: set(model.model_fields) for level, model in levels.items()}


def register_methods() -> None:
    """Add our methods to mergekit's registry, once.

    Called before every use of the registry here, and by the watch in `lm_eval_iberian.autoload` for `mergekit-yaml`.
    """
    from merge_hooks.methods import register as own_methods

    own_methods.register_methods()


def _merge_methods() -> Any:
    """mergekit's module of merge methods, with ours registered."""
    from mergekit import merge_methods

    register_methods()
    return merge_methods


def method_names() -> set[str]:
    """All merge methods, ours and those registered by plugins included."""
    if kept := table.kept():
        return set(kept["methods"])
    merge_methods = _merge_methods()
    return {method.spec.name for method in merge_methods.registered_methods()}


def method_parameters(method: str) -> tuple[set[str], set[str]]:
    """The parameters of a method: (of the whole merge, of each model)."""
    if kept := table.kept():
        shared, per_model = kept["methods"][method]["parameters"]
        return set(shared), set(per_model)
    spec = _merge_methods().get(method).spec
    return {item.name for item in spec.shared_parameters}, {item.name for item in spec.input_parameters}


@dataclass(frozen=True)
class MethodFacts:
    """What a merge method says of itself.

    Args:
        defaults: its parameters that have a default.
        of_non_base: parameters that the base model does not have.
        weighs_base: whether the base model has a weight, like every other input.
        needs_base: whether a base model must be named.
        ignores_base: whether it has no notion of a base model.
        max_inputs: the most models it takes; None: any number.
        sparsifies: whether it prunes to a density.
        is_random: whether it draws the masks of its pruning.
    """

    defaults: dict[str, Any]
    of_non_base: set[str]
    weighs_base: bool
    needs_base: bool
    ignores_base: bool
    max_inputs: int | None
    sparsifies: bool
    is_random: bool


def method_facts(method: str) -> MethodFacts:
    """What mergekit's registry knows of a method."""
    if kept := table.kept():
        facts = kept["methods"][method]["facts"]
        return MethodFacts(**{**facts, "of_non_base": set(facts["of_non_base"])})
    from mergekit.merge_methods.base import BasePolicy, ParameterScope
    from mergekit.sparsify import SparsificationMethod

    found = _merge_methods().get(method)
    pruning = getattr(found, "sparsification_method", None)
    spec = found.spec
    scopes = {item.name: item.scope for item in spec.parameters}
    return MethodFacts(
        defaults={item.name: item.default for item in spec.parameters if not item.required},
        of_non_base={name for name, scope in scopes.items() if scope == ParameterScope.NON_BASE},
        weighs_base=scopes.get("weight") == ParameterScope.INPUT,
        needs_base=spec.contract.base == BasePolicy.REQUIRED,
        ignores_base=spec.contract.base == BasePolicy.IGNORED,
        max_inputs=spec.contract.max_inputs,
        sparsifies=pruning is not None,
        is_random=pruning in (SparsificationMethod.random, SparsificationMethod.della_magprune),
    )


def describe() -> dict[str, Any]:
    """All of the above as plain data, asked of the installed mergekit: what `table.json` holds."""
    _merge_methods()  # from here on nothing is answered by the table
    methods: dict[str, Any] = {}
    for method in sorted(method_names()):
        facts: dict[str, Any] = asdict(method_facts(method))
        methods[method] = {
            "parameters": [sorted(names) for names in method_parameters(method)],
            "facts": {**facts, "of_non_base": sorted(facts["of_non_base"])},
        }
    keys = {level: sorted(names) for level, names in _asked_keys().items()}
    return {"mergekit": table.digest(), "keys": keys, "methods": methods}


if __name__ == "__main__":
    table.FILE.write_text(json.dumps(describe(), indent=1) + "\n", encoding="utf-8")
    print(f"Written: {table.FILE}")
