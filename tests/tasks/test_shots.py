"""No task shows a document its own answer; few-shot options do what they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian.benchmarks.table import benchmarks
from lm_eval_iberian.documents.loader import DocumentsError
from lm_eval_iberian.folders import tasks_folder
from tests.tasks.common import build, ours, requests

# Some are many of a kind; instructions have no shots; what is in iberian_more has tests of its own.
APART = (
    "iberian_eus_exams", "iberian_flores", "iberian_ifeval", "iberian_ifbench", "iberian_turns",
    *(one.listed for one in benchmarks() if one.in_more and one.tasks),
)  # fmt: skip
LEAVES = [
    *sorted(t for t in ours().all_subtasks if t.startswith("iberian_") and not t.startswith(APART)),
    "iberian_eus_exams_eu_ejteknikari",
    "iberian_eus_exams_es_osakidetza9c",
    "iberian_flores_es-eu",
    "iberian_flores_eu-gl_native",
]
WITH_SHOTS = [name for name in LEAVES if not name.startswith("iberian_blimp")]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples, each row twice: once more with another id, its options in another order where it has any."""
    folder = tmp_path_factory.mktemp("mirror")
    for file in tasks_folder().glob("*/samples/**/*.jsonl"):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        target = folder.joinpath(*file.relative_to(tasks_folder()).parts[2:])
        target.parent.mkdir(parents=True, exist_ok=True)
        doubled = rows + [again(row) for row in rows]
        target.write_text("\n".join(json.dumps(row) for row in doubled) + "\n", encoding="utf-8")
    for config in ("eu_ejteknikari", "es_osakidetza9c"):
        (folder / "HiTZ" / "EusExams" / config).symlink_to(folder / "HiTZ" / "EusExams" / config[:2])
    return folder


def again(row: dict[str, Any]) -> dict[str, Any]:
    """The same document as another row."""
    row = dict(row)
    for key in ("id", "ID", "idx", "link", "story_id", "InputStoryid", "paper_id"):
        if key in row:
            row[key] = row[key] + 1000 if isinstance(row[key], int) else f"{row[key]}-again"
    if isinstance(row.get("candidates"), list) and 0 <= row["answer"] < len(row["candidates"]):
        row["candidates"] = row["candidates"][::-1]
        row["answer"] = len(row["candidates"]) - 1 - row["answer"]
    return row


def shown(task: Any) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Every document with the shots that its prompt was made of."""
    drawn = []
    sample = task.sampler.sample

    def watched(*arguments: Any, **options: Any) -> Any:
        shots = list(sample(*arguments, **options))
        drawn.append((task.sampler.evaluated, shots))
        return shots

    task.sampler.sample = watched
    task.build_all_requests()
    assert len(drawn) == len(task.eval_docs)
    yield from drawn


def question(document: dict[str, Any]) -> str:
    """What is asked, by the columns alone: nothing here knows how our sampler compares."""
    columns = (
        "context", "flores_passage", "question", "question_stem", "sentence", "Sentence", "input_sentence_1",
        "input_sentence_2", "InputSentence1", "InputSentence2", "Frase", "Paráfrase",
        *(key for key in document if key.startswith("sentence_") and key.endswith("_Latn")),
    )  # fmt: skip
    text = " ".join(str(document[column]) for column in columns if column in document)
    assert text
    return text


@pytest.mark.parametrize("name", WITH_SHOTS)
def test_no_document_sees_its_own_answer(name: str, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every row doubled, the double is as good as the row itself: neither may be a shot."""
    monkeypatch.setenv("IBERIAN_DATA", str(mirror))
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    task = build(name)
    task.set_config(key="num_fewshot", value=5)
    for document, shots in shown(task):
        assert len(shots) == 5
        assert question(document) not in [question(shot) for shot in shots]


def test_upstream_would_show_them(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trap is real: lm_eval's own sampler shows some documents their double."""
    monkeypatch.setenv("IBERIAN_DATA", str(mirror))
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    task = build("iberian_eus_trivia")
    own = task.sampler.sampler
    seen = [
        question(document) in [question(shot) for shot in own.sample(5, eval_doc=document)]
        for document in task.eval_docs
    ]
    assert any(seen)


@pytest.mark.parametrize("name", LEAVES)
def test_shots_come_from_a_named_split(name: str) -> None:
    task = build(name)
    assert task.config.fewshot_split in task.dataset
    expected = 0 if name.startswith("iberian_blimp") else None if "xstorycloze" in name else 5
    assert task.config.num_fewshot == expected
    assert task.VERSION == 1.0


def test_too_many_shots_is_one_message() -> None:
    with pytest.raises(DocumentsError, match=r"iberian_eus_trivia: 50 shots asked for.*only 12 documents"):
        requests(build("iberian_eus_trivia"), 50)


@pytest.mark.slow
def test_num_fewshot_overrides_where_there_are_shots() -> None:
    """What `lm_eval --num_fewshot 2` does, through its own evaluator; 0 of the task's own stays 0."""
    from lm_eval import simple_evaluate

    names = ["iberian_xstorycloze_eu", "iberian_belebele_eu", "iberian_blimp_eu"]
    found = simple_evaluate(model="dummy", tasks=names, num_fewshot=2, limit=1, bootstrap_iters=0, task_manager=ours())
    assert found["n-shot"] == {"iberian_xstorycloze_eu": 2, "iberian_belebele_eu": 2, "iberian_blimp_eu": 0}
    found = simple_evaluate(model="dummy", tasks=names, limit=1, bootstrap_iters=0, task_manager=ours())
    assert found["n-shot"] == {"iberian_xstorycloze_eu": 0, "iberian_belebele_eu": 5, "iberian_blimp_eu": 0}


def test_cached_requests_are_of_the_same_documents(
    tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--cache_requests` keys by task, not by documents: samples must not be scored as the benchmark."""
    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(tmp_path))
    assert len(requests(build("iberian_eus_proficiency"), cache_requests=True)) == 12 * 4
    monkeypatch.setenv("IBERIAN_DATA", str(mirror))
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    assert len(requests(build("iberian_eus_proficiency"), cache_requests=True)) == 24 * 4


def test_cached_requests_have_the_same_shots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor by the seed of the shots: the results would name another than was drawn with."""
    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(tmp_path))

    def prompts(seed: int, **options: Any) -> list[str]:
        task = build("iberian_eus_proficiency")
        task.set_fewshot_seed(seed)
        return [str(one[0]) for one in requests(task, **options)]

    assert prompts(1, cache_requests=True) == prompts(1) != prompts(2)
    assert prompts(2, cache_requests=True) == prompts(2)


def test_what_makes_two_documents_one() -> None:
    """The same words in question and options, whatever the options' order; other options are another document."""
    task = build("iberian_eus_trivia")
    one = {"id": 1, "question": "Zein da?", "candidates": ["bat", "bi"], "answer": 0}
    again_ = {"id": 2, "question": "Zein  da?", "candidates": ["BI", "bat"], "answer": 1}
    others = [{**one, "candidates": ["bat", "hiru"]}, {**one, "question": "Nor da?"}]
    assert task.words(one) == task.words(again_)
    assert len({task.words(one), *map(task.words, others)}) == 3
