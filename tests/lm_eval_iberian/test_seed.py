"""The seed of a random method reaches the stream, the workers and the signature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lm_eval_iberian.models.merge import prepare, sign_model
from merge_hooks.errors import RecipeError
from merge_hooks.resolve.resolver import from_payload
from merge_hooks.stream.stream import open_stream
from tests.conftest import task_arithmetic


def dare(family: dict[str, Path]) -> dict[str, Any]:
    recipe = task_arithmetic(family, "float32") | {"merge_method": "dare_ties"}
    return recipe | {"parameters": {"density": 0.5}}


def tensors(prepared: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in prepared.stream}


def stamp(prepared: Any) -> str:
    return str(sign_model(prepared, "float32", "transformers"))


@pytest.mark.slow
def test_the_seed_reaches_everything(llama: dict[str, Path]) -> None:
    first, second = (prepare(dare(llama), None, arguments={"merge_seed": seed}) for seed in (1, 2))
    one, two = tensors(first), tensors(second)
    assert any(not torch.equal(one[name], two[name]) for name in one)
    elsewhere = dict(open_stream(from_payload(first.resolved.payload())))
    assert all(torch.equal(one[name], elsewhere[name]) for name in one)
    assert "|seed:1|" in stamp(first) and "|seed:2|" in stamp(second)
    assert first.resolved.seed == 1


def test_deterministic_methods_have_no_seed(llama: dict[str, Path]) -> None:
    assert "|seed:none|" in stamp(prepare(task_arithmetic(llama), None, arguments={"merge_seed": 1}))


def test_the_engines_arguments_are_left_alone(llama: dict[str, Path]) -> None:
    arguments = {"merge_seed": "3", "seed": 7, "max_model_len": 128}
    assert prepare(dare(llama), None, arguments=arguments).resolved.seed == 3
    assert arguments == {"seed": 7, "max_model_len": 128}


@pytest.mark.parametrize(
    ("arguments", "message"), [({"rng": "dice"}, "rng=dice"), ({"merge_seed": "x"}, "merge_seed=x")]
)
def test_what_is_no_seed(arguments: dict[str, Any], message: str, llama: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match=message):
        prepare(dare(llama), None, arguments=arguments)


def test_the_signature_stamps_what_was_read(
    llama: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is hashed once, before the weights are read, and not again when the results are written."""
    import shutil

    from merge_hooks import hashing

    family = {name: Path(shutil.copytree(path, tmp_path / name)) for name, path in llama.items()}
    hashed: list[Path] = []
    original = hashing.content_hash
    monkeypatch.setattr(hashing, "content_hash", lambda folder, files: hashed.append(folder) or original(folder, files))
    prepared = prepare(task_arithmetic(family), None)
    before = stamp(prepared)
    with (family["basque"] / "model.safetensors").open("ab") as file:
        file.write(b"changed after the merge was read")
    assert stamp(prepared) == before
    assert sorted(hashed) == sorted(family.values())
