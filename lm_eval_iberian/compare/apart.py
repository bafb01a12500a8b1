"""What sets the rows of a run apart: every part of their identities that is not the same for all.

    found = apart(run.points)
    found.keys           # ("weights: merge", "chat: template", "shots of 29 tasks (...)")
    found.rows           # (point, value for each key)
    found.same           # what all that state it say alike: key -> value

Names as in `lm_eval_iberian.identity.identity`. A part that a row does not state ("–") is not compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval_iberian.identity.identity import digest
from lm_eval_iberian.runs.point import SweepPoint
from lm_eval_iberian.wording import some

NOTHING = "–"
LONGEST = 60  # characters of a value; a longer one is named by its beginning and its hash


@dataclass(frozen=True)
class Apart:
    """What differs, a row a point; and what is the same."""

    keys: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    same: Mapping[str, str]


def apart(points: Sequence[SweepPoint]) -> Apart:
    """Compare the identities of all points of which anything was measured."""
    stated = {point.name: _stated(point) for point in points if point.runs}
    names = dict.fromkeys(key for one in stated.values() for key in one)
    columns = {key: tuple(one.get(key, NOTHING) for one in stated.values()) for key in names}
    differ = {key: values for key, values in columns.items() if len(set(values) - {NOTHING}) > 1}
    same = {
        key: (next(one for one in values if one != NOTHING),) for key, values in columns.items() if key not in differ
    }
    together = _together(differ)
    rows = tuple((point, tuple(values[number] for values in together.values())) for number, point in enumerate(stated))
    return Apart(tuple(together), rows, {key: value for key, (value,) in _together(same).items()})


# A part's name: (task or "", "shots") or ("", "weights: merge").
_Key = tuple[str, str]


def _stated(point: SweepPoint) -> dict[_Key, str]:
    """All that the files of a point state; several values of one part stand beside each other."""
    found: dict[_Key, dict[str, None]] = {}
    for run in point.runs:
        parts = run.identity.parts
        # No chat template and no system prompt are statements, too.
        flat = [(("", f"{section}: {name}"), "none" if section == "chat" and value is None else value)
                for section, part in parts.items() if section != "tasks" for name, value in part.items()]  # fmt: skip
        flat += [((task, name), value) for task, part in parts["tasks"].items() for name, value in part.items()]
        for key, value in flat:
            if value not in (None, {}, []):
                found.setdefault(key, {})[_shown(value)] = None
    return {key: " / ".join(values) for key, values in found.items()}


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 20]}... ({digest(value, 8)})"


def _together(differ: Mapping[_Key, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Tasks of which the same is said, as one: "shots of 29 tasks (...)"."""
    alike: dict[tuple[str, tuple[str, ...]], list[_Key]] = {}
    for key, values in differ.items():
        alike.setdefault((key[1], values), []).append(key)
    return {_said(keys[0], len(keys), [task for task, _ in keys]): values for (_, values), keys in alike.items()}


def _said(key: _Key, count: int, tasks: Sequence[str]) -> str:
    if not key[0]:
        return key[1]
    return f"{key[1]} of {key[0]}" if count == 1 else f"{key[1]} of {count} tasks ({some(tasks, 2)})"
