"""The held-out types through lm_eval: prompts of our own, one edition, beside the suite."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate

from ifeval_multi import documents, lint
from ifeval_multi.instructions import HELD_OUT_TYPES
from tests.tasks.common import build, ours
from tests.tasks.test_groups import leaves
from tests.tasks.test_ifeval import scores

PROMPTS = Path(documents.__file__).parent / "prompts" / "held_out"
LANGUAGES = ("eu", "gl", "ca", "es")


@pytest.mark.parametrize("language", LANGUAGES)
def test_prompts(language: str) -> None:
    """At least 60, every type among them, and each says what its kwargs say."""
    file = PROMPTS / f"{language}.jsonl"
    asked = documents.read(file)
    assert len(asked) >= 60 and [document.key for document in asked] == list(range(1, len(asked) + 1))
    counts = Counter(i.id for document in asked for i in document.instructions)
    assert set(counts) == set(HELD_OUT_TYPES)
    assert [str(finding) for finding in lint(file, language)] == []


def test_languages_are_asked_the_same() -> None:
    """The sets are parallel: a difference between languages is the model's."""
    ids = {code: [[i.id for i in d.instructions] for d in documents.read(PROMPTS / f"{code}.jsonl")] for code in LANGUAGES}  # fmt: skip
    assert all(found == ids["eu"] for found in ids.values())


def test_verdicts_reach_the_results() -> None:
    task = build("iberian_ifbench_es")
    assert task.config.metadata["documents"] == "own prompts, held-out types, 64 prompts"
    answers = [" ".join(["palabra"] * 50) + "."] + ["…"] * 63
    found = scores(task, answers)
    assert found["strict_count_word_range"] == pytest.approx(1 / 6)
    assert 0 < found["inst_level_strict_acc"] < 0.2
    assert not [name for name in task.aggregation() if name.startswith("original_")]
    assert set(task.aggregation()) == set(task.higher_is_better())


def test_the_group_is_beside_the_suite() -> None:
    found = set(leaves("iberian_ifbench"))
    assert found == {f"iberian_ifbench_{language}" for language in LANGUAGES}
    assert not found & set(leaves("iberian_suite"))


@pytest.mark.slow
def test_a_tiny_model_runs_through(llama: dict[str, Path]) -> None:
    found: Any = simple_evaluate(
        model="hf", model_args=f"pretrained={llama['base']}", device="cpu", tasks=["iberian_ifbench"], limit=2,
        task_manager=ours(), gen_kwargs="max_gen_toks=8", bootstrap_iters=0,
    )  # fmt: skip
    assert set(found["results"]) >= {f"iberian_ifbench_{language}" for language in LANGUAGES}
    assert "inst_level_strict_acc,none" in found["results"]["iberian_ifbench_eu"]
