"""The process's random generators (torch's, numpy's, Python's on the CPU): seeded for one tensor, put back afterwards.

They are the process's, and so are mergekit's readers of sources: one thread at a time computes by mergekit's methods
(`alone`). Those of GPUs, which an engine samples from, stay as they are.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from merge_hooks.kernels.masks import stream_key

GENERATORS = ("iberian", "mergekit")
# Held again by the same thread where a source is itself a merge.
_ALONE = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """No other thread of this process computes by mergekit's methods while this lasts."""
    with _ALONE:
        yield


@contextmanager
def seeded_by_name(seed: int, name: str) -> Iterator[None]:
    """The generators seeded by (seed, tensor name) while this lasts; put back afterwards."""
    with put_back():
        seed_all(stream_key(seed, name, 0, "global generator"))
        yield


@contextmanager
def started_at(state: Any) -> Iterator[None]:
    """The generators in this state while this lasts; put back afterwards."""
    with put_back():
        set_all(state)
        yield


@contextmanager
def put_back() -> Iterator[None]:
    """The generators as they were, when this ends."""
    with alone():
        before = state_of_all()
        try:
            yield
        finally:
            set_all(before)


def seed_all(seed: int) -> None:
    """Seed every generator of the CPU."""
    import numpy as np
    import torch

    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU's too, and nobody puts them back
    np.random.seed(seed % (1 << 32))
    random.seed(seed)


def set_all(state: Any) -> None:
    """Put every generator into a state that `state_of_all` told."""
    import numpy as np
    import torch

    torch.default_generator.set_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])


def state_of_all() -> Any:
    """The state of torch's, numpy's and Python's generators."""
    import numpy as np
    import torch

    return torch.default_generator.get_state(), np.random.get_state(), random.getstate()
