"""Does merging the toys show what the paper shows? Measures it, over seeds.

    python tests/benchmarks/toy_effect.py --out toy_effect.json          # 3 seeds; prints the tables

For each seed a family is trained (cached in --folder), and for each language the parents, the paper's merge methods
and the sweep of the language model's weight are scored on the toy tasks: multiple choice (mean of pairs, stories and
questions), translation into the language (BLEU, from Spanish and English) without a chat template; IFEval in the
language and in Spanish with it (strict, instruction level).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SWEPT = ("linear", "task_arithmetic")
WEIGHTS = (0.5, 1.5, 2.0)
COLUMNS = {
    "choice": "multiple choice",
    "mt": "translation into it (BLEU)",
    "ifeval": "IFEval in it",
    "ifeval_es": "IFEval es",
}


def systems(models: dict[str, Path], language_model: str, sweep: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """name -> arguments of the model `merged`."""
    from lm_eval_iberian.toy.recipes import METHODS, recipe

    for name in ("base", "instruct", language_model):
        yield name, {"pretrained": str(models[name])}
    for method in METHODS:
        yield method, {"recipe": recipe(models, language_model, method)}
    for method in SWEPT if sweep else ():
        for weight in WEIGHTS:
            yield f"{method} {weight}", {"recipe": recipe(models, language_model, method, weight)}


def score(arguments: dict[str, Any], language: str, documents: int | None) -> dict[str, float]:
    """The figures of one model in one language, in percent; and every task's own."""
    from lm_eval import simple_evaluate

    from lm_eval_iberian.models.hf import MergedHF
    from lm_eval_iberian.sweep.kept_tasks import our_tasks

    model = MergedHF(**arguments, batch_size=64, device="cpu", max_length=512)
    choice = [f"toy_{kind}_{language}" for kind in ("pairs", "story", "exam")]
    translation = [f"toy_mt_{source}-{language}" for source in ("es", "en")]
    ask = lambda tasks, chat: simple_evaluate(  # noqa: E731
        model=model,
        tasks=tasks,
        apply_chat_template=chat,
        bootstrap_iters=0,
        log_samples=False,
        limit=documents,
        task_manager=our_tasks(),
    )["results"]
    found = ask(choice + translation, False) | ask([f"toy_ifeval_{language}", "toy_ifeval_es"], True)
    tasks = {name: value(found[name]) for name in (*choice, *translation, f"toy_ifeval_{language}", "toy_ifeval_es")}
    return {
        "choice": statistics.fmean(tasks[name] for name in choice),
        "mt": statistics.fmean(tasks[name] for name in translation),
        "ifeval": tasks[f"toy_ifeval_{language}"],
        "ifeval_es": tasks["toy_ifeval_es"],
        **tasks,
    }


def value(result: dict[str, Any]) -> float:
    """The metric that counts, in percent."""
    if "bleu,none" in result:
        return float(result["bleu,none"])
    return 100 * float(result.get("acc,none", result.get("inst_level_strict_acc,none", float("nan"))))


def measure(
    seed: int, folder: Path, languages: list[str], sweep: bool, documents: int | None, base_instructions: float
) -> list[dict[str, Any]]:
    """All rows of one seed."""
    from lm_eval_iberian.toy.train import LANGUAGE_MODELS, Settings, build_family

    started = time.process_time()
    wanted = tuple(name for name, code in LANGUAGE_MODELS.items() if code in languages)
    settings = Settings(base_instructions=base_instructions)
    name = f"seed{seed}" + (f"-{base_instructions}" if base_instructions else "")
    models = build_family(folder / name, seed, settings, models=("instruct", *wanted))
    print(f"seed {seed}: family ready, {time.process_time() - started:.0f} s of CPU time", flush=True)
    rows = []
    for language_model, language in LANGUAGE_MODELS.items():
        if language not in languages:
            continue
        for name, arguments in systems(models, language_model, sweep):
            shown = "language model" if name == language_model else name
            rows.append({"seed": seed, "language": language, "system": shown, **score(arguments, language, documents)})
            print(json.dumps({key: rows[-1][key] for key in ("seed", "language", "system", *COLUMNS)}), flush=True)
    return rows


def tables(rows: list[dict[str, Any]]) -> str:
    """A Markdown table a language: mean over seeds, and the sample SD."""
    text = []
    for language in dict.fromkeys(row["language"] for row in rows):
        text += [f"\n**{language}**\n", "| | " + " | ".join(COLUMNS.values()) + " |", "|---" * 5 + "|"]
        of_language = [row for row in rows if row["language"] == language]
        for system in dict.fromkeys(row["system"] for row in of_language):
            cells = [shown([row[c] for row in of_language if row["system"] == system]) for c in COLUMNS]
            text.append(f"| {system} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def shown(values: list[float]) -> str:
    """ "61.2 ±1.4"; no spread for one value."""
    spread = f" ±{statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def main() -> None:
    """Measure, write JSON, print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--languages", nargs="+", default=["eu", "gl", "ca"])
    parser.add_argument("--folder", type=Path, default=Path(".toys"), help="where families are kept")
    parser.add_argument("--out", type=Path, default=Path("toy_effect.json"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-sweep", action="store_true", help="methods at weight 1 only")
    parser.add_argument("--documents", type=int, help="of each task, the first so many; all, where not given")
    parser.add_argument("--base-instructions", type=float, default=0.0, help="share of them in what the base reads")
    parser.add_argument("--tables", type=Path, nargs="+", help="measure nothing: print the tables of these JSON files")
    arguments = parser.parse_args()
    if arguments.tables:
        print(tables([row for file in arguments.tables for row in json.loads(file.read_text(encoding="utf-8"))]))
        return
    import torch

    from lm_eval_iberian.plugin import activate

    torch.set_num_threads(arguments.threads)
    logging.disable(logging.WARNING)
    activate()
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        sweep = not arguments.no_sweep
        rows += measure(
            seed, arguments.folder, arguments.languages, sweep, arguments.documents, arguments.base_instructions
        )
        arguments.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(tables(rows))


if __name__ == "__main__":
    main()
