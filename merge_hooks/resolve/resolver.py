"""Recipe -> Resolved: every source found on disk, in the Hub's cache or on the Hub, and stages opened.

    resolved = resolve(read_recipe("merge.yml"))    # all paths local; only headers were read

`from_payload` opens the same merge again in vLLM's workers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from merge_hooks.errors import RecipeError, SourceError, explained
from merge_hooks.recipe.documents import Document
from merge_hooks.recipe.recipe import Recipe
from merge_hooks.recipe.resolved import Resolved
from merge_hooks.resolve import stages
from merge_hooks.sources import adapter as lora
from merge_hooks.sources.checkpoint import Source, open_source
from merge_hooks.sources.trust import never_ask, trusts


def from_payload(payload: str) -> Resolved:
    """Rebuild what `Resolved.payload` wrote."""
    from merge_hooks.planning.config import parse_config

    never_ask()
    content = json.loads(payload)
    opened = [open_payload(item) for item in content["sources"]]
    recipe = Recipe(text=yaml.safe_dump(content["config"]), origin=content["origin"])
    config = parse_config(content["config"], recipe.origin)
    sources = {item.key: item for item in opened}
    return Resolved(recipe, config, sources, content["seed"], content["rng"], trusts(content["trust_remote_code"]))


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


def refuse_changed(resolved: Resolved) -> None:
    """Raises SourceError if what lies on disk is not what `resolved.prints` found there.

    Files are read again only where size, times or inode are others.
    """
    now = resolved.prints_of([open_payload(source.to_payload()) for source in resolved.sources.values()])
    changed = [path for path in {**resolved.prints, **now} if now.get(path) != resolved.prints.get(path)]
    if changed:
        raise SourceError(
            f"{resolved.recipe.origin}: {changed[0]} changed on disk since this recipe's sources were opened, so its "
            "signature would be of other weights. Open it again (resolve), or run it again."
        )


@explained("the sources of this recipe cannot be opened")
def resolve(recipe: Recipe, seed: int = 0, rng: str = "iberian", trust_remote_code: bool = False) -> Resolved:
    """Find every source of a recipe (disk, Hub cache, Hub) and replace its name by its local folder.

    Args:
        seed, rng: for methods that draw at random, in the recipe and in its stages.
        trust_remote_code: whether models may bring code of their own; see `Resolved`.
    Raises:
        RecipeError: mergekit does not accept the recipe.
        SourceError: a source cannot be found or read.
    """
    never_ask()
    return _Resolver(recipe, seed, rng, trusts(trust_remote_code)).resolve(recipe.final, ())


def _tell_apart(sources: Iterable[Source]) -> None:
    """Two revisions of one model, or of one adapter, get names of their own: what is compared is listed by its name."""
    by_name: dict[str, list[Source]] = {}
    for source in sources:
        by_name.setdefault(source.name, []).append(source)
    for name, same in by_name.items():
        revisions = [f"{getattr(one, 'base', one).revision}+{getattr(one, 'adapter_revision', None)}" for one in same]
        for source, revision in zip(same, revisions, strict=True):
            if len(same) > 1:
                said = revision.replace("+None", "")
                source.name = f"{name}@{said if revisions.count(revision) == 1 else source.key}"


class _Resolver:
    """Finds the sources of a recipe and of its stages; each stage and each source is opened once."""

    def __init__(self, recipe: Recipe, seed: int, rng: str, trust_remote_code: bool) -> None:
        self.recipe, self.seed, self.rng, self.trust_remote_code = recipe, seed, rng, trust_remote_code
        self.stages = {document.name: document for document in recipe.documents if document.name}
        self.opened: dict[str, Source] = {}

    def resolve(self, document: Document, chain: tuple[str, ...]) -> Resolved:
        """One document, its stages first. `chain`: the stages above it, which are being resolved now."""
        from merge_hooks.planning.config import map_references, parse_config, reference_to
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
        _tell_apart(sources.values())
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
