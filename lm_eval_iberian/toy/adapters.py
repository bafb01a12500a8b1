"""LoRA adapters over the toy instruct model, one a language, trained by PEFT: what the second paper merges.

    build_adapters(Path("toys"))      # toys/adapters/basque, galician, catalan, spanish, english

Each reads what a language model of its language reads, a quarter of it English and Spanish. Only the factors are
trained. Each is seeded by itself: one that is trained anew changes no other.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lm_eval_iberian.toy import texts
from lm_eval_iberian.toy.train import (
    RECORD,
    REPLAY,
    Progress,
    Schedule,
    Settings,
    build_family,
    content_hash,
    is_whole,
    plain_tokens,
    train_model,
)
from merge_hooks.files import whole_folder

ADAPTERS = {"basque": "eu", "galician": "gl", "catalan": "ca", "spanish": "es", "english": "en"}
FOLDER = "adapters"
SCHEDULE = Schedule(150, 3e-3)


@dataclass(frozen=True)
class AdapterSettings:
    """All that decides what the adapters become, beside the code, the toys under them and the seed."""

    rank: int = 16
    alpha: int = 32
    schedule: Schedule = SCHEDULE


def build_adapters(
    folder: Path, seed: int = 0, settings: AdapterSettings | None = None, progress: Progress | None = None,
    names: tuple[str, ...] = tuple(ADAPTERS), family: Settings | None = None,
) -> dict[str, Path]:  # fmt: skip
    """Train what is not there yet; the family's instruct model is made where it is missing.

    Args:
        folder: of the family; an adapter goes to folder/adapters/NAME.
        seed: of the first factors and of what is read in which order; of the family, too.
        progress: told of each step.
        names: those wanted.
        family: the settings of the models under them.
    Returns:
        name -> folder of an adapter as PEFT writes it.
    """
    settings = settings or AdapterSettings()
    instruct = build_family(folder, seed, family, progress, models=("instruct",))["instruct"]
    paths = {name: folder / FOLDER / name for name in names}
    digest = adapters_hash(settings, family or Settings(), seed)
    for name, path in paths.items():
        if not is_whole(path, digest):
            model = train_adapter(instruct, name, seed, settings, progress)
            _keep(model, path, {"digest": digest, "seed": seed, "settings": asdict(settings)})
    return paths


def adapters_hash(settings: AdapterSettings, family: Settings, seed: int) -> str:
    """A stamp of the toys under the adapters, this file, the settings and the seed."""
    said = [content_hash(family, seed), asdict(settings), hashlib.sha256(Path(__file__).read_bytes()).hexdigest()]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def train_adapter(
    instruct: Path, name: str, seed: int, settings: AdapterSettings, progress: Progress | None = None
) -> Any:  # fmt: skip
    """One adapter, trained: PEFT's model of it over the instruct model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer, LlamaForCausalLM

    draw = random.Random(f"adapter {name} {seed}")
    torch.manual_seed(draw.randrange(2**32))
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM.from_pretrained(instruct, dtype=torch.float32), config)
    shares = {**dict.fromkeys(("en", "es"), REPLAY / 2), ADAPTERS[name]: 1 - REPLAY}
    read = plain_tokens(texts.plain_texts(draw, shares), AutoTokenizer.from_pretrained(instruct))
    train_model(model, itertools.chain.from_iterable(read), settings.schedule, name, progress)
    return model


def _keep(model: Any, path: Path, record: dict[str, Any]) -> None:
    """Write an adapter, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(path) as folder:
        model.save_pretrained(folder)
        (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
        shutil.rmtree(path, ignore_errors=True)
