"""From documents of both dialects to verdicts, scores and lm_eval's metrics."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ifeval_multi import PackError, check, documents, evaluate_response, load_pack, score
from ifeval_multi import lm_eval_support as support
from ifeval_multi import strip_reasoning as strip

AUTHORS = {
    "key": 7,
    "prompt": "Idatzi bi puntu, komarik gabe.",
    "instruction_id_list": ["detectable_format:number_bullet_lists", "punctuation:no_comma"],
    "kwargs": [{"num_bullets": 2}, {}],
}
LANGUAGE_ONLY = {
    "key": 8,
    "prompt": "Erantzun frantsesez.",
    "instruction_id_list": ["language:response_language"],
    "kwargs": [{"language": "fr"}],
}


def hub(name: str, **given: Any) -> dict[str, Any]:
    padding = {"relation": None, "num_words": None, "keywords": None, "letter": None}
    return {
        "key": 1,
        "prompt": "p",
        "instruction_id_list": [name],
        "kwargs": [{**padding, **given}],
    }


class TestDocuments:
    def test_both_dialects_give_one_form(self) -> None:
        found = documents.from_row(hub("es:length_constraints:number_words", num_words=5, relation="less than"))
        asked = found.instructions[0]
        assert (asked.id, asked.dialect) == ("length_constraints:number_words", "m-ifeval")
        assert asked.arguments == {"num_words": 5, "relation": "at most"}

    def test_case_ids_of_other_languages(self) -> None:
        for name in ("es:change_case:spanish_capital", "ca:change_case:catalan_capital"):
            assert documents.from_row(hub(name)).instructions[0].id == "change_case:english_capital"

    def test_kwargs_as_json(self) -> None:
        row = {**AUTHORS, "kwargs": json.dumps(AUTHORS["kwargs"])}
        assert documents.from_row(row).instructions[0].arguments == {"num_bullets": 2}
        row = {**AUTHORS, "kwargs": [json.dumps(k) for k in AUTHORS["kwargs"]]}
        assert documents.from_row(row).instructions[0].arguments == {"num_bullets": 2}

    def test_zero_counts(self) -> None:
        asked = hub("length_constraints:number_words", num_words=0, relation="at most")
        assert documents.from_row(asked).instructions[0].arguments["num_words"] == 0

    def test_a_string_is_the_list_it_stands_for(self) -> None:
        malformed = '[calabozo", "asesinatos", "muertos", "noche"]'
        assert documents.texts(malformed) == ["calabozo", "asesinatos", "muertos", "noche"]
        assert documents.texts("katu") == ["katu"]

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"prompt": None}, "key `prompt` holds no text"),
            ({"instruction_id_list": ["a:b", "c:d"]}, "'a:b' is no instruction type"),
            ({"kwargs": [{}]}, "no list of 2 objects"),
            ({"kwargs": [{}, {}]}, "lacks num_bullets"),
            ({"kwargs": [{"num_bullets": "two"}, {}]}, "num_bullets is 'two'"),
        ],
    )
    def test_faulty_rows(self, change: dict[str, Any], told: str) -> None:
        with pytest.raises(PackError, match=told):
            documents.from_row({**AUTHORS, **change}, "f.jsonl, line 3")

    def test_read_names_the_line(self, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        file.write_text(json.dumps(AUTHORS) + "\n\n{oops\n", encoding="utf-8")
        with pytest.raises(PackError, match=r"a\.jsonl, line 3: not valid JSON"):
            documents.read(file)


class TestReasoning:
    @pytest.mark.parametrize(
        ("text", "left"),
        [
            ("<think>hm, hm</think>\n\nBai.", "Bai."),
            ("hm</think>Bai.", "Bai."),
            ("Bai.", "Bai."),
            ("<think>cut by the lim", ""),
            ("<think></think>Bai.<think>x</think> Ez.", "Bai. Ez."),
            ("The tag <think> opens it.", "The tag <think> opens it."),
            ("[THINK]hm[/THINK]Bai.", "Bai."),
        ],
    )
    def test_is_removed(self, text: str, left: str) -> None:
        assert strip(text) == left

    def test_own_token(self) -> None:
        assert strip("hm<|end|>Bai.", "<|end|>") == "Bai."
        assert strip("Bai.", "<|end|>") == "Bai."

    def test_corrected_removes_original_does_not(self) -> None:
        answer = "<think>one, two</think>* bat\n* bi"
        assert evaluate_response(AUTHORS, answer, "eu")["strict"] == [True, True]
        assert evaluate_response(AUTHORS, answer, "eu", "original")["strict"] == [False, False]


class TestEditions:
    """The faults that facts name are there in the original edition, and only there."""

    @pytest.mark.parametrize(
        ("language", "name", "arguments", "answer", "corrected", "original"),
        [
            ("eu", "change_case:english_lowercase", {}, load_pack("eu").sample.lower(), True, False),
            ("eu", "detectable_format:multiple_sections", {"section_spliter": "ATALA", "num_sections": 1}, "1. ATALA\nBai.", True, False),
            ("gl", "detectable_format:constrained_response", {}, "A miña resposta é si.", True, False),
            ("gl", "detectable_content:postscript", {"postscript_marker": "P.D."}, "Podo axudar.", False, True),
            ("gl", "keywords:forbidden_words", {"forbidden_words": "estación"}, "Vén a pé e canso.", True, False),
            ("eu", "keywords:forbidden_words", {"forbidden_words": "hezkuntza"}, "Hezkuntza da.", False, True),
            ("eu", "keywords:existence", {"keywords": "katu"}, "Kutxa ta.", False, True),
            ("gl", "keywords:frequency", {"keyword": "o", "frequency": 2, "relation": "less than"}, "O gato come.", True, False),
            ("es", "startend:quotation", {}, "«Hola»", True, False),
            ("eu", "length_constraints:nth_paragraph_first_word", {"first_word": "hau", "num_paragraphs": 1, "nth_paragraph": 1}, "**Hau** da.", True, False),
            ("gl", "length_constraints:nth_paragraph_first_word", {"first_word": "fin de semana", "num_paragraphs": 1, "nth_paragraph": 1}, "Fin de semana.", True, False),
            ("ca", "length_constraints:number_words", {"num_words": 1, "relation": "at most"}, "col·legi", True, False),
            ("en", "startend:end_checker", {"end_phrase": "Bye"}, "Well. **Bye**", True, False),
            ("en", "detectable_format:number_bullet_lists", {"num_bullets": 1}, "* a\n---", True, False),
            ("en", "keywords:existence", {"keywords": ["cat"]}, "category", False, True),
            ("eu", "change_case:english_capital", {}, "KAIXO LAGUNAK ZER MODUZ ZAUDETE GAUR", True, False),
            ("en", "change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "less than"}, "I think I am.", True, False),
            ("eu", "keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "at least"}, "#bat #bi", True, False),
            ("eu", "length_constraints:number_sentences", {"num_sentences": 1, "relation": "exactly"}, "Jn. Agirre etorri da.", True, False),
            ("en", "length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one ***\n\n*** two", True, False),
            ("en", "detectable_content:number_placeholders", {"num_placeholders": 1}, "[](a)", False, True),
            ("en", "detectable_format:number_highlighted_sections", {"num_highlights": 1}, "_a_", True, False),
            ("en", "detectable_format:json_format", {}, "42", False, True),
            ("eu", "detectable_format:title", {}, "《Izenburua》", True, False),
            ("eu", "combination:repeat_prompt", {"prompt_to_repeat": "Idatzi haiku bat."}, "«Idatzi haiku bat.»", True, False),
            ("en", "combination:two_responses", {}, "one\n**********\ntwo", False, True),
            ("en", "punctuation:no_comma", {}, "a、b", False, True),
            ("es", "es:detectable_format:number_bullet_lists", {"num_bullets": 1}, "* a\n- b", False, True),
        ],
    )  # fmt: skip
    def test_difference(
        self, language: str, name: str, arguments: Any, answer: str, corrected: bool, original: bool
    ) -> None:
        pack = load_pack(language)
        assert check(name, answer, arguments, pack).followed == corrected
        assert check(name, answer, arguments, pack, "original").followed == original

    def test_unknown_edition(self) -> None:
        with pytest.raises(PackError, match="'new' is not known"):
            check("punctuation:no_comma", "a", {}, load_pack("eu"), "new")


class TestScore:
    def test_totals_and_what_is_left_out(self) -> None:
        answers = [{"response": "* bat, bi\n* hiru, lau", "finish_reason": "length"}, "Oui."]
        report = score([AUTHORS, LANGUAGE_ONLY], answers, language="eu")
        assert report.totals() == {
            "prompt_strict": 0,
            "prompt_loose": 0,
            "instruction_strict": 0.5,
            "instruction_loose": 0.5,
        }
        assert (len(report.scored), report.excluded, report.truncated) == (1, 1, 1)
        assert "found 2 commas" in [v["reason"] for v in report.verdicts()][1]
        assert "cut by the token limit: 1 of 2" in report.text()

    def test_response_language_can_be_scored(self) -> None:
        answer = "Ce matin, nous sommes allés à la montagne avec nos amis."
        report = score([LANGUAGE_ONLY], [answer], language="eu", include_response_language=True)
        assert report.totals()["prompt_strict"] == 1

    def test_nothing_to_score(self) -> None:
        assert math.isnan(score([], [], language="eu").totals()["prompt_strict"])

    def test_lengths_must_agree(self) -> None:
        with pytest.raises(PackError, match="1 answers for 2 documents"):
            score([AUTHORS, AUTHORS], ["a"], language="eu")

    def test_reason_counts(self) -> None:
        verdict = check(
            "detectable_format:number_bullet_lists",
            "* a\n* b\n* c",
            {"num_bullets": 5},
            load_pack("en"),
        )
        assert verdict.reason == "found 3 bullets, exactly 5 asked"


class TestLmEval:
    def test_metrics_of_one_document(self) -> None:
        found = support.process_document(AUTHORS, "* bat, bi\n* hiru, lau", "eu")
        assert found["prompt_level_strict_acc"] is False
        assert found["inst_level_strict_acc"] == [True, False]
        assert found["original_inst_level_loose_acc"] == [True, False]
        assert found["strict_punctuation_no_comma"] == [False]
        assert set(found) <= set(support.metric_names())

    def test_a_prompt_with_nothing_left_counts_nowhere(self) -> None:
        assert list(support.process_document(LANGUAGE_ONLY, "Oui.", "eu")) == ["unfinished_answers"]

    def test_aggregation(self) -> None:
        lists = support.metric_aggregation("inst_level_strict_acc")
        assert lists([[True], [True, False, False]]) == 0.5
        assert support.metric_aggregation("prompt_level_strict_acc")([True, False]) == 0.5
        assert math.isnan(lists([]))
