"""From a sweep to a plan: sources found, parents added, signatures and keys made, points put in order.

What cannot be measured (a source that is not there, models that do not fit) is found here, before an engine
starts; it becomes the point's `problem`, and the sweep goes on without it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lm_eval_iberian.documents.needs import did_you_mean
from lm_eval_iberian.identity.identity import KEY, Identity, counting, digest, of_results, told
from lm_eval_iberian.models.backends import Backend, backend_of
from lm_eval_iberian.models.merge import Prepared, prepare, sign_model
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.sweep.job import Job
from lm_eval_iberian.sweep.kept_tasks import KeptTasks, generation_of, results_head
from lm_eval_iberian.sweep.spec import Evaluation, Point, Sweep
from lm_eval_iberian.sweep.trouble import details, ends_everything, explain
from merge_hooks.checks.swap import engine_facts
from merge_hooks.errors import MergeHooksError
from merge_hooks.recipe.recipe import Recipe, passthrough
from merge_hooks.recipe.resolved import Resolved
from merge_hooks.resolve.stages import MergedSource
from merge_hooks.sources.adapter import LoraSource
from merge_hooks.sources.checkpoint import Source
from merge_hooks.sources.trust import trusts
from merge_hooks.stream.tokenizer import end_tokens


@dataclass(frozen=True)
class PlannedPoint:
    """A point that is ready to be measured, or has a problem.

    Args:
        prepared: its stream and tokenizer; None with a problem.
        signature: the digest of the signature, as `planned_signature` makes it.
        engine: key of the engines that it can be swapped into.
        dtype: what the engine shall compute in.
        chat: apply_chat_template, fewshot_as_multiturn.
        parents: names of the points that are its sources.
        problem: why it cannot be measured; `details`: the traceback of an error that is not one of ours.
    """

    point: Point
    prepared: Prepared | None
    signature: str = ""
    engine: str = ""
    dtype: str = ""
    chat: tuple[bool, bool] = (False, False)
    parents: tuple[str, ...] = ()
    problem: str = ""
    details: str = ""

    @property
    def name(self) -> str:
        return self.point.name


@dataclass
class Plan:
    """A sweep, planned.

    Args:
        points: as they are reported: merges in the sweep's order, then baselines, then parents.
        tasks: loaded here, and used by a worker in this process.
    """

    sweep: Sweep
    points: list[PlannedPoint]
    tasks: KeptTasks
    _asked: dict[str, Identity] = field(default_factory=dict)

    @cached_property
    def jobs(self) -> list[Job]:
        """Every evaluation of every point without a problem, in the order of `in_working_order`."""
        return [self._job(point, one) for point in in_working_order(self.points) for one in point.point.evaluations]

    def key(self, point: PlannedPoint, evaluation: Evaluation) -> str:
        """The store's key of an evaluation: its identity."""
        if point.prepared is None:
            return digest([point.name, point.problem, evaluation.as_data()], length=32)
        return self.identity(point, evaluation).digest

    def identity(self, point: PlannedPoint, evaluation: Evaluation) -> Identity:
        """What an evaluation of a point measures: that of its results, which are not there yet."""
        assert point.prepared is not None
        signature = sign_model(point.prepared, point.dtype, self.engine, self.arguments.get("quantization", ""))
        info = point.prepared.info("", point.dtype, signature, self.arguments)
        apply, multiturn = chat_of(point, evaluation)
        template = point.prepared.tokenizer.facts.template if apply else None
        chat = told(template, multiturn, evaluation.settings.get("system_instruction"), {})
        of_model = of_results(results_head(evaluation, self.backend, self.sweep.model_args, info) | {KEY: chat})
        return Identity({**of_model.parts, **self._of_tasks(evaluation).parts})

    def _of_tasks(self, evaluation: Evaluation) -> Identity:
        """The part of an identity that all points share: what is asked, how, and how it is judged."""
        said = json.dumps([self.sweep.model_args, evaluation.as_data()], sort_keys=True, default=str)
        if said not in self._asked:
            loaded = self.tasks.of(evaluation)
            loaded.settle(generation_of(evaluation, self.backend))
            self._asked[said] = loaded.identity(results_head(evaluation, self.backend, self.sweep.model_args, {}))
        return self._asked[said]

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The engine's arguments that answers depend on."""
        return counting(self.sweep.model_args)

    @cached_property
    def backend(self) -> Backend:
        """What runs the models."""
        return backend_of(self.sweep.model_args)

    @cached_property
    def engine(self) -> str:
        """Its package, as signatures name it."""
        return self.backend.engine(self.sweep.model_args)

    def as_data(self) -> dict[str, Any]:
        """plan.json: see `lm_eval_iberian.runs.run`."""
        return {
            "name": self.sweep.name,
            **({"file": str(self.sweep.folder / self.sweep.name)} if self.sweep.folder else {}),
            "about": self.sweep.data.get("about", ""),
            "axes": {axis: list(labels) for axis, labels in self._axes().items()},
            "points": [self._point_data(point) for point in self.points],
        }

    def _axes(self) -> dict[str, dict[str, None]]:
        """axis -> labels, in the order in which they come in points."""
        axes: dict[str, dict[str, None]] = {axis: dict.fromkeys(labels) for axis, labels in self.sweep.axes.items()}
        for point in self.points:
            for axis, label in point.point.labels.items():
                axes.setdefault(axis, {})[label] = None
        return axes

    def _point_data(self, planned: PlannedPoint) -> dict[str, Any]:
        point = planned.point
        return {
            "name": point.name, "role": point.role, "labels": dict(point.labels), "parents": list(planned.parents),
            "signature": planned.signature, "problem": planned.problem, "recipe": point.recipe.text,
            "origin": point.recipe.origin, "folder": str(point.recipe.folder) if point.recipe.folder else None,
            "merge_seed": point.merge_seed, "rng": point.rng, "dtype": planned.dtype, "chat": list(planned.chat),
            "include_path": self.sweep.include_path and str(Path(self.sweep.include_path).resolve()),
            "evaluations": [
                {"key": self.key(planned, one), "name": one.name, "tasks": list(one.tasks), "seed": one.seed}
                for one in point.evaluations
            ],
        }  # fmt: skip

    def _job(self, planned: PlannedPoint, evaluation: Evaluation) -> Job:
        point, recipe = planned.point, planned.point.recipe
        folder = None if recipe.folder is None else str(recipe.folder)
        identity = self.identity(planned, evaluation)
        return Job(
            key=identity.digest,
            identity=identity,
            point=point.name,
            engine=planned.engine,
            signature=planned.signature,
            recipe=(recipe.text, recipe.origin, folder),
            merge_seed=point.merge_seed,
            rng=point.rng,
            evaluation=evaluation,
            model_args={**self.sweep.model_args, "dtype": planned.dtype},
            chat=chat_of(planned, evaluation),
            include_path=self.sweep.include_path,
            log_samples=bool(self.sweep.data.get("log_samples")),
        )


def make_plan(sweep: Sweep, like: Plan | None = None) -> Plan:
    """The plan of a sweep: opens every source's headers, hashes what has no revision, loads the tasks.

    Args:
        like: a plan whose loaded tasks are used again, if they were loaded for the same arguments of the engine.
    Raises:
        SweepError: something that concerns every point (tasks, engine arguments).
    """
    planner = _Planner(sweep)
    points = [planner.plan(point) for point in sweep.points]
    points = planner.with_parents(points) if sweep.adds_parents else points
    tasks = KeptTasks(sweep.include_path, dict(sweep.model_args))
    tasks = like.tasks if like and like.tasks.are_like(tasks) else tasks
    _check_tasks(points, tasks)
    plan = Plan(sweep, points, tasks, like._asked if like else {})
    plan.points = [_identified(plan, point) for point in points]
    return plan


def _identified(plan: Plan, planned: PlannedPoint) -> PlannedPoint:
    """The point, if it can be said what its evaluations measure."""
    try:
        if planned.prepared is not None:
            for evaluation in planned.point.evaluations:
                plan.identity(planned, evaluation)
        return planned
    except BaseException as error:
        return replace(_unmeasurable(planned.point, error), parents=planned.parents)


class _Planner:
    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.backend = backend_of(sweep.model_args)
        self.engine = self.backend.engine(sweep.model_args)
        self.holds_model = self.backend.holds_model(sweep.model_args)

    def plan(self, point: Point) -> PlannedPoint:
        """A point with its sources; whatever is wrong with it becomes its problem."""
        try:
            if point.problem:
                raise SweepError(point.problem)
            return self._prepared(point)
        except BaseException as error:
            return _unmeasurable(point, error)

    def _prepared(self, point: Point) -> PlannedPoint:
        arguments = {**self.sweep.model_args, "merge_seed": point.merge_seed, "rng": point.rng}
        prepared = prepare(
            point.recipe, None, None, arguments.pop("dtype", "auto"), arguments.pop("tokenizer", None),
            trusts(arguments.pop("trust_remote_code", False)), arguments, self.holds_model,
        )  # fmt: skip
        dtype = prepared.dtype if prepared.dtype != "auto" else _own_dtype(prepared)
        template = prepared.tokenizer.facts.template
        apply, multiturn = point.chat
        apply = bool(template) if apply is None else apply
        if apply and not template:
            raise SweepError(
                "apply_chat_template: true, and its tokenizer has no chat template. Leave the key out: then a model "
                "without a template is prompted without one, and tables say so. Or leave it out by `parents: false`."
            )
        return PlannedPoint(
            point,
            prepared,
            planned_signature(prepared, dtype, self.engine, self.sweep.model_args),
            _engine_key(prepared, dtype, self.backend.swaps_generation),
            dtype,
            (apply, apply and multiturn is not False),
        )

    def with_parents(self, points: list[PlannedPoint]) -> list[PlannedPoint]:
        """The points, and every source of every merge as a point of its own, measured on what its merges are."""
        parents: dict[str, PlannedPoint] = {}
        known = {_measured(point): point.name for point in points if point.prepared is not None}
        result = []
        for planned in points:
            names = []
            for source in _leaves(planned.prepared.resolved) if planned.prepared is not None else ():
                parent = self._parent(source, planned)
                if parent.signature == planned.signature and planned.prepared is not None:
                    continue  # the point is itself a plain model
                key = _measured(parent)
                name = known.get(key) if parent.prepared is not None else None
                if name is None:
                    known[key] = name = free_name(parent.name, [*known.values()])
                    parents[name] = replace(parent, point=replace(parent.point, name=name))
                if name in parents:
                    parents[name] = _also(parents[name], planned.point.evaluations)
                names.append(name)
            result.append(replace(planned, parents=tuple(dict.fromkeys(names))))
        return result + list(parents.values())

    def _parent(self, source: Source, child: PlannedPoint) -> PlannedPoint:
        assert child.prepared is not None
        dtype = child.prepared.resolved.dtype
        recipe = replace(_plain_recipe(source, dtype), folder=child.point.recipe.folder)
        name = source.name.rstrip("/").rsplit("/", 1)[-1]
        return self.plan(Point(name, "parent", {}, recipe, child.point.evaluations, chat=_parents_chat(child)))


def _unmeasurable(point: Point, error: BaseException) -> PlannedPoint:
    """A point that is recorded with its reason while the sweep goes on. Raises the error again where it is Ctrl-C."""
    if ends_everything(error):
        raise error
    ours = isinstance(error, (MergeHooksError, SweepError)) and error.__cause__ is None
    return PlannedPoint(point, None, problem=explain(error), details="" if ours else details(error))


def _measured(point: PlannedPoint) -> tuple[str, bool, bool]:
    """What is measured of a plain model: its weights, and how it is prompted where a run says nothing."""
    return point.signature, point.chat[0], point.point.chat[1] is not False


def _parents_chat(child: PlannedPoint) -> tuple[bool | None, bool | None]:
    """How the parents of a merge are prompted: as was said for all, else as the merge, but for those without a template."""
    apply, multiturn = child.point.chat
    if apply is None and not child.chat[0]:
        apply = False
    return apply, multiturn


def chat_of(planned: PlannedPoint, evaluation: Evaluation) -> tuple[bool, bool]:
    """apply_chat_template and fewshot_as_multiturn: a run's own word, else the point's; lm_eval's default for shots."""
    apply = bool(evaluation.settings.get("apply_chat_template", planned.chat[0]))
    multiturn = evaluation.settings.get("fewshot_as_multiturn", planned.point.chat[1])
    return apply, apply and multiturn is not False


def planned_signature(prepared: Prepared, dtype: str, engine: str, model_args: Mapping[str, Any]) -> str:
    """The digest of a point's signature, before its engine runs and after."""
    return sign_model(prepared, dtype, engine, counting(model_args).get("quantization", "")).digest


def in_working_order(points: Iterable[PlannedPoint]) -> list[PlannedPoint]:
    """The order in which points are measured: those of one engine together; in it, those that share most together.

    Same sources first, then the same method, then the same parameters but for the weights (so that masks and
    thresholds are used again), then the plan's order.
    """
    numbered = [(number, point) for number, point in enumerate(points) if point.prepared is not None]
    engines = list(dict.fromkeys(point.engine for _, point in numbered))

    def order(pair: tuple[int, PlannedPoint]) -> tuple[Any, ...]:
        number, point = pair
        assert point.prepared is not None
        resolved = point.prepared.resolved
        sources = tuple(sorted(resolved.sources))
        return (
            engines.index(point.engine),
            sources,
            resolved.method,
            _constant(resolved),
            point.point.merge_seed,
            number,
        )

    return [point for _, point in sorted(numbered, key=order)]


def _constant(resolved: Resolved) -> str:
    """The recipe without its weights: points that are equal here differ by one fused pass."""
    from merge_hooks.planning.config import dump_config

    return json.dumps(_without_weights(dump_config(resolved.config)), sort_keys=True, default=str)


def _without_weights(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_weights(item) for key, item in value.items() if key != "weight"}
    return [_without_weights(item) for item in value] if isinstance(value, list) else value


def _engine_key(prepared: Prepared, dtype: str, swaps_generation: bool) -> str:
    """What points share that follow each other in one engine: all that a swap does not change.

    transformers takes the point's generation config with its weights. vLLM read that of its first point, of which it
    uses the ids at which text ends: lm_eval says all other settings with each request.
    """
    ends = [] if swaps_generation else end_tokens(prepared.generation_config)
    return digest([engine_facts(prepared.stream), dtype, prepared.tokenizer.facts.hash, ends], length=16)


def _own_dtype(prepared: Prepared) -> str:
    """The dtype of a plain model whose recipe says none: its configuration's."""
    return str(getattr(prepared.stream.model_config, "dtype", None) or "bfloat16").removeprefix("torch.")


def _leaves(resolved: Resolved) -> Iterable[Source]:
    """The sources that a merge is made of, those of its stages too."""
    for source in resolved.sources.values():
        if isinstance(source, MergedSource):
            yield from _leaves(source.resolved)
        else:
            yield source


def _plain_recipe(source: Source, dtype: str | None) -> Recipe:
    """The recipe that is one source: a checkpoint, or an adapter over one."""
    import yaml

    if not isinstance(source, LoraSource):
        recipe = passthrough(source.name, source.revision, dtype)
        return replace(recipe, origin=source.name)
    payload = source.to_payload()
    base, adapter = payload["base"], payload["adapter"]
    model = {"model": {"path": base["name"], "revision": base.get("revision")},
             "lora": {"path": adapter["name"], "revision": adapter.get("revision")}}  # fmt: skip
    data: dict[str, Any] = {"merge_method": "passthrough", "models": [{"model": model}]}
    if dtype:
        data["dtype"] = dtype
    return Recipe(yaml.safe_dump(data, sort_keys=False), origin=source.name)


def _also(parent: PlannedPoint, evaluations: Iterable[Evaluation]) -> PlannedPoint:
    """The parent, measured on these evaluations too."""
    both = {one.text: one for one in (*parent.point.evaluations, *evaluations)}
    return replace(parent, point=replace(parent.point, evaluations=tuple(both.values())))


def free_name(name: str, taken: Collection[str]) -> str:
    """The name, or the name with the first number that makes it new."""
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name} ({number})"
    return free


def distinct_evaluations(points: Iterable[PlannedPoint]) -> list[Evaluation]:
    """What any of the points is measured on, once each."""
    return list({one.text: one for point in points for one in point.point.evaluations}.values())


def _check_tasks(points: Iterable[PlannedPoint], tasks: KeptTasks) -> None:
    """Load every task, so that a wrong name is known before an engine starts. Raises SweepError."""
    for evaluation in distinct_evaluations(points):
        where = f"tasks: {', '.join(evaluation.tasks)}"
        try:
            loaded = tasks.of(evaluation).tasks
        except (KeyError, ValueError) as error:
            hints = "".join(did_you_mean(name) for name in evaluation.tasks if f"'{name}'" in str(error))
            raise SweepError(f"{where}: {error}.{hints} `lm_eval ls tasks` lists them.") from error
        except Exception as error:
            if getattr(error, "for_people", False):
                raise
            raise SweepError(f"{where}: cannot be loaded ({explain(error)}). Is a file of a task damaged?") from error
        if not loaded:
            raise SweepError(f"{where}: no such task. `lm_eval ls tasks` lists them.")
