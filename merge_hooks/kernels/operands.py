"""What a kernel is given and what it gives back: plain tensors and numbers, nothing of mergekit's."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Operand:
    """One source's part in one output tensor.

    Args:
        tensor: as it is stored, perhaps in another dtype than the merge computes in.
        place: its place among the recipe's models that are not the base, from 0; None for the base.
        parameters: the resolved parameters of this source for this tensor, e.g. {"weight": 0.5, "density":
            0.3}.
        factors: gives (B, A) of shapes (out, r) and (r, in) with tensor = base + B @ A, where an adapter over the
            merge's own base is the source (r = 0: it leaves this tensor alone); None, or gives None: not low rank.
        origin: what the tensor's bytes depend on (its source's state and its name there), to know it again in a later
            merge; None: not to be known again.
    """

    tensor: torch.Tensor
    place: int | None
    parameters: dict[str, Any]
    factors: Callable[[], tuple[torch.Tensor, torch.Tensor] | None] | None = None
    origin: Hashable | None = None

    @cached_property
    def flat(self) -> torch.Tensor:
        """The tensor in one dimension: a view wherever it lies in one piece."""
        return self.tensor.reshape(-1)

    @cached_property
    def low_rank(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """What `factors` gives."""
        return self.factors() if self.factors else None


def _kept_nothing(key: Hashable) -> None:
    return None


def _make_anew(key: Hashable, make: Callable[[], Any]) -> Any:
    return make()


@dataclass(frozen=True)
class Operands:
    """All that goes into one output tensor.

    Args:
        name: of the output tensor.
        method: mergekit's name of the method.
        inputs: in the recipe's order; equal shapes, floating point.
        parameters: the resolved parameters of the whole merge, e.g. {"normalize": True, "lambda": 1.0}.
        dtype: in which the merge computes: the recipe's, else what the sources' dtypes promote to.
        out_dtype: of the result.
        keep: gives what is kept under a key from an earlier merge, else makes it; what is kept must depend on the key
            alone.
        kept: gives what is kept under a key, else None.
        out: where the result is to be written, contiguous, of `out_dtype`; None: to new memory.
    """

    name: str
    method: str
    inputs: tuple[Operand, ...]
    parameters: dict[str, Any]
    dtype: torch.dtype
    out_dtype: torch.dtype
    keep: Callable[[Hashable, Callable[[], Any]], Any] = _make_anew
    kept: Callable[[Hashable], Any] = _kept_nothing
    out: torch.Tensor | None = None

    def on_host(self) -> Operands:
        """The same with every tensor on the CPU: these themselves where they all are."""
        if all(operand.tensor.device.type == "cpu" for operand in self.inputs):
            return self
        return replace(self, inputs=tuple(replace(operand, tensor=operand.tensor.cpu()) for operand in self.inputs))

    def new_result(self) -> torch.Tensor:
        """Flat memory for the result, on the sources' device."""
        import torch

        if self.out is not None and self.out.data_ptr() % self.out.itemsize == 0:
            return self.out.view(-1)
        device = self.inputs[0].tensor.device
        if device.type != "cpu":
            return torch.empty(self.count, dtype=self.out_dtype, device=device)
        # numpy asks the system for large pages, torch does not: memory that is new for each tensor has many faults.
        return torch.from_numpy(np.empty(self.count * self.out_dtype.itemsize, np.uint8)).view(self.out_dtype)

    @property
    def base(self) -> Operand | None:
        return next((operand for operand in self.inputs if operand.place is None), None)

    @property
    def others(self) -> list[Operand]:
        """Every input but the base."""
        return [operand for operand in self.inputs if operand.place is not None]

    @property
    def shape(self) -> torch.Size:
        return self.inputs[0].tensor.shape

    @property
    def count(self) -> int:
        """Elements of the output."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Merged:
    """A merged tensor, and whether it and what went into it are free of NaN and infinite values."""

    tensor: torch.Tensor
    is_finite: bool


class Pending:
    """A tensor at which the workers are. Called, it waits for it.

    Args:
        search: waits for what must be known before the merge, begins it, and gives what waits for the result.
    """

    def __init__(self, search: Callable[[], Callable[[], Merged]]) -> None:
        self._search = search
        self._finish: Callable[[], Merged] | None = None

    def go_on(self) -> Callable[[], Merged]:
        """Begin the merge, if that is not done yet."""
        if self._finish is None:
            self._finish = self._search()
        return self._finish

    def __call__(self) -> Merged:
        return self.go_on()()
