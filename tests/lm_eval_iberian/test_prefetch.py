"""`iberian prefetch` and `iberian doctor`, against the stand-in Hub and on mirrors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from lm_eval_iberian.benchmarks.table import benchmarks
from lm_eval_iberian.commands.main import cli
from lm_eval_iberian.documents import loader as documents
from lm_eval_iberian.documents import mirrors
from lm_eval_iberian.documents.loader import DocumentsError
from lm_eval_iberian.documents.needs import leaves, needs
from lm_eval_iberian.documents.prefetch import Outcome, pin
from lm_eval_iberian.documents.prefetch import prefetch as fetch
from merge_hooks.files import write_whole
from tests.lm_eval_iberian.hub_server import COMMIT, StandInHub
from tests.lm_eval_iberian.test_hub import OTHER_COMMIT, ROOT, as_jsonl, as_parquet, pinned, sample
from tests.tasks.common import build

PINNED_FLORES = pinned("openlanguagedata/flores_plus")
TASKS = "iberian_eus_trivia,iberian_xstorycloze_eu,iberian_cola_es,iberian_flores_es-eu"
# Runs command lines one after the other in one process, and prints what each said.
PROGRAM = """
import json, sys
from click.testing import CliRunner
from merge_hooks.sources import again
from lm_eval_iberian.commands.prefetch import prefetch
from lm_eval_iberian.commands.doctor import doctor
again.FIRST_PAUSE_SECONDS = 0.1
for name, arguments in json.loads(sys.argv[1]):
    done = CliRunner().invoke({"prefetch": prefetch, "doctor": doctor}[name], arguments)
    print(json.dumps({"exit": done.exit_code, "said": done.output, "error": repr(done.exception)}))
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[StandInHub]:
    server = StandInHub(tmp_path / "hub", {"openlanguagedata/flores_plus": "gated", "nbel/EsCoLA": "cut"})
    server.add("HiTZ/EusTrivia", "test.jsonl", as_jsonl(sample("HiTZ/EusTrivia", "default", "test")))
    for split in ("train", "validation"):
        server.add("nbel/EsCoLA", f"{split}.jsonl", as_jsonl(sample("nbel/EsCoLA", "default", split)))
    for split in ("train", "eval"):
        rows = sample("juletxara/xstory_cloze", "eu", split)
        server.add("juletxara/xstory_cloze", f"eu/{split}/0000.parquet", as_parquet(rows), "refs/convert/parquet")
    server.add("openlanguagedata/flores_plus", "README.md", b"gated")
    yield server
    server.close()


def run(hub: StandInHub, tmp_path: Path, *lines: tuple[str, list[str]], **more: str) -> list[dict[str, Any]]:
    """Command lines in a process that knows the stand-in Hub only."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "IBERIAN_"))}
    environment |= {
        "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "3", "IBERIAN_ROWS": "any", "PYTHONPATH": str(ROOT),
    } | more  # fmt: skip
    command = [sys.executable, "-c", PROGRAM, json.dumps(lines)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_fetch_finish_and_run(hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some come, some do not; the same command finishes it; then the tasks run with no network at all."""
    mirror = tmp_path / "mirror"
    (mirror / "HiTZ/EusTrivia/default").mkdir(parents=True)
    (mirror / "HiTZ/EusTrivia/default/.test.parquet.1.part").write_bytes(b"half a file of a run that was killed")
    line = ["--tasks", TASKS, "--to", str(mirror)]
    first, sick = run(hub, tmp_path, ("prefetch", line), ("doctor", ["--tasks", TASKS]))
    assert first["exit"] == 1
    assert "3 fetched, 0 already there, 3 failed" in first["said"], "two languages of FLORES+, and its copy"
    assert re.search("Accept its terms: +https://huggingface.co/datasets/openlanguagedata/flores_plus", first["said"])
    assert "run `hf auth login`" in sick["said"] and "gated" in sick["said"] and sick["exit"] == 1
    record = mirrors.read_record(mirror)
    trivia = record["HiTZ/EusTrivia/default"]
    assert trivia["revision"] == record["juletxara/xstory_cloze/eu"]["revision"] == COMMIT
    assert trivia["files"]["test.parquet"]["rows"] == 12
    assert trivia["columns"]["candidates"] == "strings"

    # Its terms are accepted, one file is damaged: the same command fetches these and nothing else.
    for language in ("spa_Latn", "eus_Latn"):
        for split in ("dev", "devtest"):
            rows = sample("openlanguagedata/flores_plus", language, split)
            hub.add("openlanguagedata/flores_plus", f"{language}/{split}.jsonl", as_jsonl(rows), PINNED_FLORES)
    card = "".join(
        f"- config_name: {code}\n  data_files:\n  - split: dev\n    path: {code}/dev.jsonl\n"
        f"  - split: devtest\n    path: {code}/devtest.jsonl\n"
        for code in ("spa_Latn", "eus_Latn")
    )
    hub.add("openlanguagedata/flores_plus", "README.md", f"---\nconfigs:\n{card}---\n".encode(), PINNED_FLORES)
    hub.trouble.clear()
    (mirror / "juletxara/xstory_cloze/eu/eval.parquet").write_bytes(b"PAR1 damaged")
    before = hub.asked["GET HiTZ/EusTrivia test.jsonl"]
    pins = tmp_path / "pins.yml"
    pins.write_text(f"HiTZ/BertaQA: {OTHER_COMMIT}\n")
    second, well = run(
        hub, tmp_path, ("prefetch", [*line, "--pin", str(pins)]), ("doctor", ["--tasks", TASKS, "--all"]),
        IBERIAN_DATA=str(mirror),
    )  # fmt: skip
    assert (second["exit"], well["exit"]) == (0, 0), (second, well)
    assert "3 fetched, 2 already there, 0 failed" in second["said"]
    assert hub.asked["GET HiTZ/EusTrivia test.jsonl"] == before
    assert "5 of 5 data sets in order" in well["said"]

    monkeypatch.setenv("IBERIAN_DATA", str(mirror))
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    for name in TASKS.split(","):
        from_mirror = [instance.args for instance in built(name)]
        monkeypatch.setenv("IBERIAN_DATA", "samples")
        assert [instance.args for instance in built(name)] == from_mirror
        monkeypatch.setenv("IBERIAN_DATA", str(mirror))
    assert build("iberian_eus_trivia").dump_config()["metadata"]["documents"] == f"{mirror}@{COMMIT}"

    # The commits that were seen are written down, and read again; another is fetched anew, and nothing else is.
    assert f"{pins}: 4 commits. Read them again with IBERIAN_REVISIONS={pins}" in second["said"]
    seen = dict.fromkeys(("HiTZ/EusTrivia", "juletxara/xstory_cloze", "nbel/EsCoLA"), COMMIT)
    assert yaml.safe_load(pins.read_text()) == {
        **seen, "openlanguagedata/flores_plus": PINNED_FLORES, "HiTZ/BertaQA": OTHER_COMMIT,
    }  # fmt: skip
    monkeypatch.setenv("IBERIAN_REVISIONS", str(pins))
    metadata = build("iberian_eus_trivia").dump_config()["metadata"]
    assert metadata["documents_revision"] == f"HiTZ/EusTrivia@{COMMIT}" and "documents_notes" not in metadata
    changed = sample("HiTZ/EusTrivia", "default", "test")[1:]
    hub.add("HiTZ/EusTrivia", "test.jsonl", as_jsonl(changed), OTHER_COMMIT)
    pins.write_text(pins.read_text().replace(f"EusTrivia: '{COMMIT}", f"EusTrivia: '{OTHER_COMMIT}"))
    with pytest.raises(DocumentsError, match=f"holds commit {COMMIT}, and {OTHER_COMMIT} is asked for"):
        build("iberian_eus_trivia")
    hub.add("HiTZ/BertaQA", "README.md", b"of another commit")
    third, lost = run(
        hub,
        tmp_path,
        ("prefetch", line),
        ("doctor", ["--tasks", "iberian_bertaqa_eu_local"]),
        IBERIAN_REVISIONS=str(pins),
    )
    assert "1 fetched, 4 already there, 0 failed" in third["said"]
    assert lost["exit"] == 1 and f"the Hub has no revision {OTHER_COMMIT} of it: name another" in lost["said"]
    again = build("iberian_eus_trivia")
    assert again.config.metadata["documents_revision"] == f"HiTZ/EusTrivia@{OTHER_COMMIT}"
    assert len(again.eval_docs) == 11


def test_a_data_set_at_two_commits_is_not_pinned(tmp_path: Path) -> None:
    """A mirror that was fetched in parts, by hand or by an older version."""
    record = {
        f"HiTZ/BertaQA/{config}": {"revision": commit, "files": {}}
        for config, commit in (("eu", "a" * 40), ("en", "b" * 40))
    }
    mirrors.write_record(tmp_path, record)
    outcomes = [Outcome(need, "there") for need in needs(["iberian_bertaqa_eu", "iberian_bertaqa_en"])]
    assert pin(outcomes[:1], tmp_path, tmp_path / "pins.yml") == {"HiTZ/BertaQA": "a" * 40}
    with pytest.raises(DocumentsError, match=r"HiTZ/BertaQA: at commit a+ and at b+\. Remove the folder"):
        pin(outcomes, tmp_path, tmp_path / "pins.yml")


def test_all_configurations_are_fetched_at_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set changes on the Hub between two of them: the second is fetched as it was for the first."""
    from datasets import Dataset

    rows = Dataset.from_list(sample("HiTZ/BertaQA", "eu", "test"))
    moving = iter([letter * 40 for letter in "abcdef"])
    monkeypatch.setattr(
        "lm_eval_iberian.documents.hub.read", lambda _p, _c, _m, asked: ({"test": rows}, asked.commit or next(moving))
    )
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    outcomes = fetch(["iberian_bertaqa_eu", "iberian_bertaqa_en"], tmp_path)
    assert [one.state for one in outcomes] == ["fetched", "fetched"]
    assert {entry["revision"] for entry in mirrors.read_record(tmp_path).values()} == {"a" * 40}


def built(name: str) -> list[Any]:
    task = build(name)
    task.build_all_requests()
    return task.instances


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = as_jsonl(sample("HiTZ/EusTrivia", "default", "test"))
    key = "HiTZ/EusTrivia/default"
    write_whole(tmp_path / key / "test.jsonl", content)
    said = {
        "files": {"test.jsonl": {"sha256": mirrors.checksum(tmp_path / key / "test.jsonl")}},
        "revision": "abc",
    }
    mirrors.write_record(tmp_path, {key: said})
    monkeypatch.setenv("IBERIAN_DATA", str(tmp_path))
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    assert documents.load("HiTZ/EusTrivia", None, ["test"]).origin == f"{tmp_path}@abc"
    (tmp_path / key / "test.jsonl").write_bytes(content.replace(b'"answer": 1', b'"answer": 0'))
    with pytest.raises(DocumentsError, match=r"test\.jsonl is not as it was fetched"):
        documents.load("HiTZ/EusTrivia", None, ["test"])


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"data_sets": 3}', '{"other": 1}'])
def test_a_damaged_manifest_is_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert mirrors.read_record(tmp_path) == {}


def test_needs_are_what_tasks_read() -> None:
    """The YAMLs read alone, against the tasks as lm_eval builds them."""
    names = [
        "iberian_eus_trivia",
        "iberian_xstorycloze_gl",
        "iberian_openbookqa_en",
        "iberian_cola_ca",
        "iberian_bertaqa_eu_local",
    ]
    for name in names:
        task = build(name)
        (need,) = needs([name])
        assert need.path == task.config.dataset_path
        assert need.config == (task.config.dataset_name or "default")
        assert list(need.splits) == task.splits()
    assert {need.config for need in needs(["iberian_flores_es-eu"])} == {"spa_Latn", "eus_Latn"}


def test_the_suite_needs_every_benchmark() -> None:
    tasks = {task for need in needs(["iberian_suite"]) for task in need.tasks}
    assert tasks >= {
        task for b in benchmarks() if b.averaged and b.in_suite and b.kind in ("bench", "mt") for task in b.tasks
    }
    assert all(
        task in tasks or b.kind not in ("bench", "mt") or not (b.averaged and b.in_suite)
        for b in benchmarks()
        for task in b.tasks
    )
    assert len(leaves("iberian_flores")) == 14


def test_the_doctor_on_samples_and_off_the_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runner = CliRunner()
    well = runner.invoke(cli, ["doctor", "--tasks", "iberian_mc,iberian_flores,iberian_blimp,iberian_en_more"])
    assert well.exit_code == 0, well.output
    assert "(samples)" in well.output
    monkeypatch.setenv("IBERIAN_DATA", str(tmp_path))
    monkeypatch.setattr(
        "lm_eval_iberian.documents.hub.read", lambda *_: (_ for _ in ()).throw(ConnectionError("offline"))
    )
    sick = runner.invoke(cli, ["doctor", "--tasks", "iberian_eus_trivia,iberian_flores_es-eu"])
    assert sick.exit_code == 1
    assert f"-> iberian prefetch --tasks iberian_eus_trivia --out {tmp_path}" in sick.output
    assert "-> accept the terms at https://huggingface.co/datasets/openlanguagedata/flores_plus" in sick.output
    (tmp_path / "HiTZ/EusTrivia/default").mkdir(parents=True)
    (tmp_path / "HiTZ/EusTrivia/default/test.jsonl").write_text('{"question": "Zein?"}\n')
    damaged = runner.invoke(cli, ["doctor", "--tasks", "iberian_eus_trivia"])
    assert "damaged" in damaged.output and "no column candidates" in damaged.output


@pytest.mark.parametrize("command", ["doctor", "prefetch"])
def test_an_unknown_task_is_one_message(command: str, tmp_path: Path) -> None:
    arguments = ["--tasks", "hellaswag"] + (["--to", str(tmp_path)] if command == "prefetch" else [])
    said = CliRunner().invoke(cli, [command, *arguments])
    assert said.exit_code == 1
    assert said.output.strip().startswith("Error: hellaswag: no task or group of this suite.")


def test_prefetch_of_a_recipes_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--models asks merge_hooks for every source; what is not to be had is one message."""
    monkeypatch.setattr(
        "lm_eval_iberian.documents.hub.read", lambda *_: (_ for _ in ()).throw(ConnectionError("offline"))
    )
    recipe = tmp_path / "merge.yml"
    recipe.write_text(
        "models:\n  - model: ./nowhere\nmerge_method: linear\nparameters: {weight: 1.0}\ndtype: float32\n"
    )
    said = CliRunner().invoke(
        cli, ["prefetch", "--tasks", "iberian_eus_trivia", "--to", str(tmp_path / "m"), "--models", str(recipe)]
    )
    assert said.exit_code == 1
    assert "nowhere" in said.output and "Traceback" not in said.output


def test_a_yamls_own_word_comes_before_what_it_includes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bench"
    folder.mkdir()
    (folder / "_shared").write_text(
        "dataset_path: a/shared\ntest_split: test\nfewshot_split: train\nclass: !function x.Y\n"
    )
    (folder / "one.yaml").write_text("include: _shared\ntask: one\ndataset_path: a/own\n")
    (folder / "two.yaml").write_text("include: _shared\ntask: two\ntest_split: null\nvalidation_split: dev\n")
    (folder / "both.yaml").write_text("group: both\ntask: [one, two]\n")
    monkeypatch.setattr("lm_eval_iberian.documents.needs.task_folders", lambda: (tmp_path,))
    assert [(need.path, need.splits, need.tasks) for need in needs(["both", "one"])] == [
        ("a/own", ("test", "train"), ("one",)), ("a/shared", ("dev", "train"), ("two",))]  # fmt: skip
