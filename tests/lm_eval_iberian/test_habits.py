"""What all commands of `iberian` share: one walk over every command and subcommand, and what the habits do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file

from ifeval_multi.cli import ifeval
from lm_eval_iberian import __version__
from lm_eval_iberian.commands import main as commands
from lm_eval_iberian.commands.main import COMMANDS, GROUPS, cli
from tests.conftest import linear

# Names that outputs had in earlier versions: they work, and no help shows them.
OLD_NAMES = {"--to", "--write", "--save", "--folder", "--verdicts", "--output", "--output-path", "--file", "--script",
             "--export", "--plot", "--pin"}  # fmt: skip
# What prints a table has --json.
TABLES = {"recipe check", "recipe show", "sweep", "tune", "best", "report", "vectors", "models", "doctor",
          "ifeval lint", "ifeval check", "ifeval score"}  # fmt: skip
# What writes something has --out.
WRITERS = {"recipe export", "fisher", "sweep", "tune", "best", "slurm", "sweep-export", "vectors", "toy", "prefetch",
           "ifeval new", "ifeval score"}  # fmt: skip


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its whole name."""
    context = click.Context(group, info_name="iberian")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


LEAVES = dict(leaves(cli))


def test_the_walk_finds_all() -> None:
    assert {name.split()[0] for name in LEAVES} == set(COMMANDS)
    assert set(LEAVES) >= TABLES | WRITERS and len(LEAVES) >= 20
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS), "each in one group"


@pytest.mark.parametrize("name", ["check", "lint", "new", "score"])
def test_help_of_ifeval_by_itself_is_asked_in_the_same_ways(name: str) -> None:
    """click keeps the option that is asked for first: `python -m ifeval_multi` and `iberian ifeval` share commands."""
    done = CliRunner().invoke(ifeval, [name, "-h"])
    assert done.exit_code == 0 and "-h, --help" in done.output


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_has_the_habits(name: str) -> None:
    done = CliRunner().invoke(cli, [*name.split(), "--help"], prog_name="iberian", terminal_width=80)
    assert done.exit_code == 0
    shown = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", done.output.split("Options:")[1]))
    assert {"--quiet", "--version", "--verbose", "-h"} <= shown
    assert not shown & OLD_NAMES
    assert ("--json" in shown) >= (name in TABLES)
    assert ("--out" in shown) >= (name in WRITERS)
    assert max(map(len, done.output.splitlines())) <= 80
    help_text = done.output.split("Options:")[0].splitlines()
    assert any(line.rstrip().endswith(".") for line in help_text), "it says what it does, in a sentence"


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_says_its_version_and_refuses_other_options(name: str) -> None:
    said = CliRunner().invoke(cli, [*name.split(), "--version"], prog_name="iberian")
    assert (said.exit_code, said.output) == (0, f"iberian, version {__version__}\n")
    refused = CliRunner().invoke(cli, [*name.split(), "--no-such-option"], prog_name="iberian")
    assert refused.exit_code == 2 and "No such option" in refused.output


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("prefetch", "--to", "--out"),
        ("fisher", "--to", "--out"),
        ("vectors", "--to", "--out"),
        ("sweep-export", "--to", "--out"),
        ("best", "--save", "--out"),
        ("slurm", "--write", "--out-script"),
        ("slurm", "--script", "--out-script"),
        ("best", "--export", "--out-checkpoint"),
        ("vectors", "--plot", "--out-plot"),
        ("prefetch", "--pin", "--out-pins"),
    ],
)
def test_old_names_work(command: str, old: str, new: str) -> None:
    found = [option for option in LEAVES[command].params if new in option.opts]
    assert len(found) == 1 and old in found[0].opts


@pytest.mark.parametrize("arguments", [["toy"], ["recipe", "export", "merge.yml"]])
def test_an_output_that_is_missing_is_a_wrong_command_line(arguments: list[str]) -> None:
    done = CliRunner().invoke(cli, arguments, prog_name="iberian")
    assert done.exit_code == 2 and "Missing option '--out'" in done.output


@pytest.mark.parametrize(
    "arguments",
    [["recipe", "check", "nowhere.yml"], ["sweep", "nowhere.yml"], ["report", "nowhere"], ["best", "nowhere", "--by", "x"],
     ["ifeval", "lint", "nowhere.eu.jsonl"], ["ifeval", "check", "nowhere.yaml"], ["rescue", "nowhere"],
     ["prefetch", "--out", "mirror", "--models", "nowhere.yml"], ["tune", "nowhere.yml"], ["slurm", "nowhere.yml"]],
)  # fmt: skip
def test_a_file_that_is_not_there_is_1_everywhere(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        commands.main(arguments)
    said = capsys.readouterr()
    assert (stopped.value.code, "nowhere" in said.err) == (1, True), said.err


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lm_eval_iberian.documents.doctor.examine", stop)
    with pytest.raises(SystemExit) as stopped:
        commands.main(["doctor"])
    assert stopped.value.code == 130 and capsys.readouterr().err == "Stopped.\n"


def test_json_is_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    text = "merge_method: linear\ndensity: 1\nmodels: [{model: a, parameters: {weight: 1.0}}]"
    for arguments, code in ((["recipe", "check", "--text-only", "--json", text], 1), (["models", "--json"], 0)):
        with pytest.raises(SystemExit) as stopped:
            commands.main(arguments)
        found = json.loads(capsys.readouterr().out)
        assert stopped.value.code == code and found
    with pytest.raises(SystemExit):
        commands.main(["recipe", "check", "--text-only", "--json", text])
    (finding,) = json.loads(capsys.readouterr().out)
    assert finding["kind"] == "error" and "line 2" in finding["message"]


def test_quiet_says_results_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    from lm_eval_iberian.commands.terminal import echo, make_console, note

    @click.command()
    def speak() -> None:
        echo("a result")
        note("by the way")
        make_console(stderr=True).print("how far it is")
        echo("an error", err=True)

    from lm_eval_iberian.commands.habits import with_habits

    done = CliRunner().invoke(with_habits(speak), ["--quiet"])
    assert (done.stdout, done.stderr) == ("a result\n", "an error\n")
    said = CliRunner().invoke(speak, [])
    assert said.stderr == "by the way\nhow far it is\nan error\n"


def test_help_is_grouped_and_imports_nothing() -> None:
    done = CliRunner().invoke(cli, ["--help"], prog_name="iberian", terminal_width=80)
    places = [done.output.index(f"{title}:") for title in GROUPS]
    assert places == sorted(places) and "More:" not in done.output
    line = (
        "import sys; from lm_eval_iberian.commands.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    )
    heavy = "print({'torch', 'transformers', 'lm_eval', 'mergekit'} & sys.modules.keys(), file=sys.stderr)"
    again = subprocess.run([sys.executable, "-c", line + heavy], capture_output=True, text=True, check=True)
    assert again.stderr.strip() == "set()"


@pytest.mark.slow
def test_no_colour_and_a_pipe_that_closes() -> None:
    command = [sys.executable, "-m", "lm_eval_iberian.commands.main", "models"]
    for no_color, has_colours in (("", True), ("1", False)):
        environment = {**os.environ, "FORCE_COLOR": "1", "NO_COLOR": no_color}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert bool(re.search(r"\x1b\[[0-9;]*m", done.stdout)) >= has_colours
        assert not (no_color and re.search(r"\x1b\[(?:[0-9;]*;)?3[0-7]m", done.stdout))
    line = f"{' '.join(command)} | head -1"
    piped = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert piped.stderr == ""


def test_commands_complete_on_tab() -> None:
    environment = {**os.environ, "_IBERIAN_COMPLETE": "bash_complete", "COMP_WORDS": "iberian re", "COMP_CWORD": "1"}
    line = "from lm_eval_iberian.commands.main import cli; cli(prog_name='iberian')"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split() == ["plain,recipe", "plain,report", "plain,rescue"]


def test_without_a_terminal_there_is_a_line_a_minute_with_the_time_left() -> None:
    from lm_eval_iberian.commands.bars import Lines

    clock = iter(range(0, 10_000, 10))
    lines = Lines(lambda: float(next(clock)))
    said = [line for done in range(0, 101, 10) if (line := lines.line("base", done, 100))]
    assert said == ["base: 0 of 100", "base: 60 of 100, 40 s left", "base: 100 of 100"]


@pytest.mark.parametrize("command", [["toy", "--out"], ["fisher", "model", "--data", "{here}", "--out"]])
def test_a_place_that_cannot_be_written_is_found_before_the_work(command: list[str], tmp_path: Path) -> None:
    """Toys were trained for minutes first."""
    (tmp_path / "file").write_text("in the way")
    given = [part.format(here=tmp_path / "file") for part in command]
    done = CliRunner().invoke(cli, [*given, str(tmp_path / "file" / "out")])
    assert done.exit_code == 1 and "a file in the way" in done.output and "base:" not in done.output, done.output


def test_libraries_draw_no_bars_into_a_log() -> None:
    """Not lm_eval, not transformers: each state of a bar would be in it. A process that goes on is as it was."""
    line = ("import click, os\nfrom lm_eval_iberian.commands import main\n@click.command\ndef draws():\n"
            "    from tqdm.auto import tqdm\n    for _ in tqdm(range(3)): pass\n"
            "main.COMMANDS['draws'] = ('__main__:draws', '')\ntry: main.main(['draws'])\nexcept SystemExit: pass\n"
            "assert 'TQDM_DISABLE' not in os.environ")  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if key != "TQDM_DISABLE"}
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and "it/s" not in done.stderr, done.stderr


def test_every_command_that_takes_long_says_so_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    """What is beside the count is said as well; --quiet says nothing."""
    from lm_eval_iberian.commands.bars import bars

    with bars(width=6) as show:
        show("base", 0, 2, "loss [b]2.00[/b]")
        show("base", 1, 2)
        show("base", 2, 2, "loss 1.00")
    assert capsys.readouterr().err.splitlines() == ["base: 0 of 2, loss [b]2.00[/b]", "base: 2 of 2, loss 1.00"]


def test_an_export_says_how_many_tensors_are_merged(llama: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(linear(llama)))
    done = CliRunner().invoke(cli, ["recipe", "export", str(tmp_path / "merge.yml"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    said = [line for line in done.stderr.splitlines() if line.startswith("merging")]
    total = len(load_file(tmp_path / "out" / "model.safetensors"))
    assert said[0] == f"merging: 0 of {total}" and said[-1].startswith(f"merging: {total} of {total}")
