"""How many answers a second does one core judge?

Run:  python tests/benchmarks/ifeval_speed.py [answers.jsonl language ...]
Without files, 400 answers are made from the packs' samples, of 1,500 characters on average, with
every type of IFEval among them; with files (verdicts of real models) those are judged. Strict and
loose, corrected edition, is one answer judged. The issue asks for 2,000 a second.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from ifeval_multi import check, evaluate_response, load_pack
from ifeval_multi.documents import Document, from_row
from ifeval_multi.probes import probes

ANSWERS, LENGTH = 400, 1_500


def made(language: str) -> list[tuple[Document, str]]:
    """Documents of one or two instructions, with answers that follow or not, of real length."""
    pack, draw = load_pack(language), random.Random(0)
    found = []
    for number in range(ANSWERS):
        asked = draw.sample(probes(pack), draw.choice((1, 1, 2)))
        body = "\n\n".join([pack.sample] * (LENGTH // len(pack.sample)))
        row: dict[str, Any] = {
            "key": number,
            "prompt": pack.sample,
            "instruction_id_list": [probe.type for probe in asked],
            "kwargs": [probe.arguments for probe in asked],
        }
        found.append((from_row(row), f"{asked[0].answer}\n\n{body}\n{number}"))
    return found


def read(path: str) -> list[tuple[Document, str]]:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [(from_row(row), row["response"]) for row in rows]


def report(name: str, language: str, pairs: list[tuple[Document, str]], edition: str) -> None:
    for document, answer in pairs[:20]:  # loads what is loaded once
        evaluate_response(document, answer, language, edition)
    check("language:response_language", pairs[0][1], {"language": "en"}, load_pack(language), edition)
    start = time.process_time()
    for document, answer in pairs:
        evaluate_response(document, answer, language, edition, include_response_language=True)
    taken = time.process_time() - start
    length = sum(len(answer) for _, answer in pairs) / len(pairs)
    print(
        f"{name:<28} {edition:<10} {len(pairs)} answers of {length:.0f} characters: "
        f"{len(pairs) / taken:,.0f} a second of processor time"
    )


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sets = [(p, c, read(p)) for p, c in zip(arguments[::2], arguments[1::2], strict=True)] or [
        (f"made, {code}", code, made(code)) for code in ("eu", "gl", "ca", "es", "en")
    ]
    for name, code, pairs in sets:
        for edition in ("corrected", "original"):
            report(Path(name).name, code, pairs, edition)
