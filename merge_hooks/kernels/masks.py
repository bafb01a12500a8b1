"""Random masks from counters: element i of a mask depends on (seed, tensor, source, i) and on nothing else.

Not on the device, the number of threads, the order of the tensors or where a run was taken up again. The
generator is splitmix64 (Steele, Lea, Flood 2014, https://doi.org/10.1145/2660193.2660195; constants as in
https://prng.di.unimi.it/splitmix64.c) read at counter i // 4: each of its 64-bit words serves four elements
with 16 bits each. 15 of them decide; the one element in 32768 that lands on the threshold itself is decided
by a word of its own, so that the density is met to 2^-47. Integers only, so every machine draws the same.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import numpy as np

from merge_hooks.kernels.blocks import BLOCK

STEP = 0x9E3779B97F4A7C15
WORD = (1 << 64) - 1
LEVELS = 1 << 15


class Mask:
    """An unending row of keep-or-drop decisions.

    Args:
        density: the probability of keeping an element, in [0, 1].
        seed: the recipe's.
        tensor: the output tensor's name.
        place: the source's place among the recipe's models that are not the base.
    """

    def __init__(self, density: float, seed: int, tensor: str, place: int) -> None:
        self._key = stream_key(seed, tensor, place, "mask")
        self._tie_key = np.uint64(stream_key(seed, tensor, place, "tie"))
        self._level = int(density * LEVELS)
        self._tie_level = int((density * LEVELS - self._level) * (1 << 32))

    @property
    def words(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """What decides, as `compiled.draw` takes it: key, tie key, level, tie level."""
        return np.array([self._key, self._tie_key, self._level, self._tie_level], np.uint64)

    def kept(self, start: int, count: int) -> np.ndarray[Any, np.dtype[np.int16]]:
        """int16 for elements start..start+count (start a multiple of 4): -1, all bits, where kept, else 0."""
        words = random_words(self._key, start // 4, -(-count // 4))
        values = words.view(np.int16)[:count]
        np.bitwise_and(values, LEVELS - 1, out=values)
        if self._level == LEVELS:
            values.fill(-1)
            return values
        np.subtract(values, self._level, out=values)
        tied = np.flatnonzero(values == 0) if self._tie_level else np.empty(0, dtype=np.intp)
        np.right_shift(values, 15, out=values)
        if len(tied):
            deciding = scramble((tied.astype(np.uint64) + np.uint64(start + 1)) * np.uint64(STEP) + self._tie_key)
            values[tied] = -((deciding >> np.uint64(32)) < self._tie_level).astype(np.int16)
        return values


def stream_key(seed: int, tensor: str, place: int, purpose: str) -> int:
    """The 64-bit start of one stream: streams of different tensors, sources and seeds do not meet."""
    text = f"{seed}\0{tensor}\0{place}\0{purpose}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def random_words(key: int, start: int, count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """splitmix64's outputs start..start+count of the stream that begins at `key`: uint64, new memory."""
    offset = np.uint64((key + (start + 1) * STEP) & WORD)
    return scramble(_ramp(max(count, BLOCK // 4))[:count] + offset)


def scramble(words: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """splitmix64's output function, in place."""
    shifted = np.empty_like(words)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        np.right_shift(words, np.uint64(shift), out=shifted)
        np.bitwise_xor(words, shifted, out=words)
        np.multiply(words, np.uint64(factor), out=words)
    np.right_shift(words, np.uint64(31), out=shifted)
    return np.bitwise_xor(words, shifted, out=words)


@cache
def _ramp(count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """0, STEP, 2·STEP, ... modulo 2^64."""
    return np.arange(count, dtype=np.uint64) * np.uint64(STEP)
