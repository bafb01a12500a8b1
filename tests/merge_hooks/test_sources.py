"""What is fetched of a Hub model, and what of it the signature stamps: the bytes that are there, wherever they came from."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import xxhash
from huggingface_hub.utils import filter_repo_objects

from merge_hooks.errors import SourceError
from merge_hooks.hashing import content_hash, file_hash, hash_once
from merge_hooks.recipe.recipe import passthrough
from merge_hooks.recipe.signature import sign
from merge_hooks.resolve.resolver import from_payload, resolve
from merge_hooks.sources import facts
from merge_hooks.sources.adapter import over_base
from merge_hooks.sources.checkpoint import Source, open_source, read_header
from merge_hooks.sources.near import did_you_mean

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def snapshot_of(model: Path, cache: Path) -> Path:
    """A model as the Hub's cache holds it: links into a folder of blobs."""
    folder = cache / "models--HiTZ--tiny" / "snapshots" / COMMIT
    blobs = folder.parent.parent / "blobs"
    blobs.mkdir(parents=True)
    folder.mkdir(parents=True)
    for number, file in enumerate(sorted(model.iterdir())):
        shutil.copyfile(file, blobs / f"{number:064x}")
        (folder / file.name).symlink_to(f"../../blobs/{number:064x}")
    return folder


def flip_last_byte(file: Path) -> None:
    """Another content, the size and the time of the file as they were."""
    before, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_snapshot_whose_files_changed_is_another_source(file: str, llama: dict[str, Path], tmp_path: Path) -> None:
    folder = snapshot_of(llama["base"], tmp_path)

    def digests() -> tuple[str, str, str]:
        resolved = resolve(passthrough(str(folder)))
        again = from_payload(resolved.payload())
        stamps = (
            sign(item, dtype="float32", tokenizer="", template="", engine="transformers") for item in (resolved, again)
        )
        return resolved.donor.fingerprint(), *(stamp.digest for stamp in stamps)

    fingerprint, *before = digests()
    assert fingerprint == f"{COMMIT}.{Source('', llama['base']).fingerprint()}"
    assert before[0] == before[1] == digests()[1]
    if file == "config.json":
        (folder / file).resolve().write_text((folder / file).read_text() + "\n")
    else:
        flip_last_byte(folder / file)
    changed, *after = digests()
    assert changed != fingerprint and changed.startswith(COMMIT)
    assert after[0] == after[1] != before[0]


def test_an_adapter_in_a_snapshot_too(llama: dict[str, Path], tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")

    def fingerprint() -> str:
        return over_base(open_source(str(llama["base"])), "adapter", adapter, COMMIT).fingerprint()

    before = fingerprint()
    flip_last_byte(adapter / "adapter_model.safetensors")
    assert before != fingerprint() and f"+{COMMIT}." in before


def test_an_adapter_in_a_models_place_is_told_where_it_goes(tmp_path: Path) -> None:
    """It has no config.json, which is asked for first."""
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    with pytest.raises(SourceError, match=r"LoRA adapter, not a model\. Write it behind its base model, as `base\+"):
        _ = open_source(str(tmp_path)).config


REPOSITORY = ["config.json", "tokenizer.json", "modeling_tiny.py", "chat_template.jinja", "README.md", "pytorch_model.bin",
              "original/consolidated.00.pth", "consolidated.safetensors", "model.fp16.safetensors"]  # fmt: skip
SHARDS = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]


@pytest.mark.parametrize(
    ("weights", "wanted"),
    [
        (["model.safetensors.index.json", *SHARDS], SHARDS),
        (["model.safetensors"], ["model.safetensors"]),
        (["adapter_config.json", "adapter_model.safetensors"], ["adapter_model.safetensors"]),
    ],
    ids=["shards", "one file", "adapter"],
)
def test_only_the_weights_that_are_read_are_fetched(
    weights: list[str], wanted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mistral's `consolidated.safetensors` are the same weights once more."""
    folder = tmp_path / "models--HiTZ--tiny" / "snapshots" / COMMIT
    asked: list[str | None] = []

    def snapshot_download(repository: str, revision: str | None, allow_patterns: list[str], **_: Any) -> str:
        asked.append(revision)
        folder.mkdir(parents=True, exist_ok=True)
        for file in filter_repo_objects([*REPOSITORY, *weights], allow_patterns=allow_patterns):
            index = json.dumps({"weight_map": {f"tensor {shard}": shard for shard in SHARDS}})
            (folder / file).write_text(index if file.endswith("index.json") else "{}")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    source = open_source("HiTZ/tiny", "main")
    assert (source.folder, source.revision) == (folder, COMMIT)
    assert sorted(file.name for file in folder.glob("*.safetensors")) == wanted
    assert {"config.json", "tokenizer.json", "chat_template.jinja", "modeling_tiny.py"} <= {
        file.name for file in folder.iterdir()
    }
    assert not (folder / "pytorch_model.bin").exists()
    assert asked == ["main", COMMIT], "a branch may move between the two"


def test_a_hash_is_of_names_and_of_every_byte(tmp_path: Path) -> None:
    """Also of those beyond the first 16 MiB, and of which file they are in."""
    content = bytes(range(256)) * (1 << 16) + b"the rest"
    (tmp_path / "a").write_bytes(content)
    before = content_hash(tmp_path, ["a"])
    assert file_hash(tmp_path / "a") == xxhash.xxh3_128(content).hexdigest()
    (tmp_path / "b").write_bytes(content)
    assert content_hash(tmp_path, ["b"]) != before == content_hash(tmp_path, ["a", "not there"])
    flip_last_byte(tmp_path / "a")
    assert content_hash(tmp_path, ["a"]) != before


def test_a_hash_is_taken_again_where_the_files_changed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    state = ("a source", "its files")
    first = hash_once((*state, 1), tmp_path, ["a"])
    (tmp_path / "a").write_bytes(b"two")
    assert hash_once((*state, 1), tmp_path, ["a"]) == first != hash_once((*state, 2), tmp_path, ["a"])


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_a_file_that_lacks_its_end_is_refused(cut: int, llama: dict[str, Path], tmp_path: Path) -> None:
    content = (llama["base"] / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-cut])
    with pytest.raises(SourceError, match=rf"{len(content) - cut} of {len(content)} bytes"):
        read_header(tmp_path / "model.safetensors", "model")


def test_a_tokenizer_is_read_once_for_each_state_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan asks for it at every point, and it has megabytes; a file that changed is another tokenizer."""
    read = []
    as_it_is = facts._json
    monkeypatch.setattr(facts, "_json", lambda path: read.append(path) or as_it_is(path))
    file = tmp_path / "tokenizer.json"
    for tokens in ({"a": 0}, {"a": 0, "bc": 1}):
        file.write_text(json.dumps({"model": {"vocab": tokens}, "added_tokens": [{"content": "<s>", "id": 9}]}))
        assert facts.tokens_of(tmp_path) == facts.tokens_of(tmp_path) == tokens | {"<s>": 9}
    assert read.count(file) == 2
    file.unlink()
    monkeypatch.undo()
    assert facts.tokens_of(tmp_path) is None


@pytest.fixture
def toys_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where somebody works: toys/basque, toys/instruct, toys/merge.yml; elsewhere a recipe's own folder."""
    for name in ("here/toys/basque", "here/toys/instruct", "recipes/models/galician"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "here/toys/merge.yml").write_text("merge_method: linear\n")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize(
    ("written", "meant"),
    [("toys/basqe", "toys/basque"), ("toy/basque", "toys/basque"), ("./toys/Basqe", "toys/basque"), ("basque", "toys/basque"),
     ("toys/insrtuct", "toys/instruct"), ("models/galicain", "models/galician"), ("../recipes/models/galicia", "../recipes/models/galician")],
)  # fmt: skip
def test_a_path_that_is_nearly_right(written: str, meant: str, toys_here: Path) -> None:
    with pytest.raises(SourceError, match=r"no such folder.* Did you mean (\S+)\?") as found:
        open_source(written, beside=toys_here / "recipes")
    assert f"Did you mean {meant}?" in str(found.value)
    assert (toys_here / "here" / meant).is_dir() or (toys_here / "recipes" / meant).is_dir()


@pytest.mark.parametrize("written", ["Qwen/Qwen3-0.6B", "./x/y", "/nowhere/at/all", "toys/merge.ym"])
def test_a_path_like_nothing_that_is_here(written: str, toys_here: Path) -> None:
    """A file is no model; and a name of the Hub is none of a folder."""
    with pytest.raises(SourceError, match=r"no such folder") as found:
        open_source(written)
    assert "Did you mean" not in str(found.value)


def test_an_absolute_path_that_is_nearly_right(toys_here: Path) -> None:
    assert did_you_mean(f"{toys_here}/hre/toys/basqe") == f" Did you mean {toys_here}/here/toys/basque?"
    assert did_you_mean("toys/basque") == "", "it is there: something else is wrong"


def test_who_asks_the_hub_is_told_what_is_near_before(
    toys_here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A name of the Hub stays one, whatever folder is here: it is asked, and nothing is said of what the cache holds."""
    said: list[str] = []

    def snapshot_download(repository: str, **_: Any) -> str:
        said.append(caplog.text)
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    for offline, cached, warned in ((True, None, False), (False, None, True), (False, "/cache/config.json", False)):
        caplog.clear()
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, found=cached, **__: found)
        with pytest.raises(SourceError, match=r"Did you mean toys/basque\?.*As a model of the Hub, .*out of reach"):
            open_source("toys/basqe")
        assert ("toys/basqe: no such folder here. Did you mean toys/basque?" in said.pop()) == warned and not said
