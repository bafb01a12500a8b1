"""Shots without the document and its doubles, from a sampler that is written by hand."""

from __future__ import annotations

from typing import Any

import pytest
from lm_eval.api.samplers import ContextSampler, FirstNSampler

from lm_eval_iberian.documents.loader import DocumentsError
from lm_eval_iberian.documents.shots import CleanShots

DOCUMENTS = [{"n": n, "words": f"w{n % 7}"} for n in range(9)]  # 7 and 8 are doubles of 0 and 1


def shots(
    kind: type[ContextSampler] = ContextSampler, leave_out: bool = False, documents: Any = DOCUMENTS
) -> CleanShots:
    sampler = kind(list(documents), rnd=1234)
    return CleanShots(sampler, lambda document: str(document["words"]), leave_out, "task")


def drawn(sampler: CleanShots, n: int, document: Any) -> list[int]:
    sampler.evaluated = document
    return [shot["n"] for shot in sampler.sample(n)]


@pytest.mark.parametrize("n", range(8))
def test_neither_the_document_nor_its_double_and_none_twice(n: int) -> None:
    """Seven of nine are no document 0; all of them can be had, each once."""
    for document in DOCUMENTS[:3]:
        sampler = shots()
        for _ in range(20):
            free = [one["n"] for one in DOCUMENTS if one["words"] != document["words"]]
            count = min(n, len(free))
            found = drawn(sampler, count, document)
            assert len(set(found)) == len(found) == count and set(found) <= set(free)


def test_what_takes_the_place_of_a_double_is_the_same_each_time() -> None:
    """And lm_eval's own generator goes on as ever: the next document has lm_eval's shots."""
    first, second = ([drawn(shots_, 5, document) for document in DOCUMENTS] for shots_ in (shots(), shots()))
    assert first == second
    own = ContextSampler(list(DOCUMENTS), rnd=1234)
    lm_evals = [[shot["n"] for shot in own.sample(5)] for _ in DOCUMENTS]
    kept = [found == theirs for found, theirs in zip(first, lm_evals, strict=True)]
    assert any(kept) and not all(kept)
    for found, theirs, same, document in zip(first, lm_evals, kept, DOCUMENTS, strict=True):
        clean = [n for n in theirs if DOCUMENTS[n]["words"] != document["words"]]
        assert found[: len(clean)] == clean and same == (len(clean) == 5)


def test_lm_evals_sampler_is_told_of_the_document_only_where_its_task_tells_it() -> None:
    """It then draws one more, and so other ones."""
    own = ContextSampler(list(DOCUMENTS), rnd=1234)
    told = [shot["n"] for shot in own.sample(3, eval_doc=DOCUMENTS[4])]
    assert drawn(shots(leave_out=True), 3, DOCUMENTS[4]) == told
    own = ContextSampler(list(DOCUMENTS), rnd=1234)
    untold = [shot["n"] for shot in own.sample(3)]
    assert drawn(shots(), 3, {"n": 99, "words": "none"}) == untold


def test_the_first_ones_in_their_order() -> None:
    assert drawn(shots(FirstNSampler), 4, DOCUMENTS[8]) == [0, 2, 3, 4]


def test_the_seed_is_lm_evals() -> None:
    other = shots().set_rnd(7)
    own = ContextSampler(list(DOCUMENTS), rnd=7)
    assert drawn(other, 4, {"n": 99, "words": "none"}) == [shot["n"] for shot in own.sample(4)]
    assert drawn(shots(), 4, {"n": 99, "words": "none"}) != drawn(shots().set_rnd(7), 4, {"n": 99, "words": "none"})


@pytest.mark.parametrize(
    ("n", "kind"), [(8, ContextSampler), (9, ContextSampler), (10, ContextSampler), (8, FirstNSampler)]
)
def test_too_few_are_refused(n: int, kind: type[ContextSampler]) -> None:
    with pytest.raises(DocumentsError, match=rf"task: {n} shots asked for, but there are only 9 documents"):
        drawn(shots(kind), n, DOCUMENTS[0])
