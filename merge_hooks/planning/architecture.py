"""Which tensors a merge has, and in which layer each lies: mergekit's table where it fits the model, else our own.

mergekit 0.1.5 has a table for some fifty architectures and infers the others from the tensors' names. Tables ask for
tensors that some models of the architecture do not have (Command-R without norms of queries, Phi-4-mini without a head)
and leave out those of others (Falcon-7B). Inferred ones lose tensors that not every layer has, and cannot be stacked by
`slices`. So the model that transformers builds decides (`merge_hooks.architectures.built`):

- a table that covers it is used as it is, and what it asks for beyond the model is left out;
- otherwise all tensors of the model are merged, by transformers' names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from mergekit.architecture import ModelArchitecture, ModuleArchitecture, ModuleDefinition, WeightInfo

from merge_hooks.architectures.built import Built, in_any_layer
from merge_hooks.sources.checkpoint import Source


def architecture_of(config: Any, options: Any, built: Built | None, donor: Source) -> ModelArchitecture:
    """The architecture of a merge.

    Args:
        config: a MergeConfiguration.
        options: mergekit's MergeOptions.
        built: the merged model as transformers builds it; None: only mergekit is asked.
        donor: the source whose configuration the merge has.
    Raises:
        RuntimeError, ValueError: mergekit's, where only mergekit is asked.
    """
    from mergekit.architecture import get_architecture_info

    if built is None or config.modules:  # `modules:` names mergekit's own
        return get_architecture_info(config, options)
    table = _table(config, options)
    if table is None:
        return _own(built)
    names = [weight for module in table.modules.values() for weight in _weights(module, built.model.config)]
    known = [name for weight in names for name in (weight.name, *(weight.aliases or ()), *(weight.tied_names or ()))]
    if not covers(built, known, donor):
        return _own(built)
    return _fitted(table, lambda name: is_of(built, name, donor))


def covers(built: Built, names: Collection[str], donor: Source) -> bool:
    """Whether these names, of files or of the class, are all parameters of the model."""
    made = donor.conversion.targets_of if donor.conversion else {}
    reached = {target for name in names for target in (name, *made.get(name, ()))}
    reached |= {built.first_name(name) for name in reached}
    return built.required <= reached


def is_of(built: Built, name: str, donor: Source) -> bool:
    """Whether a name, of files or of the class, is a tensor of the model, or of a layer that it has not."""
    made = donor.conversion.targets_of if donor.conversion else {}
    return name in built.shapes or name in made or in_any_layer(name) in _layer_names(built, donor)


def _layer_names(built: Built, donor: Source) -> set[str]:
    """The names of tensors in the decoder's layers, without the layer's number."""
    made = donor.conversion.targets_of if donor.conversion else {}
    start = f"{built.layers}."
    inner = [name for name in built.shapes if built.layers and name.startswith(start)]
    inner += [name for name, targets in made.items() if built.layers and targets[0].startswith(start)]
    return {in_any_layer(name) for name in inner}


def _table(config: Any, options: Any) -> ModelArchitecture | None:
    """mergekit's table, if it has one, and one only, for the models. Models that do not fit are refused by `checks`."""
    from mergekit.architecture import arch_info_for_config

    configs = [model.config(trust_remote_code=options.trust_remote_code) for model in config.referenced_models()]
    if any(len(own.architectures or ()) != 1 for own in configs):
        return None
    first, *others = [arch_info_for_config(own) for own in configs]
    return first if all(other == first for other in others) else None


def _weights(module: ModuleDefinition, config: Any) -> list[WeightInfo]:
    from mergekit.architecture.base import _prefix_weight

    return [_prefix_weight(weight, module.weight_prefix) for weight in module.architecture.all_weights(config)]


class _Fitted(ModuleArchitecture):
    """One of mergekit's tables, without what the model does not have."""

    def __init__(self, table: ModuleArchitecture, prefix: str, is_of_model: Callable[[str], bool]) -> None:
        self.table, self._prefix, self._is_of_model = table, prefix, is_of_model

    def _left(self, weights: list[WeightInfo]) -> list[WeightInfo]:
        # Left optional, not out: files that hold such a tensor, as Pythia's on the Hub hold masks, are planned as
        # mergekit plans them, and its random methods draw for them.
        return [self._optional(weight) for weight in weights]

    def _optional(self, weight: WeightInfo) -> WeightInfo:
        names = (weight.name, *(weight.aliases or ()), *(weight.tied_names or ()))
        if any(self._is_of_model(self._prefix + name) for name in names):
            return weight
        return weight.model_copy(update={"optional": True})

    def pre_weights(self, config: Any) -> list[WeightInfo]:
        return self._left(self.table.pre_weights(config))

    def post_weights(self, config: Any) -> list[WeightInfo]:
        return self._left(self.table.post_weights(config))

    def layer_weights(self, index: int, config: Any) -> list[WeightInfo] | None:
        return self._left(self.table.layer_weights(index, config) or [])

    def num_layers_config_key(self) -> str:
        return self.table.num_layers_config_key()

    def num_layers(self, config: Any) -> int:
        return self.table.num_layers(config)


def _fitted(table: ModelArchitecture, is_of_model: Callable[[str], bool]) -> ModelArchitecture:
    modules = {
        name: module.model_copy(
            update={"architecture": _Fitted(module.architecture, module.weight_prefix or "", is_of_model)}
        )
        for name, module in table.modules.items()
    }
    return table.model_copy(update={"modules": modules})


class Own(ModuleArchitecture):
    """All tensors of a model, as transformers' class names them.

    Layers may differ from each other: each lists every tensor that some layer has, so that models can be stacked.
    """

    def __init__(self, built: Built) -> None:
        self._layers = f"{built.layers}."
        names = [name for name in built.shapes if name not in built.tied]
        self._axes = built.vocabulary_axes
        inner = [name for name in names if built.layers and name.startswith(self._layers)]
        first = names.index(inner[0]) if inner else len(names)
        self._before = names[:first]
        self._after = [name for name in names[first:] if name not in set(inner)]
        suffixes = [name.removeprefix(self._layers).partition(".")[2] for name in inner]
        self._suffixes = list(dict.fromkeys(suffixes))
        count = built.text_config.num_hidden_layers if inner else 0
        held = {suffix for suffix in self._suffixes if suffixes.count(suffix) < count}
        self._optional = held | {name for name in names if name not in built.required}
        own = built.text_config is built.model.config
        config = built.model.config
        parts = [key for key, value in vars(config).items() if value is built.text_config]
        self._key = "num_hidden_layers" if own or not parts else f"{parts[0]}.num_hidden_layers"

    def _weight(self, name: str, is_optional: bool) -> WeightInfo:
        return WeightInfo(name=name, optional=is_optional, vocabulary_axis=self._axes.get(name))

    def pre_weights(self, config: Any) -> list[WeightInfo]:
        return [self._weight(name, name in self._optional) for name in self._before]

    def post_weights(self, config: Any) -> list[WeightInfo]:
        return [self._weight(name, name in self._optional) for name in self._after]

    def layer_weights(self, index: int, config: Any) -> list[WeightInfo]:
        names = ((f"{self._layers}{index}.{suffix}", suffix) for suffix in self._suffixes)
        return [self._weight(name, suffix in self._optional or name in self._optional) for name, suffix in names]

    def num_layers_config_key(self) -> str:
        return self._key

    def num_layers(self, config: Any) -> int:
        return int(config.get_text_config(decoder=True).num_hidden_layers)


def _own(built: Built) -> ModelArchitecture:
    return ModelArchitecture(
        modules={"default": ModuleDefinition(architecture=Own(built))}, architectures=[], model_type=""
    )
