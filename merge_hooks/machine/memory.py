"""How much memory is free: on this machine, within the limits of the groups of this process, and on a GPU."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from merge_hooks.machine.cgroup import groups_of, number, statistic, unified_groups

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger(__name__)
# Seconds that we wait for another process which takes memory: to fill some 100 GB with zeros.
LONGEST_CLAIM = 120


def free_on_host() -> int:
    """Bytes that can be taken without swapping, also if a job or a container may use less than the machine has."""
    import psutil

    return max(0, min([psutil.virtual_memory().available, *_left_in_groups()]))


def _left_in_groups() -> Iterator[int]:
    """What each limit leaves. Cached file pages count as free, because the system gives them up when asked."""
    for group in unified_groups():
        limit, used = number(group / "memory.max"), number(group / "memory.current")
        if limit is not None and used is not None:
            yield limit - used + (statistic(group / "memory.stat", "inactive_file") or 0)
    for group in groups_of("memory"):
        # The second: a limit of groups above, which a container may not see.
        limits = number(group / "memory.limit_in_bytes"), statistic(group / "memory.stat", "hierarchical_memory_limit")
        given, used = [limit for limit in limits if limit is not None], number(group / "memory.usage_in_bytes")
        if given and used is not None:
            yield min(given) - used + (statistic(group / "memory.stat", "total_inactive_file") or 0)


def free_on_device(device: torch.device | None) -> int:
    """Free bytes of a GPU; 0 if nothing says."""
    import torch

    if device is None:
        return 0
    ask = getattr(torch, device.type, None)
    if not hasattr(ask, "mem_get_info"):
        return 0
    return int(ask.mem_get_info(device)[0])  # type: ignore[union-attr]


@contextmanager
def claiming() -> Iterator[None]:
    """While this lasts, no other process looks at free memory and takes it: workers of one engine start together.

    The system counts memory as taken only when it is written to. So whoever claims memory fills it in here.
    """
    from filelock import FileLock, Timeout

    user = os.getuid() if hasattr(os, "getuid") else 0
    lock = FileLock(Path(tempfile.gettempdir()) / f"iberian-memory-{user}.lock")
    try:
        lock.acquire(timeout=LONGEST_CLAIM)
    except (Timeout, OSError) as error:
        LOG.warning("merged: memory is taken without asking other processes (%s)", error)
    try:
        yield
    finally:
        lock.release()
