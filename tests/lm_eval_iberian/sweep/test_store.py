"""The store: what is kept survives, what is claimed is respected, what is dead is taken over."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.runs.store import CLAIM_SECONDS, Answer, Document, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store.sqlite")


def claimed_by(store: Store, host: str, process: int, born: float, renewed: float) -> None:
    store.connection.execute("INSERT INTO claims VALUES ('job', ?, ?, ?, ?)", (host, process, born, renewed))


def test_answers_come_back_by_signature(store: Store) -> None:
    store.keep_answers(
        [
            Answer("k1", "s", "t", "1", "loglikelihood", "[-0.5, true]"),
            *(Answer(o, o, "t", "1", "x", "1") for o in "oz"),
        ]
    )
    assert store.answers("s") == {"k1": "[-0.5, true]"}
    assert Store(store.path, writes=False).count_answers() == 3


def test_results_come_whole(store: Store) -> None:
    one = Document("task", 3, '{"acc": 1.0}', "0", "hash", '{"question": "?"}', "0")
    store.fail("job", "it broke")
    store.finish("job", "s", {"results": {"task": {"acc,none": 0.5}}}, {"task": ["loops"]}, 1.5, [one])
    reader = Store(store.path, writes=False)
    assert reader.results("job") == {"results": {"task": {"acc,none": 0.5}}}
    assert list(reader.documents("job")) == [("task", 3, {"acc": 1.0}, "0")]
    assert reader.text("job", "task", 3) == ({"question": "?"}, "0")
    assert (reader.flags("job"), reader.seconds("job"), reader.failure("job")) == ({"task": ["loops"]}, 1.5, None)


def test_prompts_are_kept_once_and_told_apart(store: Store) -> None:
    """What two points were asked alike lies there once; stores of 0.1, without prompts, are read without them."""
    for key, said in (("a", "Zein?"), ("b", "Zein?"), ("c", "<user>Zein?\ud800")):
        store.finish(key, "s", {}, {}, 0.0, [Document("task", 3, "{}", "0", "hash", "{}", "0", said)])
    store.finish("d", "s", {}, {}, 0.0, [Document("task", 3, "{}", "0", "hash", "{}", "0")])
    assert [store.prompt(key, "task", 3) for key in "abcd"] == ["Zein?", "Zein?", "<user>Zein?\ud800", None]
    assert store.connection.execute("SELECT count(*) FROM prompts").fetchone() == (2,)
    store.connection.executescript("DROP TABLE asked; DROP TABLE prompts")
    assert Store(store.path, writes=False).prompt("a", "task", 3) is None


def test_each_evaluation_has_its_own_documents(store: Store) -> None:
    """The data changed between two evaluations of one folder: neither shows the other's question beside its answer."""
    for number, (key, question) in enumerate((("before", "Zein?"), ("after", "Nor?"))):
        one = Document("task", 3, "{}", str(number), f"hash {number}", json.dumps({"question": question}), str(number))
        store.finish(key, "s", {}, {}, 0.0, [one])
    assert store.text("before", "task", 3) == ({"question": "Zein?"}, "0")
    assert store.text("after", "task", 3) == ({"question": "Nor?"}, "1")
    assert (store.hashes("before", "task"), store.hashes("after", "task")) == ({3: "hash 0"}, {3: "hash 1"})
    assert store.text("after", "task", 4) is store.text("after", "other", 3) is store.text("never", "task", 3) is None


def test_a_living_process_keeps_its_claim(store: Store) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        claimed_by(store, socket.gethostname(), child.pid, psutil.Process(child.pid).create_time(), 0.0)
        assert not store.claim("job")
    finally:
        child.kill()
    end = time.monotonic() + 30
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:  # killed, not waited for: that is dead as well
        assert time.monotonic() < end
        time.sleep(0.01)
    assert store.claim("job")
    child.wait(30)


def test_a_number_that_was_given_anew_is_another_process(store: Store) -> None:
    claimed_by(store, socket.gethostname(), os.getppid(), 1.0, time.time())
    assert store.claim("job")


@pytest.mark.parametrize(("age", "free"), [(0.0, False), (CLAIM_SECONDS + 1, True)])
def test_a_claim_from_another_machine_lives_by_its_renewal(store: Store, age: float, free: bool) -> None:
    claimed_by(store, "elsewhere", 1, 1.0, time.time() - age)
    assert store.claim("job") is free


def test_what_is_finished_cannot_be_claimed(store: Store) -> None:
    assert store.claim("job") and store.claim("job")  # mine
    store.finish("job", "s", {}, {}, 0.0, [])
    assert not store.claim("job")


def test_a_full_disk_is_said_and_nothing_is_lost(store: Store) -> None:
    store.keep_answers([Answer("k1", "s", "t", "1", "x", "1")])
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    store.connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(SweepError, match="disk is full"):
        store.keep_answers([Answer(f"n{i}", "s", "t", "1", "x", "y" * 1000) for i in range(1000)])
    assert store.answers("s") == {"k1": "1"}
    store.connection.execute("PRAGMA max_page_count=1000000")
    store.keep_answers([Answer("k2", "s", "t", "1", "x", "2")])
    assert set(store.answers("s")) == {"k1", "k2"}


def test_another_layout_is_refused(store: Store) -> None:
    store.connection.execute("PRAGMA user_version=99")
    with pytest.raises(SweepError, match=r"made by a newer version of lm_eval_iberian .layout 99"):
        Store(store.path)
    store.connection.execute("PRAGMA user_version=1")
    for writes in (True, False):
        with pytest.raises(
            SweepError, match=r"made by an older version .*Nothing in it is changed. Take another run folder"
        ):
            Store(store.path, writes)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_text("this is not a database, and quite long enough to be read as one" * 50)
    with pytest.raises(SweepError, match=str(path)):
        Store(path)


def test_results_that_come_again_take_the_place_of_the_first(store: Store) -> None:
    """With their documents: of those before, none stays."""
    for value, numbers in ((0.1, (0, 1, 2)), (0.2, (1,))):
        rows = [Document("task", number, "{}", str(value), "hash", "{}", "") for number in numbers]
        store.finish("job", "s", {"acc": value}, {}, value, rows)
    assert (store.results("job"), store.seconds("job")) == ({"acc": 0.2}, 0.2)
    assert list(store.documents("job")) == [("task", 1, {}, "0.2")]


def test_a_failure_counts_from_its_moment_on(store: Store) -> None:
    store.fail("job", "out of memory")
    now = time.time()
    assert store.failure("job") == store.failure("job", now - 60) == "out of memory"
    assert store.failure("job", now + 60) is store.failure("other") is None


def test_the_first_digest_of_weights_stays(store: Store) -> None:
    """Another one later is a fault that must be seen, not written over."""
    store.note_weights("signature", "first")
    store.note_weights("signature", "second")
    assert (store.weights("signature"), store.weights("other")) == ("first", None)


def test_a_store_that_is_only_just_made_is_not_called_older(tmp_path: Path) -> None:
    """A report may look while a sweep makes its store: the file is there, and its tables are not yet."""
    path = tmp_path / "store.sqlite"
    path.touch()
    with pytest.raises(SweepError, match="only just making it"):
        Store(path, writes=False)
    Store(path).close()
    assert Store(path, writes=False).count_answers() == 0
