"""The bar of a first load: nothing for short loads, every item passed on, and nothing where none is wanted."""

from __future__ import annotations

import pytest

from merge_hooks.engines import bar


def test_long_loads_are_shown_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(bar.with_bar(iter("abc"), 3, True)) == list("abc")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(bar, "DELAY", 0.0)
    monkeypatch.setattr(bar, "PLAIN_SECONDS", 0.0)
    assert list(bar.with_bar(iter("abc"), 3, True)) == list("abc")
    assert "Merging: 100%" in capsys.readouterr().err
    assert list(bar.with_bar(iter("abc"), 3, False)) == list("abc")
    assert capsys.readouterr().err == ""
