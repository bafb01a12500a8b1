"""What a sweep found, in a sentence: which merge, by how much, and whether that is more than luck."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lm_eval_iberian.compare.best import find_best
from lm_eval_iberian.compare.columns import Scores
from lm_eval_iberian.compare.result import results, what_bold_says
from lm_eval_iberian.compare.shape import shape_of
from lm_eval_iberian.compare.tables import sweep_report
from lm_eval_iberian.pictures.tradeoff import tradeoffs, why_none
from lm_eval_iberian.pictures.write import write_report
from lm_eval_iberian.runs.run import SweepRun, read_sweep_run
from lm_eval_iberian.scores.formats import write
from tests.lm_eval_iberian.sweep_maker import MadePoint, figure1_run, write_run

TASK = "iberian_xstorycloze_eu"


def made(folder: Path, skills: dict[str, float], tasks: tuple[str, ...] = (TASK,), **options: object) -> SweepRun:
    """Merges w=NAME, each as good as said (1: always right, 0: never), and a parent that is better than all."""
    points = [MadePoint("parent", "parent")]
    points += [MadePoint(f"w={name}", "merge", {"w": name}, ("parent",)) for name in skills]
    write_run(folder, "x", {"w": list(skills)}, points, tasks,
              lambda point, _: skills.get(point.labels.get("w", ""), 1.0), 30, **options)  # fmt: skip
    return read_sweep_run(folder)


def in_words(page: Path) -> list[str]:
    """The sentences at the head of a page, without marks of HTML."""
    block = page.read_text().split('<div class="result"')[1].split("</div>")[0]
    lines = [
        html.unescape(re.sub(r"<[^>]*>", "", line)) for line in re.findall(r"<li[^>]*>(.*?)</li>", block, re.DOTALL)
    ]
    return [" ".join(line.split()) for line in lines]


@pytest.mark.slow
def test_who_is_told_apart(tmp_path: Path) -> None:
    """Right on every document against wrong on every one; a merge never competes with a parent."""
    (found,) = results(Scores(made(tmp_path, {"1": 0.0, "2": 1.0, "3": 0.0})))
    assert (found.first.point.name, found.first.mean, found.is_told_apart) == ("w=2", 100.0, True)
    assert found.best.lead and found.best.lead.value == found.best.lead.low == 100.0
    page = write_report(tmp_path)
    assert in_words(page) == [
        "Basque · XStoryCloze: the best of 3 merges is w 2 with 100.00, 100.00 points more than w 1 (95 % interval "
        "+100.00 to +100.00, p < 0.001): the two are told apart."
    ]
    text = page.read_text()
    assert "bold is the best merge, told apart from the next in every column" in text
    assert text.index('<div class="result"') < text.index('class="facts"')
    assert "only one figure was measured, Basque · XStoryCloze, and a trade-off is between two." in text


@pytest.mark.slow
def test_who_is_not_told_apart(tmp_path: Path) -> None:
    """Two that answered alike, on the samples: not whole, and not told apart; the tables' key says that none is ranked."""
    run = made(tmp_path, {"1": 1.0, "2": 1.0}, samples=True)
    (found,) = results(Scores(run))
    assert found.is_tested and not found.is_told_apart and found.signs == "†"
    page = write_report(tmp_path)
    (said,) = in_words(page)
    assert said.startswith("Basque · XStoryCloze: the highest of 2 merges is w 1 with 100.00†, as much as w 2 (95 %")
    assert said.endswith("the two are not told apart.")
    text = page.read_text()
    assert "no column&#39;s is told apart from the next" in text and "† not of whole benchmarks." in text
    key = write(sweep_report(Scores(run)))
    assert "None is bold: no figure is of a whole benchmark (†), so none is told apart as best." in key
    assert "Best bold" not in key and "**" not in key


def test_where_figures_are_ranked_the_key_says_how(tmp_path: Path) -> None:
    text = write(sweep_report(Scores(made(tmp_path, {"1": 1.0, "2": 0.0}))))
    assert "Best bold, second underlined." in text and "None is bold" not in text and "**100.00**" in text


def test_a_merge_that_is_alone(tmp_path: Path) -> None:
    (found,) = results(Scores(made(tmp_path, {"1": 0.5})))
    assert found.next is None and not found.is_tested and found.outcome == "the only one with a figure"


@pytest.mark.slow
def test_it_is_what_iberian_best_says(tmp_path: Path) -> None:
    run = read_sweep_run(figure1_run(tmp_path, weights=("0.5", "1.0"), documents=10))
    found = results(Scores(run))
    assert [one.column.key for one in found] == [column.key for column in Scores(run).columns]
    for one in found:
        best = find_best(run, [one.column.key])
        assert [two.point.name for two in best.ranked] == [two.point.name for two in one.best.ranked]
        assert best.lead == one.best.lead
        lead = f"{best.best.mean - best.ranked[1].mean:.2f}"
        assert one.outcome.startswith("as much as" if lead == "0.00" else f"{lead} points more")


def test_what_may_be_concluded_from_bold(tmp_path: Path) -> None:
    (sure,) = results(Scores(made(tmp_path / "sure", {"1": 1.0, "2": 0.0})))
    (even,) = results(Scores(made(tmp_path / "even", {"1": 1.0, "2": 1.0})))
    untested = replace(even, best=replace(even.best, lead=None, no_test="no documents"))
    assert what_bold_says([sure]).endswith("told apart from the next in every column (paired bootstrap)")
    assert "no column's is told apart" in what_bold_says([even]) and "no column's" in what_bold_says([even, untested])
    assert what_bold_says([sure, even]).endswith("in Basque · XStoryCloze only (paired bootstrap)")
    assert what_bold_says([untested]).endswith("it was not tested against the next")
    assert "(not tested: no documents)" in untested.outcome
    assert sure.outcome.startswith("100.00 points more than {next}")


@pytest.mark.parametrize(
    ("tasks", "why"),
    [((TASK,), "only one figure was measured, Basque · XStoryCloze"), ((TASK, "ifeval_gl"), "no language was measured in two kinds"),
     ((TASK, "ifeval_eu"), "")],
)  # fmt: skip
def test_why_there_is_no_trade_off(tasks: tuple[str, ...], why: str, tmp_path: Path) -> None:
    scores = Scores(made(tmp_path, {"1": 0.5, "2": 0.6}, tasks))
    assert bool(tradeoffs(scores, shape_of(scores.run))) == (not why)
    assert why in why_none(scores)
