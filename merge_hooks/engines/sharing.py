"""A merge is made once for all ranks of an engine: each merges a share of the tensors, and all get all of them.

With tensor parallelism every rank needs a part of every tensor. So the tensors are dealt out to the ranks, evenly by
bytes. They come in rounds: each rank merges its tensors of a round, then all ranks exchange what they have, and each
goes through the whole round in the order of the merge. Meanwhile a thread merges the next round's. So sources are read
once, residents hold each tensor on one rank, and checksums and prints are taken by one rank for all (`Shared.watch`).

A tensor goes to the other ranks
- through memory that they map, if it is on the host and all ranks are on one machine (Linux): a rank then touches only
  the rows that it loads;
- else by a broadcast over the engine's own group of devices.

Every exchange carries errors too. So an error on one rank is raised on all of them, with the same words, and none waits
for a rank that has given up. A rank that has died ends the exchange with an error, or else the group's timeout does.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from merge_hooks import errors
from merge_hooks.errors import EngineError, MergeHooksError
from merge_hooks.hashing import digest

if TYPE_CHECKING:
    import torch

    from merge_hooks.sources.residents import Residents
    from merge_hooks.stream.stream import Stream

LOG = logging.getLogger(__name__)
Result = TypeVar("Result")
# A round has at least so many bytes, and at least one tensor for each rank.
ROUND_BYTES = 256 << 20
# By the ranks of an engine: whether they can map each other's memory.
_CAN_MAP: dict[tuple[int, ...], bool] = {}


@dataclass(frozen=True)
class Ranks:
    """Processes that exchange something, as torch.distributed knows them.

    Args:
        rank: this process's place among them.
        members: their ranks in the whole world.
        host: the group for Python objects (gloo).
        devices: the group for tensors on `device` (NCCL on GPUs, gloo on CPUs).
    """

    rank: int = 0
    members: tuple[int, ...] = (0,)
    host: Any = None
    devices: Any = None
    device: Any = "cpu"

    @classmethod
    def of(cls, coordinator: Any) -> Ranks:
        """From one of vLLM's groups."""
        return cls(
            coordinator.rank_in_group, tuple(coordinator.ranks), coordinator.cpu_group, coordinator.device_group,
            coordinator.device,
        )  # fmt: skip

    @property
    def size(self) -> int:
        return len(self.members)

    def exchange(self, item: Any) -> list[Any]:
        """The items of all ranks, in their order. All must call it, equally often.

        Raises:
            EngineError: a rank has died, or did not come within the group's timeout.
        """
        import torch.distributed

        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        with self.needing_the_others():
            torch.distributed.all_gather_object(items, item, group=self.host)
        return items

    @contextmanager
    def needing_the_others(self) -> Iterator[None]:
        """What is done here fails in torch if another rank has died.

        Raises:
            EngineError: it has, or did not come within the group's timeout.
        """
        try:
            yield
        except (OSError, RuntimeError) as error:
            raise EngineError(
                f"rank {self.rank} of {self.size} waited for the others during a merge, and one has died or does not "
                f"answer ({error}). Start the engine anew; that rank's own output says why."
            ) from error

    def broadcast(self, tensor: torch.Tensor, owner: int) -> None:
        """Fill a contiguous tensor on `device` with the owner's."""
        import torch.distributed

        flat = tensor.view(-1).view(dtype=torch.uint8)
        with self.needing_the_others():
            torch.distributed.broadcast(flat, self.members[owner], group=self.devices)


class Turns:
    """Deals work out to ranks: the next piece goes to the one that has the fewest bytes so far."""

    def __init__(self, ranks: int) -> None:
        self._given = [0] * ranks

    def take(self, size: int) -> int:
        """The rank whose turn it is, for a piece of so many bytes."""
        rank = min(range(len(self._given)), key=self._given.__getitem__)
        self._given[rank] += size
        return rank


@dataclass(frozen=True)
class Handed:
    """What a rank tells the others of a tensor that it has merged.

    Args:
        path: of the memory in which it lies; None: it is broadcast.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    path: str | None


class Shared:
    """One merge on its way into an engine of several ranks. A context manager: an error inside it reaches all ranks.

    Args:
        ranks: those that hold the same layers, so that each needs every tensor.
        stages: those that hold the other layers (pipeline parallel).
        maps: whether tensors on the host may go through mapped memory; False: they are always broadcast.
    """

    def __init__(self, ranks: Ranks | None = None, stages: Ranks | None = None, maps: bool = True) -> None:
        self.ranks, self.stages, self._maps = ranks or Ranks(), stages or Ranks(), maps
        # What others still wait for: exchanges within `ranks`, then one within `stages`.
        self._is_open = True
        # Tensors of this round that are still to be gone through: a rank that gives up must not leave out broadcasts.
        self._to_come: deque[Callable[[], torch.Tensor]] = deque()
        self._share: _Share | None = None

    def __enter__(self) -> Shared:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        try:
            if error is not None and self._is_open:
                self._break_off(self._told(error))
        finally:
            if self._share is not None:
                self._share.close()

    def _break_off(self, told: tuple[str, str]) -> None:
        """Tell the others, who are at a broadcast or an exchange, or will be."""
        self._is_open = False
        try:
            while self._to_come:
                self._to_come.popleft()()
            self.ranks.exchange((told, None))
            self.stages.exchange((told, None))
        except (EngineError, RuntimeError) as lost:  # they have died, too: the first error is the one to raise
            LOG.warning("merged: %s", lost)

    def _told(self, error: BaseException) -> tuple[str, str]:
        """An error as (class, message)."""
        if isinstance(error, MergeHooksError):
            return type(error).__name__, str(error)
        return "EngineError", f"rank {self.ranks.rank} stopped during a merge: {type(error).__name__}: {error}"

    def _agree(self, item: Any, error: BaseException | None = None) -> list[Any]:
        """The items of all ranks, unless one has an error: then all raise the first."""
        try:
            answers = self.ranks.exchange((self._told(error) if error else None, item))
        except EngineError as lost:
            self._give_up(self._told(lost))
        if found := next((told for told, _ in answers if told), None):
            self._give_up(found)
        return [own for _, own in answers]

    def _give_up(self, told: tuple[str, str]) -> NoReturn:
        """Raise an error that all of these ranks have, after telling the other stages."""
        self._is_open = False
        self.stages.exchange((told, None))
        kind, message = told
        raise getattr(errors, kind, EngineError)(message)

    def tensors(
        self, stream: Stream, names: Collection[str], residents: Residents | None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Tensors of a merge in its order, each merged by one of the ranks.

        Args:
            stream: the same on all ranks.
            names: of the tensors that these ranks need, the same on all of them.
            residents: from which each rank reads what it merges.
        Raises:
            MergeHooksError: of whichever rank.
        """
        if self.ranks.size == 1:
            whole = len(names) == len(stream.names())  # then residents have room for whatever later merges read
            for name, tensor in stream.part(None if whole else names, residents):
                if tensor is not None:
                    yield name, tensor
            return
        rounds = _rounds(stream, names, self.ranks.size)
        is_mapped = self._can_map()
        mine = {name for one in rounds for name, owner in one if owner == self.ranks.rank}
        self._share = _Share(stream.part(mine, residents), self.ranks, is_mapped)
        yield from self._go_through(rounds, self._share)

    def _can_map(self) -> bool:
        """Whether all ranks can map each other's memory. Asked once for an engine."""
        if not self._maps:
            return False
        if self.ranks.members not in _CAN_MAP:
            token = secrets.token_bytes(16)
            with closing(_Memory()) if hasattr(os, "memfd_create") else nullcontext() as made:
                if made is not None:
                    made.write(token)
                told = self._agree((made.path if made else None, token))
                can = self._agree(all(_reads(path, token) for path, token in told))
            _CAN_MAP[self.ranks.members] = all(can)
        return _CAN_MAP[self.ranks.members]

    def _go_through(self, rounds: list[list[tuple[str, int]]], share: _Share) -> Iterator[tuple[str, torch.Tensor]]:
        dealt = digest(rounds)
        waiting = share.begin(rounds[0], len(rounds) == 1)
        for number, one in enumerate(rounds):
            waiting.exception()  # waits; whatever it is, the others must hear of it
            told = self._agree((dealt, None if waiting.exception() else waiting.result()), waiting.exception())
            if any(own != dealt for own, _ in told):
                self._give_up(self._told(EngineError("the ranks of this engine see different files of the sources.")))
            answers = [own for _, own in told]
            handed = {name: answers[owner][name] for name, owner in one}
            with self.ranks.needing_the_others():  # the memory of one that has died is gone
                mapped = {name: _view(_mapped(item.path, _bytes(item)), item) for name, item in handed.items()
                          if item is not None and item.path}  # fmt: skip
            merged = share.taken()
            if number + 1 < len(rounds):
                waiting = share.begin(rounds[number + 1], number + 2 == len(rounds))
            there = [(name, owner) for name, owner in one if handed[name] is not None]  # else no source has it
            for name, owner in there:
                own = mapped.pop(name, None)
                self._to_come.append(
                    partial(lambda found: found, own) if own is not None
                    else partial(self._broadcast, handed[name], owner, merged.pop(name, None))
                )  # fmt: skip
                del own
            for name, _ in there:
                yield name, self._to_come.popleft()()

    def _broadcast(self, item: Handed, owner: int, own: torch.Tensor | None) -> torch.Tensor:
        import torch

        tensor = own if own is not None else torch.empty(item.shape, dtype=item.dtype, device=self.ranks.device)
        self.ranks.broadcast(tensor, owner)
        return tensor

    def watch(
        self,
        weights: Iterable[tuple[str, torch.Tensor]],
        look: Callable[[str, torch.Tensor], Result],
        found: dict[str, Result | None],
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The same pairs; each is looked at by one rank, as it passes.

        Args:
            found: what this rank saw, by name, in the order of the merge; None: another rank sees it.
        """
        turns = Turns(self.ranks.size)
        for name, tensor in weights:
            found[name] = look(name, tensor) if turns.take(tensor.nbytes) == self.ranks.rank else None
            yield name, tensor

    def finish(self, *found: dict[str, Any]) -> list[dict[str, Any]]:
        """After the last tensor: what all ranks saw together."""
        answers = self._agree([{name: own for name, own in one.items() if own is not None} for one in found])
        return [{name: next(own[place][name] for own in answers if name in own[place]) for name in one}
                for place, one in enumerate(found)]  # fmt: skip

    def finish_stages(self, found: dict[str, bytes]) -> dict[str, bytes]:
        """After `finish`: what all stages saw together.

        Raises:
            MergeHooksError: of whichever stage.
            EngineError: two stages took in different tensors of one name.
        """
        self._is_open = False
        answers = self.stages.exchange((None, found))
        if told := next((told for told, _ in answers if told), None):
            raise getattr(errors, told[0], EngineError)(told[1])
        whole: dict[str, bytes] = {}
        for _, own in answers:
            if any(whole.setdefault(name, value) != value for name, value in own.items()):
                raise EngineError("the stages of this engine took in different tensors of one name.")
        return whole


class _Share:
    """What this rank merges, a round at a time, in a thread of its own."""

    def __init__(self, tensors: Iterator[tuple[str, torch.Tensor | None]], ranks: Ranks, is_mapped: bool) -> None:
        self._tensors, self._ranks, self._is_mapped = tensors, ranks, is_mapped
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="share", initializer=_work_here())
        self._merged: dict[str, torch.Tensor] = {}
        self._held: list[_Memory] = []  # of the round that is being merged
        self._mapped: list[_Memory] = []  # of the last one, which others may still be about to map
        self._stop = threading.Event()

    def begin(self, one: list[tuple[str, int]], is_last: bool) -> Future[dict[str, Handed | None]]:
        return self._pool.submit(self._merge, [name for name, owner in one if owner == self._ranks.rank], is_last)

    def taken(self) -> dict[str, torch.Tensor]:
        """The tensors of the round that is done which are to be broadcast.

        All ranks have exchanged this round, so they have mapped the one before: its memory is let go.
        """
        merged, self._merged = self._merged, {}
        for memory in self._mapped:
            memory.close()
        self._mapped, self._held = self._held, []
        return merged

    def close(self) -> None:
        self._stop.set()
        if hasattr(self._tensors, "close"):
            self._pool.submit(self._tensors.close)  # after what it may be at
        self._pool.shutdown(wait=True)
        for memory in (*self._mapped, *self._held):
            memory.close()
        self._mapped = self._held = []

    def _merge(self, names: list[str], is_last: bool) -> dict[str, Handed | None]:
        found: dict[str, Handed | None] = {}
        for name in names:
            if self._stop.is_set():
                break
            given, tensor = next(self._tensors)
            assert given == name
            found[name] = None if tensor is None else self._handed(name, tensor)
            del tensor
        if is_last:
            next(self._tensors, None)  # to its end, where it looks whether files have changed
        return found

    def _handed(self, name: str, tensor: torch.Tensor) -> Handed:
        import torch

        item = Handed(tensor.dtype, tuple(tensor.shape), None)
        if not (self._is_mapped and tensor.device.type == "cpu" and tensor.nbytes):
            self._merged[name] = tensor.to(self._ranks.device).contiguous()
            return item
        memory = _Memory()
        self._held.append(memory)
        memory.write(tensor.detach().contiguous().view(-1).view(dtype=torch.uint8).numpy())
        return Handed(item.dtype, item.shape, memory.path)


def _rounds(stream: Stream, names: Collection[str], ranks: int) -> list[list[tuple[str, int]]]:
    """The tensors in rounds, each with the rank that merges it."""
    turns = Turns(ranks)
    rounds: list[list[tuple[str, int]]] = [[]]
    size = 0
    for output in stream.plan:
        if output.name not in names:
            continue
        # Four bytes each, whatever the dtype: residents stay good for every merge of these shapes.
        own = 4 * output.elements
        if len(rounds[-1]) >= ranks and size >= ROUND_BYTES:
            rounds.append([])
            size = 0
        rounds[-1].append((output.name, turns.take(own)))
        size += own
    return rounds


class _Memory:
    """Memory without a file, which other processes of this user can map by its path."""

    def __init__(self) -> None:
        self._file = os.memfd_create("merge")
        self.path = f"/proc/{os.getpid()}/fd/{self._file}"

    def write(self, content: Any) -> None:
        """Put bytes there. Cheaper than through a mapping, where each new page is a fault."""
        left = memoryview(content).cast("B")
        while left:
            left = left[os.write(self._file, left) :]

    def close(self) -> None:
        """Those who have mapped it keep it."""
        os.close(self._file)


def _reads(path: str | None, token: bytes) -> bool:
    """Whether this is the memory of a process on this machine, and may be read."""
    try:
        return path is not None and Path(path).read_bytes() == token
    except OSError:
        return False


def _mapped(path: str, size: int) -> torch.Tensor:
    """Memory as bytes. What is written to it stays in this process, because loaders may work in place."""
    import torch

    return torch.from_file(path, shared=False, size=size, dtype=torch.uint8)


def _view(flat: torch.Tensor, item: Handed) -> torch.Tensor:
    return flat.view(item.dtype).view(item.shape)


def _bytes(item: Handed) -> int:
    return math.prod(item.shape) * item.dtype.itemsize


def _work_here() -> Callable[[], None]:
    """Lets another thread work on this thread's GPU, in order with this thread: both are a thread's own in torch."""
    import torch

    if not torch.accelerator.is_available():
        return lambda: None
    index, stream = torch.accelerator.current_device_index(), torch.accelerator.current_stream()

    def begin() -> None:
        torch.accelerator.set_device_index(index)
        torch.accelerator.set_stream(stream)

    return begin
