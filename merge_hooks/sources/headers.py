"""What lies in a model's folder: tensors of a safetensors file, by its header; JSON files, with errors in words."""

from __future__ import annotations

import json
import math
import stat
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from merge_hooks.errors import SourceError
from merge_hooks.files import read_text

# A header larger than this is refused by safetensors itself; a hostile file must not make us allocate it.
MAX_HEADER_BYTES = 100_000_000
# The largest tokenizer.json has some 40 MB.
MAX_SMALL_BYTES = 1 << 29
# What is read of a model's folder, by us and by transformers.
_READ = (".json", ".jinja", ".model", ".txt", ".tiktoken", ".safetensors", ".py")


INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: its file, dtype (safetensors' name, e.g. "BF16") and shape."""

    file: str
    dtype: str
    shape: tuple[int, ...]


def refuse_odd_files(folder: Path, source: str) -> None:
    """See that a model's files are files. Raises SourceError for pipes, devices, folders and links to nowhere.

    transformers, tokenizers and mergekit open them by their names: a pipe would be waited for, /dev/zero read for ever.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix not in _READ:
            continue
        try:
            facts = path.stat()
        except OSError as error:
            raise SourceError(
                f"{source}: {path} cannot be read ({error.strerror}). Download the model again."
            ) from None
        if not stat.S_ISREG(facts.st_mode):
            raise SourceError(f"{source}: {path} is not a file but a folder, a pipe or a device. Is this a checkpoint?")
        if path.suffix != ".safetensors" and facts.st_size > MAX_SMALL_BYTES:
            raise SourceError(f"{source}: {path} has {facts.st_size} bytes, too many for what it is. Is it damaged?")


def read_json(path: Path, source: str) -> dict[str, Any]:
    """A JSON object from a source's folder. Raises SourceError where there is none."""
    try:
        content = json.loads(read_text(path, SourceError, path.name, MAX_SMALL_BYTES))
    except FileNotFoundError:
        raise SourceError(f"{source}: there is no {path.name} in {path.parent}. Is this a checkpoint?") from None
    except SourceError as error:
        raise SourceError(f"{source}: {error} Download the model again.") from None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{source}: {path} is not valid JSON ({error}). Download the model again.") from None
    if not isinstance(content, dict):
        raise SourceError(f"{source}: {path} holds no JSON object. Download the model again.")
    return content


def with_floats(value: Any) -> Any:
    """Infinity and NaN as transformers 5 writes them into JSON (`{"__float__": "Infinity"}`), as numbers again."""
    if isinstance(value, dict):
        if set(value) == {"__float__"} and value["__float__"] in ("Infinity", "-Infinity", "NaN"):
            return float(value["__float__"])
        return {key: with_floats(item) for key, item in value.items()}
    return [with_floats(item) for item in value] if isinstance(value, list) else value


def read_header(path: Path, source: str) -> dict[str, TensorEntry]:
    """The table of tensors at the start of a safetensors file, checked against the file's length.

    What safetensors itself would refuse later, or only when a tensor is read, is refused here: entries that are none,
    offsets that overlap or do not hold the shape.
    """
    damaged = f"{source}: {path} is not a whole safetensors file"
    try:
        size, length, header = _header(path)
    except _Damaged as error:
        raise SourceError(f"{damaged} ({error}). Copy or download it again.") from None
    except OSError as error:
        raise SourceError(f"{source}: {path} cannot be read ({error.strerror}). Copy or download it again.") from None
    header.pop("__metadata__", None)
    try:
        entries = {name: _entry(name, said, path.name) for name, said in header.items()}
        ends = _ends(header)
    except _Damaged as error:
        raise SourceError(f"{damaged}: {error}. Copy or download it again.") from None
    expected = 8 + length + ends
    if size < expected:
        raise SourceError(f"{damaged}: {size} of {expected} bytes. Copy or download it again.")
    _refuse_as_safetensors_does(path, damaged)
    return entries


def _refuse_as_safetensors_does(path: Path, damaged: str) -> None:
    """It is stricter than we are (gaps, bytes behind the end, metadata that are no texts), and reads the tensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise SourceError(f"{damaged} ({error}). Copy or download it again.") from None


class _Damaged(Exception):  # noqa: N818, says how
    """What is wrong with a header, in a few words."""


def _header(path: Path) -> tuple[int, int, dict[str, Any]]:
    """(bytes of the file, bytes of its header, the header)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > min(size, MAX_HEADER_BYTES):
            raise _Damaged(f"{size} bytes")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            raise _Damaged("its header is not JSON") from None
    if not isinstance(header, dict):
        raise _Damaged("its header is no table")
    return size, length, header


def _entry(name: str, said: Any, file: str) -> TensorEntry:
    if not isinstance(said, dict):
        raise _Damaged(f"{name:.200} has no entry")
    dtype, shape = said.get("dtype"), said.get("shape")
    if not isinstance(dtype, str) or not _are_sizes(shape) or not _are_sizes(said.get("data_offsets"), 2):
        raise _Damaged(f"the entry of {name:.200} is not as it should be")
    begin, end = said["data_offsets"]
    assert isinstance(shape, list)
    held, wanted = end - begin, math.prod(shape) * WIDTHS.get(dtype, 0)
    if held < 0 or (dtype in WIDTHS and held != wanted):
        raise _Damaged(f"{name:.200} is {dtype} of shape {shape!s:.80}, and {held} bytes are kept for it")
    return TensorEntry(file, dtype, tuple(shape))


def _are_sizes(value: Any, count: int | None = None) -> bool:
    are = isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)
    return are and (count is None or len(value) == count)


def _ends(header: dict[str, Any]) -> int:
    """Where the last tensor ends. Raises _Damaged where two tensors share bytes."""
    spans = sorted((*said["data_offsets"], name) for name, said in header.items())
    for (_, end, name), (begin, _, other) in pairwise(spans):
        if begin < end:
            raise _Damaged(f"{name:.200} and {other:.200} share bytes")
    return max((end for _, end, _ in spans), default=0)


# safetensors' names of the dtypes that weights have, and torch's; and how many bytes one element takes.
FLOATS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8}
BYTES |= {name: BYTES[stored] for stored, name in FLOATS.items()}
# Of safetensors' dtypes whose elements take whole bytes, how many.
WIDTHS = BYTES | {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "I32": 4,
                  "U32": 4, "U64": 8, "C64": 8}  # fmt: skip
