"""A recipe: a merge in mergekit's YAML, read from wherever it comes, checked, and its sources found.

    recipe = read_recipe("merge.yml")           # a file, a folder or Hub model, inline YAML, or a mapping
    resolved = resolve(recipe)                  # sources found, all paths local, nothing read but headers

`Recipe` is what somebody wrote; `Resolved` is what will be merged. Only the latter's payload, a short JSON
string, crosses into vLLM's workers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from merge_hooks import lint
from merge_hooks.errors import RecipeError, SourceError
from merge_hooks.sources import Source, explain_hub_error, open_source

CONFIG_FILE = "mergekit_config.yml"
# No recipe of a person's is near this; a hostile one must not fill the memory.
MAX_RECIPE_BYTES = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """What somebody wrote.

    Args:
        text: the YAML, word for word.
        origin: where it came from, for messages ("merge.yml", "inline").
        folder: the file's folder, where relative paths are tried second; None for inline recipes.
    """

    text: str
    origin: str
    folder: Path | None = None

    @cached_property
    def data(self) -> dict[str, Any]:
        """The YAML as a mapping. Raises RecipeError when it is empty, not YAML or not a mapping."""
        return lint.load_yaml(self.text, self.origin)


@dataclass(frozen=True)
class Resolved:
    """What will be merged: a recipe whose sources are found.

    Args:
        recipe: what was written.
        config: mergekit's MergeConfiguration with every model replaced by a local folder.
        sources: each source, by its local folder, in order of appearance; the base model first.
    """

    recipe: Recipe
    config: Any
    sources: dict[str, Source] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """mergekit's name of the merge method."""
        return self.config.merge_method

    @property
    def donor(self) -> Source:
        """The source that lends config, tokenizer and generation config: the base model, else the first model.

        mergekit means the same, but without a base model it picks from an unordered set, so that
        two runs of mergekit-yaml may differ there.
        """
        return next(iter(self.sources.values()))

    @property
    def dtype(self) -> str | None:
        """The dtype that the recipe asks the result to be in, e.g. "bfloat16"; None: as the sources are."""
        return self.config.out_dtype or self.config.dtype

    def payload(self) -> str:
        """A JSON string from which another process rebuilds this object without reading a recipe or the Hub."""
        from merge_hooks._mergekit import dump_config

        sources = [(str(source.folder), source.name, source.revision) for source in self.sources.values()]
        return json.dumps({"config": dump_config(self.config), "sources": sources, "origin": self.recipe.origin})


def from_payload(payload: str) -> Resolved:
    """Rebuild what `Resolved.payload` wrote."""
    from merge_hooks._mergekit import parse_config

    content = json.loads(payload)
    sources = {folder: Source(name, Path(folder), revision) for folder, name, revision in content["sources"]}
    recipe = Recipe(text=yaml.safe_dump(content["config"]), origin=content["origin"])
    return Resolved(recipe, parse_config(content["config"], recipe.origin), sources)


def read_recipe(recipe: str | Path | Mapping[str, Any]) -> Recipe:
    """Read a recipe from a file, a folder or Hub model that holds `mergekit_config.yml`, inline YAML, or a mapping.

    Raises:
        RecipeError: it is not there, too large, empty, not YAML, or has keys that mergekit would ignore.
    """
    found = _find(recipe)
    findings = lint.check(found.data, found.text, found.origin)
    errors = [finding for finding in findings if finding.is_error]
    if errors:
        raise RecipeError("\n".join(finding.message for finding in errors))
    return found


def passthrough(model: str, revision: str | None = None, dtype: str | None = None) -> Recipe:
    """The recipe that is one plain model, so that parents go through the same code as merges."""
    reference: Any = {"model": {"path": model, "revision": revision}}
    data = {"merge_method": "passthrough", "models": [{"model": reference}]}
    if dtype:
        data["dtype"] = dtype
    return Recipe(text=yaml.safe_dump(data, sort_keys=False), origin=model)


def resolve(recipe: Recipe) -> Resolved:
    """Find every source of a recipe (disk, Hub cache, Hub) and replace its name by its local folder.

    Raises:
        RecipeError: mergekit does not take the recipe.
        SourceError: a source is not to be had.
    """
    from merge_hooks._mergekit import map_references, parse_config, reference_to

    parsed = parse_config(recipe.data, recipe.origin)
    sources: dict[str, Source] = {}

    def localise(reference: Any) -> Any:
        if reference.lora is not None:
            raise RecipeError(
                f"{recipe.origin}: {reference} names a LoRA adapter, which cannot be streamed yet. "
                "Fold it into its model first: peft's merge_and_unload(), then save_pretrained()."
            )
        source = open_source(reference.model.path, reference.model.revision, beside=recipe.folder)
        sources.setdefault(str(source.folder), source)
        return reference_to(source.folder, reference)

    base = localise(parsed.base_model) if parsed.base_model is not None else None
    config = map_references(parsed, localise)
    assert base is None or base == config.base_model
    return Resolved(recipe, config, sources)


def _find(recipe: str | Path | Mapping[str, Any]) -> Recipe:
    if isinstance(recipe, Mapping):
        return Recipe(text=yaml.safe_dump(dict(recipe), sort_keys=False), origin="inline recipe")
    text = str(recipe)
    if not text.strip():
        raise RecipeError("recipe= is empty. Give a file, a folder or Hub model with mergekit_config.yml, or YAML.")
    if "\n" in text or text.lstrip().startswith("{") or "merge_method:" in text:
        return Recipe(text=text, origin="inline recipe")
    path = Path(text).expanduser()
    if path.is_dir():
        path = path / CONFIG_FILE
        if not path.is_file():
            raise RecipeError(f"{path.parent}: this folder holds no {CONFIG_FILE}, so it is not a merge made by mergekit.")
    if path.is_file():
        return Recipe(text=_read_text(path), origin=str(path), folder=path.parent.resolve())
    if path.suffix in {".yml", ".yaml"} or text.startswith((".", "/", "~")) or text.count("/") != 1:
        raise RecipeError(f"{text}: no such recipe. Looked in {Path.cwd()}.")
    return Recipe(text=_download_recipe(text), origin=f"{text}/{CONFIG_FILE}")


def _read_text(path: Path) -> str:
    if path.stat().st_size > MAX_RECIPE_BYTES:
        raise RecipeError(f"{path}: {path.stat().st_size} bytes is too large for a recipe. Is this the right file?")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: this is not a text file, so it is not a recipe.") from None


def _download_recipe(repository: str) -> str:
    from huggingface_hub import errors, hf_hub_download

    name, _, revision = repository.partition("@")
    try:
        return _read_text(Path(hf_hub_download(name, CONFIG_FILE, revision=revision or None)))
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise SourceError(explain_hub_error(error, name, revision or None)) from error
        raise RecipeError(f"{repository}: this Hub model holds no {CONFIG_FILE}, so its recipe is not known.") from error
    except RecipeError:
        raise
    except Exception as error:
        raise SourceError(explain_hub_error(error, name, revision or None)) from error
