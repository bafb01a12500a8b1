"""Do a store and the file that SQLite reads over it (store.sqlite-wal) belong together?

SQLite does not ask. Where one of the two was copied without the other (a backup put back after a sweep was killed, a
folder copied while a sweep wrote), it reads rows of both, without a word. So each store has a name of its own and counts
its writes, in one row. The row lies in both files: the store's own count must be among those of the other file, or the
one before the first of them.
"""

from __future__ import annotations

import re
import sqlite3
import struct
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

from lm_eval_iberian.runs.errors import SweepError

TABLE = """
CREATE TABLE IF NOT EXISTS stamp (said TEXT NOT NULL);
INSERT INTO stamp SELECT 'iberian-store ' || lower(hex(randomblob(16))) || ' 000000000000' WHERE NOT EXISTS (SELECT 1 FROM stamp);
"""
# Of the same length as before, so that SQLite writes it over the old one.
COUNT = "UPDATE stamp SET said = substr(said, 1, 47) || printf('%012d', substr(said, 48) + 1)"
_STAMP = re.compile(rb"iberian-store ([0-9a-f]{32}) ([0-9]{12})")
_WAL_HEAD, _FRAME_HEAD = 32, 24  # https://www.sqlite.org/fileformat2.html#walformat
# How often a mismatch must be seen alike: both files change while another process moves rows from one to the other.
LOOKS, PAUSE = 3, 0.05
Stamp = tuple[bytes, int]  # name and count


def refuse_mixed(store: Path) -> None:
    """Raises SweepError where the file beside a store was not written over this state of it. Changes nothing."""
    wal = store.with_name(f"{store.name}-wal")
    seen = None
    for _ in range(LOOKS):
        if not wal.is_file() or not store.is_file():
            return
        now = _of_store(store), _of_wal(wal)
        if _belong_together(*now) or seen not in (None, now):
            return
        seen = now
        time.sleep(PAUSE)
    if _belong_together(_of_store(store), _of_wal(wal, proves=True)):
        return
    raise SweepError(
        f"{store}: {wal.name} beside it was written over another state of it: one was copied without the other, or both "
        "while a sweep wrote. SQLite would mix their rows. Nothing was changed. Copy both again while no sweep writes; or, if "
        f"the {store.name} here is the one that you want, move {wal.name} away."
    )


def _belong_together(own: Stamp | None, over: Sequence[Stamp]) -> bool:
    return own is None or not over or (over[0][0] == own[0] and over[0][1] - 1 <= own[1] <= over[-1][1])


def _of_store(store: Path) -> Stamp | None:
    """Name and count in the store itself, without the file beside it; None where it has none."""
    try:
        connection = sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            row = connection.execute("SELECT said FROM stamp").fetchone()
        finally:
            connection.close()
    except sqlite3.Error:  # of before there were stamps; or damaged, which SQLite will say
        return None
    return _stamp_in(str(row[0]).encode()) if row else None


def _of_wal(wal: Path, proves: bool = False) -> list[Stamp]:
    """Names and counts in the file beside a store, in the order in which they were written.

    Args:
        proves: whether to take only what SQLite reads. It proves each page, which takes a while here; without that, what a
            killed process was about to write may be among them.
    """
    try:
        return [found for page in _pages(wal, proves) if (found := _stamp_in(page))]
    except OSError:  # it went away meanwhile; or it cannot be read, which SQLite will say
        return []


def _stamp_in(page: bytes) -> Stamp | None:
    return max(((name, int(count)) for name, count in _STAMP.findall(page)), key=lambda one: one[1], default=None)


def _pages(wal: Path, proves: bool) -> Iterator[bytes]:
    """The pages of its whole transactions. What lies behind them is of before it was begun again."""
    waiting: list[bytes] = []
    with wal.open("rb") as file:
        head = file.read(_WAL_HEAD)
        if len(head) < _WAL_HEAD:
            return
        (size,), salts = struct.unpack(">I", head[8:12]), head[16:24]
        swaps = (head[3] & 1) != (sys.byteorder == "big")
        sums = _sums(head[:24], (0, 0), swaps)
        if proves and struct.pack(">II", *sums) != head[24:]:
            return
        while len(frame := file.read(_FRAME_HEAD)) == _FRAME_HEAD and frame[8:16] == salts:
            page = file.read(size)
            if len(page) < size:
                return
            if proves:
                sums = _sums(frame[:8] + page, sums, swaps)
                if struct.pack(">II", *sums) != frame[16:]:
                    return
            waiting.append(page)
            if frame[4:8] != b"\0\0\0\0":  # the end of a transaction
                yield from waiting
                waiting = []


def _sums(data: bytes, sums: tuple[int, int], swaps: bool) -> tuple[int, int]:
    """SQLite's checksum of what stands in a -wal, after that of what stands before it."""
    words = array("I", data)
    if swaps:
        words.byteswap()
    first, second = sums
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
