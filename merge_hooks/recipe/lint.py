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

    Errors are keys that mergekit would ignore. Warnings (`merge_hooks.recipe.surprises`) are keys that it reads in a
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


class _Linter:
    """Walks a recipe beside mergekit's own classes."""

    def __init__(self, data: dict[str, Any], lines: dict[tuple[Any, ...], int], origin: str) -> None:
        from merge_hooks.planning.registry import known_keys, method_names, method_parameters

        self.data, self.lines, self.origin = data, lines, origin
        self.keys = known_keys()
        self.methods = method_names()
        self.method = str(data.get("merge_method", ""))
        self.shared, self.per_model = method_parameters(self.method) if self.method in self.methods else (set(), set())

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
        yield from self._mapping((), self.data, "recipe")

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
                    (*path, name),
                    f"`{self.method}` has no parameter `{name}`, so mergekit ignores it. It has: {known}",
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
