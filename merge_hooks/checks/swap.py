"""May this merge be put into an engine that runs another one? Everything that a swap does not change must be equal.

A swap changes only weights. The engine goes on computing with the configuration that it was started with, and its
caller goes on reading and writing with the same tokenizer. So both must be those of the new merge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from merge_hooks.checks.preflight import check_fit
from merge_hooks.errors import PreflightError

if TYPE_CHECKING:
    from merge_hooks.stream.stream import Stream

# Keys of a configuration that do not change how weights are used. The engine has a dtype of its own.
_WITHOUT_EFFECT = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache",
                   "bos_token_id", "eos_token_id", "pad_token_id")  # fmt: skip


def check_swap(running: Stream, new: Stream) -> list[dict[str, str]]:
    """Check, before a weight is changed, that `new` can follow `running` in one engine.

    Returns:
        The table of the new merge's sources, as from `check_fit`.
    Raises:
        PreflightError: its sources do not fit together, or it is a different model from the one that the engine runs.
    """
    rows = check_fit(new)
    problems = [*_configurations(running, new), *_tensors(running, new)]
    if problems:
        listed = "\n- ".join(problems)
        raise PreflightError(
            f"{new.resolved.recipe.origin}: this merge cannot take the place of {running.resolved.recipe.origin} in a "
            f"running engine; start a new one for it.\n- {listed}"
        )
    return rows


def engine_facts(stream: Stream) -> dict[str, Any]:
    """What two merges must share to follow each other in one engine, as plain data, for a key."""
    _ = stream.tokenizer  # building it sets the vocabulary's size in the configuration
    return _computing(stream)


def _configurations(running: Stream, new: Stream) -> list[str]:
    """Differences in what the two models compute with."""
    for stream in (running, new):
        _ = stream.tokenizer  # building it sets the vocabulary's size in the configuration
    ours, theirs = _computing(new), _computing(running)
    return [
        f"`{key}` of the configuration is {ours.get(key)!r:.80}, in the engine {theirs.get(key)!r:.80}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]


def _computing(stream: Stream) -> dict[str, Any]:
    return {key: value for key, value in stream.model_config.to_dict().items() if key not in _WITHOUT_EFFECT}


def _tensors(running: Stream, new: Stream) -> list[str]:
    """Differences in names and shapes, the first few."""
    ours, theirs = _shapes(new), _shapes(running)
    unknown = _rearranged(new) | _rearranged(running)  # theirs is the vocabulary's size, which the configurations share
    names = [name for name in {**theirs, **ours} if name not in unknown and ours.get(name) != theirs.get(name)]
    found = [f"{name} is {_shape(ours.get(name))}, in the engine {_shape(theirs.get(name))}" for name in names[:3]]
    return [*found, f"... and {len(names) - 3} more tensors"] if len(names) > 3 else found


def _rearranged(stream: Stream) -> set[str]:
    """The tensors whose rows the recipe's tokenizer rearranges."""
    if stream.plan.tokenizer_task is None:
        return set()
    return {output.name for output in stream.plan if output.vocabulary_axis is not None}


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape))


def _shapes(stream: Stream) -> dict[str, tuple[int, ...]]:
    """The shapes of the merge's tensors, from the headers, without vocabularies that a tokenizer rearranges."""
    sources, aligned = stream.resolved.sources, stream.plan.tokenizer_task is not None
    shapes = {}
    for output in stream.plan:
        # mergekit's tables call some optional that every model has (a head): those count, whatever the table.
        is_left_out = output.is_optional and len(output.held) < len(output.inputs)
        if is_left_out or (aligned and output.vocabulary_axis is not None):
            continue
        key, names = next(iter(output.inputs.items()))
        shapes[output.name] = next(sources[key].entries[name].shape for name in names if name in sources[key].entries)
    return shapes
