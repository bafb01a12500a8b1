"""Log-likelihoods from a cache of keys and values, against lm_eval's own HFLM on the same checkpoint."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_iberian.models.hf_scoring import WORTH_SHARING, clusters, name_of_cache, read
from lm_eval_iberian.toy.tiny import build_family
from merge_hooks.errors import EngineError

WORDS = ["Gasteiz", "dela", "uste", "dut", "nik", "baina", "ez", "dakit", "ziur", "zergatik", "galdetzen", "orain"]
# A window of 8 tokens is shorter than every prompt here.
KINDS = {"llama": {}, "mistral": {"sliding_window": 8}, "qwen3": {}, "gemma": {}}


@pytest.fixture(
    scope="module",
    params=["llama", "mistral", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("qwen3", "gemma"))],
)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    # Weights wide enough that some tokens are likelier than others.
    return build_family(folder, request.param, initializer_range=0.15, **KINDS[request.param])["base"]


def pairs() -> list[tuple[str, str]]:
    """Prompts of many lengths, some that begin alike; choices that begin alike, or are one token."""
    draw = random.Random(3)
    shots = " ".join(draw.choices(WORDS, k=25))  # long enough to be shared, short enough to stay whole
    contexts = [" ".join(draw.choices(WORDS, k=count)) for count in (1, 4, 9, 60)]
    contexts += [f"{shots} {context}" for context in contexts]
    choices = (" A", " B", " Gasteiz dela", " Gasteiz dela uste dut", " " + " ".join(WORDS))
    return [(context, choice) for context in [*contexts, ""] for choice in choices]


def make(kind: Any, checkpoint: Path, **options: Any) -> Any:
    return kind(pretrained=str(checkpoint), dtype="float32", device="cpu", batch_size=4, max_length=100, **options)


def ask(model: Any, kind: str, arguments: list[tuple[Any, ...]]) -> Any:
    from lm_eval.api.instance import Instance

    requests = [Instance(kind, {}, given, index) for index, given in enumerate(arguments)]
    return getattr(model, kind)(requests, disable_tqdm=True)


def test_scores_are_hflms(checkpoint: Path) -> None:
    """Longer prompts than the model's length, a sliding window, an empty context, rolling requests."""
    from lm_eval.models.huggingface import HFLM

    from lm_eval_iberian.models.hf import MergedHF

    ours, theirs = make(MergedHF, checkpoint), make(HFLM, checkpoint)
    mine, yours = ask(ours, "loglikelihood", pairs()), ask(theirs, "loglikelihood", pairs())
    assert [score for score, _ in mine] == pytest.approx([score for score, _ in yours], abs=1e-4)
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in yours]
    assert ours._scoring == "prefix"
    text = [(" ".join(WORDS * 12),)]
    assert ask(ours, "loglikelihood_rolling", text) == pytest.approx(
        ask(theirs, "loglikelihood_rolling", text), abs=1e-3
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from lm_eval_iberian.models.hf import MergedHF

    return make(MergedHF, build_family(tmp_path_factory.mktemp("plain"))["base"])


def test_the_likeliest_token_is_greedy_and_of_equal_ones_the_first() -> None:
    logprobs = torch.tensor([-3.0, -0.5, -2.0, -0.5])
    found = read(logprobs, [0, 1, 3])
    assert {token: said[0] for token, said in found.items()} == {0: -3.0, 1: -0.5, 3: -0.5}
    assert [token for token, (value, best) in found.items() if value == best] == [1]


def test_answers_reach_the_cache_before_an_error(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        answers: ClassVar[list[Any]] = []

        def add_partial(self, _kind: str, arguments: Any, answer: Any) -> None:
            self.answers.append((arguments, answer))
            if len(self.answers) == 7:
                raise OSError("no room on the disk")

    monkeypatch.setattr(model, "cache_hook", Full())
    with pytest.raises(OSError, match="no room"):
        ask(model, "loglikelihood", pairs())
    monkeypatch.undo()
    scores = dict(zip(pairs(), ask(model, "loglikelihood", pairs()), strict=True))
    assert len(Full.answers) == 7
    assert all(scores[arguments][0] == pytest.approx(answer[0], abs=1e-5) for arguments, answer in Full.answers)


def test_a_model_without_such_a_cache_goes_lm_evals_way(
    model: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def forward(*_: Any, **__: Any) -> None:
        raise TypeError("unexpected keyword argument 'past_key_values'")

    usual = model.model.forward
    monkeypatch.setattr(
        model.model,
        "forward",
        lambda *given, **options: (forward if "past_key_values" in options else usual)(*given, **options),
    )
    scores = ask(model, "loglikelihood", pairs()[:5])
    assert model._scoring == "full" and "scoring=full" in caplog.text
    monkeypatch.undo()
    model._scoring = "prefix"
    assert [score for score, _ in ask(model, "loglikelihood", pairs()[:5])] == pytest.approx(
        [score for score, _ in scores], abs=1e-4
    )


def test_the_cache_has_the_name_that_a_forward_gives_it(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers 5.24 calls it `cache`, warns of `past_key_values`, and will refuse it."""
    before = [score for score, _ in ask(model, "loglikelihood", pairs()[:5])]
    usual, old = model.model.forward, name_of_cache(model.model)
    asked = []

    def forward(*given: Any, cache: Any = None, logits_to_keep: int = 0, **options: Any) -> Any:
        asked.append(cache)
        output = usual(*given, **{old: cache}, logits_to_keep=logits_to_keep, **options)
        return SimpleNamespace(logits=output.logits, cache=getattr(output, old))

    monkeypatch.setattr(model.model, "forward", forward)
    after = [score for score, _ in ask(model, "loglikelihood", pairs()[:5])]
    assert after == pytest.approx(before, abs=1e-5) and model._scoring == "prefix" and None not in asked


def test_no_such_way(model: Any) -> None:
    with pytest.raises(EngineError, match="scoring=fast: there is no such way"):
        model.choose_scoring("fast")


beginnings = st.lists(st.integers(0, 1), min_size=WORTH_SHARING, max_size=WORTH_SHARING + 3)


@settings(max_examples=40)
@given(st.lists(st.tuples(beginnings, st.lists(st.integers(0, 1), max_size=30)), max_size=8), st.booleans())
def test_clusters_hold_every_prompt_once(parts: list[tuple[list[int], list[int]]], sharing: bool) -> None:
    prompts = list({tuple(beginning + rest) for beginning, rest in parts} | {(0,) * 40, (0,) * 39 + (1,)})
    found = list(clusters(prompts, sharing))
    assert sorted(prompt for _, cluster in found for prompt in cluster) == sorted(prompts)
    for common, cluster in found:
        assert all(prompt[: len(common)] == common and len(prompt) > len(common) for prompt in cluster)
        assert sharing or not common
    assert not sharing or any(common for common, _ in found)


@pytest.mark.parametrize("family", ["mamba2", "recurrent_gemma", pytest.param("falcon_h1", marks=pytest.mark.slow)])
def test_layers_that_keep_a_state(family: str, tmp_path: Path) -> None:
    """Their states cannot be cut to a shared beginning; some answer without any cache."""
    from lm_eval_iberian.models.hf import MergedHF
    from lm_eval_iberian.toy.tiny import build_tokenizer
    from tests.merge_hooks.families import make_family

    folder = make_family(family, tmp_path, ("one",), step=0.3)["one"]
    build_tokenizer(300).save_pretrained(folder)
    scores = [
        [score for score, _ in ask(MergedHF(pretrained=str(folder), dtype="float32", device="cpu", scoring=way),
                                   "loglikelihood", pairs()[::4])]
        for way in ("prefix", "full")
    ]  # fmt: skip
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
