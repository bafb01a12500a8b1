"""The guide "French from nothing" of ifeval_multi/README.md, executed step by step."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ifeval_multi.cli import ifeval

ROOT = Path(__file__).parents[2]
README = (ROOT / "ifeval_multi/README.md").read_text(encoding="utf-8")
GUIDE = README.split("## Another language in an afternoon", 1)[1].split("\n## ", 1)[0]
LETTER = (
    "Cher voisin je vous écris ce matin pour vous dire que le chat de ma sœur dort encore dans votre grand jardin vert."
)
ANSWERS = (
    f'{{"key": 1, "response": "{LETTER}"}}\n'
    '{"key": 2, "response": "* Lire un livre\\n* Boire une tisane\\n* Marcher"}\n'
)


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", GUIDE, re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.split("\n")]
    return [shlex.split(line[2:]) for line in lines if line.startswith("$ ")]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command of the guide, with this checkout's ifeval_multi for the installed one."""
    if words[:2] == ["iberian", "ifeval"]:
        words = [sys.executable, "-m", "ifeval_multi", *words[2:]]
    elif words[0] == "python":
        words = [sys.executable, *words[1:]]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_french_from_nothing(tmp_path: Path) -> None:
    new, unfinished, finished, tested, linted, scored = commands()

    assert run(new, tmp_path).returncode == 0
    done = run(unfinished, tmp_path)
    assert done.returncode == 1 and "TODO: own_name: TODO" in done.stdout

    (tmp_path / "packs/fr.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    done = run(finished, tmp_path)
    assert done.returncode == 0 and "ready, " in done.stdout, done.stdout
    assert run(tested, tmp_path).returncode == 0

    (tmp_path / "packs/fr.jsonl").write_text(blocks("json")[0], encoding="utf-8")
    done = run(linted, tmp_path)
    assert done.returncode == 0, done.stdout

    (tmp_path / "packs/answers.jsonl").write_text(ANSWERS, encoding="utf-8")
    done = run(scored, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 prompts, 3 instructions" in done.stdout
    assert "prompt_strict 50.00" in done.stdout


def test_the_shipped_french_pack_is_the_guides() -> None:
    shipped = (ROOT / "ifeval_multi/languages/fr.yaml").read_text(encoding="utf-8")
    assert blocks("yaml")[0] == shipped


def cli(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(ifeval, [str(word) for word in words])
    return done.exit_code, done.output


def test_new_refuses_to_overwrite_and_odd_codes(tmp_path: Path) -> None:
    assert cli("new", "gl", "--folder", tmp_path)[0] == 0
    code, told = cli("new", "gl", "--folder", tmp_path)
    assert code == 1 and "is there already" in told
    assert "is no language code" in cli("new", "Galego!", "--folder", tmp_path)[1]


def test_check_says_what_is_wrong_with_a_pack(tmp_path: Path) -> None:
    good = (ROOT / "ifeval_multi/languages/gl.yaml").read_text(encoding="utf-8")
    file = tmp_path / "gl.yaml"
    file.write_text(good.replace("labels: [gl]", "labels: [pt]"), encoding="utf-8")
    code, told = cli("check", file)
    assert code == 1 and "identification.sample: identified as 'gl', not ['pt']" in told
    file.write_text(
        good.replace('"A miña resposta é si.", followed: true', '"Si!", followed: true'),
        encoding="utf-8",
    )
    code, told = cli("check", file)
    assert code == 0 or "examples, number 1" in told


def test_score_writes_verdicts_with_reasons(tmp_path: Path) -> None:
    prompts, answers = tmp_path / "p.jsonl", tmp_path / "a.jsonl"
    prompts.write_text(blocks("json")[0], encoding="utf-8")
    answers.write_text(ANSWERS, encoding="utf-8")
    out = tmp_path / "v.jsonl"
    words = ("score", "-l", "fr", "--data", prompts, "--responses", answers, "--verdicts", out)
    code, told = cli(*words)
    assert code == 0 and "edition original" in told
    assert "found 3 bullets, exactly 2 asked" in out.read_text(encoding="utf-8")


def test_score_refuses_answers_to_other_prompts(tmp_path: Path) -> None:
    prompts, answers = tmp_path / "p.jsonl", tmp_path / "a.jsonl"
    prompts.write_text(blocks("json")[0], encoding="utf-8")
    answers.write_text('{"key": 1, "response": "a", "prompt": "another"}\n', encoding="utf-8")
    words = ("score", "-l", "fr", "--data", prompts, "--responses", answers)
    assert "was given to another prompt" in cli(*words)[1]
    answers.write_text('{"key": 1, "response": "a"}\n', encoding="utf-8")
    assert "there is no answer to key 2" in cli(*words)[1]
    answers.write_text('{"key": 1}\n{"key": 2}\n', encoding="utf-8")
    assert "key `response` holds no text" in cli(*words)[1]


def test_a_missing_file_is_no_traceback() -> None:
    code, told = cli("lint", "nowhere.jsonl", "-l", "gl")
    assert code == 1 and "there is no such file" in told and "Traceback" not in told
