"""Answers of a running vLLM by our code and by lm_eval's own VLLM, on the same engine; Ctrl-C in the middle."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from lm_eval_iberian.toy.tiny import build_family
from tests import forks
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    pytest.importorskip("vllm")
    # Weights wide enough that some tokens are likelier than others.
    family = build_family(tmp_path_factory.mktemp("wide"), initializer_range=0.15)
    command = [sys.executable, "-m", "tests.lm_eval_iberian.vllm_answers", str(family["base"])]
    done = forks.run(command, cwd=ROOT, timeout=600)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert lines, done.stderr[-3000:]
    return json.loads(lines[0].removeprefix("RESULT"))


def test_log_likelihoods_are_lm_evals(found: dict[str, Any]) -> None:
    for way in ("ours", "again", "whole", "after"):
        # The pair without a context, the last one, is encoded in another place of lm_eval.
        numbers = [score for score, _ in found[way]][:-1]
        assert numbers == pytest.approx([score for score, _ in found["theirs"]], abs=1e-4)
        assert [greedy for _, greedy in found[way]][:-1] == [greedy for _, greedy in found["theirs"]]
    assert len({round(score, 2) for score, _ in found["theirs"]}) > 20
    assert found["ours"][-1][0] == pytest.approx(found["whole"][-1][0], abs=1e-4)
    assert found["rolling"] == pytest.approx(found["whole_rolling"], abs=1e-2) and found["rolling"][0] < -1000


def test_texts_are_lm_evals(found: dict[str, Any]) -> None:
    assert found["texts"] == found["their_texts"]
    assert len(set(found["texts"])) > 1


def test_ctrl_c_keeps_what_was_answered_and_the_engine(found: dict[str, Any]) -> None:
    assert len(found["interrupted"]) >= 5
    assert all(found["texts_after"][place] == text for place, text in found["interrupted"])
    assert found["reset"] is True
    assert found["after"] == found["ours"]
