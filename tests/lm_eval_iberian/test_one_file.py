"""A command, a format, an export, a pool: one file, one line where it is registered, and it is there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from lm_eval_iberian.commands import main, report, sweep_export
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.scores import formats
from lm_eval_iberian.sweep.pools import choose
from tests.lm_eval_iberian.results_maker import results
from tests.lm_eval_iberian.sweep_maker import toy_run

ADDED = '''
import click

@click.command()
def hello():
    """Say hello."""
    click.echo("hello")

def titles(report):
    return "".join(f"{table.title}\\n" for table in report.tables)

def count(rows, path):
    number = len(list(rows))
    path.write_text(f"{number} rows")
    return number

def pool(plan, jobs, workers, gpus, address):
    return plan.tasks, len(jobs), workers, gpus, address
'''


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with one of each."""
    (tmp_path / "added_here.py").write_text(ADDED)
    monkeypatch.syspath_prepend(tmp_path)


def run(*arguments: object) -> str:
    done = CliRunner().invoke(main.cli, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def register(table: dict[str, str], name: str, command: click.Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line in a table of formats, read by its command: commands read it when they are imported, so it is told anew."""
    (option,) = [one for one in command.params if one.name == "form"]
    assert isinstance(option.type, click.Choice) and tuple(option.type.choices) == tuple(table)
    monkeypatch.setitem(table, name, f"added_here:{name}")
    monkeypatch.setattr(option.type, "choices", tuple(table))


def test_a_command(added: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(main.COMMANDS, "hello", ("added_here:hello", "Say hello."))
    assert "hello         Say hello." in run("--help")
    assert run("hello") == "hello\n"


def test_a_format_of_reports(added: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results({"iberian_belebele_eu": {"acc": 0.5}})))
    register(formats.FORMATS, "titles", report.report, monkeypatch)
    said = run("report", tmp_path / "results.json", "--format", "titles")
    assert said == "Basque, benchmark by benchmark\n"  # one benchmark has no average


def test_a_format_of_exports(added: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(sweep_export.FORMATS, "count", sweep_export.export, monkeypatch)
    said = run("sweep-export", toy_run(tmp_path / "run"), "--format", "count", "--to", tmp_path / "out")
    assert (tmp_path / "out" / "scores.count").read_text() == "40 rows"
    assert f"{tmp_path / 'out' / 'scores.count'}: 40 rows" in said


def plan(**model_args: Any) -> Any:
    return SimpleNamespace(tasks="the plan's tasks", sweep=SimpleNamespace(model_args=model_args))


def test_a_pool(added: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(choose.POOLS, "mine", "added_here:pool")
    jobs: Any = [SimpleNamespace(engine="a")] * 3
    on_two = plan(backend="hf", device="cuda", tensor_parallel_size=2)
    found: Any = choose.choose_pool(on_two, jobs, 5, "host:1", pool="mine")
    assert found == ("the plan's tasks", 3, 5, 2, "host:1")
    with pytest.raises(
        SweepError, match=r"--pool yours: there is no such pool\. There are: here, processes, ray, mine"
    ):
        choose.choose_pool(plan(), jobs, 1, pool="yours")


@pytest.mark.parametrize(
    ("engines", "workers", "backend", "name"),
    [("a", None, "vllm", "InProcess"), ("ab", 1, "vllm", "Processes"), ("ab", 1, "hf", "InProcess"),
     ("aa", 2, "hf", "Processes"), ("a", 2, "hf", "InProcess")],
)  # fmt: skip
def test_the_pool_of_this_machine(engines: str, workers: int | None, backend: str, name: str) -> None:
    """Several engines, or several kinds of engine in vLLM, are in processes of their own."""
    if backend == "vllm":
        pytest.importorskip("vllm")
    jobs: Any = [SimpleNamespace(engine=engine) for engine in engines]
    made = choose.choose_pool(plan(backend=backend, device="cpu"), jobs, workers)
    assert type(made).__name__ == name
    assert len(getattr(made, "environments", [0])) == (workers or 1 if name == "Processes" else 1)
