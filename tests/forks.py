"""Commands in processes of their own that have imported torch, transformers, lm_eval and vLLM already.

A new Python takes ten to twenty seconds of a core to import these. Here one process does so (`preloaded`), and every
command is a fork of it: with its own number, arguments, environment, folder and output, and a kill of it is a real kill.
It is for tests of what a command does. How a process starts, and what is read once when it does (HF_HOME,
IBERIAN_AUTOLOAD, how loud vLLM is), needs a new Python.
"""

from __future__ import annotations

import atexit
import gc
import json
import multiprocessing
import multiprocessing.context
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

Output = int | IO[Any] | None


class _Descriptor:
    """An open file that a process passes on to one that it starts. There it is a number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        from multiprocessing.reduction import DupFd

        return _taken, (DupFd(self.number),)


def _taken(passed: Any) -> int:
    return int(passed.detach())


class _Process(multiprocessing.context.ForkServerProcess):
    """A process that begins with the environment and the output of whoever starts it, as a new one does."""

    out, err, leads = 1, 2, False

    def start(self) -> None:
        self._given = (dict(os.environ), os.getpgrp(), _Descriptor(self.out), _Descriptor(self.err))
        super().start()
        del self._given

    def run(self) -> None:
        environment, group, *output = self._given
        for number, descriptor in enumerate(output, 1):
            os.dup2(descriptor, number)  # type: ignore[call-overload]
            os.close(descriptor)  # type: ignore[arg-type]
        _set(environment)
        with suppress(PermissionError):  # it is of another session
            os.setpgid(0, 0 if self.leads else group)
        # Python 3.11 would start another server here, though it knows the address of the one that there is.
        forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]
        # What came with the imports stays out of collections, though vLLM thaws it where an engine ends.
        gc.freeze = gc.unfreeze = lambda: None
        with for_spawned():
            super().run()


def _set(environment: Mapping[str, str]) -> None:
    """Also what is read once, when a process starts."""
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    if threads := environment.get("OMP_NUM_THREADS"):
        import torch

        torch.set_num_threads(int(threads))


class _Context(multiprocessing.context.ForkServerContext):
    Process = _Process  # type: ignore[assignment]


_CONTEXT = _Context()


def context() -> _Context:
    """Of multiprocessing, whose processes have imported what is slow to import."""
    _CONTEXT.set_forkserver_preload(["tests.preloaded"])
    return _CONTEXT


@contextmanager
def for_spawned() -> Iterator[None]:
    """Meanwhile, what multiprocessing would spawn is forked as well: workers of a sweep, vLLM's engines."""
    contexts = multiprocessing.context._concrete_contexts  # type: ignore[attr-defined]
    with patch.dict(contexts, {"spawn": context()}):
        yield


def _execute(words: list[str], environment: Mapping[str, str], folder: str) -> None:
    """In the fork: what `python WORDS` does."""
    _set(environment)
    os.chdir(folder)
    atexit._clear()  # what came with the imports
    sys.path[:0] = [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place]
    try:
        _run(words)
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        raise SystemExit(1) from None
    finally:
        atexit._run_exitfuncs()


def _run(words: list[str]) -> None:
    match words:
        case ["-m", module, *arguments]:
            sys.argv = [module, *arguments]
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *arguments]:
            sys.argv = ["-c", *arguments]
            sys.path.insert(0, "")
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        case _:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).parent))
            runpy.run_path(words[0], run_name="__main__")


class Popen:
    """As `subprocess.Popen([sys.executable, ...], text=True)`: `-m MODULE`, `-c CODE` and files, without input."""

    def __init__(
        self, command: Sequence[str], *, cwd: Path | str | None = None, env: Mapping[str, str] | None = None,
        stdout: Output = None, stderr: Output = None, process_group: int | None = None,
    ) -> None:  # fmt: skip
        assert command[0] == sys.executable, command
        self.args = list(command)
        said = (self.args[1:], dict(os.environ if env is None else env), str(cwd or Path.cwd()))
        self._process = process = context().Process(target=_execute, args=said)
        self.stdout, process.out, ours = _piped(stdout, 1)
        self.stderr, process.err, also_ours = _piped(stderr, 2)
        process.leads = process_group == 0
        process.start()
        for number in {*ours, *also_ours}:
            os.close(number)
        self.pid = int(process.pid or 0)
        atexit.register(self.kill)  # before multiprocessing waits for it

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    poll = returncode.fget

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self.returncode) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        atexit.unregister(self.kill)
        return code

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it still writes, until it ends."""
        said = {1: "", 2: ""}

        def read(number: int, file: IO[str]) -> None:
            said[number] = file.read()

        files = [(number, file) for number, file in ((1, self.stdout), (2, self.stderr)) if file is not None]
        readers = [threading.Thread(target=read, args=one, daemon=True) for one in files]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        return said[1], said[2]


def _piped(wanted: Output, usual: int) -> tuple[IO[str] | None, int, set[int]]:
    """(what we read, what it writes to, what is ours to close)."""
    if wanted == subprocess.PIPE:
        read, write = os.pipe()
        return os.fdopen(read, encoding="utf-8", errors="replace"), write, {write}
    if wanted == subprocess.DEVNULL:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        return None, nowhere, {nowhere}
    if wanted is None:
        return None, usual, set()
    return None, wanted if isinstance(wanted, int) else wanted.fileno(), set()


def run(
    command: Sequence[str], *, timeout: float | None = None, check: bool = False, **options: Any
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run([sys.executable, ...], capture_output=True, text=True)`."""
    made = Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    try:
        out, err = made.communicate(timeout)
    finally:
        made.kill()
    done = subprocess.CompletedProcess(made.args, made.wait(), out, err)
    if check:
        done.check_returncode()
    return done


# A program that has the tests run `python WORDS ...` for it, and ends as that does.
_STUB = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as tests:
    tests.connect({address!r})
    socket.send_fds(tests, [json.dumps([{words!r} + sys.argv[1:], dict(os.environ), os.getcwd()]).encode()], [1, 2])
    tests.shutdown(socket.SHUT_WR)
    sys.exit(int(tests.recv(16) or 1))
"""


@contextmanager
def programs(folder: Path, **words: Sequence[str]) -> Iterator[None]:
    """Write programs into a folder, for shells: each forks what it stands for, such as `iberian=["-m", "module"]`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as listener:
        address = f"{place}/socket"
        listener.bind(address)
        listener.listen()
        for name, given in words.items():
            (folder / name).write_text(_STUB.format(python=sys.executable, address=address, words=list(given)))
            (folder / name).chmod(0o755)

        def answer(asked: socket.socket) -> None:
            with asked:
                said, output, *_ = socket.recv_fds(asked, 2**20, 2)
                while more := asked.recv(2**20):
                    said += more
                command, environment, where = json.loads(said)
                made = Popen([sys.executable, *command], cwd=where, env=environment, stdout=output[0], stderr=output[1])
                for number in output:
                    os.close(number)
                code = made.wait()
                asked.sendall(str(code if code >= 0 else 128 - code).encode())

        def accept() -> None:
            with suppress(OSError):  # closed
                while True:
                    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
