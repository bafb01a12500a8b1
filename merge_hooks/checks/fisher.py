"""Do the Fisher maps of a recipe fit their models?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from merge_hooks.sources.fisher_file import FisherMap

if TYPE_CHECKING:
    from merge_hooks.planning.output import OutputTensor
    from merge_hooks.stream.stream import Stream
from merge_hooks.recipe.fisher_maps import METHOD, PARAMETER, map_paths

# The most problems of one kind that are reported.
TOLD = 3


def map_problems(stream: Stream) -> Iterator[str]:
    """Maps that do not fit their models, by their headers."""
    if stream.resolved.method != METHOD:
        return
    maps = {str(path): FisherMap.open(path) for path in map_paths(stream.resolved.config)}
    problems = [problem for output in stream.plan for problem in _of_tensor(output, maps)]
    yield from problems[:TOLD]
    if len(problems) > TOLD:
        yield f"... and {len(problems) - TOLD} more tensors whose Fisher map does not fit."


def _of_tensor(output: OutputTensor, maps: dict[str, FisherMap]) -> Iterator[str]:
    paths = output.parameter_of_inputs(PARAMETER)
    for key, held in output.held.items():
        source, found = output.sources[key], maps[paths[key]]
        entry = found.entry(output.name)
        if output.name not in output.inputs[key]:
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
