"""Writes the YAMLs of the FLORES tasks, two a direction: python tasks/flores/make_yamls.py

`iberian_flores_es-eu` asks in English, as lm_eval does ("Spanish sentence: ... Basque sentence:");
`iberian_flores_es-eu_native` asks in the target language ("Gaztelaniazko esaldia: ... Euskarazko esaldia:").
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from pathlib import Path

import yaml

from lm_eval_iberian.benchmarks.benchmark import PAPER, TRANSLATION
from lm_eval_iberian.benchmarks.languages import languages
from lm_eval_iberian.documents.manifests import manifests

HERE = Path(__file__).parent
DATA_SET = "openlanguagedata/flores_plus"
# The direction's two languages, each with the words of the scaffold for it.
Scaffold = Mapping[str, str]


def codes() -> dict[str, str]:
    """The languages that manifest.yml has a configuration of, with its name: "eu" -> "eus_Latn"."""
    there = manifests()[DATA_SET].configs
    return {key: language.code for key, language in languages().items() if language.code in there}


def task_text(source: str, target: str, scaffold: Scaffold, name: str) -> str:
    """The YAML of one direction."""
    first, second = codes()[source], codes()[target]
    prompt = f'"{scaffold[source]}: {{{{sentence_{first}}}}}\\n{scaffold[target]}:"'
    return (
        f"task: {name}\ninclude: _flores_yaml\ndataset_kwargs:\n  languages: [{first}, {second}]\n"
        f'doc_to_text: {prompt}\ndoc_to_target: "{{{{sentence_{second}}}}}"\n'
    )


def group_text(name: str, tasks: list[str], remark: str) -> str:
    """A group."""
    listed = "".join(f"  - {task}\n" for task in tasks)
    return f"# {remark}\ngroup: {name}\ntask:\n{listed}metadata:\n  version: 1.0\n"


def files() -> dict[Path, str]:
    """Every file with its text."""
    made = {}
    english = {key: f"{language.name} sentence" for key, language in languages().items()}
    for source, target in permutations(codes(), 2):
        name = f"iberian_flores_{source}-{target}"
        made[HERE / f"{name}.yaml"] = task_text(source, target, english, name)
        native = languages()[target].sentence
        if source in native and target in native:  # not in English, where the scaffold is English anyway
            made[HERE / f"{name}_native.yaml"] = task_text(source, target, native, f"{name}_native")
    directions = [one for column, names in PAPER if column.startswith(TRANSLATION) for one in names]
    plain = [f"iberian_flores_{direction}" for direction in directions]
    native = [name if name.endswith("-en") else f"{name}_native" for name in plain]
    groups = HERE.parent / "_groups"
    remark = "The 14 directions of the paper, averaged by target language (lm_eval_iberian.scores.suite)."
    made[groups / "iberian_flores.yaml"] = group_text("iberian_flores", plain, remark)
    remark = "The same directions with the scaffold in the target language: in no average."
    made[groups / "iberian_flores_native.yaml"] = group_text("iberian_flores_native", native, remark)
    return made


if __name__ == "__main__":
    for path, text in files().items():
        assert yaml.safe_load(text), path
        path.write_text(text, encoding="utf-8")
