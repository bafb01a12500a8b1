"""What the one-pass kernels of a swap cost, beside a copy: one thread's processor time in nanoseconds an element.

    python tests/benchmarks/swap_kernels.py

Two sources beside a base, 8 million elements (`ELEMENTS=N`: another number), best of five. It is processor time, so
other processes on the machine count less than in `swap_speed.py`; they still take their share of caches and memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from merge_hooks.kernels.resident.on_cpu import make
from merge_hooks.kernels.sparsify import BANDED, DRAWN, LANES, LOWER_BITS, ROW, WHOLE

COUNT = int(os.environ.get("ELEMENTS", 1 << 23))
FORMS = {"task_arithmetic": (WHOLE, False), "breadcrumbs": (BANDED, False), "ties": (BANDED, True),
         "dare_linear": (DRAWN, False), "dare_ties": (DRAWN, True)}  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    print("| dtype | what | ns an element | of a copy |\n|---|---|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        times = measure(dtype)
        for name, value in times.items():
            print(f"| {str(dtype)[6:]} | {name} | {value:.3f} | {value / times['copy']:.2f} |")


def measure(dtype: torch.dtype) -> dict[str, float]:
    is_narrow = dtype == torch.bfloat16
    kernels = make(is_narrow, is_narrow, is_narrow)
    plain = torch.randn(COUNT) * 0.02
    tensors = [plain.to(dtype), *((plain + torch.randn(COUNT) * 0.002).to(dtype) for _ in range(2))]
    base, one, two = (as_array(tensor) for tensor in tensors)
    target = torch.zeros(COUNT, dtype=dtype)
    out, weights = as_array(target), np.array([0.5, 0.4], np.float32)
    threshold = int(np.float32(0.0013).view(np.int32))
    times = {"copy": best(lambda: target.copy_(tensors[0]))}
    times["linear"] = best(lambda: kernels.linear(out, (one, two), weights, np.float32(0.9), True))
    bands = np.array([[threshold, 0, 0, 0x7FFFFFFF, 0, 0]] * 2)
    draws = np.array([[7, 9, 1 << 14, 5]] * 2, np.uint64)
    for name, (kind, elect) in FORMS.items():
        scales = np.array([1.7, 1.8] if kind == DRAWN else [np.nan] * 2, np.float32)
        times[name] = best(lambda: kernels.generalized(
            out, base, (one, two), 0, weights, np.full(2, kind), bands, draws, scales, elect,  # noqa: B023
            name == "ties", np.float32(1), np.float32(1), False,  # noqa: B023
        ))  # fmt: skip
    dropped = LOWER_BITS[is_narrow]
    times["counting magnitudes, once a source"] = best(
        lambda: kernels.count_upper(np.zeros(1 << 31 - dropped, np.int32), base, one)
    )
    if not is_narrow:
        first = threshold >> dropped << dropped
        bucket = (first, first + (1 << dropped) - 1)
        times["pruning: a new density, each source"] = best(
            lambda: kernels.collect(base, one, 0, *bucket, *bucket, COUNT // 16)
        )
    lanes, rest = np.zeros((COUNT // ROW, LANES)), np.empty(0)
    times["DARE: a new density, each source"] = best(
        lambda: kernels.sums_of_magnitudes(lanes, rest, base, one, 0, draws[0], False)
    )
    return times


def as_array(tensor: torch.Tensor) -> Any:
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def best(work: Callable[[], Any]) -> float:
    found = float("inf")
    for _ in range(6):  # the first compiles
        started = time.thread_time()
        work()
        found = min(found, time.thread_time() - started)
    return found / COUNT * 1e9


if __name__ == "__main__":
    main()
