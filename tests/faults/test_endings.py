"""How things end: SIGTERM, full disks, odd importers, rights of files. Nothing is left, and nobody else is touched."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from click.testing import CliRunner

from lm_eval_iberian.commands.main import cli
from merge_hooks.engines import vllm
from merge_hooks.errors import EngineError
from merge_hooks.files import umask
from merge_hooks.machine.memory import alone
from merge_hooks.machine.stopping import Terminated, unswallowed, unwind_on_sigterm
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.resolve.resolver import resolve
from merge_hooks.stream.stream import open_stream
from merge_hooks.tools.export import export
from tests import forks
from tests.conftest import ROOT, linear

WAITS = """
import atexit, shutil, sys, tempfile, time
from merge_hooks.machine.memory import claiming
from merge_hooks.machine.stopping import unwind_on_sigterm
unwind_on_sigterm()
folder = tempfile.mkdtemp()
atexit.register(shutil.rmtree, folder)
with tempfile.TemporaryDirectory(), tempfile.NamedTemporaryFile(), claiming():
    print("ready", flush=True)
    time.sleep(60)
"""


def environment(folder: Path) -> dict[str, str]:
    """With a TMPDIR of its own, which is looked into afterwards."""
    (folder / "tmp").mkdir()
    return {**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT), "IBERIAN_DATA": "samples"}


def test_sigterm_leaves_nothing_in_tmpdir(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", WAITS], env=environment(tmp_path), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    assert len(list((tmp_path / "tmp").iterdir())) == 4
    child.terminate()
    _, said = child.communicate(timeout=30)
    assert child.returncode != 0 and said == ""
    assert list((tmp_path / "tmp").iterdir()) == []


POOLS = """
import multiprocessing, os, signal, threading
from merge_hooks.machine.stopping import Terminated, unswallowed, unwind_on_sigterm
unwind_on_sigterm()
def pools():
    for _ in range(15):
        with multiprocessing.get_context("fork").Pool(4) as pool:
            pool.map(abs, [1])
pools()
with unswallowed():
    pools()
thread = threading.Thread(target=pools)
thread.start()
thread.join()
print("done", flush=True)
try:
    os.kill(os.getpid(), signal.SIGTERM)
except Terminated:
    print("unwound")
"""


def test_pools_end_their_forks_by_sigterm(tmp_path: Path) -> None:
    """As lm_eval's, in which it computes standard errors of BLEU: one in some ten waited for ever for a worker."""
    done = subprocess.run(
        [sys.executable, "-c", POOLS], env=environment(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("done\nunwound\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_sweep_that_is_terminated_leaves_nothing(llama: dict[str, Path], tmp_path: Path, workers: int) -> None:
    """With a tokenizer that has to be built, which lies in TMPDIR; with workers, which are killed."""
    recipe = linear(llama) | {"tokenizer_source": "union"}
    recipe["models"][0]["parameters"]["weight"] = "$weight"
    data = {"tasks": ["iberian_eus_trivia", "iberian_eus_reading"], "recipe": recipe,
            "model_args": {"backend": "hf", "device": "cpu", "dtype": "float32", "batch_size": 1},
            "axes": {"weight": [0.5, 1.0]}, "parents": False}  # fmt: skip
    (tmp_path / "sweep.yml").write_text(yaml.safe_dump(data))
    words = ["sweep", str(tmp_path / "sweep.yml"), "--out", str(tmp_path / "run"), "--workers", str(workers)]
    start: Any = forks.Popen if workers == 1 else partial(subprocess.Popen, text=True)  # two are started as users do it
    child = start([sys.executable, "-m", "lm_eval_iberian.commands.main", *words], env=environment(tmp_path),
                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    for line in child.stderr:
        if "engine started" in line:
            break
    assert list((tmp_path / "tmp").iterdir())
    child.terminate()
    said = child.stderr.read()
    assert child.wait(60) == 128 + signal.SIGTERM, said
    assert "Stopped" in said and "Traceback" not in said
    time.sleep(1)
    assert [path for path in (tmp_path / "tmp").iterdir() if not path.name.startswith("torchinductor")] == []


HOLDS = """
import sys, time
from pathlib import Path
from merge_hooks.machine.memory import alone
for _ in range(200):
    with alone(Path(sys.argv[1]), 60):
        text = Path(sys.argv[2]).read_text()
        Path(sys.argv[2]).write_text(str(int(text) + 1))
"""


def test_who_waits_for_memory_is_alone_though_the_file_goes_each_time(tmp_path: Path) -> None:
    """Three processes that count together: no count is lost, and no file stays."""
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "lock"), str(tmp_path / "count")]
    for one in [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}) for _ in range(3)]:
        assert one.wait(120) == 0
    assert (tmp_path / "count").read_text() == "600"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_who_waits_for_memory_too_long_goes_on(tmp_path: Path) -> None:
    with (
        alone(tmp_path / "lock", 60),
        pytest.raises(TimeoutError, match="another process"),
        alone(tmp_path / "lock", 0.0),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
@pytest.mark.parametrize("swallows", [KeyboardInterrupt, BaseException])
def test_who_swallows_ctrl_c_is_ended_all_the_same(
    number: signal.Signals, error: type[BaseException], swallows: type[BaseException]
) -> None:
    """As vLLM, which waits on for ten minutes. Who swallows everything ends by itself, at least."""
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    done: list[str] = []
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        unwind_on_sigterm()
        with pytest.raises(error), unswallowed():
            with suppress(swallows):
                signal.raise_signal(number)
            done.append("goes on")
        assert done == (["goes on"] if swallows is BaseException else [])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


ENGINE = """
import multiprocessing, os, sys, time

def engine(grandchild):
    from merge_hooks.machine.stopping import end_with_parent
    end_with_parent()
    if not grandchild:
        multiprocessing.get_context("spawn").Process(target=engine, args=(True,)).start()
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=engine, args=(False,)).start()
    time.sleep(600)
"""


def test_processes_of_an_engine_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(ENGINE)
    driver = subprocess.Popen([sys.executable, str(tmp_path / "driver.py")], stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert driver.stdout is not None
    engines = [psutil.Process(int(driver.stdout.readline())) for _ in range(2)]
    driver.kill()
    driver.wait(30)
    _, alive = psutil.wait_procs(engines, timeout=30)
    assert not alive


# Full disks


def stream_of(llama: dict[str, Path]) -> Any:
    return open_stream(resolve(read_recipe(linear(llama))))


@pytest.mark.slow
def test_a_disk_that_fills_up_during_an_export_is_a_message(
    llama: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError, torch

    for error in (
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: No space left"),
    ):

        def full(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(torch, "save_file", full)
        with pytest.raises(EngineError, match="disk full"):
            export(stream_of(llama), tmp_path / "out")
        assert list(tmp_path.iterdir()) == []


# Rights


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o022, 0o002])
def test_an_export_follows_the_umask(llama: dict[str, Path], tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        assert umask() == mask
        export(stream_of(llama), tmp_path / "out")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~mask
    for file in (tmp_path / "out").iterdir():
        assert file.stat().st_mode & 0o777 == 0o666 & ~mask, file.name


# Importers


def test_an_lm_eval_in_a_zip_is_not_patched_beyond_its_own_modules(tmp_path: Path) -> None:
    """Its importer serves all modules of the file, and of others that lie in it: none of them is acted on."""
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        for name in ("lm_eval/__init__.py", "lm_eval/models/__init__.py", "lm_eval/tasks/__init__.py", "lm_eval/api/__init__.py",
                     "lm_eval/evaluator.py", "lm_eval/other.py", "stranger.py"):  # fmt: skip
            packed.writestr(name, "def evaluate(): pass\n" if "evaluator" in name else "")
    program = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import lm_eval_iberian.autoload, lm_eval.evaluator\n"
        "warnings.simplefilter('error')\n"
        "import lm_eval.other, stranger\n"
        "import importlib.util, zipimport\n"
        "spec = importlib.util.find_spec('stranger')\n"
        "assert 'exec_module' not in vars(spec.loader), vars(spec.loader)\n"
        "assert 'exec_module' not in vars(lm_eval.other.__spec__.loader)\n"
        "assert isinstance(spec.loader, zipimport.zipimporter)\n"
        "assert lm_eval.evaluator.__file__.startswith(PACKED)\n"
    ).replace("PACKED", repr(str(tmp_path)))
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": f"{tmp_path / 'packed.zip'}:{ROOT}", "IBERIAN_AUTOLOAD": "0"})  # fmt: skip
    assert made.returncode == 0, made.stderr


# What nobody foresaw


def test_an_error_that_nobody_foresaw_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval_iberian.commands import report

    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("a\x1b[2Jkey")

    monkeypatch.setattr(report, "_width", fail)
    monkeypatch.setattr(report, "report_files", lambda *_: None)
    result = CliRunner().invoke(cli, ["report", str(tmp_path)])
    assert result.exit_code == 1 and "KeyError" in result.output and "\x1b" not in result.output
    assert "IBERIAN_TRACEBACK" in result.output
    monkeypatch.setenv("IBERIAN_TRACEBACK", "1")
    assert isinstance(CliRunner().invoke(cli, ["report", str(tmp_path)]).exception, KeyError)


def test_engines_have_sockets_where_the_temporary_folder_has_a_long_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a job's TMPDIR, below which a sweep's worker has one of its own. vLLM adds 37 characters, of at most 107."""
    long = tmp_path / ("scratch" * 12)
    long.mkdir()
    monkeypatch.setenv(vllm.SOCKETS, "")  # that it goes afterwards
    monkeypatch.delenv(vllm.SOCKETS)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    made: list[Any] = []
    monkeypatch.setattr("atexit.register", made.append)
    try:
        vllm._give_sockets_a_folder()
        folder = Path(os.environ[vllm.SOCKETS])
        assert folder.is_dir() and len(str(folder)) + 37 <= 107 and list(long.iterdir()) == []
    finally:
        for cleanup in made:
            cleanup()
    assert made and not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "is_local"),
    [({}, True), ({"distributed_executor_backend": "mp", "tensor_parallel_size": "2"}, True),
     ({"tensor_parallel_size": 2}, False), ({"distributed_executor_backend": "ray"}, False), ({"nnodes": 2}, False),
     ({"data_parallel_size": 2}, False)],
)  # fmt: skip
def test_an_engine_on_one_host_does_not_ask_for_its_name(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], is_local: bool
) -> None:
    """Where the name of a node has no address and its name server is silent, gloo asked six times, 20 s each."""
    monkeypatch.setattr(vllm, "is_cpu_build", lambda: False)
    monkeypatch.setattr("socket.if_nameindex", lambda: [(1, "lo"), (2, "ib0")])
    for before, after in ((None, "lo" if is_local else None), ("lo", "lo" if is_local else None), ("ib0", "ib0")):
        monkeypatch.setenv(vllm.GLOO, before or "")
        if before is None:
            monkeypatch.delenv(vllm.GLOO)
        monkeypatch.setenv(vllm.OURS, "1")
        monkeypatch.setenv(vllm.SOCKETS, "as it is")
        vllm.prepare_environment(arguments)
        assert os.environ.get(vllm.GLOO) == after
    monkeypatch.setenv(vllm.GLOO, "")  # that it goes afterwards
