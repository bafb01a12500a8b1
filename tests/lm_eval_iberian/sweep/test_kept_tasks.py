"""A sweep's tasks: the small index where ours are enough, lm_eval's whole one where they are not."""

from __future__ import annotations

import pytest

from lm_eval_iberian.sweep.kept_tasks import KeptTasks


def test_our_groups_hold_tasks_of_ours_only() -> None:
    """Else the small index could not load them."""
    index = KeptTasks()._index(["iberian_suite"])
    assert "iberian_suite" in index.all_tasks and "arc_easy" not in index.all_tasks
    for name in index.all_tasks:
        children = index.task_index[name].cfg.get("task", []) if index.task_index[name].cfg else []
        named = [child["task"] if isinstance(child, dict) else child for child in children if name in index.all_groups]
        assert set(named) <= set(index.all_tasks), name


def test_tasks_of_lm_eval_and_of_the_user_are_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeptTasks, "_every_task", "the whole index")
    assert KeptTasks()._index(["iberian_eus_trivia", "arc_easy"]) == "the whole index"
    assert KeptTasks("folder")._index(["iberian_eus_trivia"]) == "the whole index"
