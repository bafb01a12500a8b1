"""Recipes over the toy family: the paper's methods, a language model and the instruct model."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lm_eval_iberian.toy.texts import paragraph
from lm_eval_iberian.toy.train import LANGUAGE_MODELS

# Parameters of each method beside the weights, as the paper has them (DARE's density where mergekit reads it).
METHODS: dict[str, dict[str, float]] = {
    "linear": {},
    "task_arithmetic": {},
    "ties": {"density": 0.5},
    "dare_ties": {"density": 0.5},
    "breadcrumbs": {"density": 0.9, "gamma": 0.01},
}


def recipe(
    models: Mapping[str, Path | str], language_model: str, method: str = "linear", weight: float = 1.0
) -> dict[str, Any]:
    """A recipe in mergekit's terms.

    Args:
        models: name -> checkpoint, of the whole family.
        language_model: "basque", "galician" or "catalan"; its weight is `weight`, the instruct model's 1.
        method: a key of METHODS.
    """
    made: dict[str, Any] = {
        "merge_method": method,
        "models": [
            {"model": str(models[name]), "parameters": {"weight": share, **METHODS[method]}}
            for name, share in ((language_model, weight), ("instruct", 1.0))
        ],
        "dtype": "float32",
    }
    return made if method == "linear" else {**made, "base_model": str(models["base"])}


def write_recipes(folder: Path) -> list[Path]:
    """Write merge-basque.yml, texts-basque.jsonl and so on into the folder.

    Each recipe merges a language model by task arithmetic (README.md says why). The texts are samples of what each
    model reads, for `iberian fisher`.
    """
    written = [_write_texts(folder, "instruct", "es")]
    for language_model in LANGUAGE_MODELS:
        names = ("base", "instruct", language_model)
        made = recipe({name: (folder / name).resolve() for name in names}, language_model, "task_arithmetic")
        path = folder / f"merge-{language_model}.yml"
        path.write_text(yaml.safe_dump(made, sort_keys=False), encoding="utf-8")
        written += [path, _write_texts(folder, language_model, LANGUAGE_MODELS[language_model])]
    return written


def _write_texts(folder: Path, model: str, language: str) -> Path:
    """200 texts of the training part, one a line."""
    draw = random.Random(f"texts {model}")
    path = folder / f"texts-{model}.jsonl"
    said = (json.dumps({"text": paragraph(draw, language)}, ensure_ascii=False) for _ in range(200))
    path.write_text("\n".join(said) + "\n", encoding="utf-8")
    return path
