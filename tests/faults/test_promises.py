"""The table of promises in README.md: each test that it names is there."""

from __future__ import annotations

import re

from tests.conftest import ROOT

NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def test_every_promise_is_held_by_tests_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [
        row
        for row in text.partition("## What is promised")[2].partition("\n## ")[0].splitlines()
        if row.startswith("| ")
    ]
    assert len(rows) > 10
    for row in rows[1:]:
        named = NAMED.findall(row)
        assert named, row
        for file, test in named:
            files = (ROOT / "tests").rglob(file)
            assert any(f"def {test}(" in path.read_text(encoding="utf-8") for path in files), (file, test)
