"""The heart: one function from a recipe to an iterator of named tensors, in layer order.

Everything that wants weights reads this iterator: vLLM's first load and every swap, transformers, an export, a
checksum. One tensor of each source is in memory at a time; nothing is written.

    stream = open_stream(resolved)
    for name, tensor in stream:     # ("model.embed_tokens.weight", tensor of the recipe's out dtype, on the CPU)
        ...
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from merge_hooks._mergekit import OutputTensor, Plan, run_task
from merge_hooks.errors import SourceError
from merge_hooks.recipe import Resolved

if TYPE_CHECKING:
    import torch


class Stream:
    """The tensors of a merge, computed while they are read. May be read again and again.

    Args:
        resolved: the recipe, its sources found.
        trust_remote_code: whether model configurations may bring code of their own.
    Raises:
        PreflightError: mergekit cannot plan the recipe.
    """

    def __init__(self, resolved: Resolved, trust_remote_code: bool = False) -> None:
        self.resolved = resolved
        self.plan = Plan(resolved.config, resolved.sources, trust_remote_code)
        self._memory: dict[str, Any] = {}

    @property
    def model_config(self) -> Any:
        """The merged model's transformers configuration, with the recipe's own layer count and dtype."""
        return self.plan.model_config

    @property
    def tokenizer(self) -> Any | None:
        """The tokenizer built by `tokenizer_source:` or `tokenizer:`, else None. Sets the vocabulary size too."""
        if self.plan.tokenizer_task is None:
            return None
        tokenizer = run_task(self.plan.tokenizer_task, self._memory).tokenizer
        settings = self.resolved.config.tokenizer
        self.plan.update_vocabulary(tokenizer, settings.pad_to_multiple_of if settings else None)
        return tokenizer

    def names(self) -> list[str]:
        """The names of the tensors, in the order in which they come."""
        return [output.name for output in self.plan]

    def tensor(self, name: str) -> torch.Tensor | None:
        """One tensor, for who does not want them in order; None for an optional one that no source has."""
        output = self._outputs[name]
        tensor = output.compute(self._memory)
        if tensor is not None:
            self._refuse_nan(output, tensor)
        return tensor

    @cached_property
    def _outputs(self) -> dict[str, OutputTensor]:
        return {output.name: output for output in self.plan}

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, tensor) pairs in layer order. Raises SourceError on NaN, and when a file changes under us."""
        before = {key: source.file_state() for key, source in self.resolved.sources.items()}
        for output in self.plan:
            tensor = output.compute(self._memory)
            if tensor is None:  # an optional weight that no source has
                continue
            self._refuse_nan(output, tensor)
            yield output.name, tensor
        self._refuse_changed_files(before)

    def _refuse_nan(self, output: OutputTensor, tensor: torch.Tensor) -> None:
        if _is_finite(tensor):
            return
        for key, names in output.inputs.items():
            source = self.resolved.sources[key]
            held = next((name for name in names if name in source.entries), None)
            if held is not None and not _is_finite(source.read(held)):
                raise SourceError(
                    f"{source.name}: tensor {held} in {source.entries[held].file} holds NaN or infinite values, "
                    "so no merge of it means anything. Use another checkpoint, or mend this one."
                )
        raise SourceError(
            f"{self.resolved.recipe.origin}: merging {output.name} gave NaN or infinite values, though its sources "
            f"have none. Look at the parameters of `{self.resolved.method}` (weights that sum to 0? a tiny density?), "
            "or merge in `dtype: float32`."
        )

    def _refuse_changed_files(self, before: dict[str, Any]) -> None:
        for key, state in before.items():
            source = self.resolved.sources[key]
            if source.file_state() != state:
                raise SourceError(f"{source.name}: files in {source.folder} changed during the merge. Run it again.")


def open_stream(resolved: Resolved, trust_remote_code: bool = False) -> Stream:
    """The stream of a resolved recipe. See `Stream`."""
    return Stream(resolved, trust_remote_code)


def _is_finite(tensor: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite. One fast pass; a second, exact one only if the first says no."""
    import torch

    if not tensor.is_floating_point():
        return True
    if bool(torch.isfinite(tensor.sum(dtype=torch.float32))):
        return True
    return bool(torch.isfinite(tensor).all())
