"""What a run folder holds, finished or not: points, their scores, documents, answers and failures. Reads only.

    run = read_sweep_run(Path("runs/figure1"))
    for point in run.points:
        point.results                       # lm_eval's results, one an evaluation
        point.documents("iberian_eus_trivia")  # document -> its metrics, one mapping a run

A run folder: `plan.json` (the points, in order), `store*.sqlite` (see `store`; several where several machines
worked on it), and what reports write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.runs.point import Measured, SweepPoint
from lm_eval_iberian.runs.store import Store
from merge_hooks.files import read_text

PLAN = "plan.json"


@dataclass(frozen=True)
class SweepRun:
    """A run folder, read.

    Args:
        axes: axis -> labels, in the order of the sweep.
    """

    folder: Path
    name: str
    axes: Mapping[str, Sequence[str]]
    points: tuple[SweepPoint, ...]
    stores: tuple[Store, ...]

    def __getitem__(self, name: str) -> SweepPoint:
        for point in self.points:
            if point.name == name:
                return point
        raise SweepError(
            f"{self.folder}: no point is called {name}. There are: {', '.join(p.name for p in self.points)}."
        )

    @property
    def failures(self) -> dict[str, list[str]]:
        """point -> reasons, for all that is missing for a reason."""
        return {point.name: point.failures for point in self.points if point.failures}

    @property
    def unfinished(self) -> list[str]:
        """The points of which anything is missing."""
        return [point.name for point in self.points if len(point.finished) < max(1, len(point.evaluations))]

    @property
    def tasks(self) -> list[str]:
        """Every leaf task that any point was measured on."""
        return list(dict.fromkeys(task for point in self.points for task in point.tasks))


def read_sweep_run(folder: Path) -> SweepRun:
    """The run in a folder, points that measured a task in several ways taken apart. Raises SweepError where there is none."""
    from lm_eval_iberian.runs.variants import taken_apart

    plan = read_plan(folder)
    stores = tuple(Store(file, writes=False) for file in sorted(folder.glob("store*.sqlite")))
    points = taken_apart([read_point(entry, stores) for entry in plan["points"]])
    return SweepRun(folder, plan["name"], plan["axes"], points, stores)


def read_plan(folder: Path) -> dict[str, Any]:
    """What plan.json says. Raises SweepError where there is none, or one that is not as a sweep writes it."""
    path = folder / PLAN
    try:
        plan = json.loads(read_text(path, SweepError, "plan of a sweep"))
    except FileNotFoundError:
        raise SweepError(f"{folder}: no {PLAN} in it, so it is not the folder of a sweep.") from None
    except (ValueError, RecursionError) as error:
        raise SweepError(f"{path}: cannot be read ({error}). {MEND}") from None
    if wrong := _wrong(plan):
        raise SweepError(f"{path}: {wrong} is not as a sweep writes it. {MEND}")
    return dict(plan)


MEND = "Start the sweep again: it writes its plan anew, and measures nothing twice."
# key -> what it holds: of the plan, of a point, of an evaluation.
_PLAN = {"name": str, "axes": dict, "points": list}
_POINT = {"name": str, "role": str, "labels": dict, "parents": list, "signature": str, "recipe": str, "problem": str,
          "evaluations": list}  # fmt: skip
_MAYBE: dict[str, Any] = {"folder": (str, type(None)), "merge_seed": int, "rng": str, "include_path": (str, type(None))}
_EVALUATION = {"key": str, "name": str, "tasks": list, "seed": (int, type(None))}


def _wrong(plan: Any) -> str:
    """The first key that is not there, or holds what it cannot; "" where all is right."""
    if wrong := _wrong_key(plan, _PLAN, "the file"):
        return wrong
    for labels in plan["axes"].values():
        if not _are_texts(labels):
            return "axes"
    for number, point in enumerate(plan["points"], 1):
        where = f"point {number}"
        wrong = _wrong_key(point, _POINT, where)
        wrong = wrong or next((f"{where}: {key}" for key, kind in _MAYBE.items()
                               if key in point and not isinstance(point[key], kind)), "")  # fmt: skip
        if not wrong and not (_are_texts(point["parents"]) and _are_texts(list(point["labels"].values()))):
            wrong = f"{where}: parents or labels"
        wrong = wrong or next(
            (said for one in point["evaluations"] if (said := _wrong_key(one, _EVALUATION, where))), ""
        )
        if wrong or not all(_are_texts(one["tasks"]) for one in point["evaluations"]):
            return wrong or f"{where}: tasks"
    names = [point["name"] for point in plan["points"]]
    return next((f"point {number}: name, which another has," for number, name in enumerate(names, 1)
                 if name in names[: number - 1]), "")  # fmt: skip


def _wrong_key(found: Any, kinds: Mapping[str, Any], where: str) -> str:
    if not isinstance(found, dict):
        return where
    return next((f"{where}: {key}" for key, kind in kinds.items() if not isinstance(found.get(key), kind)), "")


def _are_texts(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(one, str) for one in found)


def is_sweep_run(folder: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (folder / PLAN).is_file()


def read_point(entry: Mapping[str, Any], stores: Sequence[Store]) -> SweepPoint:
    """A point from its entry in plan.json."""
    evaluations = tuple(_measured(one, stores) for one in entry["evaluations"])
    return SweepPoint(
        entry["name"], entry["role"], entry["labels"], tuple(entry["parents"]), entry["signature"], entry["recipe"],
        entry["problem"], evaluations, entry.get("folder"), entry.get("merge_seed", 0), entry.get("rng", "iberian"),
        entry.get("include_path"), entry.get("earlier") is True,
    )  # fmt: skip


def _measured(entry: Mapping[str, Any], stores: Sequence[Store]) -> Measured:
    key = entry["key"]
    store = next((one for one in stores if one.is_finished(key)), None)
    failure = next((reason for one in stores if (reason := one.failure(key)) is not None), None)
    return Measured(
        key, entry["name"], tuple(entry["tasks"]), entry["seed"], store, failure, entry.get("earlier") is True
    )
