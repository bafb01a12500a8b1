"""Job scripts for Slurm: read by shellcheck, and run for real under a stand-in for sbatch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from lm_eval_iberian.commands.main import cli
from lm_eval_iberian.sweep.pools.local import Pool
from tests import forks
from tests.conftest import ROOT
from tests.lm_eval_iberian.sweep.pool_sweeps import check_same
from tests.lm_eval_iberian.sweep.pool_sweeps import run as run_again

BIN = Path(sys.executable).parent
# What Slurm does with a script, on this machine: an array's tasks run side by side, each with its log.
SBATCH = """\
import os, re, subprocess, sys
from pathlib import Path
options = dict(re.findall(r"^#SBATCH --([\\w-]+)=?(.*)$", Path(sys.argv[1]).read_text(), re.MULTILINE))
tasks = options.get("array", "0-0").split("-")
started = []
for task in range(int(tasks[0]), int(tasks[1]) + 1):
    log = open(options["output"].replace("%A", "7").replace("%j", "7").replace("%a", str(task)), "w")
    given = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_JOB_ID": str(70 + task), "SLURM_CPUS_ON_NODE": "8",
             "SLURM_JOB_NODELIST": "node[1-3]", "SLURM_JOB_NUM_NODES": options["nodes"]}
    started.append(subprocess.Popen(["bash", sys.argv[1]], env=os.environ | given, stdout=log, stderr=log))
print(*(job.pid for job in started), flush=True)
sys.exit(max(job.wait(300) for job in started))
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a sweep with its script, as `iberian slurm` does, and return the script."""
    monkeypatch.chdir(tmp_path)

    def script(*arguments: str, sweep: object = None) -> str:
        (tmp_path / "sweep.yml").write_text(yaml.safe_dump(sweep or {"tasks": ["a"], "recipes": {"one": "x.yml"}}))
        command = ["slurm", "sweep.yml", "--write", "job.slurm", *arguments]
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 0, result.output
        assert "sbatch job.slurm" in result.output and "iberian report" in result.output
        return (tmp_path / "job.slurm").read_text()

    return script


def stand_ins(folder: Path, **scripts: str) -> dict[str, str]:
    """An environment in which commands are these scripts; each call is written down in folder/calls."""
    place = folder / "bin"
    place.mkdir()
    for name, text in {"sbatch": f'exec {sys.executable} {place}/sbatch.py "$@"', **scripts}.items():
        said = f'#!/bin/bash\nprintf "%s\\n" "{name} $*" >> {folder}/calls\n{text}\n'
        (place / name).write_text(said)
        (place / name).chmod(0o755)
    (place / "sbatch.py").write_text(SBATCH)
    (place / "activate").touch()  # `folder` is a virtual environment for --venv
    return os.environ | {"PATH": f"{place}:{os.environ['PATH']}"}


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def never(*_: object) -> Pool:
    raise AssertionError("there is nothing to do")


SHAPES: dict[str, Sequence[str]] = {
    "one": (),
    "array": ("--array", "4"),
    "ray": ("--ray", "--nodes", "3"),
    "all": (
        *("--array", "2", "--time", "1-00:00:00", "--partition", "gpu", "--account", "me", "--qos", "long"),
        *("--gres", "gpu:a100:2", "--cpus-per-task", "16", "--mem", "128G", "--sbatch", "mail-type=END"),
        *("--sbatch", "comment=two words", "--env", "IBERIAN_DATA=/some where/else", "--set", "limit=2"),
        *("--workers", "2", "--limit", "0.5", "--out", "runs/it's one", "--venv", sys.prefix),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_scripts_are_clean(write: Callable[..., str], tmp_path: Path, shape: str) -> None:
    write(*SHAPES[shape])
    subprocess.run(["bash", "-n", "job.slurm"], check=True, cwd=tmp_path)
    done = subprocess.run([BIN / "shellcheck", "job.slurm"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout


def test_what_is_passed_through(write: Callable[..., str], tmp_path: Path) -> None:
    script = write(*SHAPES["all"])
    head, _, body = script.partition("set -euo pipefail")
    options = [line.removeprefix("#SBATCH --") for line in head.splitlines() if line.startswith("#SBATCH")]
    assert {
        *("job-name=sweep", "output=sweep-%A_%a.log", "array=1-2", "requeue", "signal=B:USR1@120", "open-mode=append"),
        *("time=1-00:00:00", "partition=gpu", "account=me", "qos=long", "gres=gpu:a100:2", "cpus-per-task=16"),
        *("mem=128G", "mail-type=END", 'comment="two words"', "nodes=1", "ntasks-per-node=1"),
    } == set(options)
    lines = body.splitlines()
    assert f"cd {tmp_path}" in lines
    assert f"source {BIN / 'activate'}" in lines
    assert "export HF_HUB_OFFLINE=1" in lines
    assert "export IBERIAN_DATA='/some where/else'" in lines
    command = "iberian sweep sweep.yml --out 'runs/it'\"'\"'s one' --set limit=2 --limit 0.5 --workers 2"
    assert f'{command} --shard "$SLURM_ARRAY_TASK_ID/2" &' in lines


def test_what_changes_a_number_reaches_the_job(
    write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every variable that the code of tasks and documents reads."""
    code = [*(ROOT / "tasks").rglob("*.py"), *(ROOT / "lm_eval_iberian").glob("*.py")]
    code += (ROOT / "lm_eval_iberian" / "documents").glob("*.py")
    read = {name for file in code for name in re.findall(r'"(IBERIAN_[A-Z_]+)"', file.read_text(encoding="utf-8"))}
    read |= {f"IBERIAN_IFEVAL_{language}" for language in ("EU", "GL", "CA", "ES", "EN")}
    read -= {"IBERIAN_AUTOLOAD", "IBERIAN_IFEVAL_"}
    assert {"IBERIAN_DATA", "IBERIAN_REVISIONS", "IBERIAN_TASKS", "IBERIAN_IFEVAL_RESPONSE_LANGUAGE"} <= read
    for name in read:
        monkeypatch.setenv(name, str(tmp_path))
    script = write()
    assert {name for name in read if f"export {name}={tmp_path}" not in script} == set()


def test_a_script_to_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yml").write_text("{tasks: [a], recipes: {one: x.yml}}")
    monkeypatch.setenv("HF_HOME", "hub")
    result = CliRunner().invoke(cli, ["slurm", "sweep.yml", "--online"])
    assert result.stdout.startswith("#!/bin/bash\n# sweep: a sweep on one node.")
    assert "HF_HUB_OFFLINE" not in result.stdout
    assert f"export HF_HOME={tmp_path}/hub\n" in result.stdout
    assert list(tmp_path.iterdir()) == [tmp_path / "sweep.yml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ray"], "--nodes N"),
        (["--nodes", "2"], "--nodes needs --ray"),
        (["--ray", "--nodes", "2", "--array", "2"], "one or the other"),
        (["--sbatch", "comment=a\nrm -rf x"], "not an option"),
        (["--partition", "a\ntouch b"], "not an option"),
        (["--env", "a b=c"], "NAME=VALUE"),
        (["--venv", "nowhere"], "no bin/activate"),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yml").write_text("{tasks: [a], recipes: {one: x.yml}}")
    result = CliRunner().invoke(cli, ["slurm", "sweep.yml", *arguments])
    assert result.exit_code == 2 and message in result.output


def test_a_job_that_is_cut_goes_back_into_the_queue(write: Callable[..., str], tmp_path: Path) -> None:
    """USR1 before the time limit: the sweep is told to stop, then the job is queued again, and that is no failure."""
    environment = stand_ins(tmp_path, iberian="trap 'exit 143' TERM; sleep 60 & wait", scontrol="")
    write("--array", "1", "--venv", str(tmp_path))
    with subprocess.Popen(["sbatch", "job.slurm"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as sbatch:
        assert sbatch.stdout is not None
        job, end = int(sbatch.stdout.readline()), time.monotonic() + 30
        while not any(call.startswith("iberian") for call in calls(tmp_path)):
            assert time.monotonic() < end, "the script did not start"
            time.sleep(0.05)
        time.sleep(0.2)  # until the script waits
        os.kill(job, 10)
        assert sbatch.wait(timeout=30) == 0
    assert calls(tmp_path)[1:] == ["iberian sweep sweep.yml --out runs/sweep --shard 1/1", "scontrol requeue 71"]
    assert "the time is nearly up" in (tmp_path / "sweep-7_1.log").read_text()


def test_a_failure_is_the_jobs(write: Callable[..., str], tmp_path: Path) -> None:
    environment = stand_ins(tmp_path, iberian="exit 3")
    write("--venv", str(tmp_path))
    assert subprocess.run(["sbatch", "job.slurm"], cwd=tmp_path, env=environment, check=False).returncode == 3


def test_ray_on_several_nodes(write: Callable[..., str], tmp_path: Path) -> None:
    """Head and workers are started where they belong, and the sweep joins them."""
    environment = stand_ins(
        tmp_path,
        scontrol="printf 'node%s\\n' 1 2 3",
        srun='while [[ "$1" == --* ]]; do shift; done; exec "$@"',
        ray="sleep 3",
        iberian='printf "%s\\n" "nodes $IBERIAN_RAY_NODES" >> ' + f"{tmp_path}/calls; sleep 1",
    )
    write("--ray", "--nodes", "3", "--venv", str(tmp_path))
    subprocess.run(["sbatch", "job.slurm"], cwd=tmp_path, env=environment, check=True, timeout=60)
    said = calls(tmp_path)
    heads = [call for call in said if call.startswith("ray start --head")]
    others = [call for call in said if call.startswith("ray start --address")]
    assert heads == [
        "ray start --head --node-ip-address=node1 --port=20070 --num-cpus=8 --include-dashboard=false --block"
    ]
    assert others == ["ray start --address=node1:20070 --num-cpus=8 --block"]
    assert any(call.startswith("srun --nodes=1 --ntasks=1 --nodelist=node1 ray") for call in said)
    assert any(call.startswith("srun --nodes=2 --ntasks=2 --exclude=node1") for call in said)
    assert "iberian sweep sweep.yml --out runs/sweep --ray node1:20070" in said and "nodes 3" in said


@pytest.mark.slow
def test_an_array_gives_the_tables_of_one_run(
    write: Callable[..., str], three_merges: dict[str, Any], undisturbed: Path, tmp_path: Path
) -> None:
    """Two tasks into one folder at the same time; each shard has its store, and reports read them as one."""
    environment = stand_ins(tmp_path, iberian=f'exec {tmp_path}/forked/iberian "$@"')
    variables = ("--env", "IBERIAN_DATA=samples", "--env", "OMP_NUM_THREADS=1")
    write("--array", "2", "--venv", str(tmp_path), *variables, sweep=three_merges)
    with forks.programs(tmp_path / "forked", iberian=["-m", "lm_eval_iberian.commands.main"]):
        subprocess.run(["sbatch", "job.slurm"], cwd=tmp_path, env=environment, check=True, timeout=600)
    run = tmp_path / "runs" / "sweep"
    assert sorted(file.name for file in run.glob("store*")) == ["store.0-of-2.sqlite", "store.1-of-2.sqlite"]
    assert not list(run.glob(".*"))  # nothing half written
    check_same(run, undisturbed)
    joined, whole = (CliRunner().invoke(cli, ["report", str(folder)]) for folder in (run, undisturbed))
    assert joined.exit_code == whole.exit_code == 0
    assert joined.stdout.replace(str(run), str(undisturbed)) == whole.stdout
    # What an array has measured is not measured again by a sweep that is not divided.
    _, said = run_again(three_merges, run, never, name="sweep")
    assert "3 of 3 evaluations are done already" in said
