"""The stand-in for a new Python behaves as one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import forks

pytestmark = pytest.mark.slow
SAYS = "import os, sys; print(sys.argv, os.environ['SAID'], os.getcwd()); sys.exit('no')"


def test_a_command_has_its_arguments_environment_folder_output_and_code(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAYS, "a", "b c"]
    options: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "SAID": "1"}}
    forked, new = forks.run(command, **options), subprocess.run(command, capture_output=True, text=True, **options)
    assert (forked.returncode, forked.stdout, forked.stderr) == (new.returncode, new.stdout, new.stderr)
    assert new.stdout == f"['-c', 'a', 'b c'] 1 {tmp_path}\n" and "SAID" not in os.environ


def test_a_kill_of_its_group_is_a_kill() -> None:
    made = forks.Popen(
        [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)"],
        stdout=subprocess.PIPE, process_group=0,
    )  # fmt: skip
    assert made.stdout is not None and made.stdout.readline() == "ready\n" and made.poll() is None
    os.killpg(made.pid, signal.SIGKILL)
    assert made.wait(60) == -signal.SIGKILL


def test_who_takes_too_long_is_killed() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        forks.run([sys.executable, "-c", "import time; time.sleep(600)"], timeout=1)


def test_a_shell_calls_programs(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with forks.programs(tmp_path, says=["-c", SAYS]):
        line = "SAID=2 says 'b c' > out; echo $?; SAID=3 exec says"
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (tmp_path / "out").read_text() == f"['-c', 'b c'] 2 {tmp_path}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, f"1\n['-c'] 3 {tmp_path}\n", "no\nno\n")


def say(answers: Any) -> None:
    answers.put((os.getpid(), os.environ.get("SAID"), "vllm" in sys.modules or "torch" in sys.modules))


def test_what_would_be_spawned_has_the_environment_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAID", "4")
    with forks.for_spawned():
        context = multiprocessing.get_context("spawn")
        answers = context.Queue()
        made = context.Process(target=say, args=(answers,))
        made.start()
        assert answers.get(timeout=300) == (made.pid, "4", True)
        made.join()
