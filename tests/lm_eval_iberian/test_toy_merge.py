"""Merging transfers: a merge knows the language of one parent and follows instructions as the other does.

Random weights cannot show that. A merge that took one parent's weights, or spoilt both, fails here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate

from lm_eval_iberian.models.hf import MergedHF
from lm_eval_iberian.sweep.kept_tasks import our_tasks
from lm_eval_iberian.toy.recipes import recipe

# In points. What chance alone moves: two standard errors of 150 pairs, and of 60 prompts, are below 9 and 12.
CLEARLY = 10.0


def scores(arguments: dict[str, Any]) -> tuple[float, float]:
    """Basque pairs without, and Spanish instructions with the chat template; percent."""
    model = MergedHF(**arguments, batch_size=64, device="cpu", max_length=512)
    ours: Any = {"task_manager": our_tasks(), "bootstrap_iters": 0}
    pairs = simple_evaluate(model=model, tasks=["toy_pairs_eu"], **ours)
    asked = simple_evaluate(model=model, tasks=["toy_ifeval_es"], apply_chat_template=True, **ours)
    return (
        100 * pairs["results"]["toy_pairs_eu"]["acc,none"],
        100 * asked["results"]["toy_ifeval_es"]["inst_level_strict_acc,none"],
    )


@pytest.mark.nightly
def test_a_merge_has_something_of_both_parents(toys: dict[str, Path]) -> None:
    base, _ = scores({"pretrained": str(toys["base"])})
    instruct_pairs, instruct_asked = scores({"pretrained": str(toys["instruct"])})
    basque_pairs, basque_asked = scores({"pretrained": str(toys["basque"])})
    assert basque_pairs > base + CLEARLY, "the language model learnt no Basque: the toys are no toys"
    assert instruct_asked > basque_asked + CLEARLY, "the instruct model learnt no instructions"
    pairs, _ = scores({"recipe": recipe(toys, "basque", "linear")})
    # Half the step carries over half as much: 9 points where the whole step's 10 are asked of task arithmetic.
    assert pairs > instruct_pairs + CLEARLY / 2, "linear: no Basque came over"
    # Halved, as linear merging halves it, what the instruct model learnt no longer opens an answer: see the README.
    pairs, asked = scores({"recipe": recipe(toys, "basque", "task_arithmetic")})
    assert pairs > instruct_pairs + CLEARLY, "task arithmetic: no Basque came over"
    assert asked > basque_asked + CLEARLY, "task arithmetic: no instruction following came over"
