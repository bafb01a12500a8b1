"""The examples of CORRECTED.md are counted as the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ifeval_multi
from ifeval_multi import check, load_pack

PAGE = (Path(ifeval_multi.__file__).parent / "CORRECTED.md").read_text(encoding="utf-8")
LANGUAGES = ("eu", "gl", "ca", "es", "en")
Example = tuple[str, str, int]


def cells(heading: str) -> list[tuple[str, str]]:
    """(language, cell) of the table under a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.split("\n") if line.startswith("| ")]
    return [(code, cell) for row in rows if len(row) == 7 for code, cell in zip(LANGUAGES, row[2:], strict=True)]


def sentences() -> list[Example]:
    found = [(code, re.fullmatch(r"([^\\]+) \((\d)\)", cell)) for code, cell in cells("What a sentence is")]
    return [(code, match[1], int(match[2])) for code, match in found if match]


def words() -> list[Example]:
    found = cells("Words, and when two are the same")
    pattern = r"(.+?) \((\d)\)(?:, |$)"
    return [(code, text, int(count)) for code, cell in found for text, count in re.findall(pattern, cell)]


@pytest.mark.parametrize(("language", "text", "count"), sentences())
def test_sentences(language: str, text: str, count: int) -> None:
    asked = {"num_sentences": count, "relation": "exactly"}
    verdict = check("length_constraints:number_sentences", text, asked, load_pack(language))
    assert verdict.followed, verdict.reason


@pytest.mark.parametrize(("language", "text", "count"), words())
def test_words(language: str, text: str, count: int) -> None:
    asked = {"num_words": count, "relation": "exactly"}
    verdict = check("length_constraints:number_words", text, asked, load_pack(language))
    assert verdict.followed, verdict.reason


def test_there_are_examples() -> None:
    assert len(sentences()) >= 35 and len(words()) >= 10


def test_the_page_names_how_many_were_judged_and_marked() -> None:
    folder = Path(__file__).parent
    judged = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in (folder / "judged").glob("*.jsonl"))
    marked = sum(file.read_text(encoding="utf-8").count("‖") for file in (folder / "sentences").glob("*.txt"))
    assert f"[{judged} answers]" in PAGE and f"[{marked} sentences]" in PAGE
