"""Merges of 8B shapes on a GPU, from sources that lie there: time, bandwidth, memory. No vLLM and no files needed.

    python tests/benchmarks/gpu_swap.py                     # one GPU with 80 GB: Llama 3.1 8B's shapes, bfloat16
    python tests/benchmarks/gpu_swap.py --small             # anywhere, a CPU too: to see that it runs

A base and two models with random weights are resident on the device. They are merged, tensor by tensor, into the memory
of a fourth model. Printed for each method: seconds (median, least to largest), bytes read and written a second, beside
those of a copy on the same device (the goal: 60 % of it), and the largest memory beyond what was there before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from merge_hooks.kernels.blocks import Workers
from merge_hooks.kernels.choose import Way, begin
from merge_hooks.kernels.operands import Operand, Operands
from merge_hooks.sources.residents import Residents

METHODS: dict[str, dict[str, float]] = {
    "linear": {}, "task_arithmetic": {}, "ties": {"density": 0.5}, "dare_linear": {"density": 0.5}, "dare_ties": {"density": 0.5},
    "breadcrumbs": {"density": 0.5, "gamma": 0.01},
}  # fmt: skip
LARGE = {"layers": 32, "width": 4096, "inner": 14336, "key": 1024, "vocabulary": 128256}
SMALL = {"layers": 2, "width": 64, "inner": 224, "key": 16, "vocabulary": 1000}
GOAL = 0.6


def main() -> None:
    arguments = parse_arguments()
    result = run(arguments.device, SMALL if arguments.small else LARGE, arguments.repeats)
    print(as_table(result))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1), encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    parser.add_argument("--device", default=str(found))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="write the measurements there")
    return parser.parse_args()


def shapes(sizes: dict[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A Llama's tensors."""
    width, inner, key = sizes["width"], sizes["inner"], sizes["key"]
    yield "embed_tokens", (sizes["vocabulary"], width)
    for layer in range(sizes["layers"]):
        for name, shape in (("q", (width, width)), ("k", (key, width)), ("v", (key, width)), ("o", (width, width)),
                            ("gate", (inner, width)), ("up", (inner, width)), ("down", (width, inner)),
                            ("norm", (width,)), ("norm_2", (width,))):  # fmt: skip
            yield f"{layer}.{name}", shape
    yield "lm_head", (sizes["vocabulary"], width)


def run(device: str, sizes: dict[str, int], repeats: int) -> dict[str, Any]:
    """Make the weights, and measure every method."""
    generator = torch.Generator(device).manual_seed(0)
    models = []
    for step in (0.0, 0.002, 0.003):
        models.append({
            name: (models[0][name] + torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16) * step
                   if step else torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16) * 0.02)
            for name, shape in shapes(sizes)
        })  # fmt: skip
    out = {name: torch.empty_like(tensor) for name, tensor in models[0].items()}
    size = sum(tensor.nbytes for tensor in out.values())
    kept = Residents("memory").keep
    measured = {}
    for method in METHODS:
        reset_peak(device)
        swap(method, models, out, kept, 0.5)
        times = [timed(lambda step=step: swap(method, models, out, kept, 0.5 + step / 100), device)  # noqa: B023
                 for step in range(1, repeats + 1)]  # type: ignore[misc]  # fmt: skip
        measured[method] = {
            "seconds": times, "peak": peak(device),
            "moved": size * (3 if method == "linear" else 4),
        }  # fmt: skip
    return {"device": describe(device), "model_bytes": size, "copy": copy_bandwidth(out, device), "methods": measured,
            "versions": {"torch": torch.__version__}}  # fmt: skip


def swap(method: str, models: list[dict[str, Any]], out: dict[str, Any], keep: Any, weight: float) -> None:
    """One merge of every tensor, into `out`."""
    first = 1 if method == "linear" else 0
    shared = {
        "normalize": method in ("linear", "ties", "dare_ties"),
        "rescale": method.startswith("dare"),
        "lambda": 1.0,
    }
    with Workers() as workers:
        for name, place in out.items():
            inputs = []
            for index, model in enumerate(models[first:], first):
                own = {} if index == 0 else {**METHODS[method], "weight": weight if index == 1 else 0.4}
                inputs.append(Operand(model[name], None if index == 0 else index - 1, own, origin=(index, name)))
            operands = Operands(name, method, tuple(inputs), shared, torch.bfloat16, torch.bfloat16)
            merged = begin(replace(operands, keep=keep, out=place), workers, 0, Way.GPU)()
            assert merged.is_finite and merged.tensor.data_ptr() == place.data_ptr()


def timed(work: Any, device: str) -> float:
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def copy_bandwidth(tensors: dict[str, Any], device: str) -> float:
    """Bytes read and written a second by the best of five copies of the largest tensor."""
    source = max(tensors.values(), key=lambda tensor: tensor.nbytes)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(timed(lambda: target.copy_(source), device) for _ in range(5))


def synchronize(device: str) -> None:
    if not device.startswith("cpu"):
        torch.accelerator.synchronize()


def reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def peak(device: str) -> int | None:
    """The largest memory beyond what is held now; None where nothing counts it."""
    if not device.startswith("cuda"):
        return None
    return torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()


def describe(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else device


def as_table(result: dict[str, Any]) -> str:
    """What was measured, as a Markdown table."""
    lines = [
        f"{result['model_bytes'] / 2e9:.3f} billion parameters, bfloat16, three sources; {result['device']}; "
        f"torch {result['versions']['torch']}; a copy reads and writes {result['copy'] / 1e9:.0f} GB/s.",
        "", "| method | swap, s | GB/s | of the copy | goal | memory beyond, GB |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for method, row in result["methods"].items():
        middle = statistics.median(row["seconds"])
        speed = row["moved"] / middle
        memory = "not counted" if row["peak"] is None else f"{row['peak'] / 1e9:.2f}"
        lines.append(
            f"| {method} | {middle:.3f} ({min(row['seconds']):.3f}–{max(row['seconds']):.3f}) | {speed / 1e9:.1f} | "
            f"{speed / result['copy']:.0%} | {GOAL:.0%} | {memory} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
