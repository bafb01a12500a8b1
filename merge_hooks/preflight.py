"""Do these sources fit together? A table of what they are, or a refusal that says why, before a weight is read.

Only headers and JSON files are read: config.json, generation_config.json, tokenizer.json, and the tables at the
start of the safetensors files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from merge_hooks._mergekit import OutputTensor
from merge_hooks.errors import PreflightError
from merge_hooks.sources import Source
from merge_hooks.stream import Stream
from merge_hooks.tokenizer import vocabulary_hash

# Keys of a config that say: not a dense text decoder. Their weights may reload wrongly in vLLM (stack.md), so
# they are refused instead of being scored wrongly.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_RECURRENT = ("mamba", "linear_attention", "recurrent", "conv")


def check_fit(stream: Stream) -> list[dict[str, str]]:
    """The table of sources, if they fit together.

    Returns:
        One row a source: model, architecture, layers, hidden, vocabulary, tied, dtype, tokenizer.
    Raises:
        PreflightError: they do not; the message holds every reason, each with its fix.
    """
    sources = list(stream.resolved.sources.values())
    problems = [*_kinds(sources), *_architectures(sources)]
    if not problems:
        problems = [*_tensors(stream), *_vocabularies(stream)]
    rows = [describe(source) for source in sources]
    if problems:
        raise PreflightError("these models do not merge as they are:\n- " + "\n- ".join(problems) + "\n" + table(rows))
    return rows


def describe(source: Source) -> dict[str, str]:
    """One row of the table, from a source's config and headers."""
    config = source.config
    embedding = next((entry for name, entry in source.entries.items() if name.endswith("embed_tokens.weight")), None)
    rows = embedding.shape[0] if embedding else "?"
    return {
        "model": source.name,
        "architecture": _architecture(config),
        "layers": str(config.get("num_hidden_layers", "?")),
        "hidden": str(config.get("hidden_size", "?")),
        "vocabulary": f"{config.get('vocab_size', '?')} ({rows} rows)",
        "tied": "yes" if _is_tied(config) else "no",
        "dtype": "/".join(sorted({entry.dtype for entry in source.entries.values()})),
        "tokenizer": vocabulary_hash(source.folder) or "none",
    }


def table(rows: list[dict[str, str]]) -> str:
    """Rows as aligned plain text."""
    if not rows:
        return ""
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    lines = [" ".join(f"{key:<{widths[key]}}" for key in widths)]
    lines += [" ".join(f"{row[key]:<{widths[key]}}" for key in widths) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _architecture(config: dict[str, Any]) -> str:
    return (config.get("architectures") or [config.get("model_type", "unknown")])[0]


def _is_tied(config: dict[str, Any]) -> bool:
    # transformers ties unless told otherwise for the families that are saved tied; configs say it out loud.
    return bool(config.get("tie_word_embeddings", False))


def _kinds(sources: list[Source]) -> Iterator[str]:
    for source in sources:
        config = source.config
        if any((config.get(key) or 0) > 1 for key in _EXPERTS):
            yield f"{source.name} is a mixture of experts; only dense text decoders are supported so far."
        if any(word in str(kind) for kind in config.get("layer_types") or () for word in _RECURRENT):
            yield f"{source.name} has recurrent layers; only dense text decoders are supported so far."
        if "vision_config" in config or "audio_config" in config:
            yield f"{source.name} is multimodal; only dense text decoders are supported so far."
        if "quantization_config" in config:
            yield f"{source.name} is quantised; merge the original weights instead."


def _architectures(sources: list[Source]) -> Iterator[str]:
    first = sources[0]
    for source in sources[1:]:
        if _architecture(source.config) != _architecture(first.config):
            yield (
                f"{source.name} is a {_architecture(source.config)}, {first.name} a {_architecture(first.config)}: "
                "weights of different architectures do not correspond. Merge models of one family."
            )


def _tensors(stream: Stream) -> Iterator[str]:
    """Missing tensors and shapes that differ, the first few of each kind."""
    missing: dict[str, list[str]] = {}
    unequal: list[str] = []
    aligned = stream.plan.tokenizer_task is not None
    for output in stream.plan:
        shapes = {}
        for key, names in output.inputs.items():
            source = stream.resolved.sources[key]
            held = next((name for name in names if name in source.entries), None)
            if held is not None:
                shapes[source.name] = _comparable(source.entries[held].shape, output, aligned)
            elif not output.is_optional:
                missing.setdefault(source.name, []).append(names[0])
        if len(set(shapes.values())) > 1:
            unequal.append(_unequal(output, shapes))
    for name, tensors in missing.items():
        yield f"{name} lacks {len(tensors)} tensors, e.g. {tensors[0]}. Download it again, or use another checkpoint."
    yield from unequal[:3]
    if len(unequal) > 3:
        yield f"... and {len(unequal) - 3} more tensors of unequal shape."


def _comparable(shape: tuple[int, ...], output: OutputTensor, aligned: bool) -> tuple[int, ...]:
    """The shape without the vocabulary axis, where the recipe says how vocabularies are aligned."""
    if not aligned or output.vocabulary_axis is None:
        return shape
    return shape[: output.vocabulary_axis] + shape[output.vocabulary_axis + 1 :]


def _unequal(output: OutputTensor, shapes: dict[str, tuple[int, ...]]) -> str:
    listed = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    if output.vocabulary_axis is None:
        return f"{output.name} differs in shape: {listed}. Merge models of one size and family."
    return (
        f"{output.name} differs in vocabulary: {listed}. Say in the recipe how the vocabularies meet: "
        "`tokenizer_source: base` (keep the base model's) or `tokenizer_source: union` (keep every token)."
    )


def _vocabularies(stream: Stream) -> Iterator[str]:
    """Embeddings of one shape whose rows mean different tokens: mergekit would add them up without a word."""
    if stream.plan.tokenizer_task is not None:
        return
    hashes = {source.name: vocabulary_hash(source.folder) for source in stream.resolved.sources.values()}
    known = {name: value for name, value in hashes.items() if value is not None}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{name} {value}" for name, value in known.items())
        yield (
            f"the tokenizers give different tokens to the same ids ({listed}). Say in the recipe which one holds: "
            "`tokenizer_source: base`, `tokenizer_source: union` or `tokenizer_source: MODEL`."
        )
