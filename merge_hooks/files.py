"""Files and folders that are there whole or not at all, and names for them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file, and the folders that it needs, under a temporary name, and rename it: no reader sees half of it.

    Several processes on several machines may write the same file at the same time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` that becomes `path` when all went well, and vanishes otherwise, at Ctrl-C too.

    Raises:
        OSError: `path` holds something by then.
    """
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.absolute().parent))
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp's are private
        if path.exists():
            path.rmdir()
        folder.rename(path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def slug(name: str) -> str:
    """Any name as part of a file name or an id."""
    return re.sub(r"[^\w.=+-]+", "_", name)[:120]
