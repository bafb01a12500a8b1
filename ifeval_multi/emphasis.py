"""Markdown emphasis in one line or paragraph: which runs of * and _ belong together, and which belong to nothing.

The rules are CommonMark's (https://spec.commonmark.org/0.31.2/#emphasis-and-strong-emphasis), with two differences.
A run that touches text from inside may always open or close ("**Nota:**texto"), unless `strict`. And a * between two
digits multiplies.

Each delimiter is pushed and popped at most a few times and looks back at 50, so the work is linear in the length of
the text.
"""

from __future__ import annotations

from dataclasses import dataclass

import regex

_RUN = regex.compile(r"\*++|_++")
_CODE = regex.compile(r"(?<!`)(`{1,3}+)(?!`)[^`\n]*+\1(?!`)")
_ESCAPED = regex.compile(r"\\[*_\\]")
_DEEPEST = 50


@dataclass
class _Delimiter:
    sign: str
    start: int
    length: int  # of the run as written
    left: int  # signs not used yet
    opens: bool
    closes: bool


@dataclass(frozen=True)
class Emphasis:
    """The outermost emphasised spans, as (start, end) in the text, and the (start, end) of runs that nothing used."""

    spans: list[tuple[int, int]]
    unused: list[tuple[int, int]]


def find_emphasis(text: str, strict: bool = False) -> Emphasis:
    """Emphasised spans of a text; emphasis within emphasis belongs to the outer span."""
    runs = _delimiters(text, strict)
    spans: list[tuple[int, int]] = []
    stack: list[_Delimiter] = []
    for run in runs:
        if run.closes:
            _close(run, stack, spans)
        if run.left and run.opens:
            stack.append(run)
    unused = [(r.start, r.start + r.length) for r in runs if r.left == r.length]
    return Emphasis(_outermost(spans), unused)


def _delimiters(text: str, strict: bool) -> list[_Delimiter]:
    hidden = _ESCAPED.sub("xx", text) if "\\" in text else text
    hidden = _CODE.sub(lambda found: "x" * len(found.group()), hidden) if "`" in text else hidden
    return [_delimiter(hidden, found.start(), found.end(), strict) for found in _RUN.finditer(hidden)]


def _delimiter(text: str, start: int, end: int, strict: bool) -> _Delimiter:
    before, after = text[start - 1] if start else " ", text[end] if end < len(text) else " "
    opens, closes = not after.isspace(), not before.isspace()
    if text[start] == "_":
        opens, closes = opens and not before.isalnum(), closes and not after.isalnum()
    elif before.isdigit() and after.isdigit():
        opens = closes = False
    if strict and opens and closes:
        opens = after.isalnum() or not before.isalnum()
        closes = before.isalnum() or not after.isalnum()
    return _Delimiter(text[start], start, end - start, end - start, opens, closes)


def _close(run: _Delimiter, stack: list[_Delimiter], spans: list[tuple[int, int]]) -> None:
    """Pair a closing run with the openers before it; what stood open between them opens nothing any more."""
    while run.left:
        candidates = range(len(stack) - 1, max(-1, len(stack) - 1 - _DEEPEST), -1)
        place = next((number for number in candidates if _pairs(stack[number], run)), -1)
        if place < 0:
            return
        opener = stack[place]
        used = 2 if opener.left >= 2 and run.left >= 2 else 1
        spans.append((opener.start, run.start + run.length))
        opener.left -= used
        run.left -= used
        del stack[place + (1 if opener.left else 0) :]


def _pairs(opener: _Delimiter, closer: _Delimiter) -> bool:
    if opener.sign != closer.sign or opener.start + opener.length == closer.start:
        return False
    both = (opener.opens and opener.closes) or (closer.opens and closer.closes)
    thirds = (opener.length + closer.length) % 3 == 0 and not (opener.length % 3 == 0 and closer.length % 3 == 0)
    return not (both and thirds)


def _outermost(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in sorted(set(spans), key=lambda span: (span[0], -span[1])):
        if not found or start >= found[-1][1]:
            found.append((start, end))
    return found
