"""Recipes that nobody would think of, by us and by mergekit: every byte is the same, or both refuse.

Methods, models, parameters as numbers, gradients and filters, slices, dtypes and tokenizers come together at random.
IBERIAN_FUZZ=200 tries more recipes than `make test` does, and others each time.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mergekit import merge_methods
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import LoaderCache
from mergekit.merge import run_merge
from mergekit.merge_methods.base import BasePolicy
from mergekit.options import MergeOptions

from lm_eval_iberian.toy.tiny import ARCHITECTURES, build_family
from merge_hooks.errors import MergeHooksError
from merge_hooks.methods import register as own_methods
from tests.merge_hooks.test_all_methods import METHODS, PRUNED, SEED, SMALL, Tensors, bytes_differ, streamed, written

EXAMPLES = int(os.environ.get("IBERIAN_FUZZ", "12"))
NAMES = ("base", "instruct", "basque")
DTYPES = ("float32", "bfloat16", "float16")
WHERE = ("self_attn", "mlp", "input_layernorm", "q_proj", "embed_tokens", "lm_head", "norm")
NUMBERS = {
    "weight": st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0, 1.3, 2, -0.4]),
    "density": st.sampled_from([0.02, 0.1, 0.3, 0.5, 0.8, 1.0]),
    "t": st.sampled_from([0, 0.2, 0.5, 0.9, 1]),
    "gamma": st.sampled_from([0.0, 0.01, 0.05]),
    "epsilon": st.just(0.01),  # with every density but 1
    "lambda": st.sampled_from([0.5, 1.0, 1.2, -1]),
    "select_topk": st.sampled_from([0.1, 0.5, 1.0]),
}
SWITCHES = ("normalize", "rescale", "int8_mask", "nuslerp_flatten", "nuslerp_row_wise")


def parameter(name: str) -> st.SearchStrategy[Any]:
    """A number, a gradient over layers, or values by filter."""
    number = NUMBERS[name] if name in NUMBERS else st.booleans()
    if name in SWITCHES:
        return number
    gradient = st.lists(number, min_size=2, max_size=5)
    filtered = st.lists(
        st.builds(lambda where, value: {"filter": where, "value": value}, st.sampled_from(WHERE), number | gradient),
        min_size=1, max_size=2,
    )  # fmt: skip
    return number | gradient | st.builds(lambda some, rest: [*some, {"value": rest}], filtered, number)


def parameters(draw: st.DrawFn, names: set[str]) -> dict[str, Any]:
    known = sorted(names & {*NUMBERS, *SWITCHES})
    return {name: draw(parameter(name)) for name in known if name in ("weight", "density", "t") or draw(st.booleans())}


@st.composite
def recipes(draw: st.DrawFn) -> tuple[tuple[str, str], dict[str, Any]]:
    """(architecture and dtype of the models' files, a recipe in which NAMES stand for models)."""
    files = draw(st.sampled_from(sorted(ARCHITECTURES))), draw(st.sampled_from(DTYPES))
    method = draw(st.sampled_from(sorted(METHODS - set(own_methods.OURS))))
    recipe: dict[str, Any] = {"merge_method": method, "dtype": draw(st.sampled_from(DTYPES))}
    if draw(st.booleans()):
        recipe["out_dtype"] = draw(st.sampled_from(DTYPES))
    if method == "passthrough":
        pieces = draw(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 9), st.integers(1, 3)), min_size=1,
                               max_size=3))  # fmt: skip
        return files, recipe | {"slices": [{"sources": [{"model": name, "layer_range": [first, first + count]}]}
                                           for name, first, count in pieces]}  # fmt: skip
    spec = merge_methods.get(method).spec
    contract = spec.contract
    has_base = contract.base == BasePolicy.REQUIRED or (contract.base == BasePolicy.OPTIONAL and draw(st.booleans()))
    most = min(contract.max_inputs or 3, (contract.max_non_base or 2) + has_base, 3)
    names = draw(st.permutations(NAMES))[: draw(st.integers(min(2, most), most))]
    if has_base:
        recipe["base_model"] = "base"
        names = ["base", *(name for name in names if name != "base")][:most]
    own = {item.name for item in spec.input_parameters}
    models = [{"model": name, "parameters": parameters(draw, own)} for name in names]
    recipe["parameters"] = parameters(draw, {item.name for item in spec.shared_parameters})
    if draw(st.booleans()):
        recipe["models"] = models
    else:
        ranges = draw(st.sampled_from([((0, 6), (6, 12)), ((0, 12),), ((0, 4), (2, 9)), ((3, 5),)]))
        recipe["slices"] = [{"sources": [model | {"layer_range": list(one)} for model in models]} for one in ranges]
    if source := draw(st.sampled_from([None, None, "base", "union"])):
        recipe["tokenizer_source"] = source
    return files, recipe


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, str]], dict[str, Path]]:
    made: dict[tuple[str, str], dict[str, Path]] = {}

    def of(files: tuple[str, str]) -> dict[str, Path]:
        if files not in made:
            made[files] = build_family(tmp_path_factory.mktemp("-".join(files)), files[0], dtype=files[1], **SMALL)
        return made[files]

    return of


def by_mergekit(recipe: dict[str, Any], folder: Path) -> Tensors | None:
    """What mergekit writes; None where it refuses."""
    shutil.rmtree(folder, ignore_errors=True)
    LoaderCache.loaders.clear()  # it must not read through our readers
    options = MergeOptions(quiet=True, copy_tokenizer=False, random_seed=SEED, write_model_card=False)
    try:
        run_merge(MergeConfiguration.model_validate(recipe), str(folder), options)
    except (RuntimeError, ValueError, StrictDataclassError):
        return None
    finally:
        LoaderCache.loaders.clear()
    return written(folder)


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, derandomize="IBERIAN_FUZZ" not in os.environ,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])  # fmt: skip
@given(drawn=recipes())
def test_a_recipe_of_any_kind_gives_mergekits_bytes(drawn: Any, family: Any, tmp_path: Path) -> None:
    files, recipe = drawn
    folders = {name: str(folder) for name, folder in family(files).items()}
    named = placed(recipe, folders)
    golden = by_mergekit(named, tmp_path / "merged")
    try:
        ours = dict(streamed(json.loads(json.dumps(named)), seed=SEED, rng="mergekit"))
    except MergeHooksError as error:
        assert golden is None or not all(tensor.isfinite().all() for tensor in golden.values()), error
        return
    if golden is None:  # of the layers' kinds that Qwen3's configuration lists, mergekit takes as many as before
        assert files[0] == "qwen3" and "slices" in recipe
        return
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in golden.items()
    }
    if recipe["merge_method"] in PRUNED:  # tied elements: see kernels/test_ways.py
        differing = sum(int((ours[name] != golden[name]).sum()) for name in golden)
        assert differing < 0.02 * sum(tensor.numel() for tensor in golden.values())
    else:
        assert [name for name in golden if bytes_differ(ours[name], golden[name])] == []


def placed(value: Any, folders: dict[str, str]) -> Any:
    """With the folders of the models that are named."""
    if isinstance(value, dict):
        return {key: folders[inside] if key in ("model", "base_model") else placed(inside, folders)
                for key, inside in value.items()}  # fmt: skip
    if isinstance(value, list):
        return [placed(inside, folders) for inside in value]
    return value
