"""No answer stalls a check: runs of signs, a megabyte of them, and whatever hypothesis invents.

tests/benchmarks/ifeval_hostile.py tries many more pieces and compares two lengths.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifeval_multi import Verdict, check, load_pack, strip_reasoning
from ifeval_multi.evaluate import variants
from ifeval_multi.instructions import INSTRUCTIONS, NUMBER, NUMBERS, RELATION, TEXT, TEXTS
from ifeval_multi.language_id import identify

VALUES: dict[str, Any] = {NUMBER: 3, NUMBERS: [1, 2], TEXT: "a", TEXTS: ["a", "b"], RELATION: "at least"}
OWN = {
    "section_spliter": "Section",
    "language": "eu",
    "postscript_marker": "P.S.",
    "nth_paragraph": 1,
}
SIGNS = [
    "*",
    "[",
    "\n",
    "<",
    '"',
    "_",
    " ",
    ".",
    ". ",
    "¿",
    "* ",
    "[a",
    "\u0301\u0316",
    "a",
    "A.",
    "1.",
    "`",
]


def arguments(name: str) -> dict[str, Any]:
    needed = INSTRUCTIONS[name].needed
    return {key: OWN.get(key, VALUES[kind]) for key, kind in needed.items()}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_a_megabyte_of_asterisks_brackets_and_newlines(name: str) -> None:
    for sign in ("*", "[", "\n"):
        start = time.process_time()
        check(name, sign * 1_000_000, arguments(name), load_pack("eu"))
        assert time.process_time() - start < 3, f"{sign!r} took too long"


@pytest.fixture
def young_heap() -> Iterator[None]:
    """What other tests left behind is not looked through while this one allocates."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.usefixtures("young_heap")
@pytest.mark.parametrize(
    "piece", [". ", "1. a\n", "***a", "_a_ ", "- a\n", "a,\n\n", "EE. UU. ", "—a! ", "a", '"\n', "*", "TEXT"]
)
def test_a_long_answer_takes_no_prompt_long(piece: str) -> None:
    """A prompt has three instructions at most: the three slowest together, in passes over the text.

    A pass asks each character whether it is a letter, some 0.01 s on an idle core. Running text takes 20 passes, a text
    of 60,000 lines up to 100. A limit in seconds says nothing on a busy core, where both become slower.
    """
    identify("the model is loaded first")
    text = (load_pack("en").sample + " ") * 3_900 if piece == "TEXT" else piece * (300_000 // len(piece))
    taken, passes = {}, []
    for name in INSTRUCTIONS:
        start = time.process_time()
        check(name, text, arguments(name), load_pack("eu"))
        done = time.process_time()
        taken[name] = done - start
        sum(map(str.isalnum, text))
        passes.append(time.process_time() - done)
    slowest = sorted(taken, key=taken.__getitem__)[-3:]
    total = sum(taken[name] for name in slowest)
    assert total < 200 * median(passes), (slowest, total, median(passes))


@pytest.mark.slow
@pytest.mark.parametrize("edition", ["corrected", "original"])
@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_runs_of_signs(name: str, edition: str) -> None:
    for prefix in ("", "es:"):
        check(prefix + name, "a", arguments(name), load_pack("es"), edition)  # nltk and others are imported first
    for sign in SIGNS:
        text = (sign * 20_000)[:20_000]
        start = time.process_time()
        for prefix in ("", "es:"):
            check(prefix + name, text, arguments(name), load_pack("es"), edition)
        assert time.process_time() - start < 2, f"{sign!r} took too long"


PIECES = st.sampled_from(
    ["*", "**", "***", "******", "[", "]", "<<", ">>", "\n", "\r\n", " ", ".", "?", '"', "«", "»", "```",
     "{", "}", "1", "2000.", "urtean", "Section", "P.S.", "a", "Ñ", "ç", "l·l", "'", "-", ",", "¿", "¡", "👩‍🌾",
     "\u200b", "\u0301", "字", "<think>", "</think>", "\x00", "\ud800", "İ", "ß", "ŉ"]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(PIECES, max_size=60).map("".join), st.sampled_from(["eu", "ca", "es"]))
def test_every_check_answers_anything(text: str, language: str) -> None:
    for name in INSTRUCTIONS:
        for edition, prefix in (("corrected", ""), ("original", ""), ("original", "es:")):
            found = check(prefix + name, text, arguments(name), load_pack(language), edition)
            assert isinstance(found, Verdict) and found.reason


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_nothing_upsets_reading(text: str) -> None:
    assert len(variants(text)) <= 8
    assert "</think>" not in strip_reasoning(f"<think>{text}</think>")
    check(
        "length_constraints:number_sentences",
        text,
        arguments("length_constraints:number_sentences"),
        load_pack("eu"),
    )


def test_reasoning_of_a_megabyte() -> None:
    start = time.process_time()
    for piece in ("<think>", "</think>", "<think></think>", "<think>a</think>b"):
        strip_reasoning((piece * 1_000_000)[:1_000_000])
    assert time.process_time() - start < 2
