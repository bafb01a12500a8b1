"""What may follow in a running engine: weights of the same model, and nothing that the engine was started with changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from merge_hooks.checks import swap
from merge_hooks.checks.swap import check_swap, engine_facts
from merge_hooks.errors import PreflightError
from merge_hooks.recipe.recipe import passthrough
from merge_hooks.resolve.resolver import resolve
from merge_hooks.stream.stream import Stream, open_stream


def opened(folder: Path) -> Stream:
    return open_stream(resolve(passthrough(str(folder))))


@pytest.fixture
def changed(llama: dict[str, str], tmp_path: Path) -> Callable[..., Stream]:
    def change(**config: Any) -> Stream:
        folder = Path(shutil.copytree(llama["basque"], tmp_path / "changed"))
        written = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(written | config))
        return opened(folder)

    return change


@pytest.mark.parametrize(
    ("key", "value"),
    [("rms_norm_eps", 1e-3), ("rope_parameters", {"rope_type": "default", "rope_theta": 77.0}), ("hidden_act", "gelu")],
)
def test_an_engine_computes_on_as_it_was_started(
    key: str, value: Any, llama: dict[str, str], changed: Callable[..., Stream]
) -> None:
    running, new = opened(Path(llama["base"])), changed(**{key: value})
    with pytest.raises(PreflightError, match=f"`{key}` of the configuration is .*, in the engine"):
        check_swap(running, new)
    assert engine_facts(running) != engine_facts(new)


@pytest.mark.parametrize(
    ("key", "value"), [("eos_token_id", 3), ("use_cache", False), ("transformers_version", "4.0.0")]
)
def test_what_changes_no_computation_may_follow(
    key: str, value: Any, llama: dict[str, str], changed: Callable[..., Stream]
) -> None:
    running, new = opened(Path(llama["base"])), changed(**{key: value})
    assert [row["model"] for row in check_swap(running, new)] == [new.resolved.donor.name]
    assert engine_facts(running) == engine_facts(new)


def test_tensors_that_the_engine_has_not(
    llama: dict[str, str], changed: Callable[..., Stream], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shape that no configuration says: the files hold other rows than the engine's.

    Where transformers has a class for the model, its sources do not fit already.
    """
    running, new = opened(Path(llama["base"])), changed()
    file = tmp_path / "changed" / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name][:-1].contiguous()
    save_file(tensors, file)
    with pytest.raises(PreflightError, match="another shape than the configuration"):
        check_swap(running, opened(tmp_path / "changed"))
    with monkeypatch.context() as patch:
        patch.setattr(swap, "check_fit", lambda stream: [])
        with pytest.raises(PreflightError, match=rf"{name} is \d+x\d+, in the engine \d+x\d+"):
            check_swap(running, opened(tmp_path / "changed"))
    assert check_swap(running, opened(Path(llama["instruct"])))
    assert new is not None


def test_a_head_that_a_table_calls_optional(llama: dict[str, str], changed: Callable[..., Stream]) -> None:
    """mergekit has no table for the older name, so that all tensors of the class are planned, and the head is required."""
    running, new = changed(architectures=["LLaMAForCausalLM"]), opened(Path(llama["base"]))
    assert check_swap(running, new) and check_swap(new, running)
