"""How much memory is free: on this machine, within the limits of the groups of this process, and on a GPU."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from merge_hooks.machine.cgroup import groups_of, number, statistic, unified_groups

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger(__name__)
# Seconds that we wait for another process which takes memory: to fill some 100 GB with zeros.
LONGEST_CLAIM = 120
POLL_SECONDS = 0.05


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
    user = os.getuid() if hasattr(os, "getuid") else 0
    with ExitStack() as stack:
        try:
            stack.enter_context(alone(Path(tempfile.gettempdir()) / f"iberian-memory-{user}.lock", LONGEST_CLAIM))
        except (OSError, ImportError) as error:  # ImportError: no fcntl on Windows
            LOG.warning("merged: memory is taken without asking other processes (%s)", error)
        yield


@contextmanager
def alone(path: Path, seconds: float) -> Iterator[None]:
    """While this lasts, no other process is in here with the same path. The file goes with the last one.

    filelock's own would stay, after SIGTERM too.

    Raises:
        OSError: the file cannot be made; a TimeoutError: another process was in here for so many seconds.
    """
    until = time.monotonic() + seconds
    while (file := _taken(path)) is None:
        if time.monotonic() > until:
            raise TimeoutError(f"{path}: another process has held it for {seconds:.0f} s")
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _taken(path: Path) -> int | None:
    """The file, open, locked, and still the one of this name; None: another process has it, or had it and removed it."""
    import fcntl

    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(path.stat(), os.fstat(file)):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return None
