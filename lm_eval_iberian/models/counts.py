"""What happened to prompts and answers that a score does not show: cut, tied, empty. Counted for each task.

A `Tally` belongs to one evaluation of one merge. It counts each document once for each kind. So it does not matter how
often or in which order requests are seen, or which of their answers came out of a store.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

from lm_eval_iberian.scores.results import COUNTED, in_words

# Below lm_eval's own logger, whose handler and level its command line sets.
LOG = logging.getLogger("lm_eval.iberian")


class Cut(str):
    """An answer that the token limit cut. Whoever does not ask sees an ordinary text."""

    __slots__ = ()


class Tally:
    """Documents per task and kind."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._documents: dict[str, set[Hashable]] = defaultdict(set)
        # (task, kind) -> documents
        self._found: dict[tuple[str, str], set[Hashable]] = defaultdict(set)
        self._asked: set[str] = set()
        self._said: set[tuple[str, str]] = set()
        self._is_told = False

    def begin(self, type: str) -> None:
        """Requests of a type arrive.

        lm_eval asks once for each type. So a repeated type, or one that comes after the results, starts a new run.
        """
        if self._is_told or type in self._asked:
            self._forget()
        self._asked.add(type)

    def saw(self, request: Any) -> None:
        """Note that one of lm_eval's instances is among the requests."""
        self._documents[task_of(request)].add(document_of(request))

    def note(self, kind: str, request: Any) -> None:
        """Note that one of the kinds in COUNTED applies to a request."""
        self._found[task_of(request), kind].add(document_of(request))

    def note_answers(self, requests: Sequence[Any], texts: Sequence[str]) -> None:
        """Count empty answers, and answers that the limit cut."""
        for request, text in zip(requests, texts, strict=True):
            if not text.strip():
                self.note("empty", request)
            if isinstance(text, Cut):
                self.note("cut_answers", request)

    def note_ties(self, requests: Sequence[Any], scores: Sequence[tuple[float, bool]]) -> None:
        """Count documents in which two choices have exactly the same log-likelihood.

        Choices share a context. If no two requests share one (a task that asks which context suits a continuation), the
        contexts are the choices.
        """
        documents: dict[tuple[str, Hashable], list[tuple[Any, float]]] = defaultdict(list)
        for request, (value, _) in zip(requests, scores, strict=True):
            documents[task_of(request), document_of(request)].append((request, float(value)))
        for asked in documents.values():
            contexts: dict[str, list[float]] = defaultdict(list)
            for request, value in asked:
                contexts[request.args[0]].append(value)
            values = list(contexts.values())
            if all(len(of_one) == 1 for of_one in values):
                values = [[value for _, value in asked]]
            if any(len(set(of_one)) < len(of_one) for of_one in values):
                self.note("ties", asked[0][0])

    def counts(self) -> dict[str, dict[str, int]]:
        """Task -> kind -> documents; only kinds that were seen, and how many documents there were in all."""
        tasks: dict[str, dict[str, int]] = {}
        for task in self._documents:
            found = {kind: len(self._found[task, kind]) for kind in COUNTED if (task, kind) in self._found}
            if found:
                tasks[task] = found | {"documents": len(self._documents[task])}
        return tasks

    def told(self) -> dict[str, Any]:
        """The counts for the results JSON, also in words. What is asked afterwards belongs to another evaluation."""
        self._is_told = True
        counts = self.counts()
        said = [f"{task}: {words}" for task, of_task in counts.items() for words in in_words(of_task)]
        return {"answers": counts, **({"warnings": said} if said else {})}

    def warn(self) -> None:
        """Log one line for each kind, over all tasks; none twice."""
        for kind, words in COUNTED.items():
            found = [task for task in self._documents if (task, kind) in self._found and (task, kind) not in self._said]
            if found:
                places = (f"{len(self._found[task, kind])} of {len(self._documents[task])} of {task}" for task in found)
                LOG.warning("merged: %s", words.format(", ".join(places)))
            self._said.update((task, kind) for task in found)


def task_of(request: Any) -> str:
    """Of one of lm_eval's instances."""
    return str(request.task_name or "a request without a task")


def document_of(request: Any) -> Hashable:
    """A name for a request's document; a request without one counts as a document by itself."""
    return ("request", id(request)) if request.doc_id is None else request.doc_id
