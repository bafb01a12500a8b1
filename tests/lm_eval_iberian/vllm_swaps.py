"""vLLM engines through a first load and swaps, in a process of their own: `python vllm_swaps.py FOLDER KIND,KIND [ARGUMENTS]`.

Prints one JSON line a kind: what `test_vllm_swaps.py` asserts on. ARGUMENTS: more of the model's, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

# A tiny model of each architecture that is accepted, as its own group configures it.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"tie_word_embeddings": False}),
    "llama_tied": ("LlamaConfig", {"tie_word_embeddings": True}),
    "mistral": ("MistralConfig", {"tie_word_embeddings": False, "sliding_window": None}),
    "ministral": ("Ministral3Config", {"tie_word_embeddings": False, "sliding_window": None}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": False, "hidden_size": 128}),  # vLLM knows no head_dim here
    "qwen2_tied": ("Qwen2Config", {"tie_word_embeddings": True, "hidden_size": 128}),
    "qwen3": ("Qwen3Config", {"tie_word_embeddings": False}),
    "qwen3_tied": ("Qwen3Config", {"tie_word_embeddings": True}),
    "gemma2": ("Gemma2Config", {"sliding_window": 128}),
    "gemma3": ("Gemma3TextConfig", {"sliding_window": 128}),
    "smollm3": ("SmolLM3Config", {"tie_word_embeddings": True}),
    "olmo2": ("Olmo2Config", {"tie_word_embeddings": False}),
    "phi3": ("Phi3Config", {"tie_word_embeddings": False, "sliding_window": None}),
    "granite": ("GraniteConfig", {"tie_word_embeddings": True, "logits_scaling": 4.0, "embedding_multiplier": 2.0}),
    "cohere2": ("Cohere2Config", {"sliding_window": 128}),
    "gpt_neox": ("GPTNeoXConfig", {"tie_word_embeddings": False, "hidden_size": 128}),
    "apertus": ("ApertusConfig", {"tie_word_embeddings": False}),
    "bloom": ("BloomConfig", {"hidden_size": 128}),
}


def make(kind: str, folder: Path) -> None:
    """Two checkpoints of a kind, FOLDER/a and FOLDER/b, unlike each other in every tensor."""
    import torch
    import transformers

    from lm_eval_iberian.toy import tiny

    tokenizer = tiny.build_tokenizer()
    name, extra = KINDS[kind]
    shape = {**tiny.SHAPE, "num_hidden_layers": 2}
    if kind in ("bloom", "gpt_neox"):  # they have one head size, and as many heads of each kind
        del shape["head_dim"], shape["num_key_value_heads"]
    config = getattr(transformers, name)(
        **{**shape, "vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 4, **extra}
    )
    for seed, place in enumerate("ab"):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():  # norms and biases are alike in fresh models
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape))
        model.save_pretrained(folder / place)
        tokenizer.save_pretrained(folder / place)
        if kind == "gpt_neox":
            add_masks(folder / place / "model.safetensors", config)


def add_masks(file: Path, config: Any) -> None:
    """What Pythia's files on the Hub hold beside the weights."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    for layer in range(config.num_hidden_layers):
        prefix = f"gpt_neox.layers.{layer}.attention"
        tensors[f"{prefix}.bias"] = torch.tril(torch.ones(256, 256, dtype=torch.bool)).view(1, 1, 256, 256)
        tensors[f"{prefix}.masked_bias"] = torch.tensor(-1e9)
        tensors[f"{prefix}.rotary_emb.inv_freq"] = 1.0 / (10000 ** (torch.arange(0, 8, 2).float() / 8))
    save_file(tensors, file, metadata={"format": "pt"})


def recipe(folder: Path, weight: float) -> dict[str, Any]:
    """A linear merge of the two."""
    rows = [
        {"model": str(folder / "a"), "parameters": {"weight": weight}},
        {"model": str(folder / "b"), "parameters": {"weight": round(1 - weight, 2)}},
    ]
    return {"merge_method": "linear", "models": rows, "dtype": "float32"}


def answers(model: Any) -> dict[str, Any]:
    """Log-likelihoods and a text."""
    from lm_eval.api.instance import Instance

    pairs = [("Euskal Herria", " mendi"), ("Galdera: zein da? A. bat B. bi Erantzuna:", " B"), ("una casa", " pequena")]
    asked = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    written = Instance("generate_until", {}, ("Bigarren", {"until": ["\n\n"], "max_gen_toks": 12}), 0)
    return {
        "scores": [value for value, _ in model.loglikelihood(asked, disable_tqdm=True)],
        "text": model.generate_until([written], disable_tqdm=True),
    }


def engine(folder: Path, **arguments: Any) -> Any:
    """A `MergedVLLM` with the first merge."""
    from lm_eval_iberian.models.vllm import MergedVLLM

    return MergedVLLM(recipe=recipe(folder, 0.3), dtype="float32", max_model_len=256, **arguments)


def there_and_back(folder: Path, **arguments: Any) -> dict[str, Any]:
    """Answers of the first merge, of the second after a swap, and of the first again."""
    from merge_hooks.engines import vllm as vllm_loader
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve

    model = engine(folder, swap="always", **arguments)
    found: dict[str, Any] = {"proof": [model.proof.in_words], "first": answers(model)}
    for name, weight in (("swapped", 0.9), ("back", 0.3)):
        model.swap(resolve(read_recipe(recipe(folder, weight))))
        found["proof"].append(model.proof.in_words)
        found[name] = answers(model)
    vllm_loader.close(model.model)
    return found


def main(root: Path, kinds: list[str], arguments: dict[str, Any]) -> None:
    """One JSON line a kind. What fails is said, and the next one is tried."""
    for kind in kinds:
        folder = root / kind
        try:
            if not (folder / "a").exists():
                make(kind, folder)
            print(json.dumps({"kind": kind, **there_and_back(folder, **arguments)}), flush=True)
        except Exception as error:
            print(json.dumps({"kind": kind, "error": f"{type(error).__name__}: {error}"}), flush=True)


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    main(Path(sys.argv[1]), sys.argv[2].split(","), json.loads(sys.argv[3]) if len(sys.argv) > 3 else {})
