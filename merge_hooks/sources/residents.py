"""Sources of a sweep, kept where they are cheapest to read again, and what a sweep computes once.

    residents = residents_of("auto")            # one for a process: the engine's worker
    for recipe in sweep:
        for name, tensor in open_stream(recipe, residents=residents): ...

Where a source lies is decided when its first merge begins: on the GPU, if that merges as the CPU does, and if the
source fits beside the engine; else in pinned host memory (pageable where there is no such GPU), else it stays in
its mapped files; and all of them together never take more than a part of what is free then. So they come after the
engine: its first load reads from the files (`residents=None`), and what its weights and its key-value cache leave
is theirs from the first swap on. `Residents.table()` says what went where. A tensor is read from its file once,
checked against the file's state before and after, and from then on comes from memory.

Everything is known by the state of the files that it was made from (path, size, times, inode; for a stage its recipe),
looked at anew for each merge: a source that changed on disk is read again, and nothing made from it is used any more.

Merges have the same bytes as without residents (tests/merge_hooks/test_resident.py).
"""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from merge_hooks.errors import EngineError, SourceError
from merge_hooks.machine.memory import claiming, free_on_device, free_on_host
from merge_hooks.machine.processors import workers_on_host
from merge_hooks.sources.checkpoint import Source

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger(__name__)
POLICIES = ("auto", "gpu", "pinned", "memory", "mapped", "off")
# The share of free memory that all sources together may take; the rest is the engine's and the system's. Workers of
# one engine on one host share the host's part.
SHARE_OF_HOST, SHARE_OF_DEVICE = 0.6, 0.8
# The most that is kept of counts, thresholds and the like; the least recently used go first.
KEPT_BYTES = 1 << 30
ALIGNMENT = 256
PAGE = 4096


@dataclass
class Resident:
    """One source: where it lies, and its tensors that have been read so far.

    Args:
        name: the source, as a recipe calls it.
        place: "gpu", "pinned", "memory" or "mapped".
        size: bytes of all its tensors.
        block: the memory that its tensors are copied into; None for mapped files.
        keeps: whether tensors are kept although there is no block: views of mapped files, which the system can take
            back.
        wanted: the tensors for which there is room; None: all.
    """

    name: str
    place: str
    size: int
    block: torch.Tensor | None
    keeps: bool = True
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    used: int = 0
    wanted: frozenset[str] | None = None

    def put(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Keep a tensor, and return it from where it now lies."""
        import torch

        if self.block is None:
            if self.keeps:
                self.tensors[name] = tensor
            return tensor
        start, count = self.used, tensor.nbytes
        if start + count > len(self.block):
            return tensor  # more than its headers promised: read it each time
        self.used = -(-(start + count) // ALIGNMENT) * ALIGNMENT
        kept = self.block[start : start + count].view(tensor.dtype).view(tensor.shape)
        with torch.no_grad():
            kept.copy_(tensor)
        self.tensors[name] = kept
        return kept


class Residents:
    """The sources and constants of one process.

    Args:
        policy: "auto" or one place for all sources: "gpu", "pinned", "memory" or "mapped".
        budget: bytes for sources; None: a share of what is free when each comes.
    Raises:
        EngineError: there is no such policy, or no GPU for it.
    """

    def __init__(self, policy: str = "auto", budget: int | None = None) -> None:
        refuse_unknown_place(policy)
        self.policy, self.budget, self.device = policy, budget, _device()
        if policy in ("gpu", "pinned") and self.device is None:
            raise EngineError(f"resident={policy}: there is no GPU here. Use resident=auto.")
        self._sources: OrderedDict[Hashable, Resident] = OrderedDict()
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.RLock()
        self._gpu_agrees: Callable[[], bool] = lambda: True
        self.hits = self.reads = 0

    def begin(
        self,
        sources: Collection[Source],
        gpu_agrees: Callable[[], bool] = lambda: True,
        wanted: Mapping[str, Collection[str]] | None = None,
    ) -> ResidentReader:
        """Look at the sources of a merge, and make room for those that are not here yet.

        Args:
            gpu_agrees: whether "auto" may take a GPU: asked only where there is one.
            wanted: by source, the tensors that will be read; None: all. Ranks of one engine share them.
        """
        self._gpu_agrees = gpu_agrees
        states: dict[str, Hashable] = {source.key: source.state() for source in sources}
        # Not within the lock: the headers of a stage are found by planning its merge, which has a lock of its own.
        names = {key: frozenset(own) for key, own in wanted.items()} if wanted is not None else {}
        sizes = {source.key: _size(source, names.get(source.key)) for source in sources}
        with self._lock:
            self._forget_changed(states)
            self._forget_unused(set(states.values()))
            for source in sources:
                state, own = states[source.key], names.get(source.key)
                if state in self._sources and _is_more(own, before := self._sources[state].wanted):
                    own = own | before if own is not None and before is not None else None
                    sizes[source.key] = _size(source, own)
                    self.forget(state)
                if state not in self._sources:
                    self._sources[state] = self._room_for(source, sizes[source.key], set(states.values()))
                    self._sources[state].wanted = own
                    LOG.info("merged: %s stays in %s", source.name, _WORDS[self._sources[state].place])
                self._sources.move_to_end(state)
        return ResidentReader(self, states)

    def table(self) -> list[dict[str, str]]:
        """Which source lies where, one row for each."""
        return [
            {"source": item.name, "place": _WORDS[item.place], "size": f"{item.size / 1e9:.2f} GB"}
            for item in self._sources.values()
        ]

    @property
    def bytes(self) -> int:
        """Memory taken by sources, in bytes. Mapped files do not count: they are the system's."""
        return self._taken("gpu") + self._taken("memory")

    def _taken(self, place: str) -> int:
        """Bytes of the GPU's memory ("gpu"), or of the host's."""
        return sum(
            _whole(len(item.block), item.place)
            for item in self._sources.values()
            if item.block is not None and (item.place == "gpu") == (place == "gpu")
        )

    def forget(self, state: Hashable) -> None:
        """Free a source, and everything that was made from it."""
        with self._lock:
            self._sources.pop(state, None)
            for key in [key for key in self._kept if _mentions(key, state)]:
                self._kept_bytes -= self._kept.pop(key)[1]

    def clear(self) -> None:
        """Free everything."""
        with self._lock:
            self._sources.clear()
            self._kept.clear()
            self._kept_bytes = 0

    def _forget_changed(self, states: dict[str, Hashable]) -> None:
        """Forget sources that changed on disk: those with the same key as before and another state."""
        for held in [held for held in self._sources if held[0] in states and states[held[0]] != held]:  # type: ignore[index]
            LOG.warning("merged: %s changed on disk and is read again", self._sources[held].name)
            self.forget(held)

    def _forget_unused(self, needed: set[Hashable]) -> None:
        """Forget what would pile up: mapped files, and stages, of which each point of a sweep may have a new one."""
        unused = [state for state in self._sources if state not in needed]
        for state in unused:
            if self._sources[state].block is None or _is_of_stage(state):
                self.forget(state)

    def _room_for(self, source: Source, size: int, needed: set[Hashable]) -> Resident:
        with claiming():
            for place in self._places():
                if place != "mapped" and (block := self._claimed(size, place, needed)) is not None:
                    return Resident(source.name, place, size, block)
        return Resident(source.name, "mapped", size, None, keeps=type(source) is Source)

    def _claimed(self, size: int, place: str, needed: set[Hashable]) -> torch.Tensor | None:
        """Memory for a source; older sources are forgotten if that makes room. None: there is not enough."""
        while not self._fits(size, place):
            oldest = next((state for state, item in self._sources.items() if state not in needed
                           and item.block is not None and (item.place == "gpu") == (place == "gpu")), None)  # fmt: skip
            if oldest is None:
                return None
            self.forget(oldest)
            _give_back(self.device)
        try:
            return _block(size, place, self.device)
        except (RuntimeError, MemoryError) as error:  # torch's OutOfMemoryError is a RuntimeError
            LOG.warning("merged: no %.2f GB to be had in %s (%s)", size / 1e9, _WORDS[place], error)
            return None

    def _places(self) -> list[str]:
        if self.policy != "auto":
            return [self.policy]
        return ["gpu", "pinned"] if self.device is not None and self._gpu_agrees() else ["memory"]

    def _fits(self, size: int, place: str) -> bool:
        if self.budget is not None and self.bytes + size > self.budget:
            return False
        taken = self._taken(place)
        if place == "gpu":
            share, free = SHARE_OF_DEVICE, free_on_device(self.device)
        else:
            share, free = SHARE_OF_HOST / workers_on_host(), free_on_host()
        return taken + _whole(size, place) <= share * (taken + free)

    def read(self, source: Source, tensor: str, state: Hashable) -> torch.Tensor:
        """One tensor of a source: from memory, else from its file, which must not have changed."""
        with self._lock:
            held = self._sources.get(state)
            kept = held.tensors.get(tensor) if held else None
            if kept is None:
                self.reads += 1
            else:
                self.hits += 1
        if kept is None:
            kept = self._read_now(source, tensor, state, held)
        if held is not None and held.place == "pinned":
            return kept.to(self.device, non_blocking=True)
        return kept

    def _read_now(self, source: Source, tensor: str, state: Hashable, held: Resident | None) -> torch.Tensor:
        # Not within the lock: reading from a stage merges, and other threads wait neither for that nor for a disk.
        read = source.read(tensor)
        if held is None:
            return read
        with self._lock:
            kept = held.tensors.get(tensor)  # another thread may have been faster
            if kept is None:
                kept = held.put(tensor, read)
        if source.state() != state:
            self.forget(state)
            raise SourceError(f"{source.name}: files in {source.folder} changed during the merge. Run it again.")
        return kept

    def kept(self, key: Hashable) -> Any:
        """The value that `keep` stored under this key, else None."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def keep(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value under this key. `make` makes it the first time; later calls find it, as long as there is room."""
        if (value := self.kept(key)) is not None:
            return value
        value = make()
        size = _bytes_of(value)
        with self._lock:
            self._kept_bytes += size - self._kept.pop(key, (None, 0))[1]
            self._kept[key] = (value, size)
            while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
                self._kept_bytes -= self._kept.popitem(last=False)[1][1]
        return value


@dataclass(frozen=True)
class ResidentReader:
    """One merge's reading from the residents, with the states that the sources had when it began."""

    residents: Residents
    states: dict[str, Hashable]

    def read(self, source: Source, tensor: str) -> torch.Tensor:
        return self.residents.read(source, tensor, self.states[source.key])

    def origin(self, source: Source, tensor: str) -> Hashable:
        """What a tensor's bytes depend on."""
        return (self.states[source.key], tensor)

    def forget(self) -> None:
        """Forget these sources: something is wrong with their files."""
        for state in self.states.values():
            self.residents.forget(state)


_WORDS = {"gpu": "the GPU's memory", "pinned": "pinned memory", "memory": "memory", "mapped": "its mapped files"}


@cache
def residents_of(policy: str) -> Residents:
    """This process's only `Residents` for a policy."""
    return Residents(policy)


def refuse_unknown_place(policy: str) -> None:
    """Raises EngineError if there is no such policy."""
    if policy not in POLICIES:
        raise EngineError(f"resident={policy}: there is no such place. Give one of {', '.join(POLICIES)}.")


def residents_for(policy: str | None) -> Residents | None:
    """This process's `Residents` for a policy as it stands in arguments; None for "off" and for nothing.

    Raises:
        EngineError: there is no such policy.
    """
    return None if policy in (None, "", "off") else residents_of(str(policy))


def _device() -> torch.device | None:
    import torch

    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None


def _is_more(names: frozenset[str] | None, than: frozenset[str] | None) -> bool:
    """Whether some of these tensors are not among others. None: all."""
    return than is not None and (names is None or not names <= than)


def _size(source: Source, names: frozenset[str] | None = None) -> int:
    """Bytes of these tensors (None: of all), each starting at a multiple of ALIGNMENT."""
    from merge_hooks.sources.headers import BYTES

    entries = source.stored.values() if names is None else [source.entries[name] for name in names]
    sizes = (math.prod(entry.shape) * BYTES.get(entry.dtype, 8) for entry in entries)
    return sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)


def _block(size: int, place: str, device: torch.device | None) -> torch.Tensor:
    """Uninitialised bytes in that place."""
    import numpy as np
    import torch

    if place == "gpu":
        return torch.empty(size, dtype=torch.uint8, device=device)
    if place == "pinned":
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)
    # numpy asks the system for large pages, torch does not: fewer faults when filled, fewer misses when read.
    block = np.empty(size, np.uint8)
    # Until it is written to, the system counts it as free: for our next source, and for other processes.
    block[::PAGE] = 0
    return torch.from_numpy(block)


def _whole(size: int, place: str) -> int:
    """What a block takes: torch rounds pinned memory up to a power of two."""
    return 1 << (size - 1).bit_length() if place == "pinned" and size else size


def _give_back(device: torch.device | None) -> None:
    """Return forgotten blocks to the system: torch keeps a GPU's memory, and pinned memory, for itself."""
    import torch

    if device is None:
        return
    if hasattr(module := getattr(torch, device.type, None), "empty_cache"):
        module.empty_cache()  # type: ignore[union-attr]
    if hasattr(torch._C, "_host_emptyCache"):
        torch._C._host_emptyCache()


def _is_of_stage(state: Hashable) -> bool:
    return isinstance(state, tuple) and ("stage" in state[:1] or any(map(_is_of_stage, state)))


def _mentions(key: Hashable, state: Hashable) -> bool:
    return key == state or (isinstance(key, tuple) and any(_mentions(part, state) for part in key))


def _bytes_of(value: Any) -> int:
    """Bytes that would be free without this value: every tensor and array that it refers to, shared memory once."""
    memory: dict[int, int] = {}  # by address, so that views count as what they hold on to
    small, seen, waiting = 0, set(), [value]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, (type, ModuleType)):
            continue
        seen.add(id(item))
        found = _memory_of(item)
        if found is None:
            small += sys.getsizeof(item, 64)
        else:
            address, size = found
            memory[address] = max(size, memory.get(address, 0))
        waiting += _parts_of(item)
    return small + sum(memory.values())


def _memory_of(item: Any) -> tuple[int, int] | None:
    """(address, bytes) of the memory behind a tensor or an array; None for everything else."""
    import numpy as np
    import torch

    if isinstance(item, torch.Tensor):
        try:
            storage = item.untyped_storage()
        except (RuntimeError, NotImplementedError):  # sparse ones have parts instead
            return id(item), item.nbytes
        return storage.data_ptr(), storage.nbytes()
    if isinstance(item, np.ndarray):
        while isinstance(item.base, np.ndarray):
            item = item.base
        return item.__array_interface__["data"][0], item.nbytes
    return None


def _parts_of(item: Any) -> list[Any]:
    """What an object refers to: its items, its attributes, and what a function closes over."""
    parts: list[Any] = []
    if isinstance(item, dict):
        parts += [*item.keys(), *item.values()]
    elif isinstance(item, (tuple, list, set, frozenset, deque)):
        parts += item
    elif isinstance(item, partial):
        parts += [item.func, item.args, item.keywords]
    elif isinstance(item, MethodType):
        parts += [item.__self__]
    elif isinstance(item, FunctionType):
        parts += [cell.cell_contents for cell in item.__closure__ or () if cell != CellType()]
    parts += vars(item).values() if hasattr(item, "__dict__") else ()
    slots = [getattr(kind, "__slots__", ()) for kind in type(item).__mro__]
    names = [name for given in slots for name in ([given] if isinstance(given, str) else given)]
    return parts + [getattr(item, name) for name in names if hasattr(item, name)]
