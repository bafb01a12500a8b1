"""Reading prompts and answers: both dialects of published data, and our own, in one form.

The authors' dialect: ids without prefix, kwargs a sparse list of dicts. The Hub dialect (lm_eval's
es and ca sets, M-IFEval): ids "es:keywords:existence", "change_case:spanish_capital", kwargs
padded with None or written as a JSON string. A string where a list belongs is read as the list it
stands for; 0 is a number like any other.

A type that neither every language nor the pack has is left out of a document and named in `unknown`: nothing else of the
row is lost, and whoever scores says what was left out. A document is never changed for the original edition:
`raw_arguments` keeps what the file says.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifeval_multi.errors import PackError
from ifeval_multi.instructions import (
    INSTRUCTIONS,
    M_IFEVAL_PREFIXES,
    NUMBER,
    NUMBERS,
    RELATION,
    RESPONSE_LANGUAGE,
    TEXT_TO_TEXT,
    TEXTS,
    InstructionType,
    canonical_id,
    language_prefix,
)
from ifeval_multi.pack import Pack, languages, load_pack
from ifeval_multi.relations import COMPARISONS, canonical_relation

MAX_DIGITS = 20  # of a number that is written as a text
_QUOTED = re.compile(r"[\"'“”‘’\[\]]+")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a prompt: its type, what was asked, and whose published checks its id stands for."""

    id: str
    arguments: Mapping[str, Any]
    raw_arguments: Mapping[str, Any]
    dialect: str
    prefix: str = ""


@dataclass(frozen=True)
class Document:
    """A prompt with its instructions."""

    key: int | str
    prompt: str
    instructions: tuple[Instruction, ...]
    where: str = ""
    unknown: tuple[str, ...] = ()  # ids that were left out, as the data have them

    def scored(self, include_response_language: bool) -> tuple[Instruction, ...]:
        """The instructions that count: response_language only where it is asked for."""
        if include_response_language:
            return self.instructions
        return tuple(i for i in self.instructions if i.id != RESPONSE_LANGUAGE)


def read(path: str | Path, pack: Pack | None = None) -> list[Document]:
    """The documents of a JSONL file, or of a JSON file that holds a list.

    Args:
        path: the file.
        pack: the language, for types and relations of its own; without it the ids' prefixes say which.

    Raises:
        PackError: the file is not there, or a row is not a prompt with instructions.
    """
    return [from_row(row, where, pack) for where, row in prompt_rows(path)]


def prompt_rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file; of lm_eval's samples (samples_TASK_DATE.jsonl) the prompt's row with the answer."""
    for where, row in rows(path):
        yield where, _of_sample(row, where) if isinstance(row.get("doc"), dict) and "resps" in row else row


def _of_sample(sample: dict[str, Any], where: str) -> dict[str, Any]:
    """The row of one sample that lm_eval logged: our tasks keep it whole in `doc.row`, lm_eval's own are the `doc`."""
    doc = sample["doc"]
    row = _object(_parse(doc["row"], where), where) if isinstance(doc.get("row"), str) else doc
    found = sample.get("filtered_resps") or sample["resps"]
    while isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, str):
        told = f"{len(found)} answers to one prompt." if isinstance(found, list) else "`resps` holds no text."
        raise PackError(where, told, "Give samples of an IFEval task with one answer a prompt (`repeats: 1`).")
    return {**row, "response": found}


def rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("FILE, line N", row) for each row of a JSONL (or JSON list) file."""
    file = Path(path)
    if not file.is_file():
        raise PackError(str(file), "there is no such file.", "Give the path of a JSONL file.")
    try:
        source = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PackError(str(file), f"not UTF-8 ({error.reason}, byte {error.start}).", "Save it as UTF-8.") from None
    except OSError as error:
        raise PackError(str(file), f"cannot be read ({error.strerror}).", "Give the path of a JSONL file.") from None
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
    except (ValueError, RecursionError) as error:
        raise PackError(where, f"not valid JSON: {error}.", "One JSON object a line.") from None


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise PackError(where, f"holds {row!r:.60}.", "Expected a JSON object.")
    return row


def from_row(row: Mapping[str, Any], where: str = "", pack: Pack | None = None) -> Document:
    """A Document from a row of any dialect.

    Raises:
        PackError: the row is none, or an instruction lacks an argument or has one of another kind.
    """
    where = where or f"document {row.get('key', '?')}"
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise PackError(where, "key `prompt` holds no text.", "Every row needs its prompt.")
    ids = _as_json(row.get("instruction_id_list"), where)
    if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
        raise PackError(where, "key `instruction_id_list` is no list of texts.", "")
    kwargs = _kwargs(row.get("kwargs"), len(ids), where)
    found, left_out = [], []
    for name, given in zip(ids, kwargs, strict=True):
        own = _pack_of(name, pack)
        if _kind(name, own) is None:
            left_out.append(name)
        else:
            found.append(instruction(name, given, where, own))
    return Document(row.get("key", where), prompt, tuple(found), where, tuple(left_out))


def _pack_of(name: str, pack: Pack | None) -> Pack | None:
    """The pack that was given; else the one that ships for the id's prefix."""
    prefix = language_prefix(name)
    return pack or (load_pack(prefix) if prefix in languages() else None)


def _kind(name: str, pack: Pack | None) -> InstructionType | None:
    bare = canonical_id(name)
    return pack.kind(bare) if pack else INSTRUCTIONS.get(bare)


def _as_json(value: Any, where: str) -> Any:
    return _parse(value, where) if isinstance(value, str) else value


def _kwargs(value: Any, count: int, where: str) -> list[dict[str, Any]]:
    value = [{}] * count if value is None else _as_json(value, where)
    if not isinstance(value, list) or len(value) != count:
        raise PackError(where, f"key `kwargs` is no list of {count} objects.", "One for each instruction id.")
    parsed = [_as_json(item, where) or {} for item in value]
    return [_object(item, where) for item in parsed]


def instruction(name: str, given: Mapping[str, Any], where: str = "", pack: Pack | None = None) -> Instruction:
    """An Instruction from an id and kwargs as the data have them.

    Raises:
        PackError: the type is not known, or an argument it needs is missing or of another kind.
    """
    pack = _pack_of(name, pack)
    kind = _kind(name, pack)
    if kind is None:
        known = ", ".join([*INSTRUCTIONS, *(pack.own_types if pack else ())])
        raise PackError(where or name, f"{name!r} is no instruction type.", f"Known: {known}.")
    prefix = language_prefix(name)
    dialect = "m-ifeval" if prefix in M_IFEVAL_PREFIXES else "google"
    # None is padding and goes; 0, "" and [] are values and stay.
    raw = {k: v for k, v in given.items() if k in kind.arguments and v is not None}
    return Instruction(kind.id, _arguments(kind, raw, where or name, pack), raw, dialect, prefix)


def _arguments(kind: InstructionType, raw: Mapping[str, Any], where: str, pack: Pack | None) -> dict[str, Any]:
    missing = [name for name in kind.needed if name not in raw]
    if missing:
        raise PackError(where, f"{kind.id} lacks {', '.join(missing)}.", f"It needs {kind.needed}.")
    where = f"{where}, {kind.id}"
    return {name: _argument(name, kind.arguments[name], value, where, pack) for name, value in raw.items()}


def _argument(name: str, kind: str, value: Any, where: str, pack: Pack | None) -> Any:
    if kind == RELATION:
        return _relation(str(value), where, pack)
    if kind == NUMBER:
        return _number(name, value, where)
    if kind == NUMBERS:
        return [_number(name, item, where) for item in _listed(name, value, where)]
    if kind == TEXT_TO_TEXT:
        return _text_to_text(name, value, where)
    if kind == TEXTS:
        return _texts(name, value, where)
    # Every answer ends with "", and holds it; a space may be asked for as a letter.
    if not isinstance(value, str) or not value or (not value.strip() and name != "letter"):
        raise PackError(where, f"{name} is {value!r}.", "Expected a text.")
    return value


def _texts(name: str, value: Any, where: str) -> list[str]:
    found = texts(value) if isinstance(value, str) else [str(item) for item in _listed(name, value, where)]
    if not found or not all(item.strip() for item in found):
        raise PackError(where, f"{name} is {value!r:.60}.", "Expected a list of texts, none of them empty.")
    return found


def _relation(value: str, where: str, pack: Pack | None) -> str:
    """One of relations.COMPARISONS: written so, or in the pack's words ("au moins"), or in published Spanish."""
    said = value.strip().lower()
    own = pack.relations if pack else {}
    if said not in COMPARISONS:
        said = next((name for name, phrases in own.items() if said in phrases), said)
    try:
        return canonical_relation(said)
    except PackError as error:
        words = ", ".join(phrase for phrases in own.values() for phrase in phrases)
        more = f" In {pack.name} also: {words}." if pack and words else ""
        raise PackError(where, error.what, error.fix + more) from None


def _listed(name: str, value: Any, where: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise PackError(where, f"{name} is {value!r}.", "Expected a list.")
    return list(value)


def _text_to_text(name: str, value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise PackError(where, f"{name} is {value!r}.", "Expected texts to texts.")
    return {str(key): str(text) for key, text in value.items() if text is not None}  # None: padding of the Hub


def _number(name: str, value: Any, where: str) -> int:
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < MAX_DIGITS:
        return int(value)
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and value % 1 == 0  # NaN and inf: NaN
    if not whole or value < 0:
        raise PackError(where, f"{name} is {value!r:.60}.", "Expected a whole number, 0 or more.")
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

    Raises:
        PackError: a document has no answer, or two; or two documents would share one by their key.
    """
    by_prompt, by_key = _by_prompt_and_key(path)
    _refuse_shared_keys(documents, by_key)
    return [_answer(document, by_prompt[document.prompt], by_key[_key(document.key)], path) for document in documents]


def answers_to_no_prompt(documents: list[Document], path: str | Path) -> list[str]:
    """Where the answers of a JSONL file stand that match_responses() does not need ("line 3")."""
    keys, prompts = {_key(document.key) for document in documents}, {document.prompt for document in documents}
    return [
        _line(where)
        for where, row in prompt_rows(path)
        if (row["prompt"] not in prompts if _has_prompt(row) else _key(row.get("key")) not in keys)
    ]


Answers = list[tuple[int, str, dict[str, Any]]]  # each with its number, and where it stands


def _by_prompt_and_key(path: str | Path) -> tuple[dict[str, Answers], dict[str, Answers]]:
    by_prompt: dict[str, Answers] = defaultdict(list)
    by_key: dict[str, Answers] = defaultdict(list)
    for number, (where, row) in enumerate(prompt_rows(path)):
        if _has_prompt(row):
            by_prompt[row["prompt"]].append((number, where, row))
        if "key" in row:
            by_key[_key(row["key"])].append((number, where, row))
    return by_prompt, by_key


def _answer(document: Document, by_prompt: Answers, by_key: Answers, path: str | Path) -> dict[str, Any]:
    """The one answer to a document, of those that carry its prompt and those that carry its key."""
    own_key = [answer for answer in by_prompt if _key(answer[2].get("key")) == _key(document.key)]
    found = sorted((own_key or by_prompt) + [answer for answer in by_key if not _has_prompt(answer[2])])
    if not found and by_key:
        raise PackError(
            by_key[0][1],
            f"the answer to key {document.key} was given to another prompt.",
            "Score answers with the prompts they answer.",
        )
    if not found:
        raise PackError(
            str(path),
            f"there is no answer to key {document.key}.",
            'Give one a document, as {"key": ..., "response": "..."}.',
        )
    if len(found) > 1:
        raise PackError(
            found[1][1],
            f"a second answer to key {document.key}; {_line(found[0][1])} has the first.",
            "Keep one of the two: which of them counts is not for the score to choose.",
        )
    _, where, row = found[0]
    if not isinstance(row.get("response"), str):
        has = f"key `response` holds no text; the answer has {', '.join(row)}."
        raise PackError(where, has, 'Give answers as {"key": ..., "response": "..."}; an empty one is "".')
    return row


def _refuse_shared_keys(documents: list[Document], by_key: Mapping[str, Answers]) -> None:
    """Two documents with one key are told apart by their prompts alone, if every answer carries its prompt."""
    first: dict[str, Document] = {}
    for document in documents:
        key = _key(document.key)
        other = first.setdefault(key, document)
        same = document.prompt == other.prompt
        if other is not document and (same or not all(_has_prompt(row) for *_, row in by_key.get(key, ()))):
            raise PackError(
                document.where,
                f"key {key} comes twice; {_line(other.where)} has it, too.",
                "Take one of the two away." if same else "Give each prompt a key of its own, and its answer too.",
            )


def _key(value: Any) -> str:
    """A key as it is compared: 1, "1" and 1.0 (as spreadsheets and pandas write it) are one."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _has_prompt(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("prompt"), str)


def _line(where: str) -> str:
    """ "line 3" of "FILE, line 3"."""
    return where.rpartition(", ")[2]
