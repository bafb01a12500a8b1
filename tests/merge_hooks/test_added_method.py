"""A merge method is one file, and one line in `merge_hooks.methods.register`: the lint, the stream and the signature know it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from merge_hooks.methods.register import OURS
from merge_hooks.planning.registry import method_names
from merge_hooks.recipe.recipe import find_recipe, read_recipe
from merge_hooks.resolve.resolver import resolve
from merge_hooks.stream.stream import open_stream

ADDED = """
import torch
from mergekit.merge_methods.base import TensorGroup
from mergekit.merge_methods.easy_define import merge_method

@merge_method(name="halfway")
def halfway(group: TensorGroup, *, step: float = 0.5) -> torch.Tensor:
    first, second = (entry.tensor for entry in group.entries)
    return first + step * (second - first)

METHODS = {"halfway": halfway}
"""


@pytest.fixture
def halfway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from mergekit.merge_methods import registry

    (tmp_path / "added_method.py").write_text(ADDED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(OURS, "halfway", "added_method")
    yield
    registry._METHODS.pop("halfway", None)


def test_a_method(halfway: None, llama: dict[str, Path]) -> None:
    assert "halfway" in method_names()
    models = [{"model": str(llama[name])} for name in ("base", "basque")]
    recipe = {"merge_method": "halfway", "models": models, "parameters": {"step": 0.25}, "dtype": "float32"}
    stream = open_stream(resolve(read_recipe(recipe)))
    for name, tensor in stream:
        base, basque = (stream.resolved.sources[str(llama[key])].read(name) for key in ("base", "basque"))
        assert torch.equal(tensor, base + 0.25 * (basque - base)), name
    (finding,) = find_recipe({**recipe, "parameters": {"stepp": 0.25}}).findings
    assert finding.is_error and "stepp" in finding.message and "step" in finding.message
