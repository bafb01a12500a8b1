"""Tiny checkpoints with random weights, a real BPE tokenizer and a chat template: for tests that need only shapes.

    build_family(Path("models"))     # models/base, models/instruct, models/basque

They have the structure of real ones and load in a second everywhere. They have learnt nothing, so every score is at
chance. `instruct` and `basque` are the base plus small random steps, as fine-tunes are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lm_eval_iberian.folders import tasks_folder

SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start|>", "<|end|>", "<|pad|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
SHAPE = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32,  # vLLM's CPU attention takes no smaller head
    "max_position_embeddings": 4096,
}  # fmt: skip
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"tie_word_embeddings": False}),
    "qwen3": ("Qwen3Config", {"tie_word_embeddings": True}),
    "mistral": ("MistralConfig", {"tie_word_embeddings": False, "sliding_window": None}),
    "gemma": ("GemmaConfig", {"tie_word_embeddings": True}),
}


# Samples that came later: without them the tokenizer, and so what random models say in tests, stays as it was.
LATER = ("companion_*", "blimp/*", "belebele/*/por_Latn/*", "multiblimp/*/por/*")


def build_family(
    folder: Path, architecture: str = "llama", seed: int = 0, dtype: str = "float32", **shape: Any
) -> dict[str, Path]:
    """Write three related checkpoints: base, instruct and basque.

    Args:
        folder: they go to folder/base, folder/instruct, folder/basque.
        architecture: a key of ARCHITECTURES.
        dtype: of the files.
        shape: entries of SHAPE to change.
    Returns:
        name -> folder.
    """
    import torch

    tokenizer = build_tokenizer()
    paths = {name: folder / name for name in ("base", "instruct", "basque")}
    model = random_model(architecture, len(tokenizer), seed, **shape)
    generator = torch.Generator().manual_seed(seed + 1)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for index, path in enumerate(paths.values()):
        if index:
            with torch.no_grad():
                for name, tensor in model.state_dict().items():
                    step = torch.randn(tensor.shape, generator=generator) * 0.02
                    tensor.copy_(base[name] + step)
        save(model, tokenizer, path, dtype)
    return paths


def random_model(architecture: str, vocabulary: int, seed: int, **shape: Any) -> Any:
    """A causal model of this architecture with seeded random weights, in float32."""
    import torch
    import transformers

    config_class, extra = ARCHITECTURES[architecture]
    config = getattr(transformers, config_class)(
        vocab_size=vocabulary, bos_token_id=0, eos_token_id=1, pad_token_id=4, **{**SHAPE, **extra, **shape}
    )
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def save(model: Any, tokenizer: Any, path: Path, dtype: str = "float32") -> None:
    """Write a checkpoint: weights in `dtype`, config, generation config, tokenizer."""
    import copy

    import torch

    cast = copy.deepcopy(model).to(getattr(torch, dtype))
    cast.config.dtype = dtype
    cast.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")]
    cast.save_pretrained(path)
    tokenizer.save_pretrained(path)


def build_tokenizer(size: int = 2000, texts: Iterable[str] | None = None) -> Any:
    """A byte-level BPE tokenizer trained on the embedded samples, or on these texts, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample_texts() if texts is None else texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL[0]} $A", pair=f"{SPECIAL[0]} $A $B", special_tokens=[(SPECIAL[0], 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        pad_token=SPECIAL[4],
        additional_special_tokens=SPECIAL[2:4],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def sample_texts() -> Iterator[str]:
    """Every string in the embedded samples, in a fixed order, but for those of LATER."""
    folder = tasks_folder()
    for file in sorted(folder.glob("*/samples/**/*.jsonl")):
        if any(fnmatch(file.relative_to(folder).as_posix(), pattern) for pattern in LATER):
            continue
        for line in file.read_text(encoding="utf-8").splitlines():
            yield from _strings(json.loads(line))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


RECIPE = """\
# A language model and an instruct model, averaged: the paper's "linear". No checkpoint of it is ever written.
merge_method: linear
models:
  - model: models/basque
    parameters: {weight: 1.0}
  - model: models/instruct
    parameters: {weight: 1.0}
dtype: float32
"""


def main() -> None:
    """`python -m lm_eval_iberian.toy.tiny FOLDER`: three tiny checkpoints and a recipe to merge them."""
    import sys

    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".demo")
    paths = build_family(folder / "models")
    (folder / "merge.yml").write_text(RECIPE, encoding="utf-8")
    print(f"Tiny models with random weights: {', '.join(str(path) for path in paths.values())}")
    print(f"A recipe that merges two of them: {folder / 'merge.yml'}")


if __name__ == "__main__":
    main()
