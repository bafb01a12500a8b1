"""What a merge will need: memory, from the headers; time, from merging one of its tensors.

The memory is the merged model itself, if this process holds it, plus what is in use at one time: the inputs of the
largest tensor, the method's working copies, and the result.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from merge_hooks.errors import PreflightError
from merge_hooks.machine.memory import free_on_host
from merge_hooks.planning.output import OutputTensor
from merge_hooks.sources.headers import BYTES
from merge_hooks.stream.stream import Stream

# What the rest of the program needs (interpreter, torch, tokenizer), when we decide whether memory is enough.
RESERVE = 300_000_000


@dataclass(frozen=True)
class Estimate:
    """Bytes, and seconds on this machine.

    Args:
        read: bytes of the sources that are read.
        model: bytes of the merged weights.
        working: bytes beyond the model while the largest tensor is merged.
        parameters: how many numbers the merged model has.
    """

    read: int
    model: int
    working: int
    parameters: int


def estimate(stream: Stream, dtype: str | None = None) -> Estimate:
    """What the headers say. `dtype`: of the weights in the engine; None: as the stream yields them."""
    read = model = working = parameters = 0
    for output in stream.plan:
        if not (entries := output.entries):
            continue
        count = math.prod(entries[0].shape)
        size = BYTES.get(dtype or stream.resolved.dtype or entries[0].dtype, 4)
        inputs = sum(math.prod(entry.shape) * BYTES.get(entry.dtype, 4) for entry in entries)
        parameters, model, read = parameters + count, model + count * size, read + inputs
        working = max(working, inputs + count * size)
    return Estimate(read, model, working, parameters)


def seconds(stream: Stream) -> float:
    """How long the merge takes here, from merging one tensor: the largest one that repeats in every layer."""
    layered = [output for output in stream.plan if output.vocabulary_axis is None and output.held]
    probe = max(layered, key=_numbers)
    stream.tensor(probe.name)  # a first call makes what later ones find
    start = time.perf_counter()
    stream.tensor(probe.name)
    spent = time.perf_counter() - start
    return spent * sum(map(_numbers, stream.plan)) / _numbers(probe)


def refuse_too_large(stream: Stream, dtype: str | None, holds_model: bool) -> None:
    """Refuse a merge, before it starts, that does not fit into this machine's memory.

    Args:
        dtype: of the weights in the engine.
        holds_model: whether the merged model lies in this machine's memory (and not in a GPU's).
    Raises:
        PreflightError: it needs more than is free now.
    """
    needs = estimate(stream, dtype)
    total = needs.working + (needs.model if holds_model else 0) + RESERVE
    available = free_on_host()
    if total > available:
        raise PreflightError(
            f"{stream.resolved.recipe.origin}: this merge needs about {gigabytes(total)} of memory "
            f"({gigabytes(needs.model)} for the model in {dtype or stream.resolved.dtype or 'its own dtype'}"
            f"{'' if holds_model else ', on the GPU'}, {gigabytes(needs.working)} for its largest tensor), and "
            f"{gigabytes(available)} are free. Use dtype=bfloat16, a machine with more memory, or a GPU."
        )


def gigabytes(size: float) -> str:
    """ "1.9 GB", "12 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _numbers(output: OutputTensor) -> int:
    return sum(math.prod(entry.shape) for entry in output.entries)
