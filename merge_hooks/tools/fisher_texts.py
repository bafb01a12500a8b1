"""The texts that a Fisher map is made from: JSON lines with a `text` column, or plain text, one text a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from merge_hooks.errors import FisherError
from merge_hooks.hashing import file_hash

# Longer than any text that is cut to a model's context; a hostile file must not fill the memory.
MAX_LINE_BYTES = 16_000_000
JSON_LINES = (".jsonl", ".json", ".ndjson")


def read_texts(path: Path) -> Iterator[str]:
    """The texts in order, one line in memory at a time. Blank lines are skipped.

    Args:
        path: each line of a `.jsonl`, `.json` or `.ndjson` file is an object with a `text`; each line of any other file
            is a text.
    Raises:
        FisherError: there is no such file, or a line is no text; the message has its number.
    """
    try:
        with path.open("rb") as file:
            lines = iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")
            for number, line in enumerate(lines, start=1):
                where = f"{path}, line {number}"
                if len(line) > MAX_LINE_BYTES:
                    raise FisherError(f"{where}: longer than {MAX_LINE_BYTES} bytes. Give one text a line.")
                text = _decode(line, where)
                if text.strip():
                    yield _text_of(text, where) if path.suffix in JSON_LINES else text.rstrip("\r\n")
    except OSError as error:
        raise FisherError(f"{path}: cannot read these texts ({error.strerror}).") from None


def survey(path: Path) -> tuple[str, int]:
    """(content hash, number of texts). Reads everything, so that a bad line is found before hours of work.

    Raises:
        FisherError: as `read_texts`, or the file has no text at all.
    """
    count = sum(1 for _ in read_texts(path))
    if not count:
        raise FisherError(f"{path}: there is no text in it.")
    return file_hash(path), count


def _decode(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise FisherError(f"{where}: not UTF-8 text.") from None


def _text_of(line: str, where: str) -> str:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        raise FisherError(f"{where}: not a line of JSON. Name the file .txt if it is plain text.") from None
    text = content.get("text") if isinstance(content, dict) else None
    if not isinstance(text, str):
        raise FisherError(f'{where}: wants an object with a text, {{"text": "..."}}.')
    return text
