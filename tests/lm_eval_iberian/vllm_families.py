"""vLLM and transformers on merges of one family, in a process of their own: `python vllm_families.py FOLDER NAME`.

Prints one JSON line, which `test_vllm_families.py` asserts on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.lm_eval_iberian.vllm_swaps import answers

# vLLM's attention of these is for bfloat16 only on a CPU.
IN_BFLOAT16 = ("qwen3_5", "qwen3_5_vl", "qwen3_5_moe", "qwen3_next")


def recipe(made: dict[str, Path], weight: float, dtype: str) -> dict[str, Any]:
    """A linear merge of the two."""
    models = [{"model": str(made[name]), "parameters": {"weight": own}}
              for name, own in (("a", weight), ("b", round(1 - weight, 2)))]  # fmt: skip
    return {"merge_method": "linear", "models": models, "dtype": dtype}


def main(folder: Path, name: str) -> dict[str, Any]:
    """Answers of both engines: of one merge, of another after a swap, and of the first again."""
    from lm_eval_iberian.models.hf import MergedHF
    from lm_eval_iberian.models.vllm import MergedVLLM
    from lm_eval_iberian.toy import tiny
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve
    from tests.merge_hooks.families import make_family

    dtype = "bfloat16" if name in IN_BFLOAT16 else "float32"
    made = make_family(name, folder, ("a", "b"), step=0.3)
    for place in made.values():
        tiny.build_tokenizer(300).save_pretrained(place)
    merges = [recipe(made, weight, dtype) for weight in (0.3, 0.8)]
    plain = MergedHF(recipe=merges[0], dtype=dtype, device="cpu")
    wanted = [answers(plain)]
    plain.swap(resolve(read_recipe(merges[1])))
    wanted.append(answers(plain))
    engine = MergedVLLM(recipe=merges[0], dtype=dtype, max_model_len=256)
    started = engine.model
    found, proofs = [answers(engine)], [engine.proof.in_words]
    engine.swap(resolve(read_recipe(merges[1])))
    way = "swaps" if engine.model is started else "restarts"
    found.append(answers(engine))
    proofs.append(engine.proof.in_words)
    engine.swap(resolve(read_recipe(merges[0])))
    found.append(answers(engine))
    return {"family": name, "dtype": dtype, "way": way, "proofs": proofs, "transformers": wanted, "vllm": found}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
