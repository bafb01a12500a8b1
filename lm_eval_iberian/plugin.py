"""How lm_eval learns of the model `merged` and of our task folder. Everything that touches lm_eval's inside is here.

Checked with lm_eval 0.4.13. A later lm_eval that reads the entry points `lm_eval.models` and `lm_eval.tasks`
(EleutherAI/lm-evaluation-harness #4013, #4015) needs none of it, and gets none of it.

`lm_eval_iberian.autoload` calls `after_import` just after one of lm_eval's modules was imported. `activate()` does the
same by hand where the `.pth` hook is off (a notebook, `IBERIAN_AUTOLOAD=0`).
"""

from __future__ import annotations

import functools
import inspect
import sys
import traceback
import warnings
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from lm_eval_iberian.folders import task_folders
from lm_eval_iberian.identity.identity import KEY, parse

CHECKED_VERSIONS = ("0.4.13",)
MODEL_NAME = "merged"
MODEL_TARGET = "lm_eval_iberian.models:Merged"
_MARK = "_iberian_wrapped"


def after_import(module: ModuleType) -> None:
    """Act on one of lm_eval's modules that was just imported. Never raises: a failure becomes one warning."""
    try:
        _ACTIONS[module.__name__](module)
    except Exception as error:
        warnings.warn(
            f"lm_eval_iberian could not register itself with lm_eval ({type(error).__name__}: {error}). "
            f"It was checked with lm_eval {', '.join(CHECKED_VERSIONS)}: `pip install lm_eval=={CHECKED_VERSIONS[-1]}`, "
            "or set IBERIAN_AUTOLOAD=0 to silence this.",
            stacklevel=2,
        )


def activate() -> None:
    """Register with the lm_eval of this process by hand: for notebooks, and where IBERIAN_AUTOLOAD=0."""
    import importlib

    for name, action in _ACTIONS.items():
        action(importlib.import_module(name))


def _register_model(_models: ModuleType) -> None:
    from lm_eval.api import registry

    if hasattr(registry, "load_plugins"):  # it reads our entry point by itself (#4013)
        return
    if MODEL_NAME not in registry.model_registry:
        registry.model_registry.register(MODEL_NAME, target=MODEL_TARGET)
    _install_excepthook()


def _add_tasks(manager: ModuleType) -> None:
    _install_excepthook()  # lm_eval looks for tasks before it loads its models
    _explain_documents()
    _add_task_folder(manager)
    _add_groups(manager)  # second: where a later lm_eval has no such index, the tasks are there all the same
    _explain_missing_modules(manager)


def _add_task_folder(manager: ModuleType) -> None:
    """Make every TaskManager with default tasks scan our folders too, before the user's own include paths."""
    if hasattr(manager, "TASKS_ENTRY_POINT_GROUP"):  # it reads our entry point by itself (#4015)
        return
    initialise = manager.TaskManager.__init__
    if hasattr(initialise, _MARK):
        return

    @functools.wraps(initialise)
    def with_our_tasks(self: Any, verbosity: Any = None, include_path: Any = None, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("include_defaults", args[0] if args else True):
            theirs = include_path if isinstance(include_path, (list, tuple)) else [include_path]
            include_path = [*map(str, task_folders()), *(path for path in theirs if path)]
        initialise(self, verbosity, include_path, *args, **kwargs)

    setattr(with_our_tasks, _MARK, True)
    manager.TaskManager.__init__ = with_our_tasks


def _add_groups(manager: ModuleType) -> None:
    """Let every index that holds our folder know the groups that no YAML lists: those of what was added to the suite."""
    build = manager.TaskIndex.build
    if hasattr(build, _MARK):
        return

    @functools.wraps(build)
    def with_added_groups(paths: Any, *args: Any, **kwargs: Any) -> Any:
        paths = list(paths)
        index = build(paths, *args, **kwargs)
        if task_folders()[0] in map(Path, paths):
            from lm_eval_iberian.benchmarks.groups import added_groups

            for name, tasks in added_groups().items():
                config = {"group": name, "task": tasks, "metadata": {"version": 1.0}}
                index[name] = manager.Entry(name=name, kind=manager.Kind.GROUP, yaml_path=None, cfg=config)
        return index

    setattr(with_added_groups, _MARK, True)
    manager.TaskIndex.build = staticmethod(with_added_groups)


def _explain_documents() -> None:
    """Let lm_eval's own tasks of our benchmarks say what documents they lack, as ours do. `datasets` gives a traceback."""
    from lm_eval.api.task import ConfigurableTask

    download = ConfigurableTask.download
    if hasattr(download, _MARK):
        return

    @functools.wraps(download)
    def explaining(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            download(self, *args, **kwargs)
        except (OSError, ValueError) as error:  # what `datasets` says of the Hub, and of its cache
            from lm_eval_iberian.benchmarks.table import of_task
            from lm_eval_iberian.documents.trouble import Trouble, explain_of_lm_eval, trouble
            from lm_eval_iberian.errors import NotToBeHad

            if (task := self.config.task) is None or of_task(task) is None or trouble(error) is Trouble.OTHER:
                raise
            path, config = str(self.DATASET_PATH), str(self.DATASET_NAME or "default")
            said = explain_of_lm_eval(error, path, config, task)
            raise NotToBeHad(
                f"{path} ({config}), which lm_eval's own task {task} reads, cannot be had:\n  {said}"
            ) from error

    setattr(explaining, _MARK, True)
    ConfigurableTask.download = explaining


def _key_caches_by_identity(model: ModuleType) -> None:
    """Give each model `merged` a `--use_cache` file of its own, named after everything that its answers depend on.

    lm_eval keys answers by request only, so two merges, or two settings, that share a file would share answers.
    """
    initialise = model.CachingLM.__init__
    if hasattr(initialise, _MARK):
        return

    @functools.wraps(initialise)
    def with_identity(self: Any, lm: Any, cache_db: str) -> None:
        identity = getattr(lm, "identity", None)
        if identity is not None:
            path = Path(cache_db)
            cache_db = str(path.with_name(f"{path.stem}.{identity.answers}{path.suffix}"))
        initialise(self, lm, cache_db)

    setattr(with_identity, _MARK, True)
    model.CachingLM.__init__ = with_identity
    _count_what_caches_answer(model)


def _count_what_caches_answer(model: ModuleType) -> None:
    """Tell a model `merged` what the cache file answers, so that it counts cut prompts and ties of the whole run."""
    look_up = model.CachingLM.__getattr__

    @functools.wraps(look_up)
    def counting(self: Any, attr: str) -> Any:
        found = look_up(self, attr)
        if attr not in ("loglikelihood", "generate_until") or not hasattr(self.lm, "count_too"):
            return found

        def answer(requests: list[Any]) -> list[Any]:
            keys = [(request, model.hash_args(attr, request.args)) for request in requests]
            kept = [
                (request, self.dbdict[key])
                for request, key in keys
                if key in self.dbdict and not (attr == "generate_until" and request.args[1].get("do_sample"))
            ]
            self.lm.count_too([request for request, _ in kept], [value for _, value in kept])
            if len(kept) == len(requests):
                getattr(self.lm, attr)([])  # nothing is left to ask, and lm_eval does not ask
            return list(found(requests))

        return answer

    model.CachingLM.__getattr__ = counting


def _say_what_was_read(evaluator: ModuleType) -> None:
    """Make `evaluate` write into its results which code judged and which documents were read. lm_eval does not.

    It also writes the chat template and the system prompt, which lm_eval's command line writes and `simple_evaluate`
    does not.
    """
    from lm_eval_iberian.noise import git_commit  # imports merge_hooks, which needs what lm_eval has loaded by now

    _name_results_by_their_recipe()
    if hasattr(evaluator, "get_git_commit_hash"):
        # The same, but git complains to nobody.
        evaluator.get_git_commit_hash = git_commit  # type: ignore[attr-defined]
    _see_where_results_go(evaluator)
    evaluate = evaluator.evaluate
    if hasattr(evaluate, _MARK):
        return

    @functools.wraps(evaluate)
    def saying(*args: Any, **kwargs: Any) -> Any:
        from lm_eval_iberian.identity.task_code import generation_settings, leaves, refuse_limit, told_of

        given = inspect.signature(evaluate).bind(*args, **kwargs).arguments
        lm: Any = given.get("lm")
        apply = given.get("apply_chat_template")
        with ExitStack() as prompted:
            if hasattr(lm, "prepared"):  # a model of ours
                refuse_limit(given.get("limit"))
                # Not after all log-likelihoods.
                lm.check_limits(generation_settings(dict(leaves(given["task_dict"]))))
                prompted.enter_context(lm.template_named(apply if isinstance(apply, str) else None))
            told = told_of(given)
            results = evaluate(*args, **kwargs)
        if results is not None and told is not None:
            results[KEY] = told
        return results

    setattr(saying, _MARK, True)
    evaluator.evaluate = saying  # type: ignore[attr-defined]


def _explain_missing_modules(manager: ModuleType) -> None:
    """Say in words that code of a task needs another transformers.

    lm_eval 0.4.13's own tasks of the Spanish, Catalan and Galician benches, among others, import
    transformers.data.metrics, which transformers 5.20 removed.
    """
    load = manager.TaskManager.load
    if hasattr(load, _MARK):
        return

    @functools.wraps(load)
    def explaining(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return load(self, *args, **kwargs)
        except ModuleNotFoundError as error:
            if not str(error.name).startswith("transformers."):
                raise
            from importlib.metadata import version

            from lm_eval_iberian.errors import TaskCodeError

            code = [frame.filename for frame in traceback.extract_tb(error.__traceback__) if "<" not in frame.filename]
            raise TaskCodeError(
                f"{code[-1]}, which one of the tasks runs, imports {error.name}. transformers {version('transformers')} has no "
                "such module. With lm_eval 0.4.13's own tasks: `pip install 'transformers<5.20'`, or leave them out; "
                "`iberian_suite` has none of them, `iberian_more` has."
            ) from error

    setattr(explaining, _MARK, True)
    manager.TaskManager.load = explaining


def _see_where_results_go(evaluator: ModuleType) -> None:
    """Refuse an --output_path that cannot be written before a model `merged` is loaded.

    lm_eval finds out when all is measured, logs a warning, and ends as if results were there.
    """
    simple = evaluator.simple_evaluate
    if hasattr(simple, _MARK):
        return

    @functools.wraps(simple)
    def seeing(*args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(simple).bind(*args, **kwargs).arguments
        output = getattr(given.get("evaluation_tracker"), "output_path", None)
        if given.get("model") == MODEL_NAME and output:
            _refuse_output(Path(output))
        return simple(*args, **kwargs)

    setattr(seeing, _MARK, True)
    evaluator.simple_evaluate = seeing  # type: ignore[attr-defined]


def _refuse_output(output: Path) -> None:
    from lm_eval_iberian.errors import OutputError
    from merge_hooks.files import try_writing

    folder = output.parent if output.suffix == ".json" else output  # as lm_eval reads it
    try:
        try_writing(folder)
    except OSError as error:
        raise OutputError(
            f"--output_path {output}: no results can be written there ({error.strerror or error}), so nothing was measured. "
            "Give a folder that is yours and has room."
        ) from None


def _name_results_by_their_recipe() -> None:
    """Let lm_eval's `model_name`, and the folder in `--output_path`, be the recipe's name; lm_eval makes a random one."""
    from lm_eval.loggers.evaluation_tracker import GeneralConfigTracker
    from lm_eval.utils import sanitize_model_name

    log = GeneralConfigTracker.log_experiment_args
    if hasattr(log, _MARK):
        return

    @functools.wraps(log)
    def named(self: Any, *args: Any, **kwargs: Any) -> None:
        log(self, *args, **kwargs)
        given = inspect.signature(log).bind(self, *args, **kwargs).arguments
        if given["model_source"] == MODEL_NAME and (name := _recipe_name(given["model_args"])):
            self.model_name, self.model_name_sanitized = name, sanitize_model_name(name)

    setattr(named, _MARK, True)
    GeneralConfigTracker.log_experiment_args = named


def _recipe_name(model_args: Any) -> str:
    """A file's name, a Hub model's, or the method and the models; empty where the arguments hold no recipe."""
    from merge_hooks.errors import ForPeople
    from merge_hooks.recipe.short_form import take_recipe

    arguments = parse(model_args)
    if isinstance(model_args, dict) and isinstance(model_args.get("recipe"), dict):
        arguments["recipe"] = model_args["recipe"]
    try:
        recipe = take_recipe(arguments.pop("recipe", None), arguments, arguments.pop("dtype", None))
    except ForPeople:
        return ""
    if recipe is None:
        return ""
    if recipe.origin.endswith("/mergekit_config.yml"):
        return recipe.origin.removesuffix("/mergekit_config.yml").lstrip("./")
    if recipe.origin.endswith((".yml", ".yaml")):
        return Path(recipe.origin).stem
    models = [Path(str(one.get("model"))).name for one in recipe.data.get("models") or [] if isinstance(one, dict)]
    return f"{recipe.data.get('merge_method', 'merge')} {'+'.join(models)}".strip()[:100]


def _install_excepthook() -> None:
    """Show our own errors as one message instead of a traceback. All others pass through unchanged."""
    previous = sys.excepthook
    if hasattr(previous, _MARK):
        return

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if said := _in_words(error):
            print(f"\nError: {said}", file=sys.stderr)
        else:
            previous(kind, error, trace)

    setattr(excepthook, _MARK, True)
    sys.excepthook = excepthook


def _in_words(error: BaseException) -> str:
    """What is shown in place of a traceback: our own errors, and lm_eval's of a task whose name is nearly one of ours."""
    if getattr(error, "for_people", False):
        return str(error)
    said, begins, names = str(error).partition("Tasks not found: ")
    if said or not begins or not isinstance(error, ValueError):
        return ""
    from lm_eval_iberian.documents.needs import did_you_mean
    from merge_hooks.texts import seen

    hints = {name: did_you_mean(name) for name in names.split(", ")}
    missing = [f"{name}: no such task.{hint}" for name, hint in hints.items()]
    return seen(" ".join([*missing, "`lm_eval ls tasks` lists them."])) if any(hints.values()) else ""


_ACTIONS = {
    "lm_eval.api.model": _key_caches_by_identity,
    "lm_eval.evaluator": _say_what_was_read,
    "lm_eval.models": _register_model,
    "lm_eval.tasks.manager": _add_tasks,
}
