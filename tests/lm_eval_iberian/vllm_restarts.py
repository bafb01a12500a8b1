"""A vLLM engine whose swaps go wrong, in a process of its own: `python vllm_restarts.py FOLDER`. Prints one JSON object."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from tests.lm_eval_iberian.vllm_swaps import answers, engine, make, recipe


def attempt(work: Any) -> str:
    """The class and the words of the error, or ""."""
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def spoil(folder: Path) -> None:
    """FOLDER/nan: as b, with NaN in a tensor that vLLM fuses with others, in the middle of the stream."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(folder / "b", folder / "nan")
    tensors = load_file(folder / "nan" / "model.safetensors")
    tensors["model.layers.1.self_attn.k_proj.weight"][3, 5] = float("nan")
    save_file(tensors, folder / "nan" / "model.safetensors", metadata={"format": "pt"})


def main(folder: Path) -> dict[str, Any]:
    from merge_hooks.engines import vllm_worker
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve

    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    logging.getLogger("lm_eval.iberian").addHandler(Ear(logging.WARNING))
    first, second = (resolve(read_recipe(recipe(folder, weight))) for weight in (0.3, 0.9))
    bad = recipe(folder, 0.9)
    bad["models"][1]["model"] = str(folder / "nan")
    model = engine(folder)
    found: dict[str, Any] = {"first": answers(model)}
    # A merge that breaks off inside a fused layer.
    found["refused"] = attempt(lambda: model.swap(resolve(read_recipe(bad))))
    found["mixed"] = [attempt(lambda: answers(model)), attempt(lambda: model.signature)]
    model.swap(second)
    found["mended"], found["mended_proof"] = answers(model), model.proof.in_words
    # A head that does not follow its embedding: what vLLM does by itself.
    follow, vllm_worker._follow_tied = vllm_worker._follow_tied, lambda model: ["ParallelLMHead"]  # type: ignore[assignment]
    model.swap(first)
    found["stale"] = answers(model)
    model._swaps = "always"
    found["always"] = [attempt(lambda: model.swap(second)), attempt(lambda: answers(model))]
    # With proof=off, what the issue is about.
    model._swaps, model._proves = "auto", False
    model.swap(first)  # the last swap broke off: started anew
    model.swap(second)
    found["unseen"], found["unseen_proof"] = answers(model), model.proof.in_words
    vllm_worker._follow_tied = follow
    model._swaps, model._proves = "never", True
    model.swap(second)
    found["never"] = answers(model)
    found["said"] = [line for line in heard if "started anew" in line]
    return found


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    place = Path(sys.argv[1]) / "llama_tied"
    if not (place / "a").exists():
        make("llama_tied", place)
    if not (place / "nan").exists():
        spoil(place)
    print(json.dumps(main(place)))
