"""The metadata at the top of a merge's model card: what the Hub sorts and links by. Nothing here is guessed.

    head = card_head(resolved, config)      # YAML: base_model, language, licence, pipeline_tag, tags

https://huggingface.co/docs/hub/model-cards. Language and licence are what the cards of the sources say (README.md in
their folders); `base_model` names models of the Hub only, as mergekit's does, because an upload refuses local paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_hooks.errors import RecipeError
from merge_hooks.recipe.resolved import Resolved
from merge_hooks.sources.checkpoint import Source
from merge_hooks.yaml_files import read_yaml

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TAGS = ["mergekit", "merge"]
# The Hub's cache: .../models--OWNER--NAME/snapshots/COMMIT
_CACHED = re.compile(r"models--(.+?)--(.+)")
_HEAD = re.compile(r"\A\ufeff?---\s*\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)


def card_head(resolved: Resolved, config: Mapping[str, Any], scores: Sequence[EvalResult] = (), title: str = "") -> str:
    """The metadata as YAML, without the lines of dashes.

    Args:
        config: the merged model's config.json.
        scores: for `model-index` (`card_index.eval_results`).
        title: what the model is called there.
    """
    from huggingface_hub import ModelCardData

    folders = list(dict.fromkeys(_folders(resolved)))
    cards = [_card_of(folder) for folder in folders]
    data = ModelCardData(
        library_name="transformers",
        tags=TAGS,
        base_model=[name for folder in folders if (name := _hub_name(folder))] or None,
        language=sorted({language for card in cards for language in _words(card.get("language"))}) or None,
        license=_licence(cards),
        pipeline_tag=_pipeline(config),
        eval_results=list(scores) or None,
        model_name=title if scores else None,
    )
    return str(data.to_yaml())


def _folders(resolved: Resolved) -> Iterator[Path]:
    """Where each model and adapter lies that is merged, those of stages too."""
    for source in resolved.sources.values():
        yield from _of_source(source)


def _of_source(source: Source) -> Iterator[Path]:
    if (stage := getattr(source, "resolved", None)) is not None:
        yield from _folders(stage)
    elif (adapter := getattr(source, "adapter", None)) is not None:
        yield from _of_source(source.base)  # type: ignore[attr-defined]
        yield adapter
    else:
        yield source.folder


def _hub_name(folder: Path) -> str | None:
    """The Hub's name of a model in the Hub's cache; None for any other folder."""
    found = next((match for part in folder.parts if (match := _CACHED.fullmatch(part))), None)
    return f"{found[1]}/{found[2]}" if found else None


def _card_of(folder: Path) -> Mapping[str, Any]:
    """The metadata of a source's own card; empty where there is none that can be read: an export needs none."""
    try:
        head = _HEAD.match((folder / "README.md").read_text(encoding="utf-8"))
        data = read_yaml(head[1], "README.md", RecipeError) if head else None
    except (OSError, ValueError, RecipeError):
        return {}
    return data if isinstance(data, Mapping) else {}


def _licence(cards: list[Mapping[str, Any]]) -> str | None:
    """The licence that every source has; None where one does not say, or they differ: a person must decide then.

    "other" is no licence by itself.
    """
    first, *others = (card.get("license") for card in cards)
    is_known = isinstance(first, str) and first not in ("other", "unknown") and all(one == first for one in others)
    return first if is_known else None


def _words(value: Any) -> list[str]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str) and one]


def _pipeline(config: Mapping[str, Any]) -> str | None:
    """The Hub's name of what the model does, where its class says so."""
    names = config.get("architectures") or []
    if any(str(name).endswith("ForCausalLM") for name in names):
        return "text-generation"
    return "image-text-to-text" if names and config.get("vision_config") else None
