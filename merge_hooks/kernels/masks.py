"""Random masks from counters: element i of a mask depends on (seed, tensor, source, i) and on nothing else.

Not on the device, the number of threads, the order of the tensors or where a run was taken up again. The
generator is splitmix64 (Steele, Lea, Flood 2014, https://doi.org/10.1145/2660193.2660195; constants as in
https://prng.di.unimi.it/splitmix64.c) read at counter i // 4: each of its 64-bit words serves four elements
with 16 bits each. 15 of them decide; the one element in 32768 that lands on the threshold itself is decided
by a word of its own, so that the density is met to 2^-47. Integers only, so every machine draws the same.

Masks are drawn where they are used: `cpu.draw`, and `torch_steps.drawn` on other devices.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from merge_hooks.kernels.constants import LEVELS


def mask(density: float, seed: int, tensor: str, place: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """What decides on each element of one source's mask: key, tie key, level, tie level.

    Args:
        density: the probability of keeping an element, in [0, 1].
        seed: the recipe's.
        tensor: the output tensor's name.
        place: the source's place among the recipe's models that are not the base.
    """
    level = int(density * LEVELS)
    tie_level = int((density * LEVELS - level) * (1 << 32))
    keys = (stream_key(seed, tensor, place, purpose) for purpose in ("mask", "tie"))
    return np.array([*keys, level, tie_level], np.uint64)


def stream_key(seed: int, tensor: str, place: int, purpose: str) -> int:
    """The 64-bit start of one stream: streams of different tensors, sources and seeds do not meet."""
    text = f"{seed}\0{tensor}\0{place}\0{purpose}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
