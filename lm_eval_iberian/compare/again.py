"""The commands that measure a point of a sweep again, without the sweep: lm_eval's own command line (0.4.13).

    for line in commands(point, Path("best.yml"), Path("best")): ...     # then `iberian report best`

What lm_eval's command line does with values, and what follows from it here:

- `--model_args` and `--gen_kwargs` take `key=value` pairs, whose values are guessed (True, 1, 1.5, None), or a JSON
  object, which is taken as it is. Pairs where nothing can be guessed wrongly, else JSON.
- `batch_size`, `max_batch_size` and `device` are options of their own, and given twice they are an error.
- `--apply_chat_template` takes the *name* of a template: without one is no option at all, never `False`.
- `--seed` is four seeds, the few-shot examples' among them, which a sweep does not move.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_iberian.folders import VARIABLE as TASKS
from lm_eval_iberian.folders import task_folders
from lm_eval_iberian.models.backends import BACKENDS, named

if TYPE_CHECKING:
    from lm_eval_iberian.runs.point import SweepPoint

OPTIONS = ("batch_size", "max_batch_size", "device")
SAFE = re.compile(r"[\w./:@+~-]+")
IFEVAL = re.compile(r"ifeval_([a-z]{2,3})(?:_multi|_native)?")


def commands(point: SweepPoint, recipe: Path, out: Path) -> list[str]:
    """A command for each evaluation of the point that is done, for a shell.

    Args:
        recipe: the file that holds the point's recipe.
        out: where lm_eval shall write its results.
    """
    start = start_of(point)
    if start is not None:
        recipe, out = recipe.absolute(), out.absolute()
    lines = dict.fromkeys(_command(point, result, recipe, out) for result in point.results)
    return [f"cd {shlex.quote(str(start))} && {line}" if start is not None else line for line in lines]


def start_of(point: SweepPoint) -> Path | None:
    """The folder to start from, where the recipe's relative paths are the models that were measured; None: this one.

    Here another model may lie at such a path.
    """
    said = [source for result in point.results for source in _stamp(result).get("sources") or ()]
    names = {str(source.get("name")): source for source in said}
    names = {name: source for name, source in names.items() if not Path(name).expanduser().is_absolute()}
    beside = [] if point.folder is None else [Path(point.folder)]
    for start in (Path.cwd(), *beside, *filter(None, map(_above, names, names.values()))):
        if all(_is_there(start / name, source) for name, source in names.items()):
            return None if start.resolve() == Path.cwd() else start
    return next(
        (one for one in beside if any((one / name).exists() and not Path(name).exists() for name in names)), None
    )


def _is_there(place: Path, source: Mapping[str, Any]) -> bool:
    """Whether a name leads from somewhere to what was measured. One of the Hub must lead nowhere on this machine."""
    if not place.exists():
        return source.get("revision") is not None
    return str(place.resolve()) == source.get("folder")


def _above(name: str, source: Mapping[str, Any]) -> Path | None:
    """The folder from which the name led to a model, if it lies under this name."""
    folder, parts = Path(str(source.get("folder"))), Path(name).parts
    return folder.parents[len(parts) - 1] if folder.parts[-len(parts) :] == parts else None


def _command(point: SweepPoint, result: Mapping[str, Any], recipe: Path, out: Path) -> str:
    evaluation = (result.get("sweep") or {}).get("evaluation") or {}
    settings = evaluation.get("settings") or {}
    words = [*_environment(result), "lm_eval", "--model", "merged", *_model(point, result, recipe)]
    words += ["--tasks", ",".join(evaluation.get("tasks") or result["results"])]
    if point.include_path is not None:
        words += ["--include_path", point.include_path]
    for key in ("num_fewshot", "limit"):
        if settings.get(key) is not None:
            words += [f"--{key}", str(settings[key])]
    if generation := result["config"].get("gen_kwargs"):  # with the seed, where the engine takes one a request
        words += ["--gen_kwargs", written(generation)]
    if evaluation.get("seed") is not None:  # as `lm_eval_iberian.sweep.worker`
        seed = int(evaluation["seed"])
        words += ["--seed", f"{seed},{1234 + seed},{1234 + seed},{result['config'].get('fewshot_seed', 1234)}"]
    if settings.get("system_instruction"):
        words += [f"--system_instruction={settings['system_instruction']}"]  # one word: it may begin with a dash
    if result.get("chat_template_sha"):
        words += ["--apply_chat_template", "--fewshot_as_multiturn"]
        words += [] if result.get("fewshot_as_multiturn") else ["false"]
    return " ".join(_quoted(word) for word in [*words, "--output_path", str(out)])


def _model(point: SweepPoint, result: Mapping[str, Any], recipe: Path) -> Iterator[str]:
    """`--model_args`, and the engine's arguments that are options of lm_eval's own."""
    given = result["config"].get("model_args")
    arguments = {"recipe": str(recipe), **(given if isinstance(given, dict) else {})}
    if point.merge_seed or point.rng != "iberian":
        arguments |= {"merge_seed": point.merge_seed, "rng": point.rng}
    options = {key: arguments.pop(key) for key in OPTIONS if key in arguments}
    if (backend := _stamp(result).get("backend")) in BACKENDS and (batch_size := named(backend).batch_size):
        options.setdefault("batch_size", batch_size)
    yield from ("--model_args", written(arguments))
    for key, value in options.items():
        if value is not None:
            yield from (f"--{key}", str(value))


def _environment(result: Mapping[str, Any]) -> list[str]:
    """What names the documents that were read, where that is not the Hub, and folders of the user's own tasks:
    IBERIAN_DATA=samples."""
    found: dict[str, str] = {}
    revisions: dict[str, str] = {}
    folders: dict[str, None] = {}
    for task, config in (result.get("configs") or {}).items():
        metadata = (config if isinstance(config, Mapping) else {}).get("metadata") or {}
        read = str(metadata.get("documents") or "")
        source = Path(str(metadata.get("config_source") or ""))
        folders |= {str(folder): None for folder in task_folders()[1:] if source.is_relative_to(folder)}
        if language := IFEVAL.fullmatch(task):
            named = read.partition(", ")[0]
            if "/" in named:
                found[f"IBERIAN_IFEVAL_{language[1].upper()}"] = named
        elif read == "samples":
            found["IBERIAN_DATA"] = read
        elif read.startswith("/"):
            found["IBERIAN_DATA"] = read.partition("@")[0]
        if metadata.get("differences"):
            found["IBERIAN_ROWS"] = "any"
        revisions |= _revisions(str(metadata.get("documents_revision") or ""))
        found |= {str(name): str(value) for name, value in (metadata.get("settings") or {}).items()}
    if folders:
        found[TASKS] = os.pathsep.join(folders)
    if revisions:
        found["IBERIAN_REVISIONS"] = ",".join(f"{name}={commit}" for name, commit in revisions.items())
    return [f"{name}={value}" for name, value in found.items()]


def _revisions(read: str) -> dict[str, str]:
    """The data sets that were read at another commit than their manifest names, as "owner/name@commit and ..." says."""
    from lm_eval_iberian.documents.manifests import manifests

    pairs = [part.rpartition("@") for part in read.split(" and ")]
    pinned = {name: manifest.revision for name, manifest in manifests().items()}
    return {name: commit for name, at, commit in pairs if at and pinned.get(name) != commit}


def _stamp(result: Mapping[str, Any]) -> Mapping[str, Any]:
    return result["config"].get("iberian") or {}


def _quoted(word: str) -> str:
    """For a shell. An assignment before a command must keep its name bare."""
    name, equals, value = word.partition("=")
    return f"{name}={shlex.quote(value)}" if equals and re.fullmatch(r"(--)?\w+", name) else shlex.quote(word)


def written(values: Mapping[str, Any]) -> str:
    """A mapping as lm_eval's command line reads it back: `key=value` pairs, or JSON."""
    if all(_is_safe(key) and _is_plain(value) for key, value in values.items()):
        return ",".join(f"{key}={value}" for key, value in values.items())
    return json.dumps(dict(values), ensure_ascii=False)


def _is_plain(value: Any) -> bool:
    """Whether lm_eval reads the value back from its text as what it is."""
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return value >= 0  # of -1 it makes -1.0
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str) and _is_safe(value) and not _is_guessed(value)


def _is_safe(text: Any) -> bool:
    """Whether a text has no character that parts pairs, quotes or brackets."""
    return isinstance(text, str) and SAFE.fullmatch(text) is not None


def _is_guessed(text: str) -> bool:
    """Whether lm_eval would take a text for something else: a number, a boolean, None."""
    if text.lower() in ("true", "false", "none") or text.isnumeric():
        return True
    try:
        float(text)
    except ValueError:
        try:
            ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return False
    return True
