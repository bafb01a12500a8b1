"""Files of older lm_eval releases, and of its models of servers: what they leave out, or say wrongly, gives no wrong row.

Each file here has the shape of one that lm_eval 0.3 to 0.4.13 wrote of a tiny model.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian.identity.answered import answered
from lm_eval_iberian.identity.identity import of_results, told
from lm_eval_iberian.scores.every_eval_ever import record
from lm_eval_iberian.scores.formats import write
from lm_eval_iberian.scores.results import Run, check_run
from lm_eval_iberian.scores.suite import ModelScores, Score, gather
from lm_eval_iberian.scores.tables import report
from tests.lm_eval_iberian.results_maker import results

BELEBELE, STORIES = "belebele_eus_Latn", "xstorycloze_eu"


def read(*files: dict[str, Any]) -> list[ModelScores]:
    return gather(check_run(data, f"{number}.json") for number, data in enumerate(files))


def of(model: ModelScores, title: str) -> Score:
    return next(score for one, score in model.benchmarks.items() if one.title == title)


def stderr(value: float, documents: int) -> float:
    """As lm_eval computes it: the sample SD of zeros and ones, by the square root of how many."""
    return math.sqrt(value * (1 - value) / (documents - 1))


def of_version(version: str | None, scores: dict[str, dict[str, float | str]], **more: Any) -> dict[str, Any]:
    return results(scores, 40, **({} if version is None else {"lm_eval_version": version}), **more)


# --- `lm_eval --samples '{"belebele_eus_Latn": [0, 3, 5, 7, 9], "xstorycloze_eu": [1, 2, 4]}'`

NAMED = {BELEBELE: {"acc": 0.4, "acc_stderr": stderr(0.4, 5)}, STORIES: {"acc": 1.0, "acc_stderr": 0.0}}
WHOLE = {BELEBELE: {"acc": 0.3, "acc_stderr": stderr(0.3, 40)}, STORIES: {"acc": 0.5, "acc_stderr": stderr(0.5, 40)}}


@pytest.mark.parametrize("version", ["0.4.9", "0.4.9.2", "0.4.10", "0.4.11"])
def test_documents_that_were_counted_and_not_answered_are_marked(version: str) -> None:
    """5 of 40 documents were printed as the whole benchmark, best of the table."""
    (model,) = read(of_version(version, NAMED))
    assert of(model, "Belebele (eu)").problems == ("limited: 5 of 40 documents",)
    assert "maybe limited" in of(model, "XStoryCloze (eu)").problems[0]  # nothing says how many
    assert model.runs[0].documents(BELEBELE) == 5 and model.runs[0].documents(STORIES) == 0


def test_some_of_the_documents_are_not_averaged_with_all_of_them() -> None:
    models = read(of_version("0.4.9.1", WHOLE), of_version("0.4.9.1", NAMED))
    assert [of(model, "Belebele (eu)").value for model in models] == [pytest.approx(30.0), pytest.approx(40.0)]
    assert [of(model, "XStoryCloze (eu)").value for model in models] == [50.0, 100.0]
    assert "5 documents" in models[1].label


@pytest.mark.parametrize(
    ("version", "scores", "count"),
    [
        ("0.4.9", {"acc": 0.3, "acc_stderr": stderr(0.3, 40)}, 40),
        ("0.4.9", {"acc": 0.3, "acc_stderr": 1.01 * stderr(0.3, 40)}, 40),  # rounded
        ("0.4.9", {"acc": 0.3, "acc_stderr": 0.001}, 40),  # values between 0 and 1 differ less
        ("0.4.9", {"acc": 1.0, "acc_stderr": 0.0}, 40),
        ("0.4.9", {"acc": 0.3, "acc_stderr": "N/A"}, 40),
        ("0.4.9", {"bleu": 30.0, "bleu_stderr": 9.0}, 40),
        ("0.4.9", {"acc": 0.3, "acc_stderr": stderr(0.3, 20)}, 20),
        ("0.4.9", {"acc": 1.0, "acc_stderr": 0.0, "acc_norm": 0.5, "acc_norm_stderr": 0.5}, 2),
        ("0.4.8", {"acc": 0.4, "acc_stderr": stderr(0.4, 5)}, 40),  # it has no --samples
        ("0.4.12", {"acc": 0.4, "acc_stderr": stderr(0.4, 5)}, 40),  # it counts what was answered
        (None, {"acc": 0.4, "acc_stderr": stderr(0.4, 5)}, 40),
    ],
)
def test_what_a_standard_error_says_of_how_many_documents(
    version: str | None, scores: dict[str, float | str], count: int
) -> None:
    assert answered(of_version(version, {BELEBELE: scores})) == {BELEBELE: count}


# --- chat templates that a server applies: `--model local-chat-completions --apply_chat_template`


def of_server(
    source: str, template: str | None, multiturn: bool | None, version: str | None = "0.4.13"
) -> dict[str, Any]:
    """lm_eval writes "" for a template that it does not see, and no hash of it."""
    data = of_version(
        version, WHOLE, model_source=source, model_name="served", chat_template=template, fewshot_as_multiturn=multiturn
    )
    data["config"] |= {"model": source, "model_args": {"model": "served", "base_url": "http://127.0.0.1:1/v1"}}
    return data


@pytest.mark.parametrize(
    ("source", "template", "multiturn", "version", "word"),
    [
        ("local-chat-completions", "", True, "0.4.13", "multiturn"),
        ("local-chat-completions", "", False, "0.4.9", "chat"),
        ("local-chat-completions", "", False, None, "chat"),
        ("openai-chat-completions", None, False, None, "chat"),  # 0.4.3 and older: the shots are one message
        ("a-server", "", False, "0.4.9", "chat"),
        ("a-server", "", True, None, "multiturn"),
        ("dummy", "", False, None, "?"),  # 0.4.4 and 0.4.5 write "" where no template was asked for
        ("local-completions", None, False, "0.4.9", "plain"),
        ("local-completions", None, None, "0.4.13", "plain"),
    ],
)
def test_a_template_that_a_server_applies_is_one(
    source: str, template: str | None, multiturn: bool | None, version: str | None, word: str
) -> None:
    """Models of chats were printed as prompted without a chat template."""
    (model,) = read(of_server(source, template, multiturn, version))
    assert model.runs[0].prompt.word == word


def test_turns_and_one_message_of_a_server_are_not_averaged() -> None:
    """Both have no hash of a template, and were "mean of 2 runs"."""
    models = read(*(of_server("local-chat-completions", "", multiturn, "0.4.9") for multiturn in (True, False)))
    assert [model.label for model in models] == ["served (shots as turns)", "served (shots in one turn)"]
    plain, chat = (of_results(of_server("a-server", template, False, "0.4.9")) for template in (None, ""))
    assert chat.differences(plain) == ["chat template"]
    named = of_results({**of_server("a-server", "{{ text }}", False, "0.4.9"), "chat_template_sha": "ab" * 32})
    assert (chat.differences(named), named.differences(chat)) == (
        ["the server's chat template"],
        ["another chat template than the server's"],
    )


def test_results_in_memory_say_a_servers_template_too() -> None:
    """`simple_evaluate` returns no "chat_template"; what the plugin tells of it holds."""
    data = of_server("a-server", None, None)
    for key in ("chat_template", "chat_template_sha", "fewshot_as_multiturn"):
        data.pop(key)
    assert check_run(data, "memory").prompt.word == "?"
    for template, word in (("", "multiturn"), (None, "plain"), ("{{ text }}", "multiturn")):
        assert check_run({**data, "measured": told(template, True, None, {})}, "memory").prompt.word == word


def test_turns_without_a_template_are_the_same_prompt() -> None:
    """`simple_evaluate` of 0.4.13 writes that shots are turns, whatever the template; such rows were marked §."""
    turns = of_version("0.4.13", WHOLE, fewshot_as_multiturn=True)
    other = of_version("0.4.13", WHOLE, fewshot_as_multiturn=False)
    other["config"] |= {"model_args": {"pretrained": "org/other"}}
    assert "§" not in write(report(read(turns, other)))


# --- whose scores they are


def named(name: str = "org/model", **arguments: Any) -> dict[str, Any]:
    data = of_version("0.4.13", WHOLE, model_name=name)
    return {**data, "config": {**data["config"], "model_args": arguments}}


def test_an_adapters_scores_are_not_its_bases() -> None:
    files = [named("org/a", pretrained="org/base", peft="org/a"), named(pretrained="org/base"),
             named("org/d", pretrained="org/base", delta="org/d"), named(pretrained="org/base", lora_local_path="/loras/l")]  # fmt: skip
    assert [model.label for model in read(*files)] == ["org/a", "org/base", "org/d", "/loras/l"]
    assert record(read(files[0])[0])["model_info"]["id"] == "org/a"


def test_two_servers_are_two_models() -> None:
    """Where no argument names the model, lm_eval 0.4.13 draws a name, and it draws the same one for both."""
    files = [named("wxrd1574", base_url=f"http://{place}", max_length=64) for place in ("one", "two", "one")]
    files[2]["date"], files[2]["model_name"] = 1.0, "i82qcls7"
    models = read(*files)
    assert [len(model.runs) for model in models] == [2, 1]
    assert [model.label for model in models] == ["hf (other weights (http://one))", "hf (other weights (http://two))"]


def test_how_a_served_model_is_called_is_no_setting() -> None:
    first, second = (of_results(named(name, model=name, tokenizer="t")) for name in ("org/a", "org/b"))
    assert first.differences(second) == ["other weights (org/a)"]


def test_revisions_are_told_apart_to_the_end() -> None:
    files = [named(pretrained="org/model", revision=revision) for revision in ("step10000", "step100000")]
    assert [model.label for model in read(*files)] == [
        "org/model (other weights (step10000))", "org/model (other weights (step100000))"
    ]  # fmt: skip
    commits = [
        of_results({**file, "config": {**file["config"], "model_sha": sha * 20}})
        for file, sha in zip(files, ("ab", "cd"), strict=True)
    ]
    assert "other weights (abababab)" in commits[0].differences(commits[1])


def test_an_object_in_memory_has_its_classs_name() -> None:
    data = of_version("0.4.9", WHOLE)
    data = {key: value for key, value in data.items() if key not in ("model_name", "model_source")}
    assert Run("the results", {**data, "config": {"model": "DummyLM", "model_args": None}}).label == "DummyLM"


# --- what is in no table


def test_every_score_of_a_task_that_no_table_counts_is_named() -> None:
    """Scores under filters were left out without a word; 999 was printed as one."""
    data = of_version("0.4.9", {**WHOLE, "gsm8k": {}, "predicted": {"bypass": 999, "bypass_stderr": "N/A"}})
    data["results"]["gsm8k"] |= {
        "exact_match,strict-match": 0.25, "exact_match_stderr,strict-match": 0.1, "exact_match,flexible-extract": 0.5,
        "exact_match_stderr,flexible-extract": 0.1,
    }  # fmt: skip
    (model,) = read(data)
    assert "in no table: gsm8k: exact_match,strict-match 0.25, exact_match,flexible-extract 0.5" in model.notes
    assert not any("predicted" in note or "999" in note for note in model.notes)
    entries = record(model)["evaluation_results"]
    assert sorted(entry["evaluation_name"] for entry in entries) == [BELEBELE, "gsm8k", "gsm8k", STORIES]


# --- what files do not say


def of_0_3(shots: int) -> dict[str, Any]:
    return {
        "results": {task: {"acc": 0.325, "acc_stderr": 0.075, "acc_norm": 0.25, "acc_norm_stderr": 0.07}
                    for task in (BELEBELE, "other_task")},
        "versions": {BELEBELE: 0, "other_task": 0},
        "config": {"model": "hf-causal", "model_args": "pretrained=org/model", "num_fewshot": shots, "limit": None},
    }  # fmt: skip


def test_shots_of_lm_eval_0_3(tmp_path: Path) -> None:
    """It says them once, for all tasks: five and none were averaged."""
    models = read(of_0_3(0), of_0_3(5))
    assert [model.label for model in models] == ["org/model (0 shots)", "org/model (5 shots)"]
    assert "Belebele (eu): 0-shot, the paper ran 5-shot" in models[0].notes
    assert not any("the paper ran" in note for note in models[1].notes)
    assert "in no table: other_task: acc 0.325, acc_norm 0.25" in models[0].notes
    (tmp_path / "results.json").write_text(json.dumps(of_0_3(5)))
    assert "32.50" in write(report(read(of_0_3(5))))


def test_files_that_do_not_say_their_version_are_not_averaged_without_a_word() -> None:
    """lm_eval says it since 0.4.9."""
    first, second = of_version(None, WHOLE), of_version(None, {BELEBELE: {"acc": 0.35, "acc_stderr": stderr(0.35, 40)}})
    (model,) = read(first, second)
    assert any("none of its 2 files says which lm_eval wrote it" in note for note in model.notes)
    assert not any("which lm_eval" in note for note in read(first)[0].notes)
    (known,) = read(*({**data, "lm_eval_version": "0.4.13"} for data in (first, second)))
    assert not any("which lm_eval" in note for note in known.notes)


def of_model(name: str, version: str | None = "0.4.13", **more: Any) -> dict[str, Any]:
    data = of_version(version, WHOLE, **more)
    return {**data, "config": {**data["config"], "model_args": {"pretrained": name}}}


def test_rows_that_were_measured_otherwise_are_named() -> None:
    """Best and second were given to rows of two versions of lm_eval, or of a task, without a word."""
    old, new = of_model("org/old", "0.4.8"), of_model("org/new", versions={BELEBELE: 2.0, STORIES: 1.0})
    notes = report(read(of_model("org/a"), old, of_model("org/b"), new)).notes
    assert "Belebele (eu): measured otherwise than org/a: lm_eval 0.4.8" in notes["org/old"]  # 2 of 4 are not most
    assert f"Belebele (eu): measured otherwise than org/a: {BELEBELE}: version 2.0" in notes["org/new"]
    assert not any("XStoryCloze (eu): measured" in note for note in notes["org/new"])
    most = report(read(old, of_model("org/a"), of_model("org/b"), of_model("org/c"), new)).notes
    assert "Belebele (eu): measured otherwise than most rows: lm_eval 0.4.8" in most["org/old"]
    assert not any("otherwise" in note for name in ("org/a", "org/b") for note in notes[name])
    asked, other = (
        {BELEBELE: {"doc_to_text": text}, STORIES: {"doc_to_text": "{{q}}"}} for text in ("{{q}}", "{{q}}?")
    )
    three = report(read(of_model("org/a", configs=asked), of_model("org/c", configs=other))).notes
    assert f"Belebele (eu): measured otherwise than org/a: {BELEBELE}: other configuration" in three["org/c"]
    assert not any("XStoryCloze (eu): measured" in note for note in three["org/c"])
    two = report(read(of_model("org/a"), old)).notes
    assert "Belebele (eu): measured otherwise than org/a: lm_eval 0.4.8" in two["org/old"]


def test_what_a_table_or_a_label_says_already_is_no_note() -> None:
    limited = of_model(
        "org/b",
        **{"n-samples": {BELEBELE: {"original": 40, "effective": 5}, STORIES: {"original": 40, "effective": 5}}},
    )
    chat = of_model("org/c", chat_template_sha="ab")
    again = of_model("org/a", "0.4.9")
    seeded = of_model("org/d")
    seeded["config"] |= {"random_seed": 7, "limit": None}
    said = report(read(of_model("org/a"), limited, chat, again, seeded)).notes
    assert not any("otherwise" in note for notes in said.values() for note in notes)
