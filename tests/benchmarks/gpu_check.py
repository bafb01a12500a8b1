"""Does this GPU merge and score as a CPU does, and how fast? One command, at most 9 minutes; no network and no vLLM.

    python tests/benchmarks/gpu_check.py --json gpu_check.json      # one GPU; with 80 GB in full, else fewer layers
    python tests/benchmarks/gpu_check.py --small                    # anywhere, a CPU too: to see that it runs

Five parts, each by itself: one that fails is named, with its error, and the others go on. It needs PyTorch; the toys
and the scoring also need lm_eval, mergekit and transformers (pure Python).

    speed      a swap of 8B shapes, a base and two models in bfloat16, beside a copy on the same device (gpu_swap.py)
    bytes      every method, dtype, size and density: the device's bytes beside those of the CPU's kernel
    toys       backend=hf: toy_suite after a load and after a swap, beside the CPU's answers
    scoring    questions with four choices on a model of a billion parameters: prefix scoring beside lm_eval's HFLM
    large      an embedding of 256,000 x 8,192, and a matrix of more than 2^31 elements

Exits with 1 if a part failed. `--toys FOLDER` takes trained toys (`iberian toy`); else toys with random weights are
made.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import gpu_swap  # noqa: E402
import torch  # noqa: E402

from merge_hooks.kernels.blocks import Workers  # noqa: E402
from merge_hooks.kernels.choose import Way, begin  # noqa: E402
from merge_hooks.kernels.operands import Operand, Operands  # noqa: E402
from merge_hooks.kernels.task_arithmetic import FORMS  # noqa: E402

METHODS = ("linear", *FORMS)
SMALL_METHODS = ("linear", "ties", "dare_linear")  # on a CPU each takes seconds to compile
# Around a block's end (2^19 elements), and where a last piece is short.
SIZES = (1, 7, 1000, (1 << 19) - 1, (1 << 19) + 1, 3 * (1 << 19) + 77)
SMALL_SIZES = (1, 7, 1000, 70_001)
# Log-likelihoods of float32 models on two devices: sums of a few hundred terms, in other orders.
TOLERANCE = 2e-3
# A Llama of about a billion parameters, as Llama 3.2 1B.
BILLION = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 8192}  # fmt: skip
TINY = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 8192}  # fmt: skip
# A part is not begun when so many seconds of the whole are left.
LAST_START = 30


class WrongError(Exception):
    """What a part found to be wrong, for people."""


def main() -> None:
    given = parse_arguments()
    started = time.perf_counter()
    result: dict[str, Any] = {
        "device": gpu_swap.describe(given.device),
        "small": given.small,
        "machine": machine(),
        "parts": {},
    }
    for name, part in PARTS.items():
        if given.parts and name not in given.parts:
            continue
        left = 60 * given.minutes - (time.perf_counter() - started)
        result["parts"][name] = found = (
            checked(part, given) if left > LAST_START else {"ok": False, "error": "no time left"}
        )
        print(as_text(name, found), flush=True)
        if given.json:  # after each part: whatever ends the run, what was found is there
            Path(given.json).write_text(json.dumps(result, indent=1), encoding="utf-8")
        empty_cache(given.device)
    failed = [name for name, found in result["parts"].items() if not found["ok"]]
    print(f"\n{result['device']}: {'failed: ' + ', '.join(failed) if failed else 'all parts passed'}; "
          f"{time.perf_counter() - started:.0f} s")  # fmt: skip
    sys.exit(1 if failed else 0)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    parser.add_argument("--device", default=str(found))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--toys", type=Path, help="a folder with base, instruct and basque")
    parser.add_argument("--minutes", type=float, default=9, help="no part begins after that")
    parser.add_argument("--json", help="write the findings there")
    return parser.parse_args()


def checked(part: Callable[[argparse.Namespace], dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    """A part's findings, or its error: nothing that one part does stops the others."""
    started = time.perf_counter()
    try:
        found = {"ok": True, **part(given)}
    except WrongError as error:
        found = {"ok": False, "error": str(error)}
    except Exception as error:
        found = {"ok": False, "error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    return {**found, "seconds": time.perf_counter() - started}


def machine() -> dict[str, Any]:
    found = {"python": platform.python_version(), "processors": os.cpu_count(), "load": os.getloadavg()[0]}
    for name in ("torch", "transformers", "mergekit", "lm_eval", "numba"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


# speed


def speed(given: argparse.Namespace) -> dict[str, Any]:
    """gpu_swap.py's measurement, with as many layers as fit: three sources, the result, and what a merge needs."""
    sizes = gpu_swap.SMALL if given.small else dict(gpu_swap.LARGE)
    if given.device.startswith("cuda"):
        free = torch.cuda.mem_get_info()[0]
        while sizes["layers"] > 1 and 2 * 4 * elements(sizes) > 0.85 * free:
            sizes["layers"] -= 1
    found = gpu_swap.run(given.device, sizes, 1 if given.small else 5)
    return {"table": gpu_swap.as_table(found), "measured": found, "layers": sizes["layers"]}


def elements(sizes: dict[str, int]) -> int:
    return sum(torch.Size(shape).numel() for _, shape in gpu_swap.shapes(sizes))


# bytes


def same_bytes(given: argparse.Namespace) -> dict[str, Any]:
    """Every kernel, against the CPU's."""
    sizes, methods = (SMALL_SIZES, SMALL_METHODS) if given.small else (SIZES, METHODS)
    wrong, count = [], 0
    for method, dtype, size, density in product(methods, (torch.float32, torch.bfloat16), sizes, (0.3, 1.0)):
        own = example(method, dtype, size, density)
        wanted, found = merged(own, cpu_way()), merged(moved(own, given.device), Way.GPU)
        count += 1
        if not torch.equal(wanted.view(torch.uint8), found.cpu().view(torch.uint8)):
            differ = int((wanted != found.cpu()).sum())
            wrong.append(f"{method} {str(dtype)[6:]} size {size} density {density}: {differ} elements")
    if wrong:
        raise WrongError(f"{len(wrong)} of {count} merges have other bytes than the CPU's: {'; '.join(wrong[:12])}")
    return {"text": f"{count} merges ({len(methods)} methods, float32 and bfloat16, up to {max(sizes):,} elements): "
                    "the CPU's bytes", "count": count}  # fmt: skip


def cpu_way() -> Way:
    """The compiled kernel, which is what CPUs use; without numba the same steps by torch."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return Way.ROWS
    return Way.ONE_PASS


def example(method: str, dtype: torch.dtype, size: int, density: float) -> Operands:
    """A base and two models: deltas of every size, some 0."""
    generator = torch.Generator().manual_seed(size)
    base = torch.randn(size, generator=generator) * 0.02
    steps = [torch.randn(size, generator=generator) * 0.003 for _ in range(2)]
    steps[0][::3], steps[1][::5] = 2.0**-9, 0.0
    return operands(method, dtype, [base, *(base + step for step in steps)], density)


def operands(method: str, dtype: torch.dtype, tensors: list[torch.Tensor], density: float) -> Operands:
    """A merge of these, of which the first is the base."""
    places = (0, 1, 2) if method == "linear" else (None, 0, 1)
    inputs = tuple(
        Operand(tensor.to(dtype), place, {"weight": weight, "density": density, "gamma": 0.01})
        for tensor, place, weight in zip(tensors, places, (0.5, 0.6, -0.4), strict=True)
    )
    shared = {"normalize": True, "rescale": method.startswith("dare"), "lambda": 0.9}
    return Operands("check", method, inputs, shared, dtype, dtype)


def moved(given: Operands, device: str) -> Operands:
    return replace(given, inputs=tuple(replace(one, tensor=one.tensor.to(device)) for one in given.inputs))


def merged(given: Operands, way: Way) -> torch.Tensor:
    with Workers() as workers:
        return begin(given, workers, 0, way)().tensor


# toys


def toys(given: argparse.Namespace) -> dict[str, Any]:
    """Two merges of the toys, one loaded and one swapped in: every answer of toy_suite, beside the CPU's."""
    from lm_eval.tasks import TaskManager

    from lm_eval_iberian.folders import tasks_folder
    from lm_eval_iberian.plugin import activate

    activate()
    os.environ.setdefault("IBERIAN_DATA", "samples")
    # lm_eval's own tasks take half a minute to find.
    manager = TaskManager(include_path=str(tasks_folder() / "toy"), include_defaults=False)
    tasks, limit = (["toy_eu", "toy_mt_es-eu", "toy_ifeval_eu"], 2) if given.small else (["toy_suite"], 10)
    with tempfile.TemporaryDirectory() as place:
        models = toy_models(given, Path(place))
        merges = [toy_merge(models, weight) for weight in (0.5, 1.0)]
        found = toy_answers(merges, given.device, tasks, limit, manager)
        wanted = toy_answers(merges, "cpu", tasks, limit, manager)
    differences: list[float] = []
    texts = same = 0
    for own, other in zip(found, wanted, strict=True):
        if own["digest"] != other["digest"]:
            raise WrongError(f"the merge has other weights on {given.device}: {own['digest']} and {other['digest']}")
        for one, two in zip(own["answers"], other["answers"], strict=True):
            if isinstance(one, str):
                texts, same = texts + 1, same + (one == two)
            else:
                differences.append(abs(one - two))
    worst = max(differences)
    scores = [(own["scores"][name], value) for own, other in zip(found, wanted, strict=True)
              for name, value in other["scores"].items()]  # fmt: skip
    alike = sum(one == two for one, two in scores)
    words = (f"{len(merges)} merges: {alike} of {len(scores)} scores equal the CPU's; {len(differences)} log-likelihoods, "
             f"largest difference {worst:.1e}; {same} of {texts} texts are the same")  # fmt: skip
    if worst > TOLERANCE or not scores or found[0]["digest"] == found[1]["digest"]:
        raise WrongError(words)
    return {"text": words, "largest_difference": worst, "texts": [same, texts], "scores": [alike, len(scores)]}


def toy_models(given: argparse.Namespace, folder: Path) -> dict[str, Path]:
    from lm_eval_iberian.toy import tiny, train

    if given.toys:
        return {name: given.toys / name for name in ("base", "instruct", "basque")}
    return tiny.build_family(
        folder / "toys", **{key: value for key, value in train.SHAPE.items() if key != "initializer_range"}
    )


def toy_merge(models: dict[str, Path], weight: float) -> dict[str, Any]:
    rows = [{"model": str(models[name]), "parameters": {"weight": own}}
            for name, own in (("instruct", 1.0), ("basque", weight))]  # fmt: skip
    return {"merge_method": "task_arithmetic", "base_model": str(models["base"]), "models": rows, "dtype": "float32"}


def toy_answers(
    merges: list[dict[str, Any]], device: str, tasks: list[str], limit: int, manager: Any
) -> list[dict[str, Any]]:
    """Of each merge: the digest, all answers in order, and the scores."""
    from lm_eval import simple_evaluate

    from lm_eval_iberian.models.hf import MergedHF
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve

    model = MergedHF(recipe=merges[0], dtype="float32", device=device, batch_size=16, resident="auto")
    found = []
    for merge in merges:
        digest = model.swap(resolve(read_recipe(merge)))
        results = simple_evaluate(model=model, tasks=tasks, limit=limit, bootstrap_iters=0, task_manager=manager)
        answers: list[Any] = []
        for task in sorted(results["samples"]):
            for sample in results["samples"][task]:
                answers += flat(sample["resps"])
        scores = {f"{task} {name}": value for task, row in results["results"].items() for name, value in row.items()
                  if isinstance(value, float)}  # fmt: skip
        found.append({"digest": digest, "answers": answers, "scores": scores})
    return found


def flat(answers: Any) -> Iterator[Any]:
    """Texts, and the numbers of (log-likelihood, is greedy)."""
    if isinstance(answers, (list, tuple)):
        for answer in answers:
            yield from flat(answer)
    elif isinstance(answers, str) or (isinstance(answers, float) and not isinstance(answers, bool)):
        yield answers


# scoring


def scoring(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds and memory of both ways over the same requests; the same choice must win."""
    from lm_eval.models.huggingface import HFLM

    from lm_eval_iberian.models.hf import MergedHF
    from lm_eval_iberian.toy import tiny

    dtype = "float32" if given.device == "cpu" else "bfloat16"
    shape, vocabulary = (TINY, 4000) if given.small else (BILLION, 128_256)
    with tempfile.TemporaryDirectory() as place:
        tokenizer, folder = tiny.build_tokenizer(), Path(place) / "model"
        with torch.device(given.device):
            model = tiny.random_model("llama", vocabulary, 0, **shape, initializer_range=0.05)
        count = sum(parameter.numel() for parameter in model.parameters())
        tiny.save(model.cpu(), tokenizer, folder, dtype)
        del model
        asked = questions(4 if given.small else 100, 300 if given.small else 700, tokenizer)
        rows = {}
        for name, kind in (("prefix", MergedHF), ("HFLM", HFLM)):
            empty_cache(given.device)
            lm = kind(pretrained=str(folder), dtype=dtype, device=given.device, batch_size=4 if given.small else 16)
            score(lm, asked[:4], given.device)  # warm
            gpu_swap.reset_peak(given.device)
            started = time.perf_counter()
            answers = score(lm, asked, given.device)
            rows[name] = {
                "seconds": time.perf_counter() - started,
                "peak": gpu_swap.peak(given.device),
                "answers": answers,
            }
            del lm
    ours, theirs = rows["prefix"].pop("answers"), rows["HFLM"].pop("answers")
    worst = max(abs(one - two) for one, two in zip(ours, theirs, strict=True))
    best = [[max(range(4), key=scores[start:start + 4].__getitem__) for start in range(0, len(scores), 4)]
            for scores in (ours, theirs)]  # fmt: skip
    agree = sum(one == two for one, two in zip(*best, strict=True))
    peaks = [rows[name]["peak"] for name in ("prefix", "HFLM")]
    memory = (
        "memory not counted"
        if peaks[0] is None
        else f"{peaks[0] / 1e9:.2f} and {peaks[1] / 1e9:.2f} GB beyond the model"
    )
    words = (f"{count / 1e9:.2f} billion parameters, {dtype}, {len(best[0])} questions of four choices: "
             f"{rows['prefix']['seconds']:.2f} s, HFLM {rows['HFLM']['seconds']:.2f} s; {memory}; largest difference "
             f"{worst:.1e}, the same choice in {agree} of {len(best[0])}")  # fmt: skip
    # bfloat16 keeps 8 bits: sums in another order differ in the second digit, and close choices may turn.
    if worst > (TOLERANCE if dtype == "float32" else 0.5) or agree < 0.9 * len(best[0]):
        raise WrongError(words)
    return {"text": words, "measured": rows, "largest_difference": worst, "same_choice": [agree, len(best[0])]}


def questions(count: int, tokens: int, tokenizer: Any) -> list[tuple[str, str]]:
    """(prompt, choice): four to a prompt; half of a prompt are examples that all share."""
    from lm_eval_iberian.toy.tiny import sample_texts

    words = " ".join(" ".join(text for text, _ in zip(sample_texts(), range(2000), strict=False)).split()).split(" ")
    each = int(tokens / len(tokenizer(" ".join(words[:2000]))["input_ids"]) * 2000 / 2)
    examples, found = " ".join(words[:each]), []
    for number in range(count):
        start = (number + 1) * each % (len(words) - each)
        prompt = f"{examples}\n\n{number}. {' '.join(words[start : start + each])}\nErantzuna:"
        found += [(prompt, f" {choice}") for choice in ("bai noski", "ez da", "agian bai", "inoiz ez")]
    return found


def score(lm: Any, asked: list[tuple[str, str]], device: str) -> list[float]:
    from lm_eval.api.instance import Instance

    requests = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(asked)]
    found = [value for value, _ in lm.loglikelihood(requests, disable_tqdm=True)]
    gpu_swap.synchronize(device)
    return found


# large


def large(given: argparse.Namespace) -> dict[str, Any]:
    """Matrices that are one block of rows over and over: so must be their merge, and the proof's print of it."""
    from merge_hooks.engines.proof import take

    width, rows = (64, 32) if given.small else (8192, 1000)
    cases = {"embedding of 256,000 x 8,192": 256, "2,150,400,000 elements": 263}
    wrong, measured = [], {}
    for (name, copies), method in product(cases.items(), ("linear", "task_arithmetic", "ties")):
        tile = tiles(rows, width)
        small = operands(method, torch.bfloat16, tile, 0.5)
        wanted = merged(small, cpu_way())
        whole = replace(small, inputs=tuple(
            replace(one, tensor=one.tensor.to(given.device).repeat(copies, 1)) for one in small.inputs))  # fmt: skip
        gpu_swap.reset_peak(given.device)
        gpu_swap.synchronize(given.device)
        started = time.perf_counter()
        found = merged(whole, Way.GPU)
        gpu_swap.synchronize(given.device)
        seconds = time.perf_counter() - started
        blocks = found.view(copies, rows, width)
        there = wanted.to(given.device).view(torch.int16)
        bad = [place for place in range(copies) if not torch.equal(blocks[place].view(torch.int16), there)]
        if bad:
            wrong.append(
                f"{method}, {name}: {len(bad)} of {copies} blocks differ from the CPU's, the first at row {bad[0] * rows}"
            )
        if not torch.equal(take(found).columns.view(copies, rows, -1)[-1], take(wanted).columns):  # type: ignore[union-attr]
            wrong.append(f"{method}, {name}: its print's last rows are not those of its rows")
        measured[f"{method}, {name}"] = {"seconds": seconds, "peak": gpu_swap.peak(given.device),
                                         "elements": found.numel()}  # fmt: skip
        del whole, found, blocks
        empty_cache(given.device)
    if wrong:
        raise WrongError("; ".join(wrong))
    lines = [f"{name} ({row['elements']:,}): {row['seconds']:.3f} s" for name, row in measured.items()]
    return {"text": "\n".join(lines), "measured": measured}


def tiles(rows: int, width: int) -> list[torch.Tensor]:
    """A base and two models. Exactly half of each delta is far from 0, so at density 0.5 nothing ties at the threshold."""
    generator = torch.Generator().manual_seed(5)
    base = torch.randn(rows, width, generator=generator).mul_(0.02).to(torch.bfloat16).float()
    found = [base]
    for _ in range(2):
        step = torch.rand(rows * width, generator=generator) * 0.01 + 0.02
        step *= torch.randint(0, 2, step.shape, generator=generator) * 2 - 1
        step[torch.randperm(len(step), generator=generator)[: len(step) // 2]] = 0.0
        found.append(base + step.view(rows, width))
    return found


def empty_cache(device: str) -> None:
    import gc

    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def as_text(name: str, found: dict[str, Any]) -> str:
    head = f"\n## {name}: {'passed' if found['ok'] else 'FAILED'}, {found.get('seconds', 0):.0f} s"
    return "\n".join([head, found.get("error") or found.get("table") or found.get("text", "")])


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "speed": speed, "bytes": same_bytes, "toys": toys, "scoring": scoring, "large": large,
}  # fmt: skip


if __name__ == "__main__":
    main()
