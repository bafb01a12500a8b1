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

from merge_hooks.kernels.constants import NOT_REACHED, PATTERN_BITS
from merge_hooks.kernels.cpu_steps import CpuSteps

COUNT = int(os.environ.get("ELEMENTS", 1 << 23))
# Whether deltas are pruned, drawn, and whether signs are elected.
FORMS = {"task_arithmetic": (False, False, False), "breadcrumbs": (True, False, False), "ties": (True, False, True),
         "dare_linear": (False, True, False), "dare_ties": (False, True, True)}  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    print("| dtype | what | ns an element | of a copy |\n|---|---|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        times = measure(dtype)
        for name, value in times.items():
            print(f"| {str(dtype)[6:]} | {name} | {value:.3f} | {value / times['copy']:.2f} |")


def measure(dtype: torch.dtype) -> dict[str, float]:
    steps = CpuSteps(dtype)
    plain = torch.randn(COUNT) * 0.02
    tensors = [plain.to(dtype), *((plain + torch.randn(COUNT) * 0.002).to(dtype) for _ in range(2))]
    base, one, two = (steps.array(tensor) for tensor in tensors)
    target = torch.zeros(COUNT, dtype=dtype)
    out, weights, unit = steps.array(target), np.array([0.5, 0.4], np.float32), np.float32(1)
    threshold = int(np.float32(0.0013).view(np.int32))
    times = {"copy": best(lambda: target.copy_(tensors[0]))}
    times["linear"] = best(lambda: steps.linear(out, (one, two), weights, np.float32(0.9)))
    bands = np.array([[threshold, 0, 0, NOT_REACHED, 0, 0]] * 2)
    draws, scales = np.array([[7, 9, 1 << 14, 5]] * 2, np.uint64), np.array([1.7, 1.8], np.float32)
    for name, (is_banded, is_drawn, elect) in FORMS.items():
        times[name] = best(lambda: steps.mix(
            out, base, (one, two), 0, weights, bands if is_banded else None, draws if is_drawn else None,  # noqa: B023
            scales if is_drawn else None, elect, unit if name == "ties" else None, unit,  # noqa: B023
        ))  # fmt: skip
    times["counting magnitudes, once a source"] = best(
        lambda: steps.count_upper(np.zeros(1 << PATTERN_BITS - steps.lower_bits, np.int32), base, one)
    )
    if not steps.is_narrow:
        first = threshold >> steps.lower_bits << steps.lower_bits
        bucket = (first, first + (1 << steps.lower_bits) - 1)
        times["pruning: a new density, each source"] = best(
            lambda: steps.collect(base, one, 0, *bucket, *bucket, COUNT // 16)
        )
    times["DARE: a new density, each source"] = best(lambda: steps.sum_of_magnitudes(base, one, 0, draws[0]))
    return times


def best(work: Callable[[], Any]) -> float:
    found = float("inf")
    for _ in range(6):  # the first compiles
        started = time.thread_time()
        work()
        found = min(found, time.thread_time() - started)
    return found / COUNT * 1e9


if __name__ == "__main__":
    main()
