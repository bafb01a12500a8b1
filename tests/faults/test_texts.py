"""Control characters, escape sequences and marks of direction from names and answers reach no terminal and no file."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from ifeval_multi.errors import PackError
from lm_eval_iberian.commands.main import cli
from lm_eval_iberian.commands.terminal import echo, make_console
from lm_eval_iberian.pictures import write
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.scores.formats import FORMATS, csv_text, latex_text, markdown_text
from lm_eval_iberian.sweep.job import Failed
from lm_eval_iberian.sweep.progress import Progress
from merge_hooks.errors import SourceError
from merge_hooks.texts import REPLACEMENT, json_text, one_line, seen
from tests.lm_eval_iberian.sweep.fake_worker import a_job
from tests.lm_eval_iberian.sweep_maker import TOY_TASKS, MadePoint, write_run

MARKS = ["\x00", "\x07", "\x08", "\x0b", "\x0c", "\r", "\x1b", "\x7f", "\x80", "\x85", "\x9b", "\u061c", "\u200b", "\u200e",
         "\u200f", "\u2028", "\u2029", "\u202a", "\u202e", "\u2060", "\u2066", "\u2069", "\ufeff", "\U000e0041", "\ud800"]  # fmt: skip
EVIL = "x\x1b[2J\x1b]0;title\x07\u202ey\r\x9b31mz"


@pytest.mark.parametrize("mark", MARKS, ids=ascii)
def test_what_would_be_obeyed_is_shown(mark: str) -> None:
    assert seen(f"a{mark}b") == f"a{REPLACEMENT}b"
    assert mark not in one_line(f"a{mark}b") and mark not in json_text([f"a{mark}b"])
    assert json.loads(json_text({"k": f"a{mark}b"})) == {"k": f"a{mark}b"}


@pytest.mark.parametrize("text", ["ñandú, etxea, l·l, ß", "a\tb\nc", "👩‍🚀", "می‌خواهم", "1 < 2 & 3"])
def test_what_is_written_stays(text: str) -> None:
    assert seen(text) == text


def test_errors_are_safe_by_themselves() -> None:
    for error in (SweepError(EVIL), SourceError(EVIL), PackError(EVIL, EVIL)):
        assert "\x1b" not in str(error) and "\u202e" not in str(error) and REPLACEMENT in str(error)


def test_terminals_are_told_no_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    echo(EVIL)
    make_console(file=(file := io.StringIO())).print(EVIL)
    progress = Progress(Console(file=(other := io.StringIO())))
    progress.begin([], set())
    progress.hear(replace(a_job("k"), point=f"{EVIL} [red]"), Failed("k", EVIL, ""))
    for said in (capsys.readouterr().out, file.getvalue(), other.getvalue()):
        assert REPLACEMENT in said and not set(said) & {"\x1b", "\x07", "\u202e", "\x9b", "\r"}
    assert "[red]" in other.getvalue()


def test_what_click_says_of_arguments_is_safe() -> None:
    for words in (["report", f"nowhere{EVIL}"], ["sweep", EVIL], ["sweep", "x", f"--{EVIL}"], [EVIL]):
        result = CliRunner().invoke(cli, words)
        said = result.output + str(result.exception or "")
        assert result.exit_code != 0 and not set(said) & {"\x1b", "\u202e", "\x9b"}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose names are an attack each."""
    points = [MadePoint(f"w={EVIL}", "merge", {"w\u202e": EVIL}, ("=cmd()",)), MadePoint("=cmd()", "parent"),
              MadePoint(f"bad{EVIL}", "merge", {"w\u202e": "2"}, (), "failed")]  # fmt: skip
    folder = tmp_path_factory.mktemp("run") / "run"
    return write_run(folder, f"sweep{EVIL}", {"w\u202e": [EVIL, "2"]}, points, TOY_TASKS, lambda *_: 0.5, 10)


@pytest.mark.parametrize("form", FORMATS)
def test_no_report_prints_what_is_obeyed(hostile: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "write_files", lambda run: run.folder)  # the page is the same whatever the form
    result = CliRunner().invoke(cli, ["report", str(hostile), "--format", form])
    assert result.exit_code == 0 and len(result.output) > 100, result.output
    assert not set(result.output) & set(MARKS)


def test_files_of_a_run_hold_nothing_that_is_obeyed(hostile: Path) -> None:
    result = CliRunner().invoke(cli, ["report", str(hostile)])
    assert result.exit_code == 0, result.output
    files = [file for file in (hostile / "report").iterdir() if file.suffix != ".png"]
    assert {file.suffix for file in files} == {".md", ".csv", ".tex", ".json", ".html", ".svg"}
    for file in files:
        assert not set(file.read_text(encoding="utf-8")) & set(MARKS), file.name
    exported = CliRunner().invoke(cli, ["sweep-export", str(hostile)])
    assert not set(exported.output) & set(MARKS)
    for line in (hostile / "export" / "scores.jsonl").read_text(encoding="utf-8").split("\n"):
        assert not set(line) & set(MARKS)
    best = CliRunner().invoke(cli, ["best", str(hostile), "--by", "toy_choice_eu"])
    assert not set(best.output + str(best.exception or "")) & set(MARKS)


@pytest.mark.parametrize(
    "text", ["=1+1", "+1+1", "-1+x", "@SUM(A1)", " =1", "\t=1", "\r=1", "\n=1", "|calc", "＝1", '"=1', "%x"]
)
def test_no_cell_is_a_formula(text: str) -> None:
    ((cell,),) = csv.reader(io.StringIO(csv_text([[text]])))
    assert cell.startswith("'") and "\n" not in cell and "\r" not in cell


@pytest.mark.parametrize("figure", ["-1.5", "+3", "1e-5", "nan"])
def test_figures_stay_figures(figure: str) -> None:
    assert csv_text([[figure]]) == f"{figure}\n"


def test_a_name_stays_in_its_cell() -> None:
    assert "\n" not in markdown_text("a\n| b |") and "| b" not in markdown_text("a\n| b |").replace("\\|", "")
    assert "\n" not in latex_text("a\n\\\\ b") and latex_text("%") == r"\%"
