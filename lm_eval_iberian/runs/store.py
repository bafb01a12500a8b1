"""The store of a run: one SQLite file (WAL) in the run folder, from which everything can be made again.

    answers      what the model said to one request; key: signature, engine settings, request type, request, seed
    evaluations  lm_eval's results of one evaluation of one point; key: signature, tasks with their versions and
                 documents, settings, seed
    documents    each document's metrics and answer, per evaluation, and the hash of what it said then
    texts        what the documents say, once for each hash: two evaluations may have read different ones of a number
    prompts      what the model was asked for a document, whole, once for each text; asked says which document
    failures     points that could not be measured, with the reason
    weights      the digest of the weights of each signature
    claims       who works on which evaluation now; a dead owner's claim is taken over
    stamp        the store's name and how often it was written: see `stamp`

Answers are written as soon as they come, each write a transaction: a process killed at any moment loses what was
being computed, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import sqlite3
import tempfile
import time
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from lm_eval_iberian.runs import stamp
from lm_eval_iberian.runs.errors import SweepError

Found = TypeVar("Found")
FILE = "store.sqlite"
# A claim of a process on another machine is dead when it was not renewed for so long (seconds).
CLAIM_SECONDS = 120.0
WAIT_SECONDS = 60.0  # for another process that writes
LAYOUT = 2
TABLES = """
CREATE TABLE IF NOT EXISTS answers (
  key TEXT PRIMARY KEY, signature TEXT NOT NULL, task TEXT NOT NULL, version TEXT NOT NULL, type TEXT NOT NULL,
  answer TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS evaluations (
  key TEXT PRIMARY KEY, signature TEXT NOT NULL, results BLOB NOT NULL, flags TEXT NOT NULL, seconds REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
  evaluation TEXT NOT NULL, task TEXT NOT NULL, document INTEGER NOT NULL, metrics TEXT NOT NULL, answer TEXT NOT NULL,
  hash TEXT NOT NULL, PRIMARY KEY (evaluation, task, document)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS texts (
  task TEXT NOT NULL, hash TEXT NOT NULL, document INTEGER NOT NULL, question TEXT NOT NULL, target TEXT NOT NULL,
  PRIMARY KEY (task, document, hash)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (
  key TEXT PRIMARY KEY, reason TEXT NOT NULL, details TEXT NOT NULL, moment REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
  key TEXT PRIMARY KEY, host TEXT NOT NULL, process INTEGER NOT NULL, born REAL NOT NULL, renewed REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS weights (signature TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS speeds (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
"""
# Not there in stores of 0.1, which are read without them.
PROMPT_TABLES = """
CREATE TABLE IF NOT EXISTS prompts (hash TEXT PRIMARY KEY, prompt BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked (
  evaluation TEXT NOT NULL, task TEXT NOT NULL, document INTEGER NOT NULL, hash TEXT NOT NULL,
  PRIMARY KEY (evaluation, task, document)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Answer:
    """One answer on its way to the store. `answer`: JSON; `key`: see `lm_eval_iberian.sweep.stored_lm`."""

    key: str
    signature: str
    task: str
    version: str
    type: str
    answer: str


@dataclass(frozen=True)
class Document:
    """One document's verdict.

    Args:
        metrics: JSON of metric -> value.
        question: JSON of the document.
        prompt: what the model was asked, with shots and chat template; "" where it is not known.
    """

    task: str
    document: int
    metrics: str
    answer: str
    hash: str
    question: str
    target: str
    prompt: str = ""


class Store:
    """The store of a run folder.

    Args:
        path: the SQLite file; made where it is not.
        writes: whether this process may write.
    Raises:
        SweepError: not a store, one of another layout, one that cannot be written, or one beside another's -wal.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path = path
        self._ahead: dict[str, tuple[Any, float]] = {}  # claims that are stamped in the future, and when they were seen
        with self._explained():
            if path.exists() and not path.is_file():
                raise SweepError(f"{path}: not a file (a folder, a pipe or a device), so it is no store.")
            stamp.refuse_mixed(path)
            if writes:
                path.parent.mkdir(parents=True, exist_ok=True)
            self.connection = self._open() if writes else self._open_to_read()
            if writes:
                self._prepare()
            self._check_layout()

    def _open(self, path: Path | None = None, how: str = "mode=rwc") -> sqlite3.Connection:
        address = f"{(path or self.path).absolute().as_uri()}?{how}"
        return sqlite3.connect(address, uri=True, timeout=WAIT_SECONDS, isolation_level=None)

    def _open_to_read(self) -> sqlite3.Connection:
        """SQLite wants to write beside a file in WAL mode even to read it, and to lock it: else a copy is read."""
        if not self.path.is_file():
            raise SweepError(f"{self.path}: there is no such store.")
        connection = self._open(how="mode=ro")
        try:
            connection.execute("PRAGMA user_version").fetchone()
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            return connection
        except sqlite3.OperationalError as error:
            connection.close()
            if os.access(self.path.parent, os.W_OK) and not _cannot_lock(error):
                raise
        folder = Path(tempfile.mkdtemp(prefix="iberian-store-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        for ending in ("", "-wal"):  # what was written last may lie in the second
            source = self.path.with_name(self.path.name + ending)
            if source.is_file():
                shutil.copyfile(source, folder / source.name)
        return self._open(folder / self.path.name)

    def _prepare(self) -> None:
        # Where several change the mode together, SQLite does not let all but one wait: they are told at once that the
        # file is locked.
        again = Retrying(
            retry=retry_if_exception(_is_locked), wait=wait_random(0.01, 0.1), stop=stop_after_delay(WAIT_SECONDS),
            reraise=True,
        )  # fmt: skip
        again(self.connection.execute, "PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=NORMAL")
        if self.connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            self.connection.executescript(TABLES)
            self.connection.execute(f"PRAGMA user_version={LAYOUT}")
        self.connection.executescript(PROMPT_TABLES)
        if self.connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'stamp'").fetchone() is None:
            self.connection.executescript(stamp.TABLE)

    def _check_layout(self) -> None:
        found = self.connection.execute("PRAGMA user_version").fetchone()[0]
        if not found:
            raise SweepError(
                f"{self.path}: a sweep is only just making it, or was stopped as it did. Ask again, or start the sweep."
            )
        if found != LAYOUT:
            raise SweepError(
                f"{self.path}: made by {'an older' if found < LAYOUT else 'a newer'} version of lm_eval_iberian (layout "
                f"{found}, this version reads {LAYOUT}). Nothing in it is changed. Take another run folder, and it is "
                "measured anew; or read this one with the version that made it."
            )

    def close(self) -> None:
        """Close the file; what was written stays."""
        self.connection.close()

    def _first(self, query: str, given: tuple[Any, ...], read: Callable[..., Found]) -> Found | None:
        """What `read` makes of the columns of the first row that a query finds; None where there is none."""
        with self._explained():
            row = self.connection.execute(query, given).fetchone()
            return None if row is None else read(*row)

    # Answers

    def keep_answers(self, answers: Iterable[Answer]) -> None:
        """Keep answers: on disk when this returns."""
        rows = [(a.key, a.signature, a.task, a.version, a.type, a.answer) for a in answers]
        with self._transaction():
            self.connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?)", rows)

    def answers(self, signature: str) -> dict[str, str]:
        """All answers of a signature: key -> JSON."""
        with self._explained():
            return dict(self.connection.execute("SELECT key, answer FROM answers WHERE signature = ?", (signature,)))

    def count_answers(self) -> int:
        """How many answers are kept."""
        return int(self.connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    # Evaluations

    def finish(
        self, key: str, signature: str, results: Mapping[str, Any], flags: Mapping[str, Any], seconds: float,
        documents: Iterable[Document],
    ) -> None:  # fmt: skip
        """Keep the results of an evaluation and its documents, and forget that it ever failed: all or nothing."""
        documents = list(documents)
        packed = zlib.compress(json.dumps(results, ensure_ascii=False).encode())
        verdicts = [(key, one.task, one.document, one.metrics, one.answer, one.hash) for one in documents]
        texts = [(one.task, one.hash, one.document, one.question, one.target) for one in documents]
        with self._transaction():
            self.connection.execute(
                "INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?, ?, ?)",
                (key, signature, packed, json.dumps(flags, ensure_ascii=False), seconds),
            )
            self.connection.execute("DELETE FROM documents WHERE evaluation = ?", (key,))
            self.connection.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)", verdicts)
            self.connection.executemany("INSERT OR IGNORE INTO texts VALUES (?, ?, ?, ?, ?)", texts)
            self._keep_prompts(key, documents)
            self.connection.execute("DELETE FROM failures WHERE key = ?", (key,))
            self.connection.execute("DELETE FROM claims WHERE key = ?", (key,))

    def _keep_prompts(self, key: str, documents: Iterable[Document]) -> None:
        """What was asked, each text once: the points of a sweep ask the same."""
        self.connection.execute("DELETE FROM asked WHERE evaluation = ?", (key,))
        for one in documents:
            if one.prompt:
                found = hashlib.sha256(one.prompt.encode(errors="surrogatepass")).hexdigest()[:32]
                self.connection.execute("INSERT INTO asked VALUES (?, ?, ?, ?)", (key, one.task, one.document, found))
                known = self.connection.execute("SELECT 1 FROM prompts WHERE hash = ?", (found,)).fetchone()
                if known is None:
                    packed = zlib.compress(json.dumps(one.prompt).encode(), 1)
                    self.connection.execute("INSERT INTO prompts VALUES (?, ?)", (found, packed))

    def prompt(self, key: str, task: str, document: int) -> str | None:
        """What the model was asked for a document, or None: stores of 0.1 do not know it."""
        if not self._first("SELECT 1 FROM sqlite_master WHERE name = 'asked'", (), bool):
            return None
        query = "SELECT prompt FROM prompts JOIN asked USING (hash) WHERE evaluation = ? AND task = ? AND document = ?"
        return self._first(query, (key, task, document), lambda packed: str(unpacked(packed)))

    def is_finished(self, key: str) -> bool:
        """Whether an evaluation's results are here."""
        return bool(self._first("SELECT 1 FROM evaluations WHERE key = ?", (key,), bool))

    def results(self, key: str) -> dict[str, Any] | None:
        """lm_eval's results of an evaluation, or None."""
        query = "SELECT results FROM evaluations WHERE key = ?"
        return self._first(query, (key,), lambda packed: mapping(unpacked(packed)))

    def flags(self, key: str) -> dict[str, Any]:
        """task -> what is wrong with its answers."""
        query = "SELECT flags FROM evaluations WHERE key = ?"
        return self._first(query, (key,), lambda said: mapping(json.loads(said))) or {}

    def seconds(self, key: str) -> float:
        """How long the evaluation took."""
        return self._first("SELECT seconds FROM evaluations WHERE key = ?", (key,), float) or 0.0

    def documents(self, key: str, task: str | None = None) -> Iterator[tuple[str, int, dict[str, Any], str]]:
        """(task, document, metrics, answer) of an evaluation, in order."""
        query = "SELECT task, document, metrics, answer FROM documents WHERE evaluation = ?"
        with self._explained():
            given = (key, task) if task else (key,)
            rows = self.connection.execute(query + (" AND task = ?" if task else ""), given).fetchall()
        for name, document, metrics, answer in rows:
            with self._explained():
                yield name, int(document), mapping(json.loads(metrics)), str(answer)

    def hashes(self, key: str, task: str) -> dict[int, str]:
        """document -> the hash of what it said when this evaluation was made."""
        query = "SELECT document, hash FROM documents WHERE evaluation = ? AND task = ?"
        with self._explained():
            return dict(self.connection.execute(query, (key, task)))

    def text(self, key: str, task: str, document: int) -> tuple[dict[str, Any], str] | None:
        """(document, target) as this evaluation read it, or None."""
        query = (
            "SELECT question, target FROM texts JOIN documents USING (task, document, hash) "
            "WHERE evaluation = ? AND task = ? AND document = ?"
        )
        return self._first(
            query, (key, task, document), lambda question, target: (mapping(json.loads(question)), str(target))
        )

    # Failures

    def fail(self, key: str, reason: str, details: str = "") -> None:
        """Record why an evaluation could not be made. It is tried again when the sweep is started again."""
        with self._transaction():
            self.connection.execute(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)", (key, reason, details, time.time())
            )
            self.connection.execute("DELETE FROM claims WHERE key = ?", (key,))

    def failure(self, key: str, since: float = 0.0) -> str | None:
        """The reason, or None where it has not failed since a moment (seconds since 1970)."""
        return self._first("SELECT reason FROM failures WHERE key = ? AND moment >= ?", (key, since), str)

    def failures(self, key: str | None = None) -> dict[str, tuple[str, float]]:
        """key -> (reason, moment) of all failures, or of one evaluation's."""
        with self._explained():
            query = "SELECT key, reason, moment FROM failures" + (" WHERE key = ?" if key else "")
            rows = self.connection.execute(query, (key,) if key else ())
            return {str(row[0]): (str(row[1]), float(row[2])) for row in rows}

    def knows(self, key: str) -> bool:
        """Whether anything is kept of an evaluation: its results, or that somebody works on it."""
        query = "SELECT 1 FROM evaluations WHERE key = ?1 UNION ALL SELECT 1 FROM claims WHERE key = ?1"
        return bool(self._first(query, (key,), bool))

    # Claims

    def claim(self, key: str) -> bool:
        """Take an evaluation to work on. False where a living process has it, or it is finished."""
        with self._transaction():
            if self.is_finished(key):
                return False
            row = self.connection.execute(
                "SELECT host, process, born, renewed FROM claims WHERE key = ?", (key,)
            ).fetchone()
            if row is not None and not _is_me(*row[:3]) and _is_alive(*row) and not self._stands_still(key, row):
                return False
            self.connection.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?)", (key, *_me(), time.time()))
            return True

    def _stands_still(self, key: str, row: tuple[Any, ...]) -> bool:
        """Whether a claim that is stamped in the future was not renewed for so long, by the clock of this process.

        The clock of who wrote it is ahead; by what it says, it would not end before that moment has come.
        """
        if row[3] <= time.time():
            return False
        seen, since = self._ahead.get(key, (None, 0.0))
        if seen != row:
            self._ahead[key] = (row, time.monotonic())
            return False
        return time.monotonic() - since > CLAIM_SECONDS

    def renew_claims(self) -> None:
        """Say that this process is alive."""
        host, process, born = _me()
        with self._transaction():
            self.connection.execute(
                "UPDATE claims SET renewed = ? WHERE host = ? AND process = ? AND born = ?",
                (time.time(), host, process, born),
            )

    # Weights

    def note_weights(self, signature: str, digest: str) -> None:
        """Remember the digest of the weights that a signature stands for (`merge_hooks.engines.weights_digest`)."""
        with self._transaction():
            self.connection.execute("INSERT OR IGNORE INTO weights VALUES (?, ?)", (signature, digest))

    def weights(self, signature: str) -> str | None:
        """The digest that was noted, or None."""
        return self._first("SELECT digest FROM weights WHERE signature = ?", (signature,), str)

    # Speeds, for estimates

    def note_speed(self, name: str, value: float) -> None:
        """Remember a measured speed for the next estimate."""
        with self._transaction():
            self.connection.execute("INSERT OR REPLACE INTO speeds VALUES (?, ?)", (name, value))

    def speed(self, name: str) -> float | None:
        """A speed that was noted, or None."""
        return self._first("SELECT value FROM speeds WHERE name = ?", (name,), float)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explained():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute(stamp.COUNT)
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has rolled back by itself
                    self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SweepError(f"{self.path}: {error}. {_what_it_means(error, self.path)}") from error
        except (zlib.error, ValueError, RecursionError, OverflowError) as error:  # not what was written
            raise SweepError(f"{self.path}: {error}. {DAMAGED}") from error
        except OSError as error:
            raise SweepError(f"{self.path}: {error}.") from error


# An evaluation's results take some MB; what a hostile file says may not fill the memory.
MAX_RESULTS = 1 << 30


def unpacked(packed: bytes) -> Any:
    """What `finish` packed. Raises zlib.error or ValueError where it is damaged."""
    reading = zlib.decompressobj()
    text = reading.decompress(packed, MAX_RESULTS)
    if not reading.eof:
        raise ValueError("results that are cut, or too large")
    return json.loads(text)


def mapping(found: Any) -> dict[str, Any]:
    """What was found, where it is a mapping. Raises ValueError."""
    if not isinstance(found, dict):
        raise ValueError(f"{found!s:.80} stands where a mapping should")
    return found


# Its "disk I/O error" where a lock was refused (Lustre without `flock`), and where a write was: a quota, unlike a full
# disk, has no error of its own there. Neither says that the file is not whole.
_NO_LOCKS = (
    sqlite3.SQLITE_IOERR_LOCK, sqlite3.SQLITE_IOERR_UNLOCK, sqlite3.SQLITE_IOERR_RDLOCK,
    sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK, sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_IOERR_SHMMAP,
)  # fmt: skip
_NOT_WRITTEN = (
    sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_SHMSIZE,
)  # fmt: skip
# Of SQLite's errors, the words of those that say that the file is not whole.
_MALFORMED = ("malformed", "not a database", "corrupt", "no such table", "no such column", "disk i/o")
DAMAGED = (
    "The store is damaged: a disk that fails, a copy that was cut, or another program wrote into it. What can be read of "
    "it is saved by `iberian rescue RUN`; the same sweep then measures the rest."
)


def _what_it_means(error: sqlite3.Error, path: Path) -> str:
    said = str(error).lower()
    if _cannot_lock(error):
        return (
            "The folder is on a file system that refuses SQLite's locks, so nothing can be measured in it. Give a folder on "
            "another with --out (a node's own disk), and copy it when all is measured."
        )
    if any(words in said for words in _MALFORMED) and getattr(error, "sqlite_errorcode", None) not in _NOT_WRITTEN:
        return DAMAGED
    if "readonly" in said or not os.access(path.parent, os.W_OK):
        return (
            "The run folder is read-only, so nothing can be measured in it. `iberian report` and `iberian best` read it; "
            "to measure, copy it, or give another folder with --out."
        )
    return (
        "Is the disk or your quota full, or the folder on a file system that SQLite cannot lock? What was kept is whole; when "
        "this is mended, the same command goes on."
    )


def _cannot_lock(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", None) in _NO_LOCKS


def _is_locked(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY


def _me() -> tuple[str, int, float]:
    """This process: machine, number, time of birth (a number may be used again)."""
    return socket.gethostname(), os.getpid(), _born(os.getpid())


def _born(process: int) -> float:
    import psutil

    return round(psutil.Process(process).create_time(), 2)


def _is_me(host: str, process: int, born: float) -> bool:
    return (host, process) == (socket.gethostname(), os.getpid()) and abs(born - _born(os.getpid())) < 1


def _is_alive(host: str, process: int, born: float, renewed: float) -> bool:
    import psutil

    if host != socket.gethostname():
        return time.time() - renewed < CLAIM_SECONDS
    try:
        lives = psutil.Process(process).status() != psutil.STATUS_ZOMBIE
        return lives and abs(_born(process) - born) < 1
    except psutil.Error:
        return False
