"""A kind of architecture is one function, and one line in `merge_hooks.architectures.kinds`: `iberian models` tells it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lm_eval_iberian.commands.main import cli
from merge_hooks.architectures.built import Built, built_from
from merge_hooks.architectures.kinds import DENSE, KINDS, kinds_of
from merge_hooks.sources.checkpoint import open_source
from tests.merge_hooks.families import FAMILIES

ADDED = """
def normalises_heads(built):
    return any(name.endswith("q_norm.weight") for name in built.shapes)
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "added_kind.py").write_text(ADDED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(KINDS, "normalised heads", "added_kind:normalises_heads")


def test_a_kind(added: None, llama: dict[str, Path], qwen3: dict[str, Path]) -> None:
    for model, kinds in ((qwen3["base"], ["normalised heads"]), (llama["base"], [DENSE])):
        built = open_source(str(model)).built
        assert built is not None and list(kinds_of(built)) == kinds
        told = CliRunner().invoke(cli, ["models", str(model), "--json"])
        assert json.loads(told.output)["kinds"] == kinds, told.output
    assert "kinds        normalised heads\n" in CliRunner().invoke(cli, ["models", str(qwen3["base"])]).output


def of_family(name: str) -> Built:
    built = built_from(FAMILIES[name]().to_dict())
    assert built is not None
    return built


@pytest.mark.parametrize(
    ("family", "kinds"),
    [("qwen3_next", ("hybrid", "mixture of experts")), ("qwen3_5_vl", ("multimodal", "hybrid")), ("llama", ("dense",))],
)
def test_kinds_are_named_in_the_order_of_the_table(family: str, kinds: tuple[str, ...]) -> None:
    assert kinds_of(of_family(family)) == kinds
