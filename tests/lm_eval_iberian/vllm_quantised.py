"""A vLLM engine that quantises merges to float8, in a process of its own: `python vllm_quantised.py FOLDER A B`.

A and B are checkpoints that mergekit wrote for the two merges of `vllm_swaps.recipe`. Prints one JSON object: what
`test_vllm_quantised.py` asserts on.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lm_eval_iberian.vllm_swaps import answers, recipe

QUANTIZATION = "fp8_per_channel"
SMALL = {"max_model_len": 256, "dtype": "bfloat16", "quantization": QUANTIZATION, "block_size": 32, "seed": 1}
SPOILT: dict[str, Callable[[Any], object]] = {
    "a row of another": lambda layer: layer.weight[:, 3].copy_(layer.weight[:, 4].clone()),
    "a row's scale": lambda layer: layer.weight_scale[3].mul_(1.07),
    "all but the probed columns": lambda layer: layer.weight[:-4].zero_(),
}


def merge(folder: Path, weight: float) -> dict[str, Any]:
    return {**recipe(folder, weight), "dtype": "bfloat16"}


def spoil(llm: Any, way: str) -> str:
    """What the proof says of an engine with one layer spoilt; the layer is put right again."""
    from merge_hooks.engines import vllm as vllm_loader

    model = llm.llm_engine.model_executor.driver_worker.worker.get_model()
    layer = model.get_submodule("model.layers.1.mlp.down_proj")
    kept = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    SPOILT[way](layer)
    try:
        return f"{vllm_loader.prove(llm).in_words}"
    except vllm_loader.UnprovedError as error:
        return str(error)
    finally:
        for name, parameter in layer.named_parameters():
            parameter.copy_(kept[name])


def main(folder: Path, written: dict[float, str]) -> dict[str, Any]:
    import torch

    from lm_eval_iberian.models.vllm import VLLM, MergedVLLM
    from merge_hooks.engines import vllm as vllm_loader
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve

    model = MergedVLLM(recipe=merge(folder, 0.3), swap="always", **SMALL)
    found: dict[str, Any] = {"proof": [model.proof.in_words], "first": answers(model)}
    found["signature"] = str(model.signature)
    for name, weight in (("swapped", 0.9), ("back", 0.3)):
        model.swap(resolve(read_recipe(merge(folder, weight))))
        found["proof"].append(model.proof.in_words)
        found[name] = answers(model)
    with torch.inference_mode():
        found["spoilt"] = {way: spoil(model.model, way) for way in SPOILT}
    found["proof"].append(vllm_loader.prove(model.model).in_words)
    vllm_loader.close(model.model)
    plain = {"enforce_eager": True, "gpu_memory_utilization": vllm_loader.cpu_memory_share()}
    for weight, place in written.items():
        theirs = VLLM(pretrained=place, batch_size="auto", **{**SMALL, **plain})
        found[f"theirs {weight}"] = answers(theirs)
        vllm_loader.close(theirs.model)
    theirs = VLLM(pretrained=written[0.3], batch_size="auto", **{**SMALL, **plain, "quantization": None})
    found["unquantised"] = answers(theirs)
    return found


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    os.environ |= {"TORCHDYNAMO_DISABLE": "1"}
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    print(json.dumps(main(Path(sys.argv[1]), {0.3: sys.argv[2], 0.9: sys.argv[3]})), flush=True)
