"""Job scripts: whatever a user's file or command line says, no line of the script is theirs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from lm_eval_iberian.commands.main import cli
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.sweep.slurm import Script, word

BREAKS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029", "\x00", "\x1b[1A", "\u202e"]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """(exit code, what `iberian slurm` prints) for a sweep with these keys, with these further words."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, name: str = "sweep.yml", **keys: object) -> tuple[int, str]:
        (tmp_path / name).write_text(yaml.safe_dump({"tasks": ["a"], "recipes": {"one": "x.yml"}, **keys}))
        result = CliRunner().invoke(cli, ["slurm", name, *words])
        if result.exception is not None and not isinstance(result.exception, (SystemExit, SweepError)):
            raise result.exception
        return result.exit_code, result.output

    return run


@pytest.mark.parametrize("mark", BREAKS, ids=repr)
@pytest.mark.parametrize("way", ["output_path", "--out", "--set", "--env", "--sbatch", "--time"])
def test_a_line_break_in_what_is_said_is_refused(slurm: Callable[..., tuple[int, str]], way: str, mark: str) -> None:
    if mark == "\x00" and way.startswith("--"):
        pytest.skip("no command line can hold it")
    evil = f"runs/x{mark}touch PWNED{mark}#"
    code, said = {
        "output_path": lambda: slurm(output_path=evil),
        "--out": lambda: slurm("--out", evil),
        "--set": lambda: slurm("--set", f"output_path={evil}"),
        "--env": lambda: slurm("--env", f"IBERIAN_DATA={evil}"),
        "--sbatch": lambda: slurm("--sbatch", f"comment={evil}"),
        "--time": lambda: slurm("--time", evil),
    }[way]()
    assert code != 0
    assert not any(line.startswith("touch") for line in said.splitlines())


def test_a_variable_of_this_shell_with_a_line_break_is_refused(
    slurm: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IBERIAN_DATA", "x\ntouch PWNED")
    assert slurm()[0] != 0


@pytest.mark.parametrize("name", ["$(touch PWNED)", "`touch PWNED`", "'; touch PWNED; '", '"; touch PWNED; "', "a b"])
def test_what_a_shell_would_run_is_one_word(slurm: Callable[..., tuple[int, str]], tmp_path: Path, name: str) -> None:
    """The script itself is run, with stand-ins for what it calls: nothing of it was obeyed, and the words came whole."""
    code, said = slurm("--env", f"IBERIAN_DATA={name}", name=f"{name}.yml", output_path=f"runs/{name}")
    assert code == 0, said
    (tmp_path / "iberian").write_text('#!/bin/bash\nprintf "%s\\n" "$@" "$IBERIAN_DATA" > called\n')
    (tmp_path / "iberian").chmod(0o755)
    script = "\n".join(line for line in said.splitlines() if not line.startswith("source "))
    subprocess.run(
        ["bash"], input=script, text=True, check=True, env={**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    )
    assert (tmp_path / "called").read_text().splitlines() == ["sweep", f"{name}.yml", "--out", f"runs/{name}", name]
    assert not (tmp_path / "PWNED").exists()


def test_every_part_of_a_script_goes_through_one_function(tmp_path: Path) -> None:
    evil = "x\ntouch PWNED"
    plain = {"name": "n", "command": ["iberian"], "folder": tmp_path, "run": tmp_path}
    for part in ({"folder": Path(evil)}, {"run": Path(evil)}, {"command": [evil]}, {"activate": Path(evil)},
                 {"options": {"comment": evil}}, {"environment": {"X": evil}}):  # fmt: skip
        with pytest.raises(SweepError, match="line break"):
            Script(**{**plain, **part}).text()  # type: ignore[arg-type]
    assert "\ntouch" not in Script(**{**plain, "written_by": evil}).text()  # type: ignore[arg-type]


def test_words_are_quoted() -> None:
    assert word("a b") == "'a b'"
    assert word("a'b") == """'a'"'"'b'"""


@pytest.mark.parametrize("name", ["..", ".", "...", "", "../..", "/", "a/../../b"])
def test_no_name_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    from merge_hooks.files import slug

    inside = tmp_path / "points"
    assert (inside / slug(name)).resolve().parent == inside
