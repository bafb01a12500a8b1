"""From axes to points: `$name` in a recipe stands for a value of the axis, whole and typed.

    axes:   {weight: [0.5, 1.0], language: {eu: HiTZ/Latxa-Llama-3.1-8B, gl: models/galician}}
    recipe: {models: [{model: $language, parameters: {weight: $weight}}]}

An axis is a list, or a mapping from labels to values. `$name.key` takes an entry of a value that is a mapping. A
value of null drops its key, so that one recipe can serve methods with and without, say, a density. Placeholders
are replaced in parsed YAML, never in its text: no value can become another key.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.sweep.types import refuse_one_name

PLACEHOLDER = re.compile(r"\$([A-Za-z_]\w*)((?:\.\w+)*)")
MAX_POINTS = 10_000


def grid(axes: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Every combination of the axes' labels; the first axis changes slowest."""
    size = 1
    for values in axes.values():
        size *= len(values)
    if size > MAX_POINTS:
        raise SweepError(f"axes: {size} points are more than {MAX_POINTS}. Take fewer values, or list the points.")
    for labels in itertools.product(*axes.values()):
        yield dict(zip(axes, labels, strict=True))


def labelled(axis: str, values: Any) -> dict[str, Any]:
    """An axis as label -> value, in order. Raises SweepError for an empty one, and for labels that come twice."""
    if isinstance(values, Mapping):
        refuse_one_name(values, f"axes: {axis}")
        return _not_empty(axis, {str(label): value for label, value in values.items()})
    if not isinstance(values, Sequence) or isinstance(values, str):
        values = [values]
    labels: dict[str, Any] = {}
    for value in values:
        label = label_of(value)
        if label in labels:
            raise SweepError(f"axes: {axis}: {label} comes twice. Give labels: `{axis}: {{first: ..., second: ...}}`.")
        labels[label] = value
    return _not_empty(axis, labels)


def label_of(value: Any) -> str:
    """How a value is called in tables: a model by the last part of its name, all else as it is written."""
    if isinstance(value, Mapping):
        raise SweepError(f"axes: give values that are mappings a label: `label: {dict(value)}`.")
    text = "none" if value is None else str(value)
    return text.rstrip("/").rsplit("/", 1)[-1] if isinstance(value, str) else text


def _not_empty(axis: str, labels: dict[str, Any]) -> dict[str, Any]:
    if not labels:
        raise SweepError(f"axes: {axis} has no values.")
    return labels


def fill(template: Any, values: Mapping[str, Any], where: str) -> Any:
    """The template with every `$name` replaced; keys and list entries whose value is null are dropped.

    Raises:
        SweepError: a name that is neither an axis nor a parameter; an entry that a value does not have.
    """
    if isinstance(template, Mapping):
        filled = {key: fill(item, values, where) for key, item in template.items()}
        return {key: item for key, item in filled.items() if item is not None or template[key] is None}
    if isinstance(template, list):
        return [item for item in (fill(entry, values, where) for entry in template) if item is not None]
    match = PLACEHOLDER.fullmatch(template) if isinstance(template, str) else None
    return template if match is None else _value(match, values, where)


def _value(match: re.Match[str], values: Mapping[str, Any], where: str) -> Any:
    name, entries = match.group(1), match.group(2).split(".")[1:]
    if name not in values:
        known = ", ".join(values) or "none"
        raise SweepError(f"{where}: ${name} is neither an axis nor a parameter. There are: {known}.")
    found = values[name]
    for entry in entries:
        if not isinstance(found, Mapping) or entry not in found:
            raise SweepError(f"{where}: {match.group(0)}: this value of `{name}` has no `{entry}`.")
        found = found[entry]
    return fill(found, {key: item for key, item in values.items() if key != name}, where)


def names_in(template: Any) -> set[str]:
    """The names of all placeholders in a template."""
    if isinstance(template, Mapping):
        return set().union(*(names_in(item) for item in template.values()))
    if isinstance(template, list):
        return set().union(*(names_in(item) for item in template))
    match = PLACEHOLDER.fullmatch(template) if isinstance(template, str) else None
    return {match.group(1)} if match else set()
