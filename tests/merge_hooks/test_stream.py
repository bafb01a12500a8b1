"""The stream against mergekit's own output: the same names, the same bytes, in layer order, and nothing written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from merge_hooks.checks.preflight import check_fit
from merge_hooks.errors import PreflightError, SourceError
from merge_hooks.recipe.recipe import passthrough, read_recipe
from merge_hooks.resolve.resolver import from_payload, resolve
from merge_hooks.stream.stream import open_stream
from tests.conftest import linear, task_arithmetic


def stream_of(recipe: Any) -> Any:
    return open_stream(resolve(read_recipe(recipe)))


def checkpoint(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def same_bytes(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert set(ours) == set(theirs)
    different = [
        name for name in theirs if ours[name].dtype != theirs[name].dtype or not torch.equal(ours[name], theirs[name])
    ]
    assert not different


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("recipe", [linear, task_arithmetic])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_same_bytes_as_mergekit(family: str, recipe: Any, dtype: str, request: Any, mergekit_merge: Any) -> None:
    written = recipe(request.getfixturevalue(family), dtype)
    same_bytes(dict(stream_of(written)), checkpoint(mergekit_merge(written)))


def test_tensors_come_in_layer_order(llama: dict[str, Path]) -> None:
    names = [name for name, _ in stream_of(linear(llama))]
    layers = [int(name.split(".")[2]) for name in names if name.startswith("model.layers.")]
    assert names[0] == "model.embed_tokens.weight"
    assert layers == sorted(layers)


def test_a_stream_can_be_read_again(llama: dict[str, Path]) -> None:
    stream = stream_of(linear(llama))
    same_bytes(dict(stream), dict(stream))


def test_a_payload_rebuilds_the_same_merge_elsewhere(qwen3: dict[str, Path]) -> None:
    resolved = resolve(read_recipe(task_arithmetic(qwen3)))
    same_bytes(dict(open_stream(from_payload(resolved.payload()))), dict(open_stream(resolved)))


def test_paths_with_at_and_plus_survive_the_payload(llama: dict[str, Path], tmp_path: Path) -> None:
    strange = tmp_path / "run@3+best"
    strange.symlink_to(llama["instruct"])
    recipe = passthrough(str(strange))
    same_bytes(dict(open_stream(from_payload(resolve(recipe).payload()))), checkpoint(llama["instruct"]))


def test_passthrough_is_the_model_itself(qwen3: dict[str, Path]) -> None:
    same_bytes(dict(open_stream(resolve(passthrough(str(qwen3["basque"]))))), checkpoint(qwen3["basque"]))


def test_the_stream_holds_one_tensor_of_each_source_at_a_time(llama: dict[str, Path]) -> None:
    """Reading is lazy: before the first tensor is asked for, no file is mapped; then one tensor follows the other."""
    stream = stream_of(linear(llama))
    assert not any(source._handles for source in stream.resolved.sources.values())
    name, first = next(iter(stream))
    assert first.numel() > 0 and name == "model.embed_tokens.weight"


def test_nothing_is_written(llama: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    for variable in ("TMPDIR", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        (tmp_path / variable).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    recipe = {"merge_method": "linear", **linear(llama)}
    before = sorted(tmp_path.rglob("*"))
    for _ in stream_of(recipe):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def corrupt(source: Path, target: Path, change: Any) -> Path:
    """A copy of a checkpoint with changed tensors."""
    import shutil

    shutil.copytree(source, target)
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_nan_in_a_source_is_named(llama: dict[str, Path], tmp_path: Path) -> None:
    def poison(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.2.mlp.up_proj.weight"][3, 5] = math.nan

    bad = corrupt(llama["instruct"], tmp_path / "bad", poison)
    with pytest.raises(SourceError, match=r"bad.*model\.layers\.2\.mlp\.up_proj\.weight.*NaN"):
        dict(stream_of(linear({**llama, "instruct": bad})))


def test_weights_that_cancel_are_not_blamed_on_a_source(llama: dict[str, Path]) -> None:
    with pytest.raises(SourceError, match="though its sources have none"):
        dict(stream_of(linear(llama, weights=(1.0, -1.0))))


def test_a_truncated_file_is_noticed_before_any_weight_is_read(llama: dict[str, Path], tmp_path: Path) -> None:
    bad = corrupt(llama["instruct"], tmp_path / "cut", lambda tensors: None)
    file = bad / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(SourceError, match=r"model\.safetensors is not a whole safetensors file"):
        check_fit(stream_of(linear({**llama, "instruct": bad})))


def test_a_missing_tensor_is_named(llama: dict[str, Path], tmp_path: Path) -> None:
    bad = corrupt(llama["instruct"], tmp_path / "gap", lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(PreflightError, match=r"gap lacks 1 tensors, e\.g\. model\.layers\.1\.mlp\.up_proj\.weight"):
        check_fit(stream_of(linear({**llama, "instruct": bad})))


def test_other_shapes_are_refused(llama: dict[str, Path], tmp_path: Path) -> None:
    from lm_eval_iberian.toy.tiny import build_tokenizer, random_model, save

    tokenizer = build_tokenizer()
    wide = tmp_path / "wide"
    save(random_model("llama", len(tokenizer), 3, intermediate_size=192), tokenizer, wide)
    with pytest.raises(PreflightError, match=r"mlp.*differs in shape"):
        check_fit(stream_of(linear({**llama, "instruct": wide})))


def test_another_architecture_is_refused(llama: dict[str, Path], qwen3: dict[str, Path]) -> None:
    with pytest.raises(PreflightError, match="architecture"):
        check_fit(stream_of(linear({**llama, "instruct": qwen3["instruct"]})))


def test_another_vocabulary_size_is_refused_with_the_fix(llama: dict[str, Path], tmp_path: Path) -> None:
    from lm_eval_iberian.toy.tiny import build_tokenizer, random_model, save

    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<|more|>"])
    larger = tmp_path / "larger"
    save(random_model("llama", len(tokenizer), 3), tokenizer, larger)
    with pytest.raises(PreflightError, match="tokenizer_source: base"):
        check_fit(stream_of(linear({**llama, "instruct": larger})))


def test_same_size_but_other_tokens_is_refused(llama: dict[str, Path], tmp_path: Path) -> None:
    import json
    import shutil

    other = tmp_path / "other"
    shutil.copytree(llama["instruct"], other)
    content = json.loads((other / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    first, second = sorted(vocabulary, key=vocabulary.get)[500:502]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(PreflightError, match="different tokens to the same ids"):
        check_fit(stream_of(linear({**llama, "instruct": other})))


def test_a_file_that_changes_during_the_merge_is_noticed(llama: dict[str, Path], tmp_path: Path) -> None:
    import os

    moving = corrupt(llama["instruct"], tmp_path / "moving", lambda tensors: None)
    with pytest.raises(SourceError, match="changed during the merge"):
        for _ in stream_of(linear({**llama, "instruct": moving})):
            os.utime(moving / "model.safetensors", ns=(1, 1))


def test_a_missing_shard_is_named(tmp_path: Path, llama: dict[str, Path]) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(llama["instruct"])
    model.save_pretrained(tmp_path / "sharded", max_shard_size="300KB")
    files = sorted((tmp_path / "sharded").glob("*.safetensors"))
    assert len(files) > 2
    files[1].unlink()
    with pytest.raises(SourceError, match=f"1 of {len(files)} weight files are missing.*{files[1].name}"):
        check_fit(stream_of(linear({**llama, "instruct": tmp_path / "sharded"})))


@given(sizes=st.lists(st.integers(0, 9), max_size=30), most=st.integers(0, 20))
def test_tensors_are_begun_ahead_in_order_and_not_too_many(sizes: list[int], most: int) -> None:
    from merge_hooks.stream.lookahead import Queued, lookahead

    begun: list[int] = []
    gone_on: list[int] = []

    def begin() -> Iterator[Any]:
        for place, size in enumerate(sizes):
            begun.append(place)
            yield Queued(place, size, lambda: None, partial(gone_on.append, place))  # type: ignore[arg-type]

    used = []
    for one in lookahead(begin(), most):
        used.append(one.output)
        waiting = [sizes[place] for place in begun if place not in used]
        # What is used, and the one that made it too many, come on top.
        assert sum(waiting[:-1]) <= most
        assert waiting or len(used) == len(sizes)
        assert gone_on == begun[:-1]  # the last one's search goes on by itself, or when it is waited for
    assert used == list(range(len(sizes)))
