"""What `iberian vectors` costs: seconds and peak memory of full weights and of adapters, beside the plain way.

    python tests/benchmarks/vectors_speed.py FOLDER      # makes its models there: some 2.8 GB

The plain way is what one would write by hand: load everything with torch in float32, form each update, divide the
products. Every measurement is a process of its own; its peak memory includes the pages of mapped files.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

SHAPE = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 18, "num_attention_heads": 20,
         "num_key_value_heads": 10, "head_dim": 64}  # fmt: skip
# Llama-3.1-8B's, of which 2 of 32 layers are made.
ADAPTED = {"self_attn.q_proj": (4096, 4096), "self_attn.k_proj": (1024, 4096), "self_attn.v_proj": (1024, 4096),
           "self_attn.o_proj": (4096, 4096), "mlp.gate_proj": (14336, 4096), "mlp.up_proj": (14336, 4096),
           "mlp.down_proj": (4096, 14336)}  # fmt: skip
LAYERS, RANK, ADAPTERS = 2, 64, 5


def make(folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """A bfloat16 family of 0.45 billion parameters, and five adapters."""
    import torch
    from safetensors.torch import save_file

    from lm_eval_iberian.toy.tiny import build_family

    family = {name: folder / name for name in ("base", "instruct", "basque")}
    if not family["basque"].is_dir():
        build_family(folder, dtype="bfloat16", **SHAPE)
    adapters = [folder / f"adapter-{seed}" for seed in range(ADAPTERS)]
    for seed, place in enumerate(adapters):
        if place.is_dir():
            continue
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for layer in range(LAYERS):
            for module, (rows, columns) in ADAPTED.items():
                name = f"base_model.model.model.layers.{layer}.{module}"
                tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, columns, generator=generator).bfloat16()
                tensors[f"{name}.lora_B.weight"] = torch.randn(rows, RANK, generator=generator).bfloat16()
        place.mkdir()
        save_file(tensors, place / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "base_model_name_or_path": "base"}
        (place / "adapter_config.json").write_text(json.dumps(settings))
    return family, adapters


def ours_full(family: dict[str, Path]) -> float:
    return _ours([str(family["basque"]), str(family["instruct"])], str(family["base"]))


def ours_adapters(adapters: list[Path]) -> float:
    return _ours([str(adapter) for adapter in adapters], None)


def _ours(written: list[str], base: str | None) -> float:
    from merge_hooks.tools.vectors.compare import compare, cosines
    from merge_hooks.tools.vectors.inputs import open_vectors

    return float(cosines(compare(open_vectors(written, base)).whole)[0, 1])


def plain_full(family: dict[str, Path]) -> float:
    import torch
    from safetensors.torch import load_file

    base, *others = (load_file(family[name] / "model.safetensors") for name in ("base", "basque", "instruct"))
    one, other = (torch.cat([(side[n].float() - base[n].float()).flatten() for n in base]) for side in others)
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


def plain_adapters(adapters: list[Path]) -> float:
    """Forms the products, a layer's module of all adapters at a time: all at once would take 9 GB."""
    import torch
    from safetensors.torch import load_file

    held = [load_file(adapter / "adapter_model.safetensors") for adapter in adapters]
    total = torch.zeros(len(held), len(held), dtype=torch.float64)
    for name in held[0]:
        if ".lora_A." in name:
            left = name.replace(".lora_A.", ".lora_B.")
            block = torch.stack([(side[left].float() @ side[name].float()).flatten() for side in held])
            total += (block @ block.T).double()
    return float(total[0, 1] / (total[0, 0] * total[1, 1]).sqrt())


def measured(function: Callable[..., float], argument: object, answers: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    import mergekit.config  # noqa: F401  # loaded before the clock starts, on both sides: some 10 s, busy as it is
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, start_busy = time.perf_counter(), time.process_time()
    value = function(argument)
    seconds, busy = time.perf_counter() - start, time.process_time() - start_busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answers.put((seconds, busy, (peak - before) / 1e6, value))


def main() -> None:
    """Print a table: each way twice, in turn."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    family, adapters = make(folder)
    context = multiprocessing.get_context("spawn")
    print("| what | seconds | of processors | peak memory beyond imports, GB | cosine of the first two |")
    print("|---|---|---|---|---|")
    for _ in range(2):
        for function, argument in (
            (ours_full, family), (plain_full, family), (ours_adapters, adapters), (plain_adapters, adapters),
        ):  # fmt: skip
            answers = context.Queue()
            process = context.Process(target=measured, args=(function, argument, answers))
            process.start()
            seconds, busy, peak, value = answers.get()
            process.join()
            print(f"| {function.__name__} | {seconds:.2f} | {busy:.2f} | {peak:.2f} | {value:.8f} |", flush=True)


if __name__ == "__main__":
    main()
