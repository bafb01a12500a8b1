"""IFEval through lm_eval: where prompts come from, and verdicts that reach the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ifeval_multi.errors import PackError
from ifeval_multi.new_language import TEMPLATES
from ifeval_multi.pack import LANGUAGES_FOLDER
from lm_eval_iberian.documents.loader import DocumentsError
from tests.ifeval_multi.test_own_types import RHYME
from tests.tasks.common import build

TASKS = {
    "eu": "ifeval_eu",
    "gl": "ifeval_gl",
    "ca": "ifeval_ca_multi",
    "es": "ifeval_es_multi",
    "en": "ifeval_en_multi",
    "pt": "ifeval_pt",
}
# One prompt of each kind of trouble: 0 counts, language left out, and a language alone leaves nothing to score.
ROWS = [
    {"key": 1, "prompt": "Gutxienez 3 puntu, komarik gabe.", "instruction_id_list": ["detectable_format:number_bullet_lists",
     "punctuation:no_comma"], "kwargs": [{"num_bullets": 3}, {}]},
    {"key": 2, "prompt": "Erantzun portugesez.", "instruction_id_list": ["language:response_language"],
     "kwargs": [{"language": "pt"}]},
]  # fmt: skip


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "input_data.eu.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    monkeypatch.setenv("IBERIAN_IFEVAL_EU", str(file))
    return file


@pytest.mark.parametrize("language", TASKS)
def test_own_prompts_need_nothing_from_anywhere(language: str) -> None:
    task = build(TASKS[language])
    assert task.config.metadata["documents"].startswith("own prompts, ")
    assert task.get_config("num_fewshot") == 0
    task.build_all_requests()
    assert len(task.instances) == len(task.dataset["test"])
    context, settings = task.instances[0].args
    assert context == task.dataset["test"][0]["prompt"]
    assert settings["do_sample"] is False and settings["max_gen_toks"] == 1280


def test_a_file_of_the_authors_works_as_it_is(prompts: Path) -> None:
    task = build("ifeval_eu")
    assert task.config.metadata["documents"] == f"{prompts}, 2 prompts"


def scores(task: Any, answers: list[str]) -> dict[str, float]:
    """What lm_eval makes of the answers."""
    found: dict[str, list[Any]] = {}
    for doc, answer in zip(task.dataset["test"], answers, strict=True):
        for name, value in task.process_results(doc, [answer]).items():
            found.setdefault(name, []).append(value)
    return {name: task.aggregation()[name](values) for name, values in found.items()}


def test_verdicts_reach_the_results(prompts: Path) -> None:
    task = build("ifeval_eu")
    found = scores(task, ["* bat\n* bi, hiru\n* lau", "Olá"])
    assert found["inst_level_strict_acc"] == 0.5
    assert found["prompt_level_strict_acc"] == 0.0
    assert found["strict_detectable_format_number_bullet_lists"] == 1.0
    assert found["strict_punctuation_no_comma"] == 0.0
    assert "original_inst_level_strict_acc" in found and found["unfinished_answers"] == 0.0


@pytest.mark.slow
def test_a_prompt_with_nothing_left_to_score_is_left_out(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = build("ifeval_eu")
    assert scores(task, ["* bat\n* bi\n* hiru", "Kaixo"])["prompt_level_strict_acc"] == 1.0
    assert task.config.metadata["settings"]["IBERIAN_IFEVAL_RESPONSE_LANGUAGE"] == "0"
    monkeypatch.setenv("IBERIAN_IFEVAL_RESPONSE_LANGUAGE", "1")
    task = build("ifeval_eu")
    assert task.config.metadata["settings"]["IBERIAN_IFEVAL_RESPONSE_LANGUAGE"] == "1", "so identities differ"
    assert (
        scores(task, ["* bat\n* bi\n* hiru", "Kaixo, zer moduz zaude gaur goizean?"])["prompt_level_strict_acc"] == 0.5
    )
    monkeypatch.setenv("IBERIAN_IFEVAL_RESPONSE_LANGUAGE", "yes")
    with pytest.raises(DocumentsError, match="IBERIAN_IFEVAL_RESPONSE_LANGUAGE=yes: write 1"):
        build("ifeval_eu")


def test_what_decides_on_verdicts_is_in_the_results(prompts: Path) -> None:
    """Other prompts, or another version of what tells languages apart, are other measurements."""
    first = build("ifeval_eu").config.metadata
    assert "py3langid " in first["settings"]["packages"] and "nltk " in first["settings"]["packages"]
    prompts.write_text(prompts.read_text(encoding="utf-8").replace("3", "4"), encoding="utf-8")
    assert build("ifeval_eu").config.metadata["documents_hash"] != first["documents_hash"]


def test_more_is_better_but_for_unfinished_answers() -> None:
    better = build("ifeval_eu").higher_is_better()
    assert [name for name, more in better.items() if not more] == ["unfinished_answers"]
    assert better["inst_level_strict_acc"] and better["prompt_level_loose_acc"]


def test_reasoning_is_not_the_answer(prompts: Path) -> None:
    task = build("ifeval_eu")
    found = scores(task, ["<think>bat, bi, hiru</think>\n* bat\n* bi\n* hiru", "<think>hmm"])
    assert found["inst_level_strict_acc"] == 1.0
    assert found["unfinished_answers"] == 0.5


def test_a_mirror_may_hold_prompts(tmp_path: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "mirror" / "ifeval" / "eu" / "default"
    place.mkdir(parents=True)
    (place / "test.jsonl").write_bytes(prompts.read_bytes())
    monkeypatch.delenv("IBERIAN_IFEVAL_EU")
    monkeypatch.setenv("IBERIAN_DATA", str(tmp_path / "mirror"))
    assert build("ifeval_eu").config.metadata["documents"] == f"{place / 'test.jsonl'}, 2 prompts"


def test_a_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBERIAN_IFEVAL_GL", "nowhere.jsonl")
    with pytest.raises(DocumentsError, match=r"IBERIAN_IFEVAL_GL=nowhere\.jsonl: no such file"):
        build("ifeval_gl")


def test_a_row_that_cannot_be_scored_is_named(prompts: Path) -> None:
    prompts.write_text(json.dumps({**ROWS[0], "kwargs": [{}]}), encoding="utf-8")
    with pytest.raises(PackError, match="line 1"):
        build("ifeval_eu")


def test_a_yaml_may_name_pack_and_prompts_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `iberian ifeval new` writes it: a language that we do not know, with a type of its own."""
    from lm_eval.tasks import TaskManager

    pack = tmp_path / "zz.yaml"
    pack.write_text((LANGUAGES_FOLDER / "gl.yaml").read_text(encoding="utf-8").replace("code: gl", "code: zz"))
    pack.with_suffix(".py").write_text(RHYME, encoding="utf-8")
    ids = ["poetry:rhyme", "zz:letters:kanji"]
    row = {"key": 1, "prompt": "Un poema.", "instruction_id_list": ids, "kwargs": [{"ending": "ar"}, {}]}
    (tmp_path / "zz.jsonl").write_text(json.dumps(row), encoding="utf-8")
    task = (TEMPLATES / "task.yaml").read_text(encoding="utf-8").replace("CODE", "zz")
    (tmp_path / "ifeval_zz.yaml").write_text(task, encoding="utf-8")

    def load() -> Any:
        index = TaskManager(include_path=str(tmp_path), include_defaults=False)
        return index.load(["ifeval_zz"])["tasks"]["ifeval_zz"]

    built = load()
    said = built.config.metadata
    assert said["documents"] == f"{tmp_path / 'zz.jsonl'}, 1 prompts"
    assert said["documents_notes"] == ["left out: 1 x zz:letters:kanji, a type that the pack does not know"]
    assert scores(built, ["Vou ver o mar."])["strict_poetry_rhyme"] == 1.0
    assert scores(built, ["O ceo."])["inst_level_strict_acc"] == 0.0
    pack.with_suffix(".py").write_text(RHYME + "# changed\n", encoding="utf-8")
    assert load().config.metadata["settings"]["pack"] != said["settings"]["pack"], "another pack, another measurement"
    finished = pack.read_text(encoding="utf-8")
    pack.write_text(finished.replace("name: Galician", "name: TODO"), encoding="utf-8")
    with pytest.raises(PackError, match="the pack is not finished: 1 line with TODO"):
        load()
    pack.write_text(finished, encoding="utf-8")
    (tmp_path / "zz.jsonl").unlink()
    with pytest.raises(DocumentsError, match=r"ifeval_zz: there is no file .*zz\.jsonl"):
        load()


@pytest.mark.parametrize("language", ["eu", "gl"])
def test_the_authors_rows(language: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = shared / "data" / "ifeval" / f"{language}.sample.jsonl"
    monkeypatch.setenv(f"IBERIAN_IFEVAL_{language.upper()}", str(file))
    task = build(f"ifeval_{language}")
    assert len(task.dataset["test"]) == len(file.read_text(encoding="utf-8").splitlines())
    assert 0.0 <= scores(task, ["Kaixo."] * len(task.dataset["test"]))["inst_level_strict_acc"] < 0.5


def test_the_projects_own_prompts_where_they_are_asked_for(
    tmp_path: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the mirror holds others."""
    place = tmp_path / "mirror" / "ifeval" / "eu" / "default"
    place.mkdir(parents=True)
    (place / "test.jsonl").write_bytes(prompts.read_bytes())
    monkeypatch.setenv("IBERIAN_IFEVAL_EU", "own")
    monkeypatch.setenv("IBERIAN_DATA", str(tmp_path / "mirror"))
    assert build("ifeval_eu").config.metadata["documents"].startswith("own prompts, ")


def test_each_language_is_judged_by_its_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Spanish question begins with ¿; a Basque one does not."""
    row = {"key": 1, "prompt": "?", "instruction_id_list": ["punctuation:question_marks"], "kwargs": [{}]}
    for code, task, followed in (("es", "ifeval_es_multi", 0.0), ("eu", "ifeval_eu", 1.0)):
        file = tmp_path / f"{code}.jsonl"
        file.write_text(json.dumps(row))
        monkeypatch.setenv(f"IBERIAN_IFEVAL_{code.upper()}", str(file))
        assert scores(build(task), ["Zer moduz?"])["inst_level_strict_acc"] == followed


def test_instructions_are_averaged_over_all(prompts: Path) -> None:
    """Not over prompts of two instructions and of one; lm_eval's own mean is for the prompts."""
    rows = [ROWS[0], {**ROWS[0], "key": 3, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}]
    prompts.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    task = build("ifeval_eu")
    found = scores(task, ["* bat, bi", "bai"])
    assert (found["inst_level_strict_acc"], found["prompt_level_strict_acc"]) == (pytest.approx(1 / 3), 0.5)
    assert set(task.aggregation()) == set(task.higher_is_better())
