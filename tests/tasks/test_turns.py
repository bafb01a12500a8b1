"""Conversations through lm_eval: the model's own answers are the history, with whatever model lm_eval is given."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.api.model import LM

from lm_eval_iberian.documents.loader import DocumentsError
from lm_eval_iberian.sweep.kept_tasks import KeptTasks, LoadedOnce
from lm_eval_iberian.sweep.outlook import Load, load_of
from lm_eval_iberian.sweep.spec import Evaluation
from tests.tasks.common import build, ours
from tests.tasks.test_groups import leaves

LANGUAGES = ("eu", "gl", "ca", "es")


class Parrot(LM):
    """Says its name and how often it was asked; remembers what it was shown."""

    def __init__(self, name: str = "parrot") -> None:
        super().__init__()
        self.name, self.calls = name, []

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return json.dumps(chat_history, ensure_ascii=False)

    def chat_template(self, chat_template: bool | str = False) -> str:
        return "json"

    @property
    def tokenizer_name(self) -> str:
        return "json"

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.calls.append([json.loads(request.args[0]) for request in requests])
        return [f"<think>hmm</think>{self.name} {len(self.calls)}" for _ in requests]

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


def evaluate(model: Any, tasks: list[str], **options: Any) -> Any:
    return simple_evaluate(
        model=model, tasks=tasks, task_manager=ours(), apply_chat_template=True, bootstrap_iters=0, **options
    )


def test_the_models_own_answers_are_the_history() -> None:
    model = Parrot()
    found = evaluate(model, ["iberian_turns_es"], limit=2, system_instruction="Sé breve.")
    assert [len(call) for call in model.calls] == [2, 2, 2], "all conversations of a turn in one call"
    first, second, third = (call[0] for call in model.calls)
    assert [one["role"] for one in first] == ["system", "user"] and first[0]["content"] == "Sé breve."
    assert [one["role"] for one in second] == ["system", "user", "assistant", "user"]
    assert [one["role"] for one in third] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert (third[2]["content"], third[4]["content"]) == ("parrot 1", "parrot 2"), "its reasoning is left out"
    assert third[1] == first[1] and third[3] == second[3]
    assert third[1]["content"].startswith("Escribe una carta") and "posdata" in third[5]["content"]
    said = found["results"]["iberian_turns_es"]
    assert said["turn1_inst_level_strict_acc,none"] == 0.0, "too few words, no list"
    assert said["turn2_inst_level_strict_acc,none"] == pytest.approx(1 / 4), (
        "the letter has no comma, and not its words"
    )
    assert said["conversation_level_strict_acc,none"] == 0.0
    assert 'parrot 2"' in found["samples"]["iberian_turns_es"][0]["arguments"][0][0]


def test_without_a_chat_template_it_is_refused_before_anything_is_asked() -> None:
    task = build("iberian_turns_eu")
    assert task.config.metadata["documents"] == "own conversations, 30 of 3 turns"
    for template in (None, str):
        with pytest.raises(DocumentsError, match=r"iberian_turns_eu: a conversation .*Give --apply_chat_template"):
            task.build_all_requests(chat_template=template, apply_chat_template=template is not None)


def test_a_sweep_asks_each_model_anew() -> None:
    """Its tasks keep their requests from point to point; these hold the answers of one model."""
    kept = LoadedOnce(ours(), Evaluation(tasks=("iberian_turns_gl",), settings={}))
    (task,) = kept.tasks.values()
    for name in ("one", "two"):
        model = Parrot(name)
        task.build_all_requests(limit=1, apply_chat_template=True, chat_template=model.apply_chat_template)
        assert [len(call) for call in model.calls] == [1, 1]
        assert f"{name} 1" in task.instances[0].args[0]


def test_a_sweeps_plan_asks_nobody() -> None:
    evaluation = Evaluation(tasks=("iberian_turns_gl",), settings={"limit": 4})
    plan: Any = SimpleNamespace(tasks=KeptTasks())
    assert load_of(plan, evaluation) == Load(documents=4, requests=12, tokens=0)


def test_the_group_is_beside_the_suite() -> None:
    found = set(leaves("iberian_turns"))
    assert found == {f"iberian_turns_{language}" for language in LANGUAGES}
    assert not found & set(leaves("iberian_suite"))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["hf", "merged"])
def test_tiny_models_run_through(model: str, llama: dict[str, Path]) -> None:
    arguments = f"pretrained={llama['instruct']}" + (
        ",backend=hf,dtype=float32" if model == "merged" else ",device=cpu"
    )
    found = evaluate(model, ["iberian_turns"], model_args=arguments, limit=2, gen_kwargs="max_gen_toks=8")
    assert set(found["results"]) >= {f"iberian_turns_{language}" for language in LANGUAGES}
    assert 0.0 <= found["results"]["iberian_turns_eu"]["turn3_inst_level_strict_acc,none"] <= 1.0
