"""Models of the Hub, from a stand-in on loopback: branches that move, caches with a part, repositories with faults."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from merge_hooks.errors import SourceError
from merge_hooks.sources import again
from merge_hooks.sources import hub as sources_hub
from merge_hooks.sources.checkpoint import Source, open_source
from merge_hooks.sources.code import code_prints
from tests.lm_eval_iberian.hub_server import StandInHub

OLD, NEW = "a" * 40, "b" * 40
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    """A Hub with one model of two commits. In OLD all weights are 1, in NEW 2; `main` and `v1` are OLD."""
    server = StandInHub(tmp_path / "hub")
    for commit, value in ((OLD, 1.0), (NEW, 2.0)):
        add(server, "o/m", commit, value)
    for branch, commit in (("main", OLD), ("v1", OLD), ("refs/pr/1", NEW)):
        server.move("o/m", branch, commit)
    from huggingface_hub import constants, file_download

    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    for name, value in (("ENDPOINT", server.endpoint), ("HF_HUB_CACHE", str(tmp_path / "cache")), ("HF_HUB_OFFLINE", False),
                        ("HF_HUB_DISABLE_XET", True), ("HF_HUB_DISABLE_TELEMETRY", True)):  # fmt: skip
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(again, "FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    yield server
    server.close()


def add(hub: StandInHub, repository: str, revision: str = "main", value: float = 1.0) -> None:
    """A model of two shards."""
    for name, shard in zip("xy", SHARDS, strict=True):
        hub.add(repository, shard, save({name: torch.full((2,), value)}), revision)
    index = {"weight_map": dict(zip("xy", SHARDS, strict=True))}
    hub.add(repository, INDEX, json.dumps(index).encode(), revision)
    hub.add(
        repository, "config.json", json.dumps({"model_type": "no_such", "hidden_size": int(value)}).encode(), revision
    )


def values(source: Source) -> set[float]:
    return {float(source.read(name)[0]) for name in "xy"}


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    sources_hub._COMMITS.clear()  # another process
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize(
    ("revision", "commit"),
    [(None, OLD), ("main", OLD), ("v1", OLD), ("refs/pr/1", NEW), (OLD, OLD), (NEW, NEW), (NEW[:7], NEW)],
)
def test_every_kind_of_revision_is_one_commit(hub: StandInHub, revision: str | None, commit: str) -> None:
    source = open_source("o/m", revision)
    assert source.revision == commit and source.fingerprint().startswith(f"{commit}.")
    assert values(source) == {1.0 if commit == OLD else 2.0}


def test_a_branch_that_moves_in_the_middle_gives_one_commit(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the small files and the weights, and between two models of one run."""
    import huggingface_hub

    fetch = huggingface_hub.snapshot_download

    def fetch_and_move(*arguments: Any, **options: Any) -> str:
        found = fetch(*arguments, **options)
        hub.move("o/m", "main", NEW)
        return found

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch_and_move)
    first = open_source("o/m")
    assert (first.revision, values(first), first.config["hidden_size"]) == (OLD, {1.0}, 1)
    assert open_source("o/m").revision == open_source("o/m", "main").revision == OLD
    sources_hub._COMMITS.clear()  # the next run
    assert open_source("o/m").revision == NEW


def test_without_the_hub_a_branch_is_what_it_was_and_the_key_says_so(
    hub: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_source("o/m")
    hub.move("o/m", "main", NEW)
    go_offline(monkeypatch)
    assert open_source("o/m").fingerprint() == before.fingerprint()
    for revision in ("v1", NEW, "refs/pr/1", NEW[:7]):
        with pytest.raises(
            SourceError, match=rf"o/m@{revision}: .*out of reach.*hf download o/m --revision {revision}"
        ):
            open_source("o/m", revision)


@pytest.mark.parametrize("what", ["removed", "dangling"])
def test_a_shard_that_is_missing_in_the_cache(hub: StandInHub, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    shard = open_source("o/m").folder / SHARDS[1]
    (shard.resolve() if what == "dangling" else shard).unlink()
    with monkeypatch.context() as patch:
        go_offline(patch)
        with pytest.raises(SourceError, match=r"not whole in the Hub's cache|missing from|cannot be read"):
            _ = open_source("o/m").entries
    assert values(open_source("o/m")) == {1.0}, "with the Hub it is fetched"


def test_a_gated_model_of_which_a_part_is_cached(hub: StandInHub) -> None:
    """What is missing is the right to read the rest, not a network."""
    (open_source("o/m").folder / SHARDS[1]).unlink()
    hub.trouble["o/m"] = "gated"
    with pytest.raises(SourceError, match="it is gated: accept its terms"):
        open_source("o/m")


def test_a_hub_that_is_busy_is_asked_again(hub: StandInHub, caplog: pytest.LogCaptureFixture) -> None:
    hub.trouble["o/m"] = "busy"
    with caplog.at_level(logging.WARNING):
        assert values(open_source("o/m")) == {1.0}
    assert "503" in caplog.text and "trying again" in caplog.text


def test_a_hub_that_stays_busy_is_one_line(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "TRIES", 1)
    hub.trouble["o/m"] = "busy"
    with pytest.raises(SourceError, match=r"busy or has a fault \(503\)\. Start this again later") as raised:
        open_source("o/m")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (b'{"weight_map": null}', "names no files. Download"), (b'{"weight_map": {"x": 1}}', "names no files. Download"),
        (b'{"weight_map": ["x"]}', "names no files. Download"), (b"[]", "holds no JSON object. Download"),
        (b'{"weight_map": {"x": "model-00009.safetensors"}}', "weight files are missing"),
        (b'{"weight_map": {"x": "../../../passwd.safetensors"}}', "outside of its folder"),
        (json.dumps({"weight_map": dict(zip("yx", SHARDS, strict=True))}).encode(), "promises 2 tensors"),
        (json.dumps({"weight_map": dict(zip("xyz", [*SHARDS, SHARDS[0]], strict=True))}).encode(), "promises 1 tensors"),
    ],
)  # fmt: skip
def test_an_index_that_is_wrong(hub: StandInHub, index: bytes, words: str) -> None:
    add(hub, "o/wrong")
    hub.add("o/wrong", INDEX, index)
    with pytest.raises(SourceError, match=words):
        _ = open_source("o/wrong").entries


def test_a_model_of_pickles_on_the_hub(hub: StandInHub) -> None:
    """They are not fetched, so the folder here does not show what is there."""
    hub.add("o/bin", "config.json", b"{}")
    hub.add("o/bin", "pytorch_model.bin", b"x")
    with pytest.raises(SourceError, match=r"o/bin: the Hub's model has no model.safetensors.*save_pretrained"):
        _ = open_source("o/bin").entries


def test_pickles_beside_safetensors_are_not_fetched(hub: StandInHub) -> None:
    hub.add("o/m", "pytorch_model.bin", b"x", OLD)
    hub.add("o/m", "model.safetensors", save({"x": torch.zeros(2), "y": torch.zeros(2)}), OLD)
    source = open_source("o/m")
    assert values(source) == {1.0} and sorted(source.weight_files) == sorted(SHARDS)
    assert not (source.folder / "pytorch_model.bin").exists()


def test_every_file_of_a_tokenizer_is_fetched(hub: StandInHub) -> None:
    names = {
        "tokenizer.json",
        "spiece.model",
        "merges.txt",
        "qwen.tiktoken",
        "chat_template.jinja",
        "tokenization_x.py",
    }
    for name in names:
        hub.add("o/m", name, b"{}", OLD)
    assert names <= {file.name for file in open_source("o/m").folder.iterdir()}


def test_a_folder_here_is_of_no_revision(hub: StandInHub, tmp_path: Path) -> None:
    """A folder called as a model of the Hub is taken before it, also where a revision was named: that of the Hub's."""
    shutil.copytree(open_source("o/m", NEW).folder, tmp_path / "o" / "m")
    assert open_source("o/m").revision is None and values(open_source("o/m", "main")) == {2.0}
    for revision in (OLD, NEW, "v1"):
        with pytest.raises(SourceError, match=rf"o/m@{revision}: .*o/m is a folder here.*Leave out the revision"):
            open_source("o/m", revision)


def test_a_snapshot_that_is_linked_here_is_of_its_commit(hub: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    snapshot = open_source("o/m", NEW).folder
    (tmp_path / "o" / "m").symlink_to(snapshot)
    assert values(open_source("o/m", NEW)) == {2.0} == values(open_source(str(snapshot), "v1"))
    with pytest.raises(SourceError, match=f"it is of commit {NEW}"):
        open_source("o/m", OLD)


def test_two_checkpoints_in_one_folder_are_said(
    hub: StandInHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """mergekit and vLLM read the shards, transformers model.safetensors, which an older save may have left."""
    folder = tmp_path / "both"
    shutil.copytree(open_source("o/m").folder, folder)
    (folder / "model.safetensors").write_bytes(save({"x": torch.zeros(2), "y": torch.zeros(2)}))
    assert values(open_source(str(folder))) == {1.0}
    assert "holds shards, which are read, and model.safetensors, which transformers would read" in caplog.text


def test_code_of_another_repository_is_known_by_its_commit(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """transformers takes what is on its main branch."""
    for commit in (OLD, NEW):
        hub.add("o/code", "modeling_x.py", f"a = {commit!r}".encode(), commit)
        hub.add("o/code", "model.safetensors", b"large", commit)
    hub.move("o/code", "main", OLD)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"auto_map": {"AutoModel": "o/code--modeling_x.X", "AutoConfig": "own.C"}})
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": [None, "o/code--tok.T"]}}))
    assert code_prints([folder, folder]) == {"o/code/*.py": OLD}
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    hub.move("o/code", "main", NEW)
    assert code_prints([folder]) == {"o/code/*.py": OLD}
    sources_hub._COMMITS.clear()  # another process
    assert code_prints([folder]) == {"o/code/*.py": NEW}
    go_offline(monkeypatch)
    assert code_prints([folder]) == {"o/code/*.py": NEW}
    shutil.rmtree(tmp_path / "cache")
    assert code_prints([folder]) == {"o/code/*.py": "unknown"}
    assert "code lies in another repository. o/code: " in caplog.text
