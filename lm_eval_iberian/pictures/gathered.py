"""All that a report shows, computed once from a run folder: `gather(run)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lm_eval_iberian.compare.answers import Example, examples
from lm_eval_iberian.compare.columns import Scores
from lm_eval_iberian.compare.differences import Compared, Comparer
from lm_eval_iberian.compare.result import Result, results
from lm_eval_iberian.compare.shape import Shape, shape_of
from lm_eval_iberian.compare.tables import sweep_report
from lm_eval_iberian.pictures.curves import Row, rows
from lm_eval_iberian.pictures.heat import Heat, heat_map
from lm_eval_iberian.pictures.slots import left_out, legend_names, rule_names
from lm_eval_iberian.pictures.tradeoff import Tradeoff, tradeoffs
from lm_eval_iberian.runs.run import SweepRun
from lm_eval_iberian.scores.tables import Report


@dataclass(frozen=True)
class Gathered:
    """What there is to show.

    Args:
        lines, rules: what the lines and the parents are called in legends, by slot.
        slots: parent -> slot.
        short_names: merge -> its name without what its panel says.
        left_out_lines: lines for which the curves have no colour.
        forests: (title, differences) of each column.
        results: the best merge of each column.
    """

    run: SweepRun
    scores: Scores
    shape: Shape
    report: Report
    rows: list[Row]
    lines: dict[int, str]
    rules: dict[int, str]
    slots: dict[str, int]
    short_names: dict[str, str]
    left_out_lines: list[str]
    tradeoffs: list[Tradeoff]
    heat: Heat
    compared: list[Compared]
    forests: list[tuple[str, Sequence[Compared]]]
    results: list[Result]
    examples: list[Example]

    def compact(self, point: str) -> str:
        """A point's name by its labels alone; other names ("chance") as they are."""
        known = next((one for one in self.run.points if one.name == point), None)
        return point if known is None else self.shape.compact(known)


def gather(run: SweepRun) -> Gathered:
    """Read and compute everything."""
    scores, shape = Scores(run), shape_of(run)
    compared = Comparer(scores).all()
    lines, rules = legend_names(scores, shape)
    return Gathered(
        run, scores, shape, sweep_report(scores), rows(scores, shape), lines, rules, rule_names(scores, shape),
        {merge.name: shape.short(merge) for merge in scores.merges}, left_out(scores, shape), tradeoffs(scores, shape),
        heat_map(scores, shape), compared, _forests(scores, shape, compared), results(scores), examples(scores),
    )  # fmt: skip


def _forests(scores: Scores, shape: Shape, compared: Sequence[Compared]) -> list[tuple[str, Sequence[Compared]]]:
    """The differences of each column, of the merges that are meant for its language."""
    made: list[tuple[str, Sequence[Compared]]] = []
    for column in scores.columns:
        found = [one for one in compared if one.benchmark is None and one.column == column
                 and shape.belongs(scores.run[one.merge], column.language)]  # fmt: skip
        if found:
            made.append((column.title, found))
    return made
