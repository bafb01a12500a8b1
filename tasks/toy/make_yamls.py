"""Writes the YAMLs of the toy tasks and their groups: python tasks/toy/make_yamls.py"""

from __future__ import annotations

from pathlib import Path

import yaml

HERE = Path(__file__).parent
# The toy world speaks these, whatever the suite measures (lm_eval_iberian/toy).
LANGUAGES = ("eu", "gl", "ca", "es", "en")
DIRECTIONS = (
    "es-eu", "en-eu", "es-gl", "en-gl", "es-ca", "en-ca",
    "eu-es", "gl-es", "ca-es", "en-es", "eu-en", "gl-en", "ca-en", "es-en",
)  # fmt: skip
KINDS = ("pairs", "story", "exam", "ifeval")


def task_text(kind: str, language: str) -> str:
    """The YAML of one task."""
    return (
        f"task: toy_{kind}_{language}\ninclude: _toy_{kind}_yaml\ndataset_kwargs:\n  kind: {kind}\n"
        f"  language: {language}\n"
    )


def group_text(name: str, tasks: list[str], remark: str) -> str:
    """A group."""
    listed = "".join(f"  - {task}\n" for task in tasks)
    return f"# {remark}\ngroup: {name}\ntask:\n{listed}metadata:\n  version: 1.0\n"


def files() -> dict[Path, str]:
    """Every file with its text."""
    tasks = [(kind, language) for kind in KINDS for language in LANGUAGES]
    tasks += [("mt", direction) for direction in DIRECTIONS]
    made = {HERE / f"toy_{kind}_{language}.yaml": task_text(kind, language) for kind, language in tasks}
    groups = {
        f"toy_{language}": (
            [f"toy_{kind}_{language}" for kind in KINDS[:3]],
            f"Multiple choice of the toys: {language}.",
        )
        for language in LANGUAGES
    }
    groups["toy_mc"] = (list(groups), "All multiple choice of the toys.")
    groups["toy_mt"] = ([f"toy_mt_{direction}" for direction in DIRECTIONS], "Translation of the toys.")
    groups["toy_ifeval"] = ([f"toy_ifeval_{language}" for language in LANGUAGES], "Instruction following of the toys.")
    groups["toy_suite"] = (["toy_mc", "toy_mt", "toy_ifeval"], "What iberian_suite is to models, this is to toys.")
    return made | {HERE / f"{name}.yaml": group_text(name, *parts) for name, parts in groups.items()}


if __name__ == "__main__":
    for path, text in files().items():
        assert yaml.safe_load(text), path
        path.write_text(text, encoding="utf-8")
