"""What a sweep will do and need, before it starts: `iberian sweep --dry-run`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from lm_eval_iberian.identity.task_code import documents_of
from lm_eval_iberian.runs.store import Store
from lm_eval_iberian.sweep.plan import Plan, chat_of, distinct_evaluations
from lm_eval_iberian.sweep.progress import duration
from lm_eval_iberian.sweep.spec import Evaluation
from merge_hooks.checks.estimate import estimate, gigabytes
from merge_hooks.texts import one_line

# First guesses, until something was measured: floating-point operations a second, and seconds to start an engine.
GUESSED_FLOPS = {"cpu": 5e10, "gpu": 1.5e14}
START_SECONDS = {"cpu": 20.0, "gpu": 90.0}


@dataclass(frozen=True)
class Load:
    """What one evaluation asks of a model. `tokens`: about, prompts only, shared prefixes counted once a document."""

    documents: int
    requests: int
    tokens: int


def load_of(plan: Plan, evaluation: Evaluation) -> Load:
    """Counted on the first document of each task, times its documents."""
    limit = evaluation.settings.get("limit")
    documents = requests = characters = 0
    loaded = plan.tasks.of(evaluation)
    loaded.settle(None)
    for task in loaded.tasks.values():
        count = documents_of(task, limit)
        if getattr(task, "asks_while_building", False):  # its prompts are made of answers: each turn is a request
            documents, requests = documents + count, requests + count * task.turns
            continue
        task.build_all_requests(
            limit=1, samples=None, rank=0, world_size=1, cache_requests=False, rewrite_requests_cache=False,
            system_instruction=None, apply_chat_template=False, fewshot_as_multiturn=False, chat_template=None,
            tokenizer_name="",
        )  # fmt: skip
        documents += count
        requests += count * len(task.instances)
        characters += count * len(str(task.instances[0].args[0]))
    return Load(documents, requests, characters // 4)


def show_plan(plan: Plan, store: Store | None, console: Console) -> None:
    """Print the plan: points, evaluations, memory, time."""
    console.print(_points_table(plan, store))
    console.print()
    loads = {one.text: (one, load_of(plan, one)) for one in distinct_evaluations(plan.points)}
    table = _table("evaluation", "documents", "requests", "prompt tokens, about", title="Evaluations of each point")
    for one, load in loads.values():
        table.add_row(escape(one_line(one.name)), f"{load.documents:,}", f"{load.requests:,}", f"{load.tokens:,}")
    console.print(table)
    console.print()
    console.print(
        "\n".join(_needs(plan, store, {key: load for key, (_, load) in loads.items()})), highlight=False, markup=False
    )


def plan_data(plan: Plan, store: Store | None) -> dict[str, Any]:
    """The same as plain data: memory in bytes, time in seconds."""
    loads = {one.text: (one, load_of(plan, one)) for one in distinct_evaluations(plan.points)}
    needs = _needs_of(plan, store, {key: load for key, (_, load) in loads.items()})
    return {
        "name": plan.sweep.name,
        "points": [
            row | {"problem": point.problem} for point, row in zip(plan.points, _rows(plan, store), strict=True)
        ],
        "evaluations": [{"name": one.name, **one.as_data(), **asdict(load)} for one, load in loads.values()],
        "needs": None if needs is None else asdict(needs),
    }


def _rows(plan: Plan, store: Store | None) -> list[dict[str, Any]]:
    """What is said of each point."""
    engines = list(dict.fromkeys(point.engine for point in plan.points if point.engine))
    rows = []
    for planned in plan.points:
        keys = [plan.key(planned, one) for one in planned.point.evaluations]
        chats = {chat_of(planned, one)[0] for one in planned.point.evaluations} or {planned.chat[0]}
        rows.append({
            "point": planned.name, "role": planned.point.role,
            "method": planned.prepared.resolved.method if planned.prepared else "",
            "engine": engines.index(planned.engine) + 1 if planned.engine else None, "chat": chats.pop() if len(chats) == 1 else None,
            "done": sum(store.is_finished(key) for key in keys) if store else 0, "of": len(keys),
        })  # fmt: skip
    return rows


def _points_table(plan: Plan, store: Store | None) -> Group:
    """A row a point. Nothing is cut, for names may differ in their last letter; what all points share is said below."""
    heads = ("point", "role", "method", "engine", "chat", "state")
    body = []
    for planned, row in zip(plan.points, _rows(plan, store), strict=True):
        state = planned.problem.splitlines()[0] if planned.problem else f"{row['done']} of {row['of']} done"
        engine, chat = str(row["engine"] or ""), {True: "yes", False: "no", None: "by run"}[row["chat"]]
        body.append([row["point"], row["role"], row["method"], engine, chat, state])
    same = [place for place in range(3, len(heads)) if len(body) > 1 and len({cells[place] for cells in body}) == 1]
    shared = [f"{heads[place]} {body[0][place] or 'none'}" for place in same]
    table = _table(
        *(head for place, head in enumerate(heads) if place not in same),
        title=f"{plan.sweep.name}: {len(plan.points)} point{'s' if len(plan.points) != 1 else ''}",
    )
    for cells in body:
        table.add_row(*(escape(one_line(cell)) for place, cell in enumerate(cells) if place not in same))
    return Group(table, *([escape(f"For all: {', '.join(shared)}.")] if shared else []))


def _table(*heads: str, title: str) -> Table:
    """A table whose words are broken where they do not fit, and never cut."""
    table = Table(title=escape(one_line(title)), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0),
                  header_style="bold")  # fmt: skip
    for head in heads:
        table.add_column(head, overflow="fold")
    return table


def needs_of(plan: Plan) -> list[str]:
    """Memory and time of a sweep that has not begun, in words."""
    return _needs(plan, None, {one.text: load_of(plan, one) for one in distinct_evaluations(plan.points)})


@dataclass(frozen=True)
class Needs:
    """What is left to do, and what it takes: bytes, and seconds.

    Args:
        model: bytes of the largest merge in the engine.
        working: bytes while its largest tensor is merged.
        read: bytes of the sources that a merge reads, at most.
        basis: what the seconds are from.
    """

    evaluations: int
    requests: int
    engines: int
    model: int
    working: int
    read: int
    seconds: float
    basis: str


def _needs(plan: Plan, store: Store | None, loads: dict[str, Load]) -> list[str]:
    """Memory and time, in words."""
    needs = _needs_of(plan, store, loads)
    if needs is None:
        return ["Nothing can be measured: see the problems above."]
    starts = f"{needs.engines} engine start{'s' if needs.engines != 1 else ''}"
    return [
        f"Left: {needs.evaluations} evaluations, {needs.requests:,} requests, {starts}.",
        f"Memory: {gigabytes(needs.model)} for the model in the engine, {gigabytes(needs.working)} while the largest "
        f"tensor is merged; sources read at most {gigabytes(needs.read)} a merge.",
        f"Time: about {duration(needs.seconds)} ({needs.basis}; generation is not counted in a guess).",
    ]


def _needs_of(plan: Plan, store: Store | None, loads: dict[str, Load]) -> Needs | None:
    """Memory and time; None where nothing can be measured."""
    ready = [point for point in plan.points if point.prepared is not None]
    if not ready:
        return None
    sizes = [estimate(point.prepared.stream, point.dtype) for point in ready if point.prepared]
    device = _device(plan)
    left = [(point, one) for point in ready for one in point.point.evaluations
            if store is None or not store.is_finished(plan.key(point, one))]  # fmt: skip
    seconds, measured = 0.0, 0
    for _, one in left:
        known = store.speed(speed_name(plan, one)) if store else None
        measured += known is not None
        guess = 2.0 * sizes[0].parameters * loads[one.text].tokens / GUESSED_FLOPS[device]
        seconds += guess if known is None else known
    engines = len({point.engine for point, _ in left})
    seconds += engines * START_SECONDS[device]
    requests = sum(loads[one.text].requests for _, one in left)
    is_known = left and measured == len(left)
    basis = "measured before in this run folder" if is_known else "a first guess, corrected as it goes"
    model, working, read = (max(getattr(size, part) for size in sizes) for part in ("model", "working", "read"))
    return Needs(len(left), requests, engines, model, working, read, seconds, basis)


def speed_name(plan: Plan, evaluation: Evaluation) -> str:
    """Under which name the seconds of an evaluation are noted in the store."""
    return f"seconds {json.dumps(plan.arguments, sort_keys=True, default=str)} {evaluation.text}"


def _device(plan: Plan) -> str:
    import torch

    named = str(plan.sweep.model_args.get("device") or "")
    return "cpu" if named.startswith("cpu") or not torch.accelerator.is_available() else "gpu"
