"""The linter finds the rows of the published sets that are known to be wrong, and few others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ifeval_multi import documents, lint
from ifeval_multi.lint_rules import PUBLISHED

DATA = Path("/work/shared/data/ifeval")
if not DATA.is_dir():
    DATA = Path(__file__).resolve().parents[3] / "shared/data/ifeval"
PROMPTS = Path(documents.__file__).parent / "prompts"
# ../shared/facts/ifeval.md, section 3: what a reader found by hand, in the sample rows.
KNOWN = {
    "eu": {1174, 1237, 1242, 1375, 142, 1582, 1629, 30},
    "gl": {1174, 1237, 1242, 1609, 1629, 1670, 2084, 3751},
    "ca": {1174},
    "es": {1174},
}
# What is no fault of the row, only of the published code: case prompts that ask for English,
# letters that are no letters, option strings that it does not look for.
KNOWN_PUBLISHED = {
    "eu": {1019, 1087, 1122, 1129, 1219, 3752, 3755},
    "gl": {1019, 1087, 1122, 1129, 1219, 3752, 3753, 3754, 3756, 3757},
}


def one(tmp_path: Path, prompt: str, name: str, language: str = "en", **kwargs: Any) -> list[str]:
    row = {"key": 1, "prompt": prompt, "instruction_id_list": [name], "kwargs": [kwargs]}
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return [finding.rule for finding in lint(file, language)]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}")
@pytest.mark.parametrize("language", KNOWN)
def test_known_bad_rows_are_found(language: str) -> None:
    findings = lint(DATA / f"{language}.sample.jsonl", language)
    ours = {f.key for f in findings if f.rule != PUBLISHED}
    published = {f.key for f in findings if f.rule == PUBLISHED}
    assert KNOWN[language] <= ours
    assert len(ours - KNOWN[language]) <= 2, ours - KNOWN[language]
    assert KNOWN_PUBLISHED.get(language, set()) <= published


@pytest.mark.parametrize("file", sorted(PROMPTS.glob("*.jsonl")), ids=lambda file: file.stem)
def test_prompts_of_our_own_have_no_findings(file: Path) -> None:
    assert [str(finding) for finding in lint(file, file.stem, complete=True)] == []


@pytest.mark.parametrize(
    ("prompt", "name", "kwargs", "rule"),
    [
        ("Use at least 3 words.", "length_constraints:number_words", {"num_words": 3, "relation": "at least"}, None),
        ("Use more than 30 words.", "length_constraints:number_words", {"num_words": 31, "relation": "at least"}, None),
        ("Use at most four words.", "length_constraints:number_words", {"num_words": 5, "relation": "less than"}, None),
        ("Use at most four words.", "length_constraints:number_words", {"num_words": 4, "relation": "less than"}, "relation"),
        ("Use at least 3 words.", "length_constraints:number_words", {"num_words": 4, "relation": "less than"}, "relation"),
        ("Use at least 3 words.", "length_constraints:number_words", {"num_words": 300, "relation": "at least"}, "number"),
        ("Write a poem.", "punctuation:no_comma", {}, "not-asked"),
        ("Use the word dog.", "keywords:existence", {"keywords": ["cat"]}, "text"),
        ("Use the word dog.", "keywords:existence", {"keywords": "dog"}, "string-for-list"),
        ("Write all in capital letters.", "change_case:english_lowercase", {}, "case"),
        ("Two answers, divided by *****.", "combination:two_responses", {}, "asterisks"),
        ("End with \"Bye!\".", "startend:end_checker", {"end_phrase": "Good bye!"}, "text"),
        ("Answer in JSON, use no commas.", "punctuation:no_comma", {}, "unchecked"),
        ("Use no commas.", "punctuation:nocomma", {}, "form"),
        ("Sing. Then write it. Repeat it.", "combination:repeat_prompt", {"prompt_to_repeat": "Then write it."}, "text"),
    ],
)  # fmt: skip
def test_rules(tmp_path: Path, prompt: str, name: str, kwargs: Any, rule: str | None) -> None:
    assert (rule in one(tmp_path, prompt, name, **kwargs)) if rule else not one(tmp_path, prompt, name, **kwargs)


def test_arguments_that_no_type_takes_and_languages_that_cannot_be_told(tmp_path: Path) -> None:
    """A misspelt optional argument was not used, and any answer refused as not being in "francés"."""
    prompt, name = "Use 3 placeholders: [a].", "detectable_content:number_placeholders"
    assert one(tmp_path, prompt, name, num_placeholders=3, relacion="exactly") == ["form"]
    assert not one(tmp_path, prompt, name, num_placeholders=3, num_words=None, keywords=["padding of the Hub"])
    for code, rules in (("francés", ["language"]), ("zh-cn", []), ("fr", []), ("ast", []), ("xx", ["language"])):
        row = {"key": 1, "prompt": "In that language.", "instruction_id_list": ["language:response_language"]}
        file = tmp_path / "b.jsonl"
        file.write_text(json.dumps({**row, "kwargs": [{"language": code}]}), encoding="utf-8")
        assert [finding.rule for finding in lint(file, "en")] == rules


def test_duplicates_and_coverage(tmp_path: Path) -> None:
    row = {
        "key": 1,
        "prompt": "Use no commas.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    }
    file = tmp_path / "a.jsonl"
    file.write_text((json.dumps(row) + "\n") * 2, encoding="utf-8")
    rules = [finding.rule for finding in lint(file, "en", complete=True)]
    assert rules.count("duplicate") == 4 and rules.count("coverage") == 26


def row(tmp_path: Path, prompt: str, language: str, *instructions: tuple[str, dict[str, Any]]) -> list[str]:
    """The contradictions found in one prompt."""
    ids, kwargs = zip(*instructions, strict=True)
    file = tmp_path / "a.jsonl"
    file.write_text(
        json.dumps({"key": 1, "prompt": prompt, "instruction_id_list": ids, "kwargs": kwargs}) + "\n", encoding="utf-8"
    )
    return [finding.message for finding in lint(file, language) if finding.rule == "contradiction"]


REPEAT = "combination:repeat_prompt"
WORDS, SENTENCES = "length_constraints:number_words", "length_constraints:number_sentences"
CONTRADICTIONS = [
    ("en", (REPEAT, {"prompt_to_repeat": "Sing, then dance."}), ("punctuation:no_comma", {}), "found 1 commas"),
    ("eu", ("startend:end_checker", {"end_phrase": "Ondo izan, lagun"}), ("punctuation:no_comma", {}), "'Ondo izan, lagun' must stand"),
    ("gl", (REPEAT, {"prompt_to_repeat": "Fala do mar e da casa."}), ("keywords:forbidden_words", {"forbidden_words": ["mar"]}), "forbidden, but found: 'mar'"),
    ("eu", (REPEAT, {"prompt_to_repeat": "Idatzi arazoari buruz."}), ("keywords:forbidden_words", {"forbidden_words": ["arazo"]}), "'arazo'"),
    ("ca", ("keywords:existence", {"keywords": ["mar", "port"]}), ("keywords:forbidden_words", {"forbidden_words": ["port"]}), "'port'"),
    ("es", ("keywords:frequency", {"keyword": "sol", "frequency": 3, "relation": "at least"}), ("keywords:forbidden_words", {"forbidden_words": ["sol"]}), "'sol'"),
    ("es", (REPEAT, {"prompt_to_repeat": "Haz un poema al sol y a la luna."}), ("keywords:letter_frequency", {"letter": "o", "let_frequency": 2, "let_relation": "less than"}), "found 2 times 'o'"),
    ("en", (REPEAT, {"prompt_to_repeat": "Is it right? Tell me if it is right."}), ("keywords:frequency", {"keyword": "right", "frequency": 2, "relation": "less than"}), "found 2 times 'right'"),
    ("en", (REPEAT, {"prompt_to_repeat": "Write a poem. Make it long."}), (SENTENCES, {"num_sentences": 2, "relation": "less than"}), "found 2 sentences"),
    ("gl", (REPEAT, {"prompt_to_repeat": "Escribe un conto breve sobre o mar."}), (WORDS, {"num_words": 5, "relation": "at most"}), "found 7 words"),
    ("en", (REPEAT, {"prompt_to_repeat": "Write a poem."}), ("length_constraints:nth_paragraph_first_word", {"first_word": "Sea", "nth_paragraph": 1, "num_paragraphs": 2}), "must begin"),
    ("en", (WORDS, {"num_words": 300, "relation": "at least"}), (WORDS, {"num_words": 200, "relation": "less than"}), "at least 300, the other for at most 199"),
    ("ca", (SENTENCES, {"num_sentences": 5, "relation": "at least"}), (SENTENCES, {"num_sentences": 5, "relation": "less than"}), "at most 4"),
    ("en", ("keywords:frequency", {"keyword": "Sun", "frequency": 4, "relation": "at least"}), ("keywords:frequency", {"keyword": "sun", "frequency": 2, "relation": "at most"}), "at most 2"),
    ("en", ("detectable_format:number_bullet_lists", {"num_bullets": 3}), ("detectable_format:number_bullet_lists", {"num_bullets": 4}), "exactly 3"),
    ("en", (SENTENCES, {"num_sentences": 40, "relation": "at least"}), (WORDS, {"num_words": 30, "relation": "less than"}), "40 of them need more words than 29"),
    ("en", ("change_case:english_lowercase", {}), ("change_case:english_capital", {}), "small letters or in capitals"),
    ("en", ("change_case:english_lowercase", {}), ("change_case:capital_word_frequency", {"capital_frequency": 3, "capital_relation": "at least"}), "no word is in capitals"),
    ("en", ("change_case:english_capital", {}), ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "less than"}), "in capitals more than 1"),
    ("en", ("detectable_format:json_format", {}), ("startend:quotation", {}), "not with a quotation mark"),
    ("en", ("startend:end_checker", {"end_phrase": "Bye!"}), ("detectable_format:json_format", {}), "not in a phrase"),
    ("en", ("startend:end_checker", {"end_phrase": "Bye!"}), ("startend:end_checker", {"end_phrase": "So long."}), "'bye!' or in 'so long.'"),
    ("en", ("language:response_language", {"language": "eu"}), ("language:response_language", {"language": "gl"}), "'eu' or in 'gl'"),
]  # fmt: skip
COMPATIBLE = [
    ("en", (REPEAT, {"prompt_to_repeat": "Sing and dance."}), ("punctuation:no_comma", {})),
    ("eu", (REPEAT, {"prompt_to_repeat": "Eman urrea."}), ("keywords:forbidden_words", {"forbidden_words": ["ur"]})),
    ("es", ("keywords:existence", {"keywords": ["casas"]}), ("keywords:forbidden_words", {"forbidden_words": ["casa"]})),
    ("en", (WORDS, {"num_words": 200, "relation": "at least"}), (WORDS, {"num_words": 300, "relation": "less than"})),
    ("en", (WORDS, {"num_words": 200, "relation": "at least"}), (WORDS, {"num_words": 201, "relation": "less than"})),
    ("en", ("keywords:frequency", {"keyword": "sun", "frequency": 4, "relation": "at least"}), ("keywords:frequency", {"keyword": "moon", "frequency": 2, "relation": "at most"})),
    ("en", ("detectable_format:json_format", {}), ("detectable_format:title", {})),
    ("en", ("detectable_format:json_format", {}), ("punctuation:no_comma", {})),
    ("en", ("detectable_format:json_format", {}), ("change_case:english_lowercase", {})),
    ("en", ("startend:quotation", {}), ("startend:end_checker", {"end_phrase": "Bye!"})),
    ("en", (REPEAT, {"prompt_to_repeat": "Write a poem."}), ("startend:quotation", {})),
    ("en", (REPEAT, {"prompt_to_repeat": "Write A POEM."}), ("change_case:english_lowercase", {})),
    ("en", (REPEAT, {"prompt_to_repeat": "Write a poem."}), ("length_constraints:nth_paragraph_first_word", {"first_word": "Sea", "nth_paragraph": 2, "num_paragraphs": 2})),
    ("en", ("startend:end_checker", {"end_phrase": "Bye!"}), ("startend:end_checker", {"end_phrase": "So bye!"})),
    ("en", ("change_case:english_capital", {}), ("change_case:capital_word_frequency", {"capital_frequency": 5, "capital_relation": "at least"})),
    ("eu", ("language:response_language", {"language": "eu"}), ("change_case:english_capital", {})),
    ("en", ("language:response_language", {"language": "eu"}), ("change_case:english_capital", {})),
]  # fmt: skip


@pytest.mark.parametrize(("language", "one", "other", "why"), CONTRADICTIONS, ids=lambda value: str(value)[:40])
def test_a_contradiction_says_which_two_and_why(tmp_path: Path, language: str, one: Any, other: Any, why: str) -> None:
    for pair in ((one, other), (other, one)):
        (found,) = row(tmp_path, "p", language, *pair)
        assert all(name in found for name, _ in pair)
        assert why in found or pair[0] is other, found


@pytest.mark.parametrize(("language", "one", "other"), COMPATIBLE, ids=lambda value: str(value)[:40])
def test_what_can_both_be_followed(tmp_path: Path, language: str, one: Any, other: Any) -> None:
    for pair in ((one, other), (other, one)):
        assert row(tmp_path, "p", language, *pair) == []


@pytest.mark.skipif(not (DATA / "verdicts/en.jsonl").is_file(), reason=f"no {DATA}")
def test_the_english_set(tmp_path: Path) -> None:
    """Five rows that no answer can follow, and no finding that is wrong (each was read)."""
    lines = (DATA / "verdicts/en.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {(found := json.loads(line))["key"]: found for line in lines}
    file = tmp_path / "en.jsonl"
    file.write_text("\n".join(map(json.dumps, rows.values())), encoding="utf-8")
    findings = [f for f in lint(file, "en") if f.rule != PUBLISHED]
    assert {f.key for f in findings if f.rule == "contradiction"} == {374, 1627, 3369, 3371, 3718}
    others = {f.key for f in findings if f.rule != "contradiction"}
    assert others == {30, 251, 337, 374, 1174, 1332, 2392, 2602, 2807, 3035, 3221}


@pytest.mark.parametrize(
    ("prompt", "name", "kwargs"),
    [
        ("First repeat the request. Then answer.\n\nWrite a song.", "combination:repeat_prompt", {"prompt_to_repeat": "Write a song."}),
        ("Avoid using the letter i more than twice.", "keywords:letter_frequency", {"letter": "i", "let_frequency": 3, "let_relation": "less than"}),
        ("Write a poem of at least 3 words. Mention Sarah only once.", "keywords:existence", {"keywords": ["Sarah"]}),
        ("Separate your thinking and the answer by ***.", "length_constraints:number_paragraphs", {"num_paragraphs": 2}),
        ("A title in double angular brackets.", "detectable_format:title", {}),
        ("Not a single letter is capitalized.", "change_case:english_lowercase", {}),
    ],
)  # fmt: skip
def test_ways_to_say_it_that_are_no_findings(tmp_path: Path, prompt: str, name: str, kwargs: Any) -> None:
    assert [rule for rule in one(tmp_path, prompt, name, **kwargs) if rule != "unchecked"] == []


def test_a_length_that_nothing_checks(tmp_path: Path) -> None:
    assert one(tmp_path, "Use less than 100 words and no commas.", "punctuation:no_comma") == ["unchecked"]
    capitals = {"capital_frequency": 4, "capital_relation": "at least"}
    assert one(tmp_path, "At least 4 words in capital letters.", "change_case:capital_word_frequency", **capitals) == []


@pytest.mark.parametrize(
    ("prompt", "name", "kwargs", "said"),
    [
        ("Use at least 30 words, 2 lines.", WORDS, {"num_words": 20, "relation": "at least"},
         "kwargs say at least 20; the prompt does not name it, it names 2, 30"),
        ("Use some words.", WORDS, {"num_words": 20, "relation": "at least"},
         "kwargs say at least 20; the prompt does not name it, it names no number"),
        ("Use some words.", "number_words", {}, f"the pack 'en' knows no such type (did you mean {WORDS!r}?); no score counts it"),
        ("Use some words.", "length_constraints:number_word", {}, f"the pack 'en' knows no such type (did you mean {WORDS!r}?); no score counts it"),
        ("Use some words.", "sentence:max_words", {"num_words": 8}, "kwargs say num_words 8; the prompt does not name it, it names no number"),
        ("Use some words.", "poetry:rhyme", {}, "the pack 'en' knows no such type; no score counts it"),
    ],
)  # fmt: skip
def test_what_a_finding_says(tmp_path: Path, prompt: str, name: str, kwargs: Any, said: str) -> None:
    row = {"key": 1, "prompt": prompt, "instruction_id_list": [name], "kwargs": [kwargs]}
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert said in [finding.message for finding in lint(file, "en")]
