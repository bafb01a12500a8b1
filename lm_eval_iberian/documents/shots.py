"""Shots that never show a document its own answer: lm_eval's samplers, without the document and its duplicates.

If shots come from the evaluated split, lm_eval leaves out the evaluated row, but not a second row with the same text.
EusExams has such rows. If neither is drawn, the shots are exactly lm_eval's, in its order.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.samplers import ContextSampler

from lm_eval_iberian.documents.loader import DocumentsError

Document = dict[str, Any]


class CleanShots:
    """lm_eval's sampler, without the evaluated document and its duplicates.

    Args:
        sampler: lm_eval's own, with the documents to draw from.
        words: what a document says, whatever the order of its options: equal for duplicates.
        leave_out: whether lm_eval's sampler is told of the evaluated document, as in the task of lm_eval that ours must
            equal. It then draws one shot more, and so draws others.
        task: its name, for messages.
    """

    def __init__(self, sampler: ContextSampler, words: Callable[[Document], str], leave_out: bool, task: str) -> None:
        self.sampler = sampler
        self.leave_out = leave_out
        self.task = task
        self.evaluated: Document | None = None
        self._words = words
        self._known: dict[int, str] = {}

    def sample(self, n: int, eval_doc: Document | None = None, **_: Any) -> Sequence[Document]:
        """`n` shots for the document in `evaluated`. Raises DocumentsError if there are too few."""
        document = self.evaluated if self.evaluated is not None else eval_doc
        try:
            drawn = list(self.sampler.sample(n, eval_doc=document if self.leave_out else None))
        except (AssertionError, ValueError):
            raise self._too_few(n) from None
        if document is None:
            return drawn
        own = self._words(document)
        clean = [shot for shot in drawn if self._words_of(shot) != own]
        return clean + self._others(n - len(clean), clean, own) if len(clean) < n else clean

    def set_rnd(self, seed: int | None) -> CleanShots:
        """lm_eval's hook for its seed."""
        self.sampler.set_rnd(seed)
        return self

    def _others(self, n: int, drawn: list[Document], own: str) -> list[Document]:
        """Shots that replace duplicates. They have a generator of their own, so that lm_eval's draws stay the same."""
        taken = {id(shot) for shot in drawn}
        pool = [shot for shot in self.sampler.df if id(shot) not in taken and self._words_of(shot) != own]
        if len(pool) < n:
            raise self._too_few(n + len(drawn))
        return pool[:n] if type(self.sampler) is not ContextSampler else random.Random(own).sample(pool, n)

    def _words_of(self, shot: Document) -> str:
        if id(shot) not in self._known:
            self._known[id(shot)] = self._words(shot)
        return self._known[id(shot)]

    def _too_few(self, n: int) -> DocumentsError:
        return DocumentsError(
            f"{self.task}: {n} shots asked for, but there are only {len(self.sampler.df)} documents to draw them from, "
            "less the evaluated one and its duplicates. Ask for fewer with --num_fewshot."
        )
