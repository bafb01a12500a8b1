"""What mergekit reads in a recipe, but not as most people mean it: warnings, never errors.

Everything here is decided by the recipe's text alone. What needs the models (filters that match no tensor) is in
`merge_hooks.checks.filters`. Each rule yields (path of the key, message); the path gives the line. Behaviour checked in
mergekit 0.1.5: merge_methods/linear.py, generalized_task_arithmetic.py, config.py, plan.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from merge_hooks.recipe.documents import Document, Finding

Path = tuple[Any, ...]
Rule = Iterator[tuple[Path, str]]

NORMALIZE = ("normalize", "normalize_weights")


def surprises(document: Document, origin: str) -> Iterator[Finding]:
    """Warnings about a recipe in which mergekit knows every key."""
    from merge_hooks.recipe.documents import Finding

    reader = _Reader(document.data)
    for rule in (_normalized, _base_among_models, _base_added, _full_density, _idle_density, _residual, _unreached):
        for path, message in rule(reader):
            line = document.lines.get(path)
            where = f"{origin}, line {line}" if line else origin
            yield Finding(f"{where}: {message}.", is_error=False)


class _Reader:
    """A recipe's groups of inputs: in models, slices or modules.

    Args:
        data: one document.
    Attributes:
        groups: (path of the list, its entries, parameters that hold for the group, nearest first).
    """

    def __init__(self, data: dict[str, Any]) -> None:
        from merge_hooks.planning.registry import method_facts

        self.data = data
        self.method = str(data["merge_method"])
        self.facts = method_facts(self.method)
        self.base = data.get("base_model")
        self.groups = list(self._groups((), data, [_mapping(data.get("parameters"))]))

    def _groups(self, path: Path, holder: dict[str, Any], outer: list[dict[str, Any]]) -> Iterator[Any]:
        if isinstance(holder.get("models"), list):
            yield (*path, "models"), _entries(holder["models"]), outer
        for index, part in enumerate(_list(holder.get("slices"))):
            if isinstance(part, dict) and isinstance(part.get("sources"), list):
                here = (*path, "slices", index, "sources")
                yield here, _entries(part["sources"]), [_mapping(part.get("parameters")), *outer]
        for name, module in _mapping(holder.get("modules")).items():
            if isinstance(module, dict):
                inner = [_mapping(module.get("parameters")), *outer]
                yield from self._groups((*path, "modules", name), module, inner)

    def inputs(self, entries: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
        """The entries that are not the base model, with their places."""
        return [(index, entry) for index, entry in enumerate(entries) if not self.is_base(entry)]

    def is_base(self, entry: dict[str, Any]) -> bool:
        return self.base is not None and entry.get("model") == self.base


def _entries(items: list[Any]) -> list[dict[str, Any]]:
    return [item if isinstance(item, dict) else {} for item in items]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _setting(name: str, entry: dict[str, Any], outer: list[dict[str, Any]]) -> Any:
    """A parameter of one input as mergekit looks it up: its own, then the slice's, module's, recipe's. None: unset."""
    for parameters in (_mapping(entry.get("parameters")), *outer):
        if name in parameters:
            return parameters[name]
    return None


def _number(value: Any) -> float | None:
    """A plain number; None for gradients, filters and everything else."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _normalized(reader: _Reader) -> Rule:
    """`normalize` is on although nobody wrote it: weights 1.0 and 0.5 are applied as 2/3 and 1/3."""
    name = next((name for name in NORMALIZE if reader.facts.defaults.get(name) is True), None)
    if name is None:
        return
    for path, entries, outer in reader.groups:
        if any(name in parameters for parameters in outer):
            continue
        chosen = entries if reader.facts.weighs_base else [entry for _, entry in reader.inputs(entries)]
        weights = [_number(_setting("weight", entry, outer)) for entry in chosen]
        known = [weight for weight in weights if weight is not None]
        total = sum(known)
        # Weights that sum to 1, and the usual 1.0 for each, mean a mean to everybody.
        if len(known) != len(weights) or not known or abs(total - 1) < 1e-6 or set(known) == {1.0}:
            continue
        yield path, _normalize_message(reader, name, known, total)


def _normalize_message(reader: _Reader, name: str, weights: list[float], total: float) -> str:
    given = ", ".join(f"{weight:g}" for weight in weights)
    mend = f"Write `{name}: true` under `parameters:` if you mean it, `{name}: false` to use the weights as written"
    if total == 0:
        return (
            f"`{reader.method}` divides by the sum of the weights ({given}), which is 0, unless told otherwise. {mend}"
        )
    if reader.facts.sparsifies:
        return (
            f"`{reader.method}` divides each element by the sum of the weights that agree in sign, unless told "
            f"otherwise, so the weights {given} only count in relation to each other. {mend}"
        )
    applied = ", ".join(f"{weight / total:.4g}" for weight in weights)
    return (
        f"`{reader.method}` divides by the sum of the weights unless told otherwise: "
        f"{given} are applied as {applied}. {mend}"
    )


def _base_among_models(reader: _Reader) -> Rule:
    """The base model is listed among the models. Where deltas to the base are merged it is no input, and its `weight`
    is not read.
    """
    if not reader.facts.needs_base:
        return
    for path, entries, _ in reader.groups:
        for index, entry in enumerate(entries):
            if not reader.is_base(entry):
                continue
            ignored = sorted(set(_mapping(entry.get("parameters"))) & reader.facts.of_non_base)
            for name in ignored:
                yield (
                    (*path, index, "parameters", name),
                    f"`{name}` on the base model is not read: `{reader.method}` merges differences to the base, "
                    "and its own is 0. Remove it",
                )
            if not ignored and reader.facts.max_inputs is None and "slices" not in path:
                yield (
                    (*path, index),
                    f"the base model {reader.base} is listed among the models: it adds nothing to "
                    f"`{reader.method}`, whose differences are taken to it. Remove it, or leave it as a note",
                )


def _base_added(reader: _Reader) -> Rule:
    """A base model, for a method that knows no base model, becomes one more input."""
    if reader.base is None or not reader.facts.ignores_base:
        return
    for path, entries, outer in reader.groups:
        if path[-1] != "models" or any(reader.is_base(entry) for entry in entries):
            continue
        weight = next((parameters["weight"] for parameters in outer if "weight" in parameters), None)
        effect = f"with the weight {weight} of `parameters:`" if weight is not None else "and asks for its weight"
        yield (
            ("base_model",),
            f"`{reader.method}` has no base model: mergekit adds {reader.base} as one more input {effect}. "
            "List it among the models with a weight of its own, or remove `base_model:` (use `tokenizer_source:` "
            "to follow its tokenizer)",
        )


def _full_density(reader: _Reader) -> Rule:
    """A density of 1 (the default) switches off the pruning after which the method is named."""
    if not reader.facts.sparsifies:
        return
    for path, entries, outer in reader.groups:
        for index, entry in reader.inputs(entries):
            value = _setting("density", entry, outer)
            number = _number(value)
            if value is not None and (number is None or number < 1):
                continue
            own = "density" in _mapping(entry.get("parameters"))
            place = (*path, index, "parameters", "density") if own else (*path, index)
            found = "`density` is 1" if value is not None else "`density` is not given, and is 1 then"
            yield (
                place,
                f"{found}: `{reader.method}` prunes nothing of {_called(entry.get('model'))}. Give a density below 1, e.g. "
                "`density: 0.5`, under `parameters:`",
            )


def _called(model: Any) -> str:
    """A model as one word: mergekit's mapping of a model and an adapter as "model+adapter"."""
    if isinstance(model, dict) and "path" in model:
        return f"{model['path']}@{model['revision']}" if model.get("revision") else str(model["path"])
    if isinstance(model, dict) and "model" in model:
        return _called(model["model"]) + (f"+{_called(model['lora'])}" if model.get("lora") else "")
    return str(model)


def _idle_density(reader: _Reader) -> Rule:
    """`density` for a method that prunes nothing: task_arithmetic accepts it and does nothing with it."""
    if reader.facts.sparsifies or "density" not in reader.facts.defaults:
        return
    for path, entries, _ in reader.groups:
        for index, entry in enumerate(entries):
            if "density" in _mapping(entry.get("parameters")):
                yield (*path, index, "parameters", "density"), _idle(reader.method)
    if "density" in _mapping(reader.data.get("parameters")):
        yield ("parameters", "density"), _idle(reader.method)


def _idle(method: str) -> str:
    return f"`{method}` reads `density` and prunes nothing. Use `ties`, `dare_linear` or `dare_ties`, or remove it"


def _residual(reader: _Reader) -> Rule:
    for index, part in enumerate(_list(reader.data.get("slices"))):
        if isinstance(part, dict) and part.get("residual_weight") is not None:
            yield (
                ("slices", index, "residual_weight"),
                "mergekit reads `residual_weight` and does nothing with it. Remove it",
            )


def _unreached(reader: _Reader) -> Rule:
    """The first filter that matches is taken. What stands behind a value without a filter is never read."""
    yield from _unreached_in((), reader.data)


def _unreached_in(path: Path, node: Any) -> Rule:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "parameters" and isinstance(value, dict):
                for name, setting in value.items():
                    yield from _behind_catch_all((*path, key, name), setting)
            else:
                yield from _unreached_in((*path, key), value)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _unreached_in((*path, index), value)


def _behind_catch_all(path: Path, setting: Any) -> Rule:
    if not isinstance(setting, list) or not any(isinstance(item, dict) for item in setting):
        return
    catches_all = [isinstance(item, dict) and item.get("filter") in (None, "*") for item in setting]
    if not any(catches_all):
        yield (
            path,
            (
                f"no entry of `{path[-1]}` is without a `filter:`, so tensors that none of them names get the default, "
                "or stop the merge where there is none. Add a last entry `- value: ...`"
            ),
        )
        return
    if (first := catches_all.index(True)) < len(setting) - 1:
        yield (
            (*path, first, "value"),
            (
                f"this entry of `{path[-1]}` has no filter and so takes every tensor; the {len(setting) - 1 - first} "
                "after it are never read. Put it last"
            ),
        )
