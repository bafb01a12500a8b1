"""Engines, workers and drivers that are killed: nobody waits for them, nothing of them stays, and no number comes of them.

vLLM runs in processes of its own (`killed_sweeps.py`, `vllm_kills.py`). Ray's part: lm_eval_iberian/sweep/test_ray.py.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from lm_eval_iberian.models import queue
from lm_eval_iberian.sweep import kept_tasks
from lm_eval_iberian.sweep import worker as sweep_worker
from lm_eval_iberian.sweep.job import Failed, Lost
from lm_eval_iberian.sweep.pools.local import fill_slots
from lm_eval_iberian.sweep.pools.worker_process import WorkerProcess
from merge_hooks.engines import alive, vllm
from merge_hooks.errors import EngineError, EngineLostError
from tests import forks
from tests.conftest import ROOT
from tests.faults.killed_sweeps import KILLED, KILLS, killed_worker
from tests.lm_eval_iberian.sweep.fake_worker import a_job
from tests.lm_eval_iberian.sweep.local_tasks import write_tasks
from tests.lm_eval_iberian.sweep.pool_sweeps import a_sweep, run, tables
from tests.lm_eval_iberian.sweep.runner import ONLY_OURS
from tests.lm_eval_iberian.sweep.test_resume import answers_in, assert_same_answers, dump
from tests.lm_eval_iberian.vllm_swaps import answers, recipe


class Engine:
    """As a `vllm.LLM` whose engine is a process: whoever calls waits for its answer, and for ever once it was killed."""

    def __init__(self, dies: bool = True, raises: Exception | None = None) -> None:
        before = alive.processes()
        self.process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True)
        self.process.start()
        alive.note_processes(self, before)
        self.dies, self.raises = dies, raises
        self.callers: set[str] = set()
        config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=1))
        self.llm_engine = SimpleNamespace(vllm_config=config, step=self.wait, abort_request=lambda _: None)

    def wait(self, *_: Any, **__: Any) -> Any:
        self.callers.add(threading.current_thread().name)
        if self.dies:
            os.kill(self.process.pid or 0, signal.SIGKILL)
        if self.raises is not None:
            raise self.raises
        threading.Event().wait()

    collective_rpc = reset_prefix_cache = wait


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(alive, "END_SECONDS", 0.5)
    monkeypatch.setattr(alive, "INTERRUPTED_SECONDS", 0.1)


CALLS: dict[str, Callable[[Any], Any]] = {
    "during a swap": lambda llm: vllm.swap(llm, SimpleNamespace(payload=str)),  # type: ignore[arg-type]
    "during the proof of its weights": vllm.prove,
    "while it answered": lambda llm: queue.run_queue(llm, [], lambda *_: None),
}
# What vLLM says of a worker's death, or of none; None: nothing, and who waits would wait for ever.
SAID = (None, Exception("Call to collective_rpc method failed: cancelled"))


@pytest.mark.parametrize("when", CALLS)
@pytest.mark.parametrize("said", SAID, ids=str)
def test_whoever_waits_for_an_engine_that_is_killed_is_told(
    impatient: None, monkeypatch: pytest.MonkeyPatch, when: str, said: Exception | None
) -> None:
    monkeypatch.setattr(queue, "_fill", lambda llm, waiting, running, *_: running.update(request=0))
    engine = Engine(raises=said)
    with pytest.raises(EngineLostError, match=f"died {when} .its process was killed; out of memory.*same command"):
        CALLS[when](engine)
    assert engine.callers == {"asks the engine"}


def test_an_engine_that_says_that_it_is_dead_is_believed(impatient: None) -> None:
    class EngineDeadError(Exception):
        """As vLLM's."""

    with pytest.raises(EngineLostError, match="its own lines above say why"):
        vllm.prove(Engine(dies=False, raises=EngineDeadError("EngineCore encountered an issue.")))


def test_an_error_of_an_engine_that_lives_is_that_error(impatient: None) -> None:
    with pytest.raises(ValueError, match="no such method"):
        vllm.prove(Engine(dies=False, raises=ValueError("no such method")))


def test_ctrl_c_reaches_whoever_waits(impatient: None) -> None:
    with pytest.raises(KeyboardInterrupt):
        vllm.prove(Engine(dies=False, raises=KeyboardInterrupt()))  # type: ignore[arg-type]


def test_an_engine_in_this_process_is_asked_directly() -> None:
    with alive.asking(SimpleNamespace(), "now") as ask:
        assert ask(threading.current_thread) is threading.current_thread()


def test_an_engine_that_does_not_start_is_said_in_one_message() -> None:
    said = "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_0': %s}"
    killed, failed = (vllm.not_started(RuntimeError(said % code)) for code in (-9, 1))
    assert isinstance(killed, EngineLostError) and type(failed) is EngineError
    assert "max_model_len" in str(failed)
    other = RuntimeError("CUDA error")
    assert vllm.not_started(other) is other


# Sweeps


def test_a_point_whose_engine_died_is_tried_again_and_no_fault_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other error is the point's."""
    for error, kind in ((EngineLostError("it died"), Lost), (EngineError("no such layer"), Failed)):

        def fail(*_: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(sweep_worker.Worker, "_run", fail)
        events: list[Any] = []
        one = sweep_worker.Worker(events.append)
        one.signature = "of the last merge"
        one.run(a_job("a"))
        assert [type(event) for event in events] == [kind] and str(error) in events[0].reason
        assert one.signature == "" and one.is_broken is (kind is Lost)


class Workers:
    """The pool of one worker's process whose engine dies as `killed_sweeps` says."""

    def run(self, next_job: Any, handle: Any) -> None:
        with forks.for_spawned():
            fill_slots([WorkerProcess({}, make_worker=killed_worker)], next_job, handle)


@pytest.fixture(scope="module")
def sweep(llama: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three merges on vLLM: choices, and texts that it writes."""
    data = a_sweep(llama, write_tasks(tmp_path_factory.mktemp("tasks"), 12))
    arguments = {"backend": "vllm", "dtype": "float32", "max_model_len": 256, "max_num_seqs": 4}
    return data | {"tasks": ["local_choice", "local_words"], "model_args": arguments}


@pytest.fixture(scope="module")
def undisturbed(sweep: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_tasks, "TaskManager", ONLY_OURS)
        assert run(sweep, folder, lambda *_: Workers())[0] == {}
    return folder


def assert_like(folder: Path, undisturbed: Path) -> None:
    """Every row of the store, and all scores."""
    for table in ("documents", "texts", "evaluations"):
        assert dump(folder, table) == dump(undisturbed, table), table
    assert_same_answers(dump(folder, "answers"), dump(undisturbed, "answers"))
    assert tables(folder) == tables(undisturbed)


@pytest.mark.slow
def test_a_vllm_that_is_killed_over_an_answer_in_a_swap_and_in_a_proof(
    sweep: dict[str, Any], undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time another one goes on with what is left, and no half a merge is scored."""
    for name in ("tmp", "killed"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(kept_tasks, "TaskManager", ONLY_OURS)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv(KILLED, str(tmp_path / "killed"))
    failures, said = run(sweep, tmp_path / "run", lambda *_: Workers())
    assert failures == {}
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == sorted(KILLS)
    assert said.count("its worker died (killed; out of memory?); it is tried again") == 3
    assert said.count("engine started") == 4 and "are known" in said
    assert_like(tmp_path / "run", undisturbed)
    assert [path.name for path in (tmp_path / "tmp").iterdir() if not path.name.startswith("torchinductor")] == []


def descendants(number: int) -> list[psutil.Process]:
    try:
        return psutil.Process(number).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def words_of(one: psutil.Process) -> str:
    try:
        return " ".join(one.cmdline())
    except psutil.Error:  # it has ended meanwhile
        return ""


def shared_memory(one: psutil.Process) -> set[str]:
    """The names in /dev/shm that a process has mapped or open."""
    try:
        lines = Path(f"/proc/{one.pid}/maps").read_text().splitlines()
    except OSError:  # it has ended meanwhile
        return set()
    found = {line.split()[-1] for line in lines if "/dev/shm/" in line}
    return {name for name in found if Path(name).exists()}


def is_alive(one: psutil.Process) -> bool:
    try:
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(what: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A TMPDIR for vLLM: names of sockets have at most 107 letters, which pytest's own can take."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["worker", pytest.param("here", marks=pytest.mark.nightly)])
def test_nothing_outlives_a_driver_that_is_killed_and_the_same_command_goes_on(
    sweep: dict[str, Any], undisturbed: Path, tmp_path: Path, short_tmp: Path, where: str
) -> None:
    """worker: vLLM in a worker's process. here: vLLM in processes of its own, as on GPUs, which the driver has started."""
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    command = [
        sys.executable,
        "-m",
        "tests.faults.killed_sweeps",
        str(tmp_path / "sweep.json"),
        str(tmp_path / "run"),
        where,
    ]
    environment = {
        **os.environ,
        "TMPDIR": str(short_tmp),
        "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(where == "here")),
    }
    # vLLM's own processes are watched by Python's tracker of shared memory, which a fork has from the tests.
    start = subprocess.Popen if where == "here" else forks.Popen
    before = descendants(os.getpid())
    said = tmp_path / "said.txt"
    with said.open("w") as file:
        driver = start(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=file)
    try:
        wait_until(lambda: answers_in(tmp_path / "run") > 5 or driver.poll() is not None, 500)
        assert driver.poll() is None, said.read_text()[-3000:]
        left = [one for one in descendants(os.getpid()) if one not in before and one.pid != driver.pid]
        memory = set().union(*map(shared_memory, left))
    finally:
        driver.kill()
        driver.wait(60)
    assert left and answers_in(tmp_path / "run") < 3 * 36
    wait_until(lambda: not any(map(is_alive, left)), 60)
    assert not [name for name in memory if Path(name).exists()]
    if where == "worker":
        wait_until(lambda: not list(short_tmp.glob("iberian-*")), 30)
    done = forks.run(command, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_like(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.nightly  # its parts one by one; the test of one that is killed three times has them in a row
@pytest.mark.parametrize("kind", ["swap", "proof"])
def test_a_vllm_whose_processes_are_killed(tmp_path: Path, kind: str) -> None:
    """The scheduler's during a swap, of which vLLM says nothing; then, in the engine that took its place, a worker's."""
    from lm_eval_iberian.models.hf import MergedHF

    command = [sys.executable, "-m", "tests.faults.vllm_kills", str(tmp_path), kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["anew"] and found["proof"] == "proved"
    folder = tmp_path / "llama_tied"
    wanted = answers(MergedHF(recipe=recipe(folder, 0.9), dtype="float32", device="cpu"))
    assert found["answers"]["scores"] == pytest.approx(wanted["scores"], abs=1e-4)
    assert found["answers"]["text"] == [text.rstrip("\ufffd") for text in wanted["text"]]
    when = {"swap": "during a swap", "proof": "during the proof of its weights"}[kind]
    assert "the engine is started anew" in done.stderr and f"vLLM's engine died {when}" in done.stderr
    first, *later = found["died"]
    assert first.startswith("EngineLostError: vLLM's engine died while it answered")
    assert [words.partition(": ")[2] for words in later] == [first.partition(": ")[2]] * 2


@pytest.mark.nightly
def test_sigterm_while_vllm_starts_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    """vLLM swallows what is raised then, and would wait for ten minutes; its sockets would stay."""
    command = [sys.executable, "-m", "tests.faults.vllm_kills", str(tmp_path), "swap"]
    with tempfile.TemporaryDirectory() as folder:
        driver = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TMPDIR": folder}, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, text=True)  # fmt: skip
        wait_until(lambda: any("spawn_main" in words_of(one) for one in descendants(driver.pid)), 300)
        time.sleep(2)
        left = descendants(driver.pid)
        driver.terminate()
        said = driver.communicate(timeout=60)[1]
        assert driver.returncode != 0 and "Traceback" not in said
        wait_until(lambda: not any(map(is_alive, left)), 30)
        assert [path.name for path in Path(folder).iterdir() if not path.name.startswith("torchinductor")] == []
