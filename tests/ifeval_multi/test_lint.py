"""The linter finds the rows of the published sets that are known to be wrong, and few others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ifeval_multi import documents, lint
from ifeval_multi.lint_rules import PUBLISHED

DATA = Path("/work/shared/data/ifeval")
if not DATA.is_dir():
    DATA = Path(__file__).resolve().parents[3] / "shared/data/ifeval"
PROMPTS = Path(documents.__file__).parent / "prompts"
# ../shared/facts/ifeval.md, section 3: what a reader found by hand, in the sample rows.
KNOWN = {
    "eu": {1174, 1237, 1242, 1375, 142, 1582, 1629, 30},
    "gl": {1174, 1237, 1242, 1609, 1629, 1670, 2084, 3751},
    "ca": {1174},
    "es": {1174},
}
# What is no fault of the row, only of the published code: case prompts that ask for English,
# letters that are no letters, option strings that it does not look for.
KNOWN_PUBLISHED = {
    "eu": {1019, 1087, 1122, 1129, 1219, 3752, 3755},
    "gl": {1019, 1087, 1122, 1129, 1219, 3752, 3753, 3754, 3756, 3757},
}


def one(tmp_path: Path, prompt: str, name: str, language: str = "en", **kwargs: Any) -> list[str]:
    row = {"key": 1, "prompt": prompt, "instruction_id_list": [name], "kwargs": [kwargs]}
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return [finding.rule for finding in lint(file, language)]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}")
@pytest.mark.parametrize("language", KNOWN)
def test_known_bad_rows_are_found(language: str) -> None:
    findings = lint(DATA / f"{language}.sample.jsonl", language)
    ours = {f.key for f in findings if f.rule != PUBLISHED}
    published = {f.key for f in findings if f.rule == PUBLISHED}
    assert KNOWN[language] <= ours
    assert len(ours - KNOWN[language]) <= 2, ours - KNOWN[language]
    assert KNOWN_PUBLISHED.get(language, set()) <= published


@pytest.mark.parametrize("file", sorted(PROMPTS.glob("*.jsonl")), ids=lambda file: file.stem)
def test_prompts_of_our_own_have_no_findings(file: Path) -> None:
    assert [str(finding) for finding in lint(file, file.stem, complete=True)] == []


@pytest.mark.parametrize(
    ("prompt", "name", "kwargs", "rule"),
    [
        ("Use at least 3 words.", "length_constraints:number_words", {"num_words": 3, "relation": "at least"}, None),
        ("Use more than 30 words.", "length_constraints:number_words", {"num_words": 31, "relation": "at least"}, None),
        ("Use at most four words.", "length_constraints:number_words", {"num_words": 5, "relation": "less than"}, None),
        ("Use at most four words.", "length_constraints:number_words", {"num_words": 4, "relation": "less than"}, "relation"),
        ("Use at least 3 words.", "length_constraints:number_words", {"num_words": 4, "relation": "less than"}, "relation"),
        ("Use at least 3 words.", "length_constraints:number_words", {"num_words": 300, "relation": "at least"}, "number"),
        ("Write a poem.", "punctuation:no_comma", {}, "not-asked"),
        ("Use the word dog.", "keywords:existence", {"keywords": ["cat"]}, "text"),
        ("Use the word dog.", "keywords:existence", {"keywords": "dog"}, "string-for-list"),
        ("Write all in capital letters.", "change_case:english_lowercase", {}, "case"),
        ("Two answers, divided by *****.", "combination:two_responses", {}, "asterisks"),
        ("End with \"Bye!\".", "startend:end_checker", {"end_phrase": "Good bye!"}, "text"),
        ("Answer in JSON, use no commas.", "punctuation:no_comma", {}, "unchecked"),
        ("Use no commas.", "punctuation:nocomma", {}, "form"),
        ("Sing. Then write it. Repeat it.", "combination:repeat_prompt", {"prompt_to_repeat": "Then write it."}, "text"),
    ],
)  # fmt: skip
def test_rules(tmp_path: Path, prompt: str, name: str, kwargs: Any, rule: str | None) -> None:
    assert (rule in one(tmp_path, prompt, name, **kwargs)) if rule else not one(tmp_path, prompt, name, **kwargs)


def test_duplicates_and_coverage(tmp_path: Path) -> None:
    row = {
        "key": 1,
        "prompt": "Use no commas.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    }
    file = tmp_path / "a.jsonl"
    file.write_text((json.dumps(row) + "\n") * 2, encoding="utf-8")
    rules = [finding.rule for finding in lint(file, "en", complete=True)]
    assert rules.count("duplicate") == 4 and rules.count("coverage") == 26
