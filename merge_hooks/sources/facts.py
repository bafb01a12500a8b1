"""What a source is, from its headers and JSON files alone: one row of the preflight table."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from merge_hooks.architectures.built import config_of
from merge_hooks.errors import SourceError
from merge_hooks.hashing import digest, file_stamp, template_hash
from merge_hooks.sources.checkpoint import Source
from merge_hooks.sources.headers import FLOATS, TensorEntry
from merge_hooks.texts import one_line

LOG = logging.getLogger(__name__)
# All that a tokenizer is read from; those of _BESIDE are none by themselves. Not tekken.json: mistral_common's tokenizer
# spells tokens as texts, in which many are alike, and takes 10 s to be loaded.
_BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "spiece.model",
                    *_BESIDE)  # fmt: skip
# Of tokenizer_config.json.
_RULES = ("add_bos_token", "add_eos_token", "add_prefix_space", "do_lower_case", "split_special_tokens")
# Of generation_config.json: what says nothing of how a text is written (who ends it is a fact of its own, how long it may
# be is the task's), and defaults.
_NO_GENERATION = re.compile(
    "_token_id$|^transformers_version$|^_from_model_config$|cache|^output_|^max_(new_tokens|length)$"
)
_PLAIN_GENERATION = {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50, "repetition_penalty": 1.0,
                     "num_beams": 1}  # fmt: skip
# compressed-tensors wrote the second one.
_QUANTISED = ("quantization_config", "compression_config")
# Of a rope: where images are. A text counts the same in all sections.
_OF_IMAGES = ("mrope_section", "mrope_interleaved")
# Attention layers of some classes read these, which their configuration does not declare.
_HEADS = ("head_dim", "num_key_value_heads")


@dataclass(frozen=True)
class Facts:
    """A source's row.

    Args:
        name: the source, as the recipe calls it.
        row: fact -> text, for the table.
        computing: what its text decoder is set to, by config key, defaults filled in.
    """

    name: str
    row: dict[str, str]
    computing: dict[str, Any]


def facts_of(source: Source) -> Facts:
    """A source's facts. Raises SourceError where config.json or a weight file is damaged."""
    known = config_of(source.config)
    config = known.to_dict() if known is not None else source.config
    computing = _computing(known, config)
    # A multimodal model's config.json has the settings of its text decoder in a part of its own.
    text = config | (known.get_text_config(decoder=True).to_dict() if known is not None else {}) | computing
    tokenizer = _tokenizer_in(source.folder)
    embedding = source.entries.get(next(iter(source.built.vocabulary_axes), "")) if source.built else None
    special = _special_tokens(source.folder)
    tied = _is_tied(source, text)
    head = any(name.endswith("lm_head.weight") for name in source.stored)
    row = {
        "model": source.name,
        "architecture": _class_name(source, config),
        "layers": str(text.get("num_hidden_layers", "?")),
        "hidden": str(text.get("hidden_size", "?")),
        "vocabulary": str(text.get("vocab_size", "?")),
        "embedding rows": str(embedding.shape[0]) if embedding else "?",
        "tokens": str(len(tokenizer.tokens)) if tokenizer.tokens else "none",
        "tokenizer": tokenizer.digest,
        "added tokens": tokenizer.added,
        **{key: str(special.get(f"{key}_token") or "none") for key in ("bos", "eos", "pad")},
        "generation eos": str(_generation(source.folder).get("eos_token_id", "none")),
        "template": chat_template_of(source.folder),
        "tied": ("yes, with a head in the files" if head else "yes") if tied else "no",
        "rope": _rope(text),
        "dtype": "/".join(sorted({entry.dtype for entry in source.stored.values()})),
    }
    return Facts(source.name, row, computing | {"rope": row["rope"], "tied": tied})


def _computing(known: Any | None, config: dict[str, Any]) -> dict[str, Any]:
    """The settings of the text decoder that its class has, by the names that all classes share (GPT-2's n_head).

    Keys that no class of transformers reads (what a trainer left there) are left out.

    Args:
        known: the configuration of transformers' class; None: config.json is all that is known.
    """
    from transformers import PreTrainedConfig

    plain = _fields(PreTrainedConfig)
    # Of code that a model brings, no class says which keys are its settings: names and versions are none.
    own = {key: value for key, value in config.items()
           if key not in plain and ("act" in key or not isinstance(value, (str, Mapping)))}  # fmt: skip
    if known is not None:
        text = known.get_text_config(decoder=True)
        names = {*_fields(text), *_HEADS} - plain
        own = {key: value for key, value in text.to_dict().items() if key in names}
        for shared, name in text.attribute_map.items():
            own[shared] = getattr(text, name, None)
            own.pop(name, None)
    heads, width = own.get("num_attention_heads"), own.get("hidden_size")
    if isinstance(heads, int) and isinstance(width, int) and heads > 0:  # what a class takes where nothing is said
        own["head_dim"] = own.get("head_dim") or width // heads
        own["num_key_value_heads"] = own.get("num_key_value_heads") or heads
    return own


def _fields(config: Any) -> set[str]:
    return {field.name for field in fields(config)}


def _class_name(source: Source, config: dict[str, Any]) -> str:
    """The class of the model: that of config.json, unless transformers knows none of that name and takes its own.

    LLaMAForCausalLM was LlamaForCausalLM once, and a base model's class (LlamaModel) is of the same weights.
    """
    import transformers

    named = str((config.get("architectures") or [""])[0])
    if source.built is None or config.get("auto_map"):
        return named or str(config.get("model_type", "unknown"))
    model = source.built.model
    # An Auto class is none of a model.
    is_other = hasattr(getattr(transformers, named, None), "forward") and named != type(model.base_model).__name__
    return named if named and is_other else type(model).__name__


def _is_tied(source: Source, text: dict[str, Any]) -> bool:
    """Whether the head is the embedding: in the class, which may heed another part of the configuration than `text`."""
    if source.built is None:
        return bool(text.get("tie_word_embeddings", False))
    return any(name in source.built.vocabulary_axes for name in source.built.tied)


def full_config(source: Source) -> dict[str, Any]:
    """config.json with transformers' defaults filled in, if transformers knows the model (Gemma: tied by default)."""
    known = config_of(source.config)
    return known.to_dict() if known is not None else source.config


def is_quantised(config: Mapping[str, Any]) -> bool:
    """Whether a config.json, or one of its parts, says that the weights are quantised; null says that they are not."""
    parts = (value for value in config.values() if isinstance(value, Mapping))
    return any(config.get(key) for key in _QUANTISED) or any(map(is_quantised, parts))


def is_code(name: str, entry: TensorEntry) -> bool:
    """Whether a tensor is a quantised weight, by dtype and shape. Masks and position ids are whole numbers anyway."""
    if entry.dtype in FLOATS:
        return False
    is_float8 = entry.dtype.startswith("F")
    # Masks have four dimensions, experts in one tensor three.
    is_weight = 1 <= len(entry.shape) <= 3 and not name.endswith("position_ids")
    return is_float8 or is_weight


def tokens_of(folder: Path) -> dict[str, int] | None:
    """Token -> id, added tokens included; None where there is no tokenizer that can be read. Not to be changed."""
    return _tokenizer_in(folder).tokens


def token_rules(folder: Path) -> str:
    """A hash (8 hex digits) of how a text becomes tokens, beside what the tokens are; "none" if that cannot be read."""
    settings = {key: value for key, value in _json(folder / "tokenizer_config.json").items() if value and key in _RULES}
    rules = _tokenizer_in(folder).rules
    return "none" if rules == "none" else digest([rules, settings])


def tokenizer_digest(tokens: dict[str, int] | None) -> str:
    """8 hex digits for tokens and ids, or "none"."""
    return digest(sorted(tokens.items())) if tokens else "none"


@dataclass(frozen=True)
class _Tokenizer:
    """What a tokenizer's files say.

    Args:
        tokens: token -> id; None where they cannot be read.
        digest: of the tokens.
        added: how many added tokens, and the span of their ids.
        rules: a hash of how a text becomes tokens: how it is split and joined, and what is put around it.
    """

    tokens: dict[str, int] | None
    digest: str
    added: str
    rules: str = "none"


# By their digest: fine-tunes of one model share what has megabytes.
_TOKENS: dict[str, dict[str, int]] = {}


def _tokenizer_in(folder: Path) -> _Tokenizer:
    return _tokenizer(str(folder), tuple(file_stamp(folder / file) for file in _TOKENIZER_FILES))


@lru_cache(maxsize=64)  # fewer than a merge has sources, and each would be read again at each question
def _tokenizer(folder: str, _stamps: tuple[tuple[str, int, int, int, int], ...]) -> _Tokenizer:
    """Of files in this state, read once: they have megabytes, and every point of a plan asks for them."""
    found = plain = _plain_tokenizer(Path(folder))
    is_whole = plain.tokens is not None and _named_beside(Path(folder)) <= plain.tokens.keys()
    if not is_whole and any((Path(folder) / file).is_file() for file in _TOKENIZER_FILES if file not in _BESIDE):
        found = _by_transformers(folder) or plain
    if found.tokens is None or found.tokens != (same := _TOKENS.setdefault(found.digest, found.tokens)):
        return found
    return replace(found, tokens=same)


def _plain_tokenizer(folder: Path) -> _Tokenizer:
    """What its tokenizer.json says by itself."""
    content = _json(folder / "tokenizer.json")
    if not content:
        return _Tokenizer(None, "none", "none")
    try:
        vocabulary = content.get("model", {}).get("vocab", {})
        if isinstance(vocabulary, list):  # Unigram: [piece, score], the index is the id
            vocabulary = {piece: index for index, (piece, _) in enumerate(vocabulary)}
        added = {token["content"]: token["id"] for token in content.get("added_tokens", [])}
        tokens, ids = vocabulary | added, [int(token["id"]) for token in content.get("added_tokens", [])]
        return _Tokenizer(tokens, tokenizer_digest(tokens), _added(ids), _rules(content))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{folder / 'tokenizer.json'}: its vocabulary or its added tokens are not as tokenizers writes them "
            f"({one_line(repr(error)):.200}). Download the model again."
        ) from error


def _rules(content: Mapping[str, Any]) -> str:
    """A hash of what tokenizer.json says beside tokens; merges have two spellings, and false is what is not said."""
    model = {key: value for key, value in content.get("model", {}).items() if value and key not in ("vocab", "type")}
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model.pop("merges", [])]
    return digest([model, merges, [content.get(part) for part in ("normalizer", "pre_tokenizer", "post_processor")]])


def _added(ids: Collection[int]) -> str:
    return f"{len(ids)} ({min(ids)}-{max(ids)})" if ids else "none"


def _named_beside(folder: Path) -> set[str]:
    """The tokens that other files name. transformers adds those that tokenizer.json lacks, with numbers of its own."""
    found = set(_json(folder / "added_tokens.json"))
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        content = _json(folder / file)
        values = [value for key, value in content.items() if key.endswith(("_token", "_special_tokens"))]
        for value in (*values, content.get("added_tokens_decoder")):
            found |= _texts(value)
    return found


def _texts(value: Any) -> set[str]:
    """The texts of tokens: one, or several in a list or by their ids."""
    if isinstance(value, Mapping):
        return _texts(value["content"]) if "content" in value else _texts(list(value.values()))
    if isinstance(value, list):
        return {text for one in value for text in _texts(one)}
    return {value} if isinstance(value, str) else set()


def _by_transformers(folder: str) -> _Tokenizer | None:
    """What transformers makes of the files, without code that a model brings; None where it makes nothing of them."""
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        tokens, added = dict(found.get_vocab()), found.get_added_vocab().values()
        backend = getattr(found, "backend_tokenizer", None)
        rules = _rules(json.loads(backend.to_str())) if backend is not None else "none"
    except Exception:  # of files from anywhere, by many classes; who needs the tokenizer itself says what is wrong
        LOG.debug("%s: no tokenizer to be had", folder, exc_info=True)
        return None
    return _Tokenizer(tokens, tokenizer_digest(tokens), _added(added), rules)


def _special_tokens(folder: Path) -> dict[str, Any]:
    config = _json(folder / "tokenizer_config.json")
    return {key: value.get("content") if isinstance(value, dict) else value for key, value in config.items()}


def _generation(folder: Path) -> dict[str, Any]:
    return _json(folder / "generation_config.json")


def generation_of(folder: Path) -> dict[str, Any]:
    """What generation_config.json sets, but for the ids of special tokens, and what is what would hold anyway."""
    said = _generation(folder).items()
    kept = {key: value for key, value in said if value is not None and not _NO_GENERATION.search(key)}
    return {key: value for key, value in kept.items() if value != _PLAIN_GENERATION.get(key)}


def chat_template_of(folder: Path) -> str:
    """A hash of the chat template (8 hex digits), or "none"."""
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
        sets = {kind: _rope(config | {"rope_parameters": own}) if isinstance(own, dict) else _numbers(own)
                for kind, own in sorted(parameters.items()) if own is not None}  # fmt: skip
        return "; ".join(f"{kind}: {own}" for kind, own in sets.items())
    theta = parameters.pop("rope_theta", None) or config.get("rope_theta") or "default"
    kind = parameters.pop("rope_type", None) or parameters.pop("type", None) or "default"
    parameters.pop("type", None)
    for key in _OF_IMAGES:
        parameters.pop(key, None)
    if kind == "dynamic":  # it begins to stretch there
        parameters["max_position_embeddings"] = config.get("max_position_embeddings")
    theta = f"{theta:g}" if isinstance(theta, (int, float)) else str(theta)
    extra = ", ".join(f"{key} {_numbers(value)}" for key, value in sorted(parameters.items()) if value is not None)
    return theta if kind == "default" and not extra else f"{theta}, {kind}{', ' if extra else ''}{extra}"


def _numbers(value: Any) -> Any:
    """Whole numbers as such, however they are written: 8.0 is 8."""
    if isinstance(value, list):
        return [_numbers(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one. These files are optional, and whoever needs them reports damage."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
