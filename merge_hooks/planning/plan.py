"""mergekit's plan of a recipe, in layer order, over our own reading of the sources.

Checked with mergekit 0.1.5. mergekit parses and plans: slices, gradients, filters and tokenizer alignment are its
semantics and must stay so. From its plan we take, for each output tensor in layer order, what is to be read, and which
method with which resolved parameters is to be applied. Reading is ours (`merge_hooks.sources`), and so are the order
and the lifetime of every tensor (`merge_hooks.stream`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from merge_hooks.architectures.built import Built, built_from, layer_counts, sibling_names
from merge_hooks.architectures.conversion import Conversion, Part, to_files, to_model
from merge_hooks.architectures.kinds import HYBRID, kinds_of
from merge_hooks.errors import PreflightError
from merge_hooks.machine.hushed import TORCH_DTYPE, hushed
from merge_hooks.planning.architecture import Own, architecture_of, is_of
from merge_hooks.planning.config import MAX_LAYERS, dump_config, ordered_references, reference_key
from merge_hooks.planning.output import OutputTensor
from merge_hooks.planning.reading import SourceReader, in_words
from merge_hooks.planning.registry import register_methods
from merge_hooks.sources.checkpoint import Source

if TYPE_CHECKING:
    import torch

    from merge_hooks.sources.residents import ResidentReader

_READING = threading.RLock()


class Plan:
    """mergekit's plan of a whole recipe: its output tensors in layer order.

    Args:
        config: a MergeConfiguration whose models are local folders.
        sources: each source by its folder.
        trust_remote_code: whether configurations may bring code of their own.
    Raises:
        PreflightError: mergekit cannot plan it, e.g. mixed architectures or unequal slices.

    What a text is not read with (vision and audio towers, projectors) is taken from the donor as it is, unless the recipe
    names it: in `modules:`, or in a `filter` of its parameters. What only files hold, and no model computes with (masks,
    tables of angles, a copy of a tied head), is left out.
    """

    def __init__(self, config: Any, sources: dict[str, Source], trust_remote_code: bool = False) -> None:
        from huggingface_hub.errors import StrictDataclassError
        from mergekit.io.tasks import SaveTensor
        from mergekit.merge import _model_out_config
        from mergekit.options import MergeOptions
        from mergekit.plan import MergePlanner
        from mergekit.tokenizer import BuildTokenizer

        register_methods()
        self._sources = sources
        self._read = [(reference, sources[reference_key(reference)]) for reference in ordered_references(config)]
        _refuse_endless(sources)
        self.donor = self._read[0][1] if config.base_model is None else sources[reference_key(config.base_model)]
        self.built = self.donor.built
        self.siblings = _siblings(self.built, self.donor, [source for _, source in self._read])
        _call_as_donor(self.donor, [source for _, source in self._read])
        options = MergeOptions(trust_remote_code=trust_remote_code)
        self._named = _names_in(config)
        # The planner writes into the configuration it is given.
        config = config.model_copy(deep=True)
        try:
            with self.reading():
                architecture = architecture_of(config, options, self.built, self.donor)
                with hushed(*TORCH_DTYPE):
                    self.model_config = _model_out_config(config, architecture, trust_remote_code)
                self.unlike_layers = _follow_layers(self.model_config, config, trust_remote_code)
                planner = MergePlanner(config, architecture, options, self.model_config)
                # The plan for writing to disk, of which nothing is ever run: plan_in_memory() of 0.1.5 raises a
                # TypeError with pydantic 2.14 (it validates one generic Task against another).
                self._tasks = tasks = planner.plan_to_disk(out_path=os.devnull)
            MergePlanner._model_arch.cache_clear()  # it keeps the last 128 planners, with their configurations
        except (RuntimeError, ValueError, KeyError, TypeError, IndexError, OSError, StrictDataclassError) as error:
            found = _named_twice(config, sources) or _misplaced(config, error) or in_words(error)
            raise PreflightError(f"mergekit cannot plan this recipe: {found}.") from error
        self.architecture = architecture
        self._own = any(isinstance(module.architecture, Own) for module in architecture.modules.values())
        # All that mergekit would compute: its random methods draw for each.
        self._planned = [self._output(task) for task in tasks if isinstance(task, SaveTensor)]
        once = {output.name: output for output in reversed(self._planned)}  # some tables list a tensor in two modules
        self.tensors = [output for output in self._planned
                        if once[output.name] is output and self._is_computed_with(output.name)]  # fmt: skip
        self.tokenizer_task = next((task for task in tasks if isinstance(task, BuildTokenizer)), None)

    def update_vocabulary(self, tokenizer: Any, pad_to_multiple_of: int | None) -> None:
        """Set the vocabulary size of the merged model's configuration to the tokenizer's, padded."""
        from mergekit.merge import _update_config_vocab

        _update_config_vocab(self.model_config, self.architecture, tokenizer, pad_to_multiple_of)

    @contextmanager
    def reading(self, reader: ResidentReader | None = None, in_files: bool = False) -> Iterator[None]:
        """While this lasts, mergekit's tasks read through our sources, which check what they read, or from residents.

        With `in_files` they find only the names that the files have: mergekit's order goes by these.

        Only one thread at a time: mergekit's table of loaders and the generator of its random methods belong to the
        process.
        """
        from mergekit.io.tasks import LoaderCache

        with _READING:
            # Put back afterwards: plans of a merge of merges take turns in reading, and may share sources.
            before = {reference: LoaderCache.loaders.get(reference) for reference, _ in self._read}
            for reference, source in self._read:
                LoaderCache.loaders[reference] = SourceReader(source, reader, in_files)
            try:
                yield
            finally:
                for reference, reader in before.items():
                    if reader is not None:
                        LoaderCache.loaders[reference] = reader
                    else:  # otherwise the table would hold on to our plan and its mapped files
                        LoaderCache.loaders.pop(reference, None)

    def _output(self, save: Any) -> OutputTensor:
        weight, gather = save.tensor_task.output_weight, save.tensor_task.gather_tensors
        gather = getattr(gather, "gather_tensors", gather)
        inputs = {
            reference_key(reference): [info.name, *(info.aliases or ()), *(info.tied_names or ())]
            for reference, info in gather.weight_info.items()
        }
        is_optional, taken = weight.optional, self._is_taken(weight.name)
        if taken:
            inputs = {self.donor.key: inputs.get(self.donor.key) or [weight.name]}
        elif self._own and self.built is not None:
            # Optional there are tensors that not every layer has; but where one source has it, all must.
            is_optional = weight.optional and weight.name not in self.built.required
        return OutputTensor(
            weight.name, inputs, is_optional, weight.vocabulary_axis, save.dtype, save.tensor_task, self._sources, taken
        )

    def _model_names(self, name: str) -> tuple[str, ...]:
        """The tensors of transformers' class that a planned tensor is, or is a part of."""
        assert self.built is not None
        if name in self.built.shapes or self.donor.conversion is None:
            return (name,)
        return self.donor.conversion.targets_of.get(name, (name,))  # else perhaps of a layer that the donor has not

    def _is_computed_with(self, name: str) -> bool:
        """Whether the model computes with this tensor."""
        if self.built is None:
            return True
        names = self._model_names(name)
        if names and all(own in self.built.tied for own in names):
            return False  # it is the embedding, under a second name
        return bool(names) and is_of(self.built, name, self.donor)

    def _is_taken(self, name: str) -> bool:
        """Whether a tensor is the donor's own, not merged: a tower's, unless the recipe names it."""
        if self._named is None or not self._is_of_tower(name):
            return False
        return not any(part in own for own in (name, *self._model_names(name)) for part in self._named)

    def as_in_files(self, tensors: Iterator[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors of the text decoder as a checkpoint on the Hub holds them: experts one by one, the older prefixes.

        Args:
            tensors: all of this plan's, in its order. Those of towers are left out.
        """
        return tensors if self._in_files is None else self._in_files.stream(tensors)

    def names_in_files(self, name: str) -> tuple[str, ...]:
        """What `as_in_files` makes of one tensor; nothing of a tower's."""
        return (name,) if self._in_files is None else self._in_files.targets_of.get(name, ())

    @cached_property
    def _in_files(self) -> Conversion | None:
        if self.built is None:
            return None
        outputs = [output for output in self.tensors if not self._is_of_tower(output.name)]
        # Looked up in each tensor's own source: stacked layers may be more than the donor has.
        shapes = {output.name: shape for output in outputs if (shape := output.shape_of_made())}
        parts = to_files(self.built, shapes, shapes).parts
        parts += [Part({one.name: one.name}, {one.name: ()}, None, None) for one in outputs if one.name not in shapes]
        return Conversion(parts, [])

    @property
    def left_out(self) -> set[str]:
        """Tensors that mergekit would write and no model computes with: masks, tables, a copy of a tied head."""
        return {output.name for output in self._planned} - {output.name for output in self.tensors}

    @property
    def is_hybrid(self) -> bool:
        """Whether some layers keep a state (Mamba, linear attention, convolutions) where attention keeps keys."""
        return self.built is not None and HYBRID in kinds_of(self.built)

    @property
    def has_towers(self) -> bool:
        """Whether the merged model is multimodal. Texts are then all that it is asked."""
        return self.built is not None and bool(self.built.towers)

    def _is_of_tower(self, name: str) -> bool:
        if self.built is None or not self.built.towers:
            return False
        names = self._model_names(name)
        return bool(names) and all(own in self.built.towers for own in names)

    def uncovered(self) -> list[str]:
        """The parameters of the merged model that no planned tensor fills, by transformers' names."""
        built, parts = self._filled
        filled = {target for part in parts for target in part.targets}
        return sorted(built.required - {built.first_name(name) for name in filled}) if built is not None else []

    @property
    def is_a_model(self) -> bool:
        """Whether transformers makes a model of the merged configuration, if it makes one of the donor's."""
        return self.built is None or self._filled[0] is not None

    def misshapen(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """The planned tensors that have another shape than the merged model's: theirs, and that of the model.

        Vocabularies are left out where the recipe's tokenizer arranges them anew, and experts, which are put together.
        """
        built, parts = self._filled
        if built is None:
            return {}
        found = {}
        outputs = {output.name: output for output in self.tensors}
        for part in parts:
            output = outputs[next(iter(part.sources))]
            is_arranged = self.tokenizer_task is not None and output.vocabulary_axis is not None
            if part.converter is not None or is_arranged or not output.entries:
                continue
            own, wanted = output.entries[0].shape, built.shapes[part.targets[0]]
            if own != wanted:
                found[output.name] = (own, wanted)
        return found

    @cached_property
    def _filled(self) -> tuple[Built | None, list[Part]]:
        """The merged model, and what becomes of each planned tensor in it."""
        built = built_from(self.model_config.to_dict()) if self.built is not None else None
        return built, to_model(built, [output.name for output in self.tensors], None).parts if built is not None else []

    def __iter__(self) -> Iterator[OutputTensor]:
        return iter(self.tensors)

    def in_execution_order(self) -> list[OutputTensor]:
        """The tensors in the order in which mergekit-yaml computes them: by their names in the sources."""
        from mergekit.graph import Executor

        with self.reading(in_files=True):
            scheduled = [handle.task() for handle in Executor(targets=self._tasks).schedule.tasks]
        places = {task: place for place, task in enumerate(scheduled)}
        return sorted(self._planned, key=lambda output: places[output.merge])


def _names_in(config: Any) -> set[str] | None:
    """The parts of tensors' names that a recipe speaks of, in its filters; None if it uses `modules:`."""
    if config.modules:
        return None
    found: set[str] = set()
    waiting: list[Any] = [dump_config(config)]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if isinstance(name := item.get("filter"), str) and name != "*":
                found.add(name)
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return found


def _named_twice(config: Any, sources: dict[str, Source]) -> str:
    """The model that one list names twice, perhaps by two paths, in words; "" if none does."""
    parts = [config, *(config.modules or {}).values()]
    lists = [part.models or [] for part in parts] + [one.sources for part in parts for one in part.slices or []]
    for entries in lists:
        places = [(reference_key(entry.model), getattr(entry, "layer_range", None)) for entry in entries]
        twice = next((key for key, layers in places if places.count((key, layers)) > 1), None)
        if twice is not None:
            return (
                f"{sources[twice].name} is listed twice among the models that are merged with each other (two paths may lead "
                "to one folder). List it once, with the sum of the weights"
            )
    return ""


def _misplaced(config: Any, error: Exception) -> str:
    """mergekit's error where the layers that a model has at two places are of unlike tensors, in words; else ""."""
    if not isinstance(error, IndexError) or not any(part.slices for part in (config, *(config.modules or {}).values())):
        return ""
    return "`slices:` puts a layer where the configuration has one of other tensors (an expert layer after the first dense ones)"


def _siblings(built: Built | None, donor: Source, sources: list[Source]) -> set[str]:
    """Text models beside a multimodal one with the same decoder, and the other way: their tensors get the donor's names.

    Returns:
        The keys of the sources that are of another class than the donor, and fit it.
    """
    found = set()
    for source in sources:
        if built is None or source.built is None or type(source.built.model) is type(built.model):
            continue
        if names := sibling_names(built, source.built):
            source.call({new: own for new, own in names.items() if own in source.entries and new not in source.entries})
            found.add(source.key)
    return found


def _call_as_donor(donor: Source, sources: list[Source]) -> None:
    """A model of the donor's class, whose files have the class's names where the donor's have older ones, gets these too.

    mergekit's tables list the older names for some classes (Qwen2.5-VL, Mistral 3), and transformers 5 writes others.
    """
    if donor.built is None or donor.conversion is None:
        return
    names = donor.conversion.renamed
    for source in sources:
        if source.built is not None and type(source.built.model) is type(donor.built.model):
            held = source.entries
            source.call({old: own for old, own in names.items() if old not in held and own in held})


def _refuse_endless(sources: dict[str, Source]) -> None:
    """A config.json may name any number of layers, and mergekit would plan for hours."""
    for source in sources.values():
        for layers in layer_counts(source.config):
            if not isinstance(layers, int) or layers > MAX_LAYERS:
                raise PreflightError(f"{source.name}: config.json says {layers!s:.20} layers. Is it damaged?")


def _follow_layers(model_config: Any, config: Any, trust_remote_code: bool) -> list[str]:
    """Give a model of slices one entry for each layer in `layer_types` and the like: each layer keeps its kind.

    mergekit sets only the number of layers. With transformers 5 it then stops when it saves a config that has such a
    list (Qwen3, Gemma 3).

    Returns:
        The settings by which layers of unlike kinds are merged with each other.
    """
    modules = list((config.modules or {}).values())
    slices = config.slices or (modules[0].slices if len(modules) == 1 else None)
    if not slices:
        return []
    configs = {one.model: _text(one.model.config(trust_remote_code=trust_remote_code))
               for part in slices for one in part.sources}  # fmt: skip
    merged, unlike = _text(model_config), []
    for key, value in list(vars(merged).items()):
        if not isinstance(value, list):
            continue
        kinds = [[_of_layers(key, configs[one.model], one.layer_range) for one in part.sources] for part in slices]
        if any(first is None for first, *_ in kinds):
            continue
        setattr(merged, key, [kind for first, *_ in kinds for kind in first or ()])
        if any(own not in (None, first) for first, *others in kinds for own in others):
            unlike.append(key)
    return unlike


def _text(config: Any) -> Any:
    return config.get_text_config(decoder=True)


def _of_layers(key: str, config: Any, layers: tuple[int, int]) -> list[Any] | None:
    """What a setting says of these layers; None if it has no entry for each layer."""
    value = getattr(config, key, None)
    is_by_layer = "layer" in key and isinstance(value, list) and len(value) == config.num_hidden_layers
    return value[layers[0] : layers[1]] if is_by_layer and isinstance(value, list) else None
