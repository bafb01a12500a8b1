"""The signature: whatever can change the weights or what is done with them changes it; where things lie does not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from merge_hooks.errors import SourceError
from merge_hooks.recipe.recipe import passthrough, read_recipe
from merge_hooks.recipe.signature import Signature, recipe_digest, sign
from merge_hooks.resolve.resolver import refuse_changed, resolve
from tests.conftest import linear

STAMP: dict[str, str] = {
    "dtype": "float32",
    "tokenizer": "t",
    "template": "c",
    "engine": "transformers",
    "generation": "g",
}


def stamp(recipe: Any, seed: int = 0, rng: str = "iberian", **more: str) -> Signature:
    return sign(resolve(read_recipe(recipe), seed, rng), **{**STAMP, **more})


def dare(family: dict[str, Path], density: float = 0.5) -> dict[str, Any]:
    models = [{"model": str(family["basque"]), "parameters": {"weight": 1.0, "density": density}}]
    return {"merge_method": "dare_linear", "base_model": str(family["base"]), "models": models, "dtype": "float32"}


@pytest.mark.parametrize(
    "more",
    [{"dtype": "bfloat16"}, {"tokenizer": "x"}, {"template": "x"}, {"engine": "vllm"}, {"generation": "x"}],
    ids=str,
)
def test_what_runs_the_weights_is_in_the_signature_and_not_in_the_weights(
    llama: dict[str, Path], more: dict[str, str]
) -> None:
    one, other = stamp(linear(llama)), stamp(linear(llama), **more)
    assert one.digest != other.digest
    assert one.weights == other.weights
    assert str(one) != str(other)


def test_what_is_merged_is_in_both(llama: dict[str, Path]) -> None:
    signatures = [
        stamp(linear(llama)), stamp(linear(llama, weights=(1.0, 0.5))), stamp(linear(llama, "bfloat16")),
        stamp(linear(llama | {"basque": llama["base"]})), stamp(dare(llama)), stamp(dare(llama, 0.4)),
        stamp(dare(llama), seed=1), stamp(dare(llama), rng="mergekit"),
    ]  # fmt: skip
    assert len({one.digest for one in signatures}) == len({one.weights for one in signatures}) == len(signatures)
    assert stamp(linear(llama), seed=1) == stamp(linear(llama)), "nothing is drawn"


def test_versions_are_in_the_digest(llama: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    before = stamp(linear(llama))
    assert [name for name, _ in before.versions] == ["mergekit", "transformers", "lm_eval_iberian"]
    monkeypatch.setattr("merge_hooks.recipe.signature._version", lambda package: "99")
    after = stamp(linear(llama))
    assert before.digest != after.digest and before.weights == after.weights


def test_where_models_lie_and_what_they_are_called_says_nothing(llama: dict[str, Path], tmp_path: Path) -> None:
    moved = {name: Path(shutil.copytree(folder, tmp_path / f"other {name}")) for name, folder in llama.items()}
    one, other = stamp(linear(llama)), stamp(linear(moved))
    assert (one.digest, one.weights) == (other.digest, other.weights)
    assert str(tmp_path) not in one.format(short=True)
    swapped = stamp(linear(llama | {"basque": llama["instruct"], "instruct": llama["basque"]}))
    assert swapped.weights != one.weights, "but which model has which weight does"


def test_a_plain_model_is_one_however_it_is_cast(llama: dict[str, Path]) -> None:
    """Cast by its recipe to what the engine computes in, or by the engine; some of its layers are another model."""
    plain = str(llama["basque"])
    cast, rounded = passthrough(plain, dtype="float32"), passthrough(plain, dtype="bfloat16")
    assert stamp(passthrough(plain)).weights == stamp(cast).weights != stamp(rounded).weights
    part = {"merge_method": "passthrough", "dtype": "float32",
            "slices": [{"sources": [{"model": plain, "layer_range": [0, 1]}]}]}  # fmt: skip
    scaled = {
        "merge_method": "passthrough",
        "dtype": "float32",
        "models": [{"model": plain}],
        "parameters": {"scale": 0.5},
    }
    for recipe in (part, scaled):
        assert recipe_digest(resolve(read_recipe(recipe)), "float32") == recipe_digest(resolve(read_recipe(recipe)))


def test_the_first_pair_is_the_method_and_the_short_form_is_short(llama: dict[str, Path]) -> None:
    found = stamp(linear(llama))
    assert found.format().startswith(f"method:linear|sources:{llama['basque'].name}@")
    assert [key for key, _ in found.pairs] == [
        "method",
        "recipe",
        "dtype",
        "seed",
        "tokenizer",
        "template",
        "generation",
    ]
    long = dict(part.split(":", 1) for part in str(found).split("|"))
    assert all(print_ in long["sources"] for _, print_ in found.sources)


@pytest.mark.parametrize("trusted", [True, False])
def test_code_that_is_run_is_in_both_and_other_code_in_none(
    llama: dict[str, Path], tmp_path: Path, trusted: bool
) -> None:
    """Weights and config.json stay as they are; what is computed with them does not."""
    shutil.copytree(llama["base"], tmp_path / "model")

    def signed() -> Signature:
        return sign(resolve(passthrough(str(tmp_path / "model")), trust_remote_code=trusted), **STAMP)

    found = [signed()]
    for file, text in (("modeling_x.py", "a = 1"), ("modeling_x.py", "a = 2"), ("below/more.py", "a = 2")):
        (tmp_path / "model" / file).parent.mkdir(exist_ok=True)
        (tmp_path / "model" / file).write_text(text)
        found.append(signed())
    number = len(found) if trusted else 1
    assert len({one.digest for one in found}) == len({one.weights for one in found}) == number
    assert ("|code:" in str(found[-1])) == trusted


@pytest.mark.parametrize("before", ["a = 1", None])
def test_the_signature_is_of_the_code_that_was_there_when_the_model_was_opened(
    llama: dict[str, Path], tmp_path: Path, before: str | None
) -> None:
    """It is asked for when all answers are there, and somebody may have edited a file since."""
    shutil.copytree(llama["base"], tmp_path / "model")
    file = tmp_path / "model/modeling_x.py"
    if before:
        file.write_text(before)
    resolved = resolve(passthrough(str(tmp_path / "model")), trust_remote_code=True)
    assert resolved.prints  # as in `prepare`
    opened = sign(resolve(passthrough(str(tmp_path / "model")), trust_remote_code=True), **STAMP)
    refuse_changed(resolved)
    file.write_text("a = 2")
    assert sign(resolved, **STAMP) == opened
    with pytest.raises(SourceError, match=r"model/\*\.py changed on disk"):
        refuse_changed(resolved)
