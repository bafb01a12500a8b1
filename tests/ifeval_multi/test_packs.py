"""Packs: each that is shipped is ready, and a faulty one is refused with file, line, key and fix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ifeval_multi import PackError, check, languages, load_pack
from ifeval_multi.new_language import problems

GOOD = (Path(__file__).parents[2] / "ifeval_multi/languages/gl.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("language", languages())
def test_pack_is_ready(language: str) -> None:
    assert problems(language) == []


def test_the_languages_asked_for_are_there() -> None:
    assert {"eu", "gl", "ca", "es", "en", "pt", "oc", "ast", "fr"} <= set(languages())


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("own_name: galego", "", ["key `own_name` is missing", "Expected a text"]),
        (
            "number: after",
            "number: behind",
            ["line 21", "`sections.number`", "before, after, either"],
        ),
        ('commas: ",', 'comas: ",', ["key `comas` is not known", "Did you mean `commas`?"]),
        ("bullets: [", "bullets: [3, ", ["line 33", "`bullets`", "list of texts"]),
        ("ordinal_dot: false", "ordinal_dot: maybe", ["`sentences.ordinal_dot`", "true or false"]),
        ("pairs: [['\"', '\"']", "pairs: [['x']", ["`quotation.pairs`", "opening and closing"]),
        ("apostrophe: joins", "apostrofe: joins", ["`words.apostrofe`", "`words.apostrophe`"]),
        ("code: gl", "code: [gl", ["not valid YAML"]),
        ("    1: [un,", "    one: [un,", ["`prompts.numbers`", "Expected numbers"]),
    ],
)
def test_a_faulty_pack_is_refused(tmp_path: Path, old: str, new: str, told: list[str]) -> None:
    assert old in GOOD
    file = tmp_path / "gl.yaml"
    file.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(PackError) as caught:
        load_pack(file)
    assert str(file) in str(caught.value)
    for part in told:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('commas: ",', 'commas: "', "commas: ',' is missing"),
        ('bullets: ["*", "-"', 'bullets: ["* ", "-"', "bullets: '*' is missing"),
        (
            "    no_comma: [",
            "    no_coma: [",
            "prompts.cues: 'no_coma' is no instruction type (did you mean 'no_comma'?)",
        ),
        ("    at most: [", "    at mots: [", "prompts.relations: 'at most' is missing"),
        ("    less than: [", "    less than: [polo menos, ", "'polo menos' stands under at least and under less than"),
        ("    3: [tres,", "    3: [dous, tres,", "prompts.numbers: 'dous' stands under 2 and under 3"),
        ('"A miña resposta é non."', '"A miña resposta é si"', "option_sets, number 1: an option comes twice"),
        ("markers: [P.D., P.P.D., PD, P.S., Nota]", "markers: []", "postscript.markers: empty"),
        ("""pairs: [['"', '"'], """, "pairs: [", 'quotation.pairs: " " is missing'),
    ],
)
def test_check_names_what_would_be_judged_wrongly_without_a_word(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in GOOD
    file = tmp_path / "gl.yaml"
    file.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    assert told in "\n".join(problems(file))


def test_words_of_a_list_may_have_capitals_and_abbreviations_their_dot(tmp_path: Path) -> None:
    """As the template says; they matched nothing, and nobody was told."""
    file = tmp_path / "gl.yaml"
    file.write_text(
        GOOD.replace("[o, a, os,", "[O, A, os,").replace("[sr, sra,", "[Sr., sra,").replace("z: [ces]", "Z: [CES]"),
        encoding="utf-8",
    )
    assert load_pack(file).plurals == load_pack("gl").plurals
    assert load_pack(file).function_words == load_pack("gl").function_words
    assert load_pack(file).abbreviations_before_names == load_pack("gl").abbreviations_before_names


def test_a_language_without_accents_can_be_checked(tmp_path: Path) -> None:
    file = tmp_path / "gl.yaml"
    file.write_text(GOOD.replace('accented: "áéíóúïü"', 'accented: ""'), encoding="utf-8")
    assert problems(file) == []


def test_no_and_on_are_words(tmp_path: Path) -> None:
    file = tmp_path / "gl.yaml"
    file.write_text(GOOD.replace("keywords:\n", "keywords:\n  endings: [on, no, yes]\n"), encoding="utf-8")
    assert load_pack(file).endings == {"on", "no", "yes"}


def test_endings_of_keywords_are_not_those_of_forbidden_words(tmp_path: Path) -> None:
    file = tmp_path / "gl.yaml"
    file.write_text(
        GOOD.replace("keywords:\n", "keywords:\n  endings: [qq]\n  forbidden_endings: [zz]\n"), encoding="utf-8"
    )
    pack = load_pack(file)
    for ending, asked, allowed in (("qq", True, True), ("zz", False, False)):
        assert check("keywords:existence", f"mar{ending}", {"keywords": ["mar"]}, pack).followed is asked
        assert check("keywords:forbidden_words", f"mar{ending}", {"forbidden_words": ["mar"]}, pack).followed is allowed


def test_what_a_pack_does_not_say(tmp_path: Path) -> None:
    """Defaults decide on verdicts as much as what is written."""
    kept = {
        key: value for key, value in yaml.safe_load(GOOD).items() if key not in ("letters", "questions", "exclamations")
    }
    kept["words"] = {"apostrophe": "joins"}
    kept["keywords"] = {"endings": ["ak"]}
    kept["sentences"] = {key: kept["sentences"][key] for key in ("abbreviations", "abbreviations_before_names")}
    file = tmp_path / "short.yaml"
    file.write_text(yaml.safe_dump(kept, allow_unicode=True), encoding="utf-8")
    pack = load_pack(file)
    assert (pack.word_joiners, pack.one_word, pack.ordinal_dot, pack.ordinal_followers) == ("-", (), False, ())
    assert (pack.endings, pack.forbidden_endings, pack.replaced_final) == ({"ak"}, set(), "")
    assert (pack.caseless, pack.accented, pack.letter_variants) == ("ªº", "áéíóú", {})
    assert (pack.question_opening, pack.exclamation_opening) == ("", "")


def test_an_unknown_language_is_told_what_there_is() -> None:
    with pytest.raises(PackError, match=r"no pack for 'xx'.*eu.*iberian ifeval new"):
        load_pack("xx")


def test_import_is_light() -> None:
    heavy = "torch|transformers|vllm|datasets|lm_eval|merge_hooks|lm_eval_iberian|py3langid|nltk|numpy"
    code = (
        "import sys; before = set(sys.modules); import ifeval_multi.cli, ifeval_multi.lm_eval_support; "
        f"print(sorted((set(sys.modules) - before) & set({heavy.split('|')!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
