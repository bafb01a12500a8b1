"""What a swap costs an engine of several ranks: bytes read and processor time, by all of them together.

    python tests/benchmarks/ranks_speed.py                  # makes three Llamas of 0.17 billion parameters: some 1 GB
    python tests/benchmarks/ranks_speed.py --small --ranks 1 2 --repeats 1      # to see that it runs

The ranks are plain processes with gloo between them, which run what vLLM's workers run: the merge, its digest, the
proof's prints, and a copy of each rank's own rows. vLLM itself is left out. "Shared" is what we do; "alone" is each
rank merging everything, as before. Sources lie in memory (residents) or are read from their files. The first swap, in which
residents are filled, is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from merge_speed import SHAPE, make_models, processor  # noqa: E402
from swap_speed import SMALL, recipe  # noqa: E402

from tests.merge_hooks.ranks import Ranks  # noqa: E402

MEDIUM = SHAPE | {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8, "num_attention_heads": 16,
                  "num_key_value_heads": 4, "vocab_size": 32000}  # fmt: skip
WIDE = SHAPE | {"num_hidden_layers": 2, "vocab_size": 8000, "hidden_size": 4096, "intermediate_size": 11008,
                "num_attention_heads": 32, "num_key_value_heads": 32}  # fmt: skip
GOAL = 1.3


def main() -> None:
    given = parse_arguments()
    result: dict[str, Any] = {"machine": f"{processor()}, {len(os.sched_getaffinity(0))} cores", "runs": []}
    with tempfile.TemporaryDirectory() as place:
        result["model_bytes"] = make_models(
            Path(place) / "models", "bfloat16", SMALL if given.small else WIDE if given.wide else MEDIUM
        )
        with Ranks() as ranks:
            for method in given.methods:
                for resident in given.residents:
                    for way in given.ways:
                        for size in given.ranks:
                            result["runs"].append(measure(ranks, Path(place), method, resident, way, size, given))
                            print(result["runs"][-1], file=sys.stderr, flush=True)
    print(as_table(result))
    if given.json:
        Path(given.json).write_text(json.dumps(result, indent=1), encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["linear", "ties"])
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--residents", nargs="+", default=["memory", "off"], choices=["memory", "off"])
    parser.add_argument("--ways", nargs="+", default=["shared", "alone"], choices=["shared", "broadcast", "alone"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--new-density", action="store_true", help="change it with each swap, too (TIES counts anew)")
    parser.add_argument("--wide", action="store_true", help="two layers of a 7B: 2 GB of files")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", help="write the measurements there")
    return parser.parse_args()


def measure(
    ranks: Ranks, place: Path, method: str, resident: str, way: str, size: int, given: argparse.Namespace
) -> dict[str, Any]:
    """Sums over the ranks, each the median of all swaps but the first."""
    repeats = given.repeats
    densities = [0.5 + given.new_density * step / 64 for step in range(repeats + 1)]
    recipes = [recipe(place / "models", method, "bfloat16", 0.5 + step / 64, density)
               for step, density in enumerate(densities)]  # fmt: skip
    folder = Path(tempfile.mkdtemp(dir=place))
    found = ranks.run(folder, size, recipes, longest=900, timeout=900, warm=True, resident=resident,
                      alone=way == "alone", maps=way == "shared")  # fmt: skip
    if failed := [one for one in found if "swaps" not in one or "error" in one]:
        sys.exit(f"a rank failed: {failed[0]}")
    swaps = [[one["swaps"][number] for one in found] for number in range(repeats + 1)]
    assert len({swap["digest"] for swap in swaps[-1]}) == 1
    later = swaps[1:]
    return {
        "method": method, "resident": resident, "way": way, "ranks": size,
        "read": sum(one["read"] for one in swaps[0]) if resident == "memory" else sum(one["read"] for one in later[-1]),
        "processor": statistics.median(sum(one["processor"] for one in swap) for swap in later),
        "seconds": statistics.median(max(one["seconds"] for one in swap) for swap in later),
        "held": sum(one["resident"] for one in found),
    }  # fmt: skip


def as_table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['model_bytes'] / 2e9:.2f} billion parameters, bfloat16; {result['machine']}; load {os.getloadavg()[0]:.1f}.",
        "", "| method | sources | way | ranks | read, GB | held, GB | processor, s | of one rank's | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for run in result["runs"]:
        one = next((row for row in result["runs"] if row["ranks"] == 1 and all(
            row[key] == run[key] for key in ("method", "resident"))), run)  # fmt: skip
        lines.append(
            f"| {run['method']} | {'in memory' if run['resident'] == 'memory' else 'from files'} | {run['way']} | {run['ranks']} | "
            f"{run['read'] / 1e9:.2f} | {run['held'] / 1e9:.2f} | {run['processor']:.2f} | "
            f"{run['processor'] / one['processor']:.2f} | {run['seconds']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
