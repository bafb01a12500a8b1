"""Search over recipes: Optuna proposes a trial, the sweep's driver has it measured, Optuna is told.

    Tuner(space, folder, Progress()).run(choose_pool)

A trial is a point of a sweep. With rungs it is measured on a few documents first, and goes on while Optuna's pruner
lets it; answers that the store has are not asked for again, neither on the next rung nor for another trial of the
same signature. Optuna's storage (optuna.sqlite) and plan.json lie in the run folder beside the store, so that
`iberian report` and `iberian best` read a search as any sweep.

Killed at any moment, the same command goes on: a trial that was under way is given to Optuna again with its
parameters. Samplers are seeded by the number of trials that count, so that what is proposed does not depend on kills.
"""

from __future__ import annotations

import fcntl
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_iberian.compare.best import BestError, goals_of, steady, terms_of
from lm_eval_iberian.compare.columns import Scores
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.runs.point import SweepPoint
from lm_eval_iberian.runs.run import PLAN, SweepRun, read_plan, read_point
from lm_eval_iberian.runs.store import FILE, Store
from lm_eval_iberian.scores.suite import apart_on
from lm_eval_iberian.sweep.driver import Driver
from lm_eval_iberian.sweep.job import Job
from lm_eval_iberian.sweep.plan import Plan, PlannedPoint, free_name, make_plan
from lm_eval_iberian.sweep.pools.local import Pool
from lm_eval_iberian.sweep.progress import Progress
from lm_eval_iberian.tune.space import Space
from merge_hooks.files import write_whole

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

OPTUNA_FILE = "optuna.sqlite"
LOCK = "tune.lock"
# A user attribute of a trial: the number of the one that was killed, whose parameters it has.
AGAIN = "again"
# ... : its place among what Optuna was given to try: a grid, or where to begin.
GRID = "grid"


@dataclass
class Running:
    """A trial under way.

    Args:
        plan: of its point, on all documents.
        rung: where it is; `len(space.rungs)` is the whole.
        entry: of its point in plan.json, with the evaluations of the rung.
        left: keys of the evaluations that are not there yet.
    """

    trial: Trial
    values: Mapping[str, tuple[str, Any]]
    plan: Plan
    rung: int = 0
    entry: dict[str, Any] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)

    @property
    def point(self) -> PlannedPoint:
        return self.plan.points[0]


class Tuner:
    """A search at work in a run folder.

    Args:
        space: what is searched.
        folder: the run folder.
        progress: is told how it gets on.
        workers: how many engines ask for trials at once.
        like: a plan on tasks that are loaded already.
    """

    def __init__(
        self, space: Space, folder: Path, progress: Progress, workers: int = 1, like: Plan | None = None
    ) -> None:
        self.space, self.folder, self.progress, self.workers, self.like = space, folder, progress, workers, like
        self.entries: dict[str, dict[str, Any]] = {}
        self.waiting: dict[str, list[Running]] = {}
        self.known: dict[int, SweepPoint] = {}
        self.study: Study
        self.store: Store
        self.driver: Driver

    def run(self, choose_pool: Callable[[Plan, list[Job]], Pool]) -> Study:
        """Search until there are as many trials as the space says. Returns Optuna's study.

        Args:
            choose_pool: makes the pool, given a plan and a job for each engine, of the kind that will come.
        Raises:
            SweepError: another process searches in this folder, or it holds a search of another space.
        """
        if (self.folder / PLAN).is_file() and not (self.folder / OPTUNA_FILE).is_file():
            raise SweepError(f"{self.folder}: it holds a sweep. Give a search a folder of its own with --out.")
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder / LOCK):
            first_point = self.space.sweep({axis.name: axis.first for axis in self.space.axes}, self._last)
            self.like = plan = make_plan(first_point, self.like)
            self._check_objectives(plan)
            self.store = Store(self.folder / FILE)
            self.driver = Driver(plan, self.folder, self.store, self.progress, more=self._more, done=self._done)
            self.progress.begin([], set())
            try:
                self.study = open_study(self.space, self.folder)
                self.entries = self._entries()
                _requeue(self.study, self.space)
                _queue_given(self.study, self.space)
                if self._more():
                    self.driver.run(choose_pool(plan, self.driver.queue[:1] * self.workers))
                return self.study
            finally:
                self.progress.end()
                self.store.close()

    @property
    def _last(self) -> int:
        """The rung of all documents."""
        return len(self.space.rungs)

    # What the driver asks

    def _more(self) -> bool:
        """Begin trials until one has something to measure. False where no trial is under way, and none will come."""
        while not self.driver.queue and len(counted(self.study)) < self.space.trials:
            self._begin()
        return bool(self.driver.jobs)

    def _done(self, job: Job, reason: str | None) -> None:
        """What follows for the trials that wait for this job."""
        for running in self.waiting.pop(job.key, []):
            running.left.discard(job.key)
            if reason is not None:
                self._fail(running.trial, running.point.name, reason)
            elif not running.left:
                self._rung_done(running)

    # Trials

    def _begin(self) -> None:
        """Ask Optuna for a trial, plan its point, and queue what is to be measured."""
        number = len(counted(self.study))
        self.study.sampler = self.space.make_sampler(number, self.workers > 1)
        trial = self.study.ask()
        values = self.space.suggest(trial)
        plan = make_plan(self.space.sweep(values, self._last), self.like)
        point = plan.points[0]
        trial.set_user_attr("point", point.name)
        if point.problem:
            self._enter(self._entry(plan, point, self._last))
            self._fail(trial, point.name, point.problem)
            return
        self._queue_others(plan)
        self._begin_rung(Running(trial, values, plan))

    def _begin_rung(self, running: Running) -> None:
        """Queue the evaluations of a rung; on to the next where all of them are known."""
        sweep = self.space.sweep(running.values, running.rung)
        point = running.point
        planned = replace(point, point=replace(point.point, evaluations=sweep.points[0].evaluations))
        plan = replace(running.plan, sweep=sweep, points=[planned])
        running.entry = self._entry(plan, planned, running.rung)
        self._enter(running.entry)
        jobs = [job for job in plan.jobs if not self.store.is_finished(job.key)]
        running.left = {job.key for job in jobs}
        for job in jobs:
            self.waiting.setdefault(job.key, []).append(running)
            self.driver.add(job)
        if not jobs:
            self._rung_done(running)

    def _rung_done(self, running: Running) -> None:
        """Score a rung; stop there, go on, or tell Optuna the end."""
        from optuna.trial import TrialState

        trial, name, is_last = running.trial, running.point.name, running.rung == self._last
        self._check_alike(running.entry)
        try:
            values = self.values(running.entry)
        except BestError as error:
            self._fail(trial, name, str(error))
            return
        shown = ", ".join(f"{one} {value:.2f}" for one, value in zip(self.space.objectives, values, strict=True))
        if len(values) == 1:
            trial.report(values[0], running.rung + 1)
        if is_last:
            self.study.tell(trial, values)
            self._say(trial, f"{name}: {shown}")
        elif trial.should_prune():
            self.study.tell(trial, state=TrialState.PRUNED)
            self._say(trial, f"{name}: {shown} on {self.space.rungs[running.rung]} documents: stopped there")
        else:
            self._say(trial, f"{name}: {shown} on {self.space.rungs[running.rung]} documents")
            running.rung += 1
            self._begin_rung(running)

    def _check_alike(self, entry: Mapping[str, Any]) -> None:
        """Raises SweepError where earlier trials were measured in another way: Optuna would compare the two."""
        mine = read_point(entry, [self.store])
        if entry["rung"] not in self.known:
            others = (read_point(one, [self.store]) for one in self.entries.values() if one["rung"] == entry["rung"])
            self.known[entry["rung"]] = next((one for one in others if one.role == "merge" and one.results), mine)
        known = self.known[entry["rung"]]
        if words := apart_on(mine.runs, known.runs, mine.tasks):
            raise SweepError(
                f"{self.folder}: {known.name}, an earlier trial, was measured in another way than {mine.name} "
                f"({', '.join(words)}), and Optuna would compare them. Give another --out."
            )

    def values(self, entry: Mapping[str, Any]) -> list[float]:
        """A point's figures, one an objective, in percent. Raises BestError where one is missing."""
        point = read_point(entry, [self.store])
        scores = Scores(SweepRun(self.folder, self.space.name, {}, (point,), (self.store,)))
        values = []
        for goal in goals_of(scores, [steady(name) for name in self.space.objectives]):
            score = goal.score(scores, point)
            if score.value is None:
                raise BestError(f"{goal.name}: {'; '.join(score.problems)}")
            values.append(score.value)
        return values

    def _fail(self, trial: Trial, name: str, reason: str) -> None:
        from optuna.trial import TrialState

        if self.study.trials[trial.number].state.is_finished():
            return  # another of its evaluations has failed before
        for waiting in self.waiting.values():
            waiting[:] = [running for running in waiting if running.trial.number != trial.number]
        self.waiting = {key: waiting for key, waiting in self.waiting.items() if waiting}
        for job in [job for job in self.driver.queue if job.point == name and job.key not in self.waiting]:
            self.driver.drop(job)
        trial.set_user_attr("reason", reason)
        self.study.tell(trial, state=TrialState.FAIL)
        self._say(trial, f"{name}: FAILED: {reason}")

    def _say(self, trial: Trial, text: str) -> None:
        self.progress.note(f"trial {trial.number} ({len(counted(self.study))} of {self.space.trials}): {text}")

    def _check_objectives(self, plan: Plan) -> None:
        """Raises SweepError where an objective is not among what is measured: before any engine starts."""
        evaluations = plan.points[0].point.evaluations
        leaves = {task for one in evaluations for task in plan.tasks.of(one).tasks}
        check_objectives(self.space.objectives, leaves, self.space.name)

    # plan.json

    def _queue_others(self, plan: Plan) -> None:
        """Baselines and the sources of a trial's merge, once each in a search, on all documents."""
        known = {entry["signature"] or entry["problem"]: name for name, entry in self.entries.items()}
        names: dict[str, str] = {}
        for other in plan.points[1:]:
            key = other.signature or other.problem
            names[other.name] = known[key] if key in known else free_name(other.name, self.entries)
            named = replace(other, point=replace(other.point, name=names[other.name]))
            if key not in known:
                known[key] = named.name
                self._enter(self._entry(plan, named, self._last))
            for job in replace(plan, points=[named]).jobs:
                if not self.store.is_finished(job.key):
                    self.driver.add(job)
        parents = tuple(names.get(parent, parent) for parent in plan.points[0].parents)
        plan.points[0] = replace(plan.points[0], parents=parents)

    @staticmethod
    def _entry(plan: Plan, planned: PlannedPoint, rung: int) -> dict[str, Any]:
        """A point in plan.json, with the rung that its evaluations belong to."""
        entry: dict[str, Any] = replace(plan, points=[planned]).as_data()["points"][0]
        return entry | {"rung": rung}

    def _enter(self, entry: dict[str, Any]) -> None:
        """Write a point into plan.json. One that was measured on more documents before stays as it is."""
        before = self.entries.get(entry["name"])
        if before is None or before["rung"] <= entry["rung"] or not self._is_finished(before):
            self.entries[entry["name"]] = entry
        axes: dict[str, set[str]] = {axis.name: set() for axis in self.space.axes}
        for one in self.entries.values():
            for axis, label in one["labels"].items():
                axes[axis].add(label)
        data = {
            "name": self.space.name, "about": self.space.data.get("about", ""),
            "axes": {axis: sorted(labels, key=_in_order) for axis, labels in axes.items()},
            "points": sorted(self.entries.values(), key=lambda one: one["role"] != "merge"),
        }  # fmt: skip
        write_whole(self.folder / PLAN, json.dumps(data, indent=2, ensure_ascii=False) + "\n")

    def _is_finished(self, entry: Mapping[str, Any]) -> bool:
        return all(self.store.is_finished(one["key"]) for one in entry["evaluations"])

    def _entries(self) -> dict[str, dict[str, Any]]:
        """The points that an earlier run of this search wrote down."""
        if not (self.folder / PLAN).is_file():
            return {}
        return {entry["name"]: entry for entry in read_plan(self.folder)["points"]}


def open_study(space: Space, folder: Path) -> Study:
    """Optuna's study in a run folder, made where there is none. Raises SweepError for one of another space."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / OPTUNA_FILE).absolute()}")
    study = optuna.create_study(
        storage=storage, study_name="tune", directions=["maximize"] * len(space.objectives), load_if_exists=True,
        pruner=space.make_pruner(), sampler=space.make_sampler(0, False),
    )  # fmt: skip
    known = study.user_attrs.get("space")
    if known is None:
        study.set_user_attr("space", space.digest)
        if len(space.objectives) > 1:
            study.set_metric_names(list(space.objectives))
    elif known != space.digest:
        raise SweepError(
            f"{folder}: there is a search of another space, objective or recipe in it. Give another --out. "
            "(Only trials, sampler, pruner and seed may change.)"
        )
    return study


def counted(study: Study) -> list[FrozenTrial]:
    """The trials but for those that were killed and given to Optuna again, and those that wait."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    killed = {trial.user_attrs.get(AGAIN) for trial in trials}
    return [trial for trial in trials if trial.state != TrialState.WAITING and trial.number not in killed]


def _requeue(study: Study, space: Space) -> None:
    """Give what a killed process left under way to Optuna again; in Optuna's books the old trial failed."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get(AGAIN) for trial in trials}
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            if trial.number not in again:
                kept = {GRID: trial.user_attrs[GRID]} if GRID in trial.user_attrs else {}
                study.enqueue_trial(_parameters(trial, space), user_attrs={**kept, AGAIN: trial.number})
            study.tell(trial.number, state=TrialState.FAIL)


def _parameters(trial: FrozenTrial, space: Space) -> dict[str, Any]:
    """What a killed trial tried. Nothing where it was killed while Optuna was still being asked: the sampler, seeded
    by the trial's number, would not say the rest as it would have if it were told a part; all of it, it says again."""
    if trial.user_attrs.get(GRID, len(space.given)) < len(space.given):
        return space.given[trial.user_attrs[GRID]]
    return dict(trial.params) if len(trial.params) == len(space.axes) else {}


def _queue_given(study: Study, space: Space) -> None:
    """Let Optuna have what it is to try first, where it does not have it yet."""
    known = [trial.user_attrs[GRID] for trial in study.get_trials(deepcopy=False) if GRID in trial.user_attrs]
    for number, parameters in enumerate(space.given):
        if number > max(known, default=-1):
            study.enqueue_trial(parameters, user_attrs={GRID: number})


def check_objectives(names: tuple[str, ...], leaves: set[str], where: str) -> None:
    """Raises SweepError for an objective that these leaf tasks do not give."""
    from lm_eval_iberian.benchmarks.table import of_column

    for name in dict.fromkeys(column for one in names for column in terms_of(one)):
        if counted_in := of_column(name):
            missing = [b.title for b in counted_in if not ({*b.tasks} <= leaves or {*b.upstream} & leaves)]
            if missing:
                raise SweepError(
                    f"{where}: objective: {name} is the mean of {len(counted_in)} benchmarks, and tasks lacks "
                    f"{', '.join(missing)}. Add them, or name tasks as objectives."
                )
        elif name.partition(":")[0] not in leaves:
            shown = ", ".join(sorted(leaves)[:8]) + (" ..." if len(leaves) > 8 else "")
            raise SweepError(f"{where}: objective: {name} is neither a column nor among the tasks: {shown}.")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process searches in a folder; a dead one's lock is none."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SweepError(
                f"{path.parent}: another process searches in it. Wait for it, or give another --out."
            ) from None
        except OSError as error:
            raise SweepError(
                f"{path.parent}: on a file system that refuses locks ({error}). Give a folder on another with --out (a "
                "node's own disk), and copy it when the search has ended."
            ) from None
        yield


def _in_order(label: str) -> tuple[int, float, str]:
    """Numbers by size, then words."""
    try:
        return 0, float(label), ""
    except ValueError:
        return 1, 0.0, label
