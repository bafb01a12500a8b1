"""The whole suite on the samples, through lm_eval's own evaluator, into the report."""

from __future__ import annotations

import pytest
from lm_eval import simple_evaluate

from lm_eval_iberian.scores.formats import write
from lm_eval_iberian.scores.results import check_run
from lm_eval_iberian.scores.suite import gather
from lm_eval_iberian.scores.tables import report


@pytest.mark.slow
def test_the_suite_runs_whole_on_samples() -> None:
    """Every average of the paper has a number, each marked as what it is: two samples of each task."""
    found = simple_evaluate(model="dummy", tasks=["iberian_suite"], limit=2, bootstrap_iters=0)
    (model,) = gather([check_run(found, "here")])
    assert {column[:5] for column in model.averages} >= {"bench", "mt_eu"}
    for column, average in model.averages.items():
        assert average.value is not None, column
        assert not average.whole
        assert all("limited" in problem or "samples" in problem for problem in average.problems)
    text = write(report([model]))
    assert "embedded samples, not the benchmark" in text and "†" in text
