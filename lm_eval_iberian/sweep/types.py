"""What the keys of a sweep.yml may hold. The text "no" is not false, and a list is not a path.

check_types({"parents": "yes"}, "sweep.yml")      # SweepError: parents: 'yes': write true or false
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lm_eval_iberian.runs.errors import SweepError
from merge_hooks.texts import one_line, seen

# What people write for true and false, where a text of it means neither.
WORDS = ("yes", "no", "true", "false", "y", "n")
_PLACEHOLDERS = ("tasks", "num_fewshot", "limit", "gen_kwargs", "system_instruction", "apply_chat_template",
                 "fewshot_as_multiturn", "merge_seed", "rng", "seeds")  # fmt: skip


def check_types(data: Mapping[str, Any], where: str) -> None:
    """Raises SweepError for a key that holds what it cannot. Keys that are not known, and null, are left alone.

    Args:
        data: of the file, or of one of its `runs`. A value may be a `$name` where names are filled in.
    """
    for key, value in data.items():
        is_name = key in _PLACEHOLDERS and isinstance(value, str) and value.startswith("$")
        if key not in _RULES or value is None or is_name:
            continue
        is_right, wanted = _RULES[key]
        if not is_right(value):
            raise SweepError(f"{where}: {key}: {one_line(str(value)):.200}: {wanted}.")
    for key in ("model_args", "gen_kwargs"):
        if isinstance(data.get(key), Mapping):
            _refuse_words(data[key], f"{where}: {key}")


def refuse_one_name(names: Iterable[Any], where: str) -> None:
    """Raises SweepError where two keys are one once they are texts: 1 and "1"."""
    known: set[str] = set()
    for name in map(str, names):
        if name in known:
            raise SweepError(f"{where}: {name} comes twice. Give each a name of its own.")
        known.add(name)


def _refuse_words(arguments: Mapping[str, Any], where: str) -> None:
    """A text is true, whatever it says."""
    for key, value in arguments.items():
        if isinstance(value, str) and value.lower() in WORDS:
            raise SweepError(f"{where}: {key}: {value!r} is a text, not true or false. Write it without quotes.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_limit(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0 and (value < 1 or value == int(value))


def _is_line(value: Any) -> bool:
    """A text without line breaks or other characters that cannot be seen: a path, a name."""
    return isinstance(value, str) and bool(value.strip()) and seen(value) == value and "\n" not in value


def _are_names(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, list) and all(isinstance(one, (str, int)) and not isinstance(one, bool) for one in value)


def _are(each: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether a value is a list of such."""
    return lambda value: isinstance(value, list) and all(map(each, value))


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


_BOOL = (_is(bool), "write true or false, or leave it out")
_MAPPING = (_is(Mapping), "it must be a mapping")
_MAPPINGS = (_are(_is(Mapping)), "write a list of mappings")
_LINE = (_is_line, "write a path on one line")
# key -> (whether a value is right, what to write)
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "tasks": (_are_names, "write a list of tasks and groups, as lm_eval's --tasks"),
    "num_fewshot": (_is_whole, "write a whole number, 0 or more"),
    "limit": (_is_limit, "write a whole number of documents, or a share between 0 and 1"),
    "gen_kwargs": (_is(str, Mapping), "write a mapping, or lm_eval's text"),
    "system_instruction": (_is(str), "write a text"),
    "apply_chat_template": _BOOL, "fewshot_as_multiturn": _BOOL, "parents": _BOOL,
    "log_samples": _BOOL,
    "include_path": _LINE, "output_path": _LINE,
    "runs": (_are(_is(Mapping)), "write a list of `{tasks: [...], seeds: [...]}`"),
    "seeds": (_are(_is_whole), "write a list of whole numbers"),
    "points": _MAPPINGS, "exclude": _MAPPINGS,
    "model_args": _MAPPING, "parameters": _MAPPING, "axes": _MAPPING, "recipes": _MAPPING, "baselines": _MAPPING,
    "rng": (_is(str), "write the name of a generator"),
}  # fmt: skip
