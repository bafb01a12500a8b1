"""Do these sources fit together? A table of what they are, or a refusal that says why, before a weight is read.

Only headers and JSON files are read: config.json, generation_config.json, tokenizer files, and the tables at the start
of the safetensors files (`merge_hooks.sources.facts`).

There are three kinds of difference. One makes the merge meaningless or ambiguous: architectures, shapes, vocabularies,
numbers of heads. It stops the merge, and the message says what to change. One concerns what the merged model computes
with, which mergekit silently takes from one model: rope, tied embeddings, norms. It stops the merge unless the recipe
names that model with `base_model:`. One changes no weight: chat template, end tokens, dtype. It is a note that says
whose is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from merge_hooks.checks.fisher import map_problems
from merge_hooks.errors import PreflightError, explained
from merge_hooks.planning.output import OutputTensor
from merge_hooks.sources.adapter import LoraSource
from merge_hooks.sources.checkpoint import Source
from merge_hooks.sources.facts import (
    Facts,
    chat_template_of,
    facts_of,
    full_config,
    generation_of,
    is_code,
    is_quantised,
    token_rules,
    tokens_of,
)
from merge_hooks.stream.stream import Stream
from merge_hooks.texts import json_text, shortened

# What weights of equal shape mean. These must be equal.
_MEANING = ("num_attention_heads", "num_key_value_heads", "head_dim")
# Settings with which no text is read: of training, of other tasks, of how a result is computed or kept; what the tensors'
# shapes say, too; and what `rope`, `tied` and `layer_types` say again (LFM2's `full_attn_idxs`). All others are computed
# with.
_IDLE = re.compile(
    r"drop|init|loss|jitter|_std(_|$)|variance|_token_id|vocab|^summary_|^classifier|^output_(router|attentions|hidden)"
    r"|^(use_cache|pretraining_tp|num_hidden_layers|(original_)?max_position_embeddings|seq_length|model_max_length)$"
    r"|^(intermediate_size|n_inner|block_auto_adjust_ff_dim|block_ffn_dim_multiplier|block_multiple_of|full_attn_idxs)$"
    r"|^rope_(?!interleave)|^rotary_(base|emb_base|pct)$|^partial_rotary|^tie_|max_window_layers|use_sliding_window|sliding_window_pattern"
    r"|nextn|mtp|kernels?$|mambapy|associative_scan|^(mamba_)?chunk_size$|num_logits_to_keep|^is_decoder$|add_cross_attention"
)
# Tensors that only quantised checkpoints have (GPTQ and AWQ, compressed-tensors, float8, bitsandbytes).
_PACKED = re.compile(r"\.(qweight|qzeros|weight_packed|weight_scale|weight_scale_inv|SCB|absmax)$|\.quant_state\.")
# Unsloth's names of models for QLoRA: the adapter is for the model that was quantised.
_FOR_TRAINING = re.compile("(-unsloth)?-bnb-4bit$")
_BY_DEFAULT = " (config.json does not say; transformers' class does by default)"
# What changes no weight: the donor's is used.
_NOTED = {"template": "chat template", "generation eos": "generation eos", "dtype": "dtype of the files",
          "bos": "bos token", "eos": "eos token", "pad": "pad token"}  # fmt: skip


@explained("the sources cannot be compared")
def check_fit(stream: Stream) -> list[dict[str, str]]:
    """The table of sources, if they fit together.

    Returns:
        One row for each source, its facts by name (`merge_hooks.sources.facts`).
    Raises:
        PreflightError: they do not fit; the message holds every reason and how to mend it.
    """
    sources = _merged_sources(stream)
    facts = [facts_of(source) for source in sources]
    problems = [*_kinds(sources), *_architectures(stream, sources, facts)]
    if not problems:
        problems = [*_experts(sources)] or [*_tensors(stream)]
        problems += [*_computing(stream, facts, bool(problems))]
        problems += [*_quantised(stream), *_vocabularies(stream, sources, facts)]
        problems += [*_tied(facts), *_contradictory_heads(sources), *map_problems(stream)]
    if not problems:
        problems = [*_tokens_without_rows(stream, sources, facts)]
    if problems:
        listed = "\n- ".join(problems)
        raise PreflightError(f"these models do not merge as they are:\n- {listed}\n{table(_rows(facts))}")
    return _rows(facts)


@explained("the sources cannot be compared")
def fit_notes(stream: Stream) -> list[str]:
    """Differences that change no weight, each with the source that is followed."""
    from merge_hooks.stream.tokenizer import tokenizer_owner

    sources = _merged_sources(stream)
    facts = [facts_of(source) for source in sources]
    owner, _ = tokenizer_owner(stream)
    notes = [note for note in (_computing_note(name, facts) for name in _settings(facts)) if note]
    for key, words in _NOTED.items():
        values = {item.name: item.row[key] for item in facts}
        if len(set(values.values())) < 2:
            continue
        if key == "dtype":
            notes.append(f"the {words} differs ({_listed(values)}); merged in {_merge_dtype(stream)}.")
        else:
            notes.append(f"the {words} differs ({_listed(values)}); that of {owner.name} is used.")
    windows = {item.name: str(item.computing.get("max_position_embeddings")) for item in facts}
    if len(set(windows.values())) > 1:
        notes.append(f"`max_position_embeddings` differs ({_listed(windows)}); the window is that of {facts[0].name}.")
    notes += [
        f"`slices:` merges layers of unlike kinds (`{key}`) with each other; each is of the kind of the first model's."
        for key in stream.plan.unlike_layers
    ]
    notes += [*_reading_and_writing(sources, owner), *_of_adapters(sources)]
    return [*notes, *_not_compared(stream, sources), *_left_out(stream, sources)]


def _reading_and_writing(sources: list[Source], owner: Source) -> Iterator[str]:
    """How a text becomes tokens, and how one is written: that of one source."""
    rules = {source.name: own for source in sources if (own := token_rules(source.folder)) != "none"}
    settings = {source.name: json_text(generation_of(source.folder), sort_keys=True) for source in sources}
    for words, values in {"rules by which texts become tokens": rules, "generation settings": settings}.items():
        if len(set(values.values())) > 1:
            listed = _listed({name: shortened(value, 200) for name, value in values.items()})
            yield f"the {words} differ ({listed}); those of {owner.name} are used."


def _of_adapters(sources: list[Source]) -> Iterator[str]:
    """What an adapter says of its base, and what it brings beside weights."""
    for source in sources:
        if not isinstance(source, LoraSource):
            continue
        said = str(source.settings.get("base_model_name_or_path") or "")
        if said and _own_name(said) not in (_own_name(source.base.name), _own_name(str(source.folder))):
            yield f"{source.adapter_name} says that it was trained on {shortened(said, 200)}; it is put on {source.base.name}."
        own = tokens_of(source.adapter), chat_template_of(source.adapter)
        base = tokens_of(source.folder), chat_template_of(source.folder)
        brought = [words for words, mine, theirs in zip(("tokenizer", "chat template"), own, base, strict=True)
                   if mine not in (None, "none", theirs)]  # fmt: skip
        if brought:
            yield (
                f"{source.adapter_name} brings a {' and a '.join(brought)} of its own, and that of {source.base.name} is used. "
                f"tokenizer={source.adapter} takes the adapter's."
            )


def _own_name(model: str) -> str:
    """A model's name without its owner, folder, revision and what says that it was quantised for the training."""
    parts = Path(model).parts
    hub = next((part for part in parts if part.startswith("models--")), "")  # .../models--owner--name/snapshots/COMMIT
    name = hub.rpartition("--")[2] or Path(model).name
    return _FOR_TRAINING.sub("", name.partition("@")[0].lower())


def _not_compared(stream: Stream, sources: list[Source]) -> Iterator[str]:
    """Sources without a tokenizer that can be read: whether rows of one number mean one token is not known."""
    without = [source.name for source in sources if not tokens_of(source.folder)]
    if without and len(sources) > 1 and stream.plan.tokenizer_task is None:
        yield (
            f"{', '.join(without)} has no tokenizer that can be read, so whether its rows mean the same tokens as those of "
            "the other models is not known; they are merged as if they did."
        )


def _left_out(stream: Stream, sources: list[Source]) -> Iterator[str]:
    """What is in the files and not merged: towers, copies of a tied head, second copies with other numbers."""
    for source in _checkpoints(sources):
        if found := list(source.copies_that_differ()):
            yield (
                f"{source.name} holds {len(found)} tensors twice, with other numbers: {found[0]}. transformers and vLLM may read "
                "the other one. Remove what is not meant."
            )
    taken = [output.name for output in stream.plan if output.taken]
    if taken:
        yield (
            f"{len(taken)} tensors that no text is read with (vision or audio tower, projector, e.g. {taken[0]}) are those "
            f"of {stream.plan.donor.name}, not merged. A `filter` in the recipe that names them merges them."
        )
    copies = {source.name: name for source in sources for name in _second_names(source)}
    if copies:
        name, head = next(iter(copies.items()))
        yield (
            f"{', '.join(copies)} holds a copy of the head ({head}), which its config.json ties to the embedding: it is left "
            "out, and the merged head is the merged embedding. mergekit-yaml merges the copy by itself; transformers 5 "
            f"would score its checkpoint with that. Remove {head} from the files of {name} to have both agree."
        )


def table(rows: list[dict[str, str]]) -> str:
    """One line for each fact, one column for each source; `*` marks the lines in which sources differ."""
    if not rows:
        return ""
    keys = list(rows[0])
    lines = [["", "model", *(row["model"] for row in rows)]]
    for key in keys[1:]:
        values = [row[key] for row in rows]
        lines.append(["*" if len(set(values)) > 1 else "", key, *values])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
                     for line in lines)  # fmt: skip


def _rows(facts: list[Facts]) -> list[dict[str, str]]:
    return [item.row for item in facts]


def _merged_sources(stream: Stream) -> list[Source]:
    """The sources whose weights are merged, and before them the one whose configuration the merge has.

    A source that only lends its tokenizer need not fit.
    """
    used = {key for output in stream.plan for key in output.inputs} | {stream.resolved.donor.key}
    return [source for key, source in stream.resolved.sources.items() if key in used]


def _merge_dtype(stream: Stream) -> str:
    config = stream.resolved.config
    return config.dtype or config.out_dtype or "the dtype of the base or first model"


def _listed(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _kinds(sources: list[Source]) -> Iterator[str]:
    for source in sources:
        packed = next(filter(_PACKED.search, source.stored), "")
        if is_quantised(source.config) or packed:
            found = f" ({packed} in its files)" if packed else ""
            yield f"{source.name} is quantised{found}; merge the original weights instead."


def _architectures(stream: Stream, sources: list[Source], facts: list[Facts]) -> Iterator[str]:
    first, *others = facts
    siblings = {source.name for source in sources if source.key in stream.plan.siblings}
    for item in others:
        if item.name in siblings:
            continue
        if item.row["architecture"] != first.row["architecture"]:
            yield (
                f"{item.name} is a {item.row['architecture']}, {first.name} a {first.row['architecture']}: "
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
            held = source.first_held(names)
            if held is not None:
                shapes[source.name] = _comparable(source.entries[held].shape, output, aligned)
            elif not output.is_optional:
                missing.setdefault(source.name, []).append(names[0])
        if len(set(shapes.values())) > 1:
            unequal.append(_unequal(output, shapes))
    for name, tensors in missing.items():
        yield _missing(stream, name, tensors)
    if not missing and not stream.plan.is_a_model:
        yield (
            "transformers makes no model of the merged configuration. With `slices:`, a setting that has an entry for each "
            "layer is one that cannot be stacked here; merge whole models."
        )
    if not missing and (uncovered := stream.plan.uncovered()):
        yield (
            f"nothing in these models fills {len(uncovered)} tensors of the merged model, e.g. {uncovered[0]}. Are the "
            "checkpoints whole? With `slices:`, layers of each kind must come where the configuration wants them."
        )
    if not missing and not unequal and (misshapen := stream.plan.misshapen()):
        name, (own, wanted) = next(iter(misshapen.items()))
        donor = stream.resolved.donor.name
        yield (
            f"{len(misshapen)} tensors have another shape than the configuration of {donor} gives them, e.g. {name} is "
            f"{'x'.join(map(str, own))} and should be {'x'.join(map(str, wanted))}. Is its config.json that of these weights? "
            "Mend it (`vocab_size` is the number of an embedding's rows), or download the model again."
        )
    yield from unequal[:3]
    if len(unequal) > 3:
        yield f"... and {len(unequal) - 3} more tensors of unequal shape."


def _experts(sources: list[Source]) -> Iterator[str]:
    """Tensors that are made of several, and do not become what the configuration wants: experts are missing."""
    for source in sources:
        if source.built is None or source.conversion is None:
            continue
        wanted = source.built.shapes
        unequal = [(part, name) for part in source.conversion.parts if part.converter is not None
                   for name, shape in part.shapes.items() if wanted.get(name, shape) != shape]  # fmt: skip
        if unequal:
            part, name = unequal[0]
            yield (
                f"{source.name}: the {len(part.sources)} tensors of its files that make {name} (e.g. "
                f"{next(iter(part.sources))}) are {'x'.join(map(str, part.shapes[name]))} together, and its config.json "
                f"wants {'x'.join(map(str, wanted[name]))}. Are all experts in its files? Download it again."
            )


def _quantised(stream: Stream) -> Iterator[str]:
    """Weights that are not floating-point numbers: without their scales, a merge would mix codes, not values."""
    strange: dict[str, list[str]] = {}
    for output in stream.plan:
        for key, held in output.held.items():
            source = output.sources[key]
            if is_code(held, source.entries[held]):
                strange.setdefault(source.name, []).append(f"{held} is {source.entries[held].dtype}")
    for name, tensors in strange.items():
        yield (
            f"{name} holds {len(tensors)} weights that are no floating-point numbers, e.g. {tensors[0]}: it is quantised, "
            "though its config.json does not say so. Merge the original weights (bfloat16, float16 or float32) instead."
        )


def _missing(stream: Stream, name: str, tensors: list[str]) -> str:
    source = next(source for source in stream.resolved.sources.values() if source.name == name)
    lacks = f"{name} lacks {len(tensors)} tensors, e.g. {tensors[0]}"
    layers = source.config.get("num_hidden_layers")
    layer = next((int(part) for part in tensors[0].split(".") if part.isdigit()), None)
    if isinstance(layers, int) and layer is not None and layer >= layers:
        return (
            f"{lacks}: it has {layers} layers, 0 to {layers - 1}. In a recipe `layer_range: [0, {layers}]` is all of "
            "them (the end is not included); mend the `layer_range`."
        )
    return f"{lacks}. Download it again, or use another checkpoint."


def _comparable(shape: tuple[int, ...], output: OutputTensor, aligned: bool) -> tuple[int, ...]:
    """The shape without the vocabulary axis, if the recipe says how vocabularies are aligned."""
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


def _vocabularies(stream: Stream, sources: list[Source], facts: list[Facts]) -> Iterator[str]:
    """Embeddings of one shape whose rows mean different tokens: mergekit would add them up silently."""
    if stream.plan.tokenizer_task is not None:
        return
    known = {source.name: tokens for source in sources if (tokens := tokens_of(source.folder))}
    if len(known) < 2:
        return
    for item in facts:  # a pad that somebody wrote into tokenizer_config.json: no row is for it, and no text holds it
        tokens, pad, rows = known.get(item.name, {}), item.row["pad"], item.row["embedding rows"]
        if rows.isdigit() and tokens.get(pad, 0) >= int(rows):
            known[item.name] = {token: index for token, index in tokens.items() if token != pad}
    (first, tokens), *others = known.items()
    for name, own in others:
        if own != tokens:
            yield (
                f"{_token_difference(first, tokens, name, own)} Say in the recipe which tokenizer holds: "
                "`tokenizer_source: base`, `tokenizer_source: union` or `tokenizer_source: MODEL`."
            )


def _tokens_without_rows(stream: Stream, sources: list[Source], facts: list[Facts]) -> Iterator[str]:
    """Tokens that the merged tokenizer has and a source's embedding has no row for: mergekit stops at them."""
    tokenizer = stream.tokenizer
    if tokenizer is None:
        return
    kept = tokenizer.get_vocab()
    for source, own in zip(sources, facts, strict=True):
        rows = own.computing.get("vocab_size")
        beyond = {token: index for token, index in (tokens_of(source.folder) or {}).items()
                  if token in kept and isinstance(rows, int) and index >= rows}  # fmt: skip
        if beyond:
            token = min(beyond, key=lambda one: beyond[one])
            yield (
                f"the tokenizer of {source.name} has {len(beyond)} tokens that its embedding of {rows} rows does not hold, "
                f"e.g. {token!r}, which is {beyond[token]}. Give it the rows once: `model.resize_token_embeddings("
                "len(tokenizer))` and save it; or take the tokenizer of the model that it was trained from."
            )
    yield from _added_tokens(stream)


def _added_tokens(stream: Stream) -> Iterator[str]:
    """Tokens of `tokens:` that mergekit adds to the base's own tokenizer, for which it then wants a row of the base."""
    settings = stream.resolved.config.tokenizer
    if settings is None or settings.source != "base":
        return
    base = stream.resolved.donor
    added = [token for token in settings.tokens or {} if token not in (tokens_of(base.folder) or {})]
    if added:
        yield (
            f"`tokenizer:`, `tokens:` gives {', '.join(map(repr, added[:3]))} a row, and {base.name}, whose tokenizer is "
            "the merge's (`source: base`), has no such token; mergekit then stops. Write `source: union`, or the path of "
            "a model that has it."
        )


def _token_difference(first: str, tokens: dict[str, int], name: str, own: dict[str, int]) -> str:
    by_id = {index: token for token, index in tokens.items()}
    clashes = [(index, token) for token, index in own.items() if index in by_id and by_id[index] != token]
    if clashes:
        index, token = min(clashes)
        return (
            f"the tokenizers give different tokens to the same ids ({len(clashes)} of them, e.g. {index} is "
            f"{by_id[index]!r} in {first} and {token!r} in {name})."
        )
    more, where, lacks = (own.keys() - tokens.keys(), name, first)
    if not more:
        more, where, lacks = (tokens.keys() - own.keys(), first, name)
    example = min(more)
    return f"the tokenizer of {where} has {len(more)} tokens that {lacks} lacks, e.g. {example!r}."


def _tied(facts: list[Facts]) -> Iterator[str]:
    """A tied donor and an untied source: the merge would have a head that the tied model does not use."""
    untied = [item.name for item in facts if not item.computing["tied"]]
    if facts[0].computing["tied"] and untied:
        yield (
            f"{facts[0].name} ties its head to its embedding, {', '.join(untied)} has a head of its own, which the merge "
            f"would lose in vLLM and keep in transformers. Name {untied[0]} as `base_model:`, whose configuration "
            "the merge then follows."
        )


def _contradictory_heads(sources: list[Source]) -> Iterator[str]:
    """A tied checkpoint whose files hold a different head: transformers 5 uses that head, vLLM does not."""
    import torch

    for source in _checkpoints(sources):
        for head, embedding in _second_names(source).items():
            if not torch.equal(source.read(embedding), source.read(head)):
                yield (
                    f"{source.name}: its configuration ties head and embedding{'' if _says_tied(source.config) else _BY_DEFAULT}, but its "
                    "files hold a head that differs: "
                    "transformers would use it, vLLM would not. If the head is meant, set `tie_word_embeddings: false` in "
                    f"its config.json; if not, remove {head} from its files."
                )


def _checkpoints(sources: list[Source]) -> list[Source]:
    """Those that lie in files, also below an adapter."""
    return [found for source in sources if type(found := getattr(source, "base", source)) is Source]


def _says_tied(config: Mapping[str, Any]) -> bool:
    """Whether a config.json, or one of its parts, speaks of tying at all."""
    parts = (value for value in config.values() if isinstance(value, Mapping))
    return "tie_word_embeddings" in config or any(map(_says_tied, parts))


def _second_names(source: Source) -> dict[str, str]:
    """The tensors of its files that are others of its files, tied: a head and its embedding."""
    if source.built is not None:
        tied = source.built.tied
    else:
        is_tied = full_config(source).get("tie_word_embeddings")
        tied = {"lm_head.weight": "model.embed_tokens.weight"} if is_tied else {}
    held = source.entries
    return {second: first for second, first in tied.items() if second in held and first in held}


def _computing(stream: Stream, facts: list[Facts], do_shapes_differ: bool) -> Iterator[str]:
    """Differences in what the merged model computes with."""
    for name in _MEANING:
        values = {item.name: item.computing.get(name) for item in facts}
        if len(set(map(str, values.values()))) > 1:
            listed = _listed({key: str(value) for key, value in values.items()})
            yield f"`{name}` differs ({listed}), so equal shapes mean different things. Merge models of one family."
    if do_shapes_differ or stream.resolved.config.base_model is not None:
        return  # the recipe says whose configuration holds; fit_notes names it
    for name in _settings(facts):
        note = _computing_note(name, facts)
        if note:
            yield (
                f"{note[:-1]} only because it is written first. Say so in the recipe: name the model whose "
                "configuration holds as `base_model:` (and list it among the models, if it is merged like the others)."
            )


def _settings(facts: list[Facts]) -> list[str]:
    """The settings with which all of these models compute."""
    shared = set.intersection(*(set(item.computing) for item in facts))
    return sorted(name for name in shared if name not in _MEANING and not _IDLE.search(name))


def _computing_note(name: str, facts: list[Facts]) -> str | None:
    values = {item.name: item.computing[name] for item in facts}
    first, *others = map(_said, values.values())
    if all(value == first for value in others):
        return None
    if isinstance(first, list) and any(isinstance(value, list) and len(value) != len(first) for value in others):
        return None  # one entry a layer, and other numbers of layers, which `slices:` take apart
    listed = _listed({key: shortened(str(value), 100) for key, value in values.items()})
    return f"`{name}` differs ({listed}); the merged model computes with that of {facts[0].name}."


def _said(value: Any) -> Any:
    """A setting to be compared: nothing, false and empty are one."""
    return None if value is False or value in ((), [], {}) else list(value) if isinstance(value, tuple) else value
