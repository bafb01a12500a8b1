"""The notes under the tables: what holds on several rows is said once, with the rows; what is one row's stays with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lm_eval_iberian.scores.tables import PAPER, Report

CHANCE = "chance"
# Rows without a note are named instead of those with it where they are so few of all.
FEW = 1 / 3


@dataclass(frozen=True)
class Notes:
    """The notes of a report.

    Args:
        several: lines on two rows and more, each with its rows in words: "limited: ...: EusTrivia (eu) (all 9 rows)".
        own: row -> lines on it alone.
    """

    several: list[str]
    own: dict[str, list[str]]


def notes_of(report: Report, called: Callable[[str], str] = str) -> Notes:
    """The notes of a report in as few lines as say all of them.

    Args:
        called: makes a row's name as it is shown.
    """
    rows = list(
        dict.fromkeys(name for table in report.tables for name, role, _ in table.rows if role not in (CHANCE, PAPER))
    )
    together: dict[tuple[str, ...], list[str]] = {}
    for note, names in _holders(report.notes).items():
        together.setdefault(names, []).append(note)
    several = [f"{line} ({which(names, rows, called)})"
               for names, notes in together.items() if len(names) > 1 for line in _lines(notes)]  # fmt: skip
    own = {name: _lines(notes) for name in report.notes if (notes := together.get((name,)))}
    return Notes(several, own)


def _holders(notes: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """note -> the rows that it holds on."""
    found: dict[str, dict[str, None]] = {}
    for name, said in notes.items():
        for note in said:
            found.setdefault(note, {})[name] = None
    return {note: tuple(names) for note, names in found.items()}


def which(names: Sequence[str], rows: Sequence[str], called: Callable[[str], str] = str) -> str:
    """Rows in words, all of them or none left out: "all 9 rows", "all 9 rows but a", "rows a, b".

    Args:
        rows: those of the tables, which a reader can see.
    """
    others, beside = [row for row in rows if row not in names], [name for name in names if name not in rows]
    whole = "both rows" if len(rows) == 2 else f"all {len(rows)} rows"
    if rows and not others:
        return whole + (f", and {_listed(beside, called)}" if beside else "")
    if not beside and len(others) < FEW * len(rows):
        return f"{whole} but {_listed(others, called)}"
    return f"rows {_listed(names, called)}"


def _listed(names: Sequence[str], called: Callable[[str], str]) -> str:
    shown = [called(name) for name in names]
    return ("; " if any("," in name for name in shown) else ", ").join(shown)


def _lines(notes: Sequence[str]) -> list[str]:
    # What is said of printed rows is a sentence, and no benchmark's title with a word on it.
    return list(notes) if all(note.startswith("rows marked [") for note in notes) else grouped(notes)


def grouped(notes: Sequence[str]) -> list[str]:
    """Notes that say the same of many benchmarks as one: "embedded samples, ...: Belebele (eu), EusTrivia (eu)"."""
    titles: dict[str, list[str]] = {}
    for note in notes:
        title, _, said = note.partition(": ")
        titles.setdefault(said or note, []).append(title)
    return [f"{said}: {', '.join(named)}" if named != [said] else said for said, named in titles.items()]
