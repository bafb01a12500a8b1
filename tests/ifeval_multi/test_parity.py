"""The original edition against verdicts of the published code on real answers.

The verdicts are not part of the project: ../shared/data/ifeval/verdicts is read when it is there.
Every disagreement is printed with its cause, and a cause that is not known fails the test.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from ifeval_multi.documents import from_row
from ifeval_multi.evaluate import judge, variants
from ifeval_multi.pack import load_pack
from tests.conftest import first_ones

VERDICTS = Path("/work/shared/data/ifeval/verdicts")
if not VERDICTS.is_dir():
    VERDICTS = Path(__file__).resolve().parents[3] / "shared/data/ifeval/verdicts"
needs_verdicts = pytest.mark.skipif(not VERDICTS.is_dir(), reason=f"no {VERDICTS}")

COUNTING = {
    "change_case:capital_word_frequency",
    "length_constraints:number_sentences",
    "length_constraints:number_words",
    "length_constraints:nth_paragraph_first_word",
    "special_character:dieresis",
    "special_character:enie",
    "special_character:tildes",
}
# (language, key, type) -> why no implementation can agree.
CAUSES = {
    ("en", 1122, "keywords:letter_frequency"): "'#' is replaced by a random letter",
    ("en", 1129, "keywords:letter_frequency"): "'!' is replaced by a random letter",
    ("eu", 1122, "keywords:letter_frequency"): "'#' is replaced by a random letter",
    (
        "en",
        3456,
        "change_case:english_capital",
    ): "langdetect is random (English for 14 of 30 seeds); a list of names",
    (
        "en",
        3617,
        "change_case:english_capital",
    ): "langdetect is random (English for 25 and 6 of 30 seeds); names only",
    (
        "fr",
        225,
        "change_case:english_lowercase",
    ): "langdetect is random; one line of a made-up word",
}


@dataclass(frozen=True)
class Compared:
    language: str
    key: int | str
    type: str
    reading: str
    same: bool
    reason: str


def compare(language: str) -> list[Compared]:
    pack, found = load_pack(language), []
    lines = (VERDICTS / f"{language}.jsonl").read_text(encoding="utf-8").split("\n")
    for row in map(json.loads, filter(None, lines)):
        document = from_row(row)
        texts = variants(row["response"])
        for place, asked in enumerate(document.instructions):
            verdicts = [judge(asked, text, pack, "original", document.prompt) for text in texts]
            ours = {"strict": verdicts[0].followed, "loose": any(v.followed for v in verdicts)}
            for reading, verdict in ours.items():
                same = verdict == row[reading][place]
                reason = verdicts[0].reason
                found.append(Compared(language, document.key, asked.id, reading, same, reason))
    return found


def agreement(compared: list[Compared]) -> float:
    return 100 * sum(c.same for c in compared) / len(compared)


def listed(compared: list[Compared]) -> list[Compared]:
    """The disagreements, printed with their causes."""
    differing = [c for c in compared if not c.same]
    for c in differing:
        cause = CAUSES.get((c.language, c.key, c.type), "NOT KNOWN")
        print(f"{c.language} key {c.key} {c.type} {c.reading}: {c.reason}; cause: {cause}")
    return differing


def table(compared: list[Compared]) -> None:
    """Agreement per type, as in README.md."""
    asked, same = Counter(c.type for c in compared), Counter(c.type for c in compared if c.same)
    for name in sorted(asked):
        print(f"{name:<50} {same[name]:>4}/{asked[name]:<4} {100 * same[name] / asked[name]:.1f}")


@needs_verdicts
@pytest.mark.parametrize("language", first_ones(["eu", "es", "fr", "en"], 1))
def test_agreement(language: str) -> None:
    compared = compare(language)
    table(compared)
    differing = listed(compared)
    unknown = [c for c in differing if (c.language, c.key, c.type) not in CAUSES]
    assert unknown == []
    strict = [c for c in compared if c.reading == "strict"]
    if language == "en":
        assert agreement(strict) >= 99.5 and agreement(compared) >= 99.5
    if language == "fr":
        assert agreement(strict) >= 99 and agreement(compared) >= 99
        assert {c.type for c in compared} >= set(load_pack("fr").own_types)
    if language == "es":
        assert agreement([c for c in compared if c.type not in COUNTING]) >= 99
        assert agreement([c for c in compared if c.type in COUNTING]) >= 95


@needs_verdicts
def test_the_corrected_edition_differs_where_the_published_code_is_wrong() -> None:
    rows = (VERDICTS / "eu.jsonl").read_text(encoding="utf-8").split("\n")
    pack, better = load_pack("eu"), set()
    for row in map(json.loads, filter(None, rows)):
        document = from_row(row)
        for asked, strict in zip(document.instructions, row["strict"], strict=True):
            verdict = judge(asked, row["response"], pack, "corrected", document.prompt)
            if verdict.followed and not strict:
                better.add((document.key, asked.id.split(":")[1]))
    assert {(1516, "english_lowercase"), (3752, "constrained_response")} <= better
