"""Points that measured one task in several ways, taken apart: figures of two settings are never averaged.

A point may have several evaluations: other tasks, other seeds of sampling, which belong together. Where two of them hold
the same task and are not one measurement (`lm_eval_iberian.identity.identity`), or are of different weights or engines, they
become points of their own, whose names say what sets them apart: "instruct (0 shots)", "instruct (5 shots)".

A run folder also holds points of earlier versions of its sweep.yml. Where these were measured otherwise than today's, their
names say so, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from lm_eval_iberian.runs.point import Measured, SweepPoint
from lm_eval_iberian.scores.results import Run, check_run
from lm_eval_iberian.scores.suite import WORDS, apart_on, free_name
from lm_eval_iberian.wording import some

# The label that tells merges apart then: an axis for the pictures.
AXIS = "measured"
# The sections of an identity that may differ between evaluations of one point on different tasks.
OF_A_RUN = ("tasks", "seed", "chat")


def taken_apart(points: Sequence[SweepPoint]) -> tuple[SweepPoint, ...]:
    """The points, each with evaluations that may be put together; parents are named anew where they became several."""
    split = _split(points)
    return _earlier_named(split, {one.name for one in split}.difference(one.name for one in points))


def _split(points: Sequence[SweepPoint]) -> tuple[SweepPoint, ...]:
    variants = {point.name: _variants(point) for point in points}
    if all(len(found) == 1 for found in variants.values()):
        return tuple(points)
    taken = {point.name for point in points if len(variants[point.name]) == 1}
    for point in points:
        if len(variants[point.name]) > 1:
            variants[point.name] = [_free(one, taken) for one in variants[point.name]]
    made = [one for point in points for one in variants[point.name]]
    return tuple(replace(one, parents=tuple(_parents(one, variants))) for one in made)


def _earlier_named(points: Sequence[SweepPoint], named: Collection[str]) -> tuple[SweepPoint, ...]:
    """The points; those of an earlier sweep.yml that were measured otherwise, or of other models, say so in their names.

    Args:
        named: points whose names say it already.
    """
    names, labels = {point.name: point.name for point in points}, {point.name: point.labels for point in points}
    known: list[SweepPoint] = []
    for point in points:
        words = _apart(point, known) if point.is_earlier else []
        if words and point.name not in named:
            said = some(words, WORDS)
            names[point.name] = free_name(f"{point.name} ({said})", {*names, *names.values()})
            labels[point.name] = {**point.labels, AXIS: said} if point.labels else {}
        if not words:
            known.append(point)
    return tuple(
        replace(point, name=names[point.name], labels=labels[point.name],
                parents=tuple(names.get(name, name) for name in point.parents))
        for point in points
    )  # fmt: skip


def _apart(point: SweepPoint, others: Sequence[SweepPoint]) -> list[str]:
    """What sets an earlier point apart from all of the others: how tasks were measured, and what lay where its sources lie."""
    words = [
        apart_on(point.runs, other.runs, shared) for other in others if (shared := set(point.tasks) & set(other.tasks))
    ]
    seen = {pair for other in others for pair in _sources(other)}
    changed = sorted(dict(_sources(point) - seen).keys() & dict(seen).keys())
    return [*(words[0] if words and all(words) else []), *(f"other {Path(name).name}" for name in changed)]


def _sources(point: SweepPoint) -> set[tuple[str, str]]:
    """The models that it is made of: each as its recipe names it, and the hash of what lay there."""
    return {pair for run in point.runs for pair in run.sources.items()}


def _free(one: SweepPoint, taken: set[str]) -> SweepPoint:
    """The variant under a name that no other point has: both of two may be "other documents" to each other."""
    name = free_name(one.name, taken)
    taken.add(name)
    ending = name.removeprefix(one.name)
    labels = {**one.labels, AXIS: one.labels[AXIS] + ending} if AXIS in one.labels else one.labels
    return replace(one, name=name, labels=labels)


def _variants(point: SweepPoint) -> list[SweepPoint]:
    if len(point.evaluations) < 2:
        return [point]
    groups: list[list[tuple[Measured, Run | None]]] = [[]]
    for one in point.evaluations:
        run = _run(point, one)
        group = next((group for group in groups if not _conflict(run, group)), None)
        if group is None:
            group = []
            groups.append(group)
        group.append((one, run))
    if len(groups) == 1:
        return [point]
    return [_variant(point, group, [one for other in groups if other is not group for one in other])
            for group in groups]  # fmt: skip


def _run(point: SweepPoint, one: Measured) -> Run | None:
    results = one.store.results(one.key) if one.store else None
    return None if results is None else check_run(results, f"{point.name}: {one.name}")


def _conflict(run: Run | None, group: Iterable[tuple[Measured, Run | None]]) -> bool:
    """Whether a run holds a task that the group has measured in another way, or is not of the same model and engine."""
    return any(_differ(run, other) for _, other in group)


def _differ(first: Run | None, second: Run | None) -> bool:
    if first is None or second is None:
        return False
    if set(first.data["configs"]) & set(second.data["configs"]):
        return not first.identity.agrees(second.identity)
    return first.identity.without(*OF_A_RUN) != second.identity.without(*OF_A_RUN)


def _variant(
    point: SweepPoint, group: Sequence[tuple[Measured, Run | None]], others: Sequence[tuple[Measured, Run | None]]
) -> SweepPoint:
    pairs = [(ours, theirs) for _, ours in group for _, theirs in others if _differ(ours, theirs)]
    said = dict.fromkeys(
        word for ours, theirs in pairs if ours and theirs
        for word in ours.identity.without("seed").differences(theirs.identity.without("seed"))
    )  # fmt: skip
    words = some(list(said), WORDS)
    labels = {**point.labels, AXIS: words} if point.labels else point.labels
    evaluations = tuple(one for one, _ in group)
    is_earlier = point.is_earlier or all(one.is_earlier for one in evaluations)
    return replace(point, name=f"{point.name} ({words})", labels=labels, evaluations=evaluations, is_earlier=is_earlier)


def _parents(point: SweepPoint, variants: dict[str, list[SweepPoint]]) -> Iterable[str]:
    """The names of a point's parents now: of several, those that were measured as it was, if there are any."""
    for name in point.parents:
        found = variants.get(name)
        if found is None:
            yield name
            continue
        alike = [one for one in found if not apart_on(point.runs, one.runs, set(point.tasks) & set(one.tasks))]
        yield from (one.name for one in alike or found)
