"""A model as transformers builds it from a config.json, on the meta device: names and shapes, no weights.

    built = built_from(source.config)      # None where transformers has no class of its own for it
    built.shapes["model.layers.0.mlp.up_proj.weight"]

The class decides what a merge must cover: mergekit's tables of architectures ask for more than some models have, and
leave out what others have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

# Models of so many layers are built at most.
BUILT_LAYERS = 1000
LAYER = re.compile(r"\.\d+\.")


@dataclass(frozen=True, eq=False)
class Built:
    """A model on the meta device.

    Args:
        model: an instance of transformers' class, whose tensors have shapes and no values.
    """

    model: Any

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that a checkpoint of it may hold, by transformers' name: parameters and kept buffers."""
        return {name: tuple(tensor.shape) for name, tensor in self.model.state_dict(keep_vars=True).items()}

    @cached_property
    def tied(self) -> dict[str, str]:
        """Names that share a parameter with another one, and the name that comes first (the embedding's)."""
        first: dict[int, str] = {}
        found = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            if (own := first.setdefault(id(parameter), name)) != name:
                found[name] = own
        return found

    @cached_property
    def required(self) -> set[str]:
        """The parameters that a checkpoint must hold, each under its first name."""
        return {name for name, _ in self.model.named_parameters()}

    @cached_property
    def vocabulary_axes(self) -> dict[str, int]:
        """The axis that token ids index, by name: embedding and head (weights and biases)."""
        ends = (self.model.get_input_embeddings(), self.model.get_output_embeddings())
        held = {id(own) for end in ends if end is not None for own in end.parameters(recurse=False)}
        named = self.model.named_parameters(remove_duplicate=False)
        return {name: 0 for name, parameter in named if id(parameter) in held}

    @cached_property
    def decoder(self) -> str:
        """The path of the text decoder within the model, e.g. "model" or "model.language_model"."""
        found = self.model.get_decoder()
        return next((path for path, module in self.model.named_modules() if module is found), "")

    @cached_property
    def layers(self) -> str:
        """The path of the decoder's list of layers, e.g. "model.layers"; "" where there is none."""
        import torch

        count = self.text_config.num_hidden_layers
        start = f"{self.decoder}." if self.decoder else ""
        for path, module in self.model.named_modules():
            if path.startswith(start) and isinstance(module, torch.nn.ModuleList) and len(module) == count:
                return path
        return ""

    @property
    def text_config(self) -> Any:
        """The decoder's configuration: the whole one, or a part of a multimodal model's."""
        return self.model.config.get_text_config(decoder=True)

    @cached_property
    def towers(self) -> frozenset[str]:
        """The tensors outside of the text decoder and its head: vision and audio towers, projectors."""
        if self.text_config is self.model.config:
            return frozenset()
        ends = set(self.vocabulary_axes)
        return frozenset(name for name in self.shapes if not name.startswith(f"{self.decoder}.") and name not in ends)

    @cached_property
    def transposed(self) -> frozenset[str]:
        """Matrices that are held (in, out) instead of (out, in): GPT-2's, which transformers calls Conv1D."""
        from transformers.pytorch_utils import Conv1D

        return frozenset(f"{path}.weight" for path, module in self.model.named_modules() if isinstance(module, Conv1D))

    def first_name(self, name: str) -> str:
        """The name under which a tied tensor comes first."""
        return self.tied.get(name, name)


def built_from(config: dict[str, Any]) -> Built | None:
    """The model of a config.json.

    Returns:
        None where transformers has no class for it (the code of a model on the Hub is never run for this), or where the
        class refuses the configuration.
    """
    if any(not isinstance(count, int) or count > BUILT_LAYERS for count in layer_counts(config)):
        return None
    return _built(json.dumps(config, sort_keys=True, default=str))


def layer_counts(config: Mapping[str, Any]) -> Iterator[Any]:
    """What a config.json says of numbers of layers, those of its decoder and towers too. It may say any number."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from layer_counts(value)
        elif key == "num_hidden_layers" or (
            isinstance(value, int) and (key.endswith(("_layers", "n_layer")) or key == "depth")
        ):
            yield value


@lru_cache(maxsize=16)
def _built(config: str) -> Built | None:
    import torch

    parsed = config_of(json.loads(config))
    kind = class_of(parsed) if parsed is not None else None
    if kind is None:
        return None
    try:
        with torch.device("meta"):
            return Built(make(kind, parsed, dtype=torch.float32))
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError, AssertionError, IndexError):
        return None  # whoever needs the model says what is wrong with its configuration


def config_of(config: dict[str, Any]) -> Any | None:
    """transformers' configuration from a config.json, with its defaults filled in; None if it is not known."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return None
    try:
        return CONFIG_MAPPING[kind].from_dict({key: value for key, value in config.items() if key != "auto_map"})
    except (ValueError, KeyError, TypeError, AttributeError, StrictDataclassError):
        return None


def class_of(config: Any) -> Any | None:
    """transformers' class that writes text with this configuration; None if there is none.

    The class that config.json names, if it is one; else the one that transformers has for the kind of configuration.
    """
    import transformers

    for name in config.architectures or ():
        kind = getattr(transformers, str(name), None)
        if isinstance(kind, type) and issubclass(kind, transformers.GenerationMixin) and _takes(kind, config):
            return kind
    mappings = [transformers.MODEL_FOR_CAUSAL_LM_MAPPING, transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING]
    if config.get_text_config(decoder=True) is not config:  # Qwen3.5's is in both, and the former has no tower
        mappings.reverse()
    for mapping in mappings:
        if type(config) in mapping:
            return mapping[type(config)]
    return None


def make(kind: Any, config: Any, **options: Any) -> Any:
    """A model of a class, where the caller's `torch.device` says.

    transformers' public `AutoModelFor....from_config` chooses the class by the kind of configuration alone, and so may
    take another one than config.json names; what it calls then is this.

    Args:
        options: dtype, attn_implementation.
    """
    return kind._from_config(config, **options)


def _takes(kind: type, config: Any) -> bool:
    """Whether a class is for this kind of configuration."""
    wanted = getattr(kind, "config_class", None)
    return wanted is not None and isinstance(config, wanted)


def sibling_names(model: Built, other: Built) -> dict[str, str]:
    """What a model calls the tensors of another class with the same text decoder: a text model's, a multimodal one's.

    Returns:
        A name of `model` -> the name of `other`, for the decoder and its head; empty if the decoders are not of the same
        tensors.
    """
    ours, theirs = _decoder_tensors(model), _decoder_tensors(other)
    if not ours or {in_any_layer(name) for name in ours} != {in_any_layer(name) for name in theirs}:
        return {}
    return {name: theirs[inner] for inner, name in ours.items() if inner in theirs}


def in_any_layer(name: str) -> str:
    """A tensor's name without the number of its layer."""
    return LAYER.sub(".#.", name, count=1)


def _decoder_tensors(built: Built) -> dict[str, str]:
    """The tensors of the text decoder by their names within it, and its head as "head.weight"."""
    start = f"{built.decoder}." if built.decoder else ""
    found = {name.removeprefix(start): name for name in built.shapes if name.startswith(start)}
    heads = {name for name in built.vocabulary_axes if not name.startswith(start)}
    untied = {f"head.{name.rpartition('.')[2]}": name for name in heads if name not in built.tied}
    return {**found, **untied}
