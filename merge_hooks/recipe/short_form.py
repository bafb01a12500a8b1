"""A recipe without a file: `method=task_arithmetic,base=B,models=A:1.0;C:0.7`, and presets with parameters.

    lm_eval --model merged --model_args method=task_arithmetic,base=B,models=A:1.0;C:0.7,dtype=bfloat16
    iberian recipe show "method=ties,base=B,models=A:1.0;C:0.7,density=0.5"
    lm_eval --model merged --model_args recipe=preset:merge_and_conquer/linear,instruct=I,language=L,weight=1.0

`take_recipe` takes the recipe's part out of the arguments: the keys of KEYS and the method's own parameters. All others
are left for the engine. Values become nodes of the recipe, never YAML text, so a value cannot become another key.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import yaml

from merge_hooks.errors import RecipeError
from merge_hooks.recipe.recipe import Recipe, find_recipe
from merge_hooks.texts import value_of

# Keys of the short form beside `method`, `models` and `dtype`, and where they go in the recipe.
KEYS = {"base": "base_model", "out_dtype": "out_dtype", "tokenizer_source": "tokenizer_source",
        "chat_template": "chat_template"}  # fmt: skip


def find(written: str) -> Recipe:
    """A recipe from one string: anything that `read_recipe` takes, a preset with parameters, or the short form.

    Raises:
        RecipeError: it is none of these, or an argument is left over.
    """
    is_line = written.startswith(("method=", "preset:")) or ",method=" in written
    if not is_line or Path(written).exists():
        return find_recipe(written)
    text = written if "=" in written.split(",")[0] else f"recipe={written}"
    arguments = parse_arguments(text)
    recipe = take_recipe(arguments.pop("recipe", None), arguments, arguments.pop("dtype", None))
    if arguments:
        raise RecipeError(f"{', '.join(arguments)}: no such parameter of this recipe." + _hint(arguments, written))
    assert recipe is not None
    return recipe


def parse_arguments(text: str) -> dict[str, Any]:
    """`key=value,key=value` as lm_eval reads --model_args: numbers and true/false are converted."""
    arguments: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise RecipeError(f"`{part}`: write key=value, separated by commas.")
        if key in arguments:
            raise RecipeError(f"`{key}` is given twice.")
        arguments[key] = value_of(value)
    return arguments


def take_recipe(
    recipe: str | Path | Mapping[str, Any] | None, arguments: MutableMapping[str, Any], dtype: str | None = None
) -> Recipe | None:
    """The recipe that the arguments name, with its part taken out of them; None if they name none.

    Args:
        recipe: `recipe=`, if given.
        arguments: all others but dtype.
        dtype: the engine's. The short form and presets merge in it, too; None or "auto": not given.
    Raises:
        RecipeError: `recipe=` beside `method=`, an unknown method, a model without a weight that needs one.
    """
    if "method" in arguments:
        if recipe is not None:
            raise RecipeError("give recipe= or method=, not both.")
        return _from_short_form(arguments, dtype)
    if isinstance(recipe, str) and recipe.startswith("preset:"):
        from merge_hooks.recipe.presets import fill

        return fill(recipe.removeprefix("preset:"), arguments, dtype)
    stray = [key for key in ("models", "base") if key in arguments]
    if stray:
        raise RecipeError(f"{', '.join(stray)}: these belong to the short form, which begins with method=.")
    return None if recipe is None else find_recipe(recipe)


def refuse_errors(recipe: Recipe) -> Recipe:
    """The recipe itself. Raises RecipeError with every error that lint found; logs nothing."""
    errors = [finding.message for finding in recipe.findings if finding.is_error]
    if errors:
        raise RecipeError("\n".join(errors))
    return recipe


def _from_short_form(arguments: MutableMapping[str, Any], dtype: str | None) -> Recipe:
    from merge_hooks.planning.registry import method_names, method_parameters

    method = str(arguments.pop("method"))
    if method not in method_names():
        close = difflib.get_close_matches(method, method_names(), n=1)
        raise RecipeError(f"method={method}: unknown. " + (f"Did you mean {close[0]}?" if close else ""))
    shared, per_model = method_parameters(method)
    data: dict[str, Any] = {"merge_method": method}
    data |= {place: arguments.pop(key) for key, place in KEYS.items() if key in arguments}
    if dtype not in (None, "auto"):
        data["dtype"] = dtype
    parameters = {name: arguments.pop(name) for name in sorted(shared | per_model) if name in arguments}
    data["models"] = _models(arguments, method, "weight" in per_model and "weight" not in parameters)
    if parameters:
        data["parameters"] = parameters
    text = yaml.safe_dump(data, sort_keys=False)
    return Recipe(text=text, origin=f"method={method}")


def _models(arguments: MutableMapping[str, Any], method: str, needs_weight: bool) -> list[dict[str, Any]]:
    text = str(arguments.pop("models", "")).strip()
    if not text:
        raise RecipeError(f"method={method} wants models=, e.g. models=A:1.0;B:0.5.")
    models = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, colon, weight = part.rpartition(":")
        number = value_of(weight) if colon else None
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            models.append({"model": name, "parameters": {"weight": number}})
        elif needs_weight:
            raise RecipeError(f"models={text}: {part} has no weight. Write {part}:1.0, or weight=1.0 for all of them.")
        else:
            models.append({"model": part})
    return models


def _hint(arguments: Mapping[str, Any], written: str) -> str:
    from merge_hooks.planning.registry import method_names, method_parameters

    method = str(parse_arguments(written).get("method", "")) if written.startswith("method=") else ""
    known = [*KEYS, "models", "dtype"]
    if method in method_names():
        known += sorted(set().union(*method_parameters(method)))
    close = [match for key in arguments for match in difflib.get_close_matches(key, known, n=1)]
    return f" Did you mean {', '.join(close)}?" if close else f" It takes {', '.join(known)}." if method else ""
