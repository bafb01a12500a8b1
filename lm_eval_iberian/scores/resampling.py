"""Documents drawn with replacement, and the difference of two systems in each drawing: under `significance`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from merge_hooks.errors import ForPeople

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 10_000
SEED = 12345  # sacreBLEU's
# Documents drawn at a time: 1 MB of indices stays in a core's cache, which halves the time of large blocks.
_BLOCK = 1 << 17


class SignificanceError(ForPeople):
    """Two systems cannot be compared: other documents, no documents, or scores that are no numbers."""


@dataclass(frozen=True)
class Difference:
    """System A minus system B.

    Args:
        value: the difference, in the unit of the scores.
        low, high: its 95 % interval (or another level: see `Draws.difference`).
        p: two-sided; how often chance alone would make a difference as large.
        documents: over how many documents.
        method: what was done, with seed and number of resamples: for the note under a table.
        differing: on how many of the documents the two systems differ.
    """

    value: float
    low: float
    high: float
    p: float
    documents: int
    method: str
    differing: int = 0

    def significant(self, level: float = 0.05) -> bool:
        """Whether p is below `level`."""
        return self.p < level

    @property
    def is_of_few(self) -> bool:
        """Whether p is the least that the exact sign test gives for so few documents that differ, and not the
        bootstrap's: the interval may leave out 0 then, and p be large all the same."""
        return self.p == least_p(self.differing)


def least_p(differing: int) -> float:
    """The p of the exact sign test, two-sided, where all documents that differ favour one system."""
    return min(1.0, 2.0 ** (1 - differing))


class Stream(NamedTuple):
    """What decides which documents are drawn, beside the stream's name; `together`: the same ones for all that share it."""

    documents: int
    seed: int
    together: bool


@dataclass(frozen=True)
class Draws:
    """A difference, and what it would have been on other documents of the same kind.

    Args:
        value: A minus B on the documents as they are.
        samples: the same for each resample, float64, (resamples,).
        documents: over how many.
        differing: on how many of them A and B differ.
        streams: which documents were drawn, by stream: see the top of `significance`.
        method: what was done.
    """

    value: float
    samples: np.ndarray
    documents: int
    differing: int
    streams: Mapping[str, Stream]
    method: str

    def difference(self, confidence: float = 0.95) -> Difference:
        """The percentile interval, and the two-sided p that belongs to it. Raises SignificanceError for no confidence."""
        import numpy as np

        if not 0 < confidence < 1:
            raise SignificanceError(f"confidence is {confidence}: it is a share, 0.95 for an interval of 95 %.")
        tail = (1 - confidence) / 2
        low, high = np.quantile(self.samples, (tail, 1 - tail))
        return Difference(self.value, float(low), float(high), self._p(), self.documents, self.method, self.differing)

    def times(self, factor: float) -> Draws:
        """In another unit: `times(100)` makes percent of accuracies."""
        return replace(self, value=self.value * factor, samples=self.samples * factor)

    def _p(self) -> float:
        # What is only rounding counts as 0: a resample that draws nothing but equal scores has no sign.
        noise = 1e-12 * max(1.0, float(abs(self.samples).max()))
        below, above = int((self.samples <= noise).sum()), int((self.samples >= -noise).sum())
        p = 2 * (1 + min(below, above)) / (1 + len(self.samples))
        return min(1.0, max(p, least_p(self.differing)))


def draw(
    statistics: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    differing: int,
    stream: str,
    resamples: int,
    seed: int,
    method: str,
    together: bool = False,
) -> Draws:
    """Resample documents; `score` makes the difference of the systems from summed statistics.

    Args:
        statistics: (documents, k), what sums over documents: both systems' side by side.
        score: (n, k) sums -> (n,) differences.
        together: draw the same documents for all that have this stream, seed and number of documents.
    """
    import numpy as np

    if resamples < 1:
        raise SignificanceError(f"{resamples} resamples: an interval wants {RESAMPLES:,}, or 1,000 where each is slow.")
    generator = np.random.default_rng([seed, *stream.encode()] if stream else seed)
    rows, counts = np.unique(statistics, axis=0, return_counts=True)
    if not together and len(rows) * 8 < len(statistics):
        # Few kinds of documents (right or wrong, for both): how many of each are drawn is multinomial.
        sums = generator.multinomial(len(statistics), counts / len(statistics), size=resamples) @ rows
    else:
        sums = _sums(statistics, generator, resamples)
    return Draws(
        float(score(statistics.sum(axis=0, keepdims=True))[0]),
        score(sums),
        len(statistics),
        differing,
        {stream: Stream(len(statistics), seed, together)},
        f"{method}, {resamples:,} resamples, seed {seed}",
    )


def _sums(statistics: np.ndarray, generator: np.random.Generator, resamples: int) -> np.ndarray:
    """(resamples, k): the statistics summed over documents drawn with replacement, a block of resamples at a time."""
    import numpy as np

    documents = len(statistics)
    sums = np.empty((resamples, statistics.shape[1]))
    step = max(1, _BLOCK // documents)
    for start in range(0, resamples, step):
        drawn = generator.integers(0, documents, size=(min(step, resamples - start), documents))
        drawn += documents * np.arange(len(drawn))[:, None]
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        sums[start : start + len(drawn)] = times.astype(np.float64) @ statistics
    return sums
