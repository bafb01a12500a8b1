"""Tiny families, texts, and one map of each model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lm_eval_iberian.toy.tiny import build_family
from merge_hooks.tools.fisher import Settings, make_map

TEXTS = ["Kaixo, mundua.", "Bos días a todos, e benvidos.", "Bon dia.", "Where is the library?", "¿Dónde está la casa?"]
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64}  # fmt: skip
CPU = Settings(max_length=32, device="cpu")


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text, "id": 1}) + "\n" for text in TEXTS), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A float32 Llama."""
    return build_family(tmp_path_factory.mktemp("fisher_llama"), **SMALL)


@pytest.fixture(scope="session")
def maps(family: dict[str, Path], texts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A map of each model of the family."""
    folder = tmp_path_factory.mktemp("maps")
    paths = {name: folder / f"{name}.safetensors" for name in family}
    for name, path in paths.items():
        make_map(str(family[name]), texts, path, CPU)
    return paths
