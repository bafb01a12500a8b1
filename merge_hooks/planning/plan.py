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
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import count
from typing import TYPE_CHECKING, Any

from merge_hooks.errors import PreflightError, RecipeError
from merge_hooks.kernels.operands import Operand, Operands
from merge_hooks.planning.config import MAX_LAYERS, ordered_references, reference_key
from merge_hooks.planning.reading import SourceReader, in_words, left_where_they_are, run_task
from merge_hooks.planning.registry import register_methods
from merge_hooks.sources.checkpoint import Source

if TYPE_CHECKING:
    import torch

    from merge_hooks.sources.residents import Pass

CHECKED_VERSIONS = ("0.1.5",)
_READING = threading.RLock()


@dataclass(frozen=True)
class OutputTensor:
    """One tensor of the merge, not computed yet.

    Args:
        name: its name in the checkpoint, e.g. "model.layers.0.mlp.up_proj.weight".
        inputs: for each source folder, the names under which it may hold the tensor, the preferred name first.
        is_optional: whether sources may lack it (tied heads).
        vocabulary_axis: the axis that token ids index, else None.
        dtype: what the result is cast to, as mergekit names it; None: it is not cast.
        merge: mergekit's ExecuteMergeMethodTask: method, resolved parameters, order of the models.
        sources: each source by its folder.
    """

    name: str
    inputs: dict[str, list[str]]
    is_optional: bool
    vocabulary_axis: int | None
    dtype: str | None
    merge: Any
    sources: dict[str, Source]

    def parameter(self, name: str) -> Any:
        """The value of a parameter of the whole merge, as resolved for this tensor."""
        return self.merge.parameters[name]

    def parameter_of_inputs(self, name: str) -> dict[str, Any]:
        """The value of a per-model parameter, as resolved for this tensor, by source."""
        return {reference_key(key): values[name] for key, values in self.merge.input_parameters.items()}

    def compute(self, memory: dict[str, Any]) -> torch.Tensor | None:
        """The merged tensor, by mergekit's own method; None for an optional tensor that no source has."""
        from mergekit.common import dtype_from_name

        try:
            tensor = run_task(self.merge, memory)
        except (RuntimeError, ValueError, KeyError, TypeError, AssertionError, IndexError) as error:
            raise RecipeError(f"mergekit cannot merge {self.name}: {in_words(error)}.") from error
        return tensor if tensor is None or not self.dtype else tensor.to(dtype=dtype_from_name(self.dtype))

    def operands(self, view: Pass | None = None) -> Operands | None:
        """What a kernel of ours is given; None where mergekit has rules of its own (see `gathered`).

        Tensors come as they are stored, and a kernel casts them block by block. They are read here and not by
        mergekit's tasks, which take longer to start than a small tensor takes to merge.

        Args:
            view: the residents to read from; None: the sources' files.
        """
        from mergekit.io.tasks import GatherTensors

        gather = self.merge.gather_tensors
        if not isinstance(gather, GatherTensors):  # aligned to a tokenizer
            return None
        dtypes = {info.force_dtype or gather.dtype for info in gather.weight_info.values()}
        held = {key: name for key, names in self.inputs.items() if (name := self.sources[key].first_held(names))}
        if len(dtypes) != 1 or len(held) != len(self.inputs):
            return None
        tensors = {key: view.read(self.sources[key], name) if view else self.sources[key].read(name)
                   for key, name in held.items()}  # fmt: skip
        return self._operands(tensors, dtypes.pop(), held, view)

    def gathered(self, memory: dict[str, Any], view: Pass | None = None) -> Operands | None:
        """The same from what mergekit's tasks gather, within `Plan.reading`.

        None where mergekit has rules of its own: tensors that some source lacks, integer buffers, and shapes that do
        not fit (mergekit then says why).
        """
        from mergekit.io.tasks import GatherTensors

        gather = self.merge.gather_tensors
        if not isinstance(gather, GatherTensors):  # aligned to a tokenizer, and cast
            aligned = run_task(gather, memory)
            return self._operands(
                {reference_key(reference): tensor for reference, tensor in aligned.items()}, None, None, view
            )
        loads = dict(zip(gather.weight_info.keys(), gather.arguments().values(), strict=True))
        dtypes = {load.dtype for load in loads.values()}
        if len(dtypes) != 1:
            return None
        as_stored = {"dtype": None}
        with left_where_they_are(loads):
            tensors = {
                reference_key(reference): load.model_copy(update=as_stored).execute()
                for reference, load in loads.items()
            }
        if any(tensor is None for tensor in tensors.values()):
            return None
        return self._operands(tensors, dtypes.pop(), None, view)

    def _operands(
        self, tensors: dict[str, torch.Tensor], dtype: str | None, held: dict[str, str] | None, view: Pass | None
    ) -> Operands | None:
        """From the source tensors.

        Args:
            tensors: by source, as they are stored or cast.
            dtype: what they are to be cast to; None: to what they promote to.
            held: their names in the sources; None where they are not the sources' own.
        """
        import torch
        from mergekit.common import dtype_from_name

        order = [reference_key(reference) for reference in self.merge.model_order]
        if set(tensors) != set(order) or len(tensors) != len(order):
            return None
        shapes = {tensor.shape for tensor in tensors.values()}
        if len(shapes) != 1 or not all(tensor.is_floating_point() for tensor in tensors.values()):
            return None
        merged_in = dtype_from_name(dtype) or reduce(torch.promote_types, (tensor.dtype for tensor in tensors.values()))
        base = reference_key(self.merge.base_model) if self.merge.base_model is not None else None
        parameters = {reference_key(reference): own for reference, own in self.merge.input_parameters.items()}
        inputs: list[Operand] = []
        places = count()
        for key in order:
            own = dict(parameters[key].items()) if key in parameters else {}
            place = None if key == base else next(places)
            factors = partial(self._factors, key, base, held) if held and base and key != base else None
            origin = view.origin(self.sources[key], held[key]) if view and held else None
            inputs.append(Operand(tensors[key], place, own, factors, origin))
        operands = Operands(
            name=self.name,
            method=self.merge.method_name,
            inputs=tuple(inputs),
            parameters=dict(self.merge.parameters.items()),
            dtype=merged_in,
            out_dtype=dtype_from_name(self.dtype) or merged_in,
        )
        if view is None:
            return operands
        return replace(operands, keep=view.residents.keep, kept=view.residents.kept)

    def _factors(self, key: str, base: str, held: dict[str, str]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """A source's difference to the base as factors (see `Operand`), if it is an adapter over that base."""
        source = self.sources[key]
        return source.low_rank_update(held[key], self.sources[base])


class Plan:
    """mergekit's plan of a whole recipe: its output tensors in layer order.

    Args:
        config: a MergeConfiguration whose models are local folders.
        sources: each source by its folder.
        trust_remote_code: whether configurations may bring code of their own.
    Raises:
        PreflightError: mergekit cannot plan it, e.g. mixed architectures or unequal slices.
    """

    def __init__(self, config: Any, sources: dict[str, Source], trust_remote_code: bool = False) -> None:
        from huggingface_hub.errors import StrictDataclassError
        from mergekit.architecture import get_architecture_info
        from mergekit.io.tasks import SaveTensor
        from mergekit.merge import _model_out_config
        from mergekit.options import MergeOptions
        from mergekit.plan import MergePlanner
        from mergekit.tokenizer import BuildTokenizer

        register_methods()
        self._sources = sources
        self._read = [(reference, sources[reference_key(reference)]) for reference in ordered_references(config)]
        _refuse_endless(sources)
        options = MergeOptions(trust_remote_code=trust_remote_code)
        # The planner writes into the configuration it is given.
        config = config.model_copy(deep=True)
        try:
            with self.reading():
                architecture = get_architecture_info(config, options)
                self.model_config = _model_out_config(config, architecture, trust_remote_code)
                _follow_layers(self.model_config, config, trust_remote_code)
                planner = MergePlanner(config, architecture, options, self.model_config)
                # The plan for writing to disk, of which nothing is ever run: plan_in_memory() of 0.1.5 raises a
                # TypeError with pydantic 2.14 (it validates one generic Task against another).
                self._tasks = tasks = planner.plan_to_disk(out_path=os.devnull)
            MergePlanner._model_arch.cache_clear()  # it keeps the last 128 planners, with their configurations
        except (RuntimeError, ValueError, KeyError, TypeError, IndexError, OSError, StrictDataclassError) as error:
            raise PreflightError(f"mergekit cannot plan this recipe: {in_words(error)}.") from error
        self.architecture = architecture
        self.tensors = [self._output(task) for task in tasks if isinstance(task, SaveTensor)]
        self.tokenizer_task = next((task for task in tasks if isinstance(task, BuildTokenizer)), None)

    def update_vocabulary(self, tokenizer: Any, pad_to_multiple_of: int | None) -> None:
        """Set the vocabulary size of the merged model's configuration to the tokenizer's, padded."""
        from mergekit.merge import _update_config_vocab

        _update_config_vocab(self.model_config, self.architecture, tokenizer, pad_to_multiple_of)

    @contextmanager
    def reading(self, view: Pass | None = None) -> Iterator[None]:
        """While this lasts, mergekit's tasks read through our sources, which check what they read, or from residents.

        Only one thread at a time: mergekit's table of loaders and the generator of its random methods belong to the
        process.
        """
        from mergekit.io.tasks import LoaderCache

        with _READING:
            # Put back afterwards: plans of a merge of merges take turns in reading, and may share sources.
            before = {reference: LoaderCache.loaders.get(reference) for reference, _ in self._read}
            for reference, source in self._read:
                LoaderCache.loaders[reference] = SourceReader(source, view)
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
        return OutputTensor(
            weight.name, inputs, weight.optional, weight.vocabulary_axis, save.dtype, save.tensor_task, self._sources
        )

    def __iter__(self) -> Iterator[OutputTensor]:
        return iter(self.tensors)

    def in_execution_order(self) -> list[OutputTensor]:
        """The tensors in the order in which mergekit-yaml computes them: by their names in the sources."""
        from mergekit.graph import Executor

        with self.reading():
            scheduled = [handle.task() for handle in Executor(targets=self._tasks).schedule.tasks]
        places = {task: place for place, task in enumerate(scheduled)}
        return sorted(self.tensors, key=lambda output: places[output.merge])


def _refuse_endless(sources: dict[str, Source]) -> None:
    """A config.json may name any number of layers, and mergekit would plan for hours."""
    for source in sources.values():
        layers = source.config.get("num_hidden_layers", 0)
        if not isinstance(layers, int) or layers > MAX_LAYERS:
            raise PreflightError(f"{source.name}: config.json says {layers!s:.20} layers. Is it damaged?")


def _follow_layers(model_config: Any, config: Any, trust_remote_code: bool) -> None:
    """Give a model of slices one entry for each layer in `layer_types` and the like: each layer keeps its kind.

    mergekit sets only the number of layers. With transformers 5 it then stops when it saves a config that has such a
    list (Qwen3, Gemma 3).
    """
    modules = list((config.modules or {}).values())
    slices = config.slices or (modules[0].slices if len(modules) == 1 else None)
    if not slices:
        return
    sources = [part.sources[0] for part in slices]
    configs = [source.model.config(trust_remote_code=trust_remote_code) for source in sources]
    for key, value in list(vars(model_config).items()):
        if "layer" not in key or not isinstance(value, list) or not all(hasattr(item, key) for item in configs):
            continue
        kept: list[Any] = []
        for source, own in zip(sources, configs, strict=True):
            kept += getattr(own, key)[source.layer_range[0] : source.layer_range[1]]
        setattr(model_config, key, kept)
