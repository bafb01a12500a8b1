"""What iberian_more generates: lm_eval's prompts on the same documents; BLEU and chrF its own, ROUGE the library's."""

from __future__ import annotations

import json
from typing import Any

import datasets
import pytest
import sacrebleu

from lm_eval_iberian.benchmarks.table import benchmarks, of_column
from lm_eval_iberian.errors import DocumentsError
from lm_eval_iberian.folders import tasks_folder
from lm_eval_iberian.metrics.rouge import rouge
from tests.tasks.common import build, from_samples, manager, ours, requests

# Ours -> lm_eval's.
PAIRS = {
    "iberian_cabreu_abstractive": "cabreu_abstractive", "iberian_cabreu_extractive": "cabreu_extractive",
    "iberian_cabreu_extreme": "cabreu_extreme", "iberian_summarization_gl": "summarization_gl",
    "iberian_xlsum_es": "xlsum_es", "iberian_cocoteros_es": "cocoteros_es", "iberian_cocoteros_va": "cocoteros_va",
}  # fmt: skip
PHRASES = {f"iberian_phrases_{one}": f"phrases_{one}" for one in ("es-va", "va-es", "ca-va", "va-ca")}


def load(name: str) -> Any:
    return ours().load([name])["tasks"][name]


@pytest.mark.slow
@pytest.mark.parametrize(("mine", "theirs"), (PAIRS | PHRASES).items())
def test_prompts_and_targets_are_lm_evals(mine: str, theirs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same documents, without shots and with two (whole sets: the order in which shots are drawn is lm_eval's)."""
    monkeypatch.setattr(datasets, "load_dataset", from_samples)
    assert theirs in manager().all_subtasks
    for shots in (0, 2):
        asked, expected = requests(build(mine), shots), requests(build(theirs), shots)
        assert [(text, target) for text, _, target in asked] == [(text, target) for text, _, target in expected]


# Headings and columns of lm_eval's tasks, by hand.
BY_HAND = {
    "iberian_summarization_gl": ("proxectonos/summarization_gl/default", "Texto: {text}\nResumo:", "{summary}"),
    "iberian_xlsum_es": ("csebuetnlp/xlsum/spanish", "Texto: {text}\nResumen:", "{summary}"),
    "iberian_cocoteros_es": (
        "gplsi/cocoteros/default",
        "Genera una frase corta con estas palabras: {keywords}. El contexto es: {context} \n\nRespuesta:", "{text}",
    ),
    "iberian_cocoteros_va": (
        "gplsi/cocoteros_va/default",
        "Genera una frase curta amb estes paraules: {keywords}. El context és: {context} \n\nResposta:", "{text}",
    ),
    "iberian_phrases_es-va": (
        "gplsi/ES-VA_translation_test/default", "Oració en espanyol: {es}\nOració en valencià:", "{va}",
    ),
    "iberian_phrases_va-es": (
        "gplsi/ES-VA_translation_test/default", "Oració en valencià: {va}\nOració en espanyol:", "{es}",
    ),
    "iberian_phrases_ca-va": (
        "gplsi/CA-VA_alignment_test/default", "Oració en català: {ca}\nOració en valencià:", "{va}",
    ),
    "iberian_phrases_va-ca": (
        "gplsi/CA-VA_alignment_test/default", "Oració en valencià: {va}\nOració en català:", "{ca}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_requests_are_those_of_a_reader_by_hand(name: str) -> None:
    folder, prompt, target = BY_HAND[name]
    (file,) = tasks_folder().glob(f"*/samples/{folder}/test.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    asked = requests(load(name), 0)
    assert [text for text, *_ in asked] == [prompt.format(**row) for row in rows]
    assert [right for *_, right in asked] == [target.format(**row) for row in rows]
    assert {settings["do_sample"] for _, settings, _ in asked} == {False}


@pytest.mark.parametrize("sort", ["abstractive", "extractive", "extreme"])
def test_cabreus_three_summaries(sort: str) -> None:
    task = load(f"iberian_cabreu_{sort}")
    (file,) = tasks_folder().glob("cabreu/samples/projecte-aina/caBreu/default/test.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    asked = requests(task)
    assert [right for *_, right in asked] == [row["summaries"][sort]["a1"] for row in rows]
    assert all(text.endswith(f"\nText: {row['content']}\nResum:") for (text, *_), row in zip(asked, rows, strict=True))
    made = task.config.process_docs
    doubled = {"content": "Un  dos   tres", "summaries": {one: {"a1": "a  b"} for one in ("abstractive", "extractive",
               "extreme")}}  # fmt: skip
    (doc,) = made(datasets.Dataset.from_list([doubled])).to_list()
    assert (doc["content"], doc["summaries"][sort]["a1"]) == ("Un dos tres", "a b")
    with pytest.raises(DocumentsError, match="`summaries` should hold abstractive, extractive, extreme, each with a1"):
        made(datasets.Dataset.from_list([{"content": "x", "summaries": {"extreme": {"a2": "x"}}}]))


@pytest.mark.parametrize("name", PAIRS)
def test_answers_are_scored_by_sacrebleu_and_rouge_score(name: str) -> None:
    task = load(name)
    pairs, references, answers = [], [], []
    for number, doc in enumerate(task.eval_docs):
        reference = task.doc_to_target(doc)
        answer = f"{reference[:-7]} {task.doc_to_target(task.eval_docs[number - 1])[:9]}"
        found = task.process_results(doc, [answer])
        assert {key: found[key] for key in ("rouge1", "rouge2", "rougeL")} == rouge(reference, answer, "intl")
        pairs.append(found["bleu"])
        references.append(reference)
        answers.append(answer)
        assert task.process_results(doc, [reference])["rougeL"] == 1.0
    assert task.aggregation()["bleu"](pairs) == sacrebleu.corpus_bleu(answers, [references]).score
    assert set(found) == set(task.aggregation())
    said = task.config.metadata["signatures"]
    assert "|tok:intl|" in said["rougeL"] and said["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|")


@pytest.mark.parametrize("name", PHRASES)
def test_phrases_are_scored_by_sacrebleu(name: str) -> None:
    task = load(name)
    references = [task.doc_to_target(doc) for doc in task.eval_docs]
    answers = [f"{reference[:-5]}x." for reference in references]
    items = list(zip(references, answers, strict=True))
    assert task.aggregation()["bleu"](items) == sacrebleu.corpus_bleu(answers, [references]).score
    assert task.aggregation()["chrf"](items) == sacrebleu.corpus_chrf(answers, [references]).score
    for text, *_ in requests(task, 5):  # shots come from the scored split
        lines = text.splitlines()
        assert lines.count(lines[-2]) == 1
        assert text.count("Oració en valencià:") == 6


def test_another_tokenizer_is_a_setting_that_results_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBERIAN_ROUGE_TOKENIZER", "char")
    task = load("iberian_xlsum_es")
    assert task.config.metadata["settings"] == {"IBERIAN_ROUGE_TOKENIZER": "char"}
    doc = task.eval_docs[0]
    assert task.process_results(doc, [doc["summary"][::-1]])["rouge1"] == pytest.approx(1.0)


def test_their_averages_are_their_own() -> None:
    assert {f"benchsummaries_{language}" for language in ("ca", "gl", "es")} == {
        one.column for one in benchmarks() if one.counted_in == "benchsummaries"
    }
    (cabreu,) = of_column("benchsummaries_ca")
    assert len(cabreu.tasks) == 3
    assert {one.language for one in benchmarks() if one.name == "Cocoteros"} == {"es", "ca"}
    assert [one.name for one in of_column("phrases_ca")] == ["Phrases es-va", "Phrases ca-va", "Phrases va-ca"]
    assert [one.title for one in of_column("phrases_es")] == ["Phrases va-es (es)"]
    assert not [one.name for one in of_column("summaries_es") + of_column("summaries_ca")]
