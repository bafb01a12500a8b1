"""The whole chain of a merge in one pass over memory, compiled by numba: what `fused.py` calls on CPUs.

Every step rounds as the torch kernels of `task_arithmetic.py` and `linear.py` do, which round as mergekit does, so the
bytes are theirs (tests/merge_hooks/methods/test_fused.py). Nothing is compiled with fast-math; the one fused
multiply-add is the one that torch's addcmul has. Works on strips that stay in a core's first cache. bfloat16 comes and
goes as its bit pattern, a uint16, and is float32 in between.

numba (https://numba.readthedocs.io) comes with vLLM. Compiling takes about two seconds for a combination of dtypes,
once a process. Importing this module imports numba.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import njit

from merge_hooks.kernels.resident.float_bits import (
    flag,
    flag_narrow,
    from_pattern,
    magnitude,
    multiply_add,
    same_sign,
    to_bfloat16,
    to_bfloat16_fast,
    to_pattern,
)
from merge_hooks.kernels.sparsify import BANDED, DRAWN, LANES, LOWER_BITS, ROW, WHOLE

STRIP, PAIR_STRIP, DRAWN_AT_ONCE = 2048, 1 << 14, 512
STEP = np.uint64(0x9E3779B97F4A7C15)
FIRST_FACTOR, SECOND_FACTOR = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
ZERO, NOTHING = np.float32(0), np.int32(0)


@njit(inline="always", error_model="numpy")
def _itself(value: Any) -> Any:
    return value


@njit(inline="always", error_model="numpy")
def scramble(word: Any) -> Any:
    """splitmix64's output function: see `masks.py`."""
    word = (word ^ (word >> np.uint64(30))) * FIRST_FACTOR
    word = (word ^ (word >> np.uint64(27))) * SECOND_FACTOR
    return word ^ (word >> np.uint64(31))


@njit(nogil=True, error_model="numpy")
def draw(values: Any, words: Any, start: Any, draws: Any) -> None:
    """Write to `values` (int16, over the memory of `words`) a negative number where elements from `start` on are kept.

    `draws`: the mask's key, tie key, level and tie level as uint64, as `masks.Mask` has them.
    """
    key, level = draws[0], np.int16(draws[2])
    if draws[2] == np.uint64(1 << 15):
        values[:] = -1
        return
    for begin in range(0, len(values), DRAWN_AT_ONCE):
        end = min(begin + DRAWN_AT_ONCE, len(values))
        some, counter = words[begin // 4 : (end + 3) // 4], key + np.uint64((start + begin) // 4 + 1) * STEP
        for place in range(len(some)):
            some[place] = scramble(counter)
            counter += STEP
        group, is_tied = values[begin:end], False
        for place in range(len(group)):
            value = np.int16((group[place] & np.int16(0x7FFF)) - level)
            group[place] = value
            is_tied |= value == 0
        if is_tied and draws[3]:  # one element in 32768: few groups have one
            decide_ties(group, start + begin, draws)


@njit(nogil=True, error_model="numpy")
def decide_ties(values: Any, start: Any, draws: Any) -> None:
    """Elements on the threshold itself, decided by a word of their own."""
    for place in range(len(values)):
        if values[place] == 0:
            index = np.uint64(start + place + 1)
            values[place] = -1 if scramble(index * STEP + draws[1]) >> np.uint64(32) < draws[3] else 0


@njit(nogil=True, error_model="numpy")
def until_cut(bands: Any, start: Any, end: Any) -> Any:
    """Where the elements from `start` on end of which each band keeps all that are tied at an edge, or none.

    So no element is asked for its place. What is drawn at random has no band, and so strips that begin at whole words.
    """
    for band in bands:
        for which in (1, 2, 4, 5):
            if start < band[which] < end:
                end = band[which]
    return end


@njit(nogil=True, error_model="numpy")
def edges(band: Any, kind: Any, start: Any) -> Any:
    """Between which magnitudes, themselves excluded, a delta is kept up to the next cut: all for a whole delta."""
    if kind == WHOLE:
        return np.int32(-1), np.int32(0x7FFFFFFF)
    low, high = band[1] <= start < band[2], band[4] <= start < band[5]
    return np.int32(band[0] - (1 if low else 0)), np.int32(band[3] + (1 if high else 0))


@cache
def make(is_narrow: bool, stored_narrow: bool, out_narrow: bool) -> Any:
    """The kernels for one combination of dtypes.

    Args:
        is_narrow: the merge computes in bfloat16, else in float32.
        stored_narrow, out_narrow: the sources' and the result's.
    """
    load = from_pattern if stored_narrow else _itself
    dropped = LOWER_BITS[is_narrow]
    fit = to_bfloat16 if is_narrow and not stored_narrow else _itself  # a source to the dtype of the merge
    rounded = to_bfloat16 if is_narrow else _itself
    fit_out = to_bfloat16 if out_narrow and not is_narrow else _itself
    store = to_pattern if out_narrow else _itself
    # In the loops for two sources each value is looked at before it is rounded, which then need not mind NaN.
    quick = to_bfloat16_fast if is_narrow else _itself
    look = flag_narrow if is_narrow else flag
    look_out = flag_narrow if is_narrow or out_narrow else flag
    quick_out = to_bfloat16_fast if out_narrow and not is_narrow else _itself

    @njit(nogil=True, error_model="numpy")
    def deltas(out: Any, base: Any, source: Any) -> Any:
        """source - base, rounded, as float32 to `out`. Negative if one is not finite."""
        seen = NOTHING
        for i in range(len(out)):
            delta = rounded(fit(load(source[i])) - fit(load(base[i])))
            seen = flag(seen, delta)
            out[i] = delta
        return seen

    @njit(nogil=True, error_model="numpy")
    def weigh_whole(weighted: Any, total: Any, base: Any, source: Any, weight: Any) -> Any:
        seen = NOTHING
        for i in range(len(weighted)):
            delta = rounded(fit(load(source[i])) - fit(load(base[i])))
            seen = flag(seen, delta)
            value = rounded(delta * weight)
            weighted[i] = value
            total[i] += value
        return seen

    @njit(nogil=True, error_model="numpy")
    def weigh_band(weighted: Any, total: Any, base: Any, source: Any, weight: Any, above: Any, below: Any) -> Any:
        seen = NOTHING
        for i in range(len(weighted)):
            delta = rounded(fit(load(source[i])) - fit(load(base[i])))
            seen = flag(seen, delta)
            size = magnitude(delta)
            value = rounded((delta if (size > above) & (size < below) else ZERO) * weight)
            weighted[i] = value
            total[i] += value
        return seen

    @njit(nogil=True, error_model="numpy")
    def weigh_drawn(
        weighted: Any, total: Any, base: Any, source: Any, weight: Any, scale: Any, is_scaled: Any, kept: Any
    ) -> Any:
        seen = NOTHING
        for i in range(len(weighted)):
            delta = rounded(fit(load(source[i])) - fit(load(base[i])))
            seen = flag(seen, delta)
            left = delta if kept[i] < 0 else ZERO
            value = rounded((rounded(left * scale) if is_scaled else left) * weight)
            weighted[i] = value
            total[i] += value
        return seen

    @njit(nogil=True, error_model="numpy")
    def weigh(
        weighted: Any, total: Any, base: Any, source: Any, weight: Any, kind: Any, band: Any, draws: Any, scale: Any,
        words: Any, start: Any,
    ) -> Any:  # fmt: skip
        """One source's weighted sparse delta, and the sum with it, for one strip without a cut."""
        count = len(weighted)
        if kind == WHOLE:
            return weigh_whole(weighted, total, base, source, weight)
        if kind == DRAWN:
            kept = words.view(np.int16)[:count]
            draw(kept, words[: (count + 3) // 4], start, draws)
            return weigh_drawn(weighted, total, base, source, weight, scale, scale == scale, kept)
        above, below = edges(band, kind, start)
        return weigh_band(weighted, total, base, source, weight, above, below)

    def make_pair(elect: bool, normalize: bool, form: int, is_scaled: bool) -> Any:
        """Two sources, all in one loop: the longer way's formulas, each element's values in registers."""

        @njit(nogil=True, error_model="numpy")
        def pair(
            out: Any, base: Any, one: Any, two: Any, weight: Any, weight_two: Any, above: Any, below: Any,
            above_two: Any, below_two: Any, kept: Any, kept_two: Any, scale: Any, scale_two: Any, divisor: Any,
            factor: Any,
        ) -> Any:  # fmt: skip
            seen = NOTHING
            for i in range(len(out)):
                own = fit(load(base[i]))
                delta, delta_two = fit(load(one[i])) - own, fit(load(two[i])) - own
                seen = look(look(seen, delta), delta_two)
                delta, delta_two = quick(delta), quick(delta_two)
                if form == DRAWN:
                    delta = quick((delta if kept[i] < 0 else ZERO) * scale)
                    delta_two = quick((delta_two if kept_two[i] < 0 else ZERO) * scale_two)
                elif form == BANDED:
                    size, size_two = magnitude(delta), magnitude(delta_two)
                    delta = delta if (size > above) & (size < below) else ZERO
                    delta_two = delta_two if (size_two > above_two) & (size_two < below_two) else ZERO
                value, value_two = quick(delta * weight), quick(delta_two * weight_two)
                total = value + value_two
                if elect:
                    seen = look(seen, total)
                    total = quick(total) + ZERO
                    agrees, agrees_two = same_sign(value, total), same_sign(value_two, total)
                    total = (value if agrees else ZERO) + (value_two if agrees_two else ZERO)
                    if normalize:
                        counted = weight if agrees & (value != ZERO) else ZERO
                        counted_two = weight_two if agrees_two & (value_two != ZERO) else ZERO
                        shared = quick(counted + counted_two) + ZERO
                        mixed = quick((quick(total) + ZERO) / (shared if shared != ZERO else np.float32(1)))
                    else:
                        mixed = quick(total) + ZERO
                elif normalize:
                    mixed = quick((quick(total) + ZERO) / divisor)
                else:
                    mixed = quick(total) + ZERO
                if is_scaled:
                    mixed = quick(mixed * factor)
                result = own + mixed
                seen = look_out(seen, result)
                out[i] = store(quick_out(quick(result)))
            return seen

        return pair

    def make_generalized_pair(elect: bool, normalize: bool, form: int, is_scaled: bool) -> Any:
        pair = make_pair(elect, normalize, form, is_scaled)

        @njit(nogil=True, error_model="numpy")
        def generalized_pair(
            out: Any, base: Any, sources: Any, start: Any, weights: Any, kinds: Any, bands: Any, draws: Any,
            scales: Any, divisor: Any, factor: Any,
        ) -> Any:  # fmt: skip
            """`generalized` for two sources."""
            count, seen, begin = len(out), NOTHING, 0
            words, words_two = np.empty(PAIR_STRIP // 4, np.uint64), np.empty(PAIR_STRIP // 4, np.uint64)
            kept, kept_two = words.view(np.int16), words_two.view(np.int16)
            scale = scales[0] if scales[0] == scales[0] else np.float32(1)
            scale_two = scales[1] if scales[1] == scales[1] else np.float32(1)
            while begin < count:
                place = start + begin
                end = until_cut(bands, place, min(place + PAIR_STRIP, start + count)) - start
                size = end - begin
                if form == DRAWN:
                    draw(kept[:size], words[: (size + 3) // 4], place, draws[0])
                    draw(kept_two[:size], words_two[: (size + 3) // 4], place, draws[1])
                above, below = edges(bands[0], kinds[0], place)
                above_two, below_two = edges(bands[1], kinds[1], place)
                seen |= pair(
                    out[begin:end], base[begin:end], sources[0][begin:end], sources[1][begin:end], weights[0], weights[1],
                    above, below, above_two, below_two, kept[:size], kept_two[:size], scale, scale_two, divisor, factor,
                )  # fmt: skip
                begin = end
            return seen

        return generalized_pair

    @njit(nogil=True, error_model="numpy")
    def linear_pair(out: Any, one: Any, two: Any, weight: Any, weight_two: Any, divisor: Any) -> Any:
        seen = NOTHING
        for i in range(len(out)):
            total = multiply_add(fit(load(one[i])), weight, ZERO)
            value = multiply_add(fit(load(two[i])), weight_two, total) / divisor
            seen = look_out(seen, value)
            out[i] = store(quick_out(quick(value)))
        return seen

    @njit(nogil=True, error_model="numpy")
    def generalized(
        out: Any, base: Any, sources: Any, start: Any, weights: Any, kinds: Any, bands: Any, draws: Any, scales: Any,
        elect: Any, normalize: Any, divisor: Any, factor: Any, is_scaled: Any,
    ) -> Any:  # fmt: skip
        """The base plus the sum of deltas, from element `start` on. Negative if anything was not finite."""
        count, models = len(out), len(sources)
        weighted = np.empty((models, STRIP), np.float32)
        totals, mixes, divisors = np.empty(STRIP, np.float32), np.empty(STRIP, np.float32), np.empty(STRIP, np.float32)
        words = np.empty(STRIP // 4, np.uint64)
        seen, begin = NOTHING, 0
        while begin < count:
            place = start + begin
            size = until_cut(bands, place, min(place + STRIP, start + count)) - place
            total, base_strip = totals[:size], base[begin : begin + size]
            total[:] = ZERO
            for j in range(models):
                seen |= weigh(
                    weighted[j, :size], total, base_strip, sources[j][begin : begin + size], weights[j], kinds[j],
                    bands[j], draws[j], scales[j], words, place,
                )  # fmt: skip
            if elect:
                seen |= elect_signs(
                    weighted[:, :size], total, mixes[:size], divisors[:size], weights, normalize, models == 2
                )
                total = mixes[:size]
            elif normalize:
                for i in range(size):
                    total[i] = rounded(rounded_sum(total[i], models == 2) / divisor)
            else:
                for i in range(size):
                    total[i] = rounded_sum(total[i], models == 2)
            seen |= finish(out[begin : begin + size], base_strip, total, factor, is_scaled)
            begin += size
        return seen

    @njit(inline="always", error_model="numpy")
    def rounded_sum(value: Any, of_two: Any) -> Any:
        # Of two rows the torch kernel adds +0 after rounding, of more it begins with it.
        return rounded(value) + ZERO if of_two else rounded(value)

    @njit(nogil=True, error_model="numpy")
    def elect_signs(
        weighted: Any, total: Any, mixed: Any, divisors: Any, weights: Any, normalize: Any, of_two: Any
    ) -> Any:
        """The sum of the values with the sign of `total`, over the sum of their weights if normalising."""
        seen = NOTHING
        for i in range(len(total)):
            total[i] = rounded_sum(total[i], of_two)
            seen = flag(seen, total[i])
            mixed[i] = ZERO
            divisors[i] = ZERO
        for j in range(len(weighted)):
            row, weight = weighted[j], weights[j]
            for i in range(len(total)):
                value = row[i]
                agrees = same_sign(value, total[i])
                mixed[i] += value if agrees else ZERO
                divisors[i] += weight if agrees & (value != ZERO) else ZERO
        for i in range(len(total)):
            mixed[i] = rounded_sum(mixed[i], of_two)
        if normalize:
            for i in range(len(total)):
                divisor = rounded_sum(divisors[i], of_two)
                mixed[i] = rounded(mixed[i] / (divisor if divisor != ZERO else np.float32(1)))
        return seen

    @njit(nogil=True, error_model="numpy")
    def finish(out: Any, base: Any, total: Any, factor: Any, is_scaled: Any) -> Any:
        seen = NOTHING
        for i in range(len(out)):
            mixed = rounded(total[i] * factor) if is_scaled else total[i]
            value = fit_out(rounded(fit(load(base[i])) + mixed))
            seen = flag(seen, value)
            out[i] = store(value)
        return seen

    @njit(nogil=True, error_model="numpy")
    def linear(out: Any, sources: Any, weights: Any, divisor: Any, is_divided: Any) -> Any:
        """The weighted sum of the sources, over `divisor`. Negative if it is not finite."""
        totals, seen = np.empty(STRIP, np.float32), NOTHING
        for begin in range(0, len(out), STRIP):
            size = min(STRIP, len(out) - begin)
            total, strip = totals[:size], out[begin : begin + size]
            total[:] = ZERO
            for j in range(len(sources)):
                source, weight = sources[j][begin : begin + size], weights[j]
                for i in range(size):
                    total[i] = multiply_add(fit(load(source[i])), weight, total[i])
            for i in range(size):
                value = fit_out(rounded(total[i] / divisor if is_divided else total[i]))
                seen = flag(seen, value)
                strip[i] = store(value)
        return seen

    @njit(nogil=True, error_model="numpy")
    def count_upper(counts: Any, base: Any, source: Any) -> Any:
        """Add to `counts` (int32) each delta's magnitude without its lower bits. Negative if one is not finite."""
        strip, seen = np.empty(STRIP, np.float32), NOTHING
        for begin in range(0, len(base), STRIP):
            size = min(STRIP, len(base) - begin)
            seen |= deltas(strip[:size], base[begin : begin + size], source[begin : begin + size])
            for i in range(size):
                counts[magnitude(strip[i]) >> dropped] += 1
        return seen

    @njit(inline="always", error_model="numpy")
    def size_of_delta(base: Any, source: Any) -> Any:
        return magnitude(rounded(fit(load(source)) - fit(load(base))))

    @njit(nogil=True, error_model="numpy")
    def count_lower(counts: Any, base: Any, source: Any, first: Any) -> None:
        """Add to `counts` (int32) how far above `first` the magnitudes are that lie less than its length above it."""
        low, high = np.int32(first), np.int32(first + len(counts) - 1)
        for i in range(len(base)):
            size = size_of_delta(base[i], source[i])
            if low <= size <= high:
                counts[size - low] += 1

    @njit(nogil=True, error_model="numpy")
    def collect(base: Any, source: Any, start: Any, low: Any, high: Any, low_two: Any, high_two: Any, most: Any) -> Any:
        """(magnitudes, indices from `start` on) of the deltas whose magnitude is in low..high or low_two..high_two.

        Args:
            most: how many there are in the whole tensor.
        """
        room = min(most, len(base))
        sizes, places = np.empty(room, np.int32), np.empty(room, np.int64)
        low, high, low_two, high_two = np.int32(low), np.int32(high), np.int32(low_two), np.int32(high_two)
        group, count = 64, 0
        for begin in range(0, len(base), group):
            some, theirs = base[begin : begin + group], source[begin : begin + group]
            found = False
            for i in range(len(some)):
                size = size_of_delta(some[i], theirs[i])
                found |= ((size >= low) & (size <= high)) | ((size >= low_two) & (size <= high_two))
            if found:  # few groups have one: the loop above looks at many elements at once
                for i in range(len(some)):
                    size = size_of_delta(some[i], theirs[i])
                    if low <= size <= high or low_two <= size <= high_two:
                        sizes[count], places[count] = size, start + begin + i
                        count += 1
        return sizes[:count], places[:count]

    @njit(nogil=True, error_model="numpy")
    def place_of_equal(base: Any, source: Any, value: Any, rank: Any) -> Any:
        """The index of the delta of this magnitude that comes after `rank` others of it."""
        wanted, group = np.int32(value), 64
        for begin in range(0, len(base), group):
            some, theirs = base[begin : begin + group], source[begin : begin + group]
            equal = 0
            for i in range(len(some)):
                equal += size_of_delta(some[i], theirs[i]) == wanted
            if rank < equal:
                for i in range(len(some)):
                    if size_of_delta(some[i], theirs[i]) == wanted:
                        if rank == 0:
                            return begin + i
                        rank -= 1
            rank -= equal
        return len(base)

    @njit(nogil=True, error_model="numpy")
    def sums_of_magnitudes(
        lanes: Any, rest: Any, base: Any, source: Any, start: Any, draws: Any, is_whole: Any
    ) -> None:
        """Sums of |delta| in float64, 0 where it is not drawn (`is_whole`: all are): see `sparsify.sum_in_rows`.

        Added to `lanes` [rows, LANES]; magnitudes after the last whole row are written to `rest`.
        """
        strip, words = np.empty(STRIP, np.float32), np.empty(STRIP // 4, np.uint64)
        for begin in range(0, len(base), STRIP):
            size = min(STRIP, len(base) - begin)
            deltas(strip[:size], base[begin : begin + size], source[begin : begin + size])
            if not is_whole:
                kept = words.view(np.int16)[:size]
                draw(kept, words[: (size + 3) // 4], start + begin, draws)
                for i in range(size):
                    strip[i] = strip[i] if kept[i] < 0 else ZERO
            row = begin // ROW
            if row < len(lanes):  # a row is so many whole strips
                sums = lanes[row]
                for first in range(0, size, LANES):
                    some = strip[first : first + LANES]
                    for i in range(LANES):
                        sums[i] += np.float64(abs(some[i]))
            else:
                for i in range(size):
                    rest[begin - len(lanes) * ROW + i] = np.float64(abs(strip[i]))

    return Kernels(
        generalized, cache(make_generalized_pair), linear, linear_pair, count_upper, count_lower, collect, place_of_equal,
        sums_of_magnitudes,
    )  # fmt: skip


class Kernels:
    """The compiled functions of one combination of dtypes. Arrays are flat; slices of a tensor may be given."""

    def __init__(
        self, generalized: Any, make_pair: Any, linear: Any, linear_pair: Any, count_upper: Any, count_lower: Any,
        collect: Any, place_of_equal: Any, sums_of_magnitudes: Any,
    ) -> None:  # fmt: skip
        self._generalized, self._make_pair, self._linear, self._linear_pair = (
            generalized,
            make_pair,
            linear,
            linear_pair,
        )
        self.count_upper, self.count_lower, self.collect = count_upper, count_lower, collect
        self.place_of_equal, self.sums_of_magnitudes = place_of_equal, sums_of_magnitudes

    def generalized(
        self, out: Any, base: Any, sources: tuple[Any, ...], start: int, weights: Any, kinds: Any, bands: Any,
        draws: Any, scales: Any, elect: bool, normalize: bool, divisor: Any, factor: Any, is_scaled: bool,
    ) -> int:  # fmt: skip
        """The base plus the sum of deltas: by the way for two sources, or the one for any number."""
        given = (out, base, sources, start, weights, kinds, bands, draws, scales)
        if len(sources) == 2:
            pair = self._make_pair(elect, normalize, int(kinds.max()), is_scaled)
            return pair(*given, divisor, factor)
        return self._generalized(*given, elect, normalize, divisor, factor, is_scaled)

    def linear(self, out: Any, sources: tuple[Any, ...], weights: Any, divisor: Any, is_divided: bool) -> int:
        """The weighted sum of the sources, over `divisor` (1: as it is)."""
        if len(sources) == 2:
            return self._linear_pair(out, *sources, *weights, divisor)
        return self._linear(out, sources, weights, divisor, is_divided)
