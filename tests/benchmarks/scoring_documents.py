"""Models and requests for scoring_speed.py: a small Llama, and lm_eval's own requests of five tasks.

EusTrivia's documents are the real ones where ../shared/data/hitz is at hand. All other documents are the embedded
samples, written for this project, told apart by a number and brought to the length of the real ones: a passage is
continued with others until it is as long as the data set's mean.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("IBERIAN_SHARED", ROOT.parent / "shared"))
# Mean length of the real passages in characters: EusReading's from its card; Belebele's samples are as long as it.
READING_CHARACTERS = 5340
VOCABULARY = 32000  # Llama 2's, and so Latxa's
# body: parameters of the layers; the head has vocabulary x width more.
SHAPES: dict[str, dict[str, Any]] = {
    "small": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 8,
              "num_key_value_heads": 4, "vocab_size": VOCABULARY},
    # A head that is 11 % of the model, as in models of 1 to 8 billion parameters.
    "deep": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 12, "num_attention_heads": 16,
             "num_key_value_heads": 8, "vocab_size": 8000},
}  # fmt: skip
# name -> task, shots
TASKS = {
    "EusTrivia 5-shot": ("iberian_eus_trivia", 5),
    "Belebele 5-shot": ("iberian_belebele_eu", 5),
    "EusReading 5-shot": ("iberian_eus_reading", 5),
    "XStoryCloze 0-shot": ("iberian_xstorycloze_eu", 0),
    "XStoryCloze 5-shot": ("iberian_xstorycloze_eu", 5),
    "OpenBookQA 5-shot": ("iberian_openbookqa_gl", 5),
}


def make_model(folder: Path, shape: str) -> Path:
    """A float32 Llama with random weights and the tokenizer of lm_eval_iberian.toy.tiny (2,000 tokens)."""
    from lm_eval_iberian.toy.tiny import build_tokenizer, random_model, save

    tokenizer = build_tokenizer()
    # Wider than transformers' 0.02, with which every token would be about equally likely and nothing told apart.
    changes = {"initializer_range": 0.1, "head_dim": 32, "max_position_embeddings": 16384} | SHAPES[shape]
    model = random_model("llama", changes.pop("vocab_size"), 0, **changes)
    save(model, tokenizer, folder / shape)
    return folder / shape


def make_mirror(folder: Path, count: int) -> str:
    """A mirror folder with at least `count` documents a task. Returns where EusTrivia's come from."""
    from lm_eval_iberian.folders import tasks_folder

    for path in sorted(tasks_folder().glob("*/samples/**/*.jsonl")):
        parts = path.relative_to(tasks_folder()).parts
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        write(folder / Path(*parts[2:]), list(islice(told_apart(rows, parts[0]), count + 12)))
    real = SHARED / "data" / "hitz" / "eus_trivia.jsonl"
    if real.is_file():
        (folder / "HiTZ/EusTrivia/default/test.jsonl").write_bytes(real.read_bytes())
        return f"{real.read_bytes().count(10)} real ones"
    return "samples"


def told_apart(rows: list[dict[str, Any]], task: str) -> Iterator[dict[str, Any]]:
    """The rows over and over, each with a number in its text; passages as long as real ones."""
    change = {"eus_reading": longer_passage(rows)}.get(task, lambda row, number: row)
    for number, row in enumerate(cycle(rows)):
        row = change(dict(row), number)
        key = next((name for name in ("context", "flores_passage", "question_stem", "input_sentence_1", "question")
                    if isinstance(row.get(name), str)), None)  # fmt: skip
        yield row | ({key: f"{number}. {row[key]}"} if key else {})


def longer_passage(rows: list[dict[str, Any]]) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    passages = [row.get("context", "") for row in rows]

    def change(row: dict[str, Any], number: int) -> dict[str, Any]:
        following = passages[number % len(rows) :] + passages[: number % len(rows)]
        return row | {"context": " ".join(following)[:READING_CHARACTERS]}

    return change


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def make_requests(task: str, count: int, mirror: Path, shots: int | None = None) -> list[list[str]]:
    """lm_eval's own (context, continuation) pairs for the first documents of a task."""
    os.environ |= {"IBERIAN_DATA": str(mirror), "IBERIAN_ROWS": "any"}
    from lm_eval.tasks import TaskManager, get_task_dict

    from lm_eval_iberian import plugin

    plugin.activate()
    name, usual = TASKS[task]
    [loaded] = get_task_dict([name], TaskManager()).values()
    loaded.set_config(key="num_fewshot", value=usual if shots is None else shots)
    loaded.set_fewshot_seed(1234)
    loaded.build_all_requests(limit=count)
    return [list(instance.args) for instance in loaded.instances]
