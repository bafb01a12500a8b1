"""Reading a pack file: its form, and errors that name file, line, key and what was expected."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ifeval_multi.errors import PackError

# key: (kind, default); a default of ... marks a key that every pack must have.
SCHEMA: dict[str, tuple[str, Any]] = {
    "code": ("text", ...),
    "name": ("text", ...),
    "own_name": ("text", ...),
    "identification.labels": ("texts", ...),
    "identification.sample": ("text", ...),
    "identification.neighbours": ("texts", ()),
    "identification.markers": ("texts", ()),
    "identification.this_language": ("texts", ...),
    "identification.english": ("texts", ...),
    "constrained_response.option_sets": ("sets of texts", ...),
    "sections.words": ("texts", ...),
    "sections.number": ("before|after|either", ...),
    "postscript.markers": ("texts", ...),
    "quotation.pairs": ("pairs", ...),
    "title.brackets": ("pairs", ...),
    "commas": ("text", ...),
    "bullets": ("texts", ...),
    "words.joiners": ("text", "-"),
    "words.apostrophe": ("joins|splits", ...),
    "words.one_word": ("texts", ()),
    "sentences.abbreviations_before_names": ("texts", ...),
    "sentences.abbreviations": ("texts", ...),
    "sentences.ordinal_dot": ("flag", False),
    "sentences.ordinal_followers": ("texts", ()),
    "sentences.speech_verbs": ("texts", ()),
    "sentences.closings": ("texts", ()),
    "keywords.endings": ("texts", ()),
    "keywords.forbidden_endings": ("texts", ()),
    "keywords.replaced_final": ("text", ""),
    "keywords.endings_after_vowel": ("texts", ()),
    "keywords.endings_after_consonant": ("texts", ()),
    "keywords.doubled_final": ("text", ""),
    "keywords.not_doubled": ("texts", ()),
    "keywords.function_words": ("texts", ()),
    "keywords.plurals": ("text to texts", {}),
    "keywords.irregular": ("text to texts", {}),
    "letters.variants": ("text to text", {}),
    "letters.caseless": ("text", "ªº"),
    "letters.accented": ("text", "áéíóú"),
    "questions.opening": ("text", ""),
    "exclamations.opening": ("text", ""),
    "prompts.numbers": ("number to texts", ...),
    "prompts.relations": ("text to texts", ...),
    "prompts.cues": ("text to texts", ...),
    "examples": ("examples", ()),
}


class _PackLoader(yaml.SafeLoader):
    """YAML where only true and false are truth values.

    PyYAML follows YAML 1.1, which reads the words no, on and off as truth values; "no" is an
    English abbreviation and "on" a Basque ending.

    An alias stands for a list of words, no more: aliases of aliases make a small file mean a huge one. Repeated keys,
    of which PyYAML keeps the last without a word, are refused.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        is_alias, mark = self.check_event(yaml.AliasEvent), self.peek_event().start_mark
        node = super().compose_node(parent, index)
        if is_alias and node and not all(isinstance(one, yaml.ScalarNode) for one in node.value):
            raise yaml.composer.ComposerError(None, None, "an alias stands for a list of words, no more", mark)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"`{twice[0]}` is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_PackLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:bool"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PackLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))


def read(path: Path) -> Reader:
    """A reader of the pack at a path; PackError when it is no YAML, or has unknown keys."""
    try:
        if not path.is_file():  # a pipe would be waited for
            raise PackError(str(path), "there is no such file.")
        source = path.read_text(encoding="utf-8")
        content = yaml.load(source, Loader=_PackLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise PackError(str(path), f"not valid YAML: {error}", "Mend the line it names.") from None
    except PackError:
        raise
    except Exception as error:  # PyYAML's constructors: dates and numbers that cannot be
        raise PackError(str(path), f"cannot be read: {error}", "Is it a pack, in UTF-8?") from None
    return Reader(path, source, content)


@dataclass
class Reader:
    """Takes checked values out of a pack file, and knows the line of each key for errors."""

    path: Path
    source: str
    content: Any

    def __post_init__(self) -> None:
        if not isinstance(self.content, dict):
            raise PackError(str(self.path), "the file holds no keys.", "A pack is a YAML mapping.")
        self._refuse_unknown_keys(self.content, "")

    def get(self, key: str) -> Any:
        kind, default = SCHEMA[key]
        value: Any = self.content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            if default is ...:
                self.refuse(key, "is missing", kind)
            value = default
        _, holds, become = KINDS[kind]
        if kind == "examples":
            self._refuse_faulty_examples(value)
        if not holds(value):
            self.refuse(key, f"holds {value!r}", kind)
        return become(value)

    def _refuse_faulty_examples(self, value: Any) -> None:
        for number, example in enumerate(value, 1):
            if not isinstance(example, dict) or not {"type", "answer", "followed"} <= set(example):
                self.refuse("examples", f"has a faulty example, number {number}: {example!r}", "examples")

    def refuse(self, key: str, what: str, kind: str) -> None:
        raise PackError(f"{self.path}{self._line_of(key)}", f"key `{key}` {what}.", KINDS[kind][0])

    def _line_of(self, key: str) -> str:
        node: Any = yaml.compose(self.source)
        line = ""
        for part in key.split("."):
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            hit = next(((k, v) for k, v in pairs if str(k.value) == part), None)
            if hit is None:
                break
            line, node = f", line {hit[0].start_mark.line + 1}", hit[1]
        return line

    def _refuse_unknown_keys(self, content: dict[Any, Any], above: str) -> None:
        for key, value in content.items():
            path = f"{above}{key}"
            if path in SCHEMA:
                continue
            if any(known.startswith(f"{path}.") for known in SCHEMA):
                if isinstance(value, dict):
                    self._refuse_unknown_keys(value, f"{path}.")
                continue
            close = difflib.get_close_matches(path, SCHEMA, n=1)
            hint = f"Did you mean `{close[0]}`?" if close else f"Known keys: {', '.join(SCHEMA)}."
            raise PackError(f"{self.path}{self._line_of(path)}", f"key `{path}` is not known.", hint)


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _are_texts(value: Any, least: int, most: float = math.inf) -> bool:
    """Whether it is a list of at least one list of so many texts."""
    is_list = isinstance(value, list) and bool(value)
    return is_list and all(_is_texts(item) and least <= len(item) <= most for item in value)


def _maps(value: Any, key: type, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, key) and holds(v) for k, v in value.items())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


# kind: (what is expected, whether a value is so, what it becomes)
KINDS: dict[str, tuple[str, Callable[[Any], bool], Callable[[Any], Any]]] = {
    "text": ('Expected a text in quotes, as "eu".', _is_text, str),
    "texts": (
        'Expected a list of texts, none of them empty, as ["one", "two"].',
        lambda value: _is_texts(value) and all(value),
        tuple,
    ),
    "flag": ("Expected true or false.", lambda value: isinstance(value, bool), bool),
    "before|after|either": (
        "Expected one of: before, after, either (where the number stands).",
        lambda value: value in ("before", "after", "either"),
        str,
    ),
    "joins|splits": (
        "Expected one of: joins (don't is one word), splits (l'home is two).",
        lambda value: value in ("joins", "splits"),
        str,
    ),
    "sets of texts": (
        'Expected a list of lists of two or more texts, as [["yes", "no"]].',
        lambda value: _are_texts(value, 2),
        lambda value: tuple(map(tuple, value)),
    ),
    "pairs": (
        'Expected a list of pairs of opening and closing mark, as [["«", "»"]].',
        lambda value: _are_texts(value, 2, 2) and all(map(all, value)),
        lambda value: tuple(map(tuple, value)),
    ),
    "text to text": (
        'Expected one letter to its variants, as {a: "áà"}.',
        lambda value: _maps(value, str, _is_text) and all(len(letter) == 1 for letter in value),
        dict,
    ),
    "text to texts": (
        "Expected names to lists of texts, as {at least: [al menos]}.",
        lambda value: _maps(value, str, _is_texts),
        lambda value: {key: tuple(texts) for key, texts in value.items()},
    ),
    "number to texts": (
        "Expected numbers to lists of texts, as {2: [dos, dues]}.",
        lambda value: _maps(value, int, _is_texts),
        lambda value: {key: tuple(texts) for key, texts in value.items()},
    ),
    "examples": (
        "Expected examples with the keys type, answer, followed and, where the type takes arguments, arguments.",
        lambda value: True,
        tuple,
    ),
}
