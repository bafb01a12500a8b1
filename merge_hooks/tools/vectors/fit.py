"""Which tensors of several vectors can be compared, and why others cannot, from headers and JSON files alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from merge_hooks.errors import PreflightError, SourceError
from merge_hooks.sources.adapter import LoraSource
from merge_hooks.sources.checkpoint import Source
from merge_hooks.sources.facts import facts_of, full_config, tokenizer_digest, tokens_of
from merge_hooks.sources.headers import FLOATS

if TYPE_CHECKING:
    from merge_hooks.tools.vectors.vector import Vector

_VOCABULARY = ("embed_tokens.weight", "lm_head.weight")
# Computed from the configuration, kept in some old checkpoints, and never trained.
_BUFFERS = (".rotary_emb.inv_freq", ".attn.masked_bias", ".attn.bias")
_MEANING = ("num_attention_heads", "num_key_value_heads", "head_dim")


def comparable(vectors: Sequence[Vector]) -> tuple[list[str], list[str]]:
    """The tensors that the cosines use, and notes: what was left out, and what to know.

    Raises:
        PreflightError: there are fewer than two vectors, or they differ in architecture or shape.
        SourceError: a source lacks tensors, or is quantised.
    """
    if len(vectors) < 2:
        raise PreflightError(
            f"{len(vectors)} vector{'s' * (not vectors)} to compare: there must be two. A recipe gives one for each of "
            "its models that is not its base."
        )
    _refuse_other_architectures(vectors)
    names = _adapted(vectors) or _all_tensors(vectors)
    apart = list(_vocabulary_notes(vectors, names))
    if apart:
        names = [name for name in names if not name.endswith(_VOCABULARY)]
    _refuse_other_shapes(vectors, names)
    if not names:
        raise PreflightError("these vectors have no tensor in common that could be compared.\n- " + "\n- ".join(apart))
    return names, [*apart, *_base_notes(vectors)]


def shape_in(vector: Vector, tensor: str) -> tuple[int, ...] | None:
    """The shape of a vector's tensor; None if an adapter without a base does not touch it."""
    source = vector.source
    if vector.base is not None or not isinstance(source, LoraSource):
        return source.entries[tensor].shape
    if tensor not in source.factors:
        return None
    pair, held = source.factors[tensor], source.adapter_entries
    shape = (held[pair.b].shape[0], held[pair.a].shape[1])
    return shape[::-1] if pair.is_transposed else shape


def _sources(vectors: Iterable[Vector]) -> dict[str, Source]:
    """Every checkpoint behind the vectors, bases first, each once."""
    found = {vector.base.key: vector.base for vector in vectors if vector.base is not None}
    return found | {vector.source.key: vector.source for vector in vectors if vector.base is not None}


def _refuse_other_architectures(vectors: Sequence[Vector]) -> None:
    facts = [facts_of(source) for source in _sources(vectors).values()]
    for item in facts[1:]:
        first = facts[0]
        differing = [key for key in _MEANING if item.computing.get(key) != first.computing.get(key)]
        if item.row["architecture"] != first.row["architecture"]:
            differing.append("architecture")
        if differing:
            raise PreflightError(
                f"{item.name} and {first.name} differ in {', '.join(differing)}, so their weights do not correspond. "
                "Compare models of one family and size."
            )


def _adapted(vectors: Sequence[Vector]) -> list[str]:
    """If every vector is an adapter on its own base: the tensors that any of them touches. Nothing else has moved."""
    found: dict[str, None] = {}
    for vector in vectors:
        source = vector.source
        if not isinstance(source, LoraSource):
            return []
        if vector.base is None:
            _refuse_needs_base(source)
        elif source.base.key != vector.base.key:
            return []
        else:
            _ = source.entries  # checked against the base
        found |= dict.fromkeys([*source.factors, *source.replaced])
    return list(found)


def _refuse_needs_base(source: LoraSource) -> None:
    settings = source.settings
    whole = [*source.replaced] or [weight for weight, pair in source.factors.items() if pair.magnitude]
    if whole:
        what = "brings it whole" if whole[0] in source.replaced else "DoRA"
        raise SourceError(
            f"{source.adapter_name}: {whole[0]} ({what}) is no product of two factors, so the adapter's base is needed "
            f"({settings.get('base_model_name_or_path') or 'it does not say which'}). Name it with --base."
        )
    missing = [pair.b for pair in source.factors.values() if pair.b not in source.adapter_entries]
    if missing or not source.factors:
        raise SourceError(
            f"{source.adapter_name}: it holds {'no ' + missing[0] if missing else 'no LoRA factors'}. Copy it again."
        )


def _all_tensors(vectors: Sequence[Vector]) -> list[str]:
    """The weights that every source has. Raises SourceError where one has more or fewer than the first base."""
    if alone := [vector.name for vector in vectors if vector.base is None]:
        raise PreflightError(
            f"{alone[0]} is an adapter by itself beside models with full weights. Name its base with --base."
        )
    sources = list(_sources(vectors).values())
    first, *others = (dict.fromkeys(_weights(source)) for source in sources)
    for source, held in zip(sources[1:], others, strict=True):
        if unequal := first.keys() ^ held.keys():
            example = min(unequal)
            side = sources[0].name if example not in first else source.name
            raise SourceError(
                f"{source.name} and {sources[0].name} do not hold the same {len(first)} weights: {len(unequal)} are in "
                f"one of them only, e.g. {example}, which {side} lacks. Download both again, or use other checkpoints."
            )
    return list(first)


def _weights(source: Source) -> Iterator[str]:
    """The names of what is trained. A tied head is the embedding again, so it does not count."""
    tied = full_config(source).get("tie_word_embeddings")
    for name, entry in source.stored.items():
        if name.endswith(_BUFFERS) or (tied and name.endswith("lm_head.weight")):
            continue
        if entry.dtype not in FLOATS:
            raise SourceError(f"{source.name}: {name} is {entry.dtype}; it is quantised. Use the original weights.")
        yield name


def _vocabulary_notes(vectors: Sequence[Vector], names: Sequence[str]) -> Iterator[str]:
    """Why embedding and head are left out: rows that mean different tokens cannot be compared."""
    touched = sorted((name for name in names if name.endswith(_VOCABULARY)), reverse=True)
    if not touched:
        return
    sources = _sources(vectors).values()
    rows = {source.name: source.entries[name].shape[0] for name in touched for source in sources}
    known = {source.name: tokens for source in sources if (tokens := tokens_of(source.folder))}
    listed = ", ".join(name.removeprefix("model.").removesuffix(".weight") for name in touched)
    if len(set(rows.values())) > 1:
        sizes = ", ".join(f"{name} {count}" for name, count in rows.items())
        yield f"left out: {listed}. The vocabularies differ ({sizes} rows)."
    elif len({tokenizer_digest(tokens) for tokens in known.values()}) > 1:
        prints = ", ".join(f"{name} {tokenizer_digest(tokens)}" for name, tokens in known.items())
        yield f"left out: {listed}. The tokenizers give other tokens to the same ids ({prints})."


def _refuse_other_shapes(vectors: Sequence[Vector], names: Sequence[str]) -> None:
    bases = list(_sources(vectors).values())
    for name in names:
        shapes = {vector.name: shape for vector in vectors if (shape := shape_in(vector, name)) is not None}
        shapes |= {source.name: source.entries[name].shape for source in bases}
        if len(set(shapes.values())) > 1:
            listed = ", ".join(f"{key} {'x'.join(map(str, shape))}" for key, shape in shapes.items())
            raise PreflightError(f"{name} differs in shape: {listed}. Compare models of one family and size.")


def _base_notes(vectors: Sequence[Vector]) -> Iterator[str]:
    """A note if vectors have different bases. They are compared all the same."""
    bases = {vector.name: _base_name(vector) for vector in vectors}
    if len(set(bases.values())) > 1:
        listed = ", ".join(f"{name} from {base}" for name, base in bases.items())
        yield f"the vectors do not start from one base: {listed}."


def _base_name(vector: Vector) -> str:
    if vector.base is not None:
        return vector.base.name
    assert isinstance(vector.source, LoraSource)
    return str(vector.source.settings.get("base_model_name_or_path") or "an unnamed base")
