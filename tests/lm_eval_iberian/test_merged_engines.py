"""Slices and unions in both engines, against mergekit's checkpoint scored by lm_eval's own `hf`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_eval_iberian.toy.tiny import build_family

pytestmark = pytest.mark.slow
QUESTIONS = [
    ("Kaixo, zer moduz? ", "Ondo, eskerrik asko."),
    ("La capital de Galicia", " és Santiago."),
    ("One", " two"),
]
FLOAT = {"dtype": "float32"}


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    built = build_family(tmp_path_factory.mktemp(request.param), request.param)
    return {name: str(path) for name, path in built.items()}


def frankenmerge(family: dict[str, str], _folder: Path) -> dict[str, Any]:
    """Seven layers out of models with four: a stack of two models, the middle layers merged."""
    base, basque = family["base"], family["basque"]
    both = [{"model": model, "layer_range": [1, 3], "parameters": {"weight": 0.5}} for model in (base, basque)]
    return FLOAT | {
        "merge_method": "linear",
        "parameters": {"weight": 1.0, "normalize": True},
        "slices": [{"sources": [{"model": base, "layer_range": [0, 2]}]}, {"sources": both},
                   {"sources": [{"model": basque, "layer_range": [1, 4]}]}],
    }  # fmt: skip


def union(family: dict[str, str], folder: Path) -> dict[str, Any]:
    """Two tokenizers, one with two tokens more."""
    import shutil

    from transformers import AutoModelForCausalLM, AutoTokenizer

    longer = str(shutil.copytree(family["instruct"], folder / "longer"))
    tokenizer = AutoTokenizer.from_pretrained(longer)
    tokenizer.add_tokens(["moduz", "Galicia"])
    tokenizer.save_pretrained(longer)
    model = AutoModelForCausalLM.from_pretrained(longer)
    torch.manual_seed(3)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(longer)
    models = [{"model": family["base"]}, {"model": longer}]
    return FLOAT | {"merge_method": "linear", "base_model": family["base"], "models": models,
                    "parameters": {"weight": 0.5, "normalize": True}, "tokenizer_source": "union"}  # fmt: skip


def mergekits_checkpoint(data: dict[str, Any], folder: Path) -> str:
    """What mergekit writes, ready to be loaded.

    With transformers 5 mergekit 0.1.5 stops after the weights where a config lists its layers' kinds (Qwen3) and
    slices change their number; the rest is then done by hand, as its user would.
    """
    from huggingface_hub.errors import StrictDataclassClassValidationError
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions
    from transformers import AutoTokenizer

    out = folder / "mergekit"
    try:
        run_merge(MergeConfiguration.model_validate(data), str(out), MergeOptions(quiet=True))
    except StrictDataclassClassValidationError:
        donor = data["slices"][0]["sources"][0]["model"]
        config = json.loads((Path(donor) / "config.json").read_text())
        config |= {"num_hidden_layers": 7, "layer_types": ["full_attention"] * 7, "dtype": "float32"}
        (out / "config.json").write_text(json.dumps(config))
        AutoTokenizer.from_pretrained(donor).save_pretrained(out)
    return str(out)


def log_likelihoods(model: Any) -> list[float]:
    from lm_eval.api.instance import Instance

    requests = [Instance("loglikelihood", {}, question, index) for index, question in enumerate(QUESTIONS)]
    return [score for score, _ in model.loglikelihood(requests, disable_tqdm=True)]


@pytest.mark.parametrize("recipe", [frankenmerge, union])
def test_engines_score_as_mergekits_checkpoint(
    recipe: Any, family: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.models.huggingface import HFLM

    from lm_eval_iberian.models.hf import MergedHF
    from lm_eval_iberian.models.vllm import MergedVLLM

    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"))
    data = recipe(family, tmp_path)
    theirs = log_likelihoods(HFLM(pretrained=mergekits_checkpoint(data, tmp_path), device="cpu", dtype="float32"))
    assert log_likelihoods(MergedHF(recipe=data, device="cpu")) == pytest.approx(theirs, abs=1e-5)
    engine = MergedVLLM(recipe=data, max_model_len=256)
    assert log_likelihoods(engine) == pytest.approx(theirs, abs=1e-3)
