"""The Hub on good days and bad ones: a local stand-in, and the loader in a process of its own."""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lm_eval_iberian.documents import hub as hub_
from lm_eval_iberian.documents import loader as documents
from lm_eval_iberian.documents.hub import OtherRevision
from lm_eval_iberian.documents.manifests import Manifest, manifests
from lm_eval_iberian.documents.revisions import Wanted
from lm_eval_iberian.documents.trouble import Trouble, explain, trouble
from lm_eval_iberian.folders import tasks_folder
from merge_hooks.errors import SourceError
from merge_hooks.sources import again
from merge_hooks.sources.again import may_pass, patiently
from merge_hooks.sources.hub import snapshot as snapshot_of_model
from tests.lm_eval_iberian.hub_server import COMMIT, StandInHub

ROOT = Path(__file__).resolve().parents[2]

# Loads what it is asked for, one after the other, and prints what came of it.
PROGRAM = """
import json, sys
from lm_eval_iberian.documents import hub
from merge_hooks.sources import again
from lm_eval_iberian.documents import loader as documents
from lm_eval_iberian.documents.manifests import Manifest, manifests
again.FIRST_PAUSE_SECONDS = 0.1
manifests()["other/xstory_cloze"] = Manifest("other/xstory_cloze", None, {}, {}, revision=hub.PARQUET_BRANCH, parquet=True)
for path, config, splits in json.loads(sys.argv[1]):
    try:
        found = documents.load(path, config, splits)
        rows = {split: len(found[split]) for split in splits}
        said = {"revision": found.revision, "notes": found.notes}
        print(json.dumps({"rows": rows, "origin": found.origin, "first": found[splits[0]][0], **said}))
    except documents.DocumentsError as error:
        print(json.dumps({"error": str(error)}))
"""


def sample(path: str, config: str, split: str) -> list[dict[str, Any]]:
    (file,) = tasks_folder().glob(f"*/samples/{path}/{config}/{split}.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def pinned(path: str) -> str:
    """The revision that the suite reads."""
    return manifests()[path].revision


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


OTHER_COMMIT = "f" * 40
TROUBLE = {
    "HiTZ/EusReading": "slow",
    "HiTZ/EusProficiency": "cut",
    "BSC-LT/openbookqa-es": "busy",
    "openlanguagedata/flores_plus": "gated",
    "nbel/CatCoLA": "refused",
    "nbel/EsCoLA": "missing",
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInHub]:
    server = StandInHub(tmp_path_factory.mktemp("hub"), TROUBLE, stall_seconds=6)
    trivia = sample("HiTZ/EusTrivia", "default", "test")
    for revision, rows in (("main", trivia), ("v1", trivia), (OTHER_COMMIT, trivia[1:])):
        server.add("HiTZ/EusTrivia", "test.jsonl", as_jsonl(rows), revision)
    for path in ("HiTZ/EusReading", "HiTZ/EusProficiency"):
        server.add(path, "test.jsonl", as_jsonl(sample(path, "default", "test")), pinned(path))
    for split in ("validation", "test"):
        rows = sample("BSC-LT/openbookqa-es", "default", split)
        file = f"data/{split}-00000-of-00001.parquet"
        server.add("BSC-LT/openbookqa-es", file, as_parquet(rows), pinned("BSC-LT/openbookqa-es"))
    for split, name in (
        ("train", "eu/train/0000.parquet"), ("eval", "eu/eval/0000.parquet"),
        ("train", "es/xstory_cloze-train.parquet"), ("eval", "es/xstory_cloze-eval.parquet"),
    ):  # fmt: skip
        rows = sample("juletxara/xstory_cloze", name[:2], split)
        server.add("juletxara/xstory_cloze", name, as_parquet(rows), "refs/convert/parquet")
    for split in ("train", "eval"):  # no branch of parquet files, but a data set that datasets reads
        rows = sample("projecte-aina/xstorycloze_ca", "ca", split)
        server.add("other/xstory_cloze", f"data/{split}-00000-of-00001.parquet", as_parquet(rows))
    server.add("jumelet/multiblimp", "multiblimp.py", b"raise SystemExit('never run')", pinned("jumelet/multiblimp"))
    for path in ("openlanguagedata/flores_plus", "nbel/CatCoLA", "nbel/EsCoLA"):
        server.add(path, "train.jsonl", b"")
    yield server
    server.close()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def load(hub: StandInHub, cache: Path, *wanted: tuple[str, str | None, list[str]], **more: str) -> list[dict[str, Any]]:
    """What a process says that loads from the stand-in, one answer for each thing wanted."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "IBERIAN_"))}
    environment |= {
        "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "2",
        "HF_HUB_DISABLE_TELEMETRY": "1", "IBERIAN_ROWS": "any", "PYTHONPATH": str(ROOT),
    } | more  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(wanted)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_the_hub_on_good_days_and_bad_ones(hub: StandInHub, cache: Path) -> None:
    answers = load(
        hub,
        cache,
        ("HiTZ/EusTrivia", None, ["test"]),
        ("juletxara/xstory_cloze", "eu", ["train", "eval"]),
        ("juletxara/xstory_cloze", "es", ["eval"]),
        ("HiTZ/EusReading", None, ["test"]),
        ("HiTZ/EusProficiency", None, ["test"]),
        ("BSC-LT/openbookqa-es", None, ["validation", "test"]),
        ("openlanguagedata/flores_plus", "eus_Latn", ["dev"]),
        ("nbel/CatCoLA", None, ["train"]),
        ("nbel/EsCoLA", None, ["train"]),
        ("jumelet/multiblimp", "eus", ["train"]),
        ("juletxara/xstory_cloze", "en", ["eval"]),
        ("other/xstory_cloze", None, ["train"]),
    )
    jsonl, parquet, older, slow, cut, busy, gated, refused, missing, script, no_config, converted = answers
    assert jsonl["rows"] == {"test": 12}
    assert jsonl["first"] == sample("HiTZ/EusTrivia", "default", "test")[0]
    assert jsonl["origin"].startswith("Hub")
    assert parquet["rows"] == {"train": 6, "eval": 8}
    assert older["first"] == sample("juletxara/xstory_cloze", "es", "eval")[0]
    assert slow["rows"] == {"test": 12}, "a stalled answer is asked for again"
    assert cut["rows"] == {"test": 12}, "half a file is never used"
    assert busy["rows"] == {"validation": 6, "test": 8}
    assert "https://huggingface.co/datasets/openlanguagedata/flores_plus" in gated["error"]
    assert "hf auth login" in gated["error"] and "is gated" in gated["error"]
    assert "hf auth login" in refused["error"]
    assert "is not at https://huggingface.co/datasets/nbel/EsCoLA" in missing["error"]
    assert "loading script" in script["error"]
    assert converted["rows"] == {"train": 6}, "no such branch (any more): the data set as it is"
    assert "no parquet files of en" in no_config["error"]
    for answer in (gated, refused, missing, script, no_config):
        assert "Your own files: " in answer["error"] and "/SPLIT.jsonl" in answer["error"]
        assert "no network" not in answer["error"]
    assert hub.asked["GET HiTZ/EusReading test.jsonl"] >= 2

    # What was read once is read again without the network, as on a compute node.
    away = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:1"}
    newest, parquet = load(
        hub, cache, ("HiTZ/EusTrivia", None, ["test"]), ("juletxara/xstory_cloze", "eu", ["eval"]), **away
    )  # fmt: skip
    assert (newest["rows"], parquet["rows"]) == ({"test": 12}, {"eval": 8})
    assert newest["revision"] == f"HiTZ/EusTrivia@{COMMIT}"
    assert newest["notes"] == [f"not pinned: HiTZ/EusTrivia read at commit {COMMIT}"]

    # And at the revision that is named: `datasets` itself would give the newest in its cache, whatever is asked for.
    trivia = ("HiTZ/EusTrivia", None, ["test"])
    (absent,) = load(hub, cache, trivia, IBERIAN_REVISIONS=f"HiTZ/EusTrivia={OTHER_COMMIT}", **away)
    assert f"only commit {COMMIT} of it is in the cache here, and {OTHER_COMMIT} is wanted" in absent["error"]
    for revision in (OTHER_COMMIT, "v1"):
        (online,) = load(hub, cache, trivia, IBERIAN_REVISIONS=f"HiTZ/EusTrivia={revision}")
        (again,) = load(hub, cache, trivia, IBERIAN_REVISIONS=f"HiTZ/EusTrivia={revision}", **away)
        assert online | {"origin": ""} == again | {"origin": ""}
        assert online["revision"] == f"HiTZ/EusTrivia@{OTHER_COMMIT if revision == OTHER_COMMIT else COMMIT}"
        assert online["rows"] == {"test": 11 if revision == OTHER_COMMIT else 12}
    (never,) = load(hub, cache, trivia, IBERIAN_REVISIONS="HiTZ/EusTrivia=v2", **away)
    assert "and v2 is wanted" in never["error"] and "iberian prefetch --tasks" in never["error"]
    (nowhere,) = load(hub, cache, trivia, IBERIAN_REVISIONS=f"HiTZ/EusTrivia={'e' * 40}")
    assert "no such revision" in nowhere["error"] or "is wanted" in nowhere["error"]


class BrokenError(Exception):
    """A failure with the Hub's status on it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status}")
        self.response = type("Response", (), {"status_code": status})()


@pytest.mark.parametrize(
    ("status", "again"), [(500, True), (503, True), (429, True), (401, False), (403, False), (404, False)]
)
def test_what_is_tried_again(monkeypatch: pytest.MonkeyPatch, status: int, again: bool) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert may_pass(BrokenError(status)) is again
    wrapped = ValueError("datasets wraps it")
    wrapped.__cause__ = BrokenError(status)
    assert may_pass(wrapped) is again


def test_tries_are_counted_and_spaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    calls = []

    def fetch() -> None:
        calls.append(1)
        raise TimeoutError

    with pytest.raises(TimeoutError):
        patiently(fetch, "a data set", logging.getLogger())
    assert (len(calls), pauses) == (6, [1.0, 2.0, 4.0, 8.0, 16.0])


def test_offline_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("IBERIAN_DATA")
    monkeypatch.setattr(
        "lm_eval_iberian.documents.hub.read", lambda *_: (_ for _ in ()).throw(ConnectionError("offline"))
    )
    with pytest.raises(documents.DocumentsError, match=r"HF_HUB_OFFLINE=1 forbids the network(.|\n)*iberian prefetch"):
        documents.load("HiTZ/EusTrivia", None, ["test"])


def wrapped(error: BaseException, context: BaseException) -> BaseException:
    """As `datasets` raises it after it has looked into its cache: the first cause is gone."""
    error.__context__ = context
    return error


def http_library() -> Any:
    """What huggingface_hub speaks through: httpx, or httpx2 from its version 2 on."""
    from huggingface_hub import errors

    return importlib.import_module(errors.HTTPError.__module__.partition(".")[0])


def answer(kind: Any, status: int) -> BaseException:
    """huggingface_hub's error of a refusal."""
    httpx = http_library()
    return kind("refused", response=httpx.Response(status, request=httpx.Request("GET", "http://hub")))


def troubles() -> list[tuple[BaseException, Trouble]]:
    """Errors as they were seen to arrive, and what they are."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import errors

    httpx = http_library()
    uncached = FileNotFoundError("Dataset HiTZ/EusTrivia is not cached in None")
    return [
        (wrapped(ConnectionError("Couldn't reach 'HiTZ/EusTrivia' on the Hub (LocalEntryNotFoundError)"), uncached),
         Trouble.UNREACHABLE),
        (errors.LocalEntryNotFoundError("Got: ConnectError: [Errno 111] Connection refused"), Trouble.UNREACHABLE),
        (httpx.ConnectError("[Errno -2] Name or service not known"), Trouble.UNREACHABLE),
        (httpx.ConnectTimeout("timed out"), Trouble.UNREACHABLE),
        (httpx.ReadTimeout("timed out"), Trouble.BUSY),
        (BrokenError(503), Trouble.BUSY),
        (wrapped(DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub."), uncached), Trouble.GATED),
        (answer(errors.GatedRepoError, 401), Trouble.GATED),
        (BrokenError(403), Trouble.GATED),
        (BrokenError(401), Trouble.GATED),
        (answer(errors.RepositoryNotFoundError, 401), Trouble.GONE),
        (wrapped(DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed."), uncached),
         Trouble.GONE),
        (FileNotFoundError("404: no parquet files of en at refs/convert/parquet"), Trouble.GONE),
        (wrapped(DatasetNotFoundError("Revision 'v9' doesn't exist for dataset 'a/b' on the Hub."), uncached),
         Trouble.NO_REVISION),
        (answer(errors.RevisionNotFoundError, 404), Trouble.NO_REVISION),
        (RuntimeError("Dataset scripts are no longer supported, but found b.py"), Trouble.SCRIPT),
        (OtherRevision("only commit a of it is in the cache here, and b is wanted"), Trouble.OTHER_REVISION),
        (ZeroDivisionError("what is that?"), Trouble.OTHER),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(18))
def test_what_went_wrong_is_told_apart(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    error, kind = troubles()[number]
    assert trouble(error) is kind
    said = explain(error, "HiTZ/EusTrivia", "default", "iberian_eus_trivia")  # type: ignore[arg-type]
    fetch = "iberian prefetch --tasks iberian_eus_trivia --out DIR"
    assert (fetch in said) is (kind in (Trouble.UNREACHABLE, Trouble.BUSY, Trouble.OTHER_REVISION))
    assert ("any more" in said) is (kind is Trouble.GONE), "only what is gone is said to be gone"
    assert ("hf auth login" in said) is (kind in (Trouble.GATED, Trouble.GONE))
    assert ("no network" in said) is (kind is Trouble.UNREACHABLE)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_a_variable_that_forbids_the_network_is_named(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the libraries say then, a file that is not in the cache included: nothing is known of the Hub."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv(variable, "true")
    for error, kind in troubles():
        if kind not in (Trouble.SCRIPT, Trouble.OTHER_REVISION):
            said = explain(error, "HiTZ/EusTrivia", "default", "iberian_eus_trivia")  # type: ignore[arg-type]
            assert said.startswith(f"{variable}=true forbids the network, and it is not in the Hub's cache here.")
            assert "any more" not in said and "iberian prefetch --tasks iberian_eus_trivia --out DIR" in said


@pytest.mark.slow
@pytest.mark.parametrize("task", ["iberian_eus_trivia", "iberian_xstorycloze_eu", "iberian_flores_es-eu"])
def test_nothing_cached_and_no_network(task: str, tmp_path: Path) -> None:
    """A compute node, in a process of its own: what is said, on lines that fit a terminal."""
    program = (
        "from lm_eval_iberian.sweep.kept_tasks import our_tasks\n"
        "from lm_eval_iberian.documents.loader import DocumentsError\n"
        f"try: our_tasks().load(['{task}'])\n"
        "except DocumentsError as error: print(error)\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "IBERIAN_"))}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True).stdout
    lines = said.splitlines()
    assert f"  With a network: iberian prefetch --tasks {task} --out DIR" in lines
    assert lines[1] == "  HF_HUB_OFFLINE=1 forbids the network, and it is not in the Hub's cache here."
    assert "any more" not in said and "Traceback" not in said
    assert all(len(line) <= 80 for line in lines[:4])


C1, C2 = "1" * 40, "2" * 40


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The Hub's parquet files of a data set, in both layouts; what was asked for."""
    folder, asked = tmp_path / "snapshots" / C1, list[dict[str, Any]]()
    for name, numbers in {"eu/train/0000": [0, 1], "eu/train/0001": [2], "eu/eval/0000": [3], "es/set-train": [4],
                          "es/set-eval": [5]}.items():  # fmt: skip
        (folder / f"{name}.parquet").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.parquet").write_bytes(as_parquet([{"n": number} for number in numbers]))

    def snapshot_download(path: str, **options: Any) -> str:
        asked.append(options)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return asked


@pytest.mark.parametrize(
    ("config", "rows"), [("eu", {"train": [0, 1, 2], "eval": [3]}), ("es", {"train": [4], "eval": [5]})]
)
def test_parquet_files_in_their_order(config: str, rows: dict[str, list[int]], snapshot: list[dict[str, Any]]) -> None:
    manifest = Manifest("a/b", Path("manifest.yml"), {}, {}, "main", parquet=True)
    for revision in (None, C1):
        found, commit = hub_.read("a/b", config, manifest, Wanted(revision))
        assert {split: data["n"] for split, data in found.items()} == rows
        assert commit == C1
        assert snapshot[-1]["revision"] == (revision or "refs/convert/parquet")
        assert snapshot[-1]["allow_patterns"] == [f"{config}/*"]


def in_cache(commit: str) -> Any:
    """`datasets.load_dataset` without the Hub: whatever is in its cache, whatever revision is asked for."""
    from datasets import Dataset

    data = Dataset.from_list([{"n": 1}])
    return {
        "test": SimpleNamespace(
            cache_files=[{"filename": f"/cache/a___b/default/0.0.0/{commit}/b-test.arrow"}], data=data
        )
    }


def test_another_revision_than_the_wanted_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: in_cache(C1))
    monkeypatch.setattr(hub_, "_kept", lambda *_: None)
    for branch, stands_for in (("main", None), ("v1", C1)):
        monkeypatch.setattr(hub_, "_commit_of", lambda path, revision: stands_for)  # noqa: B023
        wanted = Wanted(None if branch == "main" else branch)
        assert hub_.read("a/b", "default", None, wanted)[1] == C1
    assert hub_.read("a/b", "default", None, Wanted(C1))[1] == C1
    monkeypatch.setattr(hub_, "_commit_of", lambda path, revision: None)  # nobody knows what v1 is
    for wanted in (Wanted(C2), Wanted("v1")):
        with pytest.raises(
            OtherRevision, match=rf"only commit {C1} of it is in the cache here, and {wanted.revision} is"
        ):
            hub_.read("a/b", "default", None, wanted)


def test_one_of_two_configurations_in_the_cache_is_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    taken = []

    def cache(**options: Any) -> Any:
        taken.append(options["config_name"])
        return SimpleNamespace(as_dataset=lambda: {"test": options["config_name"]})

    monkeypatch.setattr(importlib.import_module("datasets.packaged_modules.cache.cache"), "Cache", cache)
    for config in ("eu", "es"):
        (tmp_path / "a___my_set" / config / "0.0.0" / C1).mkdir(parents=True)
    assert hub_._kept("a/MySet", "eu", C1) == {"test": "eu"} and hub_._kept("a/MySet", "eu", C2) is None
    assert hub_._kept("a/MySet", "default", C1) is None and taken == ["eu"]


class Node:
    """A node of a cluster: how the Hub answers the first so many times, and how often a connection to it was tried."""

    def __init__(self, error: Exception | None, times: int = 1_000) -> None:
        self.error, self.times, self.tries = error, times, 0

    def head(self, *_: Any, **options: Any) -> None:
        assert options["timeout"] <= 10
        self.tries += 1
        if self.error and self.tries <= self.times:
            raise self.error


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A process that has not looked for the Hub yet."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", False)
    monkeypatch.setattr(again, "_AWAY", set())
    again.away.cache_clear()
    yield monkeypatch
    again.away.cache_clear()


@pytest.mark.parametrize("kind", ["ConnectError", "ConnectTimeout"])
def test_a_hub_behind_a_firewall_is_tried_once_and_said(
    kind: str, online: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Each request waits for its time-out there, and huggingface_hub makes each six times."""
    online.setattr(again, "AT_ONCE_SECONDS", 0.0)
    node = Node(getattr(http_library(), kind)("swallowed"))
    online.setattr("huggingface_hub.get_session", lambda: node)
    online.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    online.delenv("IBERIAN_DATA")
    for _ in range(2):
        with pytest.raises(SourceError, match="out of reach"):
            snapshot_of_model("owner/model", None, ["*.json"])
    for path in ("HiTZ/EusTrivia", "HiTZ/EusReading", "juletxara/xstory_cloze"):
        with pytest.raises(documents.DocumentsError, match="The Hub is out of reach, and it is not in the Hub's cache"):
            documents.load(path, "eu" if "xstory" in path else None, ["test"])
    assert node.tries == 1
    (said,) = [one.getMessage() for one in caplog.records if "out of reach" in one.getMessage()]
    assert "HF_HUB_OFFLINE=1" in said and os.environ["HF_HUB_OFFLINE"] == "1"  # for the engines and workers, too


def test_a_hub_that_answers_anything_is_asked(online: pytest.MonkeyPatch) -> None:
    for error in (None, http_library().ReadTimeout("slow"), BrokenError(503)):
        again.away.cache_clear()
        online.setattr("huggingface_hub.get_session", lambda error=error: Node(error))
        again.look_for_the_hub(logging.getLogger())
        assert not again.offline() and not again.no_way()


@pytest.mark.parametrize(("times", "found"), [(1, True), (2, True), (3, False)])
def test_a_name_server_that_fails_for_a_moment_is_asked_again(
    online: pytest.MonkeyPatch, times: int, found: bool
) -> None:
    """Else a run of days is one without the Hub."""
    online.setattr(again, "FIRST_PAUSE_SECONDS", 0.0)
    node = Node(http_library().ConnectError("[Errno -3] Temporary failure in name resolution"), times)
    online.setattr("huggingface_hub.get_session", lambda: node)
    again.look_for_the_hub(logging.getLogger())
    assert (not again.offline()) == found and node.tries == min(times + 1, 3)
