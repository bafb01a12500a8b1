"""The languages of tasks/languages.yml: the one table of their names and codes.

A language there is only known. It gets columns and tables once a folder's manifest names it (table.py).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lm_eval_iberian.benchmarks.files import LANGUAGES, Types, checked, fault, read
from lm_eval_iberian.folders import task_folders

KEYS: Types = {"name": str, "code": str, "sentence": dict, "ifeval": str}


@dataclass(frozen=True)
class Language:
    """A language.

    Args:
        key: its two or three letters of ISO 639, as in names of tasks and columns: "eu".
        name: in English.
        code: ISO 639-3 and script, as FLORES and Belebele call it: "eus_Latn".
        sentence: "sentence in <language>" for each language that has one, said in this one; for FLORES.
        ifeval: where its published IFEval prompts are, for a message; "" where there are none that we know.
    """

    key: str
    name: str
    code: str
    sentence: Mapping[str, str] = field(default_factory=dict, hash=False)
    ifeval: str = ""

    @property
    def iso3(self) -> str:
        """ISO 639-3: "eus"."""
        return self.code.partition("_")[0]


def languages() -> dict[str, Language]:
    """All known languages by key, in the order of tables. Raises ManifestError."""
    return _languages(task_folders())


@functools.cache
def _languages(folders: tuple[Path, ...]) -> dict[str, Language]:
    found: dict[str, Language] = {}
    for file in (folder / LANGUAGES for folder in folders):
        for key, entry in (read(file) if file.is_file() else {}).items():
            if key in found:
                raise fault(file, key, "this language is in another languages.yml already")
            found[key] = Language(str(key), **checked(entry, KEYS, ("name", "code"), file, str(key)))
    return found


def language_names() -> dict[str, str]:
    """Key -> English name."""
    return {key: language.name for key, language in languages().items()}
