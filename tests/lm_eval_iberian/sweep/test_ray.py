"""Engines on a real Ray cluster: two nodes of one core each, on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.sweep.job import Answered, Event, Job, Lost
from lm_eval_iberian.sweep.pools import ray as ray_pool
from lm_eval_iberian.sweep.pools.choose import choose_pool
from lm_eval_iberian.sweep.pools.local import fill_slots
from lm_eval_iberian.sweep.pools.ray import RayPool, RaySlot, settings, share
from tests.conftest import ROOT
from tests.faults.killed_sweeps import KILLED, KILLS, killed_worker
from tests.lm_eval_iberian.sweep.fake_worker import FakeWorker, a_job
from tests.lm_eval_iberian.sweep.pool_sweeps import Listening, check_same, run
from tests.lm_eval_iberian.sweep.test_pool import Jobs, _lives, wait_until

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head and a node, each with processes of its own, as on two machines."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # what workers import
        patch.setenv("IBERIAN_DATA", "samples")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Cluster(initialize_head=True, head_node_args=NODE)
        made.add_node(**NODE)
        yield made
        import ray

        ray.shutdown()
        made.shutdown()


def hosts() -> list[psutil.Process]:
    """The actors at work on this machine, each with the worker that it has started."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            found += [one] if "ray::RayActor.do" in " ".join(one.cmdline()[:1]) else []
    return found


def process_of(slot: RaySlot) -> psutil.Process:
    """The process of a slot's actor. Ray says it without its dashboard only here."""
    import ray._private.state

    return psutil.Process(ray._private.state.actors(slot._actor._actor_id.hex())["Pid"])


@pytest.mark.slow
@pytest.mark.nightly  # the next one kills three times, and over an answer too
def test_the_tables_of_a_cluster_with_a_worker_killed(
    cluster: Any, three_merges: dict[str, Any], undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An actor is killed over its first answer, and its worker with it: the next one asks what is left."""
    killed: list[int] = []
    slots: dict[str, RaySlot] = {}
    do = RaySlot.do

    def seen(slot: RaySlot, job: Job) -> Iterator[Event]:
        slots[job.key] = slot
        return do(slot, job)

    monkeypatch.setattr(RaySlot, "do", seen)

    def ear(event: Event) -> None:
        if isinstance(event, Answered) and not killed:
            host = process_of(slots[event.key])
            killed.extend([host.pid, *(child.pid for child in host.children())])
            host.kill()

    def pool(plan: Any, jobs: list[Job]) -> Listening:
        made = choose_pool(plan, jobs, None, cluster.address)
        assert isinstance(made, RayPool)
        return Listening(made, ear)

    failures, said = run(three_merges, tmp_path, pool)
    assert not failures
    assert "its worker died (Ray: " in said and "it is tried again" in said
    assert "are known" in said  # answers of the one that was killed
    check_same(tmp_path, undisturbed)
    assert len(killed) >= 2 and not any(psutil.pid_exists(number) for number in killed)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [("answer",), pytest.param(KILLS, marks=pytest.mark.nightly)], ids="-".join)
def test_the_tables_of_a_cluster_whose_worker_is_killed(
    cluster: Any, three_merges: dict[str, Any], undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    kills: tuple[str, ...],
) -> None:  # fmt: skip
    """The actor lives on, and starts another worker. Kills in a swap and in a proof: tests/faults/test_kills.py."""
    import ray

    class Pool:
        def run(self, next_job: Any, handle: Any) -> None:
            ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
            try:
                fill_slots([RaySlot(ray, 0, 1, killed_worker)], next_job, handle)
            finally:
                ray.shutdown()

    (tmp_path / "killed").mkdir()
    for other in set(KILLS) - set(kills):  # as if it had happened
        (tmp_path / "killed" / other).touch()
    monkeypatch.setenv(KILLED, str(tmp_path / "killed"))
    failures, said = run(three_merges, tmp_path / "run", lambda *_: Pool())
    assert not failures
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == sorted(KILLS)
    assert said.count("its worker died (killed; out of memory?); it is tried again") == len(kills)
    check_same(tmp_path / "run", undisturbed)


DRIVER = """
import sys
import ray
from lm_eval_iberian.sweep.pools.local import fill_slots
from lm_eval_iberian.sweep.pools.ray import RaySlot
from tests.lm_eval_iberian.sweep.fake_worker import FakeWorker, a_job

if __name__ == "__main__":
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
    jobs = [a_job(sys.argv[2], f"child {sys.argv[2]}, sleep 600")]
    fill_slots([RaySlot(ray, 0, 1, FakeWorker)], lambda _: jobs.pop(), lambda _: None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_of_a_cluster_outlives_the_driver(cluster: Any, tmp_path: Path, how: signal.Signals) -> None:
    """Nor the processes that its engine started, though Ray kills the worker alone; and the place is free for others."""
    (tmp_path / "driver.py").write_text(DRIVER)
    said = tmp_path / "said"
    command = [sys.executable, str(tmp_path / "driver.py"), cluster.address, str(said)]
    driver = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: said.is_file() and said.read_text(), 120)
        numbers = [int(number) for number in said.read_text().split()]
        assert len(numbers) == 2 and all(map(_lives, numbers))
        driver.send_signal(how)
        driver.wait(60)
        wait_until(lambda: not any(map(_lives, numbers)), 120)
        wait_until(lambda: not hosts(), 120)
    finally:
        driver.kill()
        driver.wait(60)


@pytest.mark.slow
def test_a_node_that_is_lost(cluster: Any) -> None:
    """The job of a node that is gone is done by the other."""
    import ray

    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    lost = cluster.add_node(**NODE, resources={"other": 1})
    jobs = Jobs(*(a_job(f"job {number}", "sleep 1") for number in range(6)))
    removed: list[str] = []

    def handle(event: Event) -> None:
        jobs.handle(event)
        if isinstance(event, Answered) and not removed and len(hosts()) == 3:
            removed.append(event.key)
            cluster.remove_node(lost, allow_graceful=False)

    slots = [RaySlot(ray, 0, 1, FakeWorker) for _ in range(3)]
    fill_slots(slots, jobs.next_job, handle)
    ray.shutdown()
    assert removed and len(jobs.results()) == 6
    assert any(isinstance(event, Lost) for event in jobs.events)


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "expected"),
    [
        ([{"GPU": 8, "CPU": 64}, {"GPU": 4, "CPU": 32}], None, 2, (6, 16)),
        ([{"GPU": 8, "CPU": 64}, {"CPU": 64}], 4, 1, (4, 16)),
        ([{"GPU": 3, "CPU": 64}, {"GPU": 3, "CPU": 64}], None, 2, (2, 64)),  # one engine does not span nodes
        ([{"GPU": 8, "CPU": 4}], None, 1, (8, 0)),
        ([{"CPU": 8}, {"CPU": 8}], None, 0, (2, 8)),
        ([{"CPU": 8}, {"CPU": 4}], None, 0, (2, 4)),
        ([{"CPU": 8}, {"CPU": 8}], 4, 0, (4, 4)),
        ([{"CPU": 1}, {"CPU": 1}], 1, 0, (1, 1)),
    ],
)
def test_what_a_cluster_takes(
    nodes: list[dict[str, float]], workers: int | None, gpus: int, expected: tuple[int, int]
) -> None:
    assert share(nodes, workers, gpus, most=100) == expected
    assert share(nodes, workers, gpus, most=1)[0] == 1  # one job, one engine


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "message"),
    [
        ([{"GPU": 1, "CPU": 8}, {"GPU": 1, "CPU": 8}], None, 2, "2 nodes, 2 GPUs and 16 CPUs.*2 GPUs on one node"),
        ([{"CPU": 2}], 3, 0, "1 node, 0 GPUs and 2 CPUs.* no room for 3 engines of 1 CPU"),
    ],
)
def test_no_room(nodes: list[dict[str, float]], workers: int | None, gpus: int, message: str) -> None:
    with pytest.raises(SweepError, match=message):
        share(nodes, workers, gpus, most=100)


def test_settings_travel_and_secrets_do_not() -> None:
    sent = {"HF_HUB_OFFLINE": "1", "IBERIAN_DATA": "samples", "TOKENIZERS_PARALLELISM": "false"}
    kept = {"HF_TOKEN": "x", "VLLM_API_KEY": "x", "VLLM_HOST_IP": "x", "CUDA_VISIBLE_DEVICES": "3", "HOME": "/"}
    assert settings(sent | kept) == sent


def test_ray_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SweepError, match=r"pip install 'lm_eval_iberian\[ray\]'"):
        RayPool("auto", None, 0, 1)


def test_the_client_protocol_is_refused() -> None:
    with pytest.raises(SweepError, match="cannot stream"):
        RayPool("ray://head:10001", None, 0, 1)


def test_no_cluster_at_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SweepError, match=f"--ray {address}: no Ray cluster"):
            RayPool(address, None, 0, 1).run(lambda _: None, lambda _: None)


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that never comes free is an error, and what was asked for is given back."""
    import ray.exceptions

    monkeypatch.setattr(ray_pool, "PATIENCE_SECONDS", 0.0)

    class Group:
        def wait(self, timeout_seconds: float) -> bool:
            return False

    class Ray:
        exceptions = ray.exceptions

        class util:  # noqa: N801
            removed: list[Any] = []  # noqa: RUF012

            @staticmethod
            def placement_group(bundles: list[dict[str, int]], strategy: str) -> Group:
                assert (bundles, strategy) == ([{"CPU": 2, "GPU": 4}], "STRICT_PACK")
                return Group()

            @classmethod
            def remove_placement_group(cls, group: Group) -> None:
                cls.removed.append(group)

    with pytest.raises(SweepError, match="no node had 4 GPUs and 2 CPUs free"):
        RaySlot(Ray, 4, 2).open()
    assert len(Ray.util.removed) == 1


def test_os_environment_is_what_travels() -> None:
    assert settings(os.environ)["HF_HUB_OFFLINE"] == "1"
