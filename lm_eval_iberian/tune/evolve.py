"""A configuration of mergekit-evolve, read as a search: `iberian tune --from evolve.yml`.

    genome:
      models: [A, B]
      merge_method: dare_ties            # linear, task_arithmetic, ties, dare_ties; slerp of two models
      base_model: C
      layer_granularity: 8               # parameters of their own for each 8 layers; `filters`, `smooth` as well
    tasks:
      - {name: a_task, metric: "acc,none", weight: 1.0}

    evolved = read_evolve("evolve.yml")
    evolved.data             # what a SPACE.yml of the same search would hold
    evolved.notes            # what is otherwise than there

Format: mergekit 0.1.5, mergekit/evo/config.py and mergekit/evo/genome.py. Its recipes are made here as they are there;
its score is the sum of weight times metric, and ours is 100 times that. What cannot be read the same way is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lm_eval_iberian.benchmarks.table import full_score_of
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.sweep.spec import MAX_BYTES, refuse_unknown
from lm_eval_iberian.tune.genome import SEARCHED, Genome, axes_of, recipe_of, word
from merge_hooks.files import read_text
from merge_hooks.yaml_files import read_yaml

KEYS = ("genome", "tasks", "limit", "num_fewshot", "shuffle", "random_init", "apply_chat_template",
        "fewshot_as_multiturn")  # fmt: skip
GENOME_KEYS = ("models", "merge_method", "base_model", "tokenizer_source", "layer_granularity", "normalize",
               "allow_negative_weights", "filters", "smooth")  # fmt: skip
TASK_KEYS = ("name", "weight", "metric")
WITH_BASE = ("task_arithmetic", "ties", "dare_ties")
NORMALIZED = ("linear", "ties", "dare_ties")
METRIC = "acc,none"
TRIALS = 100  # mergekit-evolve's --max-fevals, unless it is said
# mergekit-evolve sets no bounds to weights. Where they are normalised, only their shares count.
HIGHEST = {True: 1.0, False: 2.0}


@dataclass(frozen=True)
class Evolved:
    """A configuration that was read.

    Args:
        data: of the SPACE.yml.
        name: the file's stem.
        folder: where relative paths in it are looked up, after the current folder.
        notes: what is otherwise than in mergekit-evolve, in sentences.
    """

    data: dict[str, Any]
    name: str
    folder: Path
    notes: tuple[str, ...]


def read_evolve(written: str | Path) -> Evolved:
    """A configuration of mergekit-evolve as a search.

    Raises:
        SweepError: it cannot be read, or says what cannot be done here. Names the key, and what to write instead.
    """
    path = Path(written).expanduser()
    if not path.is_file():
        raise SweepError(f"{written}: no such file. Give the configuration that mergekit-evolve took.")
    text = read_text(path, SweepError, "configuration of mergekit-evolve", MAX_BYTES)
    data = read_yaml(text, str(path), SweepError, "configuration of mergekit-evolve")
    if not isinstance(data, Mapping) or not isinstance(data.get("genome"), Mapping):
        raise SweepError(f"{path}: not a configuration of mergekit-evolve: it has `genome:` and `tasks:`.")
    folder = path.resolve().parent
    return evolved(data, str(path), folder, lambda model: count_layers(model, folder))


def evolved(data: Mapping[str, Any], name: str, folder: Path, layers: Callable[[Any], int]) -> Evolved:
    """The same from data.

    Args:
        name: of the file, for messages.
        layers: how many a model has; asked only where the genome has groups of layers.
    """
    refuse_unknown(data, KEYS, name)
    _refuse_shuffle(data, name)
    genome = _genome(data["genome"], f"{name}: genome", layers)
    search, begin = axes_of(genome)
    chat, turns = (_bool(data, key, True, name) for key in ("apply_chat_template", "fewshot_as_multiturn"))
    space = {
        "about": f"read from {Path(name).name}, a configuration of mergekit-evolve",
        "tasks": list(dict.fromkeys(task for task, _, _ in _tasks(data.get("tasks"), name))),
        "model_args": {"dtype": "bfloat16"},
        "num_fewshot": data.get("num_fewshot"), "limit": data.get("limit"),
        # Without a template there are no turns.
        "apply_chat_template": chat, "fewshot_as_multiturn": turns and chat,
        "parents": False,
        "recipe": recipe_of(genome), "search": search,
        "objective": _objective(data.get("tasks"), name),
        "begin": None if _bool(data, "random_init", False, name) else begin,
        "trials": TRIALS,
    }  # fmt: skip
    space = {key: value for key, value in space.items() if value is not None}
    return Evolved(space, Path(name).stem, folder, tuple(_notes(data["genome"], genome)))


def count_layers(model: Any, folder: Path) -> int:
    """How many layers a model has: its files are looked at, and fetched where they are not here."""
    from merge_hooks.recipe.recipe import Recipe
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream

    text = yaml.safe_dump({"merge_method": "passthrough", "models": [{"model": model}]})
    config = open_stream(resolve(Recipe(text, str(model), folder))).model_config
    return int(config.get_text_config(decoder=True).num_hidden_layers)


def _genome(written: Mapping[str, Any], where: str, layers: Callable[[Any], int]) -> Genome:
    refuse_unknown(written, GENOME_KEYS, where)
    method, models, base = str(written.get("merge_method")), written.get("models"), written.get("base_model")
    if method not in SEARCHED:
        raise SweepError(f"{where}: merge_method: {method}: mergekit-evolve knows {', '.join(SEARCHED)}.")
    if not isinstance(models, list) or len(models) < 2 or any(models.count(one) > 1 for one in models):
        raise SweepError(f"{where}: models: give a list of two models or more, each once.")
    if any(not isinstance(one, (str, Mapping)) or not one for one in (*models, *([] if base is None else [base]))):
        raise SweepError(f"{where}: models: name each model as in a recipe.")
    smooth, filters = _bool(written, "smooth", False, where), written.get("filters") or []
    if not isinstance(filters, list) or not all(isinstance(one, str) and one.strip() for one in filters):
        raise SweepError(f"{where}: filters: give a list of parts of tensors' names, e.g. [self_attn, mlp].")
    if len({*map(word, filters), "rest"}) <= len(filters):
        raise SweepError(f"{where}: filters: {', '.join(filters)}: two of them are alike. Give each once.")
    if method in WITH_BASE and base is None:
        raise SweepError(f"{where}: base_model: {method} needs one.")
    if method == "slerp":
        models, base = _of_slerp(written, models, base, where)
    if method == "linear" and base is not None and base not in models:
        raise SweepError(f"{where}: base_model: a linear merge has none. List it among `models`, or remove it.")
    with_weights = [one for one in models if method not in WITH_BASE or one != base]
    normalize = _bool(written, "normalize", method in NORMALIZED, where)
    high = HIGHEST[normalize]
    low = -high if _bool(written, "allow_negative_weights", False, where) else 0.0
    groups = _groups(written.get("layer_granularity") or 0, lambda: layers(models[0]), f"{where}: layer_granularity")
    return Genome(tuple(with_weights), method, base, written.get("tokenizer_source"), groups, (*filters, ""), smooth,
                  normalize, low, high, len(models))  # fmt: skip


def _of_slerp(written: Mapping[str, Any], models: list[Any], base: Any, where: str) -> tuple[list[Any], Any]:
    """(the base and the other, the base)."""
    for key in ("smooth", "filters", "normalize"):
        if written.get(key):
            raise SweepError(f"{where}: {key}: slerp knows none. Remove it.")
    if len(models) != 2:
        raise SweepError(
            f"{where}: models: slerp of {len(models)} models: mergekit-evolve takes the two of the highest weights in each "
            "group of layers, and `iberian tune` does not. Give two; or take merge_method: linear."
        )
    if base is not None and base not in models:
        raise SweepError(f"{where}: base_model: slerp merges two models, and this would be a third. Remove it.")
    first = models[0] if base is None else base
    return [first, *(one for one in models if one != first)], first


def _groups(size: Any, layers: Callable[[], int], where: str) -> tuple[tuple[int, int], ...]:
    """First and last layer of each group."""
    if isinstance(size, bool) or not isinstance(size, int):
        raise SweepError(f"{where}: give a whole number of layers, or leave it out.")
    if size < 1:
        return ()
    count = layers()
    if count % size:
        raise SweepError(f"{where}: {size}: the models have {count} layers; give a number that divides it.")
    return tuple((first, first + size - 1) for first in range(0, count, size))


def _tasks(written: Any, name: str) -> list[tuple[str, str, float]]:
    """(task, metric, weight) of each entry."""
    if not isinstance(written, list) or not written:
        raise SweepError(f"{name}: tasks: give a list of `{{name: TASK, metric: acc,none, weight: 1.0}}`.")
    found = []
    for number, entry in enumerate(written, 1):
        where = f"{name}: tasks, entry {number}"
        entry = {"name": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise SweepError(f"{where}: give `name:`, a task of lm_eval.")
        refuse_unknown(entry, TASK_KEYS, where)
        weight, metric = entry.get("weight", 1.0), entry.get("metric", METRIC)
        is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool) and math.isfinite(weight)
        if not is_number or not weight:
            raise SweepError(f"{where}: weight: {weight}: give a number; a task of weight 0 counts nothing: remove it.")
        if not isinstance(metric, str) or not metric.strip():
            raise SweepError(f"{where}: metric: give a metric of lm_eval with its filter, such as {METRIC}.")
        found.append((entry["name"].strip(), metric.strip(), float(weight)))
    return found


def _objective(written: Any, name: str) -> dict[str, float]:
    """Column -> weight. A weighted sum adds shares in percent and all else as lm_eval writes it, mergekit-evolve adds all
    as lm_eval writes it: so all else gets a hundred times the weight, and the sum is 100 times theirs."""
    weights: dict[str, float] = {}
    for task, metric, weight in _tasks(written, name):
        column = f"{task}:{metric}"
        weights[column] = weights.get(column, 0.0) + weight * full_score_of(task, metric)
    return weights


def _refuse_shuffle(data: Mapping[str, Any], name: str) -> None:
    if _bool(data, "shuffle", False, name):
        raise SweepError(
            f"{name}: shuffle: here all trials are measured on the same documents, the first ones where `limit` is set. "
            "Write `shuffle: false`."
        )


def _bool(data: Mapping[str, Any], key: str, default: bool, where: str) -> bool:
    value = default if data.get(key) is None else data[key]
    if not isinstance(value, bool):
        raise SweepError(f"{where}: {key}: {value!r}: write true or false, or leave it out.")
    return value


def _notes(written: Mapping[str, Any], genome: Genome) -> Iterator[str]:
    """What is otherwise here."""
    yield "The score is 100 times that of mergekit-evolve, as accuracies are in percent here."
    yield "Optuna's TPE proposes, not CMA-ES (--set sampler=... takes others), in as many trials as --trials says."
    if "weight" in SEARCHED[genome.method]:
        yield f"Weights go from {genome.low:g} to {genome.high:g}; mergekit-evolve sets no bounds."
    if genome.method == "slerp":
        yield f"t goes from 0 (all of {genome.models[0]}) to 1; mergekit-evolve finds t by two weights."
    if len(genome.models) < len(written["models"]):
        yield f"{genome.base} is the base, so its weight, which means nothing to {genome.method}, is not searched."
