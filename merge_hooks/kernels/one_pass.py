"""Merges of sources that lie in memory: one pass over them, and what stays constant from merge to merge looked up.

The same bytes as `linear.py` and `task_arithmetic.py` give, from the same formulas; those make a delta, prune it and
mix it in steps, this makes each element of the result at once (`compiled.py`). So a sweep keeps no task vectors and no
masks: subtracting and drawing again costs less than reading them would. What it keeps is small, in `operands.keep`:

| what | depends on |
|---|---|
| how many deltas have which magnitude (`ranking.py`) | source, base, dtype of the merge |
| thresholds, and where the elements tied at them are cut (`_band`) | that, and density (and gamma) |
| sums of magnitudes before DARE's dropping and after it (`_scale`) | source, base, dtype; density, seed, tensor, place |

Elected signs depend on every weight, and are elected anew.

Takes float32 and bfloat16, all sources stored alike, up to four beside the base; on CPUs where numba is installed, on
GPUs by torch's operations (`on_device.py`). Everything else is left to the other kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from functools import cache, lru_cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np

from merge_hooks.kernels import sparsify, task_arithmetic
from merge_hooks.kernels.blocks import BLOCK, Workers, Workspace
from merge_hooks.kernels.masks import LEVELS, Mask
from merge_hooks.kernels.operands import Merged, Operands, Pending
from merge_hooks.kernels.resident.on_gpu import DeviceKernels
from merge_hooks.kernels.resident.ranking import Ranking, Tied
from merge_hooks.kernels.selection import of_largest
from merge_hooks.kernels.sparsify import BANDED, DRAWN, WHOLE

if TYPE_CHECKING:
    import torch

# Linear has no rounding of its own for each source, so any number would do; each is compiled for itself.
MOST_LINEAR = 8
# On a GPU starting an operation costs more than on a CPU, and its cache is larger.
DEVICE_BLOCK = 1 << 23
# A tensor is cut into so many pieces a thread, none smaller than this, each a multiple of what is drawn at once.
PIECES_A_THREAD, SMALLEST_PIECE, ROUNDED = 2, 1 << 17, 1 << 14
NOT_REACHED = 0x7FFFFFFF
EVERYWHERE = 1 << 62
Array = np.ndarray[Any, Any]
# How a delta is made sparse, for the kernel: kind, band, draws, and scale (NaN: none).
Part = tuple[int, list[int], Array, np.float32]
Found = TypeVar("Found")
Steps = Generator[None, None, Found]


def begin(operands: Operands, workers: Workers, seed: int) -> Pending | None:
    """Begin to merge a tensor in one pass; None where the other kernels shall do it."""
    if not _takes(operands):
        return None
    if operands.method == "linear":
        return _begin_linear(operands, workers)
    sparsifier, elect = task_arithmetic.FORMS[operands.method]
    if not task_arithmetic.is_ours(operands, sparsifier) or len(operands.others) > task_arithmetic.MOST_IN_BLOCKS:
        return None
    return _Generalized(operands, workers, seed, sparsifier, elect).begin()


def is_available() -> bool:
    """Whether numba is installed, and torch multiplies and adds on this machine as our compiled code does."""
    return find_spec("numba") is not None and _adds_alike()


@cache
def _adds_alike() -> bool:
    """torch's addcmul rounds once or twice, as the machine has it; ours once."""
    import torch

    from merge_hooks.kernels.resident.on_cpu import make

    values = torch.randn(1027, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([0.7, 1.3], dtype=torch.float32)
    theirs = torch.zeros(1027, dtype=torch.float32)
    for weight in weights.split(1):
        theirs.addcmul_(values, weight)
    ours = np.empty(1027, np.float32)
    make(False, False, False).linear(ours, (values.numpy(),) * 2, weights.numpy(), np.float32(1), False)
    return bool((theirs.numpy() == ours).all())


def _takes(operands: Operands) -> bool:
    import torch

    wide, narrow = torch.float32, torch.bfloat16
    stored = {operand.tensor.dtype for operand in operands.inputs}
    known = operands.method == "linear" or operands.method in task_arithmetic.FORMS
    return (
        known
        and len(stored) == 1
        and stored | {operands.dtype, operands.out_dtype} <= {wide, narrow}
        and len(operands.inputs) <= MOST_LINEAR
        and len({operand.tensor.device for operand in operands.inputs}) == 1
        and (_on_device(operands) or is_available())
    )


def _on_device(operands: Operands) -> bool:
    """Whether torch's operations are taken, and not the compiled code: for everything that is not on a CPU."""
    return operands.inputs[0].tensor.device.type != "cpu"


def _kernels(operands: Operands) -> Any:
    import torch

    if _on_device(operands):
        return DeviceKernels(operands.dtype, operands.out_dtype)
    from merge_hooks.kernels.resident.on_cpu import make

    dtypes = (operands.dtype, operands.inputs[0].tensor.dtype, operands.out_dtype)
    return make(*(dtype == torch.bfloat16 for dtype in dtypes))


def _array(flat: torch.Tensor, on_device: bool) -> Any:
    """A flat tensor's memory for the kernels: float32 as it is, bfloat16 as uint16 patterns; on a GPU the tensor."""
    import torch

    if on_device:
        return flat
    return (flat.view(torch.uint16) if flat.dtype == torch.bfloat16 else flat).numpy()


def _begin_linear(operands: Operands, workers: Workers) -> Pending:
    import torch

    weights = torch.tensor([operand.parameters["weight"] for operand in operands.inputs], dtype=torch.float32)
    total = (
        weights.reshape(1, -1).sum(dim=1) if operands.parameters["normalize"] else torch.ones(1, dtype=torch.float32)
    )
    result, on_device = operands.new_result(), _on_device(operands)
    out, kernel = _array(result, on_device), _kernels(operands).linear
    sources = [_array(operand.flat, on_device) for operand in operands.inputs]

    def average(span: slice, _: Workspace) -> Any:
        parts = tuple(source[span] for source in sources)
        return kernel(out[span], parts, weights.numpy(), np.float32(total.item()), bool(total != 1))

    return _started(lambda: _begin_pass(operands, workers, average, result))


def _started(search: Callable[[], Callable[[], Merged]]) -> Pending:
    pending = Pending(search)
    pending.go_on()
    return pending


def _block(on_device: bool) -> int:
    return DEVICE_BLOCK if on_device else BLOCK


def _begin_pass(
    operands: Operands, workers: Workers, work: Callable[[slice, Workspace], Any], result: torch.Tensor
) -> Callable[[], Merged]:
    """Begin the one pass that writes the result. Returns what waits for it."""
    block = _pass_block(operands.count, workers, _on_device(operands))
    finish = workers.start(operands.count, work, block)
    return lambda: Merged(result.reshape(operands.shape), _all_finite(finish()))


def _pass_block(count: int, workers: Workers, on_device: bool) -> int:
    """Elements that one call of the last pass takes: few calls, between which a thread waits for Python's lock."""
    if on_device:
        return DEVICE_BLOCK
    pieces = max(1, min(PIECES_A_THREAD * workers.threads, count // SMALLEST_PIECE))
    return -(-count // pieces // ROUNDED) * ROUNDED


def _all_finite(seen: list[Any]) -> bool:
    """From the kernels' answers for each block: a number that is negative where not, or a GPU's truth value."""
    import torch

    if isinstance(seen[0], torch.Tensor):
        return bool(torch.stack(seen).all())
    return all(answer >= 0 for answer in seen)


@lru_cache(maxsize=64)
def _weights(given: tuple[float, ...], dtype: torch.dtype) -> tuple[Array, np.float32]:
    """Weights as the merge rounds them, and their sum; most tensors of a merge have the same."""
    import torch

    weights = [torch.tensor(weight, dtype=dtype) for weight in given]
    rounded = np.array([weight.item() for weight in weights], np.float32)
    return rounded, np.float32(task_arithmetic.sum_of_weights(weights).item())


class _Generalized:
    """One tensor of the task arithmetic family."""

    def __init__(
        self,
        operands: Operands,
        workers: Workers,
        seed: int,
        sparsifier: task_arithmetic.Sparsifier | None,
        elect: bool,
    ) -> None:
        assert operands.base is not None
        self.operands, self.workers, self.seed, self.elect = operands, workers, seed, elect
        self.sparsifier = sparsifier
        self.kernels, self.on_device = _kernels(operands), _on_device(operands)
        self.block = _block(self.on_device)
        self.base = _array(operands.base.flat, self.on_device)
        self.sources = [_array(operand.flat, self.on_device) for operand in operands.others]
        self.is_narrow = operands.dtype.itemsize == 2

    def begin(self) -> Pending:
        """Begin to look for thresholds and scales; where all are kept, begin the merge."""
        searches = [_Search(self._sparse(index)) for index in range(len(self.sources))]
        pending = Pending(lambda: self._merge([search.result() for search in searches]))
        if all(search.is_done for search in searches):
            pending.go_on()
        return pending

    def _merge(self, parts: list[Part]) -> Callable[[], Merged]:
        """Begin the merge. Returns what waits for it."""
        operands, others = self.operands, self.operands.others
        weighed, divisor = _weights(tuple(operand.parameters["weight"] for operand in others), operands.dtype)
        kinds, bands, draws, scales = (np.array(column) for column in zip(*parts, strict=True))
        factor = operands.parameters["lambda"]
        result = operands.new_result()
        out = _array(result, self.on_device)

        def mix(span: slice, _: Workspace) -> Any:
            return self.kernels.generalized(
                out[span], self.base[span], tuple(source[span] for source in self.sources), span.start, weighed,
                kinds, bands, draws, scales, self.elect, bool(operands.parameters["normalize"]), divisor,
                np.float32(factor), factor != 1,
            )  # fmt: skip

        return _begin_pass(operands, self.workers, mix, result)

    def _sparse(self, index: int) -> Steps[Part]:
        """How one source's delta is made sparse; waits at `yield`."""
        operand = self.operands.others[index]
        band, draws, scale = [0] * 6, np.array([0, 0, LEVELS, 0], np.uint64), np.float32(np.nan)  # all is kept
        if self.sparsifier is None or operand.parameters["density"] >= 1:
            return WHOLE, band, draws, scale
        if self.sparsifier is sparsify.at_random:
            assert operand.place is not None
            mask = Mask(operand.parameters["density"], self.seed, self.operands.name, operand.place)
            if self.operands.parameters["rescale"]:
                scale = yield from self._scale(index, mask)
            return DRAWN, band, mask.words, scale
        return BANDED, (yield from self._band(index)), draws, scale

    def _key(self, index: int, key: tuple[Hashable, ...]) -> Hashable | None:
        """What is kept of a source and the base stands under this key; None: nothing is to be kept."""
        assert self.operands.base is not None
        origins = (self.operands.others[index].origin, self.operands.base.origin)
        return None if None in origins else (*key, str(self.operands.dtype), *origins)

    def _keep(self, index: int, key: tuple[Hashable, ...], make: Callable[[], Any]) -> Any:
        """What `make` gives, from the second time on as it was kept."""
        whole = self._key(index, key)
        return make() if whole is None else self.operands.keep(whole, make)

    def _kept(self, index: int, key: tuple[Hashable, ...]) -> Any:
        whole = self._key(index, key)
        return None if whole is None else self.operands.kept(whole)

    # Pruning by magnitude.

    def _band(self, index: int) -> Steps[list[int]]:
        """The band (see `compiled.py`) that keeps what the sparsifier keeps."""
        operand = self.operands.others[index]
        start, stop = sparsify.ranks_kept(self.sparsifier, operand, self.operands)
        if stop <= start:
            return [NOT_REACHED, 0, 0, NOT_REACHED, 0, 0]
        is_largest = self.sparsifier is sparsify.by_magnitude
        key = ("band", "largest" if is_largest else "between", start, stop)
        if (band := self._kept(index, key)) is not None:
            return list(band)
        ranking = Ranking(
            self.kernels, self.base, self.sources[index], self.workers, partial(self._keep, index), self.is_narrow,
            _pass_block(self.operands.count, self.workers, self.on_device), DEVICE_BLOCK if self.on_device else None,
        )  # fmt: skip
        found = ranking.at(start) if is_largest else ranking.at(start, stop - 1)
        yield
        return list(self._keep(index, key, lambda: _band_of(found(), start, stop, is_largest)))

    # Dropping at random.

    def _scale(self, index: int, mask: Mask) -> Steps[np.float32]:
        """What DARE's rescaling multiplies by; NaN: nothing."""
        operand, operands = self.operands.others[index], self.operands
        key = ("sum", operands.name, operand.place, self.seed, operand.parameters["density"])
        after = self._kept(index, key)
        if after is None:
            summed = self._sum_of_magnitudes(index, mask)
            yield
            after = self._keep(index, key, summed)
        before = self._keep(index, ("sum",), lambda: self._sum_of_magnitudes(index, None)())
        scale = sparsify.scale_of(before, after, operands.dtype)
        return np.float32(np.nan if scale is None else scale.item())

    def _sum_of_magnitudes(self, index: int, mask: Mask | None) -> Callable[[], float]:
        """Begins to sum up what the mask leaves; None: all of it. Returns what waits for the sum."""
        import torch

        source, words = self.sources[index], np.zeros(4, np.uint64) if mask is None else mask.words

        def add(span: slice, _: Workspace) -> float:
            given, count = (self.base[span], source[span], span.start, words, mask is None), span.stop - span.start
            if self.on_device:
                wide = torch.empty(count, dtype=torch.float64, device=source.device)
                self.kernels.sparse_magnitudes(wide, *given)
                return sparsify.sum_in_rows(wide)
            lanes = np.zeros((count // sparsify.ROW, sparsify.LANES))
            rest = np.empty(count % sparsify.ROW)
            self.kernels.sums_of_magnitudes(lanes, rest, *given)
            return sparsify.sum_of_lanes(lanes, rest)

        finish = self.workers.start(self.operands.count, add, self.block)
        return lambda: float(np.sum(finish()))


class _Search(Generic[Found]):
    """Steps that have begun: what they wait for goes on while others begin."""

    def __init__(self, steps: Steps[Found]) -> None:
        self._steps, self._found = steps, None
        self.is_done = False
        self._go_on()

    def _go_on(self) -> None:
        try:
            next(self._steps)
        except StopIteration as done:
            self._found, self.is_done = done.value, True

    def result(self) -> Found:
        while not self.is_done:
            self._go_on()
        return cast("Found", self._found)


def _band_of(tied: list[Tied], start: int, stop: int, is_largest: bool) -> list[int]:
    """The band that keeps those of ascending ranks start..stop, stop excluded.

    Args:
        tied: those tied at the first rank, and, unless the largest are kept, those at the last.
    """
    low = tied[0]
    if is_largest:
        return [low.value, *_cut(low, *of_largest(low, start)), NOT_REACHED, 0, 0]
    high = tied[1]
    if low.value == high.value:
        return [low.value, *_cut(low, start - low.below, stop - low.below), low.value + 1, 0, 0]
    lower = _cut(low, start - low.below, low.equal)
    return [low.value, *lower, high.value, *_cut(high, 0, stop - high.below)]


def _cut(tied: Tied, first: int, last: int) -> tuple[int, int]:
    """Between which indices of the tensor those are kept of which first..last are, last excluded."""
    if last <= first:
        return 0, 0
    if last - first >= tied.equal or tied.value == 0:  # a delta of 0 is the same kept and dropped
        return 0, EVERYWHERE
    return tied.place(first) if first else 0, tied.place(last) if last < tied.equal else EVERYWHERE
