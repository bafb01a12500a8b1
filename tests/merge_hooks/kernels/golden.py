"""The same merge of plain tensors twice: by mergekit's method (golden), and by one of our ways.

mergekit leaves two things open, which are decided here as we decide them: which of the elements tied at a threshold
are kept (a stable sort's) and which masks DARE draws (`masks.py`'s, here in numpy). And its sums of magnitudes,
which in float32 depend on the number of threads, are added in float64, as ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from mergekit import sparsify
from mergekit.merge_methods.api import merge_tensors

from merge_hooks.kernels.blocks import Workers
from merge_hooks.kernels.choose import Way, begin, way_of
from merge_hooks.kernels.operands import Merged, Operand, Operands

SEED = 3
METHODS = ("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties")


class Kept(dict[Hashable, Any]):
    """What residents keep of earlier merges, in a plain dictionary."""

    def keep(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self:
            self[key] = make()
        return self[key]


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
        with ExitStack() as decided:
            for item in self._decisions():
                decided.enter_context(item)
            return merge_tensors(
                self.tensors, self.method, parameters={**per_input, **self.shared}, base_index=self.base, name="x",
                dtype=self.dtype, out_dtype=self.out_dtype,
            )  # fmt: skip

    def _decisions(self) -> list[Any]:
        drawn = iter(place for place, values in enumerate(self._others()) if values.get("density", 1) < 1)

        def bernoulli(chances: torch.Tensor) -> torch.Tensor:
            place = next(drawn)
            kept = drawn_by_numpy(self._others()[place]["density"], SEED, "x", place, chances.numel())
            return torch.from_numpy(kept).reshape(chances.shape).to(chances.dtype)

        return [
            patch.object(torch, "argsort", partial(torch.argsort, stable=True)),
            patch.object(torch, "sort", partial(torch.sort, stable=True)),
            patch.object(torch, "bernoulli", bernoulli),
            patch.object(sparsify, "rescaled_masked_tensor", _rescaled),
        ]

    def _others(self) -> list[dict[str, float]]:
        return [values for index, values in enumerate(self.inputs) if index != self.base]

    def operands(self, kept: Kept | None = None, out: torch.Tensor | None = None) -> Operands:
        places = iter(range(len(self.tensors)))
        defaults = {
            "linear": {"normalize": True},
            "ties": {"normalize": True, "rescale": False, "lambda": 1.0},
        }.get(self.method, {"normalize": False, "rescale": self.method.startswith("dare"), "lambda": 1.0})
        dtype = self.dtype
        for tensor in self.tensors:
            dtype = self.dtype or (tensor.dtype if dtype is None else torch.promote_types(dtype, tensor.dtype))
        assert dtype is not None
        inputs = [
            Operand(
                tensor, None if index == self.base else next(places), parameters, None, kept is not None and index + 1
            )
            for index, (tensor, parameters) in enumerate(zip(self.tensors, self.inputs, strict=True))
        ]
        keeping = {} if kept is None else {"keep": kept.keep, "kept": kept.get}
        return Operands("x", self.method, tuple(inputs), defaults | self.shared, dtype, self.out_dtype or dtype, out=out,
                        **keeping)  # type: ignore[arg-type]  # fmt: skip

    def ours(
        self, threads: int = 2, seed: int = SEED, way: Way | None = None, kept: Kept | None = None, out: Any = None
    ) -> Merged:
        """By this way, or by its own; fails where that is mergekit's."""
        operands = self.operands(kept, out)
        own = way_of(operands)
        assert own is not Way.MERGEKIT
        with Workers(threads) as workers:
            return begin(operands, workers, seed, way or own)()

    def check(self, *ways: Way, kept: Kept | None = None, threads: int = 2) -> None:
        """Each way has mergekit's bytes, or refuses the result where mergekit's is not finite."""
        golden = self.golden()
        for way in ways:
            merged = self.ours(threads, way=way, kept=kept)
            what = f"{self.method} by {way.value}: {self.inputs} {self.shared}"
            assert merged.is_finite == bool(torch.isfinite(golden).all()), what
            assert not merged.is_finite or same_bytes(merged.tensor, golden), what


def _rescaled(tensor: torch.Tensor, mask: torch.Tensor, norm: Any, eps: float = 1e-7) -> torch.Tensor:
    masked = tensor * mask
    if norm is None:
        return masked
    before, after = (values.abs().double().sum().to(tensor.dtype) for values in (tensor, masked))
    return masked if before < eps or after < eps else masked * (before / after)


def drawn_by_numpy(density: float, seed: int, tensor: str, place: int, count: int) -> np.ndarray[Any, Any]:
    """Which elements a mask keeps, from its description in `masks.py`, a step at a time."""
    if density >= 1:
        return np.ones(count, bool)
    text = f"{seed}\0{tensor}\0{place}\0"
    key, tie_key = (np.frombuffer(hashlib.blake2b(f"{text}{purpose}".encode(), digest_size=8).digest(), "<u8")[0]
                    for purpose in ("mask", "tie"))  # fmt: skip
    index = np.arange(count, dtype=np.uint64)
    fifteen_bits = splitmix(key, np.arange(-(-count // 4), dtype=np.uint64)).view(np.uint16)[:count] & 0x7FFF
    level = int(density * (1 << 15))
    ties = (splitmix(tie_key, index) >> np.uint64(32)) < np.uint64(int((density * (1 << 15) - level) * (1 << 32)))
    return (fifteen_bits < level) | ((fifteen_bits == level) & ties)


def splitmix(key: Any, index: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """splitmix64's output number `index` of the stream that begins at `key`."""
    with np.errstate(over="ignore"):
        word = np.uint64(key) + (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return word ^ (word >> np.uint64(31))


def family(shape: tuple[int, ...], dtypes: list[torch.dtype], seed: int = 1) -> list[torch.Tensor]:
    """A base and its fine-tunes, with some deltas of exactly 0 and some signed zeros."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator) * 0.02
    base[torch.rand(shape, generator=generator) < 0.05] = -0.0
    tensors = [base]
    for index in range(1, len(dtypes)):
        step = torch.randn(shape, generator=generator) * 0.004 * index
        step[torch.rand(shape, generator=generator) < 0.1] = 0
        tensors.append(base + step)
    return [tensor.to(dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)]


def same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal in dtype, shape and every bit: -0.0 is not 0.0 here."""
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))
    )
