"""Which revision of a data set is read, who says so, and what the results say of it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval.tasks import TaskManager

from lm_eval_iberian.documents import hub, mirrors
from lm_eval_iberian.documents import loader as documents
from lm_eval_iberian.documents.loader import DocumentsError
from lm_eval_iberian.documents.manifests import manifests
from lm_eval_iberian.documents.revisions import COMMIT, Wanted, from_environment, wanted
from lm_eval_iberian.folders import tasks_folder
from lm_eval_iberian.sweep.kept_tasks import our_tasks
from merge_hooks.files import write_whole

TRIVIA = "HiTZ/EusTrivia"
FIRST, SECOND, THIRD = (digit * 40 for digit in "abc")
QUESTION = {"id": 0, "question": "Zein?", "candidates": ["bat", "bi"], "answer": 0}
ROWS = [{**QUESTION, "question": f"Zein {n}?"} for n in range(9)]


@pytest.fixture
def on_the_hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """A Hub that has these rows at each commit, the first of them the newest; FLORES is not there."""
    from datasets import Dataset

    commits = {FIRST: ROWS, SECOND: [{**ROWS[0], "answer": 1}, *ROWS[1:]]}

    def read(path: str, _config: str, _manifest: Any, asked: Wanted) -> tuple[dict[str, Any], str]:
        if path != TRIVIA:
            raise ConnectionError(path)
        commit = asked.revision or FIRST
        return {"test": Dataset.from_list(commits[commit])}, commit

    monkeypatch.setattr(hub, "read", read)
    monkeypatch.delenv("IBERIAN_DATA")
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    return commits


index = functools.cache(our_tasks)


def build(name: str) -> Any:
    """A task."""
    return index().load([name])["tasks"][name]


def said(name: str = "iberian_eus_trivia") -> dict[str, Any]:
    """What a task writes into the results."""
    return dict(build(name).dump_config()["metadata"])


def test_every_manifest_names_a_commit_or_says_that_none_is_known() -> None:
    for file in tasks_folder().glob("*/manifest.yml"):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("  revision: "):
                revision, _, why = line.removeprefix("  revision: ").partition("  # ")
                assert COMMIT.fullmatch(revision) or "no commit" in why, line
    assert sum(bool(Wanted(one.revision).commit) for one in manifests().values()) >= 9


def test_the_first_that_names_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = manifests()["HiTZ/EusReading"]
    assert wanted(manifest.path, manifest) == Wanted(manifest.revision)
    assert wanted(manifest.path, manifest, in_yaml=FIRST) == Wanted(FIRST, "the task's YAML")
    monkeypatch.setenv("IBERIAN_REVISIONS", f"{manifest.path}={SECOND}, HiTZ/EusTrivia={FIRST}")
    assert wanted(manifest.path, manifest, in_yaml=FIRST) == Wanted(SECOND, "IBERIAN_REVISIONS")
    by_metadata = wanted(manifest.path, manifest, {manifest.path: THIRD}, FIRST)
    assert by_metadata == Wanted(THIRD, "dataset_revisions in --metadata")
    assert wanted(manifest.path, manifest, f"{manifest.path}={THIRD}") == by_metadata
    assert wanted("jumelet/multiblimp", None) == Wanted()


def test_a_branch_is_no_commit() -> None:
    assert wanted(TRIVIA, manifests()[TRIVIA]) == Wanted(None), "main is the newest"
    assert Wanted("refs/convert/parquet").commit is Wanted("abc1234").commit is None
    assert Wanted(FIRST).commit == FIRST


def test_pins_of_an_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lm_eval_iberian.documents.revisions.tasks_folder", lambda: tmp_path)
    (tmp_path / "pins.yml").write_text(f"{TRIVIA}: {FIRST}\n")
    assert wanted(TRIVIA, manifests()[TRIVIA]) == Wanted(FIRST)
    (tmp_path / "pins.yml").write_text(f"{TRIVIA}: {SECOND}\n# changed\n")
    assert wanted(TRIVIA, manifests()[TRIVIA]) == Wanted(SECOND)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("HiTZ/EusTrivia=", "does not say which revision"),
        ("EusTrivia=abc", "does not say which revision"),
        ("hitz/eustrivia=abc", "hitz/eustrivia is written HiTZ/EusTrivia"),
        ("nowhere.yml", "not a YAML file of data sets and commits"),
        ("numbers.yml", "a commit of digits only goes in quotes"),
        ("list.yml", "does not say which revision"),
        ("broken.yml", "not a YAML file of data sets and commits"),
    ],
)
def test_what_cannot_be_read(text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numbers.yml").write_text(f"{TRIVIA}: {'1' * 40}\n")
    (tmp_path / "list.yml").write_text("- a\n")
    (tmp_path / "broken.yml").write_text("{")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IBERIAN_REVISIONS", text)
    with pytest.raises(DocumentsError, match=says):
        from_environment()


def test_a_name_that_nothing_reads_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be of a task of the user's own; or a slip."""
    monkeypatch.setenv("IBERIAN_REVISIONS", f"HiTZ/EusTrivial={FIRST}")
    for _ in range(3):
        from_environment()
    assert caplog.messages == ["IBERIAN_REVISIONS names HiTZ/EusTrivial, which no task of the suite reads."]


def test_another_revision_is_read_and_recorded(on_the_hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    newest = said()
    assert newest["documents_revision"] == f"{TRIVIA}@{FIRST}"
    assert newest["documents_notes"] == [f"not pinned: {TRIVIA} read at commit {FIRST}"]
    monkeypatch.setenv("IBERIAN_REVISIONS", f"{TRIVIA}={SECOND}")
    named = said()
    assert named["documents_revision"] == f"{TRIVIA}@{SECOND}"
    assert "documents_notes" not in named
    assert named["documents_hash"] != newest["documents_hash"]
    assert build("iberian_eus_trivia").eval_docs[0]["answer"] == 1


def test_metadata_names_a_revision(on_the_hub: dict[str, Any]) -> None:
    """As `lm_eval --metadata` hands it on, among the model's arguments, one of which is called revision, too."""
    metadata = {"pretrained": "model", "revision": "step1000", "dataset_revisions": {TRIVIA: SECOND}}
    task = our_tasks(metadata).load(["iberian_eus_trivia"])["tasks"]["iberian_eus_trivia"]
    assert task.config.metadata["documents_revision"] == f"{TRIVIA}@{SECOND}"


def test_a_yaml_names_a_revision(on_the_hub: dict[str, Any], tmp_path: Path) -> None:
    config = {
        "task": "trivia_as_it_was", "include": str(tasks_folder() / "eus_trivia/iberian_eus_trivia.yaml"),
        "dataset_kwargs": {"revision": SECOND},
    }  # fmt: skip
    (tmp_path / "as_it_was.yaml").write_text(yaml.safe_dump(config))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    task = manager.load(["trivia_as_it_was"])["tasks"]["trivia_as_it_was"]
    assert task.config.metadata["documents_revision"] == f"{TRIVIA}@{SECOND}"


def write(folder: Path, rows: list[dict[str, Any]], record: dict[str, Any] | None = None) -> None:
    """A mirror with EusTrivia."""
    write_whole(folder / TRIVIA / "default/test.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    if record:
        mirrors.write_record(folder, {f"{TRIVIA}/default": record})


def test_a_mirror_of_another_revision_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBERIAN_DATA", str(tmp_path))
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    write(tmp_path, ROWS)
    assert said()["documents_notes"] == [f"not pinned: {TRIVIA}, of no known revision"]
    monkeypatch.setenv("IBERIAN_REVISIONS", f"{TRIVIA}={FIRST}")
    with pytest.raises(DocumentsError, match=r"holds files of no known revision, and a{40} is asked for \(IBERIAN_REV"):
        said()
    write(tmp_path, ROWS, {"revision": FIRST, "files": {}})
    assert said()["documents_revision"] == f"{TRIVIA}@{FIRST}"
    monkeypatch.setenv("IBERIAN_REVISIONS", f"{TRIVIA}={SECOND}")
    with pytest.raises(DocumentsError, match=r"holds commit a{40}, and b{40} is asked for"):
        said()
    monkeypatch.setenv("IBERIAN_REVISIONS", f"{TRIVIA}=v2")
    write(tmp_path, ROWS, {"revision": FIRST, "asked": "v2", "files": {}})
    assert said()["documents_revision"] == f"{TRIVIA}@{FIRST}", "a tag is recorded as the commit it stood for"


def test_a_mirror_of_another_revision_than_the_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was fetched so, and is read; the score says so."""
    monkeypatch.setenv("IBERIAN_DATA", str(tmp_path))
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    monkeypatch.setattr("lm_eval_iberian.documents.revisions.pins", lambda: {TRIVIA: SECOND})
    write(tmp_path, ROWS, {"revision": FIRST, "files": {}})
    assert said()["documents_notes"] == [f"not as pinned: {TRIVIA} read at commit {FIRST}, not {SECOND}"]


def test_the_hash_is_of_the_documents_and_not_of_their_place(
    on_the_hub: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub, a mirror of JSON, one of parquet: one measurement. One letter, one row, another order: another."""
    from datasets import Dataset

    found = said()["documents_hash"]
    assert len(found) == 16
    monkeypatch.setenv("IBERIAN_DATA", str(tmp_path))
    write(tmp_path, ROWS)
    assert said()["documents_hash"] == found
    (tmp_path / TRIVIA / "default/test.jsonl").unlink()
    Dataset.from_list(ROWS).to_parquet(tmp_path / TRIVIA / "default/test.parquet")
    assert said()["documents_hash"] == found
    (tmp_path / TRIVIA / "default/test.parquet").unlink()
    others = [ROWS[:-1], ROWS[::-1], [{**ROWS[0], "question": "Nor?"}, *ROWS[1:]], [{**one, "id": 7} for one in ROWS]]
    for rows in others:
        write(tmp_path, rows)
        assert said()["documents_hash"] != found


def test_a_row_in_another_split_is_another_data_set() -> None:
    assert documents.hash_of({"train": ROWS, "test": []}) != documents.hash_of({"train": [], "test": ROWS})
    assert documents.hash_of({"train": ROWS, "test": []}) == documents.hash_of({"test": [], "train": ROWS})


@pytest.mark.slow
def test_every_task_says_which_documents_it_read() -> None:
    """Samples, toys, own prompts, FLORES joined: each has its hash, and no two languages the same."""
    names = ["iberian_eus_trivia", "toy_pairs_eu", "toy_pairs_es", "toy_mt_es-eu", "toy_ifeval_eu", "ifeval_eu", "ifeval_gl",
             "iberian_flores_es-eu", "iberian_flores_es-gl", "iberian_belebele_eu", "iberian_belebele_gl"]  # fmt: skip
    hashes = [said(name)["documents_hash"] for name in names]
    assert len(set(hashes)) == len(names)


def test_shots_are_documents_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XStoryCloze takes its shots from another split: a change there is seen."""
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    found = documents.load("proxectonos/xstorycloze_gl", "gl")
    for split, data in found.items():
        write_whole(
            tmp_path / f"proxectonos/xstorycloze_gl/gl/{split}.jsonl",
            "".join(json.dumps(row) + "\n" for row in data.to_list()).encode(),
        )
    monkeypatch.setenv("IBERIAN_DATA", str(tmp_path))
    before = said("iberian_xstorycloze_gl")["documents_hash"]
    file = tmp_path / "proxectonos/xstorycloze_gl/gl/train.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace('"AnswerRightEnding": 1', '"AnswerRightEnding": 2', 1))
    assert said("iberian_xstorycloze_gl")["documents_hash"] != before


def test_flores_of_a_named_revision_is_not_read_from_its_copy(
    on_the_hub: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IBERIAN_DATA", str(tmp_path))
    rows = [{code: f"{code} {n}" for code in ("spa_Latn", "eus_Latn")} for n in range(9)]
    for split in ("dev", "devtest"):
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        write_whole(tmp_path / f"mteb/FloresBitextMining/default/{split}.jsonl", content)
    assert said("iberian_flores_es-eu")["documents"].startswith("mteb/FloresBitextMining")
    monkeypatch.setenv("IBERIAN_REVISIONS", f"openlanguagedata/flores_plus={FIRST}")
    with pytest.raises(DocumentsError, match=r"flores_plus \(spa_Latn\) cannot be had"):
        said("iberian_flores_es-eu")
