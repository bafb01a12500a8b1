"""How much memory is free: of this machine, within its container's limit, and of a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CGROUP = Path("/sys/fs/cgroup")


def free_on_host() -> int:
    """Bytes that could be taken without swapping, also where a container allows less than the machine has."""
    import psutil

    free = psutil.virtual_memory().available
    limit, used = _number("memory.max"), _number("memory.current")
    if limit is None or used is None:
        return free
    return max(0, min(free, limit - used + _inactive_files()))


def free_on_device(device: torch.device | None) -> int:
    """Free bytes of a GPU; 0 where nothing says."""
    import torch

    if device is None:
        return 0
    ask = getattr(torch, device.type, None)
    if not hasattr(ask, "mem_get_info"):
        return 0
    return int(ask.mem_get_info(device)[0])  # type: ignore[union-attr]


def _number(file: str) -> int | None:
    """A cgroup's number; None where there is no such file or no limit ("max")."""
    try:
        text = (CGROUP / file).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _inactive_files() -> int:
    """Cached file pages that the system gives up when asked."""
    try:
        lines = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
