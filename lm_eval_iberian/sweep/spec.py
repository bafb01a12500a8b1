"""sweep.yml: what is measured, and on which merges.

    tasks: [iberian_eu, iberian_ifeval]         # lm_eval's words: tasks, model_args, num_fewshot, limit, gen_kwargs, ...
    model_args: {backend: vllm, dtype: bfloat16, max_model_len: 8192}
    recipe:                                     # mergekit's YAML, with $names
      merge_method: linear
      models:
        - {model: $language, parameters: {weight: $weight}}
        - {model: meta-llama/Llama-3.1-8B-Instruct, parameters: {weight: 1.0}}
      dtype: bfloat16
    axes:                                       # a grid; `points:` lists them instead
      language: {eu: HiTZ/Latxa-Llama-3.1-8B}
      weight: [0.5, 1.0, 1.5, 2.0]

`read_sweep` checks all that can be checked without opening a model; `Sweep.points` spans the axes.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.sweep.axes import fill, grid, label_of, labelled, names_in
from lm_eval_iberian.sweep.types import check_types, refuse_one_name
from lm_eval_iberian.wording import some
from merge_hooks.errors import MergeHooksError
from merge_hooks.files import read_text
from merge_hooks.yaml_files import read_yaml

# What lm_eval's own --config calls the same.
SETTINGS = ("num_fewshot", "limit", "gen_kwargs", "system_instruction")
CHAT = ("apply_chat_template", "fewshot_as_multiturn")
KEYS = ("about", "tasks", "model_args", *SETTINGS, *CHAT, "include_path", "output_path", "log_samples", "runs", "parameters", "axes",
        "points", "exclude", "recipe", "recipes", "parents", "baselines", "merge_seed", "rng")  # fmt: skip
RUN_KEYS = ("tasks", "seeds", *SETTINGS, *CHAT)
PRESETS = Path(__file__).parent / "presets"
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Evaluation:
    """One call of lm_eval on a point.

    Args:
        tasks: names of tasks and groups.
        settings: of SETTINGS and CHAT, those that are set.
        seed: of sampled generation; None where nothing is run several times.
    """

    tasks: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None

    @property
    def name(self) -> str:
        """For file names and messages: "iberian_ifeval, seed 1"."""
        named = some(self.tasks, 3)
        return named if self.seed is None else f"{named}, seed {self.seed}"

    def as_data(self) -> dict[str, Any]:
        """Plain data, for keys and files."""
        return {"tasks": list(self.tasks), "settings": dict(self.settings), "seed": self.seed}

    @property
    def text(self) -> str:
        """The same as one text: two evaluations with equal ones are one."""
        return json.dumps(self.as_data(), sort_keys=True, default=str)


@dataclass(frozen=True)
class Point:
    """One model to measure.

    Args:
        name: unique in the sweep.
        role: "merge", "parent" or "baseline".
        labels: axis -> label; empty for all but points of the axes.
        recipe: what `lm_eval_iberian.models.Merged` takes, or a merge_hooks Recipe.
        evaluations: what it is measured on.
        merge_seed, rng: of random methods.
        chat: apply_chat_template and fewshot_as_multiturn as they were said; None: nothing was. Then the template is
            applied where the tokenizer has one, and shots are turns where the template is applied.
        problem: why its recipe cannot be read, or "".
    """

    name: str
    role: str
    labels: Mapping[str, str]
    recipe: Any
    evaluations: tuple[Evaluation, ...]
    merge_seed: int = 0
    rng: str = "iberian"
    chat: tuple[bool | None, bool | None] = (None, None)
    problem: str = ""


@dataclass(frozen=True)
class Sweep:
    """A sweep.yml that was read and checked.

    Args:
        data: the file's content.
        name: of the sweep: the file's stem, or the preset's.
        folder: relative paths in it are looked up here, after the current folder.
    """

    data: Mapping[str, Any]
    name: str
    folder: Path | None = None

    @property
    def model_args(self) -> dict[str, Any]:
        """The engine's arguments: those of the model `merged`, but for the recipe."""
        return dict(self.data.get("model_args") or {})

    @property
    def include_path(self) -> str | None:
        """A folder of further tasks, as lm_eval's --include_path."""
        found = self.data.get("include_path")
        return None if found is None else str(found)

    @property
    def adds_parents(self) -> bool:
        """Whether every source of every merge is measured too."""
        return self.data.get("parents") is not False

    @cached_property
    def axes(self) -> dict[str, dict[str, Any]]:
        """axis -> label -> value."""
        return {axis: labelled(axis, values) for axis, values in (self.data.get("axes") or {}).items()}

    @cached_property
    def points(self) -> list[Point]:
        """The points that are written down or spanned: axes first, then fixed recipes, then baselines."""
        made = [self._spanned(labels, values) for labels, values in self._combinations()] if self._has_axes else []
        recipes, baselines = self.data.get("recipes") or {}, self.data.get("baselines") or {}
        made += [self._fixed(name, recipe, "merge") for name, recipe in recipes.items()]
        made += [self._fixed(name, {"pretrained": str(model)}, "baseline") for name, model in baselines.items()]
        if self._has_axes is False and "recipe" in self.data:
            made.insert(0, self._spanned({}, {}))
        if not made:
            raise SweepError(f"{self.name}: there is nothing to measure. Give `recipe` with `axes`, or `recipes`.")
        return _uniquely_named(made)

    @property
    def _has_axes(self) -> bool:
        return bool(self.data.get("axes") or self.data.get("points"))

    def _combinations(self) -> list[tuple[dict[str, str], dict[str, Any]]]:
        """(labels, values) of each point of the axes."""
        listed = self.data.get("points")
        if listed:
            return [self._listed(entry) for entry in listed]
        spanned = [(labels, {axis: self.axes[axis][labels[axis]] for axis in labels}) for labels in grid(self.axes)]
        left_out = self.data.get("exclude") or []
        return [pair for pair in spanned if not any(_matches(pair[0], entry) for entry in left_out)]

    def _listed(self, entry: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
        """A point of `points:`. A value may be a label of an axis of that name."""
        labels, values = {}, {}
        for axis, given in entry.items():
            label = label_of(given)
            known = self.axes.get(axis, {})
            labels[axis], values[axis] = label, known.get(label, given)
        return labels, values

    def _spanned(self, labels: dict[str, str], values: dict[str, Any]) -> Point:
        name = " ".join(f"{axis}={label}" for axis, label in labels.items()) or self.name
        values = {**(self.data.get("parameters") or {}), **values}
        return self._point(name, "merge", labels, self.data["recipe"], values)

    def _fixed(self, name: str, recipe: Any, role: str) -> Point:
        return self._point(str(name), role, {}, recipe, dict(self.data.get("parameters") or {}))

    def _point(self, name: str, role: str, labels: dict[str, str], recipe: Any, values: dict[str, Any]) -> Point:
        from merge_hooks.recipe.recipe import Recipe

        def filled(key: str, default: Any = None) -> Any:
            return fill(self.data.get(key, default), values, f"{self.name}: {key}")

        written = fill(recipe, values, f"{self.name}: recipe of {name}")
        try:
            read, problem = self._recipe(name, written), ""
        except MergeHooksError as error:  # of one recipe: the others are measured all the same
            read, problem = Recipe("", f"{written!s:.200}", self.folder), str(error)
        return Point(
            name, role, labels, read, self._evaluations(values), _seed(filled("merge_seed", 0) or 0, self.name),
            str(filled("rng", "iberian") or "iberian"), chat_of({key: filled(key) for key in CHAT}, self.name), problem,
        )  # fmt: skip

    def _recipe(self, name: str, written: Any) -> Any:
        from merge_hooks.recipe.recipe import Recipe, passthrough
        from merge_hooks.recipe.short_form import find

        if isinstance(written, Mapping) and set(written) == {"pretrained"}:
            return replace(passthrough(written["pretrained"], dtype=self._dtype), folder=self.folder)
        if isinstance(written, Mapping | list):  # a list: the stages of one recipe
            stages = written if isinstance(written, list) else [written]
            text = yaml.safe_dump_all([_plain(stage) for stage in stages], sort_keys=False)
            return Recipe(text=text, origin=f"{self.name}: {name}", folder=self.folder)
        beside = self.folder / str(written) if self.folder else None
        exists = beside is not None and beside.exists() and not Path(str(written)).exists()
        return find(str(beside) if exists else str(written))

    @property
    def _dtype(self) -> str | None:
        found = self.model_args.get("dtype")
        return None if found in (None, "auto") else str(found)

    def _evaluations(self, values: Mapping[str, Any]) -> tuple[Evaluation, ...]:
        runs = self.data.get("runs") or [{"tasks": self.data.get("tasks")}]
        shared = {key: self.data[key] for key in SETTINGS if self.data.get(key) is not None}
        made = []
        for run in runs:
            run = fill(dict(run), values, f"{self.name}: runs")
            check_types(run, f"{self.name}: runs")
            settings = {**shared, **{key: run[key] for key in (*SETTINGS, *CHAT) if run.get(key) is not None}}
            tasks = _names(run.get("tasks"), self.name)
            made += [Evaluation(tasks, settings, seed) for seed in run.get("seeds") or [None]]
        return tuple(made)


def read_sweep(written: str | Path, given: Mapping[str, Any] | None = None) -> Sweep:
    """A sweep from a file, or `preset:merge_and_conquer/figure1`.

    Args:
        given: parameters and axes to set (`--set name=value`); labels of an axis leave these alone of it;
            `axis.label` sets or adds one value.
    Raises:
        SweepError: it is not there, not YAML, or has keys that mean nothing.
    """
    data, name, folder = read_data(written)
    return check_sweep(with_settings(data, given or {}, name), name, folder)


def read_data(written: str | Path) -> tuple[dict[str, Any], str, Path | None]:
    """(what stands in a sweep.yml, its name, the folder that its paths are relative to). Raises SweepError."""
    path, name = _find(str(written))
    text = read_text(path, SweepError, "sweep.yml", MAX_BYTES)
    data = read_yaml(text, str(path), SweepError, "sweep.yml")
    if not isinstance(data, dict):
        raise SweepError(f"{path}: not a sweep: write `tasks:`, `recipe:` and `axes:`.")
    return data, name, None if PRESETS in path.parents else path.resolve().parent


def check_sweep(data: Mapping[str, Any], name: str, folder: Path | None = None) -> Sweep:
    """A sweep from its data. Raises SweepError where a key means nothing, or a name is not known."""
    refuse_unknown(data, KEYS, name)
    check_types(data, name)
    for run in data.get("runs") or ():
        refuse_unknown(run, RUN_KEYS, f"{name}: runs")
        check_types(run, f"{name}: runs")
    if ("axes" in data or "points" in data) and "recipe" not in data:
        raise SweepError(f"{name}: axes without a `recipe:` in which they stand as $names.")
    for key in ("recipe", "pretrained", "method", "models", "base", "merge_seed", "rng"):
        if key in (data.get("model_args") or {}):
            raise SweepError(f"{name}: model_args: `{key}` belongs to the points. Write it at the top level.")
    for key in ("recipes", "baselines"):
        refuse_one_name(data.get(key) or (), f"{name}: {key}")
    sweep = Sweep(data, name, folder)
    missing = [key for key, value in (data.get("parameters") or {}).items() if value is None and _is_used(key, data)]
    if missing:
        raise SweepError(f"{name}: give {', '.join(f'--set {key}=...' for key in missing)}")
    unused = set(sweep.axes) - names_in({key: value for key, value in data.items() if key != "points"})
    if unused:
        raise SweepError(f"{name}: axes: ${', $'.join(sorted(unused))} stands nowhere in the recipe.")
    return sweep


def presets() -> list[str]:
    """All presets, e.g. "merge_and_conquer/figure1"."""
    return sorted(str(path.relative_to(PRESETS).with_suffix("")) for path in PRESETS.glob("*/*.yml"))


def _find(written: str) -> tuple[Path, str]:
    if written.startswith("preset:"):
        name = written.removeprefix("preset:")
        if name not in presets():
            raise SweepError(f"{written}: there is no such preset. There are: {', '.join(presets())}.")
        return PRESETS / f"{name}.yml", name
    path = Path(written).expanduser()
    if not path.is_file():
        raise SweepError(f"{written}: no such file. Give a sweep.yml, or one of preset:{', preset:'.join(presets())}.")
    return path, path.stem


def with_settings(data: dict[str, Any], given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The file's data with what the command line sets. Raises SweepError for a name that stands nowhere in it."""
    data = {**data, "parameters": dict(data.get("parameters") or {}), "axes": dict(data.get("axes") or {})}
    for key, value in given.items():
        axis, dot, label = key.partition(".")
        if key in data["parameters"]:
            data["parameters"][key] = value
        elif key in data["axes"]:
            data["axes"][key] = _chosen(data["axes"][key], value)
        elif dot and isinstance(data["axes"].get(axis), Mapping):
            data["axes"][axis] = {**data["axes"][axis], label: value}
        elif key in KEYS and key not in ("axes", "parameters", "recipe", "recipes", "points", "runs"):
            data[key] = value
        else:
            known = [*data["parameters"], *data["axes"]]
            raise SweepError(
                f"{name}: --set {key}: no such parameter or axis. There are: {', '.join(known) or 'none'}."
            )
    return {key: value for key, value in data.items() if value != {} or key not in ("axes", "parameters")}


def _chosen(axis: Any, given: Any) -> Any:
    """An axis as the command line sets it: some of its labels, where it has labels; else values."""
    labels = [str(label) for label in (given if isinstance(given, list) else [given])]
    known = {str(label): value for label, value in axis.items()} if isinstance(axis, Mapping) else {}
    return {label: known[label] for label in labels} if set(labels) <= set(known) else given


def refuse_unknown(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raises SweepError for a key that is not known, with the one that may be meant."""
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"Did you mean `{close[0]}`?" if close else f"There are: {', '.join(known)}."
            raise SweepError(f"{where}: `{key}`: no such key. {hint}")


def _is_used(parameter: str, data: Mapping[str, Any]) -> bool:
    """Whether a parameter stands in the sweep, or in another one that does."""
    used, parameters = names_in({key: value for key, value in data.items() if key != "parameters"}), data["parameters"]
    while more := {name for one in used if one in parameters for name in names_in(parameters[one])} - used:
        used |= more
    return parameter in used


def chat_of(said: Mapping[str, Any], where: str) -> tuple[bool | None, bool | None]:
    """apply_chat_template and fewshot_as_multiturn; None where nothing is said. Raises SweepError for other values."""
    check_types({key: said.get(key) for key in CHAT}, where)
    return said.get(CHAT[0]), said.get(CHAT[1])


def _seed(said: Any, where: str) -> int:
    if not isinstance(said, int) or isinstance(said, bool):
        raise SweepError(f"{where}: merge_seed: {said!r}: write a whole number.")
    return said


def _names(tasks: Any, where: str) -> tuple[str, ...]:
    if isinstance(tasks, str):
        tasks = tasks.split(",")
    names = tuple(name for task in tasks or () if (name := str(task).strip()))
    if not names:
        raise SweepError(f"{where}: give `tasks:`, as lm_eval's --tasks.")
    return names


def _matches(labels: Mapping[str, str], entry: Mapping[str, Any]) -> bool:
    return all(labels.get(axis) == label_of(value) for axis, value in entry.items())


def _uniquely_named(points: list[Point]) -> list[Point]:
    seen: set[str] = set()
    for point in points:
        if point.name in seen:
            raise SweepError(f"{point.name}: two points have this name.")
        seen.add(point.name)
    return points


def _plain(value: Any) -> Any:
    """Mappings and lists that YAML can write."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
