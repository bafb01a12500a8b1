"""What an adapter's adapter_config.json may say, so that its fold is known exactly.

PEFT's file has some forty keys. A key that is set, and is neither implemented here nor known to be harmless, stops the
run and is named. Checked with peft 0.21 (tuners/lora/config.py).
"""

from __future__ import annotations

import math
import re
from typing import Any

from merge_hooks.errors import SourceError

CONFIG = "adapter_config.json"
# Keys that the fold follows.
_READ = {"r", "lora_alpha", "use_rslora", "use_dora", "alpha_pattern", "rank_pattern", "modules_to_save", "peft_type",
         "init_lora_weights", "bias", "fan_in_fan_out"}  # fmt: skip
# Keys that concern training only, or say in advance what the tensors' names say again.
_HARMLESS = {"task_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version",
             "target_modules", "exclude_modules", "lora_dropout", "layers_to_transform", "layers_pattern",
             "megatron_config", "megatron_core", "loftq_config", "runtime_config", "ensure_weight_tying",
             "eva_config", "qalora_group_size"}  # fmt: skip
# Ways to start the factors that leave the base model's weights alone.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
# alpha_pattern's keys are regular expressions from somebody else's file: no nested or many repeats.
_MAX_REPEATS = 2


def refuse_unknown(settings: dict[str, Any], adapter: str) -> None:
    """Check a parsed adapter_config.json. Raises SourceError, naming each key that is set and not implemented here."""
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise SourceError(
            f"{adapter}: a {kind} adapter; only LoRA is folded here. Fold it with peft and name the model."
        )
    if not _is_number(settings.get("lora_alpha")):
        raise SourceError(f"{adapter}: {CONFIG} gives no number for `lora_alpha`, so the scaling is not known.")
    rank = settings.get("r")
    if type(rank) is not int or rank < 1:
        raise SourceError(f"{adapter}: {CONFIG} says r = {rank!r:.80}; the rank is a whole number of 1 or more.")
    _check_kinds(settings, adapter)
    strange = [key for key, value in settings.items() if value and key not in _READ | _HARMLESS]
    if settings.get("bias", "none") != "none":
        strange.append("bias")
    if settings.get("init_lora_weights", True) not in _PLAIN_STARTS:
        strange.append(f"init_lora_weights={settings['init_lora_weights']}")
    if strange:
        raise SourceError(not_done(adapter, strange))
    for pattern in settings.get("alpha_pattern") or {}:
        _check_pattern(pattern, adapter)


def not_done(adapter: str, keys: list[str]) -> str:
    """The message for keys that are set and not followed here."""
    return (
        f"{adapter}: {CONFIG} sets {', '.join(keys)}, which changes how the adapter folds and is not done here. "
        "Fold it with peft's merge_and_unload() and name the folded model."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_kinds(settings: dict[str, Any], adapter: str) -> None:
    """Raises SourceError where a key that the fold follows holds what it cannot: the text "false" is not false."""
    for key in ("alpha_pattern", "rank_pattern"):
        patterns = settings.get(key) or {}
        if not isinstance(patterns, dict) or not all(_is_number(value) for value in patterns.values()):
            raise SourceError(f"{adapter}: {CONFIG}: `{key}` should name a number for each module. Mend the file.")
    for key in ("use_rslora", "use_dora"):
        if not isinstance(settings.get(key), (bool, type(None))):
            raise SourceError(f"{adapter}: {CONFIG}: `{key}`: {settings[key]!r:.80} is neither true nor false.")


def _check_pattern(pattern: str, adapter: str) -> None:
    """Refuse keys of alpha_pattern that could run for ever: they are matched as regular expressions."""
    repeats = re.findall(r"[*+?{]", pattern)
    try:
        re.compile(pattern)
    except re.error:
        repeats = ["*"] * (_MAX_REPEATS + 1)
    if len(repeats) > _MAX_REPEATS or re.search(r"\)[*+?{]", pattern) or len(pattern) > 300:
        raise SourceError(
            f"{adapter}: alpha_pattern has the key {pattern[:80]!r}, which is too involved to be matched safely. "
            'Write module names, e.g. "layers.0.self_attn.q_proj".'
        )


def by_pattern(patterns: dict[str, float], module: str, default: float) -> float:
    """PEFT's look-up (utils/other.py, `get_pattern_key`): the first key that matches the module's end."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
