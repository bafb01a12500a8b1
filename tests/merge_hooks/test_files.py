"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from merge_hooks.files import write_whole


def test_who_reads_while_a_file_is_written_anew_reads_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "plan.json"
    write_whole(path, "the old one")
    with path.open(encoding="utf-8") as reader:
        write_whole(path, "another")
        assert reader.read() == "the old one"
    assert path.read_text(encoding="utf-8") == "another"
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_whole(path, b"the old one")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "half a character: \ud800")
    assert path.read_bytes() == b"the old one" and list(tmp_path.iterdir()) == [path]
