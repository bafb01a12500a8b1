"""A recipe: a merge in mergekit's YAML, read from wherever it comes, checked, and its sources found.

    recipe = read_recipe("merge.yml")           # a file, a folder or Hub model, inline YAML, or a mapping
    resolved = resolve(recipe)                  # sources found, all paths local, nothing read but headers

`Recipe` is what somebody wrote; `Resolved` is what will be merged. Only the latter's payload, a short JSON
string, crosses into vLLM's workers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from merge_hooks.errors import RecipeError, SourceError
from merge_hooks.recipe import lint
from merge_hooks.resolve import stages
from merge_hooks.sources import adapter as lora
from merge_hooks.sources.checkpoint import Source, explain_hub_error, open_source

LOG = logging.getLogger(__name__)
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
    def documents(self) -> list[lint.Document]:
        """Every YAML document. Raises RecipeError when there is none, or one is no mapping."""
        return lint.load_documents(self.text, self.origin)

    @cached_property
    def final(self) -> lint.Document:
        """The document that is scored; the others are its stages (see `merge_hooks.resolve.stages`)."""
        return stages.final_document(self.documents, self.origin)

    @property
    def data(self) -> dict[str, Any]:
        """The recipe that is scored, as a mapping."""
        return self.final.data

    @cached_property
    def findings(self) -> list[lint.Finding]:
        """What is wrong or surprising in it, with lines: see `merge_hooks.recipe.lint`."""
        return [finding for document in self.documents for finding in lint.check(document, self.origin)]


@dataclass(frozen=True)
class Resolved:
    """What will be merged: a recipe whose sources are found.

    Args:
        recipe: what was written.
        config: mergekit's MergeConfiguration with every model replaced by a local folder.
        sources: each source, by its local folder, in order of appearance; the base model first.
        seed: of the methods that draw at random.
        rng: whose draws: "iberian" or "mergekit" (see `merge_hooks.stream.stream`).
        trust_remote_code: whether configurations and tokenizers may bring code of their own, here and wherever the
            payload goes. If not, none is run, and nobody is asked.
    """

    recipe: Recipe
    config: Any
    sources: dict[str, Source] = field(default_factory=dict)
    seed: int = 0
    rng: str = "iberian"
    trust_remote_code: bool = False

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
        from merge_hooks.planning.plan import dump_config

        sources = [source.to_payload() for source in self.sources.values()]
        return json.dumps(
            {
                "config": dump_config(self.config),
                "sources": sources,
                "origin": self.recipe.origin,
                "seed": self.seed,
                "rng": self.rng,
                "trust_remote_code": self.trust_remote_code,
            }
        )

    @property
    def draws(self) -> str:
        """What the random methods draw, for the signature: "none" where nothing is drawn, else seed and generator."""
        from merge_hooks.kernels.choose import is_random

        own = is_random(self.method)
        inner = any(source.draws for source in self.sources.values())
        return f"{self.seed}" + ("-mergekit" if self.rng == "mergekit" else "") if own or inner else "none"


def from_payload(payload: str) -> Resolved:
    """Rebuild what `Resolved.payload` wrote."""
    from merge_hooks.planning.plan import parse_config

    content = json.loads(payload)
    opened = [open_payload(item) for item in content["sources"]]
    recipe = Recipe(text=yaml.safe_dump(content["config"]), origin=content["origin"])
    config = parse_config(content["config"], recipe.origin)
    sources = {item.key: item for item in opened}
    return Resolved(recipe, config, sources, content["seed"], content["rng"], content["trust_remote_code"])


def open_payload(content: Mapping[str, Any]) -> Source:
    """Open again what `Source.to_payload` wrote: a checkpoint, an adapter over one, or a stage."""
    if content["kind"] == "lora":
        adapter = content["adapter"]
        base = open_payload(content["base"])
        return lora.over_base(base, adapter["name"], Path(adapter["folder"]), adapter["revision"])
    folder = Path(content["folder"])
    if content["kind"] == "merge":
        return stages.MergedSource(content["name"], folder, resolved=from_payload(content["resolved"]))
    return Source(content["name"], folder, content["revision"])


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
        LOG.warning("%s", finding.message)
    return found


def passthrough(model: str, revision: str | None = None, dtype: str | None = None) -> Recipe:
    """The recipe that is one plain model, so that parents go through the same code as merges."""
    reference: Any = {"model": {"path": model, "revision": revision}}
    data = {"merge_method": "passthrough", "models": [{"model": reference}]}
    if dtype:
        data["dtype"] = dtype
    return Recipe(text=yaml.safe_dump(data, sort_keys=False), origin=model)


def resolve(recipe: Recipe, seed: int = 0, rng: str = "iberian", trust_remote_code: bool = False) -> Resolved:
    """Find every source of a recipe (disk, Hub cache, Hub) and replace its name by its local folder.

    Args:
        seed, rng: of the methods that draw at random, in the recipe and in its stages.
        trust_remote_code: whether models may bring code of their own; see `Resolved`.
    Raises:
        RecipeError: mergekit does not take the recipe.
        SourceError: a source is not to be had.
    """
    return _Resolver(recipe, seed, rng, trust_remote_code).resolve(recipe.final, ())


class _Resolver:
    """Finds the sources of a recipe and of its stages; each stage and each source is opened once."""

    def __init__(self, recipe: Recipe, seed: int, rng: str, trust_remote_code: bool) -> None:
        self.recipe, self.seed, self.rng, self.trust_remote_code = recipe, seed, rng, trust_remote_code
        self.stages = {document.name: document for document in recipe.documents if document.name}
        self.opened: dict[str, Source] = {}

    def resolve(self, document: lint.Document, chain: tuple[str, ...]) -> Resolved:
        """One document, its stages first. `chain`: the stages that are being resolved because of it."""
        from merge_hooks.planning.plan import map_references, parse_config, reference_to
        from merge_hooks.recipe.fisher_maps import localise_maps

        origin = f"{self.recipe.origin} ({document.name})" if chain else self.recipe.origin
        parsed = parse_config(document.data, origin)
        sources: dict[str, Source] = {}

        def localise(reference: Any) -> Any:
            source = self._source(reference, chain)
            sources.setdefault(source.key, source)
            return reference_to(
                source.folder, reference, source.adapter if isinstance(source, lora.LoraSource) else None
            )

        if parsed.base_model is not None:
            localise(parsed.base_model)  # the donor comes first
        config = localise_maps(map_references(parsed, localise), self.recipe.folder)
        written = Recipe(self.recipe.text, origin, self.recipe.folder)
        return Resolved(written, config, sources, self.seed, self.rng, self.trust_remote_code)

    def _source(self, reference: Any, chain: tuple[str, ...]) -> Source:
        key = str(reference)
        if key not in self.opened:
            source = self._base(reference.model, chain)
            if reference.lora is not None:
                source = lora.open_lora(source, reference.lora.path, reference.lora.revision, self.recipe.folder)
            self.opened[key] = source
        return self.opened[key]

    def _base(self, model: Any, chain: tuple[str, ...]) -> Source:
        if model.path not in self.stages:
            return self._checkpoint(model)
        if model.path in chain:
            raise RecipeError(
                f"{self.recipe.origin}: the stages go round in a circle: {' -> '.join((*chain, model.path))}. "
                "A stage cannot be made of itself."
            )
        if model.path not in self.opened:
            resolved = self.resolve(self.stages[model.path], (*chain, model.path))
            self.opened[model.path] = stages.open_stage(model.path, resolved)
        return self.opened[model.path]

    def _checkpoint(self, model: Any) -> Source:
        try:
            return open_source(model.path, model.revision, beside=self.recipe.folder)
        except SourceError as error:
            if not self.stages:
                raise
            raise SourceError(f"{error} The stages of this recipe are: {', '.join(self.stages)}.") from error


def find_recipe(recipe: str | Path | Mapping[str, Any] | Recipe) -> Recipe:
    """A recipe from wherever it comes, as `read_recipe` does, without looking for mistakes in it."""
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
        raise RecipeError(
            f"{repository}: this Hub model holds no {CONFIG_FILE}, so its recipe is not known."
        ) from error
    except RecipeError:
        raise
    except Exception as error:
        raise SourceError(explain_hub_error(error, name, revision or None)) from error
