"""vLLM's reports are hidden, its warnings are not, and whoever asks sees all."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from lm_eval_iberian.noise import LEVEL, VERBOSE, quieten


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    logger = logging.getLogger("vllm")
    before = logger.level
    for name in (LEVEL, VERBOSE):
        monkeypatch.setenv(name, "")  # restored afterwards, whatever is set here
        monkeypatch.delenv(name)
    logger.setLevel(logging.DEBUG)
    yield
    logger.setLevel(before)


@pytest.mark.parametrize(
    ("set_by_user", "level"),
    [({}, logging.WARNING), ({VERBOSE: "1"}, logging.DEBUG), ({VERBOSE: "0"}, logging.WARNING),
     ({LEVEL: "DEBUG"}, logging.DEBUG), ({LEVEL: "ERROR"}, logging.DEBUG)],
)  # fmt: skip
def test_what_is_shown(set_by_user: dict[str, str], level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in set_by_user.items():
        monkeypatch.setenv(name, value)
    transformers = logging.getLogger("transformers").level
    quieten()
    assert logging.getLogger("vllm").level == level
    assert logging.getLogger("transformers").level == transformers  # a warning may be about a number
