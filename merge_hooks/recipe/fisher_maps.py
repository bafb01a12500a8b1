"""The Fisher maps of a recipe: found on disk, hashed for the signature, and checked before a weight is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_hooks.errors import FisherError
from merge_hooks.sources.checkpoint import file_hash
from merge_hooks.sources.fisher_file import FisherMap

if TYPE_CHECKING:
    from merge_hooks.planning.plan import OutputTensor
    from merge_hooks.stream.stream import Stream

METHOD = "fisher"
PARAMETER = "fisher"
# So many problems of one kind are told.
TOLD = 3


def localise_maps(config: Any, beside: Path | None) -> Any:
    """A MergeConfiguration whose maps are absolute paths: from the current folder, else from the recipe's.

    Raises:
        FisherError: a map is not there, or no map.
    """
    from merge_hooks.planning.plan import map_parameter

    if config.merge_method != METHOD:
        return config

    def localise(path: str) -> str:
        candidates = [Path(path).expanduser()]
        if beside is not None:
            candidates.append(beside / candidates[0])
        found = next((candidate for candidate in candidates if candidate.is_file()), None)
        if found is None:
            also = f" and {beside}" if beside else ""
            raise FisherError(
                f"{path}: no such Fisher map. Looked in {Path.cwd()}{also}. Make it: `iberian fisher MODEL --data "
                f"texts.jsonl --to {path}`."
            )
        return str(FisherMap.open(found.resolve()).path)

    return map_parameter(config, PARAMETER, localise)


def map_paths(config: Any) -> list[Path]:
    """The maps of a resolved recipe, in order, each once."""
    from merge_hooks.planning.plan import map_parameter

    found: dict[str, None] = {}
    if config.merge_method == METHOD:
        map_parameter(config, PARAMETER, lambda path: found.setdefault(path) or path)
    return [Path(path) for path in found]


def map_prints(config: Any) -> dict[str, str]:
    """The content hash of each map, by its path: what stands for the path in a recipe's digest."""
    return {str(path): f"fisher:{file_hash(path)}" for path in map_paths(config)}


def map_problems(stream: Stream) -> Iterator[str]:
    """Maps that do not fit the models they stand beside, by their headers."""
    if stream.resolved.method != METHOD:
        return
    maps = {str(path): FisherMap.open(path) for path in map_paths(stream.resolved.config)}
    problems = [problem for output in stream.plan for problem in _of_tensor(stream, output, maps)]
    yield from problems[:TOLD]
    if len(problems) > TOLD:
        yield f"... and {len(problems) - TOLD} more tensors whose Fisher map does not fit."


def _of_tensor(stream: Stream, output: OutputTensor, maps: dict[str, FisherMap]) -> Iterator[str]:
    paths = output.parameter_of_inputs(PARAMETER)
    for key, names in output.inputs.items():
        source = stream.resolved.sources[key]
        held = source.first_held(names)
        if held is None:
            continue
        found = maps[paths[key]]
        entry = found.entry(output.name)
        if output.name not in names:
            yield (
                f"{output.name} is {held} of {source.name}: `fisher` cannot follow layers that change their places, as "
                "mergekit does not tell a method from where a tensor comes."
            )
        elif entry is None and output.parameter("missing") != "mean":
            yield (
                f"{found.path} has no entry for {output.name}: it is a map of {found.facts.model}, and stands beside "
                f"{source.name}. Make a map of that model, or write `missing: mean` under `parameters:`."
            )
        elif entry is not None and entry.shape != source.entries[held].shape:
            yield (
                f"{found.path} has {'x'.join(map(str, entry.shape))} numbers for {output.name}, {source.name} has "
                f"{'x'.join(map(str, source.entries[held].shape))}: it is a map of {found.facts.model}. Make one of "
                f"{source.name}."
            )
