"""Tiny families of checkpoints, mergekit run in this process as the yardstick, and our stream beside it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lm_eval_iberian.toy.tiny import build_family

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """base, instruct and basque, untied, float32, two layers' worth of work each."""
    return _family(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same with Qwen3's shapes: tied embeddings, bfloat16 files, `layer_types` in the config."""
    return _family(tmp_path_factory.mktemp("qwen"), "qwen3", dtype="bfloat16")


def _family(folder: Path, architecture: str, **options: Any) -> dict[str, str]:
    return {name: str(path) for name, path in build_family(folder, architecture, **options).items()}


@pytest.fixture
def mergekit(tmp_path: Path) -> Callable[..., Path]:
    """mergekit's own merge of a recipe: (recipe as a mapping, options) -> the folder that it wrote."""
    counter = itertools.count()

    def run(data: dict[str, Any], **options: Any) -> Path:
        from mergekit.config import MergeConfiguration
        from mergekit.io.tasks import LoaderCache
        from mergekit.merge import run_merge
        from mergekit.options import MergeOptions

        out = tmp_path / f"mergekit-{next(counter)}"
        LoaderCache.loaders.clear()
        config = MergeConfiguration.model_validate(data)
        cache = str(tmp_path / "folded")
        run_merge(config, str(out), MergeOptions(quiet=True, lora_merge_cache=cache, **options))
        LoaderCache.loaders.clear()
        return out

    return run


def tensors_of(folder: Path | str) -> Tensors:
    """All tensors of a checkpoint folder."""
    return {
        name: tensor for file in sorted(Path(folder).glob("*.safetensors")) for name, tensor in load_file(file).items()
    }


def streamed(data: Any) -> Tensors:
    """What our stream yields for a recipe."""
    from merge_hooks.recipe.recipe import read_recipe
    from merge_hooks.resolve.resolver import resolve
    from merge_hooks.stream.stream import open_stream

    return {name: tensor.clone() for name, tensor in open_stream(resolve(read_recipe(data)))}


def assert_same(ours: Tensors, theirs: Tensors) -> None:
    """Equal names, dtypes and bits."""
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name


@pytest.fixture
def compare() -> Callable[[Any, Path], None]:
    """Assert that our stream of a recipe is, bit for bit, what mergekit wrote into a folder."""

    def check(data: Any, folder: Path) -> None:
        assert_same(streamed(data), tensors_of(folder))

    return check
