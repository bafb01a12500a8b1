"""The kinds of models, and what was seen of each class: `iberian models` prints this.

    kinds_of(built)         # ("multimodal", "mixture of experts")
    families()              # the rows of families.yml

A kind is told by what the built model contains, not by a word in its configuration. Whether an engine may swap is told
by no table: the engine's proof decides that, each time. The table says what the proof found.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from merge_hooks.architectures.built import Built

DENSE, HYBRID = "dense", "hybrid"
# Kind -> "module:function" that says of a Built whether it is of this kind, in the order in which kinds are named. A new
# kind is such a function, and its line here.
KINDS = {
    "multimodal": "merge_hooks.architectures.kinds:is_multimodal",
    HYBRID: "merge_hooks.architectures.kinds:is_hybrid",
    "mixture of experts": "merge_hooks.architectures.kinds:is_mixture",
}


@dataclass(frozen=True)
class Family:
    """One class of models, as it was tested.

    Args:
        name: what people call it.
        model_class: transformers' class.
        kinds: of `kinds_of`.
        transformers: "swaps": merged and swapped there, held against mergekit's checkpoint.
        vllm: "swaps", "restarts" (an engine for each merge: a layer cannot be asked), or why it is not there.
    """

    name: str
    model_class: str
    kinds: tuple[str, ...]
    transformers: str
    vllm: str


def kinds_of(built: Built) -> tuple[str, ...]:
    """What a model is beside a dense text decoder; (DENSE,) if it is nothing else."""
    return tuple(kind for kind, place in KINDS.items() if pkgutil.resolve_name(place)(built)) or (DENSE,)


def is_multimodal(built: Built) -> bool:
    """Whether it has towers beside its text decoder."""
    return bool(built.towers)


def is_hybrid(built: Built) -> bool:
    """Short convolutions stand before every state space and linear attention, and in LFM2 in the place of attention."""
    import torch

    return any(isinstance(module, torch.nn.Conv1d) for module in _decoder_modules(built))


def is_mixture(built: Built) -> bool:
    """Whether any part of the decoder holds experts."""
    return any(map(_has_experts, _decoder_modules(built)))


def _decoder_modules(built: Built) -> Iterable[Any]:
    modules: Iterable[Any] = built.model.get_submodule(built.decoder).modules()
    return modules


def _has_experts(module: Any) -> bool:
    import torch

    if isinstance(module, torch.nn.ModuleList):
        return False
    count = next((value for key in ("num_experts", "num_local_experts", "n_routed_experts")
                  if isinstance(value := getattr(module, key, None), int)), 0)  # fmt: skip
    return count > 1 and any(own.ndim == 3 and len(own) == count for own in module.parameters(recurse=False))


def families() -> tuple[Family, ...]:
    """The rows of families.yml, in its order."""
    return tuple(
        Family(row["name"], row["class"], tuple(row["kinds"]), row.get("transformers", "swaps"), row["vllm"])
        for row in _table()["families"]
    )


def tested_with() -> dict[str, str]:
    """The versions that the rows were seen with, by package."""
    return dict(_table()["tested with"])


@cache
def _table() -> dict[str, Any]:
    import yaml

    text = resources.files(__package__).joinpath("families.yml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table


def family_of(model_class: str) -> Family | None:
    """The row of a class, if it was tested."""
    return next((family for family in families() if family.model_class == model_class), None)
