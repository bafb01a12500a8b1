"""What a worker makes its engine with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lm_eval_iberian import models
from lm_eval_iberian.models import backends
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.sweep import worker


@pytest.mark.parametrize(
    ("given", "vllm_is_usable", "batch_size"),
    [
        ({}, True, None),
        ({"backend": "auto"}, True, None),
        ({"backend": "vllm"}, True, None),
        ({"backend": "server", "base_url": "http://localhost:8000"}, True, None),
        ({}, False, 8),
        ({"backend": "hf"}, True, 8),
        ({"backend": "hf", "batch_size": 2}, True, 2),
        ({"backend": "vllm", "batch_size": 2}, True, 2),
    ],
)
def test_where_vllm_fills_its_batches_itself_a_sweep_names_no_batch_size(
    given: dict[str, Any], vllm_is_usable: bool, batch_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` chooses vLLM where it is: with 8 it would take eight prompts at a time."""
    monkeypatch.setattr(backends.vllm_loader, "is_usable", lambda: vllm_is_usable)
    monkeypatch.setattr(backends.vllm_loader, "distribution", lambda: "vllm")
    monkeypatch.setattr(models, "Merged", lambda **arguments: arguments)
    job = SimpleNamespace(
        recipe=("merge_method: linear", "recipe.yml", None), merge_seed=0, rng="iberian", model_args=given
    )
    assert worker._start(job).get("batch_size") == batch_size  # type: ignore[arg-type]


@pytest.mark.parametrize("found", ["planned", "other"])
def test_the_engine_says_itself_what_it_measures(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may have been started anew, with another window, since the plan was made."""
    engine: Any = SimpleNamespace(
        swap_digest="weights", was_started_anew=False, signature=SimpleNamespace(digest=found)
    )
    monkeypatch.setattr(worker, "_start", lambda job: engine)
    made = worker.Worker(lambda event: None)
    job: Any = SimpleNamespace(engine="e", signature="planned", weights=None, point="a point")
    if found == "planned":
        assert made._bring(job) == "engine" and made.signature == "planned"
    else:
        with pytest.raises(SweepError, match="a point: the engine holds other, the plan says planned"):
            made._bring(job)
        assert made.signature == ""
