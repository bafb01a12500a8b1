"""The second paper's tasks: requests against readers by hand of the published formats; draws; what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate

from lm_eval_iberian.documents import draws
from lm_eval_iberian.documents.needs import leaves, needs
from lm_eval_iberian.errors import DocumentsError
from lm_eval_iberian.folders import tasks_folder
from lm_eval_iberian.scores.results import check_run
from lm_eval_iberian.scores.suite import gather
from lm_eval_iberian.sweep.kept_tasks import our_tasks
from lm_eval_iberian.task import OTHERS
from tests.tasks.common import ours, requests

LANGUAGES = ("en", "de", "fr", "ja", "zh")
HEADS = {
    "en": ("Question: ", "Choices:", "Answer:", " "),
    "de": ("Frage: ", "Auswahlmöglichkeiten:", "Antwort:", " "),
    "fr": ("Question : ", "Choix :", "Réponse :", " "),
    "ja": ("質問：", "選択肢：", "回答：", ""),
    "zh": ("问题：", "选项：", "答案：", ""),
}


def load(name: str) -> Any:
    """A task of its own: these tests read other documents under one name."""
    task = our_tasks().load([name])["tasks"][name]
    task.set_fewshot_seed(1234)
    return task


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror, empty, whose numbers of rows are its own."""
    monkeypatch.setenv("IBERIAN_DATA", str(tmp_path))
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    return tmp_path


# mCSQA ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_requests_of_mcsqa_are_those_of_a_reader_by_hand(language: str) -> None:
    """CommonsenseQA's layout, read with json alone: question, five options under their labels, the answer's key."""
    question, choices, answer, space = HEADS[language]
    folder = tasks_folder() / "companion_reasoning" / "samples" / "yusuke1997" / "mCSQA" / language
    expected = []
    for row in lines(folder / "test.jsonl"):
        options = zip(row["choices"]["label"], row["choices"]["text"], strict=True)
        text = f"{question}{row['question']}\n{choices}\n"
        text += "".join(f"{label}. {option}\n" for label, option in options) + answer
        expected += [(text, f"{space}{label}", "ABCDE".index(row["answerKey"])) for label in "ABCDE"]
    assert sorted(requests(load(f"companion_reasoning_{language}"), 0)) == sorted(expected)


def test_shots_of_mcsqa_are_of_the_training_split() -> None:
    task = load("companion_reasoning_de")
    asked = requests(task, 2)
    trained = {
        row["question"] for row in lines(tasks_folder() / "companion_reasoning/samples/yusuke1997/mCSQA/de/train.jsonl")
    }
    for text, *_ in asked:
        shots = [line.removeprefix("Frage: ") for line in text.splitlines() if line.startswith("Frage: ")][:-1]
        assert len(shots) == 2 and set(shots) <= trained
    assert "\nAntwort: " in asked[0][0]


def test_questions_without_an_answer_are_refused(mirror: Path) -> None:
    folder = tasks_folder() / "companion_reasoning/samples/yusuke1997/mCSQA/de"
    rows, trained = lines(folder / "test.jsonl"), lines(folder / "train.jsonl")
    write(mirror / "yusuke1997/mCSQA/de/test.jsonl", [{**row, "answerKey": ""} for row in rows[:3]] + rows[3:])
    write(mirror / "yusuke1997/mCSQA/de/train.jsonl", [{**trained[0], "answerKey": ""}, *trained[1:]])
    with pytest.raises(DocumentsError, match=r"3 of 8 questions have no answerKey .*read a later revision"):
        load("companion_reasoning_de")
    write(mirror / "yusuke1997/mCSQA/de/test.jsonl", rows)
    assert len(load("companion_reasoning_de").fewshot_docs()) == len(trained) - 1


# What is drawn --------------------------------------------------------------------------------------------------------


def test_a_draw_does_not_depend_on_the_order_of_rows_and_hardly_on_their_number() -> None:
    words = [f"document {number}" for number in range(2000)]
    drawn, others = draws.draw(words, 500, 0)
    assert (len(drawn), len(others)) == (500, 50) and not set(drawn) & set(others)
    chosen = [words[place] for place in drawn]
    backwards = words[::-1]
    assert [backwards[place] for place in draws.draw(backwards, 500, 0)[0]] == chosen
    more = [*words, "one more"]
    assert len({more[place] for place in draws.draw(more, 500, 0)[0]} - set(chosen)) <= 1
    assert {words[place] for place in draws.draw(words, 500, 1)[0]} != set(chosen)
    assert draws.draw(words, 100, 0)[0] == drawn[:100]


def test_a_draw_takes_a_double_once() -> None:
    drawn, _ = draws.draw(["a", "b", "a", "b", "c"], 500, 0, others=0)
    assert sorted(drawn) == [0, 1, 4]


def test_what_a_draw_is() -> None:
    """By hand: the smallest SHA-256 of seed, line break and words."""
    import hashlib

    words = list("abcdefgh")
    order = sorted(range(8), key=lambda place: hashlib.sha256(f"7\n{words[place]}".encode()).hexdigest())
    assert draws.draw(words, 3, 7, others=2) == (order[:3], order[3:5])


def test_sentiment_draws_500_of_its_language_and_writes_down_which(mirror: Path) -> None:
    rows = [
        {"text": f"text {number}", "label": ("Positive", "Neutral", "Negative")[number % 3], "source": "s",
         "domain": "d", "language": ("de", "English", "fr")[number % 3]}
        for number in range(3000)
    ]  # fmt: skip
    write(mirror / "clapAI/MultiLingualSentiment/default/test.jsonl", rows)
    task = load("companion_sentiment_en")
    said = task.config.metadata["drawn"]
    assert (len(task.eval_docs), said["seed"], said["of"], len(said["rows"])) == (500, 0, 1000, 500)
    assert [rows[place]["text"] for place in said["rows"]] == [doc["text"] for doc in task.eval_docs]
    assert {doc["answer"] for doc in task.eval_docs} == {1}
    shots = [doc["text"] for doc in task.fewshot_docs()]
    assert len(shots) == 50 and not set(shots) & {doc["text"] for doc in task.eval_docs}
    assert task.config.metadata["differences"] == ["split test has 3,000 rows, not 393,436"]
    with pytest.raises(DocumentsError, match=r"no row of the language ja; its column `language` holds de, english, fr"):
        load("companion_sentiment_ja")


def test_an_unknown_label_is_refused(mirror: Path) -> None:
    rows = [{"text": "t", "label": "mixed", "language": "de"}]
    write(mirror / "clapAI/MultiLingualSentiment/default/test.jsonl", rows)
    with pytest.raises(DocumentsError, match="the label 'mixed' is none of positive, neutral, negative"):
        load("companion_sentiment_de")


def test_needs_leave_out_what_is_no_split() -> None:
    for name in leaves("companion_suite"):
        (need,) = needs([name])
        task = ours().load([name])["tasks"][name]
        assert list(need.splits) == [split for split in task.splits() if split != OTHERS]
        assert (need.path, need.config) == (task.config.dataset_path, task.config.dataset_name or "default")
    assert {(need.path, need.splits) for need in needs(["companion_suite"])} == {
        ("yusuke1997/mCSQA", ("test", "train")), ("esdurmus/wiki_lingua", ("train",)),
        ("clapAI/MultiLingualSentiment", ("test",)),
    }  # fmt: skip


# WikiLingua -----------------------------------------------------------------------------------------------------------

ARTICLE = {
    "section_name": ["A", "B", "C", "D"],
    "document": ["One\ntwo.", "", "Five.", "Seven."],
    "summary": ["One.", "Three.", "Six.", None],
}


@pytest.mark.parametrize("as_list", [False, True])
def test_sections_are_documents(as_list: bool, mirror: Path) -> None:
    """Both ways in which `datasets` may give a list of structs; sections without a text or summary are left out."""
    keys = list(ARTICLE)
    listed = [dict(zip(keys, values, strict=True)) for values in zip(*ARTICLE.values(), strict=True)]
    rows = [{"url": "u0", "article": listed if as_list else ARTICLE}]
    write(mirror / "esdurmus/wiki_lingua/english/train.jsonl", rows)
    task = load("companion_summarization_en")
    found = {task.config.metadata["drawn"]["rows"][n]: doc for n, doc in enumerate(task.eval_docs)}
    assert set(found) == {"0:0", "0:2"}
    assert (found["0:0"]["text"], found["0:2"]["summary"]) == ("One two.", "Six.")
    text, settings, target = requests(task, 0)[list(found).index("0:2")]
    assert text == "Summarize the following text.\n\nText: Five.\n\nSummary:"
    assert (target, settings["do_sample"], settings["until"]) == ("Six.", False, ["\n\nText:"])


def test_another_layout_is_named(mirror: Path) -> None:
    write(mirror / "esdurmus/wiki_lingua/english/train.jsonl", [{"url": "u", "article": {"text": ["x"]}}])
    with pytest.raises(DocumentsError, match=r"row 0: `article` should hold document and summary .* holds \['text'\]"):
        load("companion_summarization_en")


TOKENIZERS = {"en": "rouge_score", "de": "intl", "fr": "intl", "ja": "char", "zh": "char"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_summaries_name_their_tokenizer_and_are_scored_with_it(language: str) -> None:
    from lm_eval_iberian.metrics.rouge import rouge

    task = load(f"companion_summarization_{language}")
    assert f"|tok:{TOKENIZERS[language]}|" in task.config.metadata["signatures"]["rouge2"]
    assert "settings" not in task.config.metadata
    first, second = task.eval_docs[0], task.eval_docs[1]
    answer = first["summary"][:-4] + second["summary"]
    assert task.process_results(first, [answer]) == rouge(first["summary"], answer, TOKENIZERS[language])
    assert set(task.process_results(first, [first["summary"]]).values()) == {1.0}


def test_another_tokenizer_is_a_setting_that_results_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBERIAN_ROUGE_TOKENIZER", "13a")
    task = load("companion_summarization_ja")
    assert task.config.metadata["settings"] == {"IBERIAN_ROUGE_TOKENIZER": "13a"}
    assert "|tok:13a|" in task.config.metadata["signatures"]["rougeL"]
    doc = task.eval_docs[0]
    assert task.process_results(doc, [doc["summary"][:-3]])["rouge1"] < 0.7  # words of a text without spaces


def test_bertscore_is_another_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval_iberian.metrics import bertscore

    monkeypatch.setenv("IBERIAN_BERTSCORE", "org/model")
    monkeypatch.setattr(bertscore.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(bertscore, "bertscore", lambda items, named, language: f"{items} {named} {language}")
    task = load("companion_summarization_zh")
    found = task.process_results(task.eval_docs[0], ["x"])
    assert found["bertscore"] == (task.eval_docs[0]["summary"], "x")
    assert task.aggregation()["bertscore"]([("r", "a")]) == "[('r', 'a')] org/model zh"
    assert task.higher_is_better()["bertscore"]
    assert task.config.metadata["settings"] == {"IBERIAN_BERTSCORE": "org/model"}
    monkeypatch.delenv("IBERIAN_BERTSCORE")
    assert "bertscore" not in load("companion_summarization_zh").aggregation()


# Sentiment ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_labels_are_offered_in_the_prompt_and_read_from_the_answer(language: str) -> None:
    likely, said = load(f"companion_sentiment_{language}"), load(f"companion_sentiment_words_{language}")
    assert likely.eval_docs.to_list() == said.eval_docs.to_list()
    seen = set()
    for (text, _, _), doc in zip(requests(said, 0), said.eval_docs, strict=True):
        assert all(label in text for label in doc["labels"])
        for answer in (doc["word"], f"{doc['word']}.", f"\n{doc['label']}"):
            assert said.process_results(doc, [answer]) == {
                "macro_f1": (doc["answer"],) * 2, "macro_precision": (doc["answer"],) * 2,
                "macro_recall": (doc["answer"],) * 2, "acc": 1.0, "unreadable": 0.0,
            }  # fmt: skip
        other = doc["labels"][(doc["answer"] + 1) % 3]
        assert said.process_results(doc, [other])["acc"] == 0.0
        assert said.process_results(doc, [" ".join(doc["labels"])]) | {"acc": 0.0, "unreadable": 1.0} == (
            said.process_results(doc, ["?"])
        )
        seen.add(doc["answer"])
    assert seen == {0, 1, 2}


def test_the_likeliest_label_counts_the_first_of_equal_ones() -> None:
    task = load("companion_sentiment_fr")
    doc = task.eval_docs[0]
    for values, said in (([-2.0, -1.0, -3.0], 1), ([-2.0, -2.0, -2.0], 0), ([-3.0, -math.inf, -1.0], 2)):
        found = task.process_results(doc, [(value, False) for value in values])
        assert found["macro_f1"] == (doc["answer"], said) and found["acc"] == float(doc["answer"] == said)


# Whole ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_suite_runs_whole_on_samples() -> None:
    found = simple_evaluate(model="dummy", tasks=["companion_suite"], limit=3, bootstrap_iters=0)
    (model,) = gather([check_run(found, "here")])
    assert set(model.averages) == {
        f"{average}_{language}" for average in ("reasoning", "summaries", "labels") for language in LANGUAGES
    }
    assert all(score.value is not None for score in model.averages.values())
    assert not [note for note in model.notes if note.startswith("in no table")]
    assert "macro_recall,none" in found["results"]["companion_sentiment_words_ja"]
