"""Read a recipe's YAML with its line numbers, and report every key that mergekit would silently ignore.

mergekit's configuration classes drop unknown keys. So `density: 0.5` beside `merge_method: dare_ties`, instead of under
`parameters:`, runs with density 1. Which keys are known at which level is asked of mergekit itself: the fields of its
pydantic models, and the parameters that each method declares.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from merge_hooks.planning.config import MAX_LAYERS
from merge_hooks.recipe.documents import Document, Finding
from merge_hooks.sources.headers import FLOATS

# No real model goes beyond this, and mergekit would fill the memory.
MAX_PADDING = 65_536


def check(document: Document, origin: str) -> list[Finding]:
    """Everything that is wrong or surprising in a recipe, each finding with its line and how to mend it.

    Errors are keys that mergekit would ignore, and values that cannot be meant. Warnings (`merge_hooks.recipe.surprises`) are keys that it reads in a
    way that few expect.
    """
    from merge_hooks.recipe.surprises import surprises

    findings = list(_Linter(document.data, document.lines, origin).findings())
    if any(finding.is_error for finding in findings):
        return findings
    return findings + list(surprises(document, origin))


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_layer_range(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not all(_is_whole(item, 0, MAX_LAYERS) for item in value):
        return False
    return value[0] < value[1]


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _leaves(value: Any) -> Iterator[Any]:
    """The plain values of a parameter: itself, those of a gradient, or those behind filters."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            yield from _leaves(item.get("value"))
        else:
            yield item


def _as_number(value: Any) -> float | None:
    """As mergekit reads it, which takes text too; None: it stops at it."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


class _Linter:
    """Walks a recipe beside mergekit's own classes."""

    def __init__(self, data: dict[str, Any], lines: dict[tuple[Any, ...], int], origin: str) -> None:
        from merge_hooks.planning.registry import known_keys, method_facts, method_names, method_parameters

        self.data, self.lines, self.origin = data, lines, origin
        self.keys = known_keys()
        self.methods = method_names()
        self.method = str(data.get("merge_method", ""))
        self.shared: set[str] = set()
        self.per_model: set[str] = set()
        if self.method in self.methods:
            self.shared, self.per_model = method_parameters(self.method)
            self.facts = method_facts(self.method)

    def findings(self) -> Iterator[Finding]:
        if "merge_method" not in self.data:
            yield self._finding((), "there is no `merge_method:`, so this is not a recipe")
            return
        if self.method not in self.methods:
            close = difflib.get_close_matches(self.method, self.methods, n=1)
            hint = f"Did you mean `{close[0]}`? " if close else ""
            known = ", ".join(sorted(self.methods))
            yield self._finding(("merge_method",), f"unknown merge_method `{self.method}`. {hint}Known: {known}")
            return
        yield from self._base()
        yield from self._mapping((), self.data, "recipe")

    def _base(self) -> Iterator[Finding]:
        """A method that needs a base model, in a recipe that names none."""
        parts = [*_dicts(self.data.get("slices")), *_dicts(list((self.data.get("modules") or {}).values()))]
        parts += [part for module in parts for part in _dicts(module.get("slices"))]
        if self.facts.needs_base and not any(part.get("base_model") for part in (self.data, *parts)):
            yield self._finding(
                ("merge_method",),
                f"`{self.method}` needs `base_model:`, the model that the others were fine-tuned from; there is none",
            )

    def _mapping(self, path: tuple[Any, ...], value: Any, level: str) -> Iterator[Finding]:
        if not isinstance(value, dict):
            return
        for key, content in value.items():
            here = (*path, key)
            if key not in self.keys[level]:
                yield self._finding(here, self._ignored(str(key), level))
            elif key in ("dtype", "out_dtype") and content not in (None, *FLOATS.values()):
                yield self._finding(
                    here, f"`{key}: {content}` is no dtype of weights. Give one of {', '.join(FLOATS.values())}"
                )
            elif key == "layer_range" and not _is_layer_range(content):
                yield self._finding(here, "`layer_range` is [first, end], two whole numbers, the end not included")
            elif key == "pad_to_multiple_of" and content is not None and not _is_whole(content, 1, MAX_PADDING):
                yield self._finding(here, f"`pad_to_multiple_of` is a whole number up to {MAX_PADDING}")
            elif key == "parameters":
                yield from self._parameters(here, content, level)
            elif key in ("models", "slices", "sources"):
                child = {"models": "model", "slices": "slice", "sources": "source"}[key]
                for index, item in enumerate(content if isinstance(content, list) else []):
                    yield from self._mapping((*here, index), item, child)
            elif key == "modules" and isinstance(content, dict):
                for name, module in content.items():
                    yield from self._mapping((*here, name), module, "module")
            elif key == "tokenizer":
                yield from self._mapping(here, content, "tokenizer")

    def _parameters(self, path: tuple[Any, ...], content: Any, level: str) -> Iterator[Finding]:
        for name in content if isinstance(content, dict) else ():
            if level in ("model", "source") and name in self.shared - self.per_model:
                yield self._finding(
                    (*path, name),
                    f"`{name}` belongs to the whole merge: mergekit ignores it under a single model. "
                    "Move it to the recipe's own `parameters:`",
                )
            elif name not in self.shared | self.per_model:
                known = ", ".join(sorted(self.shared | self.per_model)) or "none"
                yield self._finding(
                    (*path, name), f"`{self.method}` has no parameter `{name}`, so mergekit ignores it. It has: {known}"
                )
            else:
                yield from self._values((*path, name), str(name), content[name])

    def _values(self, path: tuple[Any, ...], name: str, content: Any) -> Iterator[Finding]:
        """What is no number, and shares that are none. A gradient's and a filter's numbers stand in lists."""
        default = self.facts.defaults.get(name, 0.0 if name == "weight" else None)
        if isinstance(default, bool) or not isinstance(default, (int, float)):
            return
        for value in _leaves(content):
            number = _as_number(value)
            if value is None:
                continue
            if number is None:
                mend = _as_number(value.replace(",", ".")) if isinstance(value, str) else None
                written = f", with a point: {value.replace(',', '.')}" if mend is not None else ""
                yield self._finding(path, f"`{name}` is {value!r}, and a number is wanted{written}")
            elif name == "density" and self.facts.sparsifies and not 0 <= number <= 1:
                share = f"; {number:g} % is {number / 100:g}" if 1 < number <= 100 else ""
                yield self._finding(
                    path,
                    f"`density` is {number:g}, and the share that is kept of the differences is wanted, 0 to 1{share}",
                )

    def _ignored(self, key: str, level: str) -> str:
        if key in self.per_model | self.shared:
            place = "`parameters:` of the model" if level in ("model", "source") else "`parameters:`"
            return (
                f"mergekit ignores `{key}` here: `{self.method}` reads it under {place}. Move it there, "
                "or remove it if you want what mergekit computes from this file as it is"
            )
        close = difflib.get_close_matches(key, self.keys[level], n=1)
        hint = f"Did you mean `{close[0]}`?" if close else f"A {level} has: {', '.join(sorted(self.keys[level]))}"
        return f"mergekit knows no key `{key}` here and ignores it. {hint}"

    def _finding(self, path: tuple[Any, ...], message: str) -> Finding:
        line = self.lines.get(path)
        where = f"{self.origin}, line {line}" if line else self.origin
        return Finding(f"{where}: {message}.".replace("?.", "?"))
