"""Read a recipe's YAML with its line numbers, and report what mergekit would ignore without a word.

mergekit's configuration classes drop unknown keys, so `density: 0.5` beside `merge_method: dare_ties`, and not
under `parameters:`, runs with density 1. What is known where comes from mergekit itself: the fields of its
pydantic models, and the parameters that each method declares.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from merge_hooks.errors import RecipeError

# YAML aliases can make a small file mean a huge one.
MAX_NODES = 100_000
# Beyond these no model is meant, and mergekit would count for hours or fill the memory.
MAX_LAYERS = 10_000
MAX_PADDING = 65_536
DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class Finding:
    """One thing found in a recipe: an error stops a run, a warning is shown."""

    message: str
    is_error: bool = True


@dataclass(frozen=True)
class Document:
    """One YAML document of a recipe: a whole recipe by itself.

    Args:
        name: what later documents call it (mergekit-multi's `name:`); None for the one to be scored.
        data: the recipe, without its name.
        lines: the line of each key, ("models", 0, "model") -> 3.
    """

    name: str | None
    data: dict[str, Any]
    lines: dict[tuple[Any, ...], int]


def load_documents(text: str, origin: str) -> list[Document]:
    """Every document of a recipe file, as mergekit-multi reads them. Raises RecipeError when one is no recipe."""
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
        for node in nodes:
            _guard(node, origin)
        contents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{origin}, line {mark.line + 1}" if mark else origin
        problem = getattr(error, "problem", None) or str(error)
        raise RecipeError(f"{where}: not valid YAML: {problem}.") from None
    except RecursionError:
        raise RecipeError(f"{origin}: nested too deeply for a recipe.") from None
    except ValueError as error:  # a date or number that YAML cannot hold, e.g. 2024-99-99
        raise RecipeError(f"{origin}: not valid YAML: {error}.") from None
    # A stray `---` makes an empty document.
    pairs = [(node, data) for node, data in zip(nodes, contents, strict=True) if data is not None]
    if not pairs:
        raise RecipeError(f"{origin}: the recipe is empty. It needs at least `merge_method:` and `models:`.")
    return [_document(node, data, origin) for node, data in pairs]


def check(document: Document, origin: str) -> list[Finding]:
    """Everything that is wrong or surprising in a recipe, each finding with its line and the mend.

    Errors are keys that mergekit would ignore; warnings (`merge_hooks.recipe.surprises`) are keys that it reads in a
    way that few expect.
    """
    from merge_hooks.recipe.surprises import surprises

    findings = list(_Linter(document.data, document.lines, origin).findings())
    if any(finding.is_error for finding in findings):
        return findings
    return findings + list(surprises(document, origin))


def _document(node: yaml.Node, data: Any, origin: str) -> Document:
    if not isinstance(data, dict):
        raise RecipeError(f"{origin}: a recipe is a mapping with `merge_method:`, not a {type(data).__name__}.")
    name = data.get("name")
    lines = _key_lines(node)
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise RecipeError(f"{origin}, line {lines[('name',)]}: `name:` names a stage for later documents; give a word.")
    return Document(name, {key: value for key, value in data.items() if key != "name"}, lines)


def _guard(node: yaml.Node | None, origin: str) -> None:
    """Refuse recipes that unfold to very many nodes, and repeated keys (YAML would keep the last in silence)."""
    stack, visited = [node] if node else [], 0
    while stack:
        visited += 1
        if visited > MAX_NODES:
            raise RecipeError(f"{origin}: too large for a recipe (over {MAX_NODES} values once aliases are unfolded).")
        current = stack.pop()
        if isinstance(current, yaml.MappingNode):
            _refuse_repeated_keys(current, origin)
            stack += [value for _, value in current.value]
        elif isinstance(current, yaml.SequenceNode):
            stack += current.value


def _refuse_repeated_keys(node: yaml.MappingNode, origin: str) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key.value, str):
            raise RecipeError(f"{origin}, line {key.start_mark.line + 1}: a key of a recipe is a word.")
        if key.value in seen:
            raise RecipeError(
                f"{origin}, line {key.start_mark.line + 1}: `{key.value}` is given twice; "
                "mergekit would take the last one without a word. Remove one."
            )
        seen.add(key.value)


def _key_lines(root: yaml.Node) -> dict[tuple[Any, ...], int]:
    """Line of each key and list item: ("models", 0, "model") -> 3."""
    lines: dict[tuple[Any, ...], int] = {}

    def walk(node: yaml.Node | None, path: tuple[Any, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                lines[(*path, key.value)] = key.start_mark.line + 1
                walk(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines[(*path, index)] = value.start_mark.line + 1
                walk(value, (*path, index))

    walk(root, ())
    return lines


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_layer_range(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not all(_is_whole(item, 0, MAX_LAYERS) for item in value):
        return False
    return value[0] < value[1]


class _Linter:
    """Walks a recipe beside mergekit's own classes."""

    def __init__(self, data: dict[str, Any], lines: dict[tuple[Any, ...], int], origin: str) -> None:
        from merge_hooks.planning.plan import known_keys, method_names, method_parameters

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
            elif key in ("dtype", "out_dtype") and content not in (None, *DTYPES):
                yield self._finding(here, f"`{key}: {content}` is no dtype of weights. Give one of {', '.join(DTYPES)}")
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
