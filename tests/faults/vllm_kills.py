"""A vLLM engine with processes of its own, as on GPUs, that are killed: `python -m tests.faults.vllm_kills FOLDER KIND`.

Prints one JSON object. KIND: "swap" or "proof", where the process of the scheduler dies; then a worker, over an answer.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.lm_eval_iberian.vllm_restarts import attempt
from tests.lm_eval_iberian.vllm_swaps import answers, engine, make, recipe


def arm(worker: Any, kind: str) -> int:
    """In vLLM's worker: its next swap, proof or batch kills the scheduler's process, or its own."""
    import itertools

    from merge_hooks.engines import vllm_proof, vllm_worker

    def die(number: int, *_: Any, **__: Any) -> None:
        os.kill(number, signal.SIGKILL)
        time.sleep(600)

    scheduler, weights, runner = os.getppid(), vllm_worker.merged_weights, worker.model_runner
    if kind == "swap":

        def cut(*words: Any, **more: Any) -> Any:
            yield from itertools.islice(weights(*words, **more), 5)
            die(scheduler)

        vllm_worker.merged_weights = cut
    elif kind == "proof":
        vllm_proof.prove = lambda *_: die(scheduler)  # type: ignore[assignment]
    else:
        runner.execute_model = lambda *_, **__: die(os.getpid())
    return scheduler


def main(folder: Path, kind: str) -> dict[str, Any]:
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve

    model = engine(folder)
    first = model.model
    model.model.collective_rpc(arm, args=(kind,))
    model.swap(resolve(read_recipe(recipe(folder, 0.9))))
    found = {"anew": model.was_started_anew and model.model is not first, "proof": model.proof.in_words}
    found["answers"] = answers(model)
    model.model.collective_rpc(arm, args=("answer",))
    found["died"] = [attempt(lambda: answers(model)), attempt(lambda: answers(model)), attempt(lambda: model.signature)]
    return found


if __name__ == "__main__":
    os.environ |= {
        "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_ALLOW_INSECURE_SERIALIZATION": "1", "VLLM_LOGGING_LEVEL": "CRITICAL",
    }  # fmt: skip
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    place = Path(sys.argv[1]) / "llama_tied"
    if not (place / "a").exists():
        make("llama_tied", place)
    print(json.dumps(main(place, sys.argv[2])))
