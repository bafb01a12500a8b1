"""Files and folders that are there whole or not at all, and names for them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# No configuration, table or plan comes near this; a hostile one must not fill the memory (bytes).
MAX_TEXT = 1 << 30


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


def try_writing(folder: Path) -> None:
    """See that a folder can be made and written, before hours are spent on what belongs there. Nothing is left of it.

    Raises:
        OSError: it cannot.
    """
    folder = folder.absolute()
    with tempfile.TemporaryFile(dir=next(one for one in (folder, *folder.parents) if os.path.lexists(one))):
        pass


def umask() -> int:
    """The bits that this process leaves out of the rights of what it makes."""
    try:  # where Linux says it, nothing needs to be changed to ask
        said = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask:"))
        return int(said.split()[1], 8)
    except (OSError, StopIteration):
        mask = os.umask(0o077)
        os.umask(mask)
        return mask


def read_text(path: Path, error: Callable[[str], Exception], what: str = "file", most: int = MAX_TEXT) -> str:
    """The text of a regular file of at most `most` bytes. A pipe, a device or a socket is no file, and is not waited for.

    Args:
        error: makes the exception that is raised, from its message. FileNotFoundError stays as it is.
        what: the file is, in words.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise error(f"{path}: not a file (a folder, a pipe or a device), so it is no {what}.")
            if facts.st_size > most:
                raise error(f"{path}: {facts.st_size} bytes is too large for a {what}. Is this the right file?")
            return file.read(most + 1).decode("utf-8")
    except UnicodeDecodeError as problem:
        raise error(f"{path}: this is not a text file in UTF-8 ({problem.reason}), so it is no {what}.") from None
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as problem:  # ValueError: a path with a null byte
        raise error(f"{path}: cannot be read ({getattr(problem, 'strerror', None) or problem}).") from None


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` that becomes `path` when all went well, and vanishes otherwise, at Ctrl-C too.

    Raises:
        OSError: `path` holds something by then.
    """
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.absolute().parent))
    try:
        yield folder
        folder.chmod(0o777 & ~umask())  # mkdtemp's are private
        if path.exists():
            path.rmdir()
        folder.rename(path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def slug(name: str) -> str:
    """Any name as a file name or an id. `..` and the like, which lead out of a folder, are no names."""
    made = re.sub(r"[^\w.=+-]+", "_", name)[:120]
    return made if made.strip(".") else "_" * max(1, len(made))
