"""Loading tasks: what lm_eval does by itself while it makes one of ours."""

from __future__ import annotations

import logging

import pytest
from lm_eval.api.registry import metric_registry

from tests.tasks.common import build, ours


def test_no_task_asks_the_hub_for_a_metric(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """lm_eval asks `evaluate` for a metric that it does not know: over the network, HF_HUB_OFFLINE or not."""
    asked: list[str] = []
    monkeypatch.setattr("evaluate.load", asked.append)
    for name in ours().all_subtasks:
        with caplog.at_level(logging.WARNING, logger="lm_eval.api.registry"):
            build(name)
    assert not asked and "HF Evaluate" not in caplog.text


def test_a_metric_of_a_class_is_nothing_to_call() -> None:
    """A task without that class which names it is told so, and gets no number."""
    build("ifeval_eu")
    with pytest.raises(NotImplementedError, match="computed by the class of its task"):
        metric_registry.get("prompt_level_strict_acc")(["a"], ["a"])
