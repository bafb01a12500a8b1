"""SPACE.yml: a sweep.yml whose axes are searched and not walked.

    tasks: [iberian_eu]
    recipe: {...}                          # with $weight and $method in it, as in a sweep.yml
    search:
      weight: {low: 0.0, high: 2.0}        # step: 0.25, log: true, whole: true
      method: {choices: {linear: {...}, task arithmetic: {...}}}
    objective: [bench_eu, ifeval_eu]       # each is maximised; columns as those of `iberian best`
                                           # {bench_eu: 1, ifeval_eu: 0.5}: one, their weighted sum
    trials: 40
    sampler: tpe                           # nsgaii (several objectives), random, grid; or {name: tpe, multivariate: true}
    begin: {weight: 1.0, method: linear}   # tried first (choices by their labels)
    rungs: [50, 200]                       # documents of each task; a trial that falls behind is stopped there
    pruner: median                         # hyperband, halving
    seed: 0

Samplers and pruners are Optuna's own (but for `grid`, which walks every combination); what stands beside `name` goes
to them as it is.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_iberian.compare.best import BestError, is_sum, sum_name, terms_of
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.sweep.axes import MAX_POINTS, label_of, labelled
from lm_eval_iberian.sweep.spec import Sweep, check_sweep, read_data, refuse_unknown, with_settings

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

OWN_KEYS = ("search", "objective", "trials", "begin", "sampler", "pruner", "rungs", "seed")
SAMPLERS = {"tpe": "TPESampler", "nsgaii": "NSGAIISampler", "random": "RandomSampler", "grid": "RandomSampler"}
PRUNERS = {"median": "MedianPruner", "hyperband": "HyperbandPruner", "halving": "SuccessiveHalvingPruner"}
TRIALS = 30


@dataclass(frozen=True)
class Range:
    """A number between two others, both included. `whole`: whole numbers only."""

    name: str
    low: float
    high: float
    step: float | None = None
    log: bool = False
    whole: bool = False

    def suggest(self, trial: Trial) -> tuple[str, Any]:
        """(label, value) that Optuna's sampler takes."""
        if self.whole:
            value: float = trial.suggest_int(
                self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log
            )
        else:
            value = trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)
        return label_of(value), value

    @property
    def first(self) -> tuple[str, Any]:
        """(label, value) of its beginning."""
        value = int(self.low) if self.whole else self.low
        return label_of(value), value

    def checked(self, value: Any, where: str) -> float:
        """A value of it, as Optuna takes it. Raises SweepError for another."""
        found = _number(value, where)
        assert found is not None
        steps = (found - self.low) / (self.step or (1.0 if self.whole else 0.0) or 1.0)
        if not self.low <= found <= self.high or ((self.step or self.whole) and abs(steps - round(steps)) > 1e-9):
            raise SweepError(f"{where}: {value} is not among what is searched.")
        return int(found) if self.whole else found

    @property
    def grid(self) -> list[Any]:
        """All values. Raises SweepError for a range without a step."""
        step = self.step or (1.0 if self.whole else 0.0)
        if not step or self.log:
            raise SweepError(f"search: {self.name}: a grid needs a `step` (and no `log`), or `choices`.")
        count = int((self.high - self.low) / step + 1e-9) + 1
        if count > MAX_POINTS:
            raise SweepError(f"search: {self.name}: {count} values are too many for a grid.")
        values = [self.low + step * number for number in range(count)]
        return [int(value) for value in values] if self.whole else values


@dataclass(frozen=True)
class Choices:
    """One of several values; Optuna sees their labels."""

    name: str
    values: Mapping[str, Any]

    def suggest(self, trial: Trial) -> tuple[str, Any]:
        """(label, value) that Optuna's sampler takes."""
        label = trial.suggest_categorical(self.name, list(self.values))
        return label, self.values[label]

    @property
    def first(self) -> tuple[str, Any]:
        """(label, value) of the first."""
        return next(iter(self.values.items()))

    def checked(self, value: Any, where: str) -> str:
        """A label of it. Raises SweepError for another."""
        if label_of(value) not in self.values:
            raise SweepError(f"{where}: {value}: there are {', '.join(self.values)}.")
        return label_of(value)

    @property
    def grid(self) -> list[Any]:
        """All labels."""
        return list(self.values)


Axis = Range | Choices


@dataclass(frozen=True)
class Space:
    """A SPACE.yml that was read and checked.

    Args:
        data: of the sweep: without axes and what is only for the search.
        objectives: columns, or weighted sums of them ("bench_eu + 0.5*ifeval_eu"), all maximised.
        begin: axis -> value (of choices, the label) that is tried first; or None.
        written: all of it, as a SPACE.yml says it.
        rungs: limits of documents before the whole; may be empty.
        sampler, pruner: (name, options); the pruner None without rungs.
    """

    data: Mapping[str, Any]
    name: str
    folder: Path | None
    axes: tuple[Axis, ...]
    objectives: tuple[str, ...]
    trials: int
    rungs: tuple[int, ...]
    sampler: tuple[str, Mapping[str, Any]]
    pruner: tuple[str, Mapping[str, Any]] | None
    seed: int
    begin: Mapping[str, Any] | None = None
    written: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def suggest(self, trial: Trial) -> dict[str, tuple[str, Any]]:
        """What a trial tries: axis -> (label, value)."""
        return {axis.name: axis.suggest(trial) for axis in self.axes}

    def sweep(self, values: Mapping[str, tuple[str, Any]], rung: int) -> Sweep:
        """The sweep of one point, on the documents of a rung; `len(self.rungs)` is the whole."""
        data = dict(self.data) | {"axes": {axis: {label: value} for axis, (label, value) in values.items()}}
        if rung < len(self.rungs):
            runs = data.get("runs") or [{"tasks": data.get("tasks")}]
            data["runs"] = [{**run, "limit": self.rungs[rung]} for run in runs]
        return check_sweep(data, self.name, self.folder)

    @property
    def digest(self) -> str:
        """Of all that decides what a trial measures; not of how, or how long, is searched."""
        data = {key: value for key, value in self.data.items() if key != "log_samples"}
        said = [data, [repr(axis) for axis in self.axes], self.objectives, self.rungs]
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def make_sampler(self, number: int, in_parallel: bool) -> BaseSampler:
        """Optuna's sampler for the trial of this number. Seeded by it, so that a killed search goes on as it would have."""
        import optuna

        name, options = self.sampler
        given: dict[str, Any] = {"seed": self.seed * 100_003 + number, **options}
        if name == "tpe":
            given.setdefault("constant_liar", in_parallel)
        return _made(getattr(optuna.samplers, SAMPLERS[name]), given, "sampler")

    @property
    def given(self) -> list[dict[str, Any]]:
        """What Optuna is given to try before it chooses, in order."""
        return self.grid or ([dict(self.begin)] if self.begin else [])

    @property
    def grid(self) -> list[dict[str, Any]]:
        """Every combination, in order, where the sampler is `grid`; else nothing.

        Optuna's own GridSampler calls `Study.stop` after the last point, which `Study.tell` does not allow.
        """
        if self.sampler[0] != "grid":
            return []
        combinations = itertools.product(*(axis.grid for axis in self.axes))
        names = [axis.name for axis in self.axes]
        return [dict(zip(names, values, strict=True)) for values in itertools.islice(combinations, self.trials)]

    def make_pruner(self) -> BasePruner:
        """Optuna's pruner; one that stops nothing where there are no rungs."""
        import optuna

        if self.pruner is None:
            return optuna.pruners.NopPruner()
        name, options = self.pruner
        given = dict(options)
        if name == "hyperband":
            given = {"min_resource": 1, "max_resource": len(self.rungs) + 1} | given
        return _made(getattr(optuna.pruners, PRUNERS[name]), given, "pruner")


def read_space(written: str | Path, given: Mapping[str, Any] | None = None) -> Space:
    """A space from a file.

    Args:
        given: parameters to set, and keys such as `trials`.
    Raises:
        SweepError: it is not there, not YAML, has keys that mean nothing, or a name is not known.
    """
    return make_space(*read_data(written), given)


def make_space(data: dict[str, Any], name: str, folder: Path | None, given: Mapping[str, Any] | None = None) -> Space:
    """The same from a file's data."""
    given = dict(given or {})
    own = {key: given.pop(key, data.get(key)) for key in OWN_KEYS}
    rest = {key: value for key, value in data.items() if key not in OWN_KEYS}
    return check_space(with_settings(rest, given, name) | {k: v for k, v in own.items() if v is not None}, name, folder)


def check_space(data: Mapping[str, Any], name: str, folder: Path | None = None) -> Space:
    """A space from its data. Raises SweepError where anything of it means nothing."""
    for key in ("axes", "points", "exclude", "recipes"):
        if key in data:
            raise SweepError(
                f"{name}: `{key}` is for `iberian sweep`. What `iberian tune` varies stands under `search:`."
            )
    axes = _axes(data.get("search"), name)
    objectives = _objectives(data.get("objective"), name)
    rungs = _rungs(data, name)
    if rungs and len(objectives) > 1:
        raise SweepError(f"{name}: rungs: Optuna stops trials early for one objective only. Leave `rungs` out.")
    sampler = _named(data.get("sampler") or ("tpe" if len(objectives) == 1 else "nsgaii"), SAMPLERS, f"{name}: sampler")
    pruner = _named(data.get("pruner") or "median", PRUNERS, f"{name}: pruner") if rungs else None
    if data.get("pruner") and not rungs:
        raise SweepError(
            f"{name}: pruner: give `rungs: [50, 200]`, the numbers of documents after which it may stop a trial."
        )
    kept = {key: value for key, value in data.items() if key not in OWN_KEYS}
    seed, trials = _whole(data.get("seed", 0), f"{name}: seed", 0), _trials(data, sampler[0], axes, name)
    begin = _begin(data.get("begin"), axes, sampler[0], f"{name}: begin")
    space = Space(kept, name, folder, axes, objectives, trials, rungs, sampler, pruner, seed, begin, dict(data))
    space.sweep({axis.name: axis.first for axis in axes}, len(rungs)).points  # noqa: B018  raises for unknown names
    space.make_sampler(0, False)
    space.make_pruner()
    return space


def _axes(written: Any, name: str) -> tuple[Axis, ...]:
    if not isinstance(written, Mapping) or not written:
        raise SweepError(f"{name}: give `search:`, e.g. `search: {{weight: {{low: 0, high: 2}}}}`.")
    return tuple(_axis(str(axis), rules, f"{name}: search: {axis}") for axis, rules in written.items())


def _axis(axis: str, rules: Any, where: str) -> Axis:
    if isinstance(rules, list):
        rules = {"choices": rules}
    if not isinstance(rules, Mapping):
        raise SweepError(f"{where}: write `{{low: ..., high: ...}}` or `{{choices: [...]}}`.")
    if "choices" in rules:
        refuse_unknown(rules, ("choices",), where)
        return Choices(axis, labelled(axis, rules["choices"]))
    refuse_unknown(rules, ("low", "high", "step", "log", "whole"), where)
    low, high, step = (_number(rules.get(key), f"{where}: {key}", key == "step") for key in ("low", "high", "step"))
    log, whole = bool(rules.get("log", False)), bool(rules.get("whole", False))
    assert low is not None and high is not None
    if low > high:
        raise SweepError(f"{where}: low {low:g} is above high {high:g}.")
    if step is not None and (step <= 0 or log):
        raise SweepError(f"{where}: a step is above 0, and there is none with `log`.")
    if log and low <= 0:
        raise SweepError(f"{where}: with `log`, low is above 0.")
    if whole and any(value is not None and value != int(value) for value in (low, high, step)):
        raise SweepError(f"{where}: with `whole`, give whole numbers.")
    return Range(axis, low, high, step, log, whole)


def _begin(written: Any, axes: Sequence[Axis], sampler: str, where: str) -> dict[str, Any] | None:
    """Where a search begins: a value for each axis."""
    if written is None:
        return None
    if sampler == "grid":
        raise SweepError(f"{where}: a grid is walked in its own order. Leave `begin` out.")
    if not isinstance(written, Mapping) or set(written) != {axis.name for axis in axes}:
        raise SweepError(f"{where}: give a value for each of {', '.join(axis.name for axis in axes)}.")
    return {axis.name: axis.checked(written[axis.name], f"{where}: {axis.name}") for axis in axes}


def _objectives(written: Any, name: str) -> tuple[str, ...]:
    """The names of the objectives; a mapping of columns to weights is one."""
    if isinstance(written, str):
        written = [written] if is_sum(written) else written.split(",")
    entries = [written] if isinstance(written, Mapping) else list(written or ())
    names = tuple(_sum(one, name) if isinstance(one, Mapping) else str(one).strip() for one in entries)
    names = tuple(one for one in names if one)
    if not names or len(set(names)) < len(names):
        raise SweepError(
            f"{name}: give `objective:`, a column or several, each once: bench_eu, ifeval_eu, a task, task:metric; or "
            "their weights: {bench_eu: 1, ifeval_eu: 0.5}."
        )
    try:
        for one in names:
            terms_of(one)
    except BestError as error:
        raise SweepError(f"{name}: objective: {error}") from None
    return names


def _sum(written: Mapping[Any, Any], name: str) -> str:
    weights = {str(column): _number(weight, f"{name}: objective: {column}") for column, weight in written.items()}
    return sum_name({column: weight for column, weight in weights.items() if weight is not None})


def _rungs(data: Mapping[str, Any], name: str) -> tuple[int, ...]:
    rungs = tuple(_whole(rung, f"{name}: rungs", 1) for rung in data.get("rungs") or ())
    limit = data.get("limit")
    if list(rungs) != sorted(set(rungs)) or (rungs and limit is not None and rungs[-1] >= limit):
        raise SweepError(f"{name}: rungs: numbers of documents that grow, e.g. [50, 200], and stay below `limit`.")
    return rungs


def _trials(data: Mapping[str, Any], sampler: str, axes: Sequence[Axis], name: str) -> int:
    """How many trials; a grid has an end of its own."""
    size = None
    if sampler == "grid":
        size = 1
        for axis in axes:
            size *= len(axis.grid)
    trials = _whole(data.get("trials", size or TRIALS), f"{name}: trials", 1)
    return trials if size is None else min(trials, size)


def _named(written: Any, known: Mapping[str, str], where: str) -> tuple[str, Mapping[str, Any]]:
    options = dict(written) if isinstance(written, Mapping) else {"name": written}
    found = str(options.pop("name", ""))
    if found not in known:
        raise SweepError(f"{where}: `{found}`: there are {', '.join(known)}.")
    return found, options


def _made(kind: Any, options: Mapping[str, Any], where: str) -> Any:
    known = list(inspect.signature(kind).parameters)
    refuse_unknown(options, known, where)
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise SweepError(f"{where}: {error}") from None


def _number(value: Any, where: str, optional: bool = False) -> float | None:
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) == float("inf"):
        raise SweepError(f"{where}: give a number.")
    return float(value)


def _whole(value: Any, where: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SweepError(f"{where}: give whole numbers from {least}.")
    return value
