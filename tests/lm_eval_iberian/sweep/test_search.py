"""A search's space: what a grid holds, what each trial draws from, what a rung measures, when two spaces are one."""

from __future__ import annotations

from typing import Any

import pytest

from lm_eval_iberian.tune.space import Range, Space, check_space

DATA: dict[str, Any] = {
    "tasks": ["a", "b"], "objective": "a", "trials": 50, "limit": 500,
    "recipe": {"merge_method": "$method", "models": [{"model": "m", "parameters": {"weight": "$weight"}}]},
    "search": {"weight": {"low": 0.0, "high": 0.3, "step": 0.1}, "method": ["linear", "ties", "slerp"]},
}  # fmt: skip


def space(**changes: Any) -> Space:
    pytest.importorskip("optuna")
    return check_space({**DATA, **changes}, "space")


@pytest.mark.parametrize(
    ("range_", "values"),
    [
        (Range("x", 0.0, 0.3, 0.1), [0.0, 0.1, 0.2, 0.3]),  # 0.3 / 0.1 is 2.9999999999999996
        (Range("x", 0.0, 1.0, 0.4), [0.0, 0.4, 0.8]),
        (Range("x", 2.0, 2.0, 0.5), [2.0]),
        (Range("x", 1.0, 4.0, whole=True), [1, 2, 3, 4]),
        (Range("x", 1.0, 6.0, 2.0, whole=True), [1, 3, 5]),
    ],
)
def test_a_grid_holds_both_ends(range_: Range, values: list[float]) -> None:
    assert range_.grid == pytest.approx(values)


def test_a_grid_is_every_combination_and_no_more() -> None:
    found = space(sampler="grid")
    assert found.trials == len(found.grid) == 12
    assert found.grid[1] == {"weight": 0.0, "method": "ties"}, "the last axis changes fastest"
    assert space(sampler="grid", trials=5).trials == len(space(sampler="grid", trials=5).grid) == 5
    assert space(trials=50).trials == 50


def test_each_trial_draws_by_its_number() -> None:
    """So a search that was killed goes on as it would have; two trials in parallel do not draw the same."""
    found, other = space(), space(seed=1)

    def draw(sampler: Any) -> float:
        return float(sampler._rng.rng.rand())

    assert draw(found.make_sampler(3, False)) == draw(space().make_sampler(3, True))
    drawn = {draw(one.make_sampler(number, False)) for one in (found, other) for number in (0, 1)}
    assert len(drawn) == 4, "every trial of every seed for itself"
    assert found.make_sampler(0, True)._constant_liar and not found.make_sampler(0, False)._constant_liar


def test_a_rung_limits_every_run() -> None:
    values = {"weight": ("0.1", 0.1), "method": ("linear", "linear")}
    found = space(rungs=[50, 200], runs=[{"tasks": "a", "limit": 300}, {"tasks": "b", "num_fewshot": 2}])
    limits = [[one.settings["limit"] for one in found.sweep(values, rung).points[0].evaluations] for rung in (0, 1, 2)]
    assert limits == [[50, 50], [200, 200], [300, 500]], "the whole is what was written"
    assert found.sweep(values, 0).points[0].evaluations[1].settings["num_fewshot"] == 2
    plain = space(rungs=[50]).sweep(values, 0).points[0]
    assert plain.evaluations[0].settings == {"limit": 50} and plain.name == "weight=0.1 method=linear"


def test_hyperband_knows_the_rungs_and_the_whole() -> None:
    import optuna

    pruner = space(rungs=[50, 200], pruner="hyperband").make_pruner()
    assert isinstance(pruner, optuna.pruners.HyperbandPruner)
    assert (pruner._min_resource, pruner._max_resource) == (1, 3)
    assert isinstance(space().make_pruner(), optuna.pruners.NopPruner)


def test_a_space_is_what_its_trials_measure() -> None:
    """Not how, or how long, is searched: more trials go on in the same folder, another range does not."""
    same = [space(trials=90), space(seed=4), space(sampler="random")]
    wider = {**DATA["search"], "weight": {"low": 0.0, "high": 0.4, "step": 0.1}}
    others = [
        space(search=wider),
        space(objective=["a", "b"]),
        space(rungs=[50]),
        space(limit=400),
        space(num_fewshot=1),
    ]
    assert {one.digest for one in same} == {space().digest}
    assert len({space().digest, *(one.digest for one in others)}) == 1 + len(others)
