"""Exports load as mergekit's output does, leave nothing behind when stopped, and carry no other merge's scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from merge_hooks.errors import EngineError, RecipeError
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.recipe.signature import recipe_digest
from merge_hooks.resolve.resolver import resolve
from merge_hooks.stream.stream import Stream, open_stream
from merge_hooks.tools.export import export
from merge_hooks.tools.verify import verify
from tests.merge_hooks.recipes.conftest import assert_same, streamed, tensors_of


def opened(data: Any) -> Stream:
    return open_stream(resolve(read_recipe(data)))


def ties(family: dict[str, str], **more: Any) -> dict[str, Any]:
    """TIES that prunes nothing: which of the elements tied at a threshold mergekit keeps is its sort's accident
    (test_all_methods.py counts them), and here bytes are compared."""
    models = [{"model": family[name], "parameters": {"weight": 0.6, "density": 1.0}} for name in ("instruct", "basque")]
    return {"merge_method": "ties", "base_model": family["base"], "models": models, "dtype": "bfloat16",
            "parameters": {"normalize": False}, **more}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("shard_bytes", [10**9, 200_000])
@pytest.mark.parametrize("architecture", ["llama", "qwen"])
def test_equal_to_mergekits_and_loadable(
    architecture: str,
    shard_bytes: int,
    tmp_path: Path,
    mergekit: Callable[..., Path],
    request: pytest.FixtureRequest,
) -> None:
    data = ties(request.getfixturevalue(architecture))
    out = tmp_path / "out"
    files = export(opened(data), out, shard_bytes=shard_bytes)
    theirs = mergekit(data)
    assert_same(tensors_of(out), tensors_of(theirs))
    ours, other = (AutoModelForCausalLM.from_pretrained(folder) for folder in (out, theirs))
    assert_same(dict(ours.state_dict()), dict(other.state_dict()))
    assert ours.config.to_diff_dict() == other.config.to_diff_dict()
    assert GenerationConfig.from_pretrained(out) == GenerationConfig.from_pretrained(theirs)
    own, their = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(theirs)
    assert own.get_vocab() == their.get_vocab() and own.chat_template == their.chat_template
    weights = [file for file in files if file.endswith(".safetensors")]
    assert (len(weights) > 1) == (shard_bytes < 10**9)
    assert all((out / file).stat().st_size < shard_bytes + 300_000 for file in weights)


def test_the_recipe_in_an_export_is_a_recipe(llama: dict[str, str], tmp_path: Path) -> None:
    data = ties(llama, chat_template="chatml")
    export(opened(data), tmp_path / "out")
    assert_same(streamed(str(tmp_path / "out")), streamed(data))
    assert "<|im_start|>" in AutoTokenizer.from_pretrained(tmp_path / "out").chat_template


def _stop_after(stream: Stream, count: int, error: type[BaseException]) -> Stream:
    class Stopping(Stream):
        def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
            for index, pair in enumerate(super().__iter__()):
                if index == count:
                    raise error
                yield pair

    stream.__class__ = Stopping
    return stream


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_stop_leaves_nothing(error: type[BaseException], llama: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(error):
        export(_stop_after(opened(ties(llama)), 20, error), tmp_path / "out", shard_bytes=100_000)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(llama: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    with pytest.raises(EngineError, match="there is something already"):
        export(opened(ties(llama)), tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.tex"]
    with pytest.raises(EngineError, match="no such folder"):
        export(opened(ties(llama)), tmp_path / "not" / "there")


def test_a_full_disk_is_seen_before(llama: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(EngineError, match="are free on that disk"):
        export(opened(ties(llama)), tmp_path / "out")


def test_the_card_takes_scores_of_this_merge_only(llama: dict[str, str], tmp_path: Path) -> None:
    stream = opened(ties(llama))
    results = tmp_path / "results.json"

    def write(signature: str | None) -> None:
        config = {"iberian": {"signature": signature}} if signature else {}
        scores = {"iberian_eus_trivia": {"acc,none": 0.5125, "acc_stderr,none": 0.01, "alias": "x"}}
        results.write_text(json.dumps({"config": config, "results": scores}))

    mine = f"method:ties|recipe:{recipe_digest(stream.resolved)}|dtype:bfloat16|seed:"
    # Another recipe; another draw of a random method; no signature.
    for other in ("method:ties|recipe:0000000000000000|dtype:bfloat16|seed:none", f"{mine}iberian-7", None):
        write(other)
        with pytest.raises(RecipeError, match="do not belong into this model card"):
            export(stream, tmp_path / "out", results)
    write(f"{mine}none")
    export(stream, tmp_path / "out", results)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| iberian_eus_trivia | acc | 0.5125 |" in card and "stderr" not in card
    assert llama["basque"] in card and "merge_method: ties" in card


@pytest.mark.slow
def test_verify_against_mergekits_command(llama: dict[str, str]) -> None:
    """A stage inside, so mergekit-multi is what runs; then a stream that is wrong in one element."""
    text = (
        f"name: mean\nmerge_method: linear\nparameters: {{weight: 0.5, normalize: true}}\n"
        f"models: [{{model: {llama['instruct']}}}, {{model: {llama['basque']}}}]\n---\n"
        f"merge_method: ties\nbase_model: {llama['base']}\nparameters: {{normalize: false, weight: 0.5, density: 0.5}}\n"
        f"models: [{{model: mean}}, {{model: {llama['basque']}}}]\n"
    )
    verdict = verify(opened(text))
    assert verdict.is_equal
    assert verdict.tensors == len(tensors_of(llama["base"]))
    assert verdict.stream_digest == verdict.mergekit_digest


@pytest.mark.slow
def test_verify_finds_one_wrong_element(llama: dict[str, str]) -> None:
    class Wrong(Stream):
        def from_files(self) -> Iterator[tuple[str, torch.Tensor]]:
            for name, tensor in super().from_files():
                if name == "model.layers.1.mlp.up_proj.weight":
                    tensor = tensor.clone()
                    tensor[3, 4] += 0.25
                yield name, tensor

    from merge_hooks.tools import verify as module

    stream = opened(ties(llama))
    original = module._Watched.__bases__
    module._Watched.__bases__ = (Wrong,)
    try:
        verdict = verify(stream)
    finally:
        module._Watched.__bases__ = original
    assert verdict.unequal == {"model.layers.1.mlp.up_proj.weight": 1}
    assert not verdict.is_equal and verdict.stream_digest != verdict.mergekit_digest


@pytest.mark.slow
def test_verify_of_a_random_method(llama: dict[str, str]) -> None:
    """With mergekit's own draws DARE is the same to the bit, and with another seed it is not."""
    data = ties(llama) | {"merge_method": "dare_ties"}
    data["models"] = [{**model, "parameters": {"weight": 0.6, "density": 0.5}} for model in data["models"]]
    resolved = resolve(read_recipe(data), seed=7, rng="mergekit")
    assert verify(open_stream(resolved)).is_equal
    assert not verify(open_stream(resolved, seed=8)).is_equal


@pytest.mark.parametrize(("documents", "script"), [(1, "run_yaml"), (2, "multimerge")])
@pytest.mark.parametrize("trusts", [False, True])
def test_mergekit_is_told_whether_code_of_models_is_trusted(
    documents: int, script: str, trusts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a recipe of stages too."""
    said: list[str] = []

    def run(command: list[str], **_: Any) -> Any:
        said.extend(command)
        return SimpleNamespace(returncode=0)

    from merge_hooks.tools import verify as module

    monkeypatch.setattr(module, "_documents", lambda resolved, done: [{}] * documents)
    monkeypatch.setattr(module.subprocess, "run", run)
    resolved: Any = SimpleNamespace(seed=7, trust_remote_code=trusts)
    module.run_mergekit(resolved, tmp_path)
    assert said[2] == f"mergekit.scripts.{script}" and said[said.index("--random-seed") + 1] == "7"
    assert ("--trust-remote-code" in said) is trusts
