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
from ifeval_multi.evaluate import is_unfinished, variants

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
        assert asked.arguments == {"num_words": 5, "relation": "less than"}

    @pytest.mark.parametrize("prefix", ["en", "fr", "gl", "eu", "pt", "oc", "de", "ast", "it", "ja"])
    def test_any_other_prefix_is_googles(self, prefix: str) -> None:
        asked = documents.from_row(hub(f"{prefix}:keywords:existence", keywords=["a"])).instructions[0]
        assert (asked.id, asked.dialect) == ("keywords:existence", "google")

    @pytest.mark.parametrize(
        ("prefix", "relation", "corrected", "original"),
        [
            ("", "less than", False, False), ("en:", "less than", False, False), ("gl:", "less than", False, False),
            ("eu:", "less than", False, False), ("fr:", "less than", False, False), ("pt:", "less than", False, False),
            ("es:", "less than", False, True), ("ca:", "less than", False, True), ("es:", " Less than", False, True),
            ("es:", "menos de", False, False), ("gl:", "menos de", False, False), ("es:", "como máximo", True, True),
            ("ca:", "at most", True, True),
        ],
    )  # fmt: skip
    def test_less_than_is_strict_but_where_published_code_is_not(
        self, prefix: str, relation: str, corrected: bool, original: bool
    ) -> None:
        """lm_eval's es and ca code tests <= for "less than", and nothing else does."""
        for name, number, answer in (
            ("length_constraints:number_words", "num_words", "um dois três"),
            ("keywords:letter_frequency", "let_frequency", "xxx"),
            ("change_case:capital_word_frequency", "capital_frequency", "SIM NAO SIM"),
        ):
            kind = {"length": "relation", "keywor": "let_relation", "change": "capital_relation"}[name[:6]]
            asked = {number: 3, kind: relation, **({"letter": "x"} if name.startswith("keywords") else {})}
            for edition, followed in (("corrected", corrected), ("original", original)):
                assert check(prefix + name, answer, asked, load_pack("pt"), edition).followed is followed, (
                    name,
                    edition,
                )

    def test_a_prefix_without_published_checks_takes_googles_with_its_own_pack(self) -> None:
        """Not M-IFEval's Spanish options, nor its bullets, which are only asterisks."""
        pack = load_pack("gl")
        for prefix, followed in (("gl:", True), ("", True), ("es:", False)):
            found = check(f"{prefix}detectable_format:constrained_response", "A resposta é si", {}, pack, "original")
            assert found.followed is followed, prefix
            found = check(
                f"{prefix}detectable_format:number_bullet_lists", "* a\n- b", {"num_bullets": 2}, pack, "original"
            )
            assert found.followed is followed, prefix

    def test_answers_are_matched_by_prompt_before_key(self, tmp_path: Path) -> None:
        """Published answers carry other prompts under the same keys."""
        file = tmp_path / "answers.jsonl"
        rows = [{"key": 8, "prompt": AUTHORS["prompt"], "response": "a"}, {"key": 7, "prompt": LANGUAGE_ONLY["prompt"], "response": "b"}]  # fmt: skip
        file.write_text("\n".join(map(json.dumps, rows)))
        asked = [documents.from_row(row) for row in (AUTHORS, LANGUAGE_ONLY)]
        assert [row["response"] for row in documents.match_responses(asked, file)] == ["a", "b"]

    @pytest.mark.parametrize(
        ("relation", "followed"),
        [
            ("less than", (True, False, False)), ("at most", (True, True, False)), ("exactly", (False, True, False)),
            ("at least", (False, True, True)), ("more than", (False, False, True)), ("al menos", (False, True, True)),
            ("como máximo", (True, True, False)), ("como mucho", (True, True, False)), ("menos de", (True, False, False)),
        ],
    )  # fmt: skip
    def test_relations_and_their_ends(self, relation: str, followed: tuple[bool, bool, bool]) -> None:
        """One word fewer than asked, as many, one more."""
        asked = {"num_words": 3, "relation": relation}
        texts = ("bat bi", "bat bi hiru", "bat bi hiru lau")
        assert tuple(check("length_constraints:number_words", text, asked, load_pack("eu")).followed for text in texts) == followed  # fmt: skip

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
            ({"kwargs": [{}]}, "no list of 2 objects"),
            ({"kwargs": [{}, {}]}, "lacks num_bullets"),
            ({"kwargs": [{"num_bullets": "two"}, {}]}, "num_bullets is 'two'"),
        ],
    )
    def test_faulty_rows(self, change: dict[str, Any], told: str) -> None:
        with pytest.raises(PackError, match=told):
            documents.from_row({**AUTHORS, **change}, "f.jsonl, line 3")

    @pytest.mark.parametrize(
        ("name", "given"),
        [
            ("keywords:existence", {"keywords": []}), ("keywords:existence", {"keywords": ["mar", " "]}),
            ("keywords:forbidden_words", {"forbidden_words": []}), ("keywords:forbidden_words", {"forbidden_words": ""}),
            ("startend:end_checker", {"end_phrase": ""}), ("combination:repeat_prompt", {"prompt_to_repeat": " "}),
            ("keywords:letter_frequency", {"letter": "", "let_frequency": 3, "let_relation": "less than"}),
        ],
    )  # fmt: skip
    def test_what_every_answer_follows_is_no_argument(self, name: str, given: dict[str, Any]) -> None:
        """Each of these was followed by any answer, and nobody was told."""
        row = {"key": 1, "prompt": "p", "instruction_id_list": [name], "kwargs": [given]}
        with pytest.raises(PackError, match=r"none of them empty|Expected a text"):
            documents.from_row(row, "f.jsonl, line 3")

    def test_read_names_the_line(self, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        file.write_text(json.dumps(AUTHORS) + "\n\n{oops\n", encoding="utf-8")
        with pytest.raises(PackError, match=r"a\.jsonl, line 3: not valid JSON"):
            documents.read(file)


@pytest.mark.parametrize(
    ("answer", "followed"),
    [("la mer est grande et les bateaux vont très loin.", True), ("o mar é grande e os barcos van moi lonxe da terra.", False)],
)  # fmt: skip
def test_small_letters_are_asked_in_the_language_that_a_sibling_names(answer: str, followed: bool) -> None:
    """A right answer in French was refused as not being in Galician, the prompt's own language."""
    ids = ["language:response_language", "change_case:english_lowercase"]
    row = {"key": 1, "prompt": "Escribe en francés e en minúsculas.", "instruction_id_list": ids}
    assert evaluate_response({**row, "kwargs": [{"language": "fr"}, {}]}, answer, "gl")["strict"] == [followed]


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
            ("<think>hm <think>hm</think> hm</think>Bai.", "Bai."),
            ("<think></think>\n\nhm, hm</think>\n\nBai.", "Bai."),
            ("<think>he wrote <think> here</think>Bai.", "Bai."),
            ("</think>" * 20_000 + "Bai.", "Bai."),
        ],
    )
    def test_is_removed(self, text: str, left: str) -> None:
        assert strip(text) == left

    def test_own_token(self) -> None:
        assert strip("hm<|end|>Bai.", "<|end|>") == "Bai."
        assert strip("Bai.", "<|end|>") == "Bai."
        assert strip("hm<|end|>hm<|end|>Bai.", "<|end|>") == "Bai.", "the last one ends it"

    def test_what_was_cut(self) -> None:
        assert is_unfinished("<think>hm") and is_unfinished(" [THINK]hm</think>")
        assert not is_unfinished("<think>hm</think>") and not is_unfinished("<think>hm<|end|>", "<|end|>")
        assert not is_unfinished("Bai <think>")

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

    @pytest.mark.parametrize(
        ("code", "capitals"), [("eu", True), ("gl", True), ("ca", True), ("es", True), ("en", False)]
    )
    def test_the_published_test_of_small_letters(
        self, code: str, capitals: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In the authors' languages it asks for capitals, whatever the language is taken for."""
        for name in ("fasttext_label", "langdetect_label"):
            monkeypatch.setattr(f"ifeval_multi.original.google.{name}", lambda text: code)
        found = [
            check("change_case:english_lowercase", text, {}, load_pack(code), "original").followed
            for text in ("KAIXO", "kaixo")
        ]
        assert found == [capitals, not capitals]

    def test_unknown_edition(self) -> None:
        with pytest.raises(PackError, match="'new' is not known"):
            check("punctuation:no_comma", "a", {}, load_pack("eu"), "new")


class TestBounds:
    """Where a check's bound lies, one case on each side."""

    @pytest.mark.parametrize(
        ("language", "name", "arguments", "good", "bad"),
        [
            ("eu", "keywords:existence", {"keywords": ["katu", "txakur"]}, "Katuak eta txakurra.", "Katuak."),
            ("eu", "keywords:existence", {"keywords": ["katu"]}, "Katuak.", "Katuakabra."),
            ("eu", "keywords:existence", {"keywords": ["neska"]}, "Neskek.", "Neskx."),
            ("eu", "keywords:forbidden_words", {"forbidden_words": ["katu"]}, "Katxua.", "Katuarekin."),
            ("es", "keywords:letter_frequency", {"letter": "o", "let_frequency": 2, "let_relation": "exactly"}, "Camión o ñu", "o ñu"),
            ("en", "detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] [b] [c]", "[a]"),  # at least
            ("en", "startend:end_checker", {"end_phrase": "The end"}, "So. The end", "The end of it."),
            ("en", "combination:two_responses", {}, "one\n******\ntwo", "one\n******\ntwo\n******\nthree"),
            ("en", "length_constraints:nth_paragraph_first_word", {"first_word": "cat", "num_paragraphs": 2, "nth_paragraph": 2},
             "One.\n\nCat.", "One.\n\nCatalogue."),
            ("en", "length_constraints:nth_paragraph_first_word", {"first_word": "one", "num_paragraphs": 2, "nth_paragraph": 1},
             "One.\n\nTwo.", "Two.\n\nOne."),
            ("en", "detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2},
             "Section 1\na\nSection 2\nb", "Section 1\na\nSection 1\nb"),
            ("en", "detectable_format:constrained_response", {}, "My answer is yes.", "My answer is yes. My answer is no."),
            ("es", "special_character:enie", {"let_frequency": 1}, "niño", "niño ñu"),
            ("es", "special_character:tildes", {"num_words": 1, "relation": "exactly"}, "camión pingüino", "camión café"),
            ("en", "length_constraints:number_words", {"num_words": 2, "relation": "exactly"}, "don't go", "do not go"),
            ("ca", "length_constraints:number_words", {"num_words": 2, "relation": "exactly"}, "l'home", "home"),
            ("en", "length_constraints:number_sentences", {"num_sentences": 1, "relation": "exactly"}, "Dr. Who came.", "He came. So."),
            ("en", "length_constraints:number_sentences", {"num_sentences": 2, "relation": "exactly"}, "He saw Rocky III. He ran.", "He ran."),
            ("eu", "length_constraints:number_sentences", {"num_sentences": 1, "relation": "exactly"}, "III. Mendea da.", "Bai da. Mendea da."),
            ("en", "length_constraints:number_sentences", {"num_sentences": 1, "relation": "exactly"}, "Well... maybe it is.", "Well... Maybe."),
            ("en", "length_constraints:number_sentences", {"num_sentences": 1, "relation": "exactly"}, "# A title!\nOne.", "A title!\nOne."),
            ("en", "change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": "at least"}, "AM", "I"),
        ],
    )  # fmt: skip
    def test_one_on_each_side(self, language: str, name: str, arguments: Any, good: str, bad: str) -> None:
        found = [check(name, answer, arguments, load_pack(language)) for answer in (good, bad)]
        assert [verdict.followed for verdict in found] == [True, False], [verdict.reason for verdict in found]

    def test_bold_words_of_a_prompt_divide_no_answers(self) -> None:
        """Five to eight asterisks do: some prompts show so many."""
        for prompt, answer, followed in (
            ("Write **two**, ******", "**a** b\n******\nc", True),
            ("Write two, *****", "a\n*****\nc", True),
            ("Write two, ******", "a\n*****\nc", False),
        ):
            verdict = check("combination:two_responses", answer, {}, load_pack("en"), prompt=prompt)
            assert verdict.followed is followed, prompt

    def test_the_original_counts_bold_once(self) -> None:
        for count, followed in ((1, True), (2, False)):
            arguments = {"num_highlights": count}
            verdict = check(
                "detectable_format:number_highlighted_sections", "**a**", arguments, load_pack("en"), "original"
            )
            assert verdict.followed is followed

    def test_english_is_right_where_it_is_asked_for(self) -> None:
        text = "this morning we went to the mountain with our friends and the weather was fine"
        pack = load_pack("eu")
        for prompt, followed in (("Erantzun ingelesez, letra xehez.", True), ("Erantzun letra xehez.", False)):
            assert check("change_case:english_lowercase", text, {}, pack, prompt=prompt).followed is followed


class TestLoose:
    """Loose is no strict reading: eight texts are judged, and one that follows is enough (Zhou et al. 2023, section 2.2)."""

    def test_the_eight_texts(self) -> None:
        found = variants("*a*\n  b\nc ")
        plain = ["*a*\n  b\nc ", "b\nc", "*a*\n  b", "b"]
        assert list(found) == [*plain, "a\n  b\nc ", "a\n  b"], "each once, stripped where a line was removed"
        assert variants("a") == {"a": "as it is", "": "without its first line"}
        assert list(found.values()) == [
            "as it is", "without its first line", "without its last line", "without its first and last line",
            "without asterisks", "without its last line and asterisks",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            ("Hona, hemen:\nBai.", "found 1 commas, none allowed; loose: followed without its first line"),
            ("Bai.\nAgur, lagun.", "found 1 commas, none allowed; loose: followed without its last line"),
            ("Ez, ez.\nBai.\nBa, ba.", "found 2 commas, none allowed; loose: followed without its first and last line"),
            ("Hona, bai, ez", "found 2 commas, none allowed"),  # an empty text follows nothing
            ("a, b\nc, d\ne, f", "found 3 commas, none allowed"),
            ("Bai.\nEz.", "found 0 commas, none allowed"),
        ],
    )
    def test_a_reason_says_why_only_loose_followed(self, answer: str, said: str) -> None:
        row = {"key": 1, "prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
        assert evaluate_response(row, answer, "eu")["reasons"] == [said]

    @pytest.mark.parametrize(
        ("name", "arguments", "answer", "strict", "loose"),
        [
            ("punctuation:no_comma", {}, "Bai.\nEz.\nAgian.", True, True),
            ("punctuation:no_comma", {}, "Hona, hemen:\nBai.\nEz.", False, True),  # without the first line
            ("punctuation:no_comma", {}, "Bai.\nEz.\nAgur, lagun.", False, True),  # without the last one
            ("punctuation:no_comma", {}, "Hona, hemen:\nBai.\nAgur, lagun.", False, True),  # without both
            ("punctuation:no_comma", {}, "Hona, hemen:\nBai, bai.\nAgur, lagun.", False, False),
            ("keywords:existence", {"keywords": ["katu"]}, "ka*tu", False, True),  # without asterisks
            ("detectable_format:json_format", {}, 'Hona:\n*{"a": 1}*', False, True),  # without them and the first line
            ("keywords:existence", {"keywords": ["katu"]}, "katu", True, True),  # every other text is empty
            ("keywords:existence", {"keywords": ["katu"]}, "katu bat\netxean", True, True),
            ("punctuation:no_comma", {}, " \n\t\n ", False, False),  # nothing follows nothing
        ],
    )
    @pytest.mark.parametrize("edition", ["corrected", "original"])
    def test_one_that_follows_is_enough(
        self, edition: str, name: str, arguments: Any, answer: str, strict: bool, loose: bool
    ) -> None:
        row = {"key": 1, "prompt": "p", "instruction_id_list": [name], "kwargs": [arguments]}
        found = evaluate_response(row, answer, "eu", edition)
        assert (found["strict"], found["loose"]) == ([strict], [loose])
        metrics = support.process_document(row, answer, "eu")
        prefix = "" if edition == "corrected" else "original_"
        assert metrics[f"{prefix}inst_level_strict_acc"] == [strict]
        assert metrics[f"{prefix}inst_level_loose_acc"] == [loose]
        assert metrics[f"{prefix}prompt_level_loose_acc"] is loose
        assert metrics[f"{prefix}{support.type_metric(name, 'loose')}"] == [loose]


# (instructions, answer) and what is followed: strict, loose.
THREE = [
    (["punctuation:no_comma"], "Bai.", [True], [True]),
    (["punctuation:no_comma", "detectable_format:json_format", "startend:quotation"], "Hona, hemen:\n[1]\n", [False] * 3, [True, True, False]),
    (["punctuation:no_comma", "detectable_format:json_format"], "Bai.", [True, False], [True, False]),
]  # fmt: skip


class TestScore:
    def test_totals_are_over_prompts_or_over_instructions(self) -> None:
        """3 prompts, 6 instructions: strict 1 and 2 of them followed, loose 1 and 4."""
        documents_ = [{"key": n, "prompt": "p", "instruction_id_list": [*names, "language:response_language"],
                       "kwargs": [*[{}] * len(names), {"language": "eu"}]} for n, (names, *_) in enumerate(THREE)]  # fmt: skip
        report = score([*documents_, LANGUAGE_ONLY], [*(answer for _, answer, *_ in THREE), "Oui."], language="eu")
        assert [row["strict"] for row in report.scored] == [strict for *_, strict, _ in THREE]
        assert [row["loose"] for row in report.scored] == [loose for *_, loose in THREE]
        assert report.totals() == {
            "prompt_strict": pytest.approx(1 / 3),
            "prompt_loose": pytest.approx(1 / 3),
            "instruction_strict": pytest.approx(2 / 6),
            "instruction_loose": pytest.approx(4 / 6),
        }
        assert report.excluded == 4
        counts = {name: (one.asked, one.strict, one.loose) for name, one in report.by_type().items()}
        assert counts == {
            "punctuation:no_comma": (3, 2, 3), "detectable_format:json_format": (2, 0, 1), "startend:quotation": (1, 0, 0)
        }  # fmt: skip

    def test_a_prompt_is_followed_loosely_where_all_of_it_is(self) -> None:
        row = {**AUTHORS, "instruction_id_list": ["punctuation:no_comma"] * 2, "kwargs": [{}, {}]}
        totals = score([row], ["Hona, hemen:\nBai."], language="eu").totals()
        assert (totals["prompt_strict"], totals["prompt_loose"]) == (0, 1)

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
        assert (
            report.text().splitlines()[-1].startswith("strict: the answer as it is; loose: or without its first line")
        )

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

    def test_the_plain_names_are_of_the_corrected_edition(self) -> None:
        """The published code finds "katu" in "Kutxa ta."."""
        row = {"key": 1, "prompt": "p", "instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": "katu"}]}
        found = support.process_document(row, "Kutxa ta.", "eu")
        assert (found["inst_level_strict_acc"], found["original_inst_level_strict_acc"]) == ([False], [True])

    def test_a_prompt_with_nothing_left_counts_nowhere(self) -> None:
        assert list(support.process_document(LANGUAGE_ONLY, "Oui.", "eu")) == ["unfinished_answers"]

    def test_aggregation(self) -> None:
        lists = support.metric_aggregation("inst_level_strict_acc")
        assert lists([[True], [True, False, False]]) == 0.5
        assert support.metric_aggregation("prompt_level_strict_acc")([True, False]) == 0.5
        assert math.isnan(lists([]))
