"""Puts each listed fault into a copy of the repository and sees whether the tests notice: python tests/mutants/run.py

    python tests/mutants/run.py [NAME | NAME:NUMBER ...] [--jobs 2] [--limit 180] [--list]

See README.md beside it.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import py_compile
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lists import HERE, ROOT, Mutant, parses, read

KILLED, SURVIVED, ARGUED, BROKEN = "killed", "survived", "argued", "broken"
# pytest's exit codes: a test failed; the collection failed, which is a module that could not be imported.
FAILED, NOT_COLLECTED = 1, 2


class Copy:
    """A copy of the repository, and the process that runs pytest in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in tracked():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
        # Compiled by their content: a file that was changed within the second is compiled anew.
        compileall.compile_dir(folder, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
        env = os.environ | {
            "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "IBERIAN_AUTOLOAD": "0", "OMP_NUM_THREADS": "1",
            "CI": "1",  # the same hypothesis examples in each run
            "NUMBA_CACHE_DIR": str(folder.parent / "compiled"),  # with faults in it: not where anyone else finds it
        }  # fmt: skip
        self._said = folder.parent / "stderr"
        with self._said.open("wb") as said:
            self._server = subprocess.Popen(
                [sys.executable, str(HERE / "server.py")], cwd=folder, env=env, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said,
            )  # fmt: skip

    def run(self, tests: str, limit: float) -> tuple[int | None, str]:
        """pytest's exit code (None: over the limit) and what it said."""
        assert self._server.stdin and self._server.stdout
        self._server.stdin.write(json.dumps({"tests": tests, "limit": limit}) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        if not answer:
            said = self._said.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise SystemExit(f"The process that runs pytest ended. It said:\n{said}")
        found: dict[str, Any] = json.loads(answer)
        return found["code"], found["said"]

    def judge(self, mutant: Mutant, limit: float) -> tuple[str, str, float]:
        """What became of a mutant, what is to be said of it, and the seconds it took."""
        begun = time.monotonic()
        return *self._judge(mutant, limit), time.monotonic() - begun

    def _judge(self, mutant: Mutant, limit: float) -> tuple[str, str]:
        path = self.folder / mutant.file
        text, times = path.read_text(encoding="utf-8"), path.stat()
        try:
            mutated = mutant.applied(text)
        except ValueError as error:
            return BROKEN, str(error)
        if not parses(mutant.file, mutated):
            return BROKEN, "it does not parse"
        path.write_text(mutated, encoding="utf-8")
        try:
            code, said = self.run(mutant.tests, limit)
        finally:
            path.write_text(text, encoding="utf-8")
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # numba knows files by their time
        if code is None:
            return KILLED, f"over the limit of {limit:.0f} s"
        if code in (FAILED, NOT_COLLECTED):
            return KILLED, "at import" if code == NOT_COLLECTED else ""
        if code != 0:
            return BROKEN, f"pytest ended with {code}:\n{said}"
        return (ARGUED, mutant.argued) if mutant.argued else (SURVIVED, "")

    def close(self) -> None:
        """End the process."""
        self._server.kill()
        self._server.wait()


def tracked() -> list[str]:
    """Every file that git tracks or would track, as it lies here."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
        capture_output=True, text=True,
    ).stdout  # fmt: skip
    return [name for name in listed.split("\0") if name and (ROOT / name).exists()]


def in_turn(copies: Sequence[Copy], work: Callable[[Copy, Any], Any], given: Sequence[Any]) -> Iterator[Any]:
    """`work` on each, as many at once as there are copies; results in the order given."""
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)

    def one(item: Any) -> Any:
        copy = free.get()
        try:
            return work(copy, item)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(len(copies)) as pool:
        yield from pool.map(one, given)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="lists, or single mutants as LIST:NUMBER; none: all lists")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=180, help="seconds for one run of the tests")
    parser.add_argument("--list", action="store_true", help="show the mutants and run nothing")
    asked = parser.parse_args()
    try:
        mutants = read(asked.names)
    except ValueError as error:
        parser.error(str(error))
    if asked.list:
        print("\n".join(f"{mutant.name}  {mutant.file}: {mutant.fault}" for mutant in mutants))
        return 0
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants") as folder:
        Path(folder).chmod(0o755)  # tests that become another user import from there, too
        copies = [Copy(Path(folder) / str(job) / "copy") for job in range(min(asked.jobs, len(mutants)))]
        try:
            good = unmutated(copies, mutants, asked.limit) and judged(copies, mutants, asked.limit)
        finally:
            for copy in copies:
                copy.close()
    print(f"{time.monotonic() - begun:.0f} s")
    return 0 if good else 1


def unmutated(copies: Sequence[Copy], mutants: Sequence[Mutant], limit: float) -> bool:
    """Whether all tests pass where nothing was changed: without that, "killed" says nothing."""
    good = True
    tests = list(dict.fromkeys(mutant.tests for mutant in mutants))
    for given, (code, said) in zip(tests, in_turn(copies, lambda copy, one: copy.run(one, limit), tests), strict=True):
        if code != 0:
            print(f"Without any fault these tests are red ({code}): {given}\n{said}")
            good = False
    return good


def judged(copies: Sequence[Copy], mutants: Sequence[Mutant], limit: float) -> bool:
    """Judge all and say so, line by line; whether every one was killed, or argued away and lived."""
    counts: Counter[str] = Counter()
    wrong = []
    for mutant, (verdict, said, seconds) in zip(
        mutants, in_turn(copies, lambda copy, one: copy.judge(one, limit), mutants), strict=True
    ):
        counts[verdict] += 1
        line = (
            f"{verdict:8} {seconds:5.1f} s  {mutant.name}  {mutant.file}: {mutant.fault} {f'({said})' if said else ''}"
        )
        print(line, flush=True)
        if verdict == KILLED and mutant.argued:
            wrong.append(f"{mutant.name} was argued away, and tests notice it: take `argued` out of the list.")
        elif verdict in (SURVIVED, BROKEN):
            wrong.append(line)
    counted = counts[KILLED] + counts[SURVIVED]
    share = f", {100 * counts[KILLED] / counted:.1f} % of those that count" if counted else ""
    print("\n" + ", ".join(f"{counts[word]} {word}" for word in (KILLED, SURVIVED, ARGUED, BROKEN)) + share)
    print("\n".join(wrong))
    return not wrong


if __name__ == "__main__":
    sys.exit(main())
