"""A recipe: a merge in mergekit's YAML, read from wherever it comes, and checked.

    recipe = read_recipe("merge.yml")           # a file, a folder or Hub model, inline YAML, or a mapping

`Recipe` is what somebody wrote; `merge_hooks.resolve` finds its sources.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from merge_hooks.errors import RecipeError, SourceError
from merge_hooks.recipe import lint
from merge_hooks.recipe.documents import Document, Finding, final_document, load_documents
from merge_hooks.sources.again import look_for_the_hub
from merge_hooks.sources.hub import explain_hub_error, say_what_is_near
from merge_hooks.sources.near import did_you_mean
from merge_hooks.texts import seen

LOG = logging.getLogger(__name__)
CONFIG_FILE = "mergekit_config.yml"
# No recipe that a person wrote comes near this; a hostile one must not fill the memory.
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
    def documents(self) -> list[Document]:
        """Every YAML document. Raises RecipeError if there is none, or if one is not a mapping."""
        return load_documents(self.text, self.origin)

    @cached_property
    def final(self) -> Document:
        """The document that is scored; the others are its stages (see `merge_hooks.resolve.stages`)."""
        return final_document(self.documents, self.origin)

    @property
    def data(self) -> dict[str, Any]:
        """The recipe that is scored, as a mapping."""
        return self.final.data

    @cached_property
    def findings(self) -> list[Finding]:
        """What is wrong or surprising in it, with lines: see `merge_hooks.recipe.lint`."""
        return [finding for document in self.documents for finding in lint.check(document, self.origin)]


def read_recipe(recipe: str | Path | Mapping[str, Any]) -> Recipe:
    """Read a recipe from a file, a folder or Hub model that holds `mergekit_config.yml`, inline YAML, or a mapping.

    Raises:
        RecipeError: it is not there, too large, empty, not YAML, or has keys that mergekit would ignore.
    """
    found = find_recipe(recipe)
    errors = [finding for finding in found.findings if finding.is_error]
    if errors:
        raise RecipeError("\n".join(finding.message for finding in errors))
    for finding in found.findings:
        LOG.warning("%s", seen(finding.message))
    return found


def passthrough(model: str, revision: str | None = None, dtype: str | None = None) -> Recipe:
    """The recipe of one plain model, so that parents go through the same code as merges."""
    reference: Any = {"model": {"path": model, "revision": revision}}
    data = {"merge_method": "passthrough", "models": [{"model": reference}]}
    if dtype:
        data["dtype"] = dtype
    return Recipe(text=yaml.safe_dump(data, sort_keys=False), origin=model)


def find_recipe(recipe: str | Path | Mapping[str, Any] | Recipe) -> Recipe:
    """A recipe from wherever it comes, as in `read_recipe`, but not checked."""
    if isinstance(recipe, Recipe):
        return recipe
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
            raise RecipeError(
                f"{path.parent}: this folder holds no {CONFIG_FILE}, so it is not a merge made by mergekit."
            )
    if path.is_file():
        return Recipe(text=_read_text(path), origin=str(path), folder=path.parent.resolve())
    if path.suffix in {".yml", ".yaml"} or text.startswith((".", "/", "~")) or text.count("/") != 1:
        raise RecipeError(f"{text}: no such recipe. Looked in {Path.cwd()}.{did_you_mean(text, files=True)}")
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
    say_what_is_near(name, revision or None, files=True)
    look_for_the_hub(LOG)
    try:
        return _read_text(Path(hf_hub_download(name, CONFIG_FILE, revision=revision or None)))
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise SourceError(explain_hub_error(error, name, revision or None, files=True)) from error
        raise RecipeError(
            f"{repository}: this Hub model holds no {CONFIG_FILE}, so its recipe is not known."
        ) from error
    except RecipeError:
        raise
    except Exception as error:
        raise SourceError(explain_hub_error(error, name, revision or None, files=True)) from error
