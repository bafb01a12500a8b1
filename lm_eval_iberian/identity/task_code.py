"""What a task is beyond its configuration: the code that prompts and judges, and the documents that it reads.

A configuration names functions; what they call lies in files. These files count for a task:

- every file in the folder of its YAML with an ending in CODE (the configuration holds the YAML itself);
- the files in which its class, functions, filters, metrics and aggregations are defined, if they are not part of an
  installed package (lm_eval's own are known by its version);
- what these files import, and what that imports, as far as it lies in the same folders or in one of our packages;
- all of `ifeval_multi` as soon as one of its files counts, because its checks read its packs.

A change in any of them makes another measurement, even a changed comment: nobody can tell from outside.
"""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import math
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from types import CodeType
from typing import Any

from lm_eval_iberian.errors import DocumentsError
from lm_eval_iberian.folders import tasks_folder
from lm_eval_iberian.identity.identity import told

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")

CODE = (".py", ".json", ".jsonl", ".csv", ".tsv", ".txt", ".jinja", ".j2")
OURS = ("lm_eval_iberian", "ifeval_multi")
# Packages that count as a whole as soon as one file does, and the endings of the files that count.
WHOLE = {"ifeval_multi": (".py", ".yaml")}


def read_by(task: Any, limit: float | None = None, samples: list[int] | None = None) -> dict[str, str]:
    """Hashes of a task's code and of the documents that an evaluation with this limit reads, shots included.

    Args:
        task: lm_eval's, loaded, with its shots settled.
        samples: the documents' numbers, if these were named instead of a limit.
    """
    return {"code": code_of(task), "documents": documents_hash(task, limit, samples)}


def told_of(arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `lm_eval.evaluate` was given and is about to read, for its results; None, with a warning, if that fails.

    Args:
        arguments: those of `lm_eval.evaluate`.
    """
    limit, samples = arguments.get("limit"), arguments.get("samples") or {}
    apply = arguments.get("apply_chat_template")
    try:
        template = arguments["lm"].chat_template(apply) if apply else None
        tasks = {name: read_by(task, limit, samples.get(name)) for name, task in leaves(arguments["task_dict"])}
    except Exception as error:  # tasks and models of any make: their numbers are not ours to stop
        LOG.warning("iberian: the results will not say what was read (%s: %s)", type(error).__name__, error)
        return None
    return told(template, bool(arguments.get("fewshot_as_multiturn")), arguments.get("system_instruction"), tasks)


def refuse_limit(limit: float | None) -> None:
    """Refuse a `--limit` with which lm_eval would read nothing, or stop with a traceback. Raises DocumentsError."""
    if limit is not None and not (math.isfinite(limit) and limit > 0):
        raise DocumentsError(
            f"--limit {limit}: no documents would be left. Write a whole number of documents, or a share between 0 and 1."
        )


def generation_settings(tasks: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of the tasks that generate: leaf task -> settings. Those that make requests by code of their own are left out:
    only their requests say what they ask for (lm_eval's fda, swde, squad_completion).
    """
    from lm_eval.api.task import ConfigurableTask

    usual = ConfigurableTask.construct_requests
    return {name: dict(task.get_config("generation_kwargs") or {}) for name, task in tasks.items()
            if task.get_config("output_type") == "generate_until"
            and getattr(type(task), "construct_requests", usual) is usual}  # fmt: skip


def leaves(tasks: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Leaf tasks by name, from what `TaskManager.load` returns or from the nested mappings that `evaluate` takes."""
    for name, one in tasks.get("tasks", tasks).items():
        if isinstance(one, Mapping):
            yield from leaves(one)
        elif hasattr(one, "doc_iterator"):
            yield str(name), one


def code_of(task: Any) -> str:
    """A hash of the files that count for a task (16 hex digits)."""
    files, loose = _defined_in(task)
    folder = _folder(task)
    rooted = {folder, *(file.parent for file in files)} - {None}
    if folder is not None:
        files |= {file for file in folder.iterdir() if file.suffix in CODE and file.is_file()}
    found = _closure(files, [*_our_folders(), *(root for root in rooted if root is not None)])
    said = sorted((file.name, _hash_of(file)) for file in found)
    return hashlib.sha256(json.dumps([said, sorted(loose)]).encode()).hexdigest()[:16]


def documents_hash(task: Any, limit: float | None = None, samples: list[int] | None = None) -> str:
    """A hash (16 hex digits) of the documents that are asked, and of those that shots are drawn from."""
    state = hashlib.sha256()
    for document in _shots(task):
        state.update(_text(document))
    count = None if limit is None else documents_of(task, limit)
    for _, document in task.doc_iterator(limit=count, **({} if samples is None else {"samples": samples})):
        state.update(_text(document))
    return state.hexdigest()[:16]


def documents_of(task: Any, limit: float | None) -> int:
    """How many documents an evaluation with this limit reads."""
    from lm_eval.evaluator_utils import get_sample_size

    total = len(task.eval_docs)
    count = get_sample_size(task, limit)
    return total if count is None else min(total, count)


def _text(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, default=str).encode() + b"\n"


def _shots(task: Any) -> list[Any]:
    """The documents that shots are drawn from, if they are not the evaluated ones."""
    config = task.config
    if config.num_fewshot == 0 or config.fewshot_split in (None, config.test_split):
        return []
    return list(task.fewshot_docs() or ())


def _folder(task: Any) -> Path | None:
    """The folder of the task's YAML."""
    metadata = task.config.metadata
    source = metadata.get("config_source") if isinstance(metadata, Mapping) else None
    folder = Path(str(source)).parent if source else None
    return folder.resolve() if folder is not None and folder.is_dir() else None


def _defined_in(task: Any) -> tuple[set[Path], set[str]]:
    """The files that define what a task calls, and hashes of functions that come from no file."""
    files, loose = set(), set()
    for found in _callables(task):
        code = found if isinstance(found, type) else getattr(found, "__code__", None)
        file = _file_of(found)
        if file is not None:
            files.add(file)
        elif isinstance(code, CodeType) and not Path(code.co_filename).is_file():  # a notebook's, a prompt's
            loose.add(hashlib.sha256(code.co_code + repr(_constants(code)).encode()).hexdigest())
    return {file for file in files if not _is_installed(file)}, loose


def _constants(code: CodeType) -> list[Any]:
    """Names and constants of a function and of functions inside it, without addresses."""
    inner = [_constants(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return [*inner, repr(code.co_names)]


def _callables(task: Any) -> Iterator[Any]:
    """Classes and functions that a task's scores depend on."""
    yield from type(task).__mro__[:-1]
    held = [vars(task.config), getattr(task, "_metric_fn_list", None), getattr(task, "_aggregation_list", None),
            getattr(task, "_filters", None)]  # fmt: skip
    for name in ("aggregation", "higher_is_better"):
        try:
            held.append(getattr(task, name)())
        except Exception:
            continue  # a task of another make: what it holds is looked through all the same
    seen: set[int] = set()
    for one in held:
        yield from _inside(one, seen)


def _inside(value: Any, seen: set[int], depth: int = 0) -> Iterator[Any]:
    """Every function and class inside a value: in lists, mappings, partials and plain objects."""
    if id(value) in seen or depth > 6 or isinstance(value, (str, bytes, int, float, type(None))):
        return
    seen.add(id(value))
    if isinstance(value, partial):
        yield from _inside([value.func, value.args, value.keywords], seen, depth + 1)
    elif isinstance(value, type):
        yield from value.__mro__[:-1]
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _inside(item, seen, depth + 1)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _inside(item, seen, depth + 1)
    elif hasattr(value, "__code__"):
        yield from _of_function(value, seen, depth)
    elif hasattr(value, "__func__"):
        yield from _inside(value.__func__, seen, depth + 1)
    elif hasattr(value, "__dict__"):
        yield from type(value).__mro__[:-1]
        yield from _inside(vars(value), seen, depth + 1)


def _of_function(function: Any, seen: set[int], depth: int) -> Iterator[Any]:
    """A function, what it wraps, and what it closes over."""
    yield function
    yield from _inside(getattr(function, "__wrapped__", None), seen, depth + 1)
    for cell in function.__closure__ or ():
        try:
            yield from _inside(cell.cell_contents, seen, depth + 1)
        except ValueError:  # not filled yet
            continue


def _file_of(found: Any) -> Path | None:
    """The file that defines a class or a function."""
    if isinstance(found, type):
        name = getattr(sys.modules.get(found.__module__), "__file__", None)
    else:
        name = getattr(getattr(found, "__code__", None), "co_filename", None)
    return _real(Path(name)) if name and Path(name).is_file() else None


def _closure(files: Iterable[Path], folders: list[Path]) -> set[Path]:
    """The files and all that they import from these folders."""
    found: set[Path] = set()
    packages = {name: root for name in WHOLE if (root := _our_folder(name)) is not None}
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for name in [name for name, root in packages.items() if _is_in(file, [root])]:
            waiting += [one for one in packages.pop(name).rglob("*") if one.suffix in WHOLE[name]]
        if file.suffix == ".py":
            waiting += [one for name in _imports(file, _hash_of(file)) for one in _find(name, file, folders)]
    return found


@lru_cache(maxsize=4096)
def _imports(file: Path, _content: str) -> tuple[str, ...]:
    """The names of the modules that a file imports, wherever in it; relative ones spelt as `.name`."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ()
    names: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names[base] = None
            joint = "" if base.endswith(".") or not base else "."
            names |= dict.fromkeys(f"{base}{joint}{alias.name}" for alias in node.names)
    return tuple(names)


def _find(name: str, file: Path, folders: list[Path]) -> list[Path]:
    """The files of a module, searched as Python does: loaded already, beside the file, beside our packages."""
    level = len(name) - len(name.lstrip("."))
    parts = [part for part in name.lstrip(".").split(".") if part]
    if level:
        places = [file.parents[min(level, len(file.parents)) - 1]]
    elif parts[0] in sys.stdlib_module_names:
        return []
    else:
        ours = _our_folder(parts[0]) if parts[0] in OURS else None
        places = [file.parent, *([ours.parent] if ours is not None else [])]
    loaded = None if level else getattr(sys.modules.get(name), "__file__", None)
    candidates = [Path(loaded)] if loaded else []
    for place in places:
        stem = place.joinpath(*parts)
        candidates += [stem / "__init__.py", *([stem.with_name(f"{stem.name}.py")] if parts else [])]
    found = [_real(one) for one in candidates if one.is_file()]
    return [one for one in found if _is_in(one, folders)]


def _is_in(file: Path, folders: Iterable[Path]) -> bool:
    """Whether a file lies below one of the folders. Compared as text, because this is asked thousands of times."""
    text = str(file)
    return any(text.startswith(f"{folder}{os.sep}") for folder in folders)


@lru_cache(maxsize=4096)
def _real(path: Path) -> Path:
    return path.resolve()


@lru_cache
def _our_folders() -> tuple[Path, ...]:
    found = [folder for name in OURS if (folder := _our_folder(name)) is not None]
    return (*found, tasks_folder().resolve())


@lru_cache
def _our_folder(name: str) -> Path | None:
    from importlib.util import find_spec

    spec = find_spec(name)
    return Path(str(spec.origin)).resolve().parent if spec is not None and spec.origin else None


@lru_cache
def _installed() -> tuple[Path, ...]:
    """Where installed packages lie, and lm_eval wherever it lies."""
    import lm_eval

    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return (*(Path(path).resolve() for path in paths if path), Path(str(lm_eval.__file__)).resolve().parent)


def _is_installed(file: Path) -> bool:
    """Whether a file belongs to a package that a version identifies. Our own packages never do, wherever they lie."""
    return _is_in(file, _installed()) and not _is_in(file, _our_folders())


def _hash_of(file: Path) -> str:
    state = file.stat()
    return _hash(file, state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(maxsize=4096)
def _hash(file: Path, *_state: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
