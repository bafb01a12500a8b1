"""The one-pass merges for sources that lie on a GPU: the steps of `compiled.py` in torch operations, block by block.

Works on any device that torch does (on a CPU too, which is how it is tested: the bytes of the other kernels). Every step
is an operation of its own, so that it rounds as there; blocks are small enough to stay in a GPU's cache from step to
step. DARE's sums of magnitudes are float64, added in the device's order: its scale may differ from a CPU's where two
sums round differently to the dtype of the merge, which we have not seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from merge_hooks.kernels.sparsify import BANDED, DRAWN, LOWER_BITS

if TYPE_CHECKING:
    import torch

LOGICAL = (1 << 64) - 1


def _signed(value: int) -> int:
    """A 64-bit pattern as Python's signed integer, as torch's int64 has it."""
    value &= LOGICAL
    return value - (1 << 64) if value >> 63 else value


STEP = _signed(0x9E3779B97F4A7C15)
FACTORS = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))


class DeviceKernels:
    """What `compiled.make` gives, on flat tensors of one device and one stored dtype.

    The merges return whether all was finite as a tensor, so that the host need not wait for each block.

    Args:
        dtype: in which the merge computes.
        out_dtype: of the result.
    """

    def __init__(self, dtype: torch.dtype, out_dtype: torch.dtype) -> None:
        self.dtype, self.out_dtype = dtype, out_dtype

    def linear(self, out: Any, sources: Any, weights: Any, divisor: Any, is_divided: bool) -> torch.Tensor:
        import torch

        total = torch.zeros(len(out), dtype=torch.float32, device=out.device)
        for source, weight in zip(sources, weights, strict=True):
            factor = torch.full((1,), float(weight), dtype=torch.float32, device=out.device)
            total.addcmul_(source.to(self.dtype).float(), factor)
        if is_divided:
            total.div_(torch.full((1,), float(divisor), dtype=torch.float32, device=out.device))
        out.copy_(total.to(self.dtype))
        return out.isfinite().all()

    def generalized(
        self, out: Any, base: Any, sources: Any, start: int, weights: Any, kinds: Any, bands: Any, draws: Any,
        scales: Any, elect: bool, normalize: bool, divisor: Any, factor: Any, is_scaled: bool,
    ) -> torch.Tensor:  # fmt: skip
        own = base.to(self.dtype)
        values, finite = [], own.isfinite().all()
        for j, source in enumerate(sources):
            delta = source.to(self.dtype) - own
            finite &= delta.isfinite().all()
            if kinds[j] == BANDED:
                delta.masked_fill_(~_in_band(delta, bands[j], start), 0.0)
            elif kinds[j] == DRAWN:
                delta.masked_fill_(~_drawn(delta, draws[j], start), 0.0)
                if scales[j] == scales[j]:
                    delta.mul_(self._scalar(scales[j], out))
            values.append(delta.mul_(self._scalar(weights[j], out)))
        mixed = self._sum(values)
        if elect:
            finite &= mixed.isfinite().all()
            mixed = self._elected(values, weights, mixed, normalize)
        elif normalize:
            mixed.div_(self._scalar(divisor, out))
        if is_scaled:
            mixed.mul_(float(factor))
        out.copy_(mixed.add_(own))
        return finite & out.isfinite().all()

    def _scalar(self, value: Any, like: Any) -> torch.Tensor:
        # On the device: CUDA divides by a number of the host's by multiplying with its inverse.
        import torch

        return torch.full((), float(value), dtype=self.dtype, device=like.device)

    def _sum(self, values: list[Any]) -> torch.Tensor:
        import torch

        if len(values) == 2:
            return torch.add(*values).add_(0.0)
        total = torch.zeros_like(values[0], dtype=torch.float32)
        for value in values:
            total.add_(value)
        return total.to(self.dtype)

    def _elected(self, values: list[Any], weights: Any, total: Any, normalize: bool) -> torch.Tensor:
        import torch

        agree = [torch.signbit(value) == torch.signbit(total) for value in values]
        zero = torch.zeros((), dtype=self.dtype, device=total.device)
        mixed = self._sum([torch.where(same, value, zero) for same, value in zip(agree, values, strict=True)])
        if not normalize:
            return mixed
        pairs = zip(agree, values, weights, strict=True)
        divisor = self._sum([torch.where(same & (value != 0), self._scalar(weight, total), zero)
                             for same, value, weight in pairs])  # fmt: skip
        return mixed.div_(torch.where(divisor == 0, torch.ones_like(zero), divisor))

    def _magnitudes(self, base: Any, source: Any) -> torch.Tensor:
        """Bit patterns of |source - base| as float32."""
        import torch

        delta = source.to(self.dtype) - base.to(self.dtype)
        return delta.float().view(torch.int32) & 0x7FFFFFFF

    def count_upper(self, counts: Any, base: Any, source: Any) -> None:
        import torch

        buckets = self._magnitudes(base, source) >> LOWER_BITS[self.dtype == torch.bfloat16]
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

    def sparse_magnitudes(self, out: Any, base: Any, source: Any, start: int, draws: Any, is_whole: bool) -> None:
        delta = (source.to(self.dtype) - base.to(self.dtype)).abs()
        out.copy_(delta if is_whole else delta.masked_fill_(~_drawn(delta, draws, start), 0.0))


def _in_band(delta: Any, band: Any, start: int) -> torch.Tensor:
    """Which elements lie between the edges, or on them in a place that is kept: see `fused._Generalized`."""
    import torch

    size = delta.float().view(torch.int32) & 0x7FFFFFFF
    index = torch.arange(start, start + len(delta), device=delta.device)
    low, low_from, low_to, high, high_from, high_to = (int(value) for value in band)
    inside = (size > low) & (size < high)
    inside |= (size == low) & (index >= low_from) & (index < low_to)
    return inside | ((size == high) & (index >= high_from) & (index < high_to))


def _drawn(delta: Any, draws: Any, start: int) -> torch.Tensor:
    """Which elements from `start` on are kept: `masks.Mask.kept` in torch."""
    import torch

    key, tie_key, level, tie_level = (int(value) for value in draws)
    if level == 1 << 15:
        return torch.ones_like(delta, dtype=torch.bool)
    count = len(delta)
    places = torch.arange(start // 4 + 1, start // 4 + 1 + -(-count // 4), device=delta.device)
    values = _scramble(places * STEP + _signed(key)).view(torch.int16)[:count] & 0x7FFF
    kept = values < level
    tied = (values == level).nonzero().view(-1)
    deciding = _scramble((tied + start + 1) * STEP + _signed(tie_key))
    kept[tied] = ((deciding >> 32) & 0xFFFFFFFF) < tie_level
    return kept


def _scramble(words: torch.Tensor) -> torch.Tensor:
    """splitmix64's output function on int64, whose shifts are made logical by a mask."""
    for shift, factor in FACTORS:
        words = (words ^ ((words >> shift) & (LOGICAL >> shift))) * factor
    return words ^ ((words >> 31) & (LOGICAL >> 31))
