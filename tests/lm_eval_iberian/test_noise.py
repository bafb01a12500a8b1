"""vLLM's reports are hidden, its warnings are not, and whoever asks sees all; long warnings in a log are wrapped."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_iberian.noise import LEVEL, LONGEST, VERBOSE, git_commit, quieten, wrap_logs, wrapped
from merge_hooks.machine.hushed import AT_IMPORT, TORCH_DTYPE, Hush, hush_imports, hushed


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


class Log(io.StringIO):
    """A stream as stderr is; whether it is a terminal can be said."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def log() -> Iterator[Log]:
    """What the root's and lm_eval's handlers write to. A test makes it stderr: pytest's own comes back after a fixture."""
    stream = Log()
    loggers = [logging.getLogger(), logging.getLogger("lm_eval")]
    added = [logging.StreamHandler(stream) for _ in loggers]
    for logger, handler in zip(loggers, added, strict=True):
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        logger.addHandler(handler)
    before = logging.lastResort.formatter if logging.lastResort else None
    yield stream
    for logger, handler in zip(loggers, added, strict=True):
        logger.removeHandler(handler)
    if logging.lastResort:
        logging.lastResort.setFormatter(before)


WORDS = st.lists(st.text("abc-/.0", min_size=1, max_size=40), min_size=1, max_size=60)


@settings(max_examples=50)
@given(WORDS, st.integers(0, 6))
def test_a_long_line_is_wrapped_and_no_word_is_lost(words: list[str], indent: int) -> None:
    text = " " * indent + " ".join(words)
    lines = wrapped(text + "\nshort  line").split("\n")
    assert all(len(line) <= LONGEST for line in lines)
    assert lines[-1] == "short  line" and " ".join(lines[:-1]).split() == words
    assert (lines[0] == text) == (len(text) <= LONGEST) or len(lines) > 2


def test_a_word_that_is_too_long_stays_whole() -> None:
    path = "/".join(["a-folder"] * 30)
    assert path in wrapped(f"it lies in {path} and nowhere else").split()


@pytest.mark.parametrize("name", ["merge_hooks.recipe.recipe", "lm_eval.iberian", "lm_eval.evaluator_utils"])
@pytest.mark.parametrize("terminal", [False, True])
def test_warnings_in_a_log_are_wrapped(name: str, terminal: bool, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", log)
    log.terminal = terminal  # one wraps by itself
    said = " ".join(f"word{number}" for number in range(80))
    wrap_logs()
    wrap_logs()  # twice is once
    logging.getLogger(name).warning(said)
    lines = log.getvalue().splitlines()
    assert len(said) > 460 and (max(map(len, lines)) <= LONGEST) == (not terminal)
    assert said in " ".join(log.getvalue().split())
    assert terminal or sum(line.startswith("WARNING word0 ") for line in lines) == sum(
        "word79" in line for line in lines
    )
    assert terminal or all(line.startswith(("WARNING", "    word")) for line in lines)


def test_a_traceback_and_a_report_stay_as_they_are(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", log)
    wrap_logs()
    logging.getLogger("merge_hooks").log(logging.INFO + 5, "x " * 200)
    try:
        raise ValueError("y " * 200)
    except ValueError:
        logging.getLogger("merge_hooks").exception("failed")
    assert "y " * 200 in log.getvalue()


@pytest.mark.parametrize("verbose", [False, True])
def test_what_is_hushed_and_nothing_else(
    verbose: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VERBOSE, "1" if verbose else "")
    hush_imports()
    hush_imports()
    ((name, beginning),) = AT_IMPORT.items()
    logger = logging.getLogger(name)
    logger.warning("%s: No module named 'kernels'", beginning)
    logger.warning("these weights are wrong")
    assert sum(isinstance(one, Hush) for one in logger.filters) == 1
    assert (beginning in caplog.text) == verbose and "these weights are wrong" in caplog.text


def test_what_mergekit_makes_transformers_say(caplog: pytest.LogCaptureFixture) -> None:
    """Only while mergekit does it."""
    name, beginning = TORCH_DTYPE
    with hushed(name, beginning):
        logging.getLogger(name).warning("%s! Use `dtype` instead!", beginning)
        logging.getLogger(name).warning("something else")
    assert beginning not in caplog.text and "something else" in caplog.text
    logging.getLogger(name).warning("%s! Use `dtype` instead!", beginning)
    assert beginning in caplog.text


@pytest.mark.slow
def test_a_plan_is_silent_at_its_start(llama: dict[str, Path], tmp_path: Path) -> None:
    """In a process of its own: the libraries say these things once, when they are imported, or first used."""
    recipe = {"merge_method": "linear", "dtype": "float32",
              "models": [{"model": str(llama[name]), "parameters": {"weight": 0.5}} for name in ("basque", "instruct")]}  # fmt: skip
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(recipe))
    program = """
import logging
from lm_eval_iberian.noise import quieten
logging.basicConfig(level=logging.WARNING)
quieten()
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.resolve.resolver import resolve
from merge_hooks.stream.stream import open_stream
open_stream(resolve(read_recipe("merge.yml")))
"""
    run = [sys.executable, "-c", program]
    said = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True).stderr
    assert said == ""
    loud = subprocess.run(
        run, cwd=tmp_path, capture_output=True, text=True, check=True, env=os.environ | {VERBOSE: "1"}
    )
    assert "torch_dtype" in loud.stderr, "transformers or mergekit has changed: the message need not be hushed any more"


def test_the_commit_is_lm_evals_and_git_is_not_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from lm_eval.loggers.utils import get_git_commit_hash

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert git_commit() == get_git_commit_hash() is None
    assert capfd.readouterr().err.count("fatal: not a git repository") == 1, "lm_eval's own"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    assert git_commit() == get_git_commit_hash() != ""
    assert capfd.readouterr().err == ""
