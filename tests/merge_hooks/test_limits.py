"""How much memory and how many processors we may use, in trees of /proc and /sys that are made up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from merge_hooks.engines.weights_digest import Digest
from merge_hooks.kernels.blocks import Workers
from merge_hooks.machine import cgroup
from merge_hooks.machine.memory import free_on_host
from merge_hooks.machine.processors import SET_BY_VLLM, processors, worker_threads, workers_on_host

GB = 10**9


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """16 GB free, eight processors, no group; the root of its /sys/fs/cgroup. `groups` makes groups."""
    (tmp_path / "sys").mkdir()
    monkeypatch.setattr(cgroup, "TREE", tmp_path / "sys")
    monkeypatch.setattr(cgroup, "OWN", tmp_path / "own")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=16 * GB, total=32 * GB))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE", SET_BY_VLLM):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "sys"


def groups(machine: Path, own: str, **files: object) -> None:
    """The process's own line, and files by path below the root."""
    (machine.parent / "own").write_text(own)
    for path, text in files.items():
        (machine / path).parent.mkdir(parents=True, exist_ok=True)
        (machine / path).write_text(f"{text}\n")


@pytest.mark.parametrize("level", ["", "slurm/", "slurm/job_7/", "slurm/job_7/step_0/"])
def test_a_limit_at_any_level_of_version_2_counts(machine: Path, level: str) -> None:
    files = {f"{level}memory.max": 4 * GB, f"{level}memory.current": 3 * GB,
             f"{level}memory.stat": f"anon 1\ninactive_file {GB // 2}"}  # fmt: skip
    groups(machine, "0::/slurm/job_7/step_0\n", **files)
    assert free_on_host() == GB + GB // 2


def test_the_least_of_several_limits_wins(machine: Path) -> None:
    groups(
        machine, "0::/a/b\n",
        **{"a/memory.max": 9 * GB, "a/memory.current": 8 * GB, "a/b/memory.max": 5 * GB, "a/b/memory.current": GB},
    )  # fmt: skip
    assert free_on_host() == GB


def test_no_limit_is_no_limit(machine: Path) -> None:
    assert free_on_host() == 16 * GB
    groups(machine, "0::/a\n", **{"a/memory.max": "max", "a/memory.current": 8 * GB})
    assert free_on_host() == 16 * GB


@pytest.mark.parametrize("level", ["", "slurm/", "slurm/job_7/"])
def test_limits_of_version_1(machine: Path, level: str) -> None:
    root = f"memory/{level}"
    groups(
        machine, "9:name=systemd:/x\n4:cpu,memory:/slurm/job_7\n0::/\n",
        **{f"{root}memory.limit_in_bytes": 6 * GB, f"{root}memory.usage_in_bytes": 5 * GB,
           f"{root}memory.stat": f"inactive_file 7\ntotal_inactive_file {GB}"},
    )  # fmt: skip
    assert free_on_host() == 2 * GB


def test_a_limit_above_what_a_container_sees(machine: Path) -> None:
    """Version 1 tells it in memory.stat; the path is the host's and is not there."""
    groups(
        machine, "4:memory:/docker/abc\n",
        **{"memory/memory.limit_in_bytes": 2**63 - 4096, "memory/memory.usage_in_bytes": GB,
           "memory/memory.stat": f"hierarchical_memory_limit {3 * GB}"},
    )  # fmt: skip
    assert free_on_host() == 2 * GB
    groups(machine, "0::/../outside\n", **{"memory.max": 3 * GB, "memory.current": 2 * GB})
    assert free_on_host() == GB


def test_who_asks_what_is_free_asks_for_the_limit_too(machine: Path, llama: dict[str, Path]) -> None:
    from merge_hooks.checks.estimate import refuse_too_large
    from merge_hooks.engines import vllm as vllm_loader
    from merge_hooks.errors import PreflightError
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream
    from merge_hooks.tools.show import plan_text
    from tests.conftest import linear

    groups(machine, "0::/job\n", **{"job/memory.max": 2 * GB, "job/memory.current": 1_900_000_000})
    stream = open_stream(resolve(read_recipe(linear(llama))))
    with pytest.raises(PreflightError, match=r"100.0 MB|0\.1 GB"):
        refuse_too_large(stream, "float32", holds_model=True)
    assert "0.1 GB are free" in plan_text(stream) or "100.0 MB are free" in plan_text(stream)
    assert vllm_loader.cpu_memory_share() == 0.05


def test_threads_are_processors_and_not_torchs(machine: Path) -> None:
    """vLLM leaves torch with one thread after loading."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert Workers().threads == 8
        with Digest() as digest:
            assert digest._pool._max_workers == 8
    finally:
        torch.set_num_threads(before)


def test_workers_of_one_host_share(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers_on_host() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert worker_threads() == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "20")
    assert worker_threads() == 1


@pytest.mark.parametrize(("world", "devices", "here"), [(2, 8, 2), (8, 4, 4), (3, 0, 3)])
def test_a_process_group_says_how_many_share(
    world: int, devices: int, here: int, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: devices)
    assert (workers_on_host(), worker_threads()) == (here, 8 // here)


def test_what_the_user_set_is_respected_and_not_what_vllm_set(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert worker_threads() == 3
    monkeypatch.setenv(SET_BY_VLLM, "1")
    assert worker_threads() == 8
    monkeypatch.delenv(SET_BY_VLLM)
    for wrong in ("", "many", "0", "-1"):
        monkeypatch.setenv("OMP_NUM_THREADS", wrong)
        assert worker_threads() == 8


@pytest.mark.parametrize(("quota", "threads"), [("250000 100000", 2), ("50000 100000", 1), ("max 100000", 8)])
def test_quotas_of_processor_time(quota: str, threads: int, machine: Path) -> None:
    groups(machine, "0::/job/step\n", **{"job/cpu.max": quota})
    assert worker_threads() == threads


def test_quotas_of_version_1(machine: Path) -> None:
    groups(
        machine, "4:cpuacct,cpu:/job\n", **{"cpu/job/cpu.cfs_quota_us": 300000, "cpu/job/cpu.cfs_period_us": 100000,
                                    "cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000},
    )  # fmt: skip
    assert processors() == 3


def test_a_system_that_knows_no_affinity(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    assert worker_threads() == 5
