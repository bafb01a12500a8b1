"""Several ranks that take in merges together, as an engine's do, in processes of their own: gloo, no vLLM.

    with Ranks() as ranks:                  # imports once; each rank of each task is a fork of that process
        found = ranks.run(folder, 4, recipes, ...)

A task, as it is written to FOLDER/task.json; each rank writes its findings beside it:

    {"size": 4, "stages": 1, "recipes": [...], "resident": "memory", "maps": true, "writes": false, "timeout": 60,
     "fails": {"rank": 1, "after": 5, "how": "raise" | "kill" | "open"},
     "warm": false, "alone": false}            # warm: kernels are compiled first; alone: each rank merges all
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Of the engine: this rank's rows of each tensor.
PARAMETERS: dict[str, Any] = {}


class Ranks:
    """A process that starts ranks. A context manager."""

    def __enter__(self) -> Ranks:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.merge_hooks.ranks"], env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)

    def run(
        self, folder: Path, size: int, recipes: list[Any], longest: float = 200, **task: Any
    ) -> list[dict[str, Any]]:
        """Run a task, and wait. What each rank found; {"status": ...} of one that wrote nothing."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "task.json"
        file.write_text(json.dumps({"size": size, "recipes": recipes, "longest": longest, **task}))
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{file}\n")
        status = json.loads(self._process.stdout.readline())
        places = [folder / f"rank{rank}.json" for rank in range(size)]
        return [json.loads(place.read_text()) if place.exists() else {"status": one}
                for place, one in zip(places, status, strict=True)]  # fmt: skip


def serve() -> None:
    """Run the tasks whose files are named on standard input."""
    import mergekit.plan  # noqa: F401
    import torch
    import torch.distributed
    import transformers.models.llama.modeling_llama  # noqa: F401

    import merge_hooks.engines.proof
    import merge_hooks.resolve.resolver  # noqa: F401
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream

    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        file = Path(line.strip())
        task = json.loads(file.read_text())
        if not task.get("fails") and task.get("warm"):
            for recipe in task["recipes"]:  # compiles what is to be compiled, before the ranks are timed
                for _ in open_stream(resolve(read_recipe(recipe))):
                    pass
        started = [fork(rank, file) for rank in range(task["size"])]
        print(json.dumps(wait(started, task["longest"])), file=answers, flush=True)


def fork(rank: int, file: Path) -> int:
    if found := os.fork():
        return found
    try:
        main(rank, file)
    finally:
        os._exit(1)  # not main's own end


def wait(started: list[int], longest: float) -> list[int]:
    """The status of each process, in order; one that takes too long is killed."""
    end, status = time.monotonic() + longest, {}
    while len(status) < len(started):
        for process in started:
            if process not in status:
                found, code = os.waitpid(process, os.WNOHANG)
                if found:
                    status[process] = os.waitstatus_to_exitcode(code)
                elif time.monotonic() > end:
                    os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    return [status[process] for process in started]


class Reads:
    """Counts the bytes that are read from sources' files."""

    def __init__(self) -> None:
        from merge_hooks.sources.checkpoint import Source

        self.bytes, read = 0, Source.read_stored

        def counted(source: Source, tensor: str) -> Any:
            found = read(source, tensor)
            self.bytes += found.nbytes
            return found

        Source.read_stored = counted  # type: ignore[method-assign]


def groups(rank: int, size: int, stages: int, timeout: float, store: Path) -> tuple[Any, Any]:
    """(the ranks of this stage, the same rank of every stage)."""
    import torch
    import torch.distributed as dist

    from merge_hooks.engines import sharing

    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timedelta(seconds=timeout)
    )
    width = size // stages
    found = []
    for sets in ([list(range(one * width, (one + 1) * width)) for one in range(stages)],
                 [list(range(one, size, width)) for one in range(width)]):  # fmt: skip
        for members in sets:
            group = dist.new_group(members)
            if rank in members:
                found.append(sharing.Ranks(members.index(rank), tuple(members), group, group, torch.device("cpu")))
    return found[0], found[1]


def take_in(task: dict[str, Any], rank: int, recipe: Any, ranks: Any, stages: Any, fails: dict[str, Any]) -> Any:
    """One merge, as `merge_hooks.engines.vllm_worker.merged_weights` takes it in. Stages take the tensors in turn."""
    import torch

    from merge_hooks.engines.proof import take
    from merge_hooks.engines.sharing import Shared
    from merge_hooks.engines.weights_digest import Digest, digest_of_described
    from merge_hooks.errors import SourceError
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.sources.residents import residents_for
    from merge_hooks.stream.stream import open_stream

    described: dict[str, Any] = {}
    prints: dict[str, Any] = {}
    members = (None, None) if task.get("alone") else (ranks, stages)
    with Shared(*members, task.get("maps", True)) as one, Digest() as digest:
        if fails.get("how") == "open":
            raise SourceError("this rank's files are not to be had")
        stream = open_stream(resolve(read_recipe(recipe)))
        names = set(stream.names()[stages.rank :: stages.size])
        weights = one.tensors(stream, names, residents_for(task.get("resident")))
        weights = one.watch(one.watch(weights, digest.describe, described), lambda _, tensor: take(tensor), prints)
        for number, (name, tensor) in enumerate(weights):
            if number == fails.get("after"):
                if fails["how"] == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise ValueError("the engine cannot load it")
            flat = tensor.view(-1)
            step = -(-len(flat) // ranks.size)
            rows = flat[ranks.rank * step : (ranks.rank + 1) * step]
            PARAMETERS.setdefault(name, torch.empty_like(rows)).copy_(rows)
            if task.get("writes"):  # as a loader that works in place
                tensor.zero_()
        own, whole_prints = one.finish(described, prints)
        whole = one.finish_stages(own)
    sums = {name: float(print_.signs.sum()) if print_.signs is not None else float(print_.value.float().sum())
            for name, print_ in whole_prints.items()}  # fmt: skip
    return digest_of_described(whole[name] for name in stream.names() if name in whole), sums


def main(rank: int, file: Path) -> None:
    task = json.loads(file.read_text())
    ranks, stages = groups(rank, task["size"], task.get("stages", 1), task.get("timeout", 60), file.parent / "store")
    reads, swaps = Reads(), []
    fails = task.get("fails") or {}
    fails = fails if fails.get("rank") == rank else {}
    try:
        for recipe in task["recipes"]:
            before, started, spent = reads.bytes, time.perf_counter(), time.process_time()
            digest, sums = take_in(task, rank, recipe, ranks, stages, fails)
            swaps.append({"digest": digest, "prints": sums, "read": reads.bytes - before,
                          "seconds": time.perf_counter() - started, "processor": time.process_time() - spent})  # fmt: skip
        found: dict[str, Any] = {"swaps": swaps, "resident": held_bytes(task.get("resident"))}
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}", "swaps": swaps}
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (file.parent / f"rank{rank}.json").write_text(json.dumps(found))
    os._exit(0)  # the group may hold on to ranks that have died


def held_bytes(policy: str | None) -> int:
    from merge_hooks.sources.residents import residents_for

    residents = residents_for(policy)
    return residents.bytes if residents else 0


if __name__ == "__main__":
    serve()
