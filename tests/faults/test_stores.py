"""Stores, plans and clocks: damage is said and mended, nothing that was measured is hidden, nothing waits for ever."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import struct
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from lm_eval_iberian.commands.main import cli
from lm_eval_iberian.compare.answers import examples
from lm_eval_iberian.compare.columns import Scores
from lm_eval_iberian.runs import stamp
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.runs.rescue import is_whole, rescue
from lm_eval_iberian.runs.run import read_sweep_run
from lm_eval_iberian.runs.store import CLAIM_SECONDS, FILE, Answer, Document, Store
from lm_eval_iberian.sweep import plan_file
from lm_eval_iberian.sweep.driver import Driver, run_sweep
from tests.lm_eval_iberian.sweep.fake_worker import Quiet, a_job
from tests.lm_eval_iberian.sweep_maker import toy_run

# Clocks


def test_a_failure_that_is_stamped_in_the_future_is_tried_again(tmp_path: Path) -> None:
    store = Store(tmp_path / FILE)
    store.connection.execute("INSERT INTO failures VALUES ('a', 'no memory', '', ?)", (time.time() + 10**7,))
    driver = Driver(SimpleNamespace(), tmp_path, store, Quiet(), [a_job("a")])  # type: ignore[arg-type]
    job = driver.next_job(None)
    assert job is not None and getattr(job, "key", "") == "a" and driver.failures == {}


def test_a_failure_of_another_sweep_meanwhile_is_not_tried_again(tmp_path: Path) -> None:
    store = Store(tmp_path / FILE)
    driver = Driver(SimpleNamespace(), tmp_path, store, Quiet(), [a_job("a")])  # type: ignore[arg-type]
    Store(tmp_path / FILE).connection.execute(
        "INSERT INTO failures VALUES ('a', 'no memory', '', 5.0)"
    )  # a clock behind
    assert driver.next_job(None) is None
    assert list(driver.failures.values()) == ["a: task: no memory"]


def test_a_claim_of_a_host_whose_clock_is_ahead_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, moment = Store(tmp_path / FILE), time.time() + 10**7
    store.connection.execute("INSERT INTO claims VALUES ('a', 'another-host', 1, 1.0, ?)", (moment,))
    assert not store.claim("a")
    start = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: start + CLAIM_SECONDS - 5)
    assert not store.claim("a")
    store.connection.execute("UPDATE claims SET renewed = ?", (moment + 30,))  # it lives
    assert not store.claim("a")
    monkeypatch.setattr(time, "monotonic", lambda: start + 2 * CLAIM_SECONDS)
    assert store.claim("a")


# Damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_run(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A run folder with one store file, to be damaged."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    with sqlite3.connect(folder / FILE) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder


def overwritten(store: Path, draw: random.Random) -> None:
    data = bytearray(store.read_bytes())
    for _ in range(draw.randint(1, 5)):
        place = draw.randrange(100, len(data))
        data[place : place + 200] = draw.randbytes(len(data[place : place + 200]))
    store.write_bytes(data)


def shortened(store: Path, draw: random.Random) -> None:
    data = store.read_bytes()
    store.write_bytes(data[: draw.randrange(len(data) // 8, len(data))])


def without_a_table(store: Path, draw: random.Random) -> None:
    with sqlite3.connect(store) as connection:
        connection.execute(f"DROP TABLE {draw.choice(['evaluations', 'documents', 'answers', 'failures'])}")


def unpackable(store: Path, draw: random.Random) -> None:
    with sqlite3.connect(store) as connection:
        packed = draw.choice([b"abc", b"", bytes.fromhex("789c030000000001")])
        connection.execute("UPDATE evaluations SET results = ? WHERE key LIKE '%weight=0.5'", (packed,))


def no_json(store: Path, draw: random.Random) -> None:
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE documents SET metrics = ?", (draw.choice(["{", "[1]", "5", '{"a": NaN', ""]),))


DAMAGES = {one.__name__: one for one in (overwritten, shortened, without_a_table, unpackable, no_json)}
COMMANDS = (["report"], ["best", "--by", "toy_choice_eu"], ["sweep-export"])


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("seed", range(2))
def test_a_damaged_store_is_a_message(run: Path, damage: str, seed: int) -> None:
    DAMAGES[damage](run / FILE, random.Random(seed))
    for command in COMMANDS:
        result = CliRunner(env={"IBERIAN_TRACEBACK": "1"}).invoke(cli, [command[0], str(run), *command[1:]])
        assert_spoken(result)


def assert_spoken(result: Any) -> None:
    """A command ended well, or with one message of ours or of click's."""
    error = result.exception
    assert error is None or isinstance(error, SystemExit) or getattr(error, "for_people", False), repr(error)


def test_a_malformed_store_is_not_called_whole(run: Path) -> None:
    data = (run / FILE).read_bytes()
    (run / FILE).write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    with pytest.raises(SweepError) as caught:
        for point in read_sweep_run(run).points:
            _ = point.results
    assert "whole" not in str(caught.value) and "iberian rescue" in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("seed", range(3))
def test_what_can_be_read_is_saved(run: Path, whole: Path, damage: str, seed: int) -> None:
    before = {point.name: point.results for point in read_sweep_run(whole).points}
    DAMAGES[damage](run / FILE, random.Random(seed))
    result = CliRunner().invoke(cli, ["rescue", str(run)])
    assert result.exit_code == 0, result.output
    assert is_whole(run / FILE)
    for point in read_sweep_run(run).points:
        assert point.results in ([], before[point.name])
        for task in point.tasks if point.results else ():
            assert len(point.documents(task)) == 40
    if damage == "unpackable":
        assert [point.name for point in read_sweep_run(run).points if not point.results] == ["weight=0.5"]


def test_a_whole_store_is_left_alone(run: Path) -> None:
    before = (run / FILE).read_bytes()
    assert rescue(run) == [] and (run / FILE).read_bytes() == before


PLANS = ["", "{", "[]", "5", "null", "{}", '{"points": 5}', '{"points": [5], "axes": {}, "name": "x"}', "[" * 100_000,
         '{"points": [{}], "axes": {}, "name": "x"}', '{"points": [], "axes": [], "name": 5}', "9" * 10_000,
         '{"name": "x", "axes": {}, "points": [{"name": "a", "role": "merge", "labels": [], "parents": 5, "signature": 1, '
         '"recipe": {}, "problem": [], "evaluations": [{"key": 5}]}]}']  # fmt: skip


@pytest.mark.parametrize("plan", range(len(PLANS)))
def test_a_damaged_plan_is_a_message(run: Path, plan: int) -> None:
    (run / "plan.json").write_text(PLANS[plan])
    for command in COMMANDS:
        assert_spoken(CliRunner(env={"IBERIAN_TRACEBACK": "1"}).invoke(cli, [command[0], str(run), *command[1:]]))
    with pytest.raises(SweepError, match=r"plan\.json"):
        read_sweep_run(run)


def test_a_pipe_as_a_plan_or_a_store_is_not_waited_for(run: Path) -> None:
    for name in (FILE, "plan.json"):
        (run / name).unlink()
        os.mkfifo(run / name)
        with pytest.raises(SweepError):
            read_sweep_run(run)
    with pytest.raises(SweepError):
        Store(run / FILE)


# Read-only folders


def as_nobody(folder: Path, work: Any) -> str:
    """What `work` returns in a process that may not write into `folder`."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return said


@pytest.fixture
def public(run: Path) -> Path:
    """A run folder that everybody may look at, in a place that everybody may enter."""
    folder = Path(f"/tmp/iberian-test-{os.getpid()}")
    shutil.copytree(run, folder)
    yield folder  # type: ignore[misc]
    shutil.rmtree(folder)


@pytest.mark.parametrize("with_wal", [False, True])
def test_a_read_only_run_folder_can_be_read(public: Path, with_wal: bool) -> None:
    if with_wal:  # what was written last lies beside the store
        writing = sqlite3.connect(public / FILE)
        writing.execute("PRAGMA journal_mode=WAL")
        writing.execute("PRAGMA wal_autocheckpoint=0")
        writing.execute("UPDATE evaluations SET seconds = 99")
        writing.commit()
        for ending in ("", "-wal"):
            shutil.copyfile(public / f"{FILE}{ending}", public / f"copy{ending}")
        writing.close()
        (public / FILE).unlink()
        for ending in ("", "-wal"):
            (public / f"copy{ending}").replace(public / f"{FILE}{ending}")

    def look() -> str:
        found = read_sweep_run(public)
        return f"{len(found.points)} {[point.evaluations[0].store.seconds(point.evaluations[0].key) for point in found.points][:1]}"  # type: ignore[union-attr]

    assert as_nobody(public, look) == f"5 [{99.0 if with_wal else 12.5}]"


def test_report_of_a_read_only_folder_prints_its_tables(public: Path) -> None:
    def report() -> str:
        result = CliRunner().invoke(cli, ["report", str(public)])
        return (
            f"{result.exit_code} {'toy_choice_eu' in result.output} {'read-only' in result.output} {result.exception}"
        )

    assert as_nobody(public, report) == "0 True True None"


def test_sweep_says_that_the_folder_is_read_only(public: Path) -> None:
    class Plan:
        jobs: tuple[Any, ...] = ()
        points: tuple[Any, ...] = ()

        def as_data(self) -> dict[str, Any]:
            return {"points": []}

    def sweep() -> object:
        return run_sweep(Plan(), public, lambda *_: None, Quiet())  # type: ignore[arg-type]

    said = as_nobody(public, sweep)
    assert said.startswith("SweepError") and "read-only" in said and "full" not in said.split("read-only")[0]


# File systems


class Refusing(sqlite3.Connection):
    """What SQLite says of a store that lies on a file system which refuses locks, or on which a quota is full."""

    code = sqlite3.SQLITE_IOERR_LOCK

    def execute(self, *given: Any) -> Any:
        if Path(super().execute("PRAGMA database_list").fetchone()[2]).parent.name == "run":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = self.code
            raise error
        return super().execute(*given)


def refuse(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=type("One", (Refusing,), {"code": code})))


@pytest.mark.parametrize(
    ("code", "said"),
    [(sqlite3.SQLITE_IOERR_LOCK, "refuses SQLite's locks"), (sqlite3.SQLITE_IOERR_SHMMAP, "refuses SQLite's locks"),
     (sqlite3.SQLITE_IOERR_WRITE, "your quota full")],
)  # fmt: skip
def test_a_store_on_a_file_system_without_locks_or_room_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
    refuse(monkeypatch, code)
    with pytest.raises(SweepError, match=said) as caught:
        Store(tmp_path / "run" / FILE)
    assert "damaged" not in str(caught.value)


def test_a_run_folder_that_was_copied_to_a_file_system_without_locks_can_be_read(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, sqlite3.SQLITE_IOERR_LOCK)
    assert len(read_sweep_run(run).points) == 5


# Two sweeps, one folder


def entry(name: str, key: str, **labels: str) -> dict[str, Any]:
    return {"name": name, "role": "merge", "labels": labels, "parents": [], "signature": "s", "recipe": "", "problem": "",
            "evaluations": [{"key": key, "name": "t", "tasks": ["t"], "seed": None}]}  # fmt: skip


def finished(folder: Path, *keys: str) -> Store:
    store = Store(folder / FILE)
    for key in keys:
        store.finish(key, "s", {"results": {}, "configs": {}}, {}, 1.0, [])
    return store


def test_another_sweep_is_refused_in_a_run_folder(tmp_path: Path) -> None:
    plan_file.write_plan(tmp_path, {"name": "one", "file": "/a/one", "axes": {}, "points": [entry("a", "k1")]})
    for other in ({"name": "two"}, {"name": "one", "file": "/b/one"}):
        with pytest.raises(SweepError, match="holds the sweep"):
            plan_file.refuse_another(tmp_path, other)
    with pytest.raises(SweepError, match=r"was moved here, delete .*plan\.json"):
        plan_file.refuse_another(tmp_path, {"name": "one", "file": "/b/one"})
    plan_file.refuse_another(tmp_path, {"name": "one", "file": "/a/one"})
    (tmp_path / "optuna.sqlite").touch()
    with pytest.raises(SweepError, match="search"):
        plan_file.refuse_another(tmp_path, {"name": "one"})


def test_what_a_changed_sweep_had_measured_before_is_kept(tmp_path: Path) -> None:
    """Other points, other models of the same name, other tasks; what is measured anew takes the old one's place."""
    store = finished(tmp_path, "k1", "k2", "k5", "k6")
    first = {"name": "one", "axes": {"w": ["1", "2", "3"]},
             "points": [entry("w=1", "k1", w="1"), entry("w=2", "k2", w="2"), entry("w=3", "k3", w="3"), entry("x", "k5"),
                        entry("y", "k6")]}  # fmt: skip
    others = [
        entry("w=1", "k9", w="1") | {"recipe": "another"},
        entry("w=4", "k4", w="4"),
        entry("x", "k7"),
        entry("y", "k8"),
    ]
    others[2]["evaluations"][0]["tasks"] = ["other"]
    plan_file.write_plan(tmp_path, first, [store])
    plan_file.write_plan(tmp_path, {"name": "one", "axes": {"w": ["1", "4"]}, "points": others}, [store])
    found = read_sweep_run(tmp_path)
    assert [(point.name, [one.key for one in point.evaluations]) for point in found.points] == [
        ("w=1", ["k9"]), ("w=4", ["k4"]), ("x", ["k7", "k5"]), ("y", ["k8"]), ("w=1 (earlier)", ["k1"]), ("w=2", ["k2"])
    ]  # fmt: skip
    assert found.axes == {"w": ["1", "4", "2"]} and found["w=1 (earlier)"].labels == {}


def test_what_was_measured_of_another_model_at_the_same_path_stays_apart(tmp_path: Path) -> None:
    """Neither its other tasks in the row of the model of today, nor today's model as the parent of its merges."""
    store = finished(tmp_path, "p1", "q1", "m1")
    first = {"name": "one", "axes": {},
             "points": [entry("m", "m1") | {"parents": ["p", "q", "r"]}, entry("p", "p1") | {"signature": "old p"},
                        entry("q", "q1") | {"signature": "old q"}, entry("r", "r1") | {"signature": "r"}]}  # fmt: skip
    plan_file.write_plan(tmp_path, first, [store])
    p, q = entry("p", "p2") | {"signature": "new p"}, entry("q", "q2") | {"signature": "new q"}
    q["evaluations"][0]["tasks"] = ["other"]
    second = {"name": "one", "axes": {}, "points": [p, q, entry("r (2)", "r1") | {"signature": "r"}]}
    for _ in range(2):  # the second time it is there already
        plan_file.write_plan(tmp_path, second, [store])
        found = read_sweep_run(tmp_path)
        assert [(point.name, [one.key for one in point.evaluations]) for point in found.points] == [
            ("p", ["p2"]), ("q", ["q2"]), ("r (2)", ["r1"]), ("m", ["m1"]), ("q (earlier)", ["q1"])
        ]  # fmt: skip
        assert found["m"].parents == ("q (earlier)", "r (2)")
        assert [point.is_earlier for point in found.points] == [False, False, False, True, True]


def test_the_same_sweep_again_writes_the_same_plan(tmp_path: Path) -> None:
    store = finished(tmp_path, "k1")
    made = {"name": "one", "axes": {"w": ["1"]}, "points": [entry("w=1", "k1", w="1")]}
    plan_file.write_plan(tmp_path, made, [store])
    before = (tmp_path / "plan.json").read_bytes()
    plan_file.write_plan(tmp_path, made, [store])
    assert (tmp_path / "plan.json").read_bytes() == before


# Documents


def test_the_document_beside_an_answer_is_the_one_that_was_answered(run: Path) -> None:
    """One of a task's documents was another when one point was measured: its answer does not stand beside the others'."""
    found = read_sweep_run(run)
    one = found["weight=0.5"].evaluations[0]
    store = Store(run / FILE)
    results = store.results(one.key)
    rows = [Document(task, number, json.dumps(metrics), answer, "other" if number == 3 else f"h{number}",
                     json.dumps({"question": "another question"}) if number == 3 else "{}", "t")
            for task, number, metrics, answer in store.documents(one.key)]  # fmt: skip
    assert results is not None
    store.finish(one.key, "s", results, {}, 1.0, rows)
    again = read_sweep_run(run)
    assert again["weight=0.5"].text("toy_choice_eu", 3) == ({"question": "another question"}, "t")
    assert "another question" not in str(again["basque"].text("toy_choice_eu", 3))
    assert all("another question" not in str(example.document) for example in examples(Scores(again)))


# Files that do not belong together


def answered(store: Store, *keys: str) -> None:
    for key in keys:
        store.keep_answers([Answer(key, "s", "task", "1", "x", json.dumps(key * 200))])


def copied(store: Path, folder: Path, *endings: str) -> Path:
    """A copy of a store while it is written."""
    folder.mkdir(exist_ok=True)
    for ending in endings:
        shutil.copyfile(store.with_name(store.name + ending), folder / (store.name + ending))
    return folder / store.name


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize("other", ["backup", "newer", "another run"])
def test_a_store_that_was_copied_over_another_beside_its_wal_is_refused(
    tmp_path: Path, other: str, writes: bool
) -> None:
    """A sweep was killed, which leaves its -wal, and a store was put back. SQLite read rows of both as one."""
    store = Store(tmp_path / "store.sqlite")
    answered(store, "a", "b")
    store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    early = copied(store.path, tmp_path / "early", "")
    answered(store, *"cdef")
    store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    answered(store, "g", "h")
    together = copied(store.path, tmp_path / "together", "", "-wal")
    assert Store(together, writes=writes).count_answers() == 8
    killed = copied(store.path, tmp_path / "killed", "", "-wal")
    if other == "backup":
        shutil.copyfile(early, killed)
    elif other == "newer":
        answered(store, *"ijkl")
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copyfile(store.path, killed)
    else:
        of_another = Store(tmp_path / "another.sqlite")
        answered(of_another, *"tuvwxyz")
        of_another.close()
        shutil.copyfile(of_another.path, killed)
    before = {file.name: file.read_bytes() for file in killed.parent.iterdir()}
    with pytest.raises(
        SweepError, match=r"store.sqlite-wal beside it was written over another state.*move store.sqlite-wal"
    ):
        Store(killed, writes=writes)
    assert before == {file.name: file.read_bytes() for file in killed.parent.iterdir()}
    killed.with_name("store.sqlite-wal").unlink()
    assert Store(killed, writes=writes).count_answers() == {"backup": 2, "newer": 12, "another run": 7}[other]


def test_a_store_that_is_written_now_is_never_called_mixed(tmp_path: Path) -> None:
    """Whoever reads meanwhile finds both files at any moment of a checkpoint; and a store of before has no stamp."""
    store = Store(tmp_path / "store.sqlite")
    store.connection.execute("PRAGMA wal_autocheckpoint=2")
    for number in range(60):
        answered(store, str(number))
        Store(store.path, writes=bool(number % 2)).close()
    store.connection.execute("DROP TABLE stamp")
    assert Store(store.path, writes=False).count_answers() == 60
    Store(store.path).close()
    answered(store, "more")
    assert Store(store.path, writes=False).count_answers() == 61


def restarted(store: Store) -> None:
    """What is written next goes to the front of the -wal."""
    store.connection.execute("PRAGMA wal_checkpoint(RESTART)")


def test_a_page_that_a_killed_process_did_not_finish_does_not_make_a_store_mixed(tmp_path: Path) -> None:
    """Killed (or without power) between the head of a page in the -wal and the page: there lies an old one, with its stamp.
    SQLite proves each page, and reads none of it."""
    store = Store(tmp_path / "store.sqlite")
    wal = tmp_path / "store.sqlite-wal"
    for keys in ("abcd", "efgh"):
        answered(store, *keys)
        restarted(store)
    before = wal.read_bytes()
    answered(store, "i")
    whole, (size,) = wal.read_bytes(), struct.unpack(">I", before[8:12])
    places = [at for at in range(32, len(whole), 24 + size) if whole[at + 8 : at + 16] == whole[16:24]]
    assert before[places[-1] + 24 :].find(b"iberian-store") >= 0  # a stamp of before lies where the last page belongs
    torn = copied(store.path, tmp_path / "torn", "")
    torn.with_name(wal.name).write_bytes(whole[: places[-1] + 24] + before[places[-1] + 24 :])
    for writes in (False, True):
        assert Store(torn, writes=writes).count_answers() == 8
    killed = copied(store.path, tmp_path / "whole", "", "-wal")
    assert Store(killed, writes=False).count_answers() == 9


def test_a_wal_that_goes_away_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last writer closes the store, and SQLite takes the -wal away."""
    store = Store(tmp_path / "store.sqlite")
    answered(store, "a")
    of_store = stamp._of_store

    def closing(path: Path) -> Any:
        store.close()
        return of_store(path)

    monkeypatch.setattr(stamp, "_of_store", closing)
    assert Store(store.path, writes=False).count_answers() == 1
