"""What `iberian vectors` is given, as vectors: recipes, models over a base, adapters.

A recipe          every model that is merged and is not its base; without `base_model:`, adapters over their own
MODEL with a base MODEL minus the base; an adapter's folder is laid over the base
BASE+ADAPTER      the adapter over BASE
an adapter        a folder with adapter_config.json: its factors say all, and its base is not needed
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import yaml

from merge_hooks.errors import RecipeError, SourceError
from merge_hooks.hashing import content_hash
from merge_hooks.recipe.recipe import CONFIG_FILE, Recipe
from merge_hooks.recipe.resolved import Resolved
from merge_hooks.recipe.short_form import find, refuse_errors
from merge_hooks.resolve.resolver import resolve
from merge_hooks.sources.adapter import LoraSource, over_base
from merge_hooks.sources.adapter_config import CONFIG
from merge_hooks.sources.checkpoint import Source
from merge_hooks.sources.headers import read_json
from merge_hooks.stream.stream import open_stream
from merge_hooks.tools.vectors.vector import Vector


def open_vectors(written: Sequence[str], base: str | None = None, trust_remote_code: bool = False) -> list[Vector]:
    """The vectors of recipes, models and adapters, in order, each once, under short names.

    Args:
        written: what the command was given.
        base: folder or Hub id, as the base of models that do not bring their own.
    Raises:
        RecipeError: an input is none of these, or a model has no base.
        SourceError, PreflightError: a model cannot be had.
    """
    found: dict[tuple[str, str], tuple[Source, Source | None]] = {}
    bases: dict[str, Source] = {}
    for item in written:
        for source, beneath in _pairs(item, base, trust_remote_code):
            beneath = bases.setdefault(beneath.key, beneath) if beneath else None
            if isinstance(source, LoraSource) and source.base.key in bases:
                source.base = bases[source.base.key]  # one object a base, so that it is hashed once
            found.setdefault((source.key, beneath.key if beneath else ""), (source, beneath))
    names = short_names([_own_name(source) for source, _ in found.values()])
    return [Vector(name, *pair) for name, pair in zip(names, found.values(), strict=True)]


def _pairs(item: str, base: str | None, trust_remote_code: bool) -> Iterator[tuple[Source, Source | None]]:
    if _is_recipe(item, base):
        yield from _of_recipe(resolve(refuse_errors(find(item)), trust_remote_code=trust_remote_code), base)
    elif base is not None:
        model = f"{base}+{item}" if _is_adapter(item) else item
        beneath, source = _open([base, model])
        yield source, beneath
    elif _is_adapter(item):
        yield _alone(Path(item).expanduser().resolve(), item), None
    elif "+" in item:
        (source,) = _open([item])
        assert isinstance(source, LoraSource)
        yield source, source.base
    else:
        raise RecipeError(f"{item}: a model is no vector by itself. Name the model it was made from: --base BASE.")


def _is_recipe(item: str, base: str | None) -> bool:
    """Whether this is a recipe. A folder or Hub model that holds one is a model if a base is named."""
    path = Path(item).expanduser()
    if item.startswith(("preset:", "{")) or "\n" in item or "method=" in item or "merge_method:" in item:
        return True
    if path.suffix in (".yml", ".yaml"):
        return True
    if base is not None or "+" in item or _is_adapter(item):
        return False
    return (path / CONFIG_FILE).is_file() or not path.is_dir()


def _is_adapter(item: str) -> bool:
    return (Path(item).expanduser() / CONFIG).is_file()


def _of_recipe(resolved: Resolved, base: str | None) -> Iterator[tuple[Source, Source | None]]:
    """The models that are merged, without one that only lends its tokenizer."""
    merged = {key for output in open_stream(resolved).plan for key in output.inputs}
    own = resolved.donor if resolved.config.base_model is not None else None
    named = own or (_open([base])[0] if base else None)
    for key, source in resolved.sources.items():
        beneath = named or (source.base if isinstance(source, LoraSource) else None)
        if beneath is None:
            raise RecipeError(
                f"{resolved.recipe.origin}: `{resolved.method}` has no base model here, so it does not say what "
                f"{source.name} was made from. Name it: --base BASE."
            )
        if key in merged and key != beneath.key:
            yield source, beneath


def _open(models: Iterable[str]) -> list[Source]:
    """Models as recipes name them: folder, Hub id, `model@revision`, `model+adapter`."""
    recipes = [
        Recipe(yaml.safe_dump({"merge_method": "passthrough", "models": [{"model": model}]}), model) for model in models
    ]
    return [resolve(recipe).donor for recipe in recipes]


def _alone(folder: Path, name: str) -> LoraSource:
    """An adapter without its base: only the base's name is known, and nothing of it is read."""
    said = str(read_json(folder / CONFIG, name).get("base_model_name_or_path") or "its base")
    return over_base(Source(said, Path(said)), name, folder, None)


def _own_name(source: Source) -> str:
    return source.adapter_name if isinstance(source, LoraSource) else source.name


def short_names(names: Sequence[str]) -> list[str]:
    """The shortest ends of paths that tell them apart: "eu/final", "gl/final"."""
    parts = [name.rstrip("/").split("/") for name in names]
    for length in range(1, max(map(len, parts), default=0) + 1):
        shown = ["/".join(part[-length:]) for part in parts]
        if len(set(shown)) == len(names):
            return shown
    return [f"{name} ({number})" for number, name in enumerate(names, start=1)]


def stamp(vector: Vector) -> str:
    """What exactly the vector was made from: names with Hub revisions or content hashes, joined as in signatures."""
    stamps: tuple[tuple[str, str], ...]
    if vector.base is None:
        assert isinstance(vector.source, LoraSource)
        folder = vector.source.adapter
        stamps = ((vector.source.adapter_name, content_hash(folder, [CONFIG, *_weights_of(folder)])),)
    else:
        stamps = tuple(dict.fromkeys((*vector.source.stamps(), *vector.base.stamps())))
    return "+".join(f"{name}@{print_[:8]}" for name, print_ in stamps)


def _weights_of(folder: Path) -> list[str]:
    files = sorted(file.name for file in folder.glob("adapter_model*.safetensors"))
    if not files:
        raise SourceError(f"{folder}: no adapter_model.safetensors there.")
    return files
