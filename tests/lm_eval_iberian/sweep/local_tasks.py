"""Small tasks of plain lm_eval over files that a test writes: a choice and a generation, with as many documents as wanted."""

from __future__ import annotations

import json
import random
from pathlib import Path

CHOICE = """\
task: local_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""
WORDS = """\
task: local_words
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[0]}}}}"
generation_kwargs: {{until: ["\\n"], do_sample: false, max_gen_toks: 4}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


def write_tasks(folder: Path, documents: int) -> Path:
    """local_choice and local_words in a folder for `include_path`."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    words = ["etxea", "mendia", "ibaia", "itsasoa", "basoa", "kalea", "zubia", "bidea", "lorea", "harria"]
    file = folder / "documents.jsonl"
    with file.open("w", encoding="utf-8") as stream:
        for number in range(documents):
            question = f"{number}: {' '.join(draw.sample(words, 5))}"
            row = {"question": question, "choices": draw.sample(words, 2), "answer": draw.randrange(2)}
            stream.write(json.dumps(row) + "\n")
    (folder / "choice.yaml").write_text(CHOICE.format(file=file), encoding="utf-8")
    (folder / "words.yaml").write_text(WORDS.format(file=file), encoding="utf-8")
    return folder
