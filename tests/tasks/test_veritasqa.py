"""VeritasQA: requests against a reader by hand, figures against lm_eval's TruthfulQA and against published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lm_eval.tasks.truthfulqa import utils as truthfulqa

from lm_eval_iberian.errors import DocumentsError
from lm_eval_iberian.folders import tasks_folder
from tests.tasks.common import ours, requests

LANGUAGES = ("gl", "ca", "es", "en")


def load(name: str) -> Any:
    return ours().load([name])["tasks"][name]


def rows(language: str) -> list[dict[str, Any]]:
    file = tasks_folder() / "veritasqa/samples/projecte-aina/veritasQA" / language / "test.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def by_hand(answers: str) -> list[str]:
    """Answers of one text, semicolons between, each with a full stop at its end."""
    return [f"{answer.strip().rstrip('.')}." for answer in answers.split(";")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_requests_are_those_of_a_reader_by_hand(language: str) -> None:
    expected = []
    for row in rows(language):
        correct, incorrect = by_hand(row["correct_answers"]), by_hand(row["incorrect_answers"])
        best = correct.index(by_hand(row["best_answer"])[0])
        expected += [(f"Q: {row['question']}\nA:", f" {answer}", best) for answer in correct + incorrect]
    assert sorted(requests(load(f"iberian_veritasqa_{language}"))) == sorted(expected)
    asked = requests(load(f"iberian_veritasqa_words_{language}"))
    assert [text for text, *_ in asked] == [f"Q: {row['question']}\nA:" for row in rows(language)]
    assert {(tuple(kw["until"]), kw["max_gen_toks"], kw["do_sample"]) for _, kw, _ in asked} == {
        (("Q:", "\n"), 50, False)
    }


def test_the_best_answer_need_not_be_the_first() -> None:
    made = load("iberian_veritasqa_en").config.process_docs
    from datasets import Dataset

    row = {"question": " Why? ", "best_answer": "Two", "correct_answers": "One.; Two ;", "incorrect_answers": "Three"}
    (doc,) = made(Dataset.from_list([row])).to_list()
    assert {key: doc[key] for key in ("question", "answers", "right", "best")} == {
        "question": "Why?", "answers": ["One.", "Two.", "Three."], "right": 2, "best": 1,
    }  # fmt: skip
    for wrong in ({"best_answer": "Four"}, {"incorrect_answers": " ; "}):
        with pytest.raises(DocumentsError, match="VeritasQA: 'Why\\?' should have incorrect answers and its best"):
            made(Dataset.from_list([{**row, "question": "Why?", **wrong}]))


# Log-probabilities and the metrics that the benchmark's authors published for them (github.com/langtech-bsc/veritasQA,
# paper_results/gl, bloom-1b7, questions 1, 2, 5, 6, 7): correct answers, the best one first; incorrect ones; MC1 to 3.
PUBLISHED = [
    ((-54.375, -60.4375, -64.9375), (-60.3125, -20.65625, -73.5625, -6.5390625), 0.0, 1.6832061313362137e-21, 0.0),
    ((-59.53125, -32.34375, -3.26953125, -2.08984375), (-44.21875, -16.546875, -68.8125, -66.375), 0.0,
     0.9999995972914724, 0.5),
    ((-39.40625, -38.71875, -9.15625), (-34.84375, -32.625, -36.125, -16.609375, -21.953125), 0.0, 0.9994179420588668,
     1 / 3),
    ((-38.625, -40.40625, 0.0), (-29.84375, 0.0, -31.0625, -5.21484375), 0.0, 0.4986448621104466, 0.0),
    ((-132.625, -6.3203125, -38.21875), (-31.3125, -64.9375, -42.1875, -39.21875, -2.05859375, -12.265625), 0.0,
     0.01390155265360604, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("correct", "incorrect", "mc1", "mc2", "mc3"), PUBLISHED)
def test_figures_are_the_published_ones(correct: Any, incorrect: Any, mc1: float, mc2: float, mc3: float) -> None:
    task = load("iberian_veritasqa_gl")
    results = [(value, False) for value in (*correct, *incorrect)]
    doc = {"right": len(correct), "best": 0}
    assert task.process_results(doc, results) == pytest.approx({"mc1": mc1, "mc2": mc2, "mc3": mc3})
    # lm_eval's own TruthfulQA, from the same values.
    labels = [1] * len(correct) + [0] * len(incorrect)
    theirs = truthfulqa.process_results_mc2({"mc2_targets": {"labels": labels}}, results)["acc"]
    assert task.process_results(doc, results)["mc2"] == pytest.approx(theirs)


def test_mc1_goes_by_the_best_answer_alone_and_mc3_by_each() -> None:
    task = load("iberian_veritasqa_gl")

    def found(best: int, *values: float) -> tuple[float, float]:
        said = task.process_results({"right": 2, "best": best}, [(value, False) for value in values])
        return said["mc1"], said["mc3"]

    assert found(0, -1.0, -9.0, -5.0, -7.0) == (1.0, 0.5)
    assert found(1, -1.0, -9.0, -5.0, -7.0) == (0.0, 0.5)
    assert found(0, -5.0, -1.0, -5.0, -7.0) == (0.0, 0.5), "as likely is not likelier"


def test_long_answers_have_a_share_too() -> None:
    """Probabilities below the smallest float: lm_eval's TruthfulQA divides nothing by nothing there."""
    task = load("iberian_veritasqa_gl")
    found = task.process_results({"right": 1, "best": 0}, [(-2000.0, False), (-2001.0, False)])
    assert found["mc2"] == pytest.approx(1 / (1 + 2.718281828459045**-1))


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_in_words_are_scored_by_bleu_as_lm_evals_truthfulqa(language: str) -> None:
    task = load(f"iberian_veritasqa_words_{language}")
    for doc in task.eval_docs:
        right = doc["right"]
        for answer in (doc["answers"][0], doc["answers"][-1], " ".join(doc["answers"][right - 1 :])[:40], "?", ""):
            found = task.process_results(doc, [f" {answer}\n"])
            scores = [truthfulqa.bleu([[reference]], [answer]) for reference in doc["answers"]]
            best, worst = max(scores[:right]), max(scores[right:])
            expected = {"bleu_max": best, "bleu_diff": best - worst, "bleu_acc": float(best > worst)}
            assert {key: found[key] for key in expected} == pytest.approx(expected)
            assert set(found) == set(task.aggregation())
    assert task.process_results(doc, [doc["answers"][0]])["rougeL_max"] == pytest.approx(100)
    assert "|tok:intl|" in task.config.metadata["signatures"]["bleu"]


def test_english_answers_are_scored_as_lm_evals_truthfulqa() -> None:
    """Whole; ROUGE-L too, which cuts English words alike. Its intervals are bootstrapped, so one document is enough."""
    task = load("iberian_veritasqa_words_en")
    doc, answer = task.eval_docs[1], "It grows back darker, but as thick as it was"
    theirs = {"correct_answers": doc["answers"][: doc["right"]], "incorrect_answers": doc["answers"][doc["right"] :]}
    found, expected = task.process_results(doc, [answer]), truthfulqa.process_results_gen(theirs, [answer])
    assert found == pytest.approx({key: expected[key] for key in found})


def test_letters_with_accents_are_letters() -> None:
    """rouge_score's own tokenizer would see "ningunha" and "n", "o" in "não"; the languages' is sacreBLEU's."""
    task = load("iberian_veritasqa_words_gl")
    doc = {"answers": ["Á noite.", "O día."], "right": 1, "best": 0}
    assert task.process_results(doc, ["É noite"])["rougeL_max"] == pytest.approx(50)


def test_another_tokenizer_is_a_setting_that_results_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBERIAN_ROUGE_TOKENIZER", "char")
    task = load("iberian_veritasqa_words_ca")
    assert task.config.metadata["settings"] == {"IBERIAN_ROUGE_TOKENIZER": "char"}
    assert "|tok:char|" in task.config.metadata["signatures"]["rougeL"]
    assert "settings" not in load("iberian_veritasqa_ca").config.metadata


def test_other_columns_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "projecte-aina" / "veritasQA" / "es"
    folder.mkdir(parents=True)
    lists = [{**row, "correct_answers": by_hand(row["correct_answers"])} for row in rows("es")]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, lists)), encoding="utf-8")
    monkeypatch.setenv("IBERIAN_DATA", str(tmp_path))
    with pytest.raises(DocumentsError, match="column correct_answers is strings, not string"):
        load("iberian_veritasqa_es")
