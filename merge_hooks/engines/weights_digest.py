"""One checksum of a whole stream of weights: over each tensor's name, dtype, shape and bytes, in order.

It is the same for the same recipe in any engine that takes it in the same dtype. Several threads hash bytes in pieces
of 4 MiB by xxh3 (https://xxhash.com), so it costs a fraction of the merge; the digest is the hash of all pieces'
hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from merge_hooks.machine.processors import worker_threads

if TYPE_CHECKING:
    import torch

PIECE = 4 << 20


class Digest:
    """Takes in tensors one after the other. Use it as a context manager, which also ends its threads.

    Attributes:
        tensors, bytes: how much it has taken in.
    """

    def __init__(self) -> None:
        import xxhash

        self._state = xxhash.xxh3_128()
        self._pool = ThreadPoolExecutor(worker_threads(), thread_name_prefix="digest")
        self.tensors = self.bytes = 0

    def __enter__(self) -> Digest:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def add(self, name: str, tensor: torch.Tensor) -> str:
        """Take in one tensor, and return its `checksum`."""
        pieces = self._pieces(tensor)
        self._state.update(_described(name, tensor, pieces))
        self.tensors += 1
        self.bytes += tensor.nbytes
        return _with_form(tensor, pieces)

    def describe(self, name: str, tensor: torch.Tensor) -> bytes:
        """What `digest_of_described` wants of a tensor: name, form, and the hashes of its pieces. It is not taken in."""
        return _described(name, tensor, self._pieces(tensor))

    def checksum(self, tensor: torch.Tensor) -> str:
        """The checksum of one tensor with its dtype and shape. The tensor is not taken in."""
        return _with_form(tensor, self._pieces(tensor))

    def _pieces(self, tensor: torch.Tensor) -> bytes:
        """The hashes of a tensor's pieces. A tensor on a GPU is copied to the host first."""
        import torch
        import xxhash

        flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        pieces = [flat[start : start + PIECE] for start in range(0, len(flat), PIECE)]
        hash_of: Any = xxhash.xxh3_128_digest
        return b"".join(self._pool.map(hash_of, pieces) if len(pieces) > 1 else map(hash_of, pieces))

    def watch(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The same pairs; each is taken in as it passes."""
        for name, tensor in weights:
            self.add(name, tensor)
            yield name, tensor

    @property
    def value(self) -> str:
        """32 hex digits over everything taken in so far."""
        return self._state.hexdigest()


def _described(name: str, tensor: torch.Tensor, pieces: bytes) -> bytes:
    return f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode() + pieces


def digest_of_described(tensors: Iterable[bytes]) -> str:
    """The digest of a stream whose tensors were described one by one, perhaps in several processes."""
    import xxhash

    state = xxhash.xxh3_128()
    for described in tensors:
        state.update(described)
    return state.hexdigest()


def _with_form(tensor: torch.Tensor, pieces: bytes) -> str:
    return f"{tensor.dtype}{tuple(tensor.shape)}{pieces.hex()}"


def digest_of(weights: Iterable[tuple[str, torch.Tensor]]) -> str:
    """The digest of a whole stream."""
    with Digest() as digest:
        for name, tensor in weights:
            digest.add(name, tensor)
        return digest.value
