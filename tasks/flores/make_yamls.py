"""Writes the YAMLs of the FLORES tasks, two a direction: python tasks/flores/make_yamls.py

`iberian_flores_es-eu` asks in English, as lm_eval does ("Spanish sentence: ... Basque sentence:");
`iberian_flores_es-eu_native` asks in the target language ("Gaztelaniazko esaldia: ... Euskarazko esaldia:").
"""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import yaml

from lm_eval_iberian.scores.benchmarks import LANGUAGE_NAMES, PAPER_DIRECTIONS

HERE = Path(__file__).parent
CODES = {
    "eu": "eus_Latn", "gl": "glg_Latn", "ca": "cat_Latn", "es": "spa_Latn", "en": "eng_Latn", "pt": "por_Latn",
}  # fmt: skip
ENGLISH = {language: f"{name} sentence" for language, name in LANGUAGE_NAMES.items()}
# "Sentence in <language>", said in the language of the key.
NATIVE = {
    "eu": {
        "eu": "Euskarazko esaldia", "gl": "Galegozko esaldia", "ca": "Katalanezko esaldia",
        "es": "Gaztelaniazko esaldia", "en": "Ingelesezko esaldia", "pt": "Portugesezko esaldia",
    },
    "gl": {
        "eu": "Frase en éuscaro", "gl": "Frase en galego", "ca": "Frase en catalán",
        "es": "Frase en castelán", "en": "Frase en inglés", "pt": "Frase en portugués",
    },
    "ca": {
        "eu": "Frase en basc", "gl": "Frase en gallec", "ca": "Frase en català",
        "es": "Frase en castellà", "en": "Frase en anglès", "pt": "Frase en portuguès",
    },
    "es": {
        "eu": "Frase en euskera", "gl": "Frase en gallego", "ca": "Frase en catalán",
        "es": "Frase en español", "en": "Frase en inglés", "pt": "Frase en portugués",
    },
    "pt": {
        "eu": "Frase em basco", "gl": "Frase em galego", "ca": "Frase em catalão",
        "es": "Frase em espanhol", "en": "Frase em inglês", "pt": "Frase em português",
    },
    "en": ENGLISH,
}  # fmt: skip


def task_text(source: str, target: str, scaffold: dict[str, str], name: str) -> str:
    """The YAML of one direction."""
    first, second = CODES[source], CODES[target]
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
    for source, target in permutations(CODES, 2):
        name = f"iberian_flores_{source}-{target}"
        made[HERE / f"{name}.yaml"] = task_text(source, target, ENGLISH, name)
        if target != "en":  # in English, the scaffold is English anyway
            made[HERE / f"{name}_native.yaml"] = task_text(source, target, NATIVE[target], f"{name}_native")
    plain = [f"iberian_flores_{direction}" for direction in PAPER_DIRECTIONS]
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
