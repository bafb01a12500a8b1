"""Writes our tasks that lm_eval lacks as folders that can be sent to it: python tasks/for_lm_eval.py OUT

    OUT/flores_plus/         FLORES+ in all directions of our six languages, from the data set that loads today
    OUT/ifeval_iberian/      IFEval in Basque and Galician, with this project's own prompts

Each folder goes into lm_eval/tasks/ as it is: YAMLs, a utils.py that imports nothing of lm_eval_iberian, and a README in
lm_eval's form. ifeval_iberian needs the package `ifeval_multi` (in lm_eval_iberian's wheel) for the verdicts.
tests/tasks/test_for_lm_eval.py holds that both ask and score what our own tasks do.
"""

from __future__ import annotations

import shutil
import sys
from itertools import permutations
from pathlib import Path

import ifeval_multi
from lm_eval_iberian.benchmarks.languages import languages
from lm_eval_iberian.documents.manifests import manifests

HERE = Path(__file__).parent
DATA_SET = "openlanguagedata/flores_plus"
IFEVAL = ("eu", "gl")

FLORES_UTILS = '''"""FLORES+ has one configuration a language: two of them, joined by sentence."""

import datasets


DATA_SET = "{data_set}"
# The newest version in September 2026 (4.6): 997 sentences in dev, 1,012 in devtest.
REVISION = "{revision}"


def load(languages, **_):
    """Both languages of a direction, as `sentence_<language>`."""
    parts = {{
        language: datasets.load_dataset(DATA_SET, language, revision=REVISION)
        for language in languages
    }}
    return {{split: _joined(parts, split) for split in ("dev", "devtest")}}


def _joined(parts, split):
    texts = {{
        language: dict(zip(data[split]["id"], data[split]["text"]))
        for language, data in parts.items()
    }}
    first = next(iter(texts.values()))
    if any(set(rows) != set(first) for rows in texts.values()):
        raise ValueError(f"{{DATA_SET}}, {{split}}: the languages do not have the same sentences")
    return datasets.Dataset.from_list(
        [
            {{"id": id, **{{f"sentence_{{language}}": rows[id] for language, rows in texts.items()}}}}
            for id in first
        ]
    )
'''
FLORES_COMMON = """custom_dataset: !function utils.load
output_type: generate_until
training_split: dev
validation_split: dev
test_split: devtest
fewshot_split: dev
target_delimiter: ''
generation_kwargs:
  until:
    - "\\n"
  do_sample: false
  temperature: 0.0
metric_list:
  - metric: bleu
    aggregation: bleu
    higher_is_better: true
  - metric: chrf
    aggregation: chrf
    higher_is_better: true
  - metric: chrf++
    aggregation: chrf++
    higher_is_better: true
metadata:
  version: 1.0
"""
IFEVAL_UTILS = '''"""IFEval with the verdicts of ifeval_multi: one file a language, one check an instruction type."""

import json
from pathlib import Path

import datasets


try:
    from ifeval_multi.lm_eval_support import mean_of_lists, process_document
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "ifeval_eu and ifeval_gl are judged by ifeval_multi: pip install lm_eval_iberian"
    ) from error


def load(language, **_):
    """The prompts, which lie beside this file."""
    text = (Path(__file__).parent / f"{language}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.split("\\n") if line.strip()]
    documents = [
        {"prompt": row["prompt"], "language": language, "row": json.dumps(row, ensure_ascii=False)}
        for row in rows
    ]
    return {"test": datasets.Dataset.from_list(documents)}


def process_results(doc, results):
    """Strict and loose verdicts, instruction by instruction; instructions on the answer's language do not count."""
    return process_document(
        json.loads(doc["row"]), results[0], doc["language"], editions=("corrected",), by_type=False
    )


def agg_inst_level_acc(items):
    """Over all instructions of all prompts."""
    return mean_of_lists(items)
'''
IFEVAL_COMMON = """custom_dataset: !function utils.load
output_type: generate_until
test_split: test
num_fewshot: 0
doc_to_text: prompt
doc_to_target: 0
generation_kwargs:
  until: []
  do_sample: false
  temperature: 0.0
  max_gen_toks: 1280
process_results: !function utils.process_results
metric_list:
  - metric: prompt_level_strict_acc
    aggregation: mean
    higher_is_better: true
  - metric: inst_level_strict_acc
    aggregation: !function utils.agg_inst_level_acc
    higher_is_better: true
  - metric: prompt_level_loose_acc
    aggregation: mean
    higher_is_better: true
  - metric: inst_level_loose_acc
    aggregation: !function utils.agg_inst_level_acc
    higher_is_better: true
metadata:
  version: 1.0
"""
README = """# {title}

### Paper

{paper}

### Groups, Tags, and Tasks

#### Tasks

{tasks}

### Checklist

For adding novel benchmarks/datasets to the library:
* [x] Is the task an existing benchmark in the literature?
  * [x] Have you referenced the original paper that introduced the task?
  * [x] If yes, does the original paper provide a reference implementation? {reference}

If other tasks on this dataset are already supported:
* [x] Is the "Main" variant of this task clearly denoted?
* [x] Have you provided a short sentence in a README on what each new variant adds / evaluates?
* [x] Have you noted which, if any, published evaluation setups are matched by this variant? {matched}
"""


def files() -> dict[str, str]:
    """Every file with its text."""
    return {**_flores(), **_ifeval()}


def _flores() -> dict[str, str]:
    known = {key: one for key, one in languages().items() if one.code in manifests()[DATA_SET].configs}
    made = {
        "flores_plus/utils.py": FLORES_UTILS.format(data_set=DATA_SET, revision=manifests()[DATA_SET].revision),
        "flores_plus/_flores_plus_common_yaml": FLORES_COMMON,
    }
    names = []
    for source, target in permutations(known, 2):
        name, (first, second) = f"flores_plus_{source}-{target}", (known[source], known[target])
        names.append(name)
        made[f"flores_plus/{name}.yaml"] = (
            f"task: {name}\ninclude: _flores_plus_common_yaml\ndataset_kwargs:\n"
            f"  languages: [{first.code}, {second.code}]\n"
            f'doc_to_text: "{first.name} sentence: {{{{sentence_{first.code}}}}}\\n{second.name} sentence:"\n'
            f'doc_to_target: "{{{{sentence_{second.code}}}}}"\n'
        )
    made["flores_plus/README.md"] = README.format(
        title="FLORES+",
        paper="`No Language Left Behind: Scaling Human-Centered Machine Translation` (https://arxiv.org/abs/2207.04672).\n"
        "The tasks `*_bench_flores_*` read `facebook/flores`, a script that `datasets` 4 does not run. These read\n"
        f"`{DATA_SET}`, which OLDI maintains; it is gated: accept its terms, then `hf auth login`.",
        tasks="\n".join(f"* `{name}`" for name in names),
        reference="Scores are sacreBLEU's, as in the tasks of `*_bench`.",
        matched="Prompts are those of `*_bench_flores_*`, word for word.",
    )
    return made


def _ifeval() -> dict[str, str]:
    prompts = Path(ifeval_multi.__file__).parent / "prompts"
    made = {"ifeval_iberian/utils.py": IFEVAL_UTILS, "ifeval_iberian/_ifeval_iberian_yaml": IFEVAL_COMMON}
    for language in IFEVAL:
        made[f"ifeval_iberian/ifeval_{language}.yaml"] = (
            f"task: ifeval_{language}\ninclude: _ifeval_iberian_yaml\ndataset_kwargs:\n  language: {language}\n"
        )
        made[f"ifeval_iberian/{language}.jsonl"] = (prompts / f"{language}.jsonl").read_text(encoding="utf-8")
    made["ifeval_iberian/README.md"] = README.format(
        title="IFEval in Basque and Galician",
        paper="`Instruction-Following Evaluation for Large Language Models` (https://arxiv.org/abs/2311.07911).\n"
        "Instructions are checked by `ifeval_multi` (`pip install lm_eval_iberian`): one check an instruction type, with\n"
        "what each language needs (sentences, letters, quotation marks, names of formats). The prompts are new.",
        tasks="\n".join(f"* `ifeval_{language}`" for language in IFEVAL),
        reference="Google's for English; how ours differs is said in ifeval_multi's README.",
        matched="None: the prompts are not those of a published set.",
    )
    return made


def write(out: Path) -> list[Path]:
    """Write all files, in folders that must not be there yet; what was written, in order."""
    there = [out / name for name in ("flores_plus", "ifeval_iberian") if (out / name).exists()]
    if there:
        raise SystemExit(f"{there[0]}: there is something already. Give a folder without it.")
    written = []
    try:
        for name, text in files().items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(text, encoding="utf-8")
            written.append(out / name)
    except OSError as error:
        for name in ("flores_plus", "ifeval_iberian"):
            shutil.rmtree(out / name, ignore_errors=True)
        raise SystemExit(f"{out}: cannot be written ({error}).") from None
    return written


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python tasks/for_lm_eval.py OUT")
    print(f"{sys.argv[1]}: {len(write(Path(sys.argv[1])))} files")
