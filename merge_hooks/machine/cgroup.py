"""The control groups of this process: where Linux, Slurm and containers write down what it may use.

The limits of all groups above count too, so all are read, from the path in /proc/self/cgroup up to the root. Version 2
has one tree (https://docs.kernel.org/admin-guide/cgroup-v2.html), version 1 one tree for each controller
(https://docs.kernel.org/admin-guide/cgroup-v1/memory.html). In a container the path may be the host's, of which only
the root is visible. A folder that does not exist sets no limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

TREE = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def unified_groups() -> Iterator[Path]:
    """The folders of version 2, the process's own first, the root last."""
    for controllers, path in _own_paths():
        if not controllers:
            yield from _upwards(TREE, path)
            return
    yield TREE


def groups_of(controller: str) -> Iterator[Path]:
    """The folders of a controller ("memory", "cpu") of version 1, the process's own first, the root last."""
    path = next((path for controllers, path in _own_paths() if controller in controllers), PurePosixPath("/"))
    yield from _upwards(TREE / controller, path)


def _own_paths() -> list[tuple[list[str], PurePosixPath]]:
    """(controllers, path) of each line "4:memory:/slurm/job_7"; version 2 has the line "0::/path"."""
    found = []
    for line in _text(OWN).splitlines():
        _, controllers, path = line.split(":", 2)
        found.append(([name for name in controllers.split(",") if name], PurePosixPath(path)))
    return found


def _upwards(root: Path, path: PurePosixPath) -> Iterator[Path]:
    # "/../job": the group is not below the root that this container sees.
    own = path.relative_to("/") if path.is_absolute() and ".." not in path.parts else PurePosixPath()
    yield from (root / step for step in (own, *own.parents))


def words(file: Path) -> list[str]:
    """The words of a file; none if there is no such file."""
    return _text(file).split()


def number(file: Path) -> int | None:
    """A file's number; None if there is no such file, or no number in it ("max")."""
    found = words(file)
    return int(found[0]) if found and found[0].isdigit() else None


def statistic(file: Path, name: str) -> int | None:
    """The number behind a name in a file of lines "name number"."""
    lines = (line.split() for line in _text(file).splitlines())
    return next((int(line[1]) for line in lines if len(line) == 2 and line[0] == name), None)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
