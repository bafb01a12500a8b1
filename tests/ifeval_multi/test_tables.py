"""Every row of the tables in tables/ is judged as it says.

shared.yaml holds for all languages, with each language's vocabulary put in; LANGUAGE.yaml holds
what is particular to a language.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from ifeval_multi import check, load_pack
from ifeval_multi.instructions import IFEVAL_TYPES, SPANISH_ONLY
from tests.conftest import FAST

TABLES = Path(__file__).parent / "tables"
LANGUAGES = ("eu", "gl", "ca", "es", "en")
PLACE = re.compile(r"\{([A-Z][A-Z0-9_]*?)([\^_]?)\}")
Row = tuple[str, str, dict[str, Any], str, bool, str]


def read(name: str) -> Any:
    return yaml.load((TABLES / f"{name}.yaml").read_text(encoding="utf-8"), Loader=FAST)


def table(language: str) -> list[Row]:
    own, shared = read(language), read("shared")
    vocabulary = {**own["vocabulary"], "CODE": language}
    rows = [(name, put(row, vocabulary)) for name, listed in shared.items() for row in listed]
    rows += [(name, row) for name, listed in own["rows"].items() for row in listed]
    return [(language, name, *row, *([""] if len(row) == 3 else [])) for name, row in rows]


def put(value: Any, vocabulary: dict[str, str]) -> Any:
    """The row with {W} as the word, {W^} in capitals, {W_} in lower case."""
    if isinstance(value, dict):
        return {key: put(item, vocabulary) for key, item in value.items()}
    if isinstance(value, list):
        return [put(item, vocabulary) for item in value]
    return PLACE.sub(lambda m: _cased(m, vocabulary), value) if isinstance(value, str) else value


def _cased(found: re.Match[str], vocabulary: dict[str, str]) -> str:
    name, case = found.groups()
    if name + case in vocabulary:
        return vocabulary[name + case]
    if name not in vocabulary:
        return found.group()
    change = {"^": str.upper, "_": str.lower, "": str}[case]
    return change(vocabulary[name])


def problem(row: Row) -> str:
    """What is wrong with the verdict on a row; empty if it is as the table says."""
    language, name, arguments, answer, followed, prompt = row
    verdict = check(name, answer, arguments, load_pack(language), prompt=prompt)
    return "" if verdict.followed == followed else f"{name} {arguments} {answer!r}: {verdict.reason}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_rows(language: str) -> None:
    """One test a language, which names every row that is judged wrongly: 1,500 tests took longer than their checks."""
    rows = table(language)
    assert len(rows) > 250
    wrong = [said for row in rows if (said := problem(row))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("language", LANGUAGES)
def test_at_least_eight_rows_a_type(language: str) -> None:
    types = (*IFEVAL_TYPES, *(SPANISH_ONLY if language == "es" else ()))
    rows = table(language)
    counts, followed = Counter(r[1] for r in rows), Counter(r[1] for r in rows if r[4])
    few = {name: counts[name] for name in types if counts[name] < 8}
    one_sided = [name for name in types if followed[name] in (0, counts[name])]
    assert not few and not one_sided
