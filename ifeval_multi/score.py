"""Scoring a set of answers without lm_eval: totals, a table by type, and every verdict.

report = ifeval_multi.score(documents, responses, language="gl")
print(report.text())
report.write_verdicts("verdicts.jsonl")
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ifeval_multi.documents import Document, from_row
from ifeval_multi.errors import PackError
from ifeval_multi.evaluate import EDITIONS, evaluate_response, is_unfinished
from ifeval_multi.instructions import RESPONSE_LANGUAGE
from ifeval_multi.pack import load_pack

LEGEND = "strict: the answer as it is; loose: or without its first line, its last line, both, or its asterisks"
_LISTS = ("instruction_ids", "strict", "loose")  # of a row, one entry an instruction each


@dataclass(frozen=True)
class TypeScore:
    """How often one instruction type was asked and followed."""

    asked: int
    strict: int
    loose: int


@dataclass
class Report:
    """The scores of one set of answers under one edition."""

    language: str
    edition: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    truncated: int = 0
    excluded: int = 0

    @property
    def scored(self) -> list[dict[str, Any]]:
        """The documents with at least one instruction left to score."""
        return [row for row in self.rows if row["strict"]]

    @property
    def unknown(self) -> Counter[str]:
        """How often each id was left out because the pack knows no such type."""
        return Counter(name for row in self.rows for name in row["unknown"])

    def totals(self) -> dict[str, float]:
        """The four accuracies, 0 to 1 (nan when there is nothing to score)."""
        return {
            "prompt_strict": _mean(all(row["strict"]) for row in self.scored),
            "prompt_loose": _mean(all(row["loose"]) for row in self.scored),
            "instruction_strict": _mean(v for row in self.scored for v in row["strict"]),
            "instruction_loose": _mean(v for row in self.scored for v in row["loose"]),
        }

    def by_type(self) -> dict[str, TypeScore]:
        """The count and the strict and loose successes of each type, by id."""
        counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for row in self.scored:
            for name, strict, loose in zip(*(row[n] for n in _LISTS), strict=True):
                for place, value in enumerate((1, strict, loose)):
                    counts[name][place] += value
        return {name: TypeScore(*counts[name]) for name in sorted(counts)}

    def verdicts(self) -> Iterator[dict[str, Any]]:
        """One record an instruction, with the reason of the strict verdict, and why loose followed where only it did."""
        names = ("instruction_ids", "strict", "loose", "reasons")
        for row in self.rows:
            for name, strict, loose, reason in zip(*(row[n] for n in names), strict=True):
                yield {
                    "key": row["key"],
                    "instruction": name,
                    "edition": self.edition,
                    "strict": strict,
                    "loose": loose,
                    "reason": reason,
                }

    def write_verdicts(self, path: str | Path) -> None:
        """Write the verdicts as JSONL."""
        lines = (json.dumps(verdict, ensure_ascii=False) for verdict in self.verdicts())
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")

    def text(self) -> str:
        """Totals, what was left out, and a table by type, for a person."""
        asked = sum(score.asked for score in self.by_type().values())
        out = [
            f"ifeval_multi, language {self.language}, edition {self.edition}: "
            f"{len(self.scored)} prompts, {asked} instructions",
            "  ".join(f"{name} {_percent(value)}" for name, value in self.totals().items()),
        ]
        out += self._left_out()
        out += ["", f"{'type':<50} {'asked':>5} {'strict':>7} {'loose':>7}"]
        for name, score in self.by_type().items():
            strict, loose = (100 * n / score.asked for n in (score.strict, score.loose))
            out.append(f"{name:<50} {score.asked:>5} {strict:>7.2f} {loose:>7.2f}")
        out.append(LEGEND)
        return "\n".join(out)

    def as_mapping(self) -> dict[str, Any]:
        """What `text` says, as plain data: accuracies from 0 to 1, None where nothing was scored."""
        return {
            "language": self.language,
            "edition": self.edition,
            "prompts": len(self.scored),
            "totals": {name: None if math.isnan(value) else value for name, value in self.totals().items()},
            "types": {name: asdict(score) for name, score in self.by_type().items()},
            "notes": self._left_out(),
        }

    def _left_out(self) -> list[str]:
        nothing = len(self.rows) - len(self.scored)
        notes = []
        if self.excluded:
            notes.append(f"left out: {self.excluded} x {RESPONSE_LANGUAGE}")
        for name, count in sorted(self.unknown.items()):
            notes.append(f"left out: {count} x {name}, a type that the pack {self.language!r} does not know")
        if nothing:
            notes.append(f"left out of prompt level: {nothing} prompts with no other instruction")
        if self.truncated:
            notes.append(f"cut by the token limit: {self.truncated} of {len(self.rows)} answers")
        return notes


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f}"


def _mean(values: Iterable[bool]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else float("nan")


def score(
    documents: Sequence[Document | Mapping[str, Any]],
    responses: Sequence[str | Mapping[str, Any]],
    *,
    language: str,
    edition: str = "corrected",
    include_response_language: bool = False,
    think_end_token: str | None = None,
) -> Report:
    """Score answers, in the order of the documents.

    Args:
        documents: Documents, or rows of any dialect.
        responses: a text each, or {"response": text} with "finish_reason": "length" or
            "truncated": true where the token limit cut the answer.
        language: a code or the path of a pack.
        edition: "corrected" or "original".

    Raises:
        PackError: there are not as many answers as documents, or one cannot be read.
    """
    if edition not in EDITIONS:
        raise PackError("edition", f"{edition!r} is not known.", f"Use one of {EDITIONS}.")
    if len(documents) != len(responses):
        raise PackError(
            "responses",
            f"{len(responses)} answers for {len(documents)} documents.",
            "Give one for each document, in order.",
        )
    report, pack = Report(language, edition), load_pack(language)
    for number, (given, answer) in enumerate(zip(documents, responses, strict=True), 1):
        document = given if isinstance(given, Document) else from_row(given, f"document {number}", pack)
        text, cut = response_text(answer, f"answer {number}")
        report.truncated += cut or is_unfinished(text, think_end_token)
        kept = document.scored(include_response_language)
        report.excluded += len(document.instructions) - len(kept)
        report.rows.append(
            evaluate_response(document, text, language, edition, include_response_language, think_end_token)
        )
    return report


def response_text(answer: str | Mapping[str, Any], where: str) -> tuple[str, bool]:
    """The text of an answer, and whether its record says that the token limit cut it."""
    if isinstance(answer, str):
        return answer, False
    text = answer.get("response")
    if not isinstance(text, str):
        raise PackError(where, "key `response` holds no text.", 'As {"response": "..."}.')
    return text, bool(answer.get("truncated")) or answer.get("finish_reason") == "length"
