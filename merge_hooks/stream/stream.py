"""The heart: one function from a recipe to an iterator of named tensors, in layer order.

Everything that wants weights reads this iterator: vLLM's first load and every swap, transformers, an export,
a checksum. One tensor of each source is in memory at a time; nothing is written.

    stream = open_stream(resolved)
    for name, tensor in stream:     # ("model.embed_tokens.weight", tensor of the recipe's out dtype, on the CPU)
        ...
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any

from merge_hooks.errors import RecipeError, SourceError, explained
from merge_hooks.kernels import choose
from merge_hooks.kernels.blocks import Workers, is_finite
from merge_hooks.kernels.choose import Way, is_random, may_be_ours
from merge_hooks.kernels.gpu_check import gpu_agrees
from merge_hooks.kernels.operands import Merged, Operands
from merge_hooks.kernels.seeding import GENERATORS, alone, seeded_by_name, started_at
from merge_hooks.planning.draws import generator_states
from merge_hooks.planning.output import OutputTensor
from merge_hooks.planning.plan import Plan
from merge_hooks.planning.reading import run_task
from merge_hooks.recipe.fisher_maps import map_paths
from merge_hooks.recipe.resolved import Resolved
from merge_hooks.sources.headers import FLOATS
from merge_hooks.stream.lookahead import Queued, lookahead

if TYPE_CHECKING:
    import torch

    from merge_hooks.sources.residents import ResidentReader, Residents

LOG = logging.getLogger(__name__)

# After so many bytes of output the sources' files are mapped anew, so that what was read does not count as
# ours.
MAPPED_BYTES = 64 << 20
# With residents, so many bytes of tensors are begun before they are asked for: small ones in the time of large ones.
AHEAD_BYTES = 64 << 20


class Stream:
    """The tensors of a merge, computed while they are read. May be read again and again, with the same bytes.

    Args:
        resolved: the recipe, its sources found, with its seed and generator.
        seed: instead of the recipe's, of the methods that draw at random, or may (`choose.is_random`).
        rng: instead of the recipe's. "iberian": what is drawn depends on the seed, the tensor's name and the source's place in the
            recipe, and on nothing else. "mergekit": the draws of `mergekit-yaml --random-seed SEED`, from
            torch's one global generator in mergekit's order; computed by mergekit, at its speed.
        residents: where sources stay between merges (`merge_hooks.sources.residents`); None: they are read from their files.
    Raises:
        PreflightError: mergekit cannot plan the recipe.
        RecipeError: there is no such `rng`.
    """

    def __init__(
        self, resolved: Resolved, seed: int | None = None, rng: str | None = None, residents: Residents | None = None
    ) -> None:
        seed, rng = resolved.seed if seed is None else seed, rng or resolved.rng
        if rng not in GENERATORS:
            raise RecipeError(f"rng={rng}: there is no such generator. Take one of: {', '.join(GENERATORS)}.")
        self.resolved, self.residents = resolved, residents
        self.seed, self.rng, self.trust_remote_code = seed, rng, resolved.trust_remote_code
        self.plan = Plan(resolved.config, resolved.sources, resolved.trust_remote_code)
        self._memory: dict[str, Any] = {}
        self._states: dict[str, Any] = {}

    @property
    def model_config(self) -> Any:
        """The merged model's transformers configuration, with the recipe's own layer count and dtype."""
        return self.plan.model_config

    @property
    def tokenizer(self) -> Any | None:
        """The tokenizer of `tokenizer_source:` or `tokenizer:`, else None. Also sets the vocabulary size."""
        if self.plan.tokenizer_task is None:
            return None
        tokenizer = run_task(self.plan.tokenizer_task, self._memory).tokenizer
        settings = self.resolved.config.tokenizer
        self.plan.update_vocabulary(tokenizer, settings.pad_to_multiple_of if settings else None)
        return tokenizer

    def names(self) -> list[str]:
        """The names of the tensors, in the order in which they come."""
        return [output.name for output in self.plan]

    @property
    def dtype_of_files(self) -> str:
        """That of the first tensor of floating-point numbers, as `from_pretrained` takes it where no config.json has one."""
        import torch

        for output in self.plan:
            held = [getattr(torch, FLOATS[entry.dtype]) for entry in output.entries if entry.dtype in FLOATS]
            if held:
                return str(reduce(torch.promote_types, held)).removeprefix("torch.")
        return "float32"

    @cached_property
    def _outputs(self) -> dict[str, OutputTensor]:
        return {output.name: output for output in self.plan}

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, tensor) pairs in layer order. Raises SourceError on NaN, and when a file changes."""
        return self.into({})

    def from_files(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The same pairs, without residents: for an engine's first load, which leaves less memory for them."""
        return self._present(self._pairs({}, None))

    def part(
        self, names: Collection[str] | None, residents: Residents | None
    ) -> Iterator[tuple[str, torch.Tensor | None]]:
        """The pairs with these names, in the same order; None for an optional weight that no source has.

        Args:
            names: None: all.
            residents: they get room for what these tensors need, and no more.
        """
        return self._pairs({}, residents, names)

    def into(self, places: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        """The same pairs. Where a kernel of ours can do that, a tensor is computed in the place that is given for it.

        Args:
            places: by name; contiguous, on the CPU. A place is not touched if its dtype or shape is not that of the
                merge, or if another way computes the tensor; the tensor then comes in memory of its own.
        """
        yield from self._present(self._pairs(places, self.residents))

    @staticmethod
    def _present(pairs: Iterator[tuple[str, torch.Tensor | None]]) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in pairs:
            if tensor is not None:
                yield name, tensor
            del tensor  # not held while the next one is merged

    def _pairs(
        self, places: Mapping[str, torch.Tensor], residents: Residents | None, names: Collection[str] | None = None
    ) -> Iterator[tuple[str, torch.Tensor | None]]:
        """Each tensor's name with the tensor, or None for an optional weight that no source has.

        Args:
            names: of the tensors that are wanted; None: all.
        """
        before = self._file_states()
        sources = self.resolved.sources.values()
        reader = residents.begin(sources, gpu_agrees, self._read_for(names)) if residents else None
        try:
            yield from self._merged(places, reader, names)
            self._let_go()
            self._refuse_changed_files(before)
        except SourceError:
            if reader is not None:
                reader.forget()
            raise

    def _read_for(self, names: Collection[str] | None) -> dict[str, set[str]] | None:
        """By source, the tensors that are read to make these; None: all."""
        if names is None:
            return None
        found: dict[str, set[str]] = {key: set() for key in self.resolved.sources}
        for name in names:
            for key, held in self._outputs[name].held.items():
                found[key].add(held)
        return found

    def _merged(
        self, places: Mapping[str, torch.Tensor], reader: ResidentReader | None, names: Collection[str] | None
    ) -> Iterator[tuple[str, torch.Tensor | None]]:
        produced = 0
        with Workers() as workers:
            tensors = self._queued(places, reader, workers, names)
            # Without residents nothing but one tensor of each source shall be in memory.
            for queued in lookahead(tensors, AHEAD_BYTES) if reader else tensors:
                merged = queued.wait()
                if merged is None:
                    yield queued.output.name, None
                    continue
                if not merged.is_finite:
                    self._refuse_nan(queued.output)
                name = queued.output.name
                del queued
                yield name, merged.tensor
                produced += merged.tensor.nbytes
                del merged
                if produced > MAPPED_BYTES:
                    self._let_go()
                    produced = 0

    def _queued(
        self,
        places: Mapping[str, torch.Tensor],
        reader: ResidentReader | None,
        workers: Workers,
        names: Collection[str] | None,
    ) -> Iterator[Queued]:
        """Each tensor, started."""
        for output in self.plan:
            if names is not None and output.name not in names:
                continue
            yield self._begin(output, workers, reader, places.get(output.name))

    def tensor(self, name: str) -> torch.Tensor | None:
        """One tensor by itself, with the bytes that it has in the whole stream. Raises KeyError and SourceError."""
        output = self._outputs[name]
        with Workers() as workers:
            merged = self._begin(output, workers).wait()
        if merged is not None and not merged.is_finite:
            self._refuse_nan(output)
        return merged.tensor if merged else None

    def _begin(
        self,
        output: OutputTensor,
        workers: Workers,
        reader: ResidentReader | None = None,
        place: torch.Tensor | None = None,
    ) -> Queued:
        """Begin to merge a tensor, or, where the way is mergekit's, merge it."""
        # A stage computes while it is read, perhaps by mergekit: alone before residents are, in every thread.
        with alone() if self._reads_merges else nullcontext():
            return self._begin_in_turn(output, workers, reader, place)

    def _begin_in_turn(
        self, output: OutputTensor, workers: Workers, reader: ResidentReader | None, place: torch.Tensor | None
    ) -> Queued:
        operands = self._operands(output, reader)
        way = choose.way_of(operands)
        LOG.debug("merged: %s: %s", output.name, way.value)
        if operands is not None and way is not Way.MERGEKIT:
            if place is not None and place.dtype == operands.out_dtype and place.shape == operands.shape:
                operands = replace(operands, out=place)
            pending = choose.begin(operands, workers, self.seed, way)
            return Queued(output, operands.count * operands.out_dtype.itemsize, pending, pending.go_on)
        # Not longer than needed: a stage that shares sources with us reads in turns with us.
        with alone(), self.plan.reading(reader), self._generator(output):
            tensor = output.compute(self._memory)
        merged = None if tensor is None else Merged(tensor, is_finite(tensor))
        return Queued(output, 0 if tensor is None else tensor.nbytes, lambda: merged)

    def _operands(self, output: OutputTensor, reader: ResidentReader | None) -> Operands | None:
        """What goes into a tensor, read by us, else by mergekit's tasks; None where only mergekit's method may merge."""
        if not may_be_ours(self.resolved.method, self.rng):
            return None
        if operands := output.operands(reader):
            return operands
        with alone(), self.plan.reading(reader):
            return output.gathered(self._memory, reader)

    @cached_property
    def _reads_merges(self) -> bool:
        """Whether a source is a merge, or an adapter over one."""
        return any(source.is_merge for source in self.resolved.sources.values())

    def _generator(self, output: OutputTensor) -> Any:
        """A context in which torch's global generator stands where it shall for this tensor."""
        if self.rng == "iberian" or not is_random(self.resolved.method):
            return seeded_by_name(self.seed, output.name)
        if not self._states:
            self._states = generator_states(self.plan, self.seed, self._memory)
        return started_at(self._states[output.name])

    def _let_go(self) -> None:
        """Unmap the sources' files. They are mapped again when the next tensor is read."""
        for source in self.resolved.sources.values():
            source.close()

    def _refuse_nan(self, output: OutputTensor) -> None:
        for key, held in output.held.items():
            source = output.sources[key]
            if not is_finite(source.read(held)):
                raise SourceError(
                    f"{source.name}: tensor {held} in {source.entries[held].file} holds NaN or infinite "
                    "values, so no merge of it means anything. Use another checkpoint, or mend this one."
                )
        raise SourceError(
            f"{self.resolved.recipe.origin}: merging {output.name} gave NaN or infinite values, though "
            f"its sources have none. Look at the parameters of `{self.resolved.method}` (weights that sum to "
            "0? a tiny density?), or merge in `dtype: float32`."
        )

    def _file_states(self) -> dict[str, Any]:
        """What must not change while we read: the sources' files, and the maps of `merge_method: fisher`."""
        states: dict[str, Any] = {key: source.file_state() for key, source in self.resolved.sources.items()}
        for path in map_paths(self.resolved.config):
            states[str(path)] = (path.stat().st_size, path.stat().st_mtime_ns)
        return states

    def _refuse_changed_files(self, before: dict[str, Any]) -> None:
        after = self._file_states()
        for key, state in before.items():
            source = self.resolved.sources.get(key)
            if after[key] != state:
                where = f"{source.name}: files in {source.folder}" if source else f"{key}: this file"
                raise SourceError(f"{where} changed during the merge. Run it again.")


@explained("the merge cannot be planned")
def open_stream(
    resolved: Resolved, seed: int | None = None, rng: str | None = None, residents: Residents | None = None
) -> Stream:
    """The stream of a resolved recipe. See `Stream`."""
    return Stream(resolved, seed, rng, residents)
