"""How much memory a stream takes beside the files: `python -m tests.merge_hooks.memory_of_streams FOLDER KIND ENGINE`.

Prints one JSON object: the growth of anonymous memory while the merge of three models streams, and the size of one of
their layers, both in bytes.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

SHAPE = {"vocab_size": 300, "hidden_size": 256, "num_hidden_layers": 12, "num_attention_heads": 4, "head_dim": 64,
         "num_key_value_heads": 2, "tie_word_embeddings": False, "max_position_embeddings": 512}  # fmt: skip
EXPERTS = {"intermediate_size": 256, "num_experts_per_tok": 2}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"intermediate_size": 256 * 16}),
    "mixtral": ("MixtralConfig", {**EXPERTS, "num_local_experts": 16}),
    "qwen3_moe": ("Qwen3MoeConfig", {**EXPERTS, "moe_intermediate_size": 256, "num_experts": 16}),
    "gpt_oss": ("GptOssConfig", {**EXPERTS, "num_local_experts": 16}),
}


def anonymous() -> int:
    """Bytes that are no file's: maps of checkpoints do not count."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


class Watch:
    """The largest growth while it lasts, sampled each two milliseconds."""

    def __enter__(self) -> Watch:
        self.start = self.peak = anonymous()
        self._on = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def _run(self) -> None:
        while self._on:
            self.peak = max(self.peak, anonymous())
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self._on = False
        self._thread.join()


def make(kind: str, folder: Path) -> None:
    import torch
    import transformers

    name, extra = KINDS[kind]
    config = getattr(transformers, name)(**{**SHAPE, **extra})
    for seed, place in enumerate(("base", "one", "two")):
        torch.manual_seed(seed)
        transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder / place)


def main(folder: Path, kind: str, engine: str) -> dict[str, int]:
    import torch

    from merge_hooks.engines.hf import build_model
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream

    torch.set_num_threads(1)
    models = [{"model": str(folder / name), "parameters": {"weight": 0.5, "density": 0.5}} for name in ("one", "two")]
    recipe = {"merge_method": "dare_ties", "base_model": str(folder / "base"), "models": models, "dtype": "float32"}
    stream, size = open_stream(resolve(read_recipe(recipe))), 0
    with Watch() as watch:
        if engine == "hf":
            size = sum(parameter.nbytes for parameter in build_model(stream).parameters())
        else:
            for _, tensor in stream:
                size += tensor.nbytes
    held = size if engine == "hf" else 0  # the model itself
    return {"grown": watch.peak - watch.start - held, "layer": size // int(str(SHAPE["num_hidden_layers"]))}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])))
