"""What can be read of a damaged store, in a new one.

    rescue(Path("runs/figure1"))     # store.sqlite -> store.sqlite.damaged, and a new store.sqlite with what is whole

Rows are read from both ends of each table until SQLite stops, and between by their keys; each row is checked by what
must be true of it. The same sweep then measures what is missing.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.runs.store import Store, mapping, unpacked

STORES = "store*.sqlite"
DAMAGED = ".damaged"
# table -> its key's columns. Claims and failures are of a moment; without them all is tried again.
KEYS = {
    "answers": ("key",), "evaluations": ("key",), "documents": ("evaluation", "task", "document"),
    "texts": ("task", "document", "hash"), "weights": ("signature",), "speeds": ("name",),
    "prompts": ("hash",), "asked": ("evaluation", "task", "document"),
}  # fmt: skip
# Tables that stores of 0.1 do not have.
ADDED = ("prompts", "asked")
# column -> what it must hold.
CHECKS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("answers", "answer"): json.loads, ("evaluations", "results"): lambda packed: mapping(unpacked(packed)),
    ("evaluations", "flags"): lambda text: mapping(json.loads(text)),
    ("documents", "metrics"): lambda text: mapping(json.loads(text)),
    ("texts", "question"): lambda text: mapping(json.loads(text)), ("prompts", "prompt"): unpacked,
}  # fmt: skip


@dataclass(frozen=True)
class Rescued:
    """What came out of one store: table -> rows. `kept`: where the damaged one lies now."""

    store: Path
    kept: Path
    rows: dict[str, int]


def rescue(folder: Path) -> list[Rescued]:
    """Save what can be read of each store of a run folder that is damaged; whole ones are left alone.

    Raises:
        SweepError: there is no store, or the folder cannot be written.
    """
    stores = sorted(folder.glob(STORES))
    if not stores:
        raise SweepError(f"{folder}: no store in it, so it is not the folder of a sweep.")
    return [_rescue(store) for store in stores if not is_whole(store)]


def is_whole(store: Path) -> bool:
    """Whether SQLite finds nothing wrong with a file, and it has every table."""
    try:
        connection = sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)
        try:
            said = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            known = [table for table in KEYS if table in there or table not in ADDED]
            for table in (*known, "failures", "claims"):
                connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()
            return bool(said == "ok") and all(
                _is_right(table, row) for table in known for row in _all(connection, table)
            )
        finally:
            connection.close()
    except sqlite3.Error:
        return False


def _all(connection: sqlite3.Connection, table: str) -> Iterator[dict[str, Any]]:
    cursor = connection.execute(f"SELECT * FROM {table}")
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield dict(zip(names, row, strict=True))


def _rescue(store: Path) -> Rescued:
    part, kept = store.with_name(f".{store.name}.rescued"), _free(store)
    try:
        part.unlink(missing_ok=True)
        made = Store(part)
        rows = {table: _copy(store, made, table) for table in KEYS}
        _drop_halves(made)
        made.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        made.close()
        for ending in ("-wal", "-shm"):
            if (beside := store.with_name(store.name + ending)).exists():
                beside.replace(kept.with_name(kept.name + ending))
        store.replace(kept)
        part.replace(store)
    except OSError as error:
        raise SweepError(
            f"{store}: cannot be written anew ({error}). Copy the run folder to where there is room."
        ) from error
    return Rescued(store, kept, rows)


def _free(store: Path) -> Path:
    number, free = 2, store.with_name(store.name + DAMAGED)
    while free.exists():
        number, free = number + 1, store.with_name(f"{store.name}{DAMAGED}.{number}")
    return free


def _copy(store: Path, made: Store, table: str) -> int:
    """Copy the rows that can be read and are right. Returns how many."""
    count = 0
    columns = [row[1] for row in made.connection.execute(f"PRAGMA table_info({table})")]
    for row in _rows(store, table, columns):
        if _is_right(table, dict(zip(columns, row, strict=True))):
            marks = ", ".join("?" * len(columns))
            try:
                count += made.connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row).rowcount
            except sqlite3.Error:  # NULL where there is none
                continue
    return count


def _rows(store: Path, table: str, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    """Rows from the beginning until SQLite stops, then from the end."""
    order = ", ".join(KEYS[table])
    back = ", ".join(f"{column} DESC" for column in KEYS[table])
    for direction in (order, back):
        try:
            connection = sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)
        except sqlite3.Error:
            return
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        try:
            yield from connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {direction}")
            return
        except sqlite3.Error:
            continue
        finally:
            connection.close()


def _is_right(table: str, row: dict[str, Any]) -> bool:
    try:
        for (of, column), check in CHECKS.items():
            if of == table:
                check(row[column])
        for value in row.values():
            if isinstance(value, str):
                value.encode()  # no bytes that were no text
        return True
    except (ValueError, TypeError, zlib.error, RecursionError):
        return False


def _drop_halves(made: Store) -> None:
    """An evaluation that lost some of its documents is no evaluation: it is made again from its answers."""
    whole = []
    for key, packed in made.connection.execute("SELECT key, results FROM evaluations").fetchall():
        counts = unpacked(packed).get("n-samples") or {}
        wanted = sum(int(one.get("effective") or 0) for one in counts.values() if isinstance(one, dict))
        held = made.connection.execute("SELECT count(*) FROM documents WHERE evaluation = ?", (key,)).fetchone()[0]
        if held >= wanted:
            whole.append(key)
    keys = {row[0] for row in made.connection.execute("SELECT key FROM evaluations")} - set(whole)
    for key in keys:
        made.connection.execute("DELETE FROM evaluations WHERE key = ?", (key,))
    made.connection.execute("DELETE FROM documents WHERE evaluation NOT IN (SELECT key FROM evaluations)")
