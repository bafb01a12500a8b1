"""Every part of a results file that a measurement depends on is in its identity; nothing else is. Files alone, no model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from lm_eval_iberian.identity.identity import KEY, Identity, counting, digest, of_results, parse

Data = dict[str, Any]
OURS: Data = {
    "lm_eval_version": "0.4.13", "transformers_version": "5.17.0", "model_source": "merged",
    "config": {
        "model": "merged", "model_args": {"max_length": 100, "seed": 7}, "model_dtype": "float32", "limit": None,
        "random_seed": 1, "numpy_seed": 2, "torch_seed": 3, "fewshot_seed": 1234,
        "iberian": {
            "weights": "w", "signature_digest": "s", "tokenizer_hash": "t", "generation_config": {"top_k": 5},
            "versions": {"mergekit": "0.1.5", "vllm": "0.33"}, "arguments": {"max_length": 100, "add_bos_token": False},
        },
    },
    "configs": {"task": {
        "task": "task", "doc_to_text": "{{q}}", "num_fewshot": 5, "generation_kwargs": {"max_gen_toks": 9, "seed": 4},
        "metadata": {"version": 1.0, "max_length": 100, "documents": "Hub"},
    }},
    "versions": {"task": 1.0}, "n-shot": {"task": 5}, "n-samples": {"task": {"effective": 20}}, "results": {"task": {}},
    KEY: {
        "chat": {"template": "c", "multiturn": True, "system": "p"},
        "tasks": {"task": {"code": "k", "documents": "d"}},
    },
}  # fmt: skip
THEIRS: Data = {
    **{key: value for key, value in OURS.items() if key != KEY}, "model_source": "hf", "model_name": "org/model",
    "config": {
        **{key: value for key, value in OURS["config"].items() if key != "iberian"}, "model": "hf", "model_sha": "a",
        "model_args": {"pretrained": "org/model", "revision": "v1", "peft": "org/adapter", "max_length": 100},
    },
    "chat_template_sha": "c", "fewshot_as_multiturn": True, "system_instruction_sha": "p", "task_hashes": {"task": "h"},
}  # fmt: skip


def changed(data: Data, path: str, value: Any) -> Identity:
    """The identity of a copy in which one thing is another."""
    data = copy.deepcopy(data)
    *way, last = path.split("/")
    inside = data
    for key in way:
        inside = inside[key]
    inside[last] = value
    return of_results(data)


ANSWERS, REQUESTS, SAMPLING = "answers and row", "tasks and prompts", "sampling"
MATTERS = [
    (OURS, "config/iberian/weights", "x", ANSWERS),
    (OURS, "config/iberian/tokenizer_hash", "x", ANSWERS),
    (OURS, "config/iberian/generation_config", {"top_k": 6}, ANSWERS),
    (OURS, "config/iberian/versions/vllm", "0.34", ANSWERS),
    (OURS, "config/iberian/arguments/max_length", 101, ANSWERS),
    (OURS, "config/iberian/arguments/add_bos_token", True, ANSWERS),
    (OURS, "config/iberian/arguments/scoring", "full", ANSWERS),
    (OURS, "config/iberian/arguments/new_in_vllm", 0, ANSWERS),
    (OURS, "config/model_dtype", "bfloat16", ANSWERS),
    (OURS, "lm_eval_version", "0.5", ANSWERS),
    (OURS, "transformers_version", "6", ANSWERS),
    (OURS, "config/model_args/seed", 8, SAMPLING),
    (OURS, "config/random_seed", 8, SAMPLING),
    (OURS, "config/torch_seed", 8, SAMPLING),
    (OURS, "configs/task/generation_kwargs/seed", 5, SAMPLING),
    (OURS, f"{KEY}/chat/template", "x", "row"),
    (OURS, f"{KEY}/chat/multiturn", False, "row"),
    (OURS, f"{KEY}/chat/system", None, "row"),
    (OURS, f"{KEY}/tasks/task/code", "x", REQUESTS),
    (OURS, f"{KEY}/tasks/task/documents", "x", REQUESTS),
    (OURS, "config/fewshot_seed", 1, REQUESTS),
    (OURS, "n-shot/task", 4, REQUESTS),
    (OURS, "versions/task", 2.0, REQUESTS),
    (OURS, "configs/task/doc_to_text", "{{q}}?", REQUESTS),
    (OURS, "configs/task/generation_kwargs/max_gen_toks", 10, REQUESTS),
    (OURS, "configs/task/metadata/of_its_own", 1, REQUESTS),
    (THEIRS, "config/model_args/pretrained", "org/other", ANSWERS),
    (THEIRS, "config/model_args/revision", "v2", ANSWERS),
    (THEIRS, "config/model_args/peft", "org/other", ANSWERS),
    (THEIRS, "config/model_sha", "b", ANSWERS),
    (THEIRS, "config/model_args/max_length", 101, ANSWERS),
    (THEIRS, "model_source", "vllm", ANSWERS),
    (THEIRS, "chat_template_sha", "x", "row"),
    (THEIRS, "fewshot_as_multiturn", False, "row"),
    (THEIRS, "system_instruction_sha", "x", "row"),
    (THEIRS, "task_hashes/task", "x", REQUESTS),
    (THEIRS, "n-samples/task/effective", 19, REQUESTS),
]  # fmt: skip
HARMLESS = [
    (OURS, "config/iberian/signature_digest", "x"),  # it names the dtype and the template, too; `weights` does not
    (OURS, "config/iberian/arguments/batch_size", 8),
    (OURS, "config/iberian/arguments/scoring", "prefix"),
    (OURS, "config/iberian/arguments/seed", 8),
    (OURS, "config/iberian/arguments/add_bos_token", "false"),  # as the command line writes it
    (OURS, "configs/task/num_fewshot", 0),  # the YAML's: `n-shot` is what was given
    (OURS, "configs/task/metadata/max_length", 200),  # lm_eval puts the model's arguments there
    (OURS, "configs/task/metadata/documents", "a mirror"),
    (OURS, "n-samples/task/effective", 19),  # of named documents
    (OURS, "chat_template_sha", "x"),  # what was told is there
    (THEIRS, "config/model_args/batch_size", 8),
    (THEIRS, "config/model_dtype", "torch.float32"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "path", "value", "where"), MATTERS, ids=[row[1] for row in MATTERS])
def test_what_matters_is_seen(data: Data, path: str, value: Any, where: str) -> None:
    before, after = of_results(data), changed(data, path, value)
    assert before.digest != after.digest
    assert (before.answers != after.answers) == (where in (ANSWERS, SAMPLING))
    assert (before.row != after.row) == (where in (ANSWERS, "row"))
    assert before.agrees(after) == (where == SAMPLING), "seeds of sampling are runs of one row"
    assert after.differences(before)


@pytest.mark.parametrize(("data", "path", "value"), HARMLESS, ids=[row[1] for row in HARMLESS])
def test_what_does_not_matter_is_not(data: Data, path: str, value: Any) -> None:
    assert changed(data, path, value) == of_results(data)


def without(data: Data, *keys: str) -> Data:
    return {key: value for key, value in copy.deepcopy(data).items() if key not in keys}


def test_a_file_without_configurations_still_says_how_it_was_measured() -> None:
    """Five shots and none were averaged into one row, without a word."""
    for lost in (("configs",), ("configs", "n-samples")):
        data = without(THEIRS, *lost)
        other = copy.deepcopy(data)
        other["n-shot"]["task"] = 0
        assert of_results(other).differences(of_results(data)) == ["0 shots"]
        assert of_results(data).agrees(of_results(copy.deepcopy(data)))
    some = copy.deepcopy(THEIRS) | {"configs": {"another": {}}}
    fewer = copy.deepcopy(some)
    fewer["n-shot"]["task"] = 0
    assert of_results(fewer).differences(of_results(some)) == ["0 shots"]


def test_a_limit_counts_where_a_file_does_not_say_how_many_documents() -> None:
    whole, limited = without(THEIRS, "n-samples"), without(THEIRS, "n-samples")
    whole["config"]["limit"], limited["config"]["limit"] = None, 10
    assert of_results(limited).differences(of_results(whole)) == ["task: limit 10"]
    assert of_results(whole).differences(of_results(limited)) == ["task: limit none"]


def test_how_many_documents_is_compared_where_one_file_does_not_say_which() -> None:
    """A limited run without the plugin and a whole one with it were averaged."""
    told, plain = copy.deepcopy(THEIRS), copy.deepcopy(THEIRS)
    told[KEY] = {"tasks": {"task": {"code": "c", "documents": "d"}}}
    assert of_results(told).agrees(of_results(plain))
    plain["n-samples"]["task"]["effective"] = 5
    assert of_results(plain).differences(of_results(told)) == ["task: 5 documents"]
    assert of_results(told).without("seed").differences(of_results(plain).without("seed")) == ["task: 20 documents"]


def test_samples_that_only_one_of_two_runs_logged_set_nothing_apart() -> None:
    assert of_results(without(THEIRS, "task_hashes")).agrees(of_results(THEIRS))


def without_template(data: Data) -> None:
    data[KEY]["chat"] = {"template": None, "multiturn": True, "system": None}


def without_shots(data: Data) -> None:
    data["n-shot"]["task"] = 0


@pytest.mark.parametrize(
    ("idle", "path", "value"),
    [(without_template, f"{KEY}/chat/multiturn", False), (without_shots, "config/fewshot_seed", 1)],
)
def test_what_has_no_effect_does_not_count(idle: Callable[[Data], None], path: str, value: Any) -> None:
    """Shots are turns only in a chat; a seed draws only where there are shots."""
    data = copy.deepcopy(OURS)
    idle(data)
    assert changed(data, path, value) == of_results(data)


def test_a_digest_is_of_the_content() -> None:
    """SHA-256 of canonical JSON: the order of keys and of sets says nothing; so old keys stay what they are."""
    assert digest({"b": {"y", "x"}, "a": 1}) == digest({"a": 1, "b": ["x", "y"]}) != digest({"a": 1, "b": ["y", "x"]})
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad808"
    assert digest({"ñ": float("inf")}, 6) == digest({"ñ": float("inf")})[:6]


def test_arguments_as_lm_eval_reads_them() -> None:
    text = "max_length=100,add_bos_token=True,temperature=0.5,pretrained=org/model,nothing"
    values = {"max_length": 100, "add_bos_token": True, "temperature": 0.5, "pretrained": "org/model"}
    assert parse(text) == values == parse({key: str(value) for key, value in values.items()})
    counted = counting({"b": False, "a": 0, "none": None, "truncation": False, "device": "cpu", "pretrained": "x"})
    assert list(counted.items()) == [("a", 0), ("b", False)]
    assert counting({"quantization": "fp8"}) == {"quantization": "fp8_per_tensor"}  # vLLM's newer name
