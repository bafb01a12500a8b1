"""A source: one checkpoint that a recipe names, found on disk or on the Hub, checked, and read tensor by tensor.

Only headers are read when a source is opened (`merge_hooks.sources.headers`). Tensors are views of the mapped file, so
reading one takes no memory of its own until it is used.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_hooks.architectures.built import Built, built_from
from merge_hooks.architectures.conversion import Conversion, Part, to_model
from merge_hooks.errors import SourceError
from merge_hooks.hashing import file_stamp, hash_once
from merge_hooks.sources.adapter_config import CONFIG as ADAPTER_CONFIG
from merge_hooks.sources.headers import INDEX, TensorEntry, read_header, read_json, refuse_odd_files, with_floats
from merge_hooks.sources.hub import download, snapshot_revision
from merge_hooks.sources.near import did_you_mean
from merge_hooks.texts import seen

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger(__name__)
COMMIT = re.compile("[0-9a-f]{40}")


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
    _other_names: dict[str, str] = field(default_factory=dict, repr=False)
    _elsewhere: list[tuple[str, str]] = field(default_factory=list, repr=False)  # second places of tensors

    @property
    def key(self) -> str:
        """What stands for this source in a resolved recipe: here its folder (see `planning.config.reference_key`)."""
        return str(self.folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's config.json. Raises SourceError if it is missing or not JSON."""
        if not (path := self.folder / "config.json").exists() and (self.folder / ADAPTER_CONFIG).is_file():
            raise SourceError(self._is_adapter())
        return with_floats(read_json(path, self.name))

    @cached_property
    def entries(self) -> dict[str, TensorEntry]:
        """Every tensor that can be read, under each of its names: those of the files, and those of transformers' class.

        Raises SourceError for missing shards and truncated files.
        """
        stored = self.stored
        made = {name: replace(stored[next(iter(part.sources))], shape=part.shapes[name])
                for name, part in self._made.items()}  # fmt: skip
        return stored | made

    @cached_property
    def stored(self) -> dict[str, TensorEntry]:
        """The tensors by their names in the files. Raises SourceError for missing shards and truncated files."""
        entries: dict[str, TensorEntry] = {}
        promised = self._promised
        self._elsewhere.clear()
        for file in self.weight_files:
            for name, entry in read_header(self.folder / file, self.name).items():
                if promised.get(name, file) != file:  # a tensor in two files is read where the index says
                    self._elsewhere.append((name, file))
                    continue
                if name in entries:
                    self._elsewhere.append((name, entries[name].file))
                entries[name] = entry
        self._check_index(entries)
        return entries

    def copies_that_differ(self) -> Iterator[str]:
        """Tensors that the files hold twice, with other numbers: what is read, and what is not, in words."""
        import torch

        held = self.stored
        for name, file in self._elsewhere:
            if not torch.equal(self._tensor_in(file, name), self.read_stored(name)):
                yield f"{name} in {held[name].file}, which is read, and in {file}, which is not"
        again = self.conversion.again if self.conversion is not None else {}
        for names in again.items():
            used, other = names if names[0] in self._used else names[::-1]
            if not torch.equal(self.read_stored(used), self.read_stored(other)):
                yield f"{used}, which is read, and {other}, which is the same tensor of the model and is not"

    @cached_property
    def _used(self) -> set[str]:
        """The names of the class under which tensors are read as they lie in the files."""
        return set(self.stored) & set(self.built.shapes) if self.built is not None else set()

    @cached_property
    def built(self) -> Built | None:
        """The model as transformers builds it; None where it has no class for it, or there is no config.json."""
        return built_from(self.config) if (self.folder / "config.json").is_file() else None

    @cached_property
    def conversion(self) -> Conversion | None:
        """How the files' tensors become those of transformers' class; None where there is no such class."""
        if self.built is None:
            return None
        return _conversion(self.built, tuple((name, entry.shape) for name, entry in self.stored.items()))

    @cached_property
    def _made(self) -> dict[str, Part]:
        """The tensors of transformers' class that the files hold under another name or in parts, and how."""
        if self.conversion is None:
            return {}
        return {name: part for name, part in self.conversion.targets().items() if name not in self.stored}

    def call(self, names: Mapping[str, str]) -> None:
        """Make tensors readable under further names: those that a model of another class has for the same weights.

        Args:
            names: a further name -> one of `entries`.
        """
        self._other_names |= names
        self.entries.update({new: self.entries[own] for new, own in names.items()})

    def stored_name(self, name: str) -> str | None:
        """The one tensor of the files that is read under this name; None if it is made of several, or there is none."""
        name = self._other_names.get(name, name)
        if name in self.stored:
            return name
        part = self._made.get(name)
        return next(iter(part.sources)) if part is not None and part.converter is None else None

    def first_held(self, names: Iterable[str]) -> str | None:
        """The first of these names under which there is a tensor."""
        return next((name for name in names if name in self.entries), None)

    @cached_property
    def weight_files(self) -> list[str]:
        """The safetensors files, in the index's order. Raises SourceError if one is missing."""
        if (self.folder / INDEX).is_file():
            files = sorted(set(self._promised.values()))
            if "model.safetensors" not in files and (self.folder / "model.safetensors").is_file():
                LOG.warning(
                    "%s: %s holds shards, which are read, and model.safetensors, which transformers would read. Remove what "
                    "is not meant.", seen(self.name), seen(str(self.folder)),
                )  # fmt: skip
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

    def _is_adapter(self) -> str:
        return (
            f"{self.name}: this is a LoRA adapter, not a model. Write it behind its base model, as `base+{self.name}`."
        )

    def _no_weights(self) -> str:
        if any(self.folder.glob("pytorch_model*.bin")):
            return (
                f"{self.name}: only pytorch_model.bin files in {self.folder}. These are pickles, which can run code, "
                "so they are not read. Convert the model once: "
                "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)."
            )
        if (self.folder / ADAPTER_CONFIG).is_file():
            return self._is_adapter()
        if snapshot_revision(self.folder):
            return (
                f"{self.name}: the Hub's model has no model.safetensors, nor a {INDEX}. If its weights are pytorch_model.bin "
                "files, which can run code, convert it once: "
                f"AutoModelForCausalLM.from_pretrained({self.name!r}).save_pretrained(new_folder), and name that folder."
            )
        return f"{self.name}: no model.safetensors in {self.folder}. Is this the folder of a checkpoint?"

    @cached_property
    def _promised(self) -> dict[str, str]:
        """The index: which tensor lies in which file; empty without one."""
        index = self.folder / INDEX
        found = read_json(index, self.name).get("weight_map", {}) if index.is_file() else {}
        if not isinstance(found, dict) or not all(isinstance(file, str) for file in found.values()):
            raise SourceError(f"{self.name}: {index} names no files. Download the model again.")
        return found

    def _check_index(self, entries: dict[str, TensorEntry]) -> None:
        promised = self._promised
        absent = [name for name in promised if name not in entries]
        if absent:
            raise SourceError(
                f"{self.name}: the index promises {len(absent)} tensors that the files do not hold, "
                f"e.g. {absent[0]} in {promised[absent[0]]}. Download the model again."
            )

    def read(self, tensor: str) -> torch.Tensor:
        """One tensor, on the CPU, by any of its names: a view of the mapped file, or made of those that it is stored in."""
        tensor = self._other_names.get(tensor, tensor)
        if tensor in self.stored or tensor not in self._made:
            return self.read_stored(tensor)
        part = self._made[tensor]
        return part.convert({name: self.read_stored(name) for name in part.sources})[tensor]

    def read_stored(self, tensor: str) -> torch.Tensor:
        """One tensor by its name in the files, on the CPU: a view of the mapped file."""
        return self._tensor_in(self.stored[tensor].file, tensor)

    def _tensor_in(self, file: str, tensor: str) -> torch.Tensor:
        from safetensors import safe_open

        if file not in self._handles:
            self._handles[file] = safe_open(self.folder / file, framework="pt")
        return self._handles[file].get_tensor(tensor)

    def close(self) -> None:
        """Unmap the files."""
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
        """What changes when the weights do: first the key, then the files as the system has them now."""
        files = [self.folder / file for file in ("config.json", *self.weight_files)]
        return (self.key, self.revision, *map(file_stamp, files))

    @property
    def draws(self) -> bool:
        """Whether its weights depend on a seed: never for a checkpoint."""
        return False

    @property
    def is_merge(self) -> bool:
        """Whether reading a tensor merges it (a stage, or an adapter over one): never for a checkpoint."""
        return False

    def low_rank_update(self, tensor: str, base: Source) -> tuple[torch.Tensor, torch.Tensor] | None:
        """This tensor's difference to the base as factors (see `Operand`); None if it is no adapter over that base."""
        return None

    def fingerprint(self) -> str:
        """A hash (16 hex digits) of every byte of the weight files and config.json, after the Hub revision if any.

        A folder that looks like a snapshot of the Hub's is hashed like any other, because its files can be changed as
        well.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        # Once: for a plain folder this reads gigabytes, and signature, table and results all ask for it.
        return with_revision(self.revision, hash_once(self.state(), self.folder, ["config.json", *self.weight_files]))

    def prints(self) -> dict[str, str]:
        """The fingerprint of each folder that this source is made of, by folder."""
        return {str(self.folder): self.fingerprint()}

    def stamps(self) -> tuple[tuple[str, str], ...]:
        """(name, fingerprint) of everything this source is made of, for the signature."""
        return ((self.name, self.fingerprint()),)

    def to_payload(self) -> dict[str, Any]:
        """Plain data from which another process opens this source again (see `merge_hooks.resolve.resolver`)."""
        return {"kind": "checkpoint", "folder": str(self.folder), "name": self.name, "revision": self.revision}


@lru_cache(maxsize=4)
def _conversion(built: Built, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> Conversion:
    """Kept, as the names of 20 000 experts take seconds, and the sources of each point of a sweep are of the same tensors.

    Args:
        built: from `built_from`, on the meta device: it holds no weights.
        shapes: of the tensors in the files, by name.
    """
    return to_model(built, [name for name, _ in shapes], dict(shapes))


def open_source(path: str, revision: str | None = None, beside: Path | None = None) -> Source:
    """Find a source on disk (from the current folder, as mergekit does, then beside the recipe), else on the Hub.

    Args:
        path: a folder, or a Hub id (`owner/name`).
        revision: branch, tag or commit on the Hub.
        beside: the recipe's folder, tried second for relative paths.
    Raises:
        SourceError: it is in none of these places; the message says what to do.
    """
    for candidate in _candidates(path, beside):
        if candidate.is_dir():
            _refuse_revision(candidate, path, revision)
            refuse_odd_files(candidate, path)
            return Source(name=path, folder=candidate.resolve(), revision=snapshot_revision(candidate))
    if _looks_like_path(path):
        raise SourceError(
            f"{path}: no such folder. Paths in a recipe are relative to the folder you start from "
            f"({Path.cwd()})" + (f" or to the recipe's ({beside})." if beside else ".") + did_you_mean(path, beside)
        )
    folder = download(path, revision, beside)
    refuse_odd_files(folder, path)
    return Source(name=path, folder=folder, revision=snapshot_revision(folder) or revision)


def _refuse_revision(folder: Path, path: str, revision: str | None) -> None:
    """A folder here is taken before the Hub's model of that name. Raises SourceError if it is not of that revision.

    `main` is lm_eval's default and says nothing.
    """
    found = snapshot_revision(folder.resolve())
    if revision in (None, "main", found) or (found and not COMMIT.fullmatch(str(revision))):
        return
    raise SourceError(
        f"{path}@{revision}: {folder.absolute()} is a folder here and is taken before the Hub's model of that name, and "
        f"{f'it is of commit {found}' if found else 'no revision of it is known'}. Leave out the revision to take the "
        "folder, or start from another folder to take the Hub's model."
    )


def _candidates(path: str, beside: Path | None) -> Iterator[Path]:
    yield Path(path).expanduser()
    if beside is not None and not Path(path).is_absolute():
        yield beside / path


def _looks_like_path(path: str) -> bool:
    return path.startswith((".", "/", "~")) or path.count("/") != 1 or "\\" in path


def with_revision(revision: str | None, content: str) -> str:
    """A fingerprint: what the bytes are, and before that where they came from, if it is known."""
    return f"{revision}.{content}" if revision else content
