"""In which order points are measured, and which of them may follow each other in one engine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lm_eval_iberian.models.backends import named
from lm_eval_iberian.sweep import plan
from lm_eval_iberian.sweep.plan import in_working_order
from lm_eval_iberian.sweep.spec import check_sweep
from merge_hooks.planning.config import parse_config
from tests.lm_eval_iberian.sweep.local_tasks import write_tasks
from tests.lm_eval_iberian.sweep.test_resume import a_sweep


def planned(
    name: str, method: str, weight: float, density: float | None = None, engine: str = "one", **more: Any
) -> Any:
    """A point of one recipe over the sources a and b."""
    parameters = {"weight": weight} | ({} if density is None else {"density": density})
    models = [{"model": "a", "parameters": parameters}, {"model": "b", "parameters": {"weight": 1.0}}]
    data = {"merge_method": method, "models": models} | ({} if method == "linear" else {"base_model": "base"})
    sources = dict.fromkeys(more.get("sources", ("a", "b")))
    resolved = SimpleNamespace(sources=sources, method=method, config=parse_config(data, "test"))
    point = SimpleNamespace(merge_seed=more.get("seed", 0))
    return SimpleNamespace(name=name, engine=engine, point=point, prepared=SimpleNamespace(resolved=resolved))


def test_points_that_share_most_follow_each_other() -> None:
    """One engine after the other; in it equal sources, then equal methods, densities and seeds; then the plan's order."""
    points = [
        planned("t1", "ties", 1.0, 0.5), planned("l1", "linear", 1.0), planned("other engine", "linear", 1.0, engine="two"),
        planned("t2", "ties", 1.0, 0.2), planned("t3", "ties", 0.3, 0.5), planned("l2", "linear", 0.3),
        planned("other sources", "linear", 1.0, sources=("a", "c")), planned("d1", "dare_ties", 1.0, 0.5, seed=1),
        planned("d2", "dare_ties", 1.0, 0.5), planned("d3", "dare_ties", 0.5, 0.5, seed=1),
        SimpleNamespace(name="a problem", prepared=None),
    ]  # fmt: skip
    names = [point.name for point in in_working_order(points)]
    assert names == ["d2", "d1", "d3", "l1", "l2", "t2", "t1", "t3", "other sources", "other engine"]


@pytest.mark.parametrize("backend", ["vllm", "hf", "server"])
def test_an_engine_is_shared_by_what_a_swap_can_follow(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "engine_facts", lambda stream: stream)

    def key(facts: str = "facts", dtype: str = "bfloat16", tokenizer: str = "t", **settings: Any) -> str:
        tokens = SimpleNamespace(facts=SimpleNamespace(hash=tokenizer))
        prepared = SimpleNamespace(stream=facts, tokenizer=tokens, generation_config=settings)
        return plan._engine_key(prepared, dtype, named(backend).swaps_generation)  # type: ignore[arg-type]

    assert len({key(), key("other"), key(dtype="float32"), key(tokenizer="u")}) == 4
    assert key(top_k=5) == key()
    ends = {key(eos_token_id=1), key(eos_token_id=[1, 2])}
    assert len(ends) == (1 if backend == "hf" else 2), "vLLM reads once at which tokens a text ends"
    assert key(eos_token_id=[2, 1]) == key(eos_token_id=[1, 2])


@pytest.mark.slow
def test_loaded_tasks_are_used_again_only_for_the_same_arguments(llama: dict[str, Path], tmp_path: Path) -> None:
    """lm_eval writes the model's arguments into each task, and so they would count for the next sweep of a process."""
    plain = a_sweep(llama, write_tasks(tmp_path / "tasks", 4))
    narrow = {**plain, "model_args": {**plain["model_args"], "max_length": 256}}
    first = plan.make_plan(check_sweep(narrow, "narrow"))
    again = plan.make_plan(check_sweep(narrow, "narrow"), like=first)
    assert again.tasks is first.tasks and keys(again) == keys(first)
    alone = keys(plan.make_plan(check_sweep(plain, "plain")))
    assert keys(plan.make_plan(check_sweep(plain, "plain"), like=first)) == alone != keys(first)


def keys(made: plan.Plan) -> list[str]:
    return [one["key"] for point in made.as_data()["points"] for one in point["evaluations"]]
