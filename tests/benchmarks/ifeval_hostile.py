"""Does any check take more than linear time on an answer made to stall it?

Run:  python tests/benchmarks/ifeval_hostile.py [characters]      (about five minutes)
Every check of both editions judges a run of each hostile piece, of N and of 4 N characters. Printed
is what takes more than twice its share of time (8 times instead of 4), and the slowest of all.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from ifeval_multi import check, load_pack
from ifeval_multi.instructions import INSTRUCTIONS, NUMBER, RELATION, TEXT, TEXTS

PIECES = (
    "*", "[", "\n", "<", "<<", ">>", '"', "'", "_", "-", " ", ".", ". ", " \n", "¿", "¡", "a.", "A. ",
    "1. ", "a,", "* ", "**a", "***", "\n***\n", "*a", "_a", "[a", "{", "\u0301", "\u0301\u0316", "\u200b",
    "Section ", "P.", "p. s", "http://", "l'", "é", "A", "a", "\t", "\r\n", "\x0b", "`", "!", "…", "?! ",
    '"\n', "I. ", "2000. ", "(", "Sr. ", "«", "a-", "1.", "字", "。", "...", "<think>", "</think>",
)  # fmt: skip
_VALUES: dict[str, Any] = {NUMBER: 3, TEXT: "a", TEXTS: ["a", "b"], RELATION: "at least"}
_OWN = {
    "section_spliter": "Section",
    "language": "eu",
    "postscript_marker": "P.S.",
    "nth_paragraph": 1,
}


def arguments(name: str) -> dict[str, Any]:
    """Arguments of the right kind for a type."""
    needed = INSTRUCTIONS[name].needed
    return {key: _OWN.get(key, _VALUES[kind]) for key, kind in needed.items()}


def main(size: int) -> None:
    slowest = []
    for edition in ("corrected", "original"):
        names = [*INSTRUCTIONS, *(f"es:{n}" for n in INSTRUCTIONS if edition == "original")]
        for name in names:
            bare = name.removeprefix("es:")
            for piece in PIECES:
                texts = [(piece * (n // len(piece) + 1))[:n] for n in (size, 4 * size)]
                start = time.process_time()
                times = []
                for text in texts:
                    start = time.process_time()
                    check(name, text, arguments(bare), load_pack("es"), edition)
                    times.append(time.process_time() - start)
                slowest.append((times[1], edition, name, piece))
                if times[1] > 0.1 and times[1] > 8 * times[0]:
                    print(f"not linear: {edition} {name} {piece!r} {times}", flush=True)
    for taken, edition, name, piece in sorted(slowest, reverse=True)[:12]:
        print(f"{taken:7.3f} s for {4 * size} characters: {edition} {name} {piece!r}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
