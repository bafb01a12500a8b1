"""mergekit's configuration of a recipe: parsed, written again, and with its references to models replaced."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from merge_hooks.errors import RecipeError

# More layers than any model has.
MAX_LAYERS = 10_000


def parse_config(data: dict[str, Any], origin: str) -> Any:
    """mergekit's MergeConfiguration. Raises RecipeError with the key and what mergekit expected there."""
    from pydantic import ValidationError

    try:
        return _ordered_configuration().model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{origin}: `{where}`: {first['msg']}.") from None
    except RuntimeError as error:
        raise RecipeError(f"{origin}: {error}.") from None


@cache
def _ordered_configuration() -> Any:
    """mergekit's MergeConfiguration, whose models always come in one order: the base, then as they are written.

    mergekit keeps them in a set. Without a base model, two runs may take config and tokenizer from different models,
    and number the tokens of a union differently.
    """
    from mergekit.config import MergeConfiguration

    class OrderedConfiguration(MergeConfiguration):
        def referenced_models(self) -> list[Any]:
            known = set(super().referenced_models())
            first = [self.base_model] if self.base_model is not None else []
            return [item for item in dict.fromkeys([*first, *ordered_references(self)]) if item in known]

    return OrderedConfiguration


def dump_config(value: Any) -> Any:
    """A MergeConfiguration as plain data. Unlike mergekit's own dump, paths with `@` or `+` survive it."""
    from mergekit.common import ModelReference
    from pydantic import BaseModel

    if isinstance(value, ModelReference):
        lora = value.lora.model_dump() if value.lora else None
        return {"model": value.model.model_dump(), "lora": lora, "override_architecture": value.override_architecture}
    if isinstance(value, BaseModel):
        fields = {name: dump_config(getattr(value, name)) for name in type(value).model_fields}
        return {name: field for name, field in fields.items() if field is not None}
    if isinstance(value, dict):
        return {key: dump_config(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [dump_config(item) for item in value]
    return value


def map_references(value: Any, replace: Callable[[Any], Any]) -> Any:
    """The same configuration with every ModelReference in it replaced."""
    from mergekit.common import ModelReference
    from pydantic import BaseModel

    if isinstance(value, ModelReference):
        return replace(value)
    if isinstance(value, BaseModel):
        fields = {name: map_references(getattr(value, name), replace) for name in type(value).model_fields}
        return value.model_copy(update=fields)
    if isinstance(value, dict):
        return {key: map_references(item, replace) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map_references(item, replace) for item in value)
    return value


def map_parameter(value: Any, name: str, replace: Callable[[str], str]) -> Any:
    """The same configuration with every text value of the parameter of this name replaced, filtered or not."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        fields = {key: map_parameter(getattr(value, key), name, replace) for key in type(value).model_fields}
        parameters = fields.get("parameters")
        if isinstance(parameters, dict) and name in parameters:
            fields["parameters"] = {**parameters, name: _map_texts(parameters[name], replace)}
        return value.model_copy(update=fields)
    if isinstance(value, dict):
        return {key: map_parameter(item, name, replace) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map_parameter(item, name, replace) for item in value)
    return value


def _map_texts(setting: Any, replace: Callable[[str], str]) -> Any:
    if isinstance(setting, list):
        return [_map_texts(item, replace) for item in setting]
    if isinstance(setting, str):
        return replace(setting)
    if hasattr(setting, "value"):  # mergekit's ConditionalParameter
        return setting.model_copy(update={"value": _map_texts(setting.value, replace)})
    return setting


def reference_to(folder: Path, original: Any, adapter: Path | None = None) -> Any:
    """A ModelReference to a local folder (and adapter folder), with the original's architecture override."""
    from mergekit.common import ModelPath, ModelReference

    return ModelReference(
        model=ModelPath.model_construct(path=str(folder), revision=None),
        lora=ModelPath.model_construct(path=str(adapter), revision=None) if adapter else None,
        override_architecture=original.override_architecture,
    )


def reference_key(reference: Any) -> str:
    """What stands for a resolved ModelReference among the sources: its folder, then "+" and its adapter's folder."""
    adapter = f"+{reference.lora.path}" if reference.lora else ""
    return f"{reference.model.path}{adapter}"


def ordered_references(config: Any) -> list[Any]:
    found: dict[Any, None] = {}
    map_references(config, lambda reference: found.setdefault(reference) or reference)
    return list(found)


def chat_template_of(config: Any) -> str | None:
    """The chat template that the recipe asks for (`auto`, a name mergekit knows, or Jinja text), else None.

    Raises:
        RecipeError: it is neither a name that mergekit knows nor a template.
    """
    from types import SimpleNamespace

    from mergekit.merge import _set_chat_template

    holder = SimpleNamespace(chat_template=None)
    try:
        _set_chat_template(holder, config)
    except RuntimeError as error:
        raise RecipeError(f"`chat_template`: {error}. Give `auto`, a name that mergekit ships, or Jinja.") from None
    return holder.chat_template
