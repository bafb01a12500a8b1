"""`iberian sweep --dry-run` on narrow terminals: points are told apart whatever they are called."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_iberian.commands.sweep import by_reason
from lm_eval_iberian.commands.terminal import make_console
from lm_eval_iberian.sweep.outlook import _points_table
from lm_eval_iberian.sweep.progress import Progress
from lm_eval_iberian.sweep.spec import Evaluation

AXES = ["method=task_arithmetic", "method=ties", "language=eu", "weight=0.5", "weight=1.0", "[bold]x", "density=0.33333",
        "org/A-Model-With-A-Name-Without-End-Llama-3.1-8B-Instruct-v0.3-2025-preview"]  # fmt: skip
NAMES = st.lists(st.sampled_from(AXES), min_size=1, max_size=5).map(" ".join)


def planned(names: list[str], problems: dict[str, str]) -> Any:
    points = [SimpleNamespace(
        name=name, point=SimpleNamespace(role="merge", evaluations=[]), engine="one", chat=(True,),
        prepared=SimpleNamespace(resolved=SimpleNamespace(method="task_arithmetic")), problem=problems.get(name, ""),
    ) for name in names]  # fmt: skip
    return SimpleNamespace(points=points, sweep=SimpleNamespace(name="a sweep"), key=None)


def printed(plan: Any, width: int) -> list[str]:
    console = make_console(width=width)
    with console.capture() as capture:
        console.print(_points_table(plan, None))
    return capture.get().splitlines()


@pytest.mark.slow
@given(st.lists(NAMES, min_size=2, max_size=6, unique=True), st.sampled_from([40, 60, 80, 120]), st.booleans())
def test_no_letter_of_a_name_is_cut(names: list[str], width: int, has_problem: bool) -> None:
    problem = "toys/basqe: no such folder here. Did you mean toys/basque?"
    lines = printed(planned(names, {names[0]: problem} if has_problem else {}), width)
    assert all(len(line) <= width for line in lines) and "…" not in "".join(lines)
    (head,) = [number for number, line in enumerate(lines) if line.startswith("point")]
    end = lines[head].index("role") if "role" in lines[head] else lines[head].index(" r")
    body = lines[head + 1 : next(number for number, line in enumerate(lines) if line.startswith("For all: "))]
    shown = "".join(line[:end] for line in body)
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", "".join(names))
    assert not has_problem or re.sub(r"\s", "", problem)[-9:] in re.sub(r"\s", "", "".join(line[end:] for line in body))


def test_what_all_points_share_stands_below() -> None:
    lines = printed(planned(["a", "b"], {}), 80)
    assert [line.split() for line in lines[1:4]] == [["point", "role", "method"], ["a", "merge", "task_arithmetic"],
                                                     ["b", "merge", "task_arithmetic"]]  # fmt: skip
    assert lines[4].rstrip() == "For all: engine 1, chat yes, state 0 of 0 done."
    alone = printed(planned(["a"], {}), 80)
    assert alone[1].split() == ["point", "role", "method", "engine", "chat", "state"] and len(alone) == 3


def test_runs_that_are_prompted_in_two_ways_are_not_called_one() -> None:
    """It said "chat yes" of a sweep whose first run is without a template."""
    runs = [Evaluation(("toy_eu",), {"apply_chat_template": said}) for said in (False, True)]
    plan = planned(["a", "b"], {})
    plan.key = lambda *_: ""
    for evaluations, said in ((runs, "by run"), (runs[:1], "no"), (runs[1:], "yes")):
        for point in plan.points:
            point.point = SimpleNamespace(role="merge", evaluations=evaluations, chat=(None, None))
        assert f"chat {said}, state 0 of {len(evaluations)} done" in printed(plan, 80)[4]


def test_points_that_failed_for_one_reason_are_one_line() -> None:
    said = ["a: t: disk full", "a: b: t: disk full", "c: t: no such folder", "nobody's"]
    assert by_reason(said, ["a", "a: b", "c"]) == ["t: disk full (a, a: b)", "c: t: no such folder", "nobody's"]


def test_a_line_of_a_log_is_wrapped_and_that_of_a_terminal_is_not() -> None:
    said = "weight=0.5: iberian_eus_trivia: FAILED: " + "a reason in many words " * 12
    for terminal in (False, True):
        console = make_console(width=80, force_terminal=terminal, color_system=None)
        with console.capture() as capture:
            Progress(console).note(said)
        lines = capture.get().rstrip("\n").split("\n")
        assert " ".join(" ".join(lines).split()) == said.strip()
        assert len(lines) == (1 if terminal else 3) and (terminal or max(map(len, lines)) <= 120)
