"""Arguments of `backend=server` as what they are: from Python and from YAML numbers may come as texts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from merge_hooks.errors import EngineError
from merge_hooks.texts import value_of

SIDES = ("left", "middle", "right")
# vLLM takes seeds of 64 bits.
LEAST_SEED = -(1 << 63)
# A day: longer waits are slips, and some clocks do not take them.
LONGEST_WAIT = 86400.0


def whole(name: str, said: Any, least: int = 1) -> int | None:
    """A whole number, or None where nothing is said. Raises EngineError for anything else."""
    value = _value(said)
    if value is None or (type(value) is int and value >= least):
        return value
    raise EngineError(f"{name}={said!s:.80}: give a whole number of at least {least}, or leave it out.")


def seconds(name: str, said: Any, least: float) -> float | None:
    """Seconds to wait, or None where nothing is said. Raises EngineError for anything else."""
    value = _value(said)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= LONGEST_WAIT:
        raise EngineError(f"{name}={said!s:.80}: give seconds, from {least:g} to {LONGEST_WAIT:g}.")
    return float(value)


def flag(name: str, said: Any) -> bool | None:
    """True or false, or None where nothing is said. Raises EngineError for anything else: the text "no" is not false."""
    value = _value(said)
    if value is None or isinstance(value, bool):
        return value
    raise EngineError(f"{name}={said!s:.80}: give true or false, or leave it out.")


def mapping(name: str, said: Any) -> dict[str, Any]:
    """A mapping, empty where nothing is said. Raises EngineError for anything else."""
    if said is None or isinstance(said, Mapping):
        return dict(said or {})
    raise EngineError(f"{name}={said!s:.80}: give a mapping, as {{'enable_thinking': false}}.")


def side(said: Any) -> str:
    """From where a prompt is cut. Raises EngineError for none of `SIDES`."""
    if said in SIDES:
        return str(said)
    raise EngineError(f"truncation_side={said!s:.80}: give one of {', '.join(SIDES)}.")


def _value(said: Any) -> Any:
    """A text as lm_eval reads it on its command line; nan as a text, which is no number."""
    value = value_of(said) if isinstance(said, str) else said
    return "nan" if isinstance(value, float) and math.isnan(value) else value
