"""`make check` leaves out what is not quick, and nothing of what was changed (tests/quick.py)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import quick
from tests.mutants.lists import ROOT, read


def test_what_is_left_out_is_there() -> None:
    """No name that nobody has: a test that is renamed is quick until it is measured again."""
    gone = [
        name
        for name in quick.left_out()
        if f"def {name.partition('::')[2]}(" not in (ROOT / name.partition("::")[0]).read_text(encoding="utf-8")
    ]
    assert not gone, "`make durations` writes tests/left_out_of_check.txt anew"


def test_every_listed_fault_is_met_by_the_tests_that_notice_it() -> None:
    faults = read()
    for file in {fault.file for fault in faults}:
        wanted = quick.tests_of([file])
        for test in {test for fault in faults if fault.file == file for test in fault.tests.split()}:
            assert quick.is_of(test.partition("[")[0] if "::" in test else f"{test}::test", wanted), (file, test)


@pytest.mark.parametrize(
    ("changed", "runs", "does_not"),
    [
        (
            "merge_hooks/stream/tokenizer.py",
            "tests/merge_hooks/recipes/test_tokenizer.py::test",
            "tests/test_public.py::a",
        ),
        ("tests/test_public.py", "tests/test_public.py::test_a", "tests/test_publicity.py::test_a"),
        ("README.md", "", "tests/test_public.py::test_a"),
    ],
)
def test_tests_of_what_was_changed(changed: str, runs: str, does_not: str) -> None:
    wanted = quick.tests_of([changed])
    assert not runs or quick.is_of(runs, wanted)
    assert not quick.is_of(does_not, wanted)


def test_new_and_changed_files_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick, "ROOT", tmp_path)
    assert quick.changed_files() == []  # no checkout
    for name in ("kept.py", "of me.py", "gone.py"):
        (tmp_path / name).write_text("")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / "of me.py").write_text("1")
    (tmp_path / "gone.py").unlink()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "one.py").write_text("")
    assert set(quick.changed_files()) == {"of me.py", "gone.py", "new/one.py"}


def test_durations_are_summed_over_cases() -> None:
    lines = [
        "0.25s call     tests/a.py::test_b[one with, words]",
        "0.05s setup    tests/a.py::test_b[2]",
        "0.01s teardown tests/a.py::test_c",
        "(3 durations < 0.005s hidden.)",
    ]
    assert quick.measured(lines) == pytest.approx({"tests/a.py::test_b": 0.30, "tests/a.py::test_c": 0.01})
