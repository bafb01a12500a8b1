"""What runs in vLLM's workers, without vLLM: turns, stamps, and merges that are refused. With it: test_vllm_swaps.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from merge_hooks.engines import vllm_worker
from merge_hooks.errors import SourceError


class Worker(vllm_worker.MergingWorker):
    """As much of vLLM's worker as these methods ask for. `did`: what was done to its model."""

    def __init__(self) -> None:
        self.model, self.did = torch.nn.Linear(2, 2), ""
        config = SimpleNamespace(dtype=torch.float32, quantization=None, enforce_eager=True)
        self.model_runner, self.device = SimpleNamespace(model_config=config), torch.device("cpu")

    def get_model(self) -> torch.nn.Module:
        return self.model

    def reload_weights(self, weights_iterator: Iterator[Any]) -> None:
        self.did += "taken apart, "
        self.did += ", ".join(name for name, _ in weights_iterator)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(vllm_worker, "shared", lambda: nullcontext(None))
    monkeypatch.setattr(vllm_worker, "_follow_tied", lambda model: [])
    monkeypatch.setattr(vllm_worker, "merged_weights", merge_of("first", "second"))
    return Worker()


def merge_of(*names: str) -> Callable[..., Iterator[Any]]:
    """A merge of so many tensors; a name in capitals cannot be read."""

    def weights(model: Any, *_: Any) -> Iterator[Any]:
        if not names:
            raise SourceError("it is not there")
        loaded = vllm_worker._LOADED[model] = vllm_worker.Loaded(is_ours=True)
        for name in names:
            if name.isupper():
                raise SourceError(f"{name} holds NaN")
            yield name, torch.zeros(1)
        loaded.digest = "d"

    return weights


def test_a_swap_says_what_went_in(worker: Worker) -> None:
    before = worker.merge_state()
    assert worker.merge_swap("{}", "off", False) == {"digest": "d"}
    assert worker.did == "taken apart, first, second"
    assert worker.merge_state()["stamp"] != before["stamp"] and worker.merge_state()["digest"] == "d"


def test_a_merge_that_cannot_be_opened_leaves_the_model_as_it_was(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others go on with what is in it; one that breaks off later has a stamp of its own, and no digest."""
    worker.merge_swap("{}", "off", False)
    before, worker.did = worker.merge_state(), ""
    monkeypatch.setattr(vllm_worker, "merged_weights", merge_of())
    assert worker.merge_swap("{}", "off", False)["error"][0] == "SourceError"
    assert worker.did == "" and worker.merge_state() == before
    monkeypatch.setattr(vllm_worker, "merged_weights", merge_of("first", "SECOND"))
    assert worker.merge_swap("{}", "off", False)["error"] == ("SourceError", "SECOND holds NaN")
    assert worker.merge_state()["stamp"] != before["stamp"] and worker.merge_state()["digest"] == ""


def test_what_was_put_in_without_a_proof_is_not_proved(worker: Worker) -> None:
    worker.merge_swap("{}", "off", False)
    assert worker.merge_prove(False)["unproved"] == []
    assert "proof=off" in worker.merge_prove(True)["unproved"][0]


def test_a_turn_does_not_end_over_a_swap(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker answers nobody meanwhile: who waits for the turn would be heard before it can be renewed."""
    now = 0.0
    monkeypatch.setattr(vllm_worker.time, "monotonic", lambda: now)
    reload = worker.reload_weights

    def slow(weights_iterator: Iterator[Any]) -> None:
        nonlocal now
        now += 1000.0
        reload(weights_iterator)

    worker.reload_weights = slow  # type: ignore[method-assign]
    assert worker.merge_lease("ours", 120.0)["owner"] == "ours"
    now += 20.0
    worker.merge_swap("{}", "off", False)
    assert worker.merge_lease("theirs", 120.0) == {"owner": "ours", "seconds": 100.0}
    now += 100.0
    assert worker.merge_lease("theirs", 120.0)["owner"] == "theirs"  # who was killed does not hold it for ever
