"""How many answers a second does one core judge, and how many times as many as lm_eval's own `ifeval`?

Run:  python tests/benchmarks/ifeval_speed.py [answers.jsonl language ...]
Without files, 400 answers are made from the packs' samples, of 1,500 characters on average, with every type of IFEval
among them; with files (verdicts of real models) those are judged. Strict and loose is one answer judged. Rates are this
machine's, in this minute. The ratio holds on any: the same English answers are judged by both in turn, five times, and
the middle ratio is told. lm_eval needs nltk's punkt_tab for some types; where it is not installed, answers to these are
left out on both sides, and their number is told.
"""

from __future__ import annotations

import json
import logging
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
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


def lm_evals() -> Callable[[Document, str], None]:
    """lm_eval's own verdicts on one answer, strict and loose. Its module is loaded without a download."""
    import nltk

    nltk.download = lambda *_, **__: True
    try:
        import immutabledict  # noqa: F401
    except ImportError:  # an extra of lm_eval, of which `ifeval` uses one plain class
        stub: Any = ModuleType("immutabledict")
        stub.immutabledict = dict
        sys.modules["immutabledict"] = stub
    from lm_eval.tasks.ifeval import utils

    logging.disable(logging.ERROR)  # langdetect's failures are logged one by one

    def judge(document: Document, answer: str) -> None:
        ids = [asked.id for asked in document.instructions]
        kwargs = [dict(asked.raw_arguments) for asked in document.instructions]
        asked = utils.InputExample(int(document.key), ids, document.prompt, kwargs)
        utils.test_instruction_following_strict(asked, answer)
        utils.test_instruction_following_loose(asked, answer)

    return judge


def judged_by(judge: Callable[[Document, str], None], document: Document, answer: str) -> bool:
    """Can lm_eval judge it here? Not without punkt_tab, nor what its code does not take."""
    try:
        judge(document, answer)
    except (LookupError, ValueError, KeyError):
        return False
    return True


def ratio(name: str, pairs: list[tuple[Document, str]], rounds: int = 5) -> None:
    """How many times as long lm_eval takes for the same English answers, in turn with ours."""
    theirs = lm_evals()
    both = [(document, answer) for document, answer in pairs if judged_by(theirs, document, answer)]
    found = []
    for _ in range(rounds):
        start = time.process_time()
        for document, answer in both:
            evaluate_response(document, answer, "en", include_response_language=True)
        middle = time.process_time()
        for document, answer in both:
            theirs(document, answer)
        found.append((time.process_time() - middle) / (middle - start))
    print(
        f"{name}: {statistics.median(found):.1f} times as fast as lm_eval's ifeval ({min(found):.1f} to {max(found):.1f}), "
        f"{len(both)} answers; {len(pairs) - len(both)} left out, which lm_eval cannot judge here"
    )


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sets = [(p, c, read(p)) for p, c in zip(arguments[::2], arguments[1::2], strict=True)] or [
        (f"made, {code}", code, made(code)) for code in ("eu", "gl", "ca", "es", "en")
    ]
    for name, code, pairs in sets:
        for edition in ("corrected", "original"):
            report(Path(name).name, code, pairs, edition)
    for name, code, pairs in sets:
        if code == "en":
            ratio(Path(name).name, pairs)
