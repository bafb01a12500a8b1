"""How many threads this process may keep busy.

This is not `torch.get_num_threads()`: vLLM sets that to 1 after loading, and all swaps come after loading.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from merge_hooks.machine.cgroup import groups_of, number, unified_groups, words

# vLLM says with this that it has set OMP_NUM_THREADS itself, for loading (vllm/utils/torch_utils.py).
SET_BY_VLLM = "VLLM_OMP_NUM_THREADS_SET_BY_VLLM"


def worker_threads() -> int:
    """OMP_NUM_THREADS if the user has set it, else this worker's share of the processors on which it may run."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # "4,2": of nested loops
    if asked.isdigit() and int(asked) > 0 and os.environ.get(SET_BY_VLLM) != "1":
        return int(asked)
    return max(1, math.floor(processors()) // workers_on_host())


def processors() -> float:
    """How many processors this process may use, within the quotas of its groups; 2.5 is half of the time of five."""
    try:
        here = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        here = os.cpu_count() or 1
    return min([here, *_quotas()])


def _quotas() -> Iterator[float]:
    for group in unified_groups():
        found = words(group / "cpu.max")  # "max 100000", "250000 100000"
        if len(found) == 2 and all(word.isdigit() for word in found):
            yield int(found[0]) / int(found[1])
    for group in groups_of("cpu"):
        quota, period = number(group / "cpu.cfs_quota_us"), number(group / "cpu.cfs_period_us")  # no quota: -1
        if quota and period:
            yield quota / period


def workers_on_host() -> int:
    """How many processes of this engine share this host's processors and memory; 1 if there is only this one.

    LOCAL_WORLD_SIZE says it (torchrun, vLLM on CPUs). vLLM on GPUs does not set it, but has a process group; at most as
    many of its members are on this host as there are GPUs.
    """
    said = os.environ.get("LOCAL_WORLD_SIZE", "")
    if said.isdigit() and int(said) > 0:
        return int(said)
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 1
    devices = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    world = torch.distributed.get_world_size()
    return min(world, devices) if devices else world
