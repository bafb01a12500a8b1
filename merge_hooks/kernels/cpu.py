"""The arithmetic of a merge on CPUs: each element of the result in one pass over the sources, compiled by numba.

Every step rounds to the dtype of the merge, as mergekit 0.1.5 rounds; sums over sources begin at +0, go in the
recipe's order and are rounded once. Nothing is compiled with fast-math; the one fused multiply-add is the one that
torch's addcmul has. Works on strips that stay in a core's first cache. Arrays are flat, numbers as `float_bits.py`
has them; `like` is any number of the dtype that the merge computes in. What is None is left out of the compiled
code.

The functions without a decorator are compiled by `compiled.py`, each for the dtypes and options that come.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from merge_hooks.kernels.constants import LANES, LEVELS, ROW
from merge_hooks.kernels.float_bits import cast, fit, flag, magnitude, multiply_add, rounded, same_sign, store, widest

STRIP, DRAWN_AT_ONCE, GROUP = 1 << 13, 128, 64
STEP = np.uint64(0x9E3779B97F4A7C15)
FIRST_FACTOR, SECOND_FACTOR = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
# Four numbers of 16 bits in a word: 1 in each of them, and the upper bit of each.
EACH, UPPER = np.uint64(0x0001000100010001), np.uint64(0x8000800080008000)
ZERO, ONE = np.float32(0), np.float32(1)
# Of what only compiled code calls: nothing is compiled for callers from Python or C, a fifth of the time.
INNER: Any = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def linear(out: Any, sources: Any, weights: Any, divisor: Any, like: Any) -> Any:
    """The weighted sum of the sources, over `divisor`. 0, or NaN if something is not finite."""
    widest()
    totals, seen = np.empty(STRIP, np.float32), ZERO
    for begin in range(0, len(out), STRIP):
        end = min(begin + STRIP, len(out))
        strip, total = out[begin:end], totals[: end - begin]
        one, two = sources[0][begin:end], sources[min(1, len(sources) - 1)][begin:end]
        if len(sources) == 2:  # as below, without going back to the totals
            for i in range(len(strip)):
                sum_ = multiply_add(fit(one[i], like), weights[0], ZERO)
                value = multiply_add(fit(two[i], like), weights[1], sum_) / divisor
                value = cast(rounded(value, like), like, strip[i])
                seen = flag(seen, value)
                strip[i] = store(value, strip[i])
            continue
        total[:] = ZERO
        for j in range(len(sources)):
            source, weight = sources[j][begin:end], weights[j]
            for i in range(len(strip)):
                total[i] = multiply_add(fit(source[i], like), weight, total[i])
        for i in range(len(strip)):
            value = total[i] / divisor
            value = cast(rounded(value, like), like, strip[i])
            seen = flag(seen, value)
            strip[i] = store(value, strip[i])
    return seen


def mix(
    out: Any, base: Any, sources: Any, start: Any, weights: Any, bands: Any, draws: Any, scales: Any, elect: Any,
    divisor: Any, factor: Any, like: Any,
) -> Any:  # fmt: skip
    """The base plus the sum of two or four sources' weighted deltas. 0, or NaN if something is not finite.

    Args:
        start: the place in the tensor of the first element, for bands and draws.
        bands: which deltas each source keeps by magnitude [sources, 6]: those between two edges, themselves excluded,
            and of those at an edge the ones from one index of the tensor to another: low, from, to, high, from, to.
        draws: which it keeps at random [sources, 4]: key, tie key, level and tie level of its `masks.Mask`.
        scales: what drawn deltas are multiplied by.
        elect: True: only values with the sign of their sum count.
        divisor: of the sum; where signs are elected each element has its own, and this only says that it is divided.
        factor: what the sum is multiplied by (`lambda`); None: by nothing.
    """
    widest()
    count, models, seen, begin = len(out), len(sources), ZERO, 0
    words = np.empty((models, STRIP // 4), np.uint64)
    kept = words.view(np.int16)
    above, below = np.empty(models, np.int32), np.empty(models, np.int32)
    while begin < count:
        end = min(begin + STRIP, count)
        if bands is not None:
            end = until_cut(bands, start + begin, start + end) - start
            for j in range(models):
                above[j], below[j] = edges(bands[j], start + begin)
        if draws is not None:
            for j in range(models):
                draw(kept[j, : end - begin], words[j, : (end - begin + 3) // 4], start + begin, draws[j])
        strip = out[begin:end], base[begin:end], sources[0][begin:end], sources[1][begin:end]
        options = weights, bands, above, below, draws, kept, scales, elect, divisor, factor, like
        if len(sources) == 2:
            seen += mix_strip(*strip, None, None, *options)
        else:
            seen += mix_strip(*strip, sources[2][begin:end], sources[3][begin:end], *options)
        begin = end
    return seen


@njit(inline="always", error_model="numpy")
def weighted(
    delta: Any, j: Any, i: Any, weights: Any, bands: Any, above: Any, below: Any, draws: Any, kept: Any, scales: Any,
    like: Any,
) -> Any:  # fmt: skip
    """The weighted delta of source j at element i, or 0 where it is not kept."""
    if bands is not None:
        size = magnitude(delta)
        delta = delta if (size > above[j]) & (size < below[j]) else ZERO
    if draws is not None:
        delta = rounded((delta if kept[j, i] < 0 else ZERO) * scales[j], like)
    return rounded(delta * weights[j], like)


@njit(**INNER)
def mix_strip(
    out: Any, base: Any, one: Any, two: Any, three: Any, four: Any, weights: Any, bands: Any, above: Any, below: Any,
    draws: Any, kept: Any, scales: Any, elect: Any, divisor: Any, factor: Any, like: Any,
) -> Any:  # fmt: skip
    """`mix` for one strip, all of which each band treats alike.

    Written out for four sources: with a loop over sources inside, the loop over elements is not vectorised.
    """
    widest()
    seen = ZERO
    for i in range(len(out)):
        own = fit(base[i], like)
        delta, delta_2 = rounded(fit(one[i], like) - own, like), rounded(fit(two[i], like) - own, like)
        if bands is not None or draws is not None:  # else the result shows what is not finite
            seen = flag(flag(seen, delta), delta_2)
        value = weighted(delta, 0, i, weights, bands, above, below, draws, kept, scales, like)
        value_2 = weighted(delta_2, 1, i, weights, bands, above, below, draws, kept, scales, like)
        total = ZERO + value + value_2
        if three is not None:
            delta_3, delta_4 = rounded(fit(three[i], like) - own, like), rounded(fit(four[i], like) - own, like)
            if bands is not None or draws is not None:
                seen = flag(flag(seen, delta_3), delta_4)
            value_3 = weighted(delta_3, 2, i, weights, bands, above, below, draws, kept, scales, like)
            value_4 = weighted(delta_4, 3, i, weights, bands, above, below, draws, kept, scales, like)
            total = total + value_3 + value_4
        if elect is not None:
            sign = total  # rounded, it would have the same
            total = ZERO + agreeing(value, value, sign) + agreeing(value_2, value_2, sign)
            shared = ZERO + agreeing(weights[0], value, sign) + agreeing(weights[1], value_2, sign)
            if three is not None:
                total = total + agreeing(value_3, value_3, sign) + agreeing(value_4, value_4, sign)
                shared = shared + agreeing(weights[2], value_3, sign) + agreeing(weights[3], value_4, sign)
            mixed = rounded(total, like)
            if divisor is not None:
                shared = rounded(shared, like)
                mixed = rounded(mixed / (shared if shared != ZERO else ONE), like)
        else:
            mixed = rounded(total, like)
            if divisor is not None:
                mixed = rounded(mixed / divisor, like)
        if factor is not None:
            mixed = rounded(mixed * factor, like)
        result = cast(rounded(own + mixed, like), like, out[i])
        seen = flag(seen, result)
        out[i] = store(result, out[i])
    return seen


@njit(inline="always", error_model="numpy")
def agreeing(number: Any, value: Any, sign: Any) -> Any:
    """The number where the value's sign is elected, else 0. A value of 0 has no sign, so its weight does not count."""
    return number if same_sign(value, sign) & (value != ZERO) else ZERO


@njit(**INNER)
def until_cut(bands: Any, start: Any, end: Any) -> Any:
    """Where the elements from `start` on end of which each band keeps all that are at an edge, or none.

    So no element is asked for its place. What is drawn at random has no band, and so strips that begin at whole words.
    """
    for band in bands:
        for which in (1, 2, 4, 5):
            if start < band[which] < end:
                end = band[which]
    return end


@njit(**INNER)
def edges(band: Any, start: Any) -> Any:
    """Between which magnitudes, themselves excluded, a delta is kept from `start` up to the next cut."""
    low, high = band[1] <= start < band[2], band[4] <= start < band[5]
    return np.int32(band[0] - (1 if low else 0)), np.int32(band[3] + (1 if high else 0))


@njit(inline="always", error_model="numpy")
def scramble(word: Any) -> Any:
    """splitmix64's output function: see `masks.py`."""
    word = (word ^ (word >> np.uint64(30))) * FIRST_FACTOR
    word = (word ^ (word >> np.uint64(27))) * SECOND_FACTOR
    return word ^ (word >> np.uint64(31))


@njit(**INNER)
def draw(values: Any, words: Any, start: Any, draws: Any) -> None:
    """Write to `values` (int16, over the memory of `words`) a negative number where elements from `start` on are kept.

    Args:
        start: a multiple of 4.
        draws: the mask's key, tie key, level and tie level as uint64.
    """
    widest()
    if draws[2] == np.uint64(LEVELS):
        values[:] = -1
        return
    levels = draws[2] * EACH
    for begin in range(0, len(words), DRAWN_AT_ONCE):
        some, tied = words[begin : begin + DRAWN_AT_ONCE], np.uint64(0)
        counter = draws[0] + np.uint64(start // 4 + begin + 1) * STEP
        for place in range(len(some)):
            # Four numbers of 15 bits less the level, which is taken from each apart: the upper bit is there to borrow.
            word = ((scramble(counter) | UPPER) - levels) ^ UPPER
            some[place] = word
            tied |= any_is_zero(word)
            counter += STEP
        if tied and draws[3]:  # one element in 32768: few groups have one
            decide_ties(values[4 * begin :], some, start + 4 * begin, draws)


@njit(inline="always", error_model="numpy")
def any_is_zero(word: Any) -> Any:
    """Not 0 if one of the four numbers in a word is."""
    return (word - EACH) & ~word & UPPER


@njit(**INNER)
def decide_ties(values: Any, words: Any, start: Any, draws: Any) -> None:
    """Elements on the threshold itself, decided by a word of their own."""
    for place in range(len(words)):
        if any_is_zero(words[place]):
            for i in range(4 * place, min(4 * place + 4, len(values))):
                if values[i] == 0:
                    own = scramble(np.uint64(start + i + 1) * STEP + draws[1])
                    values[i] = -1 if own >> np.uint64(32) < draws[3] else 0


@njit(inline="always", error_model="numpy")
def delta_of(base: Any, source: Any, like: Any) -> Any:
    return rounded(fit(source, like) - fit(base, like), like)


def count_upper(counts: Any, base: Any, source: Any, dropped: Any, like: Any) -> None:
    """Add to `counts` (int32) each delta's magnitude without its lowest `dropped` bits."""
    widest()
    sizes = np.empty(STRIP, np.int32)
    for begin in range(0, len(base), STRIP):
        some, theirs = base[begin : begin + STRIP], source[begin : begin + STRIP]
        for i in range(len(some)):  # many at once; counting is one after the other
            sizes[i] = magnitude(delta_of(some[i], theirs[i], like)) >> dropped
        for i in range(len(some)):
            counts[sizes[i]] += 1


def count_lower(counts: Any, base: Any, source: Any, first: Any, like: Any) -> None:
    """Add to `counts` (int32) how far above `first` the magnitudes are that lie less than its length above it."""
    low, high = np.int32(first), np.int32(first + len(counts) - 1)
    for i in range(len(base)):
        size = magnitude(delta_of(base[i], source[i], like))
        if low <= size <= high:
            counts[size - low] += 1


def collect(
    base: Any, source: Any, start: Any, low: Any, high: Any, low_two: Any, high_two: Any, most: Any, like: Any
) -> Any:
    """(magnitudes, indices from `start` on) of the deltas whose magnitude is in low..high or low_two..high_two.

    Args:
        most: how many there are in the whole tensor.
    """
    room = min(most, len(base))
    sizes, places = np.empty(room, np.int32), np.empty(room, np.int64)
    low, high, low_two, high_two = np.int32(low), np.int32(high), np.int32(low_two), np.int32(high_two)
    count = 0
    for begin in range(0, len(base), GROUP):
        some, theirs = base[begin : begin + GROUP], source[begin : begin + GROUP]
        found = False
        for i in range(len(some)):
            size = magnitude(delta_of(some[i], theirs[i], like))
            found |= ((size >= low) & (size <= high)) | ((size >= low_two) & (size <= high_two))
        if found:  # few groups have one: the loop above looks at many elements at once
            for i in range(len(some)):
                size = magnitude(delta_of(some[i], theirs[i], like))
                if low <= size <= high or low_two <= size <= high_two:
                    sizes[count], places[count] = size, start + begin + i
                    count += 1
    return sizes[:count], places[:count]


def place_of_equal(base: Any, source: Any, value: Any, rank: Any, like: Any) -> Any:
    """The index of the delta of this magnitude that comes after `rank` others of it."""
    wanted = np.int32(value)
    for begin in range(0, len(base), GROUP):
        some, theirs = base[begin : begin + GROUP], source[begin : begin + GROUP]
        equal = 0
        for i in range(len(some)):
            equal += magnitude(delta_of(some[i], theirs[i], like)) == wanted
        if rank < equal:
            for i in range(len(some)):
                if magnitude(delta_of(some[i], theirs[i], like)) == wanted:
                    if rank == 0:
                        return begin + i
                    rank -= 1
        rank -= equal
    return len(base)


def sums_of_magnitudes(lanes: Any, rest: Any, base: Any, source: Any, start: Any, draws: Any, like: Any) -> None:
    """Sums of |delta| in float64, of those that are drawn (None: of all): see `density.sum_of_lanes`.

    Added to `lanes` [rows, LANES]; magnitudes after the last whole row are written to `rest`.
    """
    widest()
    strip, words = np.empty(STRIP, np.float32), np.empty(STRIP // 4, np.uint64)
    kept = words.view(np.int16)
    for begin in range(0, len(base), STRIP):
        size = min(STRIP, len(base) - begin)
        some, theirs = base[begin : begin + size], source[begin : begin + size]
        if draws is not None:
            draw(kept[:size], words[: (size + 3) // 4], start + begin, draws)
        for i in range(size):
            number = abs(delta_of(some[i], theirs[i], like))
            if draws is not None:
                number = number if kept[i] < 0 else ZERO
            strip[i] = number
        row = begin // ROW
        if row < len(lanes):  # a row is so many whole strips
            sums = lanes[row]
            for first in range(0, size, LANES):
                some_of_strip = strip[first : first + LANES]
                for i in range(LANES):
                    sums[i] += np.float64(some_of_strip[i])
        else:
            for i in range(size):
                rest[begin - len(lanes) * ROW + i] = np.float64(strip[i])
