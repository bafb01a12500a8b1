"""The steps of `cpu_steps.py` as torch operations: for tensors on a GPU, and for sums of five and more sources.

Works on any device that torch does (on a CPU too, which is how it is tested: the same bytes). Every step is an
operation of its own, so that it rounds as there; blocks are small enough to stay in a GPU's cache from step to
step. DARE's sums of magnitudes are float64, on a GPU added in its order: its scale may differ from a CPU's where
two sums round differently to the dtype of the merge, which we have not seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from merge_hooks.kernels.constants import LANES, LEVELS, NOT_REACHED, ROW
from merge_hooks.kernels.cpu_steps import lower_bits_of

if TYPE_CHECKING:
    import torch

# torch adds up to four rows one after the other wherever they lie; from five on, the columns at the end of its
# vectors and of each thread's share are added in another order, which only the same call on the same memory
# repeats.
MOST_IN_ORDER = 4
# On a GPU starting an operation costs more than on a CPU, and its cache is larger.
BLOCK = 1 << 23
LOGICAL = (1 << 64) - 1


def _signed(value: int) -> int:
    """A 64-bit pattern as Python's signed integer, as torch's int64 has it."""
    value &= LOGICAL
    return value - (1 << 64) if value >> 63 else value


STEP = _signed(0x9E3779B97F4A7C15)
FACTORS = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))


class TorchSteps:
    """Steps in one dtype, on flat tensors of one device.

    `linear` and `mix` return whether all was finite as a tensor, so that the host need not wait for each block.
    """

    smallest_block = BLOCK

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.lower_bits, self.is_narrow = lower_bits_of(dtype), dtype.itemsize == 2

    def array(self, flat: torch.Tensor) -> torch.Tensor:
        return flat

    def block_of(self, count: int, threads: int) -> int:
        """Elements that one call takes of a tensor of `count`."""
        return BLOCK

    def linear(self, out: Any, sources: Any, weights: Any, divisor: Any) -> torch.Tensor:
        import torch

        total = torch.zeros(len(out), dtype=torch.float32, device=out.device)
        for source, weight in zip(sources, weights, strict=True):
            factor = torch.full((1,), float(weight), dtype=torch.float32, device=out.device)
            total.addcmul_(source.to(self.dtype).float(), factor)
        total.div_(torch.full((1,), float(divisor), dtype=torch.float32, device=out.device))
        out.copy_(total.to(self.dtype))
        return out.isfinite().all()

    def mix(
        self, out: Any, base: Any, sources: Any, start: int, weights: Any, bands: Any, draws: Any, scales: Any,
        elect: bool, divisor: Any, factor: Any,
    ) -> torch.Tensor:  # fmt: skip
        import torch

        rows = torch.empty(len(sources), len(out), dtype=self.dtype, device=out.device)
        finite = self.weigh(rows, base, sources, start, weights, bands, draws, scales)
        return finite & self.combine(out, base, rows, weights, elect, divisor, factor)

    def weigh(
        self, rows: Any, base: Any, sources: Any, start: int, weights: Any, bands: Any, draws: Any, scales: Any
    ) -> torch.Tensor:
        """Write each source's weighted sparse delta to its row. Returns whether all deltas were finite."""
        own = base.to(self.dtype)
        finite = own.isfinite().all()
        for j, source in enumerate(sources):
            delta = source.to(self.dtype) - own
            finite &= delta.isfinite().all()
            if bands is not None:
                delta.masked_fill_(~_in_band(delta, bands[j], start), 0.0)
            if draws is not None:
                delta.masked_fill_(~drawn(delta, draws[j], start), 0.0)
                delta = delta.float().mul_(float(scales[j])).to(self.dtype)
            rows[j] = delta.mul_(self._scalar(weights[j], delta))
        return finite

    def combine(
        self, out: Any, base: Any, rows: Any, weights: Any, elect: bool, divisor: Any, factor: Any
    ) -> torch.Tensor:
        """The base plus the sum of weighted deltas, which are changed. Returns whether all was finite."""
        import torch

        mixed = self._sum(rows)
        finite = mixed.isfinite().all()
        if elect:
            rows.masked_fill_(torch.signbit(rows) != torch.signbit(mixed), 0.0)
            mixed = self._sum(rows)
            if divisor is not None:
                own = torch.tensor(weights, dtype=self.dtype, device=rows.device).unsqueeze(1)
                shared = self._sum(torch.where(rows != 0, own, torch.zeros_like(own)))
                mixed.div_(shared.masked_fill_(shared == 0, 1.0))
        elif divisor is not None:
            mixed.div_(self._scalar(divisor, mixed))
        if factor != 1:
            mixed.mul_(float(factor))
        out.copy_(mixed.add_(base.to(self.dtype)))
        return finite & out.isfinite().all()

    def _scalar(self, value: Any, like: Any) -> torch.Tensor:
        # On the device: CUDA divides by a number of the host's by multiplying with its inverse.
        import torch

        return torch.full((), float(value), dtype=self.dtype, device=like.device)

    def _sum(self, rows: Any) -> torch.Tensor:
        """Over the sources, in float32 from +0 on, rounded once."""
        import torch

        if len(rows) > MOST_IN_ORDER:
            return rows.sum(dim=0)
        total = torch.zeros(rows.shape[1], dtype=torch.float32, device=rows.device)
        for row in rows:
            total.add_(row)
        return total.to(self.dtype)

    def _magnitudes(self, base: Any, source: Any) -> torch.Tensor:
        """Bit patterns of |source - base| as float32."""
        return _magnitudes(source.to(self.dtype) - base.to(self.dtype))

    def count_upper(self, counts: Any, base: Any, source: Any) -> None:
        import torch

        buckets = self._magnitudes(base, source) >> self.lower_bits
        counts += torch.bincount(buckets, minlength=len(counts)).cpu().numpy()

    def count_lower(self, counts: Any, base: Any, source: Any, first: int) -> None:
        import torch

        sizes = self._magnitudes(base, source)
        inside = sizes[(sizes >= first) & (sizes < first + len(counts))]
        counts += torch.bincount(inside - first, minlength=len(counts)).cpu().numpy()

    def collect(
        self, base: Any, source: Any, start: int, low: int, high: int, low_two: int, high_two: int, most: int
    ) -> tuple[Any, Any]:
        sizes = self._magnitudes(base, source)
        places = (((sizes >= low) & (sizes <= high)) | ((sizes >= low_two) & (sizes <= high_two))).nonzero().view(-1)
        return sizes[places].cpu().numpy(), places.cpu().numpy() + start

    def place_of_equal(self, base: Any, source: Any, value: int, rank: int) -> int:
        return int((self._magnitudes(base, source) == value).nonzero()[rank])

    def sum_of_magnitudes(self, base: Any, source: Any, start: int, draws: Any) -> float:
        delta = (source.to(self.dtype) - base.to(self.dtype)).abs()
        wide = (delta if draws is None else delta.masked_fill_(~drawn(delta, draws, start), 0.0)).double()
        whole = len(wide) // ROW * ROW
        rows, rest = wide[:whole].view(-1, ROW // LANES, LANES), wide[whole:].cpu().numpy()
        # numpy adds along an axis that is not the last in order, as `cpu.py` does; torch does not, but can on a GPU.
        lanes = rows.numpy().sum(axis=1) if wide.device.type == "cpu" else rows.sum(dim=1).cpu().numpy()
        return float(lanes.sum() + rest.sum())


def _magnitudes(delta: Any) -> torch.Tensor:
    import torch

    return delta.float().view(torch.int32) & NOT_REACHED


def _in_band(delta: Any, band: Any, start: int) -> torch.Tensor:
    """Which elements lie between the edges, or at them in a place that is kept: see `cpu.mix`."""
    import torch

    size = _magnitudes(delta)
    index = torch.arange(start, start + len(delta), device=delta.device)
    low, low_from, low_to, high, high_from, high_to = (int(value) for value in band)
    inside = (size > low) & (size < high)
    inside |= (size == low) & (index >= low_from) & (index < low_to)
    return inside | ((size == high) & (index >= high_from) & (index < high_to))


def drawn(delta: Any, draws: Any, start: int) -> torch.Tensor:
    """Which elements from `start` on a mask keeps: see `masks.py`."""
    import torch

    key, tie_key, level, tie_level = (int(value) for value in draws)
    if level == LEVELS:
        return torch.ones_like(delta, dtype=torch.bool)
    count = len(delta)
    words = random_words(key, start // 4, -(-count // 4), delta.device)
    values = words.view(torch.int16)[:count] & (LEVELS - 1)
    kept = values < level
    tied = (values == level).nonzero().view(-1)
    deciding = _scramble((tied + start + 1) * STEP + _signed(tie_key))
    kept[tied] = ((deciding >> 32) & 0xFFFFFFFF) < tie_level
    return kept


def random_words(key: int, start: int, count: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """splitmix64's outputs start..start+count of the stream that begins at `key`, as int64."""
    import torch

    return _scramble(torch.arange(start + 1, start + 1 + count, device=device) * STEP + _signed(key))


def _scramble(words: torch.Tensor) -> torch.Tensor:
    """splitmix64's output function on int64, whose shifts are made logical by a mask."""
    for shift, factor in FACTORS:
        words = (words ^ ((words >> shift) & (LOGICAL >> shift))) * factor
    return words ^ ((words >> 31) & (LOGICAL >> 31))
