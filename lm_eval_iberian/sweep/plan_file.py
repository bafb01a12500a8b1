"""plan.json of a run folder: whose folder it is, and what stays in it when a sweep comes back with other points.

A run folder belongs to one sweep.yml, known by its name and its folder. One that was changed in between (other weights,
--set) goes on: what the stores hold of earlier points stays in the plan, behind those of today. Another sweep.yml is
refused: the last one would hide what the first had measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.runs.run import PLAN, read_plan
from lm_eval_iberian.runs.store import Store
from lm_eval_iberian.sweep.plan import free_name
from merge_hooks.files import write_whole

SEARCH = "optuna.sqlite"  # of `iberian tune`
ANEW = "it is written anew, and nothing is measured twice."


def refuse_another(folder: Path, made: Mapping[str, Any]) -> None:
    """Raises SweepError where the folder holds another sweep, or a search."""
    if (folder / SEARCH).exists():
        raise SweepError(f"{folder}: it holds a search of `iberian tune`. Give a sweep a folder of its own with --out.")
    there = _plan_of(folder)
    # Its file, where both have one: a sweep that is given another name in its own file stays that sweep.
    for key in ("file",) if there.get("file") and made.get("file") else ("name",):
        theirs, ours = there.get(key), made.get(key)
        if theirs is not None and ours is not None and theirs != ours:
            moved = key == "file" and Path(theirs).name == Path(ours).name and not Path(theirs).parent.exists()
            raise SweepError(
                f"{folder}: it holds the sweep {theirs}, and this one is {ours}. Give it a folder of its own with --out."
                + (f" If it is the same one and was moved here, delete {folder / PLAN}: {ANEW}" if moved else "")
            )


def write_plan(folder: Path, made: Mapping[str, Any], stores: Iterable[Store] = ()) -> None:
    """plan.json, whole or not at all; points of before that a store knows something of are kept behind those of `made`."""
    data = _with_earlier(made, _plan_of(folder), tuple(stores))
    write_whole(folder / PLAN, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def _plan_of(folder: Path) -> dict[str, Any]:
    """What plan.json says; nothing where there is none, or one that is damaged and will be written anew."""
    try:
        return read_plan(folder)
    except SweepError:
        return {}


def _with_earlier(made: Mapping[str, Any], there: Mapping[str, Any], stores: tuple[Store, ...]) -> dict[str, Any]:
    """The plan with what was measured before of points, or of tasks, that are not in it."""
    points = [dict(point) if isinstance(point, dict) else point for point in made.get("points") or ()]
    names = {point["name"]: point for point in points if isinstance(point, dict)}
    axes = {axis: list(labels) for axis, labels in (made.get("axes") or {}).items()}
    earlier: list[dict[str, Any]] = []
    called: dict[str, str] = {}  # of before -> today's, of the same model
    for point in there.get("points") or ():
        old, now = point["name"], names.get(point["name"])
        kept = [one for one in point["evaluations"] if any(store.knows(one["key"]) for store in stores)]
        if now is not None and _is_same(now, point):  # what is measured anew takes the old one's place
            kept = _of_other_tasks(kept, now["evaluations"])
            if now["signature"] == point["signature"]:
                now["evaluations"], kept = [*now["evaluations"], *kept], []
        if kept and not _keys(kept) <= {key for one in names.values() for key in _keys(one["evaluations"])}:
            if now is not None:  # another model of this name: a row of its own, on no axis
                point |= {"name": free_name(f"{old} (earlier)", names), "labels": {}}
            for axis, label in point["labels"].items():
                axes.setdefault(axis, [])
                axes[axis] += [] if label in axes[axis] else [label]
            names[point["name"]] = point | {"evaluations": kept, "earlier": True}
            earlier.append(names[point["name"]])
        if same := _same_model(old, point, names):
            called[old] = same
    for point in earlier:
        point["parents"] = [called[name] for name in point["parents"] if name in called]
    points += earlier
    return {**made, "axes": axes, "points": points} if points else dict(made)


def _same_model(old: str, point: Mapping[str, Any], names: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The name now of what was called `old`: of the same signature, as what lies at its path may be another model, and
    another parent may have got its name."""
    found = [name for name, one in names.items() if one["signature"] == point["signature"]]
    return next((name for name in (point["name"], old) if name in found), next(iter(found), None))


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two entries are of one model, as the recipe says it."""
    return all(one.get(key) == other.get(key) for key in ("recipe", "merge_seed", "rng"))


def _of_other_tasks(kept: list[Any], now: list[Any]) -> list[Any]:
    """Those of earlier evaluations whose tasks are in none of today's."""
    asked = {task for one in now for task in one["tasks"]}
    return [one | {"earlier": True} for one in kept if not asked & set(one["tasks"])]


def _keys(evaluations: Iterable[Any]) -> set[str]:
    return {str(one["key"]) for one in evaluations}
