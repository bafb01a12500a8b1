"""The resolved plan of a merge, as text and as data: what `iberian recipe show` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from merge_hooks.checks.estimate import estimate, gigabytes, seconds
from merge_hooks.checks.preflight import check_fit, fit_notes, table
from merge_hooks.machine.memory import free_on_host
from merge_hooks.planning.config import reference_key
from merge_hooks.resolve.stages import MergedSource
from merge_hooks.stream.stream import Stream
from merge_hooks.stream.tokenizer import tokenizer_owner


def plan_text(stream: Stream) -> str:
    """Method, parameters, sources, fit, memory and time. Raises what `check_fit` raises."""
    rows = check_fit(stream)
    config = stream.resolved.config
    _, origin = tokenizer_owner(stream)
    lines = [
        f"recipe      {stream.resolved.recipe.origin}",
        f"method      {stream.resolved.method}",
        f"dtype       {config.dtype or 'as the sources'}"
        + (f", written as {config.out_dtype}" if config.out_dtype else ""),
        f"layers      {getattr(stream.model_config, 'num_hidden_layers', '?')}",
        f"tokenizer   {origin}",
        "",
        "parameters, as resolved (where tensors differ, the range):",
        *_parameters(stream),
        "",
        "sources:",
        *_sources(stream, 0),
        "",
        table(rows),
        *(f"note: {note}" for note in fit_notes(stream)),
        "",
        *_needs(stream),
    ]
    return "\n".join(lines)


def plan_data(stream: Stream) -> dict[str, Any]:
    """The same as plain data: memory in bytes, time in seconds, of each parameter its values over all tensors.

    Raises what `check_fit` raises.
    """
    rows = check_fit(stream)
    config, needs = stream.resolved.config, estimate(stream)
    _, origin = tokenizer_owner(stream)
    shared, own = _values(stream)
    return {
        "recipe": stream.resolved.recipe.origin, "method": stream.resolved.method, "dtype": config.dtype,
        "out_dtype": config.out_dtype, "layers": getattr(stream.model_config, "num_hidden_layers", None),
        "tokenizer": origin, "parameters": {name: _listed(values) for name, values in sorted(shared.items())},
        "sources": [
            _source_data(source)
            | {"is_base": key in _bases(stream),
               "parameters": {name: _listed(values) for (holder, name), values in sorted(own.items()) if holder == key}}
            for key, source in stream.resolved.sources.items()
        ],
        "fit": rows, "notes": fit_notes(stream),
        "needs": {"model": needs.model, "working": needs.working, "read": needs.read, "parameters": needs.parameters,
                  "free": free_on_host(), "seconds": round(seconds(stream), 3)},
    }  # fmt: skip


def _source_data(source: Any) -> dict[str, Any]:
    if isinstance(source, MergedSource):
        stages = [_source_data(inner) for inner in source.stream.resolved.sources.values()]
        return {"name": source.name, "method": source.resolved.method, "sources": stages}
    return {
        "name": source.name,
        "bytes": source.size,
        "fingerprint": source.fingerprint(),
        "folder": str(source.folder),
    }


def _listed(values: set[Any]) -> list[Any]:
    """The values in order, as JSON takes them."""
    plain = [value if isinstance(value, (bool, int, float, str)) or value is None else str(value) for value in values]
    return sorted(plain, key=lambda value: (str(type(value)), value if value is not None else 0))


def _needs(stream: Stream) -> Iterator[str]:
    needs = estimate(stream)
    free = free_on_host()
    yield (
        f"memory      {gigabytes(needs.model)} for the merged model, at least {gigabytes(needs.working)} for its largest "
        f"tensor in work; {gigabytes(free)} are free"
    )
    yield f"reads       {gigabytes(needs.read)}, {needs.parameters:,} parameters"
    yield f"time        about {seconds(stream):.1f} s to merge here (from one tensor), beside the reading"


def _values(stream: Stream) -> tuple[dict[str, set[Any]], dict[tuple[str, str], set[Any]]]:
    """(parameter -> its values, (source, parameter) -> its values), over all tensors."""
    shared: dict[str, set[Any]] = {}
    own: dict[tuple[str, str], set[Any]] = {}
    for output in stream.plan:
        for name, value in output.merge.parameters.items():
            shared.setdefault(name, set()).add(value)
        for reference, values in output.merge.input_parameters.items():
            for name, value in values.items():
                own.setdefault((reference_key(reference), name), set()).add(value)
    return shared, own


def _parameters(stream: Stream) -> list[str]:
    shared, own = _values(stream)
    lines = [f"  {name:<14}{_range(values)}" for name, values in sorted(shared.items())]
    for key, source in stream.resolved.sources.items():
        found = [f"{name} {_range(values)}" for (holder, name), values in sorted(own.items()) if holder == key]
        lines.append(
            f"  {source.name}: {', '.join(found) or 'base model' if key in _bases(stream) else ', '.join(found)}"
        )
    return lines


def _bases(stream: Stream) -> set[str]:
    found = {output.merge.base_model for output in stream.plan if output.merge.base_model is not None}
    return {reference_key(reference) for reference in found}


def _range(values: set[Any]) -> str:
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(values) > 1 and len(numbers) == len(values):
        return f"{min(numbers):g} to {max(numbers):g}"
    return " or ".join(sorted(f"{value:g}" if isinstance(value, float) else str(value).lower() for value in values))


def _sources(stream: Stream, depth: int) -> Iterator[str]:
    for source in stream.resolved.sources.values():
        indent = "  " * (depth + 1)
        if isinstance(source, MergedSource):
            yield f"{indent}{source.name}  (merged when it is read: {source.resolved.method})"
            yield from _sources(source.stream, depth + 1)
        else:
            yield f"{indent}{source.name}  {gigabytes(source.size)}  {source.fingerprint()}  {source.folder}"
