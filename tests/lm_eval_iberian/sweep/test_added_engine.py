"""A back end is one file, and one line in `lm_eval_iberian.models.backends`: lm_eval and a sweep run on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from lm_eval_iberian.models import Merged, backends
from lm_eval_iberian.models.hf import MergedHF
from lm_eval_iberian.runs.run import read_sweep_run
from lm_eval_iberian.sweep import kept_tasks
from lm_eval_iberian.sweep.driver import run_sweep
from lm_eval_iberian.sweep.job import Started
from lm_eval_iberian.sweep.plan import make_plan
from lm_eval_iberian.sweep.pools.choose import choose_pool, gpus_each
from lm_eval_iberian.sweep.spec import check_sweep
from merge_hooks.errors import EngineError
from tests.conftest import linear
from tests.lm_eval_iberian.sweep.fake_worker import Quiet
from tests.lm_eval_iberian.sweep.local_tasks import write_tasks
from tests.lm_eval_iberian.sweep.pool_sweeps import Listening, a_sweep
from tests.lm_eval_iberian.sweep.runner import ONLY_OURS

ADDED = '''
from functools import cached_property

import torch

from lm_eval_iberian.models.backends import Backend
from lm_eval_iberian.models.counted import Counted
from lm_eval_iberian.models.merge import Swapping, prepare
from lm_eval_iberian.models.server_texts import ServerTexts
from merge_hooks.engines.weights_digest import Digest


class Pairs(Swapping, Counted, ServerTexts):
    """What comes after a token is what the head makes of its embedding: a model without layers."""

    max_length, max_gen_toks, _window = 64, 4, 64
    add_bos_token = custom_prefix_token_id = enable_thinking = None
    chat_template_args = {}

    def __init__(self, recipe, dtype="auto", merge_seed=0, rng="iberian", **arguments):
        ServerTexts.__init__(self)
        self.prepared = prepare(recipe, None, None, dtype, arguments={"merge_seed": merge_seed, "rng": rng})
        self.arguments = arguments
        self.tokenizer = self.prepared.tokenizer.load()
        self.swap_digest = self._put_in(self.prepared)

    def _put_in(self, prepared):
        with Digest() as digest:
            held = dict(digest.watch((name, tensor.clone()) for name, tensor in prepared.stream))
            self.table = held["model.embed_tokens.weight"] @ held["lm_head.weight"].T
            return digest.value

    def _encode_all(self, texts):
        return ServerTexts.tok_encode(self, texts)

    def _loglikelihood_tokens(self, requests, disable_tqdm=False):
        if not self.examine(requests):
            return []
        found = []
        for _, before, after in requests:
            rows = torch.log_softmax(self.table[[before[-1], *after[:-1]]], dim=-1)
            chosen = rows[range(len(after)), after]
            found.append((float(chosen.sum()), bool((chosen == rows.max(dim=-1).values).all())))
        return found

    def _write(self, requests, disable_tqdm):
        texts = []
        for request in requests:
            tokens = self.tok_encode(request.args[0])
            for _ in range(self.max_gen_toks):
                tokens = [*tokens, int(self.table[tokens[-1]].argmax())]
            texts.append(self.tokenizer.decode(tokens[-self.max_gen_toks :]))
        return texts

    @cached_property
    def signature(self):
        return self._sign("float32", "pairs=1.5")

    def get_model_info(self):
        info = self.prepared.info("pairs", "float32", self.signature, self.arguments)
        info["iberian"] |= self.answers.told() | {"proof": "not proved"}
        return info


class OnPairs(Backend):
    swaps_generation = True

    def engine(self, model_args):
        return "pairs=1.5"

    def holds_model(self, model_args):
        return model_args.get("device") != "cuda"

    def make(self, **arguments):
        return Pairs(**arguments)
'''


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "added_engine.py").write_text(ADDED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(backends.BACKENDS, "pairs", "added_engine:OnPairs")


def test_its_name_is_known(pairs: None) -> None:
    assert backends.choose_backend("pairs") == "pairs"
    with pytest.raises(EngineError, match=r"no such back end. Give one of auto, vllm, hf, server, pairs\."):
        Merged(backend="paris")
    assert [gpus_each({"backend": "pairs", "device": device}) for device in ("cpu", "cuda")] == [0, 1]


def test_a_back_end_that_cannot_be_used_says_why(pairs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import added_engine

    monkeypatch.setattr(added_engine.OnPairs, "why_not", lambda self: "pairs is not installed: `pip install pairs`.")
    with pytest.raises(EngineError, match="backend=pairs: pairs is not installed: `pip install pairs`"):
        Merged(backend="pairs")


def test_the_facts_of_transformers_are_those_of_its_model() -> None:
    assert backends.named("hf").swaps_generation is MergedHF.swaps_generation is True


@pytest.mark.slow
def test_a_sweep_runs_on_it(
    pairs: None, llama: dict[str, Path], tmp_path: Path, samples: None, monkeypatch: pytest.MonkeyPatch,
    mergekit_merge: Callable[[dict[str, Any]], Path],
) -> None:  # fmt: skip
    """Three merges: one engine and two swaps; the scores are those of mergekit's weights."""
    monkeypatch.setattr(kept_tasks, "TaskManager", ONLY_OURS)
    data = a_sweep(llama, write_tasks(tmp_path / "tasks", 6))
    data |= {"model_args": {"backend": "pairs", "dtype": "float32"}, "apply_chat_template": False}
    plan = make_plan(check_sweep(data, "test"))
    assert plan.engine == "pairs=1.5" and len({job.engine for job in plan.jobs}) == 1
    events: list[Any] = []
    folder = tmp_path / "run"
    assert not run_sweep(plan, folder, lambda made, jobs: Listening(choose_pool(made, jobs), events.append), Quiet())
    assert [event.what for event in events if isinstance(event, Started)] == ["engine", "swap", "swap"]
    points = read_sweep_run(folder).points
    stamps = [point.results[0]["config"]["iberian"] for point in points]
    assert len({point.signature for point in points}) == 3
    assert all(stamp["backend"] == "pairs" and "|pairs:1.5|" in stamp["signature"] for stamp in stamps)
    for point, weight in zip(points, (0.5, 1.0, 2.0), strict=True):
        checkpoint = mergekit_merge(linear(llama, weights=(weight, 1.0)))
        assert list(point.documents("local_choice").values()) == expected(checkpoint, point, tmp_path / "tasks")


def expected(checkpoint: Path, point: Any, tasks: Path) -> list[Any]:
    """The verdicts that a checkpoint's embedding and head give."""
    held = load_file(checkpoint / "model.safetensors")
    table = torch.log_softmax(held["model.embed_tokens.weight"] @ held["lm_head.weight"].T, dim=-1)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    verdicts = []
    for number, line in enumerate((tasks / "documents.jsonl").read_text().splitlines()):
        row, scores = json.loads(line), []
        prompt = point.prompt("local_choice", number)
        start = len(tokenizer(prompt)["input_ids"])
        for choice in row["choices"]:
            tokens = tokenizer(f"{prompt} {choice}")["input_ids"]
            scores.append(sum(float(table[a, b]) for a, b in pairwise(tokens[start - 1 :])))
        verdicts.append([{"acc": float(scores.index(max(scores)) == row["answer"])}])
    return verdicts
