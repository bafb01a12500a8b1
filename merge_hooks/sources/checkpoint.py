"""A source: one checkpoint that a recipe names, found on disk or on the Hub, checked, and read tensor by tensor.

Only headers are read when a source is opened (a safetensors file starts with a JSON table of its tensors:
https://github.com/huggingface/safetensors#format). Tensors come as views of the mapped file, so reading one
costs no memory of its own until it is used.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_hooks.errors import SourceError

if TYPE_CHECKING:
    import torch

# A header larger than this is refused by safetensors itself; a hostile file must not make us allocate it.
MAX_HEADER_BYTES = 100_000_000
INDEX = "model.safetensors.index.json"
# What is fetched of a Hub model beside its weights. Code is only run where `trust_remote_code` says so.
SMALL_FILES = ["*.json", "*.model", "*.txt", "*.jinja", "*.py"]


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: its file, dtype (safetensors' name, e.g. "BF16") and shape."""

    file: str
    dtype: str
    shape: tuple[int, ...]


@dataclass
class Source:
    """A checkpoint folder.

    Args:
        name: what the recipe calls it (a path or a Hub id), for messages and tables.
        folder: where it lies.
        revision: the Hub commit, or None for a plain folder.
    """

    name: str
    folder: Path
    revision: str | None = None
    _handles: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> str:
        """What stands for this source in a resolved recipe: its folder, here; see `_mergekit.reference_key`."""
        return str(self.folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's config.json. Raises SourceError if it is missing or not JSON."""
        return read_json(self.folder / "config.json", self.name)

    @cached_property
    def entries(self) -> dict[str, TensorEntry]:
        """Every tensor of the checkpoint. Raises SourceError for missing shards and truncated files."""
        entries: dict[str, TensorEntry] = {}
        for file in self.weight_files:
            for name, entry in read_header(self.folder / file, self.name).items():
                entries[name] = entry
        self._check_index(entries)
        return entries

    def first_held(self, names: Iterable[str]) -> str | None:
        """The first of these names under which there is a tensor."""
        return next((name for name in names if name in self.entries), None)

    @cached_property
    def weight_files(self) -> list[str]:
        """The safetensors files, in the index's order. Raises SourceError if one is missing."""
        index = self.folder / INDEX
        if index.is_file():
            files = sorted(set(read_json(index, self.name).get("weight_map", {}).values()))
            if outside := [file for file in files if Path(file).name != file]:
                raise SourceError(f"{self.name}: the index names files outside of its folder: {outside[0]}.")
        else:
            files = ["model.safetensors"] if (self.folder / "model.safetensors").is_file() else []
        missing = [file for file in files if not (self.folder / file).is_file()]
        if missing:
            raise SourceError(
                f"{self.name}: {len(missing)} of {len(files)} weight files are missing from {self.folder}: "
                f"{', '.join(missing[:3])}. Copy them there, or download the model again."
            )
        if not files:
            raise SourceError(self._no_weights())
        return files

    def _no_weights(self) -> str:
        if any(self.folder.glob("pytorch_model*.bin")):
            return (
                f"{self.name}: only pytorch_model.bin files in {self.folder}. These are pickles, which can run code, "
                "so they are not read. Convert the model once: "
                "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)."
            )
        if (self.folder / "adapter_config.json").is_file():
            return (
                f"{self.name}: this is a LoRA adapter, not a model. Write it behind its base model, as `base+adapter`."
            )
        return f"{self.name}: no model.safetensors in {self.folder}. Is this the folder of a checkpoint?"

    def _check_index(self, entries: dict[str, TensorEntry]) -> None:
        index = self.folder / INDEX
        if not index.is_file():
            return
        promised = read_json(index, self.name).get("weight_map", {})
        absent = [name for name in promised if name not in entries]
        if absent:
            raise SourceError(
                f"{self.name}: the index promises {len(absent)} tensors that the files do not hold, "
                f"e.g. {absent[0]} in {promised[absent[0]]}. Download the model again."
            )

    def read(self, tensor: str) -> torch.Tensor:
        """One tensor as it is stored, on the CPU: a view of the mapped file."""
        from safetensors import safe_open

        file = self.entries[tensor].file
        if file not in self._handles:
            self._handles[file] = safe_open(self.folder / file, framework="pt")
        return self._handles[file].get_tensor(tensor)

    def close(self) -> None:
        """Let go of the mapped files."""
        self._handles.clear()

    @cached_property
    def size(self) -> int:
        """Bytes of all weight files."""
        return sum((self.folder / file).stat().st_size for file in self.weight_files)

    def file_state(self) -> dict[str, tuple[int, int]]:
        """(size, modification time in ns) of each weight file: what must not change while we read."""
        states = ((file, (self.folder / file).stat()) for file in self.weight_files)
        return {file: (state.st_size, state.st_mtime_ns) for file, state in states}

    def state(self) -> tuple[Hashable, ...]:
        """What changes when its weights do: the key first, then the files as the system has them now."""
        files = [self.folder / file for file in ("config.json", *self.weight_files)]
        return (self.key, self.revision, *map(file_stamp, files))

    @property
    def draws(self) -> bool:
        """Whether its weights depend on a seed: never for a checkpoint."""
        return False

    def fingerprint(self) -> str:
        """A hash of every byte of the weight files and of config.json (16 hex digits), behind the Hub revision if it has one.

        A folder that says it is a snapshot of the Hub's is hashed like any other: its files can be changed as well.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        # Once: for a plain folder this reads gigabytes, and signature, table and results all ask for it.
        return with_revision(self.revision, hash_once(self.state(), self.folder, ["config.json", *self.weight_files]))

    def prints(self) -> dict[str, str]:
        """The fingerprint of each folder that this source is made of, by the folder."""
        return {str(self.folder): self.fingerprint()}

    def stamps(self) -> tuple[tuple[str, str], ...]:
        """(name, fingerprint) of everything this source is made of, for the signature."""
        return ((self.name, self.fingerprint()),)

    def to_payload(self) -> dict[str, Any]:
        """Plain data from which another process opens this source again (`merge_hooks.recipe.recipe.open_payload`)."""
        return {"kind": "checkpoint", "folder": str(self.folder), "name": self.name, "revision": self.revision}


def open_source(path: str, revision: str | None = None, beside: Path | None = None) -> Source:
    """Find a source on disk (as mergekit: from the current folder; then beside the recipe), else on the Hub.

    Args:
        path: a folder, or a Hub id (`owner/name`).
        revision: branch, tag or commit on the Hub.
        beside: the recipe's folder, tried second for relative paths.
    Raises:
        SourceError: neither there nor there, with what to do.
    """
    for candidate in _candidates(path, beside):
        if candidate.is_dir():
            return Source(name=path, folder=candidate.resolve(), revision=_snapshot_revision(candidate))
    if _looks_like_path(path):
        raise SourceError(
            f"{path}: no such folder. Paths in a recipe are relative to the folder you start from "
            f"({Path.cwd()})" + (f" or to the recipe's ({beside})." if beside else ".")
        )
    folder = _download(path, revision)
    return Source(name=path, folder=folder, revision=_snapshot_revision(folder) or revision)


def _candidates(path: str, beside: Path | None) -> Iterator[Path]:
    yield Path(path).expanduser()
    if beside is not None and not Path(path).is_absolute():
        yield beside / path


def _looks_like_path(path: str) -> bool:
    return path.startswith((".", "/", "~")) or path.count("/") != 1 or "\\" in path


def _snapshot_revision(folder: Path) -> str | None:
    """The commit, where `folder` is a snapshot in the Hub's cache: .../models--o--n/snapshots/<commit>."""
    folder = folder.absolute()
    is_snapshot = folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
    return folder.name if is_snapshot else None


def _download(repository: str, revision: str | None) -> Path:
    """The files of a Hub model that are read, and no others: a repository may hold its weights several times over."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=SMALL_FILES))
        # The same commit again, though a branch may have moved on.
        commit = _snapshot_revision(folder) or revision
        return Path(snapshot_download(repository, revision=commit, allow_patterns=_weights_in(folder, repository)))
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(explain_hub_error(error, repository, revision)) from error


def _weights_in(folder: Path, repository: str) -> list[str]:
    """The weight files of a Hub model, or of an adapter, whose small files lie here."""
    if (folder / INDEX).is_file():
        return sorted(set(read_json(folder / INDEX, repository).get("weight_map", {}).values()))
    return ["model.safetensors", "adapter_model.safetensors"]


def explain_hub_error(error: Exception, repository: str, revision: str | None, kind: str = "model") -> str:
    """Say in one line what the Hub's refusal means and how to mend it."""
    import httpx
    from huggingface_hub import errors

    at = f"{repository}@{revision}" if revision else repository
    fetch = f"hf download {repository}" + (f" --revision {revision}" if revision else "")
    match error:
        case errors.GatedRepoError():
            mend = "it is gated: accept its terms on its Hub page, then `hf auth login`"
        case errors.RevisionNotFoundError():
            mend = "the Hub has no such revision"
        case errors.RepositoryNotFoundError():
            mend = (
                f"no such folder here ({Path.cwd()}) and no such {kind} on the Hub (or it is private: `hf auth login`)"
            )
        case errors.HFValidationError():
            mend = "neither a folder nor a valid Hub id"
        case (
            errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled() | ConnectionError() | TimeoutError()
            | httpx.TransportError()
        ):  # fmt: skip
            mend = (
                "no such folder here, it is not whole in the Hub's cache, and the Hub is out of reach: there is no network "
                "here, or it is forbidden (HF_HUB_OFFLINE). "
                f"On a node with network: `{fetch}` (or `iberian prefetch --models RECIPE`), then run with HF_HUB_OFFLINE=1"
            )
        case _:
            mend = f"the Hub answered {type(error).__name__}: {error}"
    return f"{at}: {mend}."


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


def with_revision(revision: str | None, content: str) -> str:
    """A fingerprint: what the bytes are, and before it where they came from, if that is known."""
    return f"{revision}.{content}" if revision else content


_HASHES: dict[Hashable, str] = {}


def hash_once(state: Hashable, folder: Path, files: list[str]) -> str:
    """`content_hash`, once a process for files in this state: every swap asks for it, and it reads gigabytes."""
    if state not in _HASHES:
        _HASHES[state] = content_hash(folder, files)
    return _HASHES[state]


def file_stamp(path: Path) -> tuple[str, int, int, int, int]:
    """A file's path, size, times of change (of content, and of anything) and inode; zeros where it is not there."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return str(path), 0, 0, 0, 0
    return str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def content_hash(folder: Path, files: list[str]) -> str:
    """xxh3-128 over the files' names and bytes, the files in parallel, cut to 16 hex digits."""
    from concurrent.futures import ThreadPoolExecutor

    import xxhash

    present = [file for file in files if (folder / file).is_file()]
    with ThreadPoolExecutor(max_workers=4) as pool:
        hashes = pool.map(lambda file: f"{file}:{file_hash(folder / file)}", present)
        return xxhash.xxh3_128("\n".join(hashes).encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """xxh3-128 of a file's bytes, 32 hex digits."""
    import xxhash

    state = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(1 << 24):
            state.update(block)
    return state.hexdigest()
