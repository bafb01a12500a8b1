"""Data sets whose branch moves: in the middle of a run, and before one without the Hub; mirrors with a file too many."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lm_eval_iberian.documents import hub as documents_hub
from lm_eval_iberian.documents import mirrors
from lm_eval_iberian.documents.loader import DocumentsError, load
from lm_eval_iberian.documents.manifests import Manifest
from lm_eval_iberian.documents.revisions import Wanted
from tests.conftest import ROOT
from tests.lm_eval_iberian.hub_server import StandInHub
from tests.lm_eval_iberian.test_hub import as_jsonl, as_parquet, sample

OLD, NEW = "a" * 40, "b" * 40
# Each line of the program's input: what is loaded, or the branch and the commit to which it moves before.
PROGRAM = """
import json, sys
from pathlib import Path
from lm_eval_iberian.documents import loader as documents
from lm_eval_iberian.documents.manifests import Manifest, manifests
from tests.lm_eval_iberian.hub_server import StandInHub
for name, more in (("plain", {}), ("parquet", {"parquet": True}), ("files", {"file_column": "file"})):
    manifests()[f"o/{name}"] = Manifest(f"o/{name}", Path("x/manifest.yml"), {"n": "integer"}, {}, "main", **more)
root, steps = json.loads(sys.argv[1])
for step in steps:
    if len(step) == 3:
        StandInHub.move(type("Moved", (), {"root": Path(root)}), *step)
        continue
    try:
        found = documents.load(*step, ["test"])
        print(json.dumps([list(found["test"]["n"]), found.revision.partition("@")[2]]))
    except documents.DocumentsError as error:
        print(json.dumps([str(error), ""]))
"""
CARD = "---\nconfigs:\n" + "".join(
    f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {name}.jsonl\n" for name in ("eu", "es")
)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[StandInHub]:
    """Three data sets that are read in three ways, each at two commits: its rows are [1, 1] at OLD, [2, 2] at NEW."""
    server = StandInHub(tmp_path / "hub")
    for commit, number in ((OLD, 1), (NEW, 2)):
        rows = [{"n": number}] * 2
        server.add("o/plain", "README.md", f"{CARD}---\n".encode(), commit)
        for config in ("eu", "es"):
            server.add("o/plain", f"{config}.jsonl", as_jsonl(rows), commit)
            server.add("o/parquet", f"{config}/test/0000.parquet", as_parquet(rows), commit)
            server.add("o/files", f"{config}/one.jsonl", as_jsonl(rows), commit)
    for name in ("plain", "parquet", "files"):
        server.move(f"o/{name}", "main", OLD)
        server.move(f"o/{name}", "refs/convert/parquet", OLD)
    yield server
    server.close()


def run(hub: StandInHub, *steps: tuple[str, ...], **more: str) -> list[Any]:
    """What one process reads, step by step."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "IBERIAN_"))}
    environment |= {
        "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(hub.root.parent / "home"), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT),
    } | more  # fmt: skip
    command = [sys.executable, "-c", PROGRAM, json.dumps([str(hub.root), steps])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


def test_all_configurations_are_read_at_the_first_ones_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As below, without a server: what is asked for after the branch has moved."""
    from datasets import Dataset

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    asked: list[str | None] = []
    commits = iter([OLD, NEW, NEW])

    def load_dataset(path: str, config: str, revision: str | None) -> Any:
        asked.append(revision)
        cached = [{"filename": f"/cache/o___plain/{config}/0.0.0/{revision}/plain-test.arrow"}]
        return {"test": SimpleNamespace(cache_files=cached, data=Dataset.from_list([{"n": 1}]))}

    def snapshot_download(path: str, revision: str, **_: Any) -> str:
        asked.append(revision)
        folder = tmp_path / (revision if revision in (OLD, NEW) else next(moved))
        for config in ("eu", "es"):
            (folder / config / "test").mkdir(parents=True, exist_ok=True)
            (folder / config / "test" / "0000.parquet").write_bytes(as_parquet([{"n": 1}]))
        return str(folder)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr(documents_hub, "_kept", lambda _, config, commit: {"test": commit} if config == "eu" else None)
    monkeypatch.setattr(documents_hub, "_commit_of", lambda *_: next(commits))
    read = documents_hub.read
    assert [read("o/plain", config, None, Wanted())[1] for config in ("eu", "es", "gl")] == [OLD] * 3
    assert asked == [OLD, OLD], "eu is kept"
    moved = iter([OLD, NEW])
    manifest = Manifest("o/parquet", Path("x/manifest.yml"), {}, {}, "main", parquet=True)
    asked.clear()
    assert [read("o/parquet", config, manifest, Wanted())[1] for config in ("eu", "es")] == [OLD, OLD]
    assert asked == ["refs/convert/parquet", OLD]


@pytest.mark.slow
def test_a_branch_that_moves_in_the_middle_of_a_run(hub: StandInHub) -> None:
    """All configurations are of one commit, however they are read; the next run reads the newest."""
    names = ("plain", "parquet", "files")
    moves = [(f"o/{name}", branch, NEW) for name in names for branch in ("main", "refs/convert/parquet")]
    first = [(f"o/{name}", "eu") for name in names]
    then = [(f"o/{name}", config) for name in names for config in ("es", "eu")]
    assert run(hub, *first, *moves, *then) == [[[1, 1], OLD]] * 9
    assert run(hub, *then) == [[[2, 2], NEW]] * 6


@pytest.mark.slow
def test_without_the_hub_the_newest_is_that_of_main(hub: StandInHub) -> None:
    """A commit that was named once, after it, is newer in the cache; `datasets` would take that."""
    away = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:1"}
    hub.move("o/plain", "refs/pr/1", NEW)
    assert run(hub, ("o/plain", "eu")) == [[[1, 1], OLD]]
    assert run(hub, ("o/plain", "eu"), IBERIAN_REVISIONS="o/plain=refs/pr/1") == [[[2, 2], NEW]]
    assert run(hub, ("o/plain", "eu"), **away) == [[[1, 1], OLD]]
    assert run(hub, ("o/plain", "eu"), IBERIAN_REVISIONS="o/plain=refs/pr/1", **away) == [[[2, 2], NEW]]


def test_a_file_of_a_mirror_that_was_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows would pass as those of the mirror's commit."""
    folder = tmp_path / "HiTZ/EusTrivia/default"
    folder.mkdir(parents=True)
    rows = as_jsonl(sample("HiTZ/EusTrivia", "default", "test"))
    (folder / "test.jsonl").write_bytes(rows)
    sha = mirrors.checksum(folder / "test.jsonl")
    mirrors.write_record(
        tmp_path, {"HiTZ/EusTrivia/default": {"revision": OLD, "files": {"test.jsonl": {"sha256": sha}}}}
    )
    monkeypatch.setenv("IBERIAN_DATA", str(tmp_path))
    monkeypatch.setenv("IBERIAN_ROWS", "any")
    assert load("HiTZ/EusTrivia", None, ["test"]).revision == f"HiTZ/EusTrivia@{OLD}"
    (folder / "validation.jsonl").write_bytes(rows)
    with pytest.raises(DocumentsError, match=r"validation\.jsonl was not fetched.*manifest\.json.*Remove it"):
        load("HiTZ/EusTrivia", None, ["test"])
    (folder / "notes.txt").write_text("mine")
    (folder / "validation.jsonl").unlink()
    load("HiTZ/EusTrivia", None, ["test"])
