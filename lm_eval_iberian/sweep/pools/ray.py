"""Workers on a Ray cluster: each engine in an actor, each actor in a placement group of its own.

    iberian sweep sweep.yml --ray auto

The driver stays where it was started and keeps the store. What travels: a job (the recipe, not weights) to the
actor, events back, as a stream. In an actor, the worker is a process of its own (`worker_process`): it has the actor's GPUs,
and knows nothing of Ray, so vLLM runs its tensor parallelism with processes on that node, not with Ray.

An actor or a node that dies takes its job along; the driver gives it out again, with the answers that it has.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.sweep.job import Event, Job, Lost, NextJob
from lm_eval_iberian.sweep.pools import process
from lm_eval_iberian.sweep.pools.local import Pool, fill_slots
from lm_eval_iberian.sweep.pools.worker_process import WorkerProcess

if TYPE_CHECKING:
    from lm_eval_iberian.sweep.plan import Plan

# How long a worker waits for room on the cluster (seconds): others may be at work there.
PATIENCE_SECONDS = 3600.0
# How many nodes a sweep waits for before it starts, set in the scripts of `iberian slurm`; and how long (seconds).
# With fewer it goes on then.
NODES, NODES_SECONDS, WAIT_SECONDS = "IBERIAN_RAY_NODES", 300.0, 2.0
# So many events at most go over the network in one piece.
BATCH = 256
# Settings of this process that its workers elsewhere take too, but for credentials and what is a machine's own.
PREFIXES = ("IBERIAN_", "HF_", "VLLM_", "TRANSFORMERS_", "TOKENIZERS_")
NOT_SENT = {"TOKEN", "KEY", "SECRET", "PASSWORD", "HOST", "PORT"}


def cluster(plan: Plan, jobs: Sequence[Job], workers: int | None, gpus_each: int, address: str | None) -> Pool:
    """The pool `ray`; see `choose`."""
    return RayPool(address or "auto", workers, gpus_each, len(jobs))


class RayPool:
    """Engines on a Ray cluster.

    Args:
        address: as `ray.init` takes it: "auto" (the cluster of this machine), "local" (start one here), HOST:PORT.
        workers: how many engines; None: as many as the cluster takes.
        gpus_each: of one engine; 0: it runs on the CPU.
        most: no more engines than this, whatever the cluster takes.
    Raises:
        SweepError: no Ray here.
    """

    def __init__(self, address: str, workers: int | None, gpus_each: int, most: int) -> None:
        self.address, self.workers, self.gpus_each, self.most = address, workers, gpus_each, most
        self.ray = _import_ray()
        if address.startswith("ray://"):
            raise SweepError(
                f"--ray {address}: Ray's client cannot stream answers back. Start the sweep on a machine of the "
                "cluster with `--ray auto`."
            )

    def run(self, next_job: NextJob, handle: Callable[[Event], None]) -> None:
        """Do jobs. A worker that dies, or whose node does, is replaced.

        Raises:
            SweepError: no cluster at this address, or one that has no room for a single engine.
        """
        is_ours = not self.ray.is_initialized()
        if is_ours:
            self._connect()
        try:
            workers, cpus_each = share(_nodes(self.ray), self.workers, self.gpus_each, self.most)
            slots = [RaySlot(self.ray, self.gpus_each, cpus_each) for _ in range(workers)]
            fill_slots(slots, next_job, handle)
        finally:
            if is_ours:
                self.ray.shutdown()

    def _connect(self) -> None:
        """Join the cluster; where Slurm starts it just now (IBERIAN_RAY_NODES), when all its nodes are there."""
        wanted = int(os.environ.get(NODES, "0"))
        until = time.monotonic() + (NODES_SECONDS if wanted else 0)
        while not self.ray.is_initialized():
            try:
                self._init()
            except (ConnectionError, OSError, ValueError, RuntimeError) as error:
                if time.monotonic() > until:
                    raise SweepError(f"--ray {self.address}: no Ray cluster ({error}).") from error
                time.sleep(WAIT_SECONDS)
        while len(_nodes(self.ray)) < wanted and time.monotonic() < until:
            time.sleep(WAIT_SECONDS)

    def _init(self) -> None:
        host, colon, port = self.address.rpartition(":")
        if colon and port.isdigit():  # Ray itself would try for minutes, and say so on many lines
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        # A cluster started here: without the dashboard, and with little memory for objects, as they are answers.
        local = {"include_dashboard": False, "object_store_memory": 200 * 2**20} if self.address == "local" else {}
        self.ray.init(address=self.address, log_to_driver=False, logging_level="error", **local)


class RaySlot:
    """The place of one worker on a cluster.

    Args:
        ray: the package.
        gpus, cpus: what its placement group reserves, all on one node.
    """

    def __init__(self, ray: Any, gpus: int, cpus: int, make_worker: process.MakeWorker = process.make_worker) -> None:
        self.ray, self.gpus, self.cpus = ray, gpus, cpus
        self._host = (settings(os.environ), str(Path.cwd()), make_worker)
        self.engine: str | None = None
        self._group: Any = None
        self._actor: Any = None
        self._is_over = False

    def open(self) -> None:
        """Wait for room, then make the actor. Raises SweepError where there is no room in PATIENCE_SECONDS."""
        if self._actor is None:
            try:
                self._reserve()
            except self.ray.exceptions.RayError as error:
                raise SweepError(f"--ray: the cluster does not answer ({_in_short(error)}).") from error

    def _reserve(self) -> None:
        bundle = {name: count for name, count in (("CPU", self.cpus), ("GPU", self.gpus)) if count}
        self._group = group = self.ray.util.placement_group([bundle], strategy="STRICT_PACK")
        self._wait(group, time.monotonic() + PATIENCE_SECONDS)
        strategy = self.ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group)
        options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_restarts": 0, "scheduling_strategy": strategy}
        self._actor = self.ray.remote(RayActor).options(**options).remote(*self._host)

    def _wait(self, group: Any, until: float) -> None:
        while not group.wait(timeout_seconds=1):
            if self._is_over or time.monotonic() > until:
                self._leave()
                raise SweepError(
                    f"--ray: no node had {self.gpus} GPUs and {self.cpus} CPUs free for an engine in "
                    f"{PATIENCE_SECONDS:.0f} s. `ray status` says what the cluster is doing."
                )

    def do(self, job: Job) -> Iterator[Event]:
        """Do a job; the last event is Finished, Failed or Lost."""
        self.engine = job.engine
        try:
            for reference in self._actor.do.options(num_returns="streaming").remote(job):
                yield from self.ray.get(reference)
        except self.ray.exceptions.RayTaskError:
            raise  # a mistake of ours, not a death
        except self.ray.exceptions.RayError as error:
            self._leave()
            yield Lost(job.key, f"Ray: {_in_short(error)}")

    def close(self) -> None:
        """Let the worker go, and its place on the cluster."""
        with suppress(self.ray.exceptions.RayError):
            if self._actor is not None:
                self.ray.get(self._actor.close.remote())
        self._leave()

    def kill(self) -> None:
        """End the worker at once."""
        self._is_over = True
        self._leave()

    def _leave(self) -> None:
        """The actor dies, and its worker with it; the place is free for others."""
        actor, group = self._actor, self._group
        self._actor = self._group = self.engine = None
        with suppress(Exception):  # the cluster itself may be gone
            if actor is not None:
                self.ray.kill(actor)
            if group is not None:
                self.ray.util.remove_placement_group(group)


class RayActor:
    """What runs on the cluster: a worker's process, and its events as they come.

    Args:
        environment: settings of the driver's process.
        folder: the driver's current folder.
    """

    def __init__(self, environment: Mapping[str, str], folder: str, make_worker: process.MakeWorker) -> None:
        self.worker = WorkerProcess(environment, Path(folder), make_worker)

    def do(self, job: Job) -> Iterator[list[Event]]:
        """Events in small lists: what has come since the last one."""
        yield from self.worker.do_in_batches(job, BATCH)

    def close(self) -> None:
        """Let the worker go."""
        self.worker.close()


def _in_short(error: Exception) -> str:
    """The first line of what Ray says, and the last, where a traceback ends."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ... ".join(dict.fromkeys([lines[0], lines[-1]]))


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What a worker elsewhere takes of this process's environment: settings, no credentials."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(PREFIXES) and not NOT_SENT & set(name.split("_"))
    }


def share(
    nodes: list[Mapping[str, float]], workers: int | None, gpus_each: int, most: int
) -> tuple[int, int]:  # fmt: skip
    """How many engines a cluster takes, and how many CPUs each may have.

    Engines that run on the CPU: one a node, or `workers` of the same size. With GPUs: as many as there are GPUs for.

    Args:
        nodes: what each node has: "CPU", "GPU".
    Returns:
        (engines, CPUs each).
    Raises:
        SweepError: not so many fit.
    """
    room = [int(node.get("GPU", 0)) // gpus_each if gpus_each else int(node.get("CPU", 0)) for node in nodes]
    if workers is None:
        fitting = sum(room) if gpus_each else sum(count > 0 for count in room)
        workers = min(fitting, most)
    else:
        workers = min(workers, most)
    if not 1 <= workers <= sum(room):
        has = f"{sum(int(node.get('GPU', 0)) for node in nodes)} GPUs and {sum(int(node.get('CPU', 0)) for node in nodes)} CPUs"
        raise SweepError(
            f"--ray: the cluster ({len(nodes)} node{'' if len(nodes) == 1 else 's'}, {has}) has no room for "
            f"{max(1, workers)} engine{'s' if workers > 1 else ''} of {f'{gpus_each} GPUs on one node' if gpus_each else '1 CPU'}."
        )
    for cpus in range(max(int(node.get("CPU", 0)) for node in nodes), 0, -1):
        if sum(min(count, int(node.get("CPU", 0)) // cpus) for count, node in zip(room, nodes, strict=True)) >= workers:
            return workers, cpus
    return workers, 0  # fewer CPUs than GPUs: Ray does not count them, then


def _nodes(ray: Any) -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _import_ray() -> Any:
    try:
        import ray
        import ray.exceptions
        import ray.util
        import ray.util.scheduling_strategies
    except ImportError:
        raise SweepError("--ray needs Ray: pip install 'lm_eval_iberian[ray]'") from None
    return ray
