"""The YAML documents of a recipe, read with the lines of their keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from merge_hooks.errors import RecipeError
from merge_hooks.yaml_files import read_documents


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
    pairs = read_documents(text, origin, RecipeError, "recipe")
    if not pairs:
        raise RecipeError(f"{origin}: the recipe is empty. It needs at least `merge_method:` and `models:`.")
    return [_document(one.node, one.data, origin) for one in pairs]


def _document(node: yaml.Node, data: Any, origin: str) -> Document:
    if not isinstance(data, dict):
        raise RecipeError(f"{origin}: a recipe is a mapping with `merge_method:`, not a {type(data).__name__}.")
    name = data.get("name")
    lines = _key_lines(node)
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise RecipeError(f"{origin}, line {lines[('name',)]}: `name:` names a stage for later documents; give a word.")
    return Document(name, {key: value for key, value in data.items() if key != "name"}, lines)


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


def final_document(documents: list[Document], origin: str) -> Document:
    """The document that is scored: the one without a name, else the only one that no other one names.

    Raises:
        RecipeError: two documents share a name or have none, or it is not clear which one is meant.
    """
    names = [document.name for document in documents]
    for document in documents:
        if names.count(document.name) > 1:
            what = f"the name `{document.name}`" if document.name else "no `name:`"
            raise RecipeError(
                f"{origin}: {names.count(document.name)} documents have {what}. Give each stage a name of its own, "
                "and none to the merge that is to be scored."
            )
    if None in names:
        return documents[names.index(None)]
    if len(documents) == 1:
        return documents[0]
    used = {name for document in documents for name in _words(document.data)}
    last = [document for document in documents if document.name not in used]
    if len(last) != 1:
        found = ", ".join(str(document.name) for document in last) or "all name each other"
        raise RecipeError(
            f"{origin}: which of its {len(documents)} documents is to be scored? Remove the `name:` of that one "
            f"(not used by any other: {found})."
        )
    return last[0]


def _words(node: Any) -> set[str]:
    """Every string in a document, adapters and revisions cut off: what may name a stage."""
    if isinstance(node, str):
        return {node.split("+")[0].split("@")[0]}
    if isinstance(node, dict):
        return {word for value in node.values() for word in _words(value)}
    return {word for value in node for word in _words(value)} if isinstance(node, list) else set()
