"""What a source is, from its headers and JSON files alone: one row of the preflight table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_hooks.sources.checkpoint import Source
from merge_hooks.sources.headers import FLOATS, TensorEntry

# What weights may be stored in. Any other dtype holds numbers that mean something only with a scale beside them.


@dataclass(frozen=True)
class Facts:
    """A source's row.

    Args:
        name: the source, as the recipe calls it.
        row: fact -> text, for the table.
        computing: what the model computes with, by config key, defaults filled in.
    """

    name: str
    row: dict[str, str]
    computing: dict[str, Any]


def facts_of(source: Source) -> Facts:
    """A source's facts. Raises SourceError where config.json or a weight file is damaged."""
    config = full_config(source)
    tokens = tokens_of(source.folder)
    embedding = next((entry for name, entry in source.entries.items() if name.endswith("embed_tokens.weight")), None)
    special = _special_tokens(source.folder)
    head = any(name.endswith("lm_head.weight") for name in source.entries)
    tied = bool(config.get("tie_word_embeddings", False))
    row = {
        "model": source.name,
        "architecture": (config.get("architectures") or [config.get("model_type", "unknown")])[0],
        "layers": str(config.get("num_hidden_layers", "?")),
        "hidden": str(config.get("hidden_size", "?")),
        "vocabulary": str(config.get("vocab_size", "?")),
        "embedding rows": str(embedding.shape[0]) if embedding else "?",
        "tokens": str(len(tokens)) if tokens else "none",
        "tokenizer": tokenizer_digest(tokens),
        "added tokens": _added(source.folder),
        **{key: str(special.get(f"{key}_token") or "none") for key in ("bos", "eos", "pad")},
        "generation eos": str(_generation(source.folder).get("eos_token_id", "none")),
        "template": _template(source.folder),
        "tied": ("yes, with a head in the files" if head else "yes") if tied else "no",
        "rope": _rope(config),
        "dtype": "/".join(sorted({entry.dtype for entry in source.entries.values()})),
    }
    return Facts(source.name, row, config | {"rope": row["rope"], "tied": tied})


def full_config(source: Source) -> dict[str, Any]:
    """config.json with transformers' defaults filled in, if transformers knows the model (Gemma: tied by default)."""
    from transformers import AutoConfig

    config = source.config
    kind = config.get("model_type")
    if not isinstance(kind, str):
        return config
    try:
        plain = {key: value for key, value in config.items() if key not in ("model_type", "auto_map")}
        return AutoConfig.for_model(kind, **plain).to_dict()
    except (ValueError, KeyError, TypeError):
        return config


def is_code(name: str, entry: TensorEntry) -> bool:
    """Whether a tensor is a quantised weight, by dtype and shape. Masks and position ids are whole numbers anyway."""
    if entry.dtype in FLOATS:
        return False
    is_float8 = entry.dtype.startswith("F")
    is_weight = 1 <= len(entry.shape) <= 2 and not name.endswith("position_ids")  # masks have four dimensions
    return is_float8 or is_weight


def tokens_of(folder: Path) -> dict[str, int] | None:
    """Token -> id of a fast tokenizer, added tokens included; None where there is no tokenizer.json."""
    content = _json(folder / "tokenizer.json")
    if not content:
        return None
    vocabulary = content.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, list):  # Unigram: [piece, score], the index is the id
        vocabulary = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    return vocabulary | {token["content"]: token["id"] for token in content.get("added_tokens", [])}


def tokenizer_digest(tokens: dict[str, int] | None) -> str:
    """8 hex digits for tokens and ids, or "none"."""
    from merge_hooks.hashing import digest

    return digest(sorted(tokens.items())) if tokens else "none"


def _added(folder: Path) -> str:
    """How many added tokens, and the span of their ids."""
    ids = [token["id"] for token in _json(folder / "tokenizer.json").get("added_tokens", [])]
    return f"{len(ids)} ({min(ids)}-{max(ids)})" if ids else "none"


def _special_tokens(folder: Path) -> dict[str, Any]:
    config = _json(folder / "tokenizer_config.json")
    return {key: value.get("content") if isinstance(value, dict) else value for key, value in config.items()}


def _generation(folder: Path) -> dict[str, Any]:
    return _json(folder / "generation_config.json")


def _template(folder: Path) -> str:
    from merge_hooks.hashing import template_hash

    file = folder / "chat_template.jinja"
    text = (
        file.read_text(encoding="utf-8")
        if file.is_file()
        else _json(folder / "tokenizer_config.json").get("chat_template")
    )
    return template_hash(text)


def _rope(config: dict[str, Any]) -> str:
    """Base frequency and scaling, in one form for old (`rope_theta`, `rope_scaling`) and new (`rope_parameters`)."""
    parameters = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    if any(isinstance(value, dict) for value in parameters.values()):  # one set a kind of layer (Gemma 3)
        return json.dumps(parameters, sort_keys=True)
    theta = parameters.pop("rope_theta", None) or config.get("rope_theta") or "default"
    kind = parameters.pop("rope_type", None) or parameters.pop("type", None) or "default"
    parameters.pop("type", None)
    theta = f"{theta:g}" if isinstance(theta, (int, float)) else str(theta)
    extra = ", ".join(f"{key} {value}" for key, value in sorted(parameters.items()) if value is not None)
    return theta if kind == "default" and not extra else f"{theta}, {kind}{', ' if extra else ''}{extra}"


def _json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one. These files are optional, and whoever needs them reports damage."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
