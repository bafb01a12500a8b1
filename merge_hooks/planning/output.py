"""One tensor of a merge, as mergekit's plan has it: what is to be read, which method, with which resolved parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import count
from typing import TYPE_CHECKING, Any

from merge_hooks.errors import RecipeError
from merge_hooks.kernels.operands import Operand, Operands
from merge_hooks.planning.config import reference_key
from merge_hooks.planning.reading import in_words, left_where_they_are, run_task
from merge_hooks.sources.checkpoint import Source
from merge_hooks.sources.headers import TensorEntry

if TYPE_CHECKING:
    import torch

    from merge_hooks.sources.residents import ResidentReader


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
        taken: whether it is no merge but the only input's own tensor, cast: towers (see `Plan`).
    """

    name: str
    inputs: dict[str, list[str]]
    is_optional: bool
    vocabulary_axis: int | None
    dtype: str | None
    merge: Any
    sources: dict[str, Source]
    taken: bool = False

    def parameter(self, name: str) -> Any:
        """The value of a parameter of the whole merge, as resolved for this tensor."""
        return self.merge.parameters[name]

    def parameter_of_inputs(self, name: str) -> dict[str, Any]:
        """The value of a per-model parameter, as resolved for this tensor, by source."""
        return {reference_key(key): values[name] for key, values in self.merge.input_parameters.items()}

    def compute(self, memory: dict[str, Any]) -> torch.Tensor | None:
        """The merged tensor, by mergekit's own method; None for an optional tensor that no source has."""
        from mergekit.common import dtype_from_name

        if self.taken:
            return self._own_tensor()
        try:
            tensor = run_task(self.merge, memory)
        except (RuntimeError, ValueError, KeyError, TypeError, AssertionError, IndexError) as error:
            raise RecipeError(f"mergekit cannot merge {self.name}: {in_words(error)}.") from error
        return tensor if tensor is None or not self.dtype else tensor.to(dtype=dtype_from_name(self.dtype))

    def shape_of_made(self) -> tuple[int, ...] | None:
        """The shape, if its first source's files do not hold it under this name, but other tensors that make it."""
        key, names = next(iter(self.inputs.items()))
        source = self.sources[key]
        held = source.first_held(names)
        return None if held is None or held in source.stored else source.entries[held].shape

    @property
    def held(self) -> dict[str, str]:
        """By source, the name under which it holds the tensor. Sources that lack it are left out."""
        found = ((key, self.sources[key].first_held(names)) for key, names in self.inputs.items())
        return {key: name for key, name in found if name}

    @property
    def entries(self) -> list[TensorEntry]:
        """What lies in the sources that hold it."""
        return [self.sources[key].entries[name] for key, name in self.held.items()]

    @property
    def elements(self) -> int:
        """How many elements its first source's tensor has; 0 where no source has it."""
        entries = self.entries
        return math.prod(entries[0].shape) if entries else 0

    def operands(self, reader: ResidentReader | None = None) -> Operands | None:
        """What a kernel of ours is given; None where mergekit has rules of its own (see `gathered`).

        Tensors come as they are stored, and a kernel casts them block by block. They are read here and not by
        mergekit's tasks, which take longer to start than a small tensor takes to merge.

        Args:
            reader: the residents to read from; None: the sources' files.
        """
        from mergekit.io.tasks import GatherTensors

        gather = self.merge.gather_tensors
        if self.taken or not isinstance(gather, GatherTensors):  # aligned to a tokenizer
            return None
        dtypes = {info.force_dtype or gather.dtype for info in gather.weight_info.values()}
        held = self.held
        if len(dtypes) != 1 or len(held) != len(self.inputs):
            return None
        tensors = {key: reader.read(self.sources[key], name) if reader else self.sources[key].read(name)
                   for key, name in held.items()}  # fmt: skip
        return self._operands(tensors, dtypes.pop(), held, reader)

    def _own_tensor(self) -> torch.Tensor | None:
        """The only input's tensor, cast as a merged one is."""
        from mergekit.common import dtype_from_name

        ((key, names),) = self.inputs.items()
        held = self.sources[key].first_held(names)
        if held is None:
            return None
        tensor = self.sources[key].read(held)
        for dtype in (self.merge.gather_tensors.dtype, self.dtype):
            tensor = tensor.to(dtype_from_name(dtype) or tensor.dtype)
        return tensor

    def gathered(self, memory: dict[str, Any], reader: ResidentReader | None = None) -> Operands | None:
        """The same from what mergekit's tasks gather, within `Plan.reading`.

        None where mergekit has rules of its own: tensors that some source lacks, integer buffers, and shapes that do
        not fit (mergekit then says why).
        """
        from mergekit.io.tasks import GatherTensors

        gather = self.merge.gather_tensors
        if self.taken:
            return None
        if not isinstance(gather, GatherTensors):  # aligned to a tokenizer, and cast
            aligned = run_task(gather, memory)
            return self._operands(
                {reference_key(reference): tensor for reference, tensor in aligned.items()}, None, None, reader
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
        return self._operands(tensors, dtypes.pop(), None, reader)

    def _operands(
        self,
        tensors: dict[str, torch.Tensor],
        dtype: str | None,
        held: dict[str, str] | None,
        reader: ResidentReader | None,
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
            origin = reader.origin(self.sources[key], held[key]) if reader and held else None
            inputs.append(Operand(tensors[key], place, own, factors, origin))
        operands = Operands(
            name=self.name,
            method=self.merge.method_name,
            inputs=tuple(inputs),
            parameters=dict(self.merge.parameters.items()),
            dtype=merged_in,
            out_dtype=dtype_from_name(self.dtype) or merged_in,
        )
        if reader is None:
            return operands
        return replace(operands, keep=reader.residents.keep, kept=reader.residents.kept)

    def _factors(self, key: str, base: str, held: dict[str, str]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """A source's difference to the base as factors (see `Operand`), if it is an adapter over that base."""
        source = self.sources[key]
        return source.low_rank_update(held[key], self.sources[base])
