"""Every YAML that somebody else wrote is read here: recipes, sweep.yml, manifests, pins, values of `--set`.

    data = read_yaml(path.read_text(), "sweep.yml", SweepError)

PyYAML's safe loader runs no code. Beyond that: aliases that unfold to a huge file, aliases that contain themselves, deep
nesting, repeated keys (PyYAML keeps the last without a word), dates, sets and bytes, and values that break its own
constructors are errors that name the line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

# YAML aliases can make a small file mean a huge one.
MAX_NODES = 100_000
MAX_DEPTH = 100
# libyaml's is ten times as fast; not every PyYAML has it.
FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What a value may be; with other types (dates, sets, bytes) nothing here works.
_YAML = "tag:yaml.org,2002:"
_PLAIN = frozenset(_YAML + kind for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge"))

MakeError = Callable[[str], Exception]


@dataclass(frozen=True)
class Document:
    """One YAML document: its nodes, which know their lines, and its content."""

    node: yaml.Node
    data: Any


def read_yaml(
    text: str, origin: str, error: MakeError, what: str = "file like this", loader: Any = yaml.SafeLoader
) -> Any:
    """The content of a YAML file of one document; None for an empty one.

    Args:
        origin: where it came from, for messages.
        error: makes the exception that is raised, from its message.
        what: the file is, in words.
        loader: a safe loader of PyYAML; what its own tags mean is read as it says.
    """
    documents = read_documents(text, origin, error, what, loader)
    if len(documents) > 1:
        line = documents[1].node.start_mark.line + 1
        raise error(f"{origin}, line {line}: a second document begins (`---`), and only one is read here.")
    return documents[0].data if documents else None


def read_documents(
    text: str, origin: str, error: MakeError, what: str = "file like this", loader: Any = yaml.SafeLoader
) -> list[Document]:
    """Every document of a YAML file that is not empty."""
    try:
        return [one for one in _documents(text, _Guard(origin, error, what), loader) if one.data is not None]
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f"{origin}, line {mark.line + 1}" if mark else origin
        said = getattr(problem, "problem", None) or " ".join(str(problem).split())
        raise error(f"{where}: not valid YAML: {said}.") from None
    except RecursionError:
        raise error(f"{origin}: nested too deeply for a {what}.") from None


def _documents(text: str, guard: _Guard, loader: Any) -> Iterator[Document]:
    reading = loader(text)
    try:
        while reading.check_node():
            node = reading.get_node()
            guard.check(node, reading)
            yield Document(node, _constructed(reading, node, guard))
    finally:
        reading.dispose()


def _constructed(reading: Any, node: yaml.Node, guard: _Guard) -> Any:
    try:
        return reading.construct_document(node)
    except (yaml.YAMLError, RecursionError):
        raise
    except Exception as problem:  # PyYAML's constructors: 2024-99-99, `!!int x`, `!!timestamp x`, 5,000 digits
        raise guard.error(f"{guard.origin}: not valid YAML: a value cannot be read ({problem!s:.200}).") from None


@dataclass(frozen=True)
class _Guard:
    """Refuses what unfolds to very many values or levels, repeated keys, and values that are no plain data."""

    origin: str
    error: MakeError
    what: str

    def check(self, root: yaml.Node, reading: Any) -> None:
        own = {tag for tag in reading.yaml_constructors if tag and not tag.startswith(_YAML)}
        stack, visited = [(root, 1)], 0
        while stack:
            node, depth = stack.pop()
            visited += 1
            if visited > MAX_NODES:
                raise self.error(
                    f"{self.origin}: too large for a {self.what} (over {MAX_NODES} values once aliases are unfolded)."
                )
            if depth > MAX_DEPTH:
                raise self.error(
                    f"{self._at(node)}: nested too deeply for a {self.what}, or too large: does an alias contain itself?"
                )
            if node.tag not in _PLAIN | own:
                raise self.error(f"{self._at(node)}: not valid YAML for a {self.what}: {_unplain(node)}.")
            if isinstance(node, yaml.MappingNode):
                self._refuse_repeated_keys(node, reading)
                stack += [(child, depth + 1) for _, child in node.value]
            elif isinstance(node, yaml.SequenceNode):
                stack += [(child, depth + 1) for child in node.value]

    def _refuse_repeated_keys(self, node: yaml.MappingNode, reading: Any) -> None:
        """Two keys are one if they are written alike, or read alike (1 and 0x1, yes and true)."""
        known: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.error(f"{self._at(key)}: a key of a {self.what} is a word.")
            if key.tag not in _PLAIN:
                raise self.error(f"{self._at(key)}: not valid YAML for a {self.what}: {_unplain(key)}.")
            read = key.value if key.tag == f"{_YAML}merge" else reading.construct_object(key)
            if key.value in known or read in known:
                raise self.error(
                    f"{self._at(key)}: `{key.value:.80}` is given twice; the last one would be taken without a word. "
                    "Remove one."
                )
            known |= {key.value, read}

    def _at(self, node: yaml.Node) -> str:
        return f"{self.origin}, line {node.start_mark.line + 1}"


def _unplain(node: yaml.Node) -> str:
    """What is wrong with a value of another type than those of _PLAIN."""
    shown = f"{node.value:.80}" if isinstance(node, yaml.ScalarNode) else "a value"
    kind = node.tag.rpartition(":")[2]
    return f"{shown}: " + (
        "a date; write it in quotes" if kind == "timestamp" else f"`!!{kind:.40}` means nothing here"
    )
