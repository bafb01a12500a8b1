"""What lies in a model's folder: tensors of a safetensors file, by its header; JSON files, with errors in words."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_hooks.errors import SourceError

if TYPE_CHECKING:
    pass


# A header larger than this is refused by safetensors itself; a hostile file must not make us allocate it.
MAX_HEADER_BYTES = 100_000_000


INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: its file, dtype (safetensors' name, e.g. "BF16") and shape."""

    file: str
    dtype: str
    shape: tuple[int, ...]


def read_json(path: Path, source: str) -> dict[str, Any]:
    """A JSON object from a source's folder. Raises SourceError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{source}: there is no {path.name} in {path.parent}. Is this a checkpoint?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{source}: {path} is not valid JSON ({error}). Download the model again.") from None
    if not isinstance(content, dict):
        raise SourceError(f"{source}: {path} holds no JSON object. Download the model again.")
    return content


def read_header(path: Path, source: str) -> dict[str, TensorEntry]:
    """The table of tensors at the start of a safetensors file, checked against the file's length."""
    damaged = f"{source}: {path} is not a whole safetensors file"
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > min(size, MAX_HEADER_BYTES):
            raise SourceError(f"{damaged} ({size} bytes). Copy or download it again.")
        try:
            header = json.loads(file.read(length))
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise SourceError(f"{damaged} (its header is not JSON). Copy or download it again.") from None
    header.pop("__metadata__", None)
    expected = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size < expected:
        raise SourceError(f"{damaged}: {size} of {expected} bytes. Copy or download it again.")
    return {name: TensorEntry(path.name, entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}


# safetensors' names of the dtypes that weights have, and torch's; and how many bytes one element takes.
FLOATS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8}
BYTES |= {name: BYTES[stored] for stored, name in FLOATS.items()}
