"""The names of tensors in files, and those that transformers' class has; and the way from one to the other.

    conversion = to_model(built, names)             # names: as the files have them
    for part in conversion.parts: ...               # ("...experts.0.up_proj.weight", ...) -> "...experts.gate_up_proj"

Checkpoints of mixtures hold their experts one by one, transformers 5 holds them in one tensor; multimodal checkpoints
and many older ones have other prefixes. transformers knows the way for each class (`transformers.conversion_mapping`),
and takes it in `from_pretrained`; here the same is done tensor by tensor. Checked with transformers 5.19
(`core_model_loading.convert_and_load_state_dict_in_model` and `revert_weight_conversion`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from merge_hooks.architectures.built import Built
from merge_hooks.errors import SourceError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Part:
    """Tensors that become others together: one that is renamed, or the experts that become one tensor.

    Args:
        sources: names on this side, each with the pattern that it matched, in the order in which they are stacked.
        shapes: of the tensors on the other side, by name.
        converter: transformers' WeightConverter; None: the tensor is only renamed.
        model: on the meta device, for the converter.
    """

    sources: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    converter: Any
    model: Any

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.shapes)

    def convert(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of the other side.

        Args:
            tensors: by the names of `sources`; all of them.
        """
        if self.converter is None:
            return {next(iter(self.shapes)): tensors[next(iter(self.sources))]}
        return _converted(self.converter, next(iter(self.shapes)), {name: tensors[name] for name in self.sources},
                          self.sources, self.model)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Conversion:
    """How all tensors of a checkpoint become those of a model, or the other way.

    Args:
        parts: in the order in which their first sources come.
        unused: names that have no place on the other side.
        again: of these, second names of a tensor that has come (a prefix and none), each with the first name.
    """

    parts: list[Part]
    unused: list[str]
    again: dict[str, str] = field(default_factory=dict)

    @cached_property
    def targets_of(self) -> dict[str, tuple[str, ...]]:
        """For each tensor of this side, those that are made of it."""
        return {name: part.targets for part in self.parts for name in part.sources}

    @property
    def renamed(self) -> dict[str, str]:
        """For each tensor of this side that becomes another as it is, its name there."""
        return {next(iter(part.sources)): part.targets[0] for part in self.parts if part.converter is None}

    def targets(self) -> dict[str, Part]:
        """The part that makes each tensor of the other side."""
        return {target: part for part in self.parts for target in part.targets}

    def stream(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors of the other side, as soon as those that they are made of have come. Unused ones are left out."""
        part_of = {name: part for part in self.parts for name in part.sources}
        waiting: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors:
            part = part_of.get(name)
            if part is None:
                continue
            if len(part.sources) == 1:
                yield from part.convert({name: tensor}).items()
                continue
            held = waiting.setdefault(id(part), {})
            # An engine may use a tensor's memory again for the next one.
            held[name] = tensor
            if len(held) == len(part.sources):
                yield from part.convert(waiting.pop(id(part))).items()


def to_model(built: Built, names: Iterable[str], shapes: Mapping[str, tuple[int, ...]] | None) -> Conversion:
    """From the names in a checkpoint to those of the class.

    Args:
        names: of the checkpoint's tensors.
        shapes: of these tensors, by name; None: those that the class wants, which is enough to know what becomes of them.
    """
    from transformers.core_model_loading import rename_source_key

    renamings, converters = _transforms(built.model)
    known = built.shapes
    held = dict.fromkeys(known, True)  # rename_source_key asks for values that are not None
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    found: dict[str, tuple[Any, dict[str, str]]] = {}
    unused, again = [], {}
    for name in _sorted(names):
        new, pattern = rename_source_key(name, renamings, converters, built.model.base_model_prefix, held)
        if new not in known and name in known:
            new, pattern = name, None
        if new not in known:
            unused.append(name)
            continue
        converter = by_pattern[pattern] if pattern is not None else None
        _, sources = found.setdefault(new, (converter, {}))
        if converter is None and sources:  # two names of one tensor, e.g. a prefix and none
            unused.append(name)
            again[name] = next(iter(sources))
            continue
        sources[name] = pattern or name
    return Conversion(list(_parts(found, shapes, built.model)), unused, again)


def to_files(built: Built, names: Iterable[str], shapes: Mapping[str, tuple[int, ...]]) -> Conversion:
    """From the names of the class to those that checkpoints on the Hub have, as `save_pretrained` writes them."""
    from transformers.core_model_loading import rename_source_key

    renamings, converters = _transforms(built.model, reverse=True)
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    found: dict[str, tuple[Any, dict[str, str]]] = {}
    for name in _sorted(names):
        new, pattern = rename_source_key(name, renamings, converters, reverse=True)
        converter = by_pattern[pattern] if pattern is not None else None
        _, sources = found.setdefault(new, (converter, {}))
        sources[name] = pattern or name
    return Conversion(list(_parts(found, shapes, built.model)), [])


def _transforms(model: Any, reverse: bool = False) -> tuple[list[Any], list[Any]]:
    """transformers' renamings and converters for a class."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import PrefixChange, WeightConverter, WeightRenaming

    transforms = get_model_conversion_mapping(model, add_legacy=not reverse)
    if reverse:
        # As transformers' own `revert_weight_conversion`: whether a prefix was there before is not known.
        kept = [one for one in transforms if not isinstance(one, PrefixChange)]
        transforms = [one.reverse_transform() for one in reversed(kept)]
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    return renamings, [one for one in transforms if isinstance(one, WeightConverter)]


def _sorted(names: Iterable[str]) -> list[str]:
    """Names in transformers' order, in which the tenth expert comes after the second."""
    from transformers.core_model_loading import dot_natural_key

    return sorted(names, key=dot_natural_key)


def _parts(
    found: dict[str, tuple[Any, dict[str, str]]], shapes: Mapping[str, tuple[int, ...]] | None, model: Any
) -> Iterator[Part]:
    import torch

    for target, (converter, sources) in found.items():
        if converter is None:
            yield Part(sources, {target: shapes[next(iter(sources))] if shapes else ()}, None, model)
            continue
        if shapes is None:
            yield Part(sources, {target.replace(converter.target_patterns[0], one, 1): () for one in
                                 converter.target_patterns}, converter, model)  # fmt: skip
            continue
        empty = {name: torch.empty(shapes[name], device="meta") for name in sources}
        made = _converted(converter, target, empty, sources, model)
        yield Part(sources, {name: tuple(tensor.shape) for name, tensor in made.items()}, converter, model)


def _converted(
    converter: Any, target: str, tensors: dict[str, torch.Tensor], patterns: Mapping[str, str], model: Any
) -> dict[str, torch.Tensor]:
    own = deepcopy(converter)  # it collects
    for name, tensor in tensors.items():
        own.add_tensor(target, name, patterns[name], tensor)
    try:
        found = own.convert(target, model=model, config=model.config)
    except (RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:
        raise SourceError(
            f"{next(iter(tensors))} and {len(tensors) - 1} more tensors do not become {target}: {error}. "
            "Are all experts there, and of one shape?"
        ) from error
    return {name: value[0] if isinstance(value, list) else value for name, value in found.items()}
