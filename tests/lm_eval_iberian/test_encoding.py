"""Tokens of log-likelihood requests, encoded ahead: those that lm_eval's own classes ask for, text by text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_iberian.models.encoding import Encoded
from lm_eval_iberian.toy.tiny import build_family

PROMPT = "Galdera: Non dago Gasteiz?\nErantzuna:"
PAIRS = [(PROMPT, " A"), (PROMPT, " B"), (PROMPT + "  \t", "dela"), (PROMPT + "\n", " ez dakit"), ("", " A"), (" ", "x"),
         ("<s>uste dut", " baina"), ("<s>", "ñandú 😀"), ("\u2003", " \u2003x"), (PROMPT, ""), (PROMPT, " A")]  # fmt: skip


def capital_codes(texts: list[str]) -> list[list[int]]:
    return [[ord(letter) for letter in text] for text in texts]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_family(tmp_path_factory.mktemp("llama"))["base"]


def requests(pairs: list[tuple[str, str]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]


def tokens_asked(model: Any, monkeypatch: pytest.MonkeyPatch, pairs: list[tuple[str, str]]) -> Any:
    """What comes to the hook that scores tokens."""
    came: list[Any] = []

    def hook(_model: Any, asked: list[Any], **_: Any) -> list[Any]:
        came.extend(asked)
        return [(0.0, False)] * len(asked)

    monkeypatch.setattr(type(model), "_loglikelihood_tokens", hook)
    model.loglikelihood(requests(pairs), disable_tqdm=True)
    return came


@pytest.mark.parametrize("add_bos_token", [None, True, False])
@pytest.mark.parametrize("engine", ["hf", "vllm"])
def test_tokens_are_lm_evals(
    checkpoint: Path, engine: str, add_bos_token: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many prompts, so that several batches are encoded; asked twice, the second time from what was kept."""
    ours, theirs = (bare(kind, checkpoint, add_bos_token) for kind in classes(engine))
    pairs = PAIRS + [(f"{number} {PROMPT}" * 3, f" {choice}") for number in range(300) for choice in "AB"] + PAIRS
    expected = tokens_asked(theirs, monkeypatch, pairs)
    encode, alone = type(theirs).tok_encode, []

    def watched(self: Any, string: Any, *args: Any, **options: Any) -> Any:
        if isinstance(string, str) and string and not args and not options:
            alone.append(string)
        return encode(self, string, *args, **options)

    monkeypatch.setattr(type(theirs), "tok_encode", watched)
    assert tokens_asked(ours, monkeypatch, pairs) == expected
    monkeypatch.setattr(type(ours), "_encode_all", lambda *_: pytest.fail("encoded again"))
    assert tokens_asked(ours, monkeypatch, pairs) == expected
    assert not alone  # every text was foreseen


def classes(engine: str) -> tuple[Any, Any]:
    if engine == "hf":
        from lm_eval.models.huggingface import HFLM

        from lm_eval_iberian.models.hf import MergedHF

        return MergedHF, HFLM
    pytest.importorskip("vllm")
    from lm_eval_iberian.models.vllm import VLLM, MergedVLLM

    return MergedVLLM, VLLM


def bare(kind: Any, checkpoint: Path, add_bos_token: bool | None) -> Any:
    """An object without an engine: what encodes needs none."""
    from transformers import AutoTokenizer

    model = object.__new__(kind)
    vars(model).update(
        tokenizer=AutoTokenizer.from_pretrained(checkpoint), add_bos_token=add_bos_token, custom_prefix_token_id=None,
        backend="causal", enable_thinking=False,
    )  # fmt: skip
    return model


@given(st.lists(st.text(max_size=5), max_size=60), st.integers(0, 4000))
def test_every_text_has_its_tokens_whatever_is_kept(texts: list[str], most: int) -> None:
    encoded = Encoded(capital_codes, most)
    for _ in range(2):
        encoded.expect(iter(texts))
        assert [encoded.get(text) for text in texts] == capital_codes(texts)
    kept = sum(len(tokens) * tokens.itemsize + 128 for tokens in encoded._kept.values())
    assert kept <= most


def test_what_was_not_expected_is_not_known() -> None:
    encoded = Encoded(capital_codes)
    assert encoded.get("a") is None
    encoded.expect(["a"])
    assert encoded.get("b") is None
