"""Train once, merge as needed, on toys: what adapters merged in four ways know, what S does in KnOTS, what it costs.

    python tests/benchmarks/toy_adapters.py --folder toys --out toy_adapters.json

Adapters of five languages over the toy instruct model are trained (or read from --folder), merged in each way and
scored on pairs and stories in Basque, Galician and Catalan, which the instruct model has not read, and in Spanish. Then
the Basque adapter is trained anew with another seed and everything merged again. Times are of the processor (all threads)
and of the wall clock; "merge" is from the recipe to all tensors of the merge.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

MINORITY, KNOWN = ("eu", "gl", "ca"), ("es",)
METHODS = {"TIES": "ties", "DARE-TIES": "dare_ties", "KnOTS-TIES": "knots_ties", "KnOTS-DARE-TIES": "knots_dare_ties"}


def recipe(instruct: Path, adapters: dict[str, Path], method: str, density: float, **parameters: Any) -> dict[str, Any]:
    """The second paper's recipe: weights 1 over the instruct model."""
    models = [
        {"model": {"model": str(instruct), "lora": str(path)}, "parameters": {"weight": 1.0, "density": density}}
        for path in adapters.values()
    ]
    data = {"merge_method": METHODS[method], "base_model": str(instruct), "models": models, "dtype": "float32"}
    return data | ({"parameters": parameters} if parameters else {})


def systems(instruct: Path, adapters: dict[str, Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """name -> arguments of the model `merged`."""
    yield "instruct", {"pretrained": str(instruct)}
    for name, path in adapters.items():
        model = {"model": {"model": str(instruct), "lora": str(path)}}
        yield f"adapter {name}", {"recipe": {"merge_method": "passthrough", "models": [model], "dtype": "float32"}}
    for method in METHODS:
        for density in (1.0, 0.5):
            yield f"{method} {density}", {"recipe": recipe(instruct, adapters, method, density)}
            if method.startswith("KnOTS"):
                scaled = recipe(instruct, adapters, method, density, scaled=True)
                yield f"{method} {density}, S V merged", {"recipe": scaled}


def score(arguments: dict[str, Any]) -> dict[str, float]:
    """Percent: the mean of pairs and stories in each language."""
    from lm_eval import simple_evaluate

    from lm_eval_iberian.models.hf import MergedHF
    from lm_eval_iberian.sweep.kept_tasks import our_tasks

    languages = (*MINORITY, *KNOWN)
    tasks = [f"toy_{kind}_{language}" for language in languages for kind in ("pairs", "story")]
    model = MergedHF(**arguments, batch_size=64, device="cpu", max_length=512)
    found = simple_evaluate(model=model, tasks=tasks, bootstrap_iters=0, log_samples=False, task_manager=our_tasks())
    value = lambda task: 100 * found["results"][task]["acc,none"]  # noqa: E731
    return {
        one: statistics.fmean((value(f"toy_pairs_{one}"), value(f"toy_story_{one}"))) for one in languages
    }  # fmt: skip


def timed(do: Callable[[], object]) -> dict[str, float]:
    """Seconds, of the processor and of the wall clock."""
    wall, processor = time.perf_counter(), time.process_time()
    do()
    return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}


def merged(data: dict[str, Any]) -> int:
    """All tensors of a merge; how many."""
    import yaml

    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream

    return len(list(open_stream(resolve(read_recipe(yaml.safe_dump(data))))))


def main() -> None:
    from lm_eval_iberian.toy.adapters import ADAPTERS, AdapterSettings, build_adapters, train_adapter
    from lm_eval_iberian.toy.train import build_family

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("toys"))
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    instruct = build_family(chosen.folder, models=("instruct",))["instruct"]
    adapters = build_adapters(chosen.folder)
    scores = {}
    for name, arguments in systems(instruct, adapters):
        scores[name] = score(arguments)
        print(f"{name:32}", *(f"{one} {value:6.2f}" for one, value in scores[name].items()), flush=True)
    times = {f"train {name}": timed(lambda name=name: train_adapter(instruct, name, 0, AdapterSettings()))
             for name in ADAPTERS}  # fmt: skip
    again = train_adapter(instruct, "basque", 1, AdapterSettings())
    again.save_pretrained(chosen.folder / "basque-again")
    newer = {**adapters, "basque": chosen.folder / "basque-again"}
    for method in METHODS:
        merged(recipe(instruct, newer, method, 0.5))  # compiled and read once
        times[f"merge {method}"] = timed(lambda method=method: merged(recipe(instruct, newer, method, 0.5)))
        scores[f"{method} 0.5, Basque anew"] = score({"recipe": recipe(instruct, newer, method, 0.5)})
        print(f"{method} 0.5, Basque anew", scores[f"{method} 0.5, Basque anew"], flush=True)
    for name, seconds in times.items():
        print(f"{name:32} {seconds['processor']:7.2f} s of the processor, {seconds['wall']:7.2f} s")
    if chosen.out:
        chosen.out.write_text(json.dumps({"scores": scores, "times": times}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
