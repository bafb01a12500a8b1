"""What mergekit says of its methods and keys, kept as data: a recipe's text is read in no time.

Importing mergekit takes ten seconds of processor time (torch, transformers, peft). The file `table.json` holds the same
answers for the mergekit that it was made of, known by the hash of the files which the answers come from. With any other
mergekit (another version, a fork, an edited file), with a method of ours that the file does not know, and where mergekit
is loaded already, it is not used. A test compares it with the installed mergekit. To write it anew:

    python -m merge_hooks.planning.registry
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("table.json")
# The files of mergekit that hold methods, their parameters, and the keys of a recipe.
PARTS = ("config.py", "sparsify.py", "tokenizer/config.py", "merge_methods/**/*.py")


def kept() -> dict[str, Any] | None:
    """The table as `registry.describe` wrote it; None where mergekit itself is to be asked."""
    from merge_hooks.methods.register import OURS

    found = None if "mergekit.merge_methods" in sys.modules else _fitting()
    return found if found is not None and found["methods"].keys() >= OURS.keys() else None


@cache
def _fitting() -> dict[str, Any] | None:
    """The file's content, if it was made of the installed mergekit."""
    if not FILE.is_file():
        return None
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found if found["mergekit"] == digest() else None


def digest() -> str | None:
    """SHA-256 over the names and contents of mergekit's files that decide; None where it is not installed."""
    spec = find_spec("mergekit")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    total = hashlib.sha256()
    for path in sorted({path for part in PARTS for path in folder.glob(part)}):
        total.update(f"{path.relative_to(folder).as_posix()}\n".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
