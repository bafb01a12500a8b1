"""What a sweep found, column by column: the best merge, by how much it leads, and whether it is told apart from the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lm_eval_iberian.compare.best import Best, BestError, Candidate, Goal, best_of
from lm_eval_iberian.compare.columns import Column, Scores


@dataclass(frozen=True)
class Result:
    """The best merge of a column; see `lm_eval_iberian.compare.best`.

    Args:
        signs: of its figure: † not of whole benchmarks, ‡ its answers should be looked at first, § prompted otherwise
            than most of the column.
    """

    column: Column
    best: Best
    signs: str = ""

    @property
    def first(self) -> Candidate:
        return self.best.best

    @property
    def next(self) -> Candidate | None:
        """The one after it; None where it is alone."""
        return self.best.ranked[1] if len(self.best.ranked) > 1 else None

    @property
    def is_tested(self) -> bool:
        return self.best.lead is not None

    @property
    def is_told_apart(self) -> bool:
        """Whether its lead is more than the luck of the documents."""
        return self.best.lead is not None and self.best.lead.significant()

    @property
    def outcome(self) -> str:
        """After its figure: by how much it leads whom, with the next one's name as {next}."""
        if self.next is None:
            return "the only one with a figure"
        lead = self.first.mean - self.next.mean
        said = f"{lead:.2f} points more than {{next}}" if f"{lead:.2f}" != "0.00" else "as much as {next}"
        if self.best.lead is None:
            return f"{said} (not tested: {self.best.no_test})"
        test = self.best.lead
        told = "the two are told apart" if self.is_told_apart else "the two are not told apart"
        p = f"p = {test.p:.3f}" if test.p >= 0.001 else "p < 0.001"
        return f"{said} (95 % interval {test.low:+.2f} to {test.high:+.2f}, {p}): {told}"


def results(scores: Scores) -> list[Result]:
    """One a column in which any merge has a figure, and all that have one were measured alike."""
    found = []
    for column in scores.columns:
        try:
            best = best_of(scores, [Goal(column.key, column.benchmarks)])
        except BestError:
            continue  # nobody has a figure, or they were measured in different ways: the tables and notices say so
        found.append(Result(column, best, _signs(scores, best.best, column)))
    return found


def _signs(scores: Scores, first: Candidate, column: Column) -> str:
    flagged = scores.is_flagged([first.point.name], column)
    return "†" * (not first.scores[0].whole) + "‡" * flagged + "§" * scores.is_odd(first.point, column)


def what_bold_says(found: Sequence[Result]) -> str:
    """What may be concluded from the best figure of each column being bold."""
    told = [one.column.title for one in found if one.is_told_apart]
    if not any(one.is_tested for one in found):
        return "bold is the highest figure of a merge; it was not tested against the next"
    if not told:
        return "bold is the highest figure of a merge, and no column's is told apart from the next (paired bootstrap)"
    if len(told) == len(found):
        return "bold is the best merge, told apart from the next in every column (paired bootstrap)"
    return f"bold is the best merge, told apart from the next in {', '.join(told)} only (paired bootstrap)"
