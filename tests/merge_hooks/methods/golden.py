"""The same merge of plain tensors twice: by mergekit's method (golden) and by our kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from mergekit.merge_methods.api import merge_tensors

from merge_hooks.kernels.choose import Merged, Operand, Operands, Workers, merge


@dataclass
class Case:
    """Sources, the base among them by its index (None: no base), each with its parameters."""

    method: str
    tensors: list[torch.Tensor]
    inputs: list[dict[str, float]]
    base: int | None = 0
    shared: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype | None = None
    out_dtype: torch.dtype | None = None

    def golden(self) -> torch.Tensor:
        """By mergekit."""
        names = {name for parameters in self.inputs for name in parameters}
        per_input = {
            name: {place: values[name] for place, values in enumerate(self.inputs) if name in values} for name in names
        }
        return merge_tensors(
            self.tensors,
            self.method,
            parameters={**per_input, **self.shared},
            base_index=self.base,
            name="x",
            dtype=self.dtype,
            out_dtype=self.out_dtype,
        )

    def operands(self) -> Operands:
        places = iter(range(len(self.tensors)))
        defaults = {
            "linear": {"normalize": True},
            "ties": {"normalize": True, "rescale": False, "lambda": 1.0},
        }.get(self.method, {"normalize": False, "rescale": self.method.startswith("dare"), "lambda": 1.0})
        dtype = self.dtype
        for tensor in self.tensors:
            dtype = self.dtype or (tensor.dtype if dtype is None else torch.promote_types(dtype, tensor.dtype))
        assert dtype is not None
        return Operands(
            name="x",
            method=self.method,
            inputs=tuple(
                Operand(tensor, None if index == self.base else next(places), parameters)
                for index, (tensor, parameters) in enumerate(zip(self.tensors, self.inputs, strict=True))
            ),
            parameters=defaults | self.shared,
            dtype=dtype,
            out_dtype=self.out_dtype or dtype,
        )

    def ours(self, threads: int = 2, seed: int = 0) -> Merged:
        """By our kernel; fails if there is none for the case."""
        with Workers(threads) as workers:
            merged = merge(self.operands(), workers, seed)
        assert merged is not None, "this case went to mergekit"
        return merged


def same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal in dtype, shape and every bit: -0.0 is not 0.0 here."""
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))
    )
