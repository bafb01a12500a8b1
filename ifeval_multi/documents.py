"""Reading prompts and answers: both dialects of published data, and our own, in one form.

The authors' dialect: ids without prefix, kwargs a sparse list of dicts. The Hub dialect (lm_eval's
es and ca sets, M-IFEval): ids "es:keywords:existence", "change_case:spanish_capital", kwargs
padded with None or written as a JSON string. A string where a list belongs is read as the list it
stands for; 0 is a number like any other.

A document is never changed for the original edition: `raw_arguments` keeps what the file says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifeval_multi.errors import PackError
from ifeval_multi.instructions import (
    INSTRUCTIONS,
    NUMBER,
    RELATION,
    RESPONSE_LANGUAGE,
    TEXTS,
    canonical_id,
    language_prefix,
)
from ifeval_multi.relations import canonical_relation

_QUOTED = re.compile(r"[\"'“”‘’\[\]]+")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a prompt: its type, and what was asked."""

    id: str
    arguments: Mapping[str, Any]
    raw_arguments: Mapping[str, Any]
    dialect: str


@dataclass(frozen=True)
class Document:
    """A prompt with its instructions."""

    key: int | str
    prompt: str
    instructions: tuple[Instruction, ...]
    where: str = ""

    def scored(self, include_response_language: bool) -> tuple[Instruction, ...]:
        """The instructions that count: response_language only where it is asked for."""
        if include_response_language:
            return self.instructions
        return tuple(i for i in self.instructions if i.id != RESPONSE_LANGUAGE)


def read(path: str | Path) -> list[Document]:
    """The documents of a JSONL file, or of a JSON file that holds a list.

    Raises:
        PackError: the file is not there, or a row is not a prompt with instructions.
    """
    return [from_row(row, where) for where, row in rows(path)]


def rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("FILE, line N", row) for each row of a JSONL (or JSON list) file."""
    file = Path(path)
    if not file.is_file():
        raise PackError(str(file), "there is no such file.", "Give the path of a JSONL file.")
    source = file.read_text(encoding="utf-8-sig")
    if source.lstrip().startswith("["):
        yield from _list_rows(file, source)
        return
    for number, line in enumerate(source.split("\n"), 1):
        if line.strip():
            where = f"{file}, line {number}"
            yield where, _object(_parse(line, where), where)


def _list_rows(file: Path, source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, row in enumerate(_parse(source, str(file)), 1):
        where = f"{file}, row {number}"
        yield where, _object(row, where)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise PackError(where, f"not valid JSON: {error}.", "One JSON object a line.") from None


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise PackError(where, f"holds {row!r:.60}.", "Expected a JSON object.")
    return row


def from_row(row: Mapping[str, Any], where: str = "") -> Document:
    """A Document from a row of any dialect."""
    where = where or f"document {row.get('key', '?')}"
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise PackError(where, "key `prompt` holds no text.", "Every row needs its prompt.")
    ids = _as_json(row.get("instruction_id_list"), where)
    if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
        raise PackError(where, "key `instruction_id_list` is no list of texts.", "")
    kwargs = _kwargs(row.get("kwargs"), len(ids), where)
    pairs = zip(ids, kwargs, strict=True)
    found = tuple(instruction(name, given, where) for name, given in pairs)
    return Document(row.get("key", where), prompt, found, where)


def _as_json(value: Any, where: str) -> Any:
    return _parse(value, where) if isinstance(value, str) else value


def _kwargs(value: Any, count: int, where: str) -> list[dict[str, Any]]:
    value = [{}] * count if value is None else _as_json(value, where)
    if not isinstance(value, list) or len(value) != count:
        raise PackError(where, f"key `kwargs` is no list of {count} objects.", "One for each instruction id.")
    parsed = [_as_json(item, where) or {} for item in value]
    return [_object(item, where) for item in parsed]


def instruction(name: str, given: Mapping[str, Any], where: str = "") -> Instruction:
    """An Instruction from an id and kwargs as the data have them.

    Raises:
        PackError: the type is not known, or an argument it needs is missing or of another kind.
    """
    bare = canonical_id(name)
    if bare not in INSTRUCTIONS:
        raise PackError(where or name, f"{name!r} is no instruction type.", f"Known: {', '.join(INSTRUCTIONS)}.")
    prefix = language_prefix(name)
    dialect = "google" if prefix in ("", "en") else "m-ifeval"
    # None is padding and goes; 0, "" and [] are values and stay.
    raw = {k: v for k, v in given.items() if k in INSTRUCTIONS[bare].arguments and v is not None}
    return Instruction(bare, _arguments(bare, raw, dialect, where or name), raw, dialect)


def _arguments(bare: str, raw: Mapping[str, Any], dialect: str, where: str) -> dict[str, Any]:
    kind = INSTRUCTIONS[bare]
    missing = [name for name in kind.needed if name not in raw]
    if missing:
        raise PackError(where, f"{bare} lacks {', '.join(missing)}.", f"It needs {kind.needed}.")
    return {
        name: _argument(name, kind.arguments[name], value, dialect, f"{where}, {bare}") for name, value in raw.items()
    }


def _argument(name: str, kind: str, value: Any, dialect: str, where: str) -> Any:
    if kind == RELATION:
        relation = canonical_relation(str(value))
        # lm_eval's es and ca sets say "less than" where prompt and code mean "at most".
        return "at most" if dialect == "m-ifeval" and relation == "less than" else relation
    if kind == NUMBER:
        return _number(name, value, where)
    if kind == TEXTS:
        return texts(value) if isinstance(value, str) else [str(item) for item in value]
    if not isinstance(value, str):
        raise PackError(where, f"{name} is {value!r}.", "Expected a text.")
    return value


def _number(name: str, value: Any, where: str) -> int:
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and value == int(value)
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    if not whole or value < 0:
        raise PackError(where, f"{name} is {value!r}.", "Expected a whole number, 0 or more.")
    return int(value)


def texts(value: str) -> list[str]:
    """The list that a string stands for: "katu" is ["katu"], '[a", "b"]' is ["a", "b"]."""
    pieces = value.split(",") if value.lstrip().startswith("[") else [value]
    return [piece for raw in pieces if (piece := _QUOTED.sub("", raw).strip())]


def match_responses(documents: list[Document], path: str | Path) -> list[dict[str, Any]]:
    """The answers of a JSONL file, in the order of the documents.

    They are matched by prompt text where the answers carry it, else by key. Published outputs
    carry other prompts under the same keys: a key whose prompt differs is refused, and nothing
    is dropped in silence.
    """
    answers = list(rows(path))
    by_prompt = {row["prompt"]: row for _, row in answers if isinstance(row.get("prompt"), str)}
    by_key = {str(row["key"]): row for _, row in answers if "key" in row}
    found = [by_prompt.get(d.prompt) or by_key.get(str(d.key)) for d in documents]
    for document, row in zip(documents, found, strict=True):
        if row is None:
            raise PackError(
                str(path),
                f"there is no answer to key {document.key}.",
                'Give one a document, as {"key": ..., "response": "..."}.',
            )
        if row.get("prompt", document.prompt) != document.prompt:
            raise PackError(
                str(path),
                f"the answer to key {document.key} was given to another prompt.",
                "Score answers with the prompts they answer.",
            )
    return [row for row in found if row is not None]
