"""Commands that README.md prints run as printed, from an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lm_eval_iberian.compare.columns import Scores
from lm_eval_iberian.compare.tables import sweep_report
from lm_eval_iberian.runs.run import read_sweep_run
from tests import forks
from tests.conftest import ROOT
from tests.lm_eval_iberian.sweep.runner import run
from tests.lm_eval_iberian.sweep.test_again import by_lm_eval


def blocks(kind: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["iberian_eus_trivia,ifeval_gl", pytest.param("", marks=pytest.mark.nightly)])
def test_the_commands_of_the_readme(llama: dict[str, Path], tmp_path: Path, suite: str) -> None:
    """The recipe and the commands, word for word; the models are tiny ones under the same names.

    suite: what stands for `iberian_suite`, whose 90 tasks take minutes. Nightly it is the suite itself.
    """
    for name, text in zip(("merge.yml", "sweep.yml"), blocks("yaml"), strict=True):
        (tmp_path / name).write_text(text)
    for name, model in (
        ("HiTZ/Latxa-Llama-3.1-8B", "basque"),
        ("meta-llama/Llama-3.1-8B-Instruct", "instruct"),
        ("Qwen/Qwen3-0.6B", "instruct"),
        ("Qwen/Qwen3-0.6B-Base", "base"),
    ):
        shutil.copytree(llama[model], tmp_path / name)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "IBERIAN_DATA": "samples",
    }
    forked = {"PATH": f"{tmp_path / 'bin'}:{environment['PATH']}"}
    environment |= {"PYTHONPATH": str(ROOT), "VLLM_CPU_KVCACHE_SPACE": "1"}
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) >= 3
    for number, command in enumerate(commands):
        # The real models have room for the few-shot prompts; so much for the one liberty taken: fewer documents.
        limited = command.replace("--tasks", "--limit 1 --tasks").replace("iberian sweep", "iberian sweep --limit 4")
        limited = limited.replace("--tasks iberian_suite", f"--tasks {suite or 'iberian_suite'}")
        # The first one, and what is light, starts as users start it; the others are forks.
        is_new = not number or command.startswith(("iberian report", "iberian best"))
        with forks.programs(
            tmp_path / "bin", lm_eval=["-m", "lm_eval"], iberian=["-m", "lm_eval_iberian.commands.main"]
        ):
            done = subprocess.run(
                ["bash", "-c", limited], cwd=tmp_path, env=environment if is_new else environment | forked,
                capture_output=True, text=True, timeout=900, check=False,
            )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"
    assert list((tmp_path / "out").rglob("results_*.json")) and list((tmp_path / "try").rglob("results_*.json"))


@pytest.mark.slow
def test_the_first_command_and_the_sweep_give_the_same_number(
    llama: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One recipe, prompted in one way: the first command's flags are what a sweep does by itself, and the paper's."""
    monkeypatch.chdir(tmp_path)
    for name, text in zip(("merge.yml", "sweep.yml"), blocks("yaml"), strict=True):
        Path(name).write_text(text)
    for name, model in (("HiTZ/Latxa-Llama-3.1-8B", "basque"), ("meta-llama/Llama-3.1-8B-Instruct", "instruct")):
        Path(name).parent.mkdir()
        Path(name).symlink_to(llama[model])
    task = "iberian_eus_trivia"
    data = yaml.safe_load(Path("sweep.yml").read_text()) | {"tasks": [task], "axes": {"weight": [1.0]}}
    data["model_args"] |= {"backend": "hf", "batch_size": 1}
    assert run(data, tmp_path / "run", here=tmp_path) == {}
    point = read_sweep_run(tmp_path / "run")["weight=1.0"]

    first = next(line for block in blocks("bash") for line in block.splitlines() if "recipe=merge.yml" in line)
    assert "--apply_chat_template --fewshot_as_multiturn" in first  # facts/paper.md
    command = first.replace("--tasks iberian_suite", f"--tasks {task}").replace(
        "recipe=merge.yml", "recipe=merge.yml,backend=hf"
    )
    plain = command.replace("--apply_chat_template --fewshot_as_multiturn ", "")
    found = {}
    for line in (command, plain):
        with pytest.MonkeyPatch.context() as patch:
            results, samples = by_lm_eval(f"IBERIAN_DATA=samples {line}", patch)
        found[line] = results["results"][task], [sample["resps"] for sample in samples[task]]
    assert found[command][0] == point.results[0]["results"][task]
    assert found[command][1] != found[plain][1]  # prompted otherwise, they answer otherwise
    rows = sweep_report(Scores(read_sweep_run(tmp_path / "run"))).tables[0].prompts
    assert set(rows) == {"multiturn", ""}
