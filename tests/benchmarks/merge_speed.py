"""How long a recipe takes to become weights in a transformers model, beside `mergekit-yaml` writing it to
disk.

    python tests/benchmarks/merge_speed.py                      # all of it: makes its models, some 10 minutes
    python tests/benchmarks/merge_speed.py --methods linear ties --repeats 3 --json result.json

Makes three bfloat16 Llamas of 0.47 billion parameters (28 layers, width 1024) with random weights in a
temporary folder, then runs for every method, in turn, `mergekit-yaml` and our stream into `build_model`, each
in a process of its own. Two times are taken of each: of the whole process, imports included, and of the merge
alone, from the recipe on; and the process's largest resident memory, mapped files included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

GOALS = {"linear": 0.35, "task_arithmetic": 0.35}
GOAL_OF_OTHERS, GOAL_OF_MEMORY = 0.15, 0.5
SHAPE = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "vocab_size": 16000, "tie_word_embeddings": False,
}  # fmt: skip
PARAMETERS: dict[str, dict[str, float]] = {
    "linear": {}, "task_arithmetic": {}, "ties": {"density": 0.5}, "dare_linear": {"density": 0.5},
    "dare_ties": {"density": 0.3}, "breadcrumbs": {"density": 0.5, "gamma": 0.01},
    "breadcrumbs_ties": {"density": 0.5, "gamma": 0.01},
}  # fmt: skip


def main() -> None:
    arguments = parse_arguments()
    if arguments.child:
        measure_child(*arguments.child)
        return
    folder = Path(tempfile.mkdtemp(prefix="merge_speed_", dir=arguments.folder))
    try:
        result = run(folder, arguments.methods, arguments.repeats)
    finally:
        shutil.rmtree(folder)
    print(as_table(result))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1), encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(PARAMETERS), choices=list(PARAMETERS))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", help="where the models are made (10 GB); default: the temporary folder")
    parser.add_argument("--json", help="write the measurements there")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def run(folder: Path, methods: list[str], repeats: int) -> dict[str, Any]:
    """Every measurement, ours and mergekit's in turn."""
    model_bytes = make_models(folder)
    measured: dict[str, Any] = {method: {"ours": [], "theirs": []} for method in methods}
    for _ in range(repeats):
        for method in methods:
            recipe = write_recipe(folder, method)
            for side in ("theirs", "ours"):
                measured[method][side].append(run_child(side, recipe, folder / "merged"))
                print(method, side, measured[method][side][-1], file=sys.stderr, flush=True)
    return {
        "model_bytes": model_bytes,
        "copy_bandwidth": copy_bandwidth(),
        "methods": measured,
        "machine": f"{processor()}, {len(os.sched_getaffinity(0))} cores",
        "versions": {name: version(name) for name in ("mergekit", "torch", "transformers")},
    }


def make_models(folder: Path, dtype: str = "bfloat16", shape: dict[str, Any] | None = None) -> int:
    """Write base, one and two: the base plus small steps. Returns the bytes of one model's weights."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, LlamaConfig
    from transformers.initialization import no_init_weights

    config = LlamaConfig(**(shape or SHAPE), dtype=dtype, architectures=["LlamaForCausalLM"])
    with torch.device("meta"), no_init_weights():
        shapes = {name: tensor.shape for name, tensor in AutoModelForCausalLM.from_config(config).state_dict().items()}
    generator, kind = torch.Generator().manual_seed(0), getattr(torch, dtype)
    base = {name: (torch.randn(shape, generator=generator) * 0.02).to(kind) for name, shape in shapes.items()}
    for name, step in (("base", 0.0), ("one", 0.002), ("two", 0.003)):
        tensors = {
            key: (tensor + torch.randn(tensor.shape, generator=generator) * step).to(kind) if step else tensor
            for key, tensor in base.items()
        }
        config.save_pretrained(folder / name)
        save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
    return sum(tensor.nbytes for tensor in base.values())


def write_recipe(folder: Path, method: str) -> Path:
    """Two models, weights 0.6 and 0.4, over the base where the method has one."""
    models = [
        {"model": str(folder / name), "parameters": {"weight": weight, **PARAMETERS[method]}}
        for name, weight in (("one", 0.6), ("two", 0.4))
    ]
    recipe: dict[str, Any] = {"merge_method": method, "models": models, "dtype": "bfloat16"}
    if method != "linear":
        recipe["base_model"] = str(folder / "base")
    path = folder / f"{method}.yml"
    path.write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML
    return path


def run_child(side: str, recipe: Path, out: Path) -> dict[str, float]:
    """One merge in a process of its own: {"wall": s, "merge": s, "peak": bytes}."""
    started = time.perf_counter()
    command = [sys.executable, __file__, "--child", side, str(recipe), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    printed, said = process.communicate()
    wall = time.perf_counter() - started
    shutil.rmtree(out, ignore_errors=True)
    if process.returncode:
        raise SystemExit(f"{side} {recipe.name} failed:\n{said}")
    return {"wall": wall, **json.loads(printed.splitlines()[-1])}


def measure_child(side: str, recipe: str, out: str) -> None:
    """Merge, and print the seconds from the recipe on and this process's largest resident memory."""
    merge = merge_to_disk if side == "theirs" else merge_into_model
    seconds = merge(recipe, out)
    # Not ru_maxrss: that begins with what the parent process held when it started us.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    print(json.dumps({"merge": seconds, "peak": peak}))


def merge_to_disk(recipe: str, out: str) -> float:
    """mergekit-yaml, as its command line runs it."""
    from mergekit.scripts.run_yaml import main as mergekit_yaml

    started = time.perf_counter()
    mergekit_yaml([recipe, out, "--no-copy-tokenizer", "--quiet"], standalone_mode=False)
    return time.perf_counter() - started


def merge_into_model(recipe: str, out: str) -> float:
    """Our stream into a transformers model."""
    import mergekit.merge  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    from merge_hooks.engines.hf import build_model
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream

    started = time.perf_counter()
    build_model(open_stream(resolve(read_recipe(recipe))))
    return time.perf_counter() - started


def copy_bandwidth() -> float:
    """Bytes read and written per second by the best of ten copies of 256 MiB, all cores."""
    import torch

    source, target = torch.ones(1 << 26), torch.zeros(1 << 26)
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - started)
    return 2 * source.nbytes / best


def processor() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def as_table(result: dict[str, Any]) -> str:
    """The measurements as a Markdown table, medians with the range over the repeats."""
    size = result["model_bytes"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines = [
        f"{size / 2e9:.2f} billion parameters, bfloat16; {result['machine']}; {versions}.",
        "",
        "| method | | mergekit-yaml | ours | ratio | goal |",
        "|---|---|---|---|---|---|",
    ]
    for method, sides in result["methods"].items():
        goal = GOALS.get(method, GOAL_OF_OTHERS)
        for key, name in (("wall", "whole process, s"), ("merge", "merge alone, s")):
            theirs, ours = ([run[key] for run in sides[side]] for side in ("theirs", "ours"))
            ratio = statistics.median(ours) / statistics.median(theirs)
            lines.append(f"| {method} | {name} | {spread(theirs)} | {spread(ours)} | {ratio:.3f} | {goal} |")
        theirs, ours = ([(run["peak"] - size) / 1e9 for run in sides[side]] for side in ("theirs", "ours"))
        ratio = max(ours) / max(theirs)
        name = "peak memory beyond the model, GB"
        lines.append(f"| {method} | {name} | {spread(theirs)} | {spread(ours)} | {ratio:.3f} | {GOAL_OF_MEMORY} |")
    bandwidth = result["copy_bandwidth"]
    lines += ["", f"Copy bandwidth, bytes read and written: {bandwidth / 1e9:.1f} GB/s."]
    if "linear" in result["methods"]:
        fastest = min(run["merge"] for run in result["methods"]["linear"]["ours"])
        lines.append(
            f"Linear reads two models and writes one in {fastest:.2f} s, planning and the copy into the "
            f"model included: {3 * size / fastest / bandwidth:.0%} of it."
        )
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Median (least–largest)."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


if __name__ == "__main__":
    main()
