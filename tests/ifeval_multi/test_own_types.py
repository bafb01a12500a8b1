"""A language's own instruction types: one file beside its pack, and nothing else is touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ifeval_multi import PackError, check, documents, lint, load_pack, score
from ifeval_multi import lm_eval_support as support
from ifeval_multi.cli import ifeval
from ifeval_multi.pack import LANGUAGES_FOLDER, languages
from tests.ifeval_multi.test_guide import cli

OWN = {code: load_pack(code).own_types for code in languages() if load_pack(code).own_types}
RHYME = '''
from ifeval_multi.instructions import TEXT, InstructionType
from ifeval_multi.own_types import Example, OwnType
from ifeval_multi.verdict import Verdict

def rhyme(response, arguments, pack):
    """Every line ends as asked."""
    wrong = [line for line in response.split("\\n") if not line.rstrip(" .").endswith(arguments["ending"])]
    return Verdict(not wrong, f"does not rhyme: {wrong[:1]}")

ASKED = {"ending": "ar"}
TYPES = [OwnType(InstructionType("poetry:rhyme", {"ending": TEXT}), rhyme,
                 (Example("o mar", True, ASKED), Example("o ceo", False, ASKED)))]
'''


def row(name: str, prompt: str = "p", **kwargs: Any) -> dict[str, Any]:
    return {"key": 1, "prompt": prompt, "instruction_id_list": [name], "kwargs": [kwargs]}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A pack somewhere, with one type of its own beside it."""
    pack = tmp_path / "gl.yaml"
    shutil.copy(LANGUAGES_FOLDER / "gl.yaml", pack)
    pack.with_suffix(".py").write_text(RHYME, encoding="utf-8")
    return pack


@pytest.mark.parametrize(("code", "name"), [(code, name) for code, own in OWN.items() for name in own])
def test_shipped_types_judge_their_examples(code: str, name: str) -> None:
    pack = load_pack(code)
    for example in pack.own_types[name].examples:
        verdict = check(name, example.answer, example.arguments, pack)
        assert verdict.followed == example.followed, (example, verdict.reason)


def test_french_basque_and_catalan_have_their_own() -> None:
    assert {code: len(own) for code, own in OWN.items()} == {"ca": 1, "eu": 1, "fr": 5}


class TestAPackAnywhere:
    def test_checked_scored_linted(self, mine: Path) -> None:
        code, told = cli("check", mine)
        assert code == 0 and told.startswith(f"{mine}: ready, ")
        asked = row("poetry:rhyme", ending="ar")
        report = score([asked, asked], ["Vou ver o mar.\nQuero nadar.", "O ceo."], language=str(mine))
        assert report.by_type()["poetry:rhyme"].strict == 1 and report.by_type()["poetry:rhyme"].asked == 2
        file = mine.parent / "p.jsonl"
        file.write_text(json.dumps(row("poetry:rhyme", "Un poema.", end="ar")), encoding="utf-8")
        assert "poetry:rhyme lacks ending" in lint(file, mine)[0].message

    def test_a_changed_file_is_read_again(self, mine: Path) -> None:
        assert "poetry:rhyme" in load_pack(mine).own_types
        file = mine.with_suffix(".py")
        file.write_text(RHYME.replace("poetry:rhyme", "poetry:rima") + "# longer\n", encoding="utf-8")
        assert list(load_pack(mine).own_types) == ["poetry:rima"]

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("import nowhere_at_all", "gl.py: cannot be run: ModuleNotFoundError"),
            (RHYME.replace("poetry:rhyme", "punctuation:no_comma"), "'punctuation:no_comma' is a type of every language"),
            (RHYME.replace("True, ASKED", "False, ASKED"), "poetry:rhyme lacks examples"),
            ("TYPES = ['poetry:rhyme']", "TYPES holds something that is no OwnType"),
            ("PUBLISHED = {'poetry:rhyme': print}", "PUBLISHED names 'poetry:rhyme'"),
            ("PUBLISHED = 3", "PUBLISHED is no mapping"),
        ],
    )  # fmt: skip
    def test_faults_name_the_file(self, mine: Path, text: str, told: str) -> None:
        mine.with_suffix(".py").write_text(text, encoding="utf-8")
        with pytest.raises(PackError, match=told):
            load_pack(mine)

    def test_an_example_that_is_judged_otherwise_is_told(self, mine: Path) -> None:
        mine.with_suffix(".py").write_text(RHYME.replace("o ceo", "o lugar"), encoding="utf-8")
        code, told = cli("check", mine)
        assert code == 1 and "poetry:rhyme, example 2: should be False, is True" in told


JAPANESE = {
    "key": 7,
    "prompt": "p",
    "instruction_id_list": ["fr:letters:kanji", "fr:punctuation:no_comma", "fr:letters:kanji"],
    "kwargs": [{"kanji_limit": 9}, {}, {}],
}


class TestUnknownTypes:
    """They are left out and counted: M-IFEval's Japanese types are in no pack of ours."""

    def test_the_rest_is_scored_and_the_report_counts_them(self) -> None:
        report = score([JAPANESE], ["Oui."], language="fr")
        assert report.totals()["instruction_strict"] == 1 and report.by_type()["punctuation:no_comma"].asked == 1
        assert report.unknown == {"fr:letters:kanji": 2}
        assert "left out: 2 x fr:letters:kanji, a type that the pack 'fr' does not know" in report.text()

    def test_the_linter_and_check_say_so(self, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        file.write_text(json.dumps({**JAPANESE, "prompt": "Sans virgule."}), encoding="utf-8")
        assert [f.instruction for f in lint(file, "fr")] == ["fr:letters:kanji"] * 2
        with pytest.raises(PackError, match="'letters:kanji' is no instruction type"):
            check("letters:kanji", "a", {}, load_pack("fr"))

    def test_types_of_one_language_are_unknown_in_another(self) -> None:
        assert documents.from_row(row("special_character:no_accents"), pack=load_pack("es")).unknown
        assert not documents.from_row(row("fr:special_character:no_accents")).unknown  # the prefix says which pack

    def test_metrics(self) -> None:
        metrics = support.process_document(JAPANESE, "Oui.", "fr")
        assert metrics["inst_level_strict_acc"] == [True]
        asked = row("fr:special_character:no_accents")
        names = support.metric_names(types=(*support.TYPES, *load_pack("fr").own_types))
        assert set(support.process_document(asked, "Oui.", "fr")) <= set(names)
        assert "strict_special_character_no_accents" not in support.metric_names()


class TestRelations:
    @pytest.mark.parametrize(
        ("code", "said", "means"),
        [
            ("fr", "au moins", "at least"), ("fr", "Moins de", "less than"), ("fr", "au plus", "at most"),
            ("ca", "com a mínim", "at least"), ("pt", "pelo menos", "at least"), ("fr", "at least", "at least"),
            ("gl", "como máximo", "at most"), ("eu", "al menos", "at least"),
        ],
    )  # fmt: skip
    def test_in_the_packs_words(self, code: str, said: str, means: str) -> None:
        asked = row("length_constraints:number_words", num_words=3, relation=said)
        assert documents.from_row(asked, pack=load_pack(code)).instructions[0].arguments["relation"] == means

    def test_a_prefix_of_a_language_without_published_checks_is_strict(self) -> None:
        """Two words are less than three, three are not; M-IFEval's Spanish alone reads it as at most."""
        for prefix, followed in (("fr", False), ("gl", False), ("eu", False), ("pt", False), ("en", False)):
            asked = {"num_words": 3, "relation": "less than"}
            for edition in ("corrected", "original"):
                name = f"{prefix}:length_constraints:number_words"
                assert check(name, "un deux trois", asked, load_pack(prefix), edition).followed == followed

    def test_an_unknown_one_names_file_and_line(self, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        good = row("length_constraints:number_words", num_words=3, relation="at least")
        bad = row("length_constraints:number_words", num_words=3, relation="environ")
        file.write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n", encoding="utf-8")
        with pytest.raises(PackError, match=r"a\.jsonl, line 2, .*'environ' is not a relation.*au moins"):
            documents.read(file, load_pack("fr"))
        code, told = cli("score", "-l", "fr", "--data", file, "--responses", file)
        assert code == 1 and "line 2" in told


class TestFrenchAsPublished:
    """Only ids with `fr:` are M-IFEval's; without a prefix they are Google's."""

    @pytest.mark.parametrize(
        ("name", "answer", "with_prefix", "without"),
        [
            ("detectable_format:title", "##Titre##", True, False),
            ("detectable_format:title", "<<Titre>>", False, True),
            ("startend:quotation", "« Oui »", True, False),
            ("startend:quotation", "'Oui'", True, False),
            ("detectable_format:constrained_response", "Oui.", True, False),
            ("change_case:english_capital", "LE CHAT DORT DANS LE JARDIN DE MA VOISINE.", True, None),
        ],
    )  # fmt: skip
    def test_original(self, name: str, answer: str, with_prefix: bool, without: bool | None) -> None:
        pack = load_pack("fr")
        assert check(f"fr:{name}", answer, {}, pack, "original").followed == with_prefix
        if without is not None:
            assert check(name, answer, {}, pack, "original").followed == without

    @pytest.mark.parametrize(
        ("name", "answer", "kwargs", "original", "corrected"),
        [
            ("detectable_content:informal_address", "Vous avez dit « tu ». Vous partez.", {}, True, False),
            ("special_character:no_accents", "Le garçon dort.", {}, False, True),
            ("special_character:accents", "Autre chose.", {"word_to_accentuate": {"deja": "déjà"}}, True, False),
            ("special_character:ethel_or_cedilla", "Un garc\u0327on", {"forbidden_char": "ç"}, True, False),
            ("detectable_content:no_digits", "9 m", {}, False, False),
            ("detectable_content:no_digits", "neuf m²", {}, True, False),
        ],
    )  # fmt: skip
    def test_own_types(self, name: str, answer: str, kwargs: Any, original: bool, corrected: bool) -> None:
        pack = load_pack("fr")
        verdicts = [check(name, answer, kwargs, pack, edition).followed for edition in ("original", "corrected")]
        assert verdicts == [original, corrected]

    def test_padding_of_the_hub_is_no_word(self) -> None:
        padded = {"word_to_accentuate": {"deja": "déjà", "ecole": None}}
        assert check("special_character:accents", "Tu es déjà là ?", padded, load_pack("fr")).followed


def test_the_commands_are_there() -> None:
    assert set(ifeval.commands) == {"check", "lint", "new", "score"}
