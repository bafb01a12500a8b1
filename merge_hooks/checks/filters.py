"""Warnings that need the models: filters that match no tensor, and rules for tokens that do not exist."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from merge_hooks.recipe.documents import Finding
from merge_hooks.stream.stream import Stream


def plan_findings(stream: Stream) -> list[Finding]:
    """What mergekit would read and never use, compared with the tensors of this merge."""
    origin = stream.resolved.recipe.origin
    names = {name for output in stream.plan for name in (output.name, *chain(*output.inputs.values()))}
    found = []
    for document in stream.resolved.recipe.documents:
        if document.data != stream.resolved.recipe.final.data:
            continue
        for path, text in _filters((), document.data):
            if text not in (None, "*") and not any(str(text) in name for name in names):
                line = document.lines.get(path)
                where = f"{origin}, line {line}" if line else origin
                example = next(iter(stream.names()), "none")
                message = (
                    f"{where}: `filter: {text}` is in the name of no tensor, so its value is never used. A filter is a "
                    f"part of a name as {example}, not a pattern."
                )
                found.append(Finding(message, is_error=False))
    return found


def _filters(path: tuple[Any, ...], node: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "filter" and not isinstance(value, (dict, list)):
                yield (*path, key), value
            yield from _filters((*path, key), value)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _filters((*path, index), value)
