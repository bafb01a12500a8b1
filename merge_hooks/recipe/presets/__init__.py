"""Recipes that ship with the package, with the models as parameters: `preset:merge_and_conquer/linear`.

    recipe=preset:merge_and_conquer/linear,instruct=I,language=L,weight=1.0

A preset is a YAML file with `about`, `parameters` (each with `kind: model` or `kind: number`, and perhaps a default),
and `recipe`, in which the parameter replaces every value that reads `$name`; a list of recipes is one of several
stages, all but the last with a `name`. Values are replaced in the parsed recipe,
never in the YAML text, so nothing that a user passes can become another key.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import yaml

from merge_hooks.errors import RecipeError
from merge_hooks.recipe.recipe import Recipe

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """All presets, e.g. "merge_and_conquer/linear"."""
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.yml"))


def read_preset(name: str) -> dict[str, Any]:
    """A preset's file: about, parameters, recipe. Raises RecipeError for an unknown name."""
    if name not in names():
        raise RecipeError(f"preset:{name}: there is no such preset. There are: {', '.join(names())}.")
    return yaml.safe_load((FOLDER / f"{name}.yml").read_text(encoding="utf-8"))


def fill(name: str, arguments: MutableMapping[str, Any], dtype: str | None = None) -> Recipe:
    """A preset with its parameters, which are taken out of `arguments`.

    Args:
        dtype: instead of the preset's own; None or "auto": the preset's.
    Raises:
        RecipeError: a parameter is missing, or a number is none.
    """
    preset = read_preset(name)
    values = {}
    for parameter, rules in preset["parameters"].items():
        if parameter in arguments:
            values[parameter] = _checked(name, parameter, rules["kind"], arguments.pop(parameter))
        elif "default" in rules:
            values[parameter] = rules["default"]
        else:
            wanted = ", ".join(key for key, rule in preset["parameters"].items() if "default" not in rule)
            raise RecipeError(f"preset:{name}: give {parameter}=. It wants {wanted}.")
    stages = _filled(preset["recipe"], values)
    stages = stages if isinstance(stages, list) else [stages]
    for stage in stages if dtype not in (None, "auto") else ():
        stage["dtype"] = dtype
    return Recipe(yaml.safe_dump_all(stages, sort_keys=False), origin=f"preset:{name}")


def _checked(name: str, parameter: str, kind: str, value: Any) -> Any:
    if kind == "number" and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise RecipeError(f"preset:{name}: {parameter}={value}: this is a number.")
    return str(value) if kind == "model" else value


def _filled(node: Any, values: dict[str, Any]) -> Any:
    if isinstance(node, dict):
        return {key: _filled(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, values) for value in node]
    if isinstance(node, str) and node.startswith("$"):
        return values[node[1:]]
    return node
