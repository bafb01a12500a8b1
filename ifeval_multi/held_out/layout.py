"""format:* of the held-out types: CSV, tables, templates, sorted lists, indentation, brackets."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import regex

from ifeval_multi.held_out.letters import sorting_key
from ifeval_multi.pack import Pack
from ifeval_multi.text import bare, fold, lines, normalise, words
from ifeval_multi.verdict import Verdict

_FENCE = regex.compile(r"\s*+```\w*+[ \t]*+")
_RULE_CELL = regex.compile(r"\s*+:?-++:?\s*+")
_PAIRS = {")": "(", "]": "[", "}": "{"}


def csv_table(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The whole answer is CSV: a head with these columns, num_rows rows, a value in every field; a ``` fence is free.

    The delimiter is a comma unless another is asked; a value that holds it stands in quotation marks.
    """
    body = [line for line in lines(normalise(response).strip()) if line.strip() and not _FENCE.fullmatch(line)]
    try:
        rows = list(csv.reader(body, delimiter=arguments.get("delimiter", ","), strict=True, skipinitialspace=True))
    except csv.Error as error:
        return Verdict(False, f"not CSV: {error}")
    asked = [fold(column) for column in arguments["columns"]]
    if not rows or [fold(cell) for cell in rows[0]] != asked:
        return Verdict(False, f"the head is {rows[0] if rows else []!r:.80}, {arguments['columns']} asked")
    uneven = [row for row in rows[1:] if len(row) != len(asked) or not all(map(str.strip, row))]
    if uneven:
        return Verdict(False, f"a row without {len(asked)} values: {uneven[0]!r:.80}")
    return Verdict(len(rows) - 1 == arguments["num_rows"], f"found {len(rows) - 1} rows, {arguments['num_rows']} asked")


def table(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """One Markdown table with num_columns columns and num_rows rows below its head."""
    least = 1 if arguments["num_columns"] == 2 else 2  # signs in a row without | at its ends
    rows = [
        _cells(line) for line in lines(normalise(response)) if line.count("|") >= least or line.strip().startswith("|")
    ]
    rules = [row for row in rows if all(map(_RULE_CELL.fullmatch, row))]
    if len(rules) != 1 or rows.index(rules[0]) != 1:
        return Verdict(False, f"found {len(rules)} tables with a head, exactly one asked")
    uneven = [row for row in rows if len(row) != arguments["num_columns"]]
    if uneven:
        return Verdict(False, f"a row of {len(uneven[0])} columns, {arguments['num_columns']} asked")
    return Verdict(len(rows) - 2 == arguments["num_rows"], f"found {len(rows) - 2} rows, {arguments['num_rows']} asked")


def _cells(line: str) -> list[str]:
    inside = line.strip().replace("\\|", "/").removeprefix("|")
    return inside.removesuffix("|").split("|")


def template(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """The labels open lines, each once, in this order, and some text follows each."""
    labels = [fold(label).rstrip(" :") for label in arguments["labels"]]
    openings = tuple(labels)
    found, filled = [], []
    for line in lines(normalise(response)):
        start = fold(bare(line))
        may_be = labels if start.startswith(openings) else ()
        label = next((one for one in may_be if start.startswith(one) and not start[len(one) :][:1].isalnum()), None)
        rest = start[len(label) :] if label else start
        if label:
            found.append(label)
            filled.append(False)
        if filled and any(map(str.isalnum, rest)):
            filled[-1] = True
    if found != labels:
        return Verdict(False, f"found the labels {found[:10]}, {labels} asked")
    return Verdict(all(filled), "every label has its text" if all(filled) else "a label without text")


def sorted_list(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """A list of num_bullets items in alphabetical order, as the language sorts."""
    split = [line.strip().split(None, 1) for line in lines(normalise(response)) if line.strip()]
    items = [parts[1] for parts in split if len(parts) == 2 and parts[0] in pack.bullets]
    keys = [sorting_key(bare(item), pack) for item in items]
    wrong = next((items[place + 1] for place, (a, b) in enumerate(pairwise(keys)) if a > b), None)
    if wrong is not None:
        return Verdict(False, f"not in alphabetical order: {wrong[:40]!r}")
    return Verdict(
        len(items) == arguments["num_bullets"], f"found {len(items)} items, {arguments['num_bullets']} asked"
    )


def stairs(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """There are num_lines lines, and each is indented by exactly one space more than the line before."""
    found = [line for line in lines(normalise(response)) if line.strip() and not _FENCE.fullmatch(line)]
    depths = [len(line) - len(line.lstrip(" ")) for line in found]
    even = all(right - left == 1 for left, right in pairwise(depths))
    told = f"found {len(found)} lines, {arguments['num_lines']} asked; indented by {depths[:8]}"
    return Verdict(even and len(found) == arguments["num_lines"], told)


def word_lines(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """num_lines lines of one word each; blank lines and list markers do not count."""
    found = [words(bare(line), pack) for line in lines(normalise(response)) if line.strip()]
    more = next((line for line in found if len(line) != 1), None)
    told = f"a line of {len(more)} words" if more is not None else f"found {len(found)} words"
    return Verdict(
        more is None and len(found) == arguments["num_lines"], f"{told}, {arguments['num_lines']} lines asked"
    )


def brackets(response: str, arguments: Mapping[str, Any], pack: Pack) -> Verdict:
    """Brackets stand within brackets at least so deep, as (one [two {three}]); each is closed by its own kind."""
    opened: list[tuple[str, int]] = []
    deepest = 0
    for sign in normalise(response):
        if sign in "([{":
            opened.append((sign, 1))
        elif opened and sign in _PAIRS and opened[-1][0] == _PAIRS[sign]:
            _, depth = opened.pop()
            deepest = max(deepest, depth)
            if opened:
                opened[-1] = (opened[-1][0], max(opened[-1][1], depth + 1))
    return Verdict(deepest >= arguments["depth"], f"brackets {deepest} deep, at least {arguments['depth']} asked")
