"""An export's card with its scores, and the way to the Hub: a local stand-in that looks at cards as the Hub does."""

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
from huggingface_hub import ModelCard

from merge_hooks.errors import EngineError
from merge_hooks.tools.card import _prompted, _scores, _shortened
from merge_hooks.tools.card_head import card_head
from merge_hooks.tools.card_index import eval_results
from merge_hooks.tools.push import check_name
from tests.lm_eval_iberian.hub_server import StandInHub


def results(task: str, value: float, documents: int = 10, **more: Any) -> dict[str, Any]:
    metadata = {"documents": "HiTZ/EusTrivia@0123456789abcdef"}
    return {
        "results": {task: {"acc,none": value, "acc_stderr,none": 0.01, "alias": task}, "a_group": {"acc,none": 0.1}},
        "configs": {task: {"metadata": metadata, "dataset_name": "default", "test_split": "test"}},
        "n-shot": {task: 5}, "versions": {task: 1.0}, "chat_template_sha": "ab", "fewshot_as_multiturn": True,
        "n-samples": {task: {"effective": documents, "original": 10}},
        "config": {"iberian": {"signature": "method:linear|recipe:1"}}, **more,
    }  # fmt: skip


def card_of(*found: dict[str, Any]) -> ModelCard:
    resolved: Any = SimpleNamespace(sources={"a": SimpleNamespace(folder=Path("none"))})
    entries = eval_results(found, _prompted, _shortened)
    return ModelCard(f"---\n{card_head(resolved, {}, entries, 'linear merge')}\n---\n# A merge")


def test_scores_are_in_the_model_index_with_how_they_were_measured() -> None:
    """Read back by huggingface_hub: the mean of two runs, as a fraction, with shots, data set, prompt and identity."""
    card = card_of(results("eus_trivia", 0.5, identity="abc1"), results("eus_trivia", 0.7, identity="abc1"))
    (entry,) = card.data.eval_results
    assert (entry.dataset_name, entry.dataset_type, entry.metric_type) == ("eus_trivia", "HiTZ/EusTrivia", "acc")
    assert entry.metric_value == pytest.approx(0.6) and entry.dataset_revision == "0123456789abcdef"
    assert entry.dataset_args == {"num_few_shot": 5} and entry.dataset_split == "test"
    assert entry.metric_args["identity"] == "abc1" and entry.metric_args["runs"] == 2
    assert entry.metric_args["prompt"] == "chat template, shots as turns"
    assert card.data.model_name == "linear merge"


def test_scores_that_are_not_whole_are_in_no_model_index() -> None:
    card = card_of(results("eus_trivia", 0.5, documents=3), results("belebele_eu", 0.4))
    assert [entry.dataset_name for entry in card.data.eval_results] == ["belebele_eu"]
    assert card_of(results("eus_trivia", 0.5, documents=3)).data.eval_results is None


def test_two_filters_of_one_metric_are_two_scores() -> None:
    """They were averaged as two runs, on the card and on the Hub. What is no number, and 999 of --predict_only, is none."""
    data = results("gsm8k", 1.0)
    data["results"]["gsm8k"] |= {
        "exact_match,strict-match": 0.2, "exact_match_stderr,strict-match": 0.1, "exact_match,flexible-extract": 0.6,
        "f1,none": float("nan"), "bypass,none": 999, "sample_len": 10,
    }  # fmt: skip
    found = {entry.metric_name: entry.metric_value for entry in card_of(data).data.eval_results}
    assert found == {"acc": 1.0, "exact_match,strict-match": 0.2, "exact_match,flexible-extract": 0.6}
    assert {entry.metric_type for entry in card_of(data).data.eval_results} == {"acc", "exact_match"}
    rows = [line.split(" | ")[1:3] for line in _scores([data]).splitlines() if line.startswith("| gsm8k")]
    assert rows == [
        ["acc", "1.0000"],
        ["exact_match,flexible-extract", "0.6000"],
        ["exact_match,strict-match", "0.2000"],
    ]


PROGRAM = """
import sys
from pathlib import Path
from merge_hooks.errors import EngineError
from merge_hooks.tools.push import push
try:
    print(push(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "private"))
except EngineError as error:
    print("refused:", error)
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[StandInHub]:
    server = StandInHub(tmp_path / "hub")
    yield server
    server.close()


def pushed(hub: StandInHub, folder: Path, token: str = "hf_test", private: str = "public") -> str:
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_TOKEN": token,
                   "HF_HOME": str(folder.parent / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # fmt: skip
    command = [sys.executable, "-c", PROGRAM, str(folder), "team/merge", private]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120).stdout


def an_export(folder: Path, base_model: str = "HiTZ/Latxa") -> Path:
    folder.mkdir()
    (folder / "README.md").write_text(f"---\nbase_model: [{base_model}]\n---\n# A merge\n")
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\x00" * 64)
    return folder


@pytest.mark.slow
def test_every_file_arrives(hub: StandInHub, tmp_path: Path) -> None:
    folder = an_export(tmp_path / "out")
    assert "team/merge" in pushed(hub, folder, private="private")
    made = hub.made["team/merge"]  # huggingface_hub 1 says private, 2 says visibility
    assert made.get("private") is True or made.get("visibility") == "private"
    there = hub.root / "team" / "merge" / "main"
    assert {file.name: file.read_bytes() for file in there.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }


@pytest.mark.slow
def test_a_card_that_the_hub_refuses_makes_nothing_there(hub: StandInHub, tmp_path: Path) -> None:
    said = pushed(hub, an_export(tmp_path / "out", "/home/me/models/basque"))
    assert said.startswith("refused:") and "base_model" in said and not hub.made


@pytest.mark.slow
def test_without_a_token_it_is_said_what_to_do(hub: StandInHub, tmp_path: Path) -> None:
    said = pushed(hub, an_export(tmp_path / "out"), token="")
    assert said.startswith("refused:") and "hf auth login" in said and not hub.made


@pytest.mark.parametrize("name", ["merge", "a/b/c", "/abs/path", "a/", "team/mer ge"])
def test_names_are_looked_at_before_anything_is_computed(name: str) -> None:
    with pytest.raises(EngineError, match="OWNER/NAME"):
        check_name(name)


def test_json_of_the_index_is_plain() -> None:
    """Nothing of numpy's or of our own: the head is YAML that anybody reads."""
    assert json.dumps([entry.metric_args for entry in eval_results([results("t", 0.5)], _prompted, _shortened)])
