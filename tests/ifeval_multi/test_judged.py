"""Answers that were judged by hand: the corrected edition agrees on 99 in 100.

judged/LANGUAGE.jsonl holds 60 answers of our own, made to look like those of real models (Markdown, lists, letters,
dialogue, code, names in capitals), with a verdict and a reason that were written before the code was asked. It is data:
who disagrees with a row changes the row and says why.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ifeval_multi import check, load_pack

FOLDER = Path(__file__).parent / "judged"
LANGUAGES = ("eu", "gl", "ca", "es", "en")


def rows(language: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{language}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_verdict_is_the_readers(language: str) -> None:
    pack, differing, judged = load_pack(language), [], rows(language)
    for row in judged:
        verdict = check(row["type"], row["answer"], row["arguments"], pack, prompt=row.get("prompt", ""))
        if verdict.followed != row["followed"]:
            differing.append(f"{row['type']} {row['answer']!r}: {verdict.reason}; a reader: {row['reason']}")
    assert len(differing) <= len(judged) // 100, "\n".join(differing)


@pytest.mark.parametrize("language", LANGUAGES)
def test_rows_are_whole_and_of_both_kinds(language: str) -> None:
    judged = rows(language)
    assert len(judged) >= 60
    assert all(set(row) - {"prompt"} == {"type", "arguments", "answer", "followed", "reason"} for row in judged)
    followed = sum(row["followed"] for row in judged)
    assert 0.3 < followed / len(judged) < 0.7
    assert len({row["type"] for row in judged}) >= 20
