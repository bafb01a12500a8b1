"""Notes are said once, and none is lost: each row's are read again out of what is shown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lm_eval_iberian.compare.columns import Scores
from lm_eval_iberian.compare.tables import sweep_report
from lm_eval_iberian.runs.run import read_sweep_run
from lm_eval_iberian.scores.formats import write
from lm_eval_iberian.scores.notes import which
from lm_eval_iberian.scores.tables import Cell, Report, Table
from tests.lm_eval_iberian.sweep_maker import MadePoint, write_run

NAMES = ["basque", "instruct", "weight=0.5", "method=ties weight=1.0", "merge (max_length 64)", "layers=[0, 8]", "all"]
TITLES = ["Belebele (eu)", "EusTrivia (eu)", "ifeval_eu", "in no table"]
WORDS = ["limited: 3 of 12 documents", "missing", "67% of the answers loop", "hellaswag: acc 0.5", "rows (all of them)"]
NOTES = st.one_of(
    st.builds("{}: {}".format, st.sampled_from(TITLES), st.sampled_from(WORDS)), st.just("not measured yet")
)


def shown_rows(text: str) -> list[str]:
    """The names in the first column of the tables, but for chance."""
    names = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    return [name for name in dict.fromkeys(names) if name not in ("model", "chance")]


def rows_in(words: str, shown: list[str]) -> list[str]:
    """The rows that "all 9 rows but a, b" and the like mean."""

    def listed(text: str) -> list[str]:
        return text.split("; ") if ";" in text else [text] if text in NAMES else text.split(", ")

    if words.startswith("rows "):
        return listed(words.removeprefix("rows "))
    match = re.fullmatch(r"(?:both rows|all (\d+) rows)(?: but (.+)|, and (.+))?", words)
    assert match and int(match[1] or 2) == len(shown)
    without, beside = listed(match[2]) if match[2] else [], listed(match[3]) if match[3] else []
    return [row for row in shown if row not in without] + beside


def read_again(text: str) -> set[tuple[str, str]]:
    """(row, note) of everything that the notes say."""
    found: set[tuple[str, str]] = set()
    for block in text.split("\n\n"):
        head, *lines = block.strip().splitlines()
        if not head.startswith("Notes on "):
            continue
        for line in lines:
            said, names = line.removeprefix("- "), [head.removeprefix("Notes on ").removesuffix(":")]
            if names == ["several rows"]:
                place = max(said.rfind(f" ({word}") for word in ("all ", "both ", "rows "))
                said, names = said[:place], rows_in(said[place + 2 : -1], shown_rows(text))
            words, _, titles = said.rpartition(": ")
            notes = [f"{title}: {words}" for title in titles.split(", ")] if words else [said]
            found |= {(name, note) for name in names for note in notes}
    return found


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(NAMES), st.lists(NOTES, max_size=6)), st.sets(st.sampled_from(NAMES)))
@example({name: ["not measured yet"] for name in NAMES}, set(NAMES[:3]))
@example({name: ["ifeval_eu: missing"] for name in NAMES[1:6]}, set(NAMES[:6]))
def test_every_note_of_every_row_can_be_read_again(notes: dict[str, list[str]], in_tables: set[str]) -> None:
    rows = tuple((name, "merge", (Cell(1.0),)) for name in sorted(in_tables))
    chance = (("chance", "chance", (Cell(0.0),)),)
    text = write(
        Report([Table("T", ("eu",), (*rows, *chance), ((),))], {name: said for name, said in notes.items() if said})
    )
    assert read_again(text) == {(name, note) for name, said in notes.items() for note in said}


def test_what_holds_on_several_rows_is_said_once(tmp_path: Path) -> None:
    points = [MadePoint(f"w={number}", labels={"w": str(number)}) for number in range(9)]
    loops = {"w=3": {"iberian_eus_trivia": ["90% of the answers loop"]}}
    write_run(tmp_path, "x", {}, points, ["iberian_eus_trivia"], lambda *_: 0.5, 6, samples=True, flags=loops)
    text = write(sweep_report(Scores(read_sweep_run(tmp_path))))
    assert text.count("embedded samples, not the benchmark") == 1
    assert "- embedded samples, not the benchmark: EusTrivia (eu) (all 9 rows)" in text
    assert "Notes on w=3:\n- 90% of the answers loop: iberian_eus_trivia" in text
    assert text.count("Notes on ") == 2


@pytest.mark.parametrize(
    ("names", "said"),
    [("ab", "rows a, b"), ("abcdefghi", "all 9 rows"), ("abcdefgh", "all 9 rows but i"), ("abcdefghix", "all 9 rows, and x"),
     ("abcdef", "rows a, b, c, d, e, f"), ("abcdefgx", "rows a, b, c, d, e, f, g, x")],
)  # fmt: skip
def test_rows_in_words(names: str, said: str) -> None:
    assert which(list(names), list("abcdefghi")) == said
    assert which(["a", "b"], ["a", "b"]) == "both rows"
    assert which(["a", "b"], []) == "rows a, b"


@pytest.mark.parametrize(
    ("waiting", "missing"),
    [(None, []), (["iberian_belebele_eu"], ["Belebele"]), (["iberian_eu"], ["Belebele", "XStoryCloze", "BertaQA"])],
    ids=["all is there", "a task waits", "a group waits, of which nobody knows what it holds"],
)
def test_only_what_was_asked_for_is_missing(waiting: list[str] | None, missing: list[str], tmp_path: Path) -> None:
    folder = write_run(tmp_path, "x", {}, [MadePoint("a")], ["iberian_eus_trivia"], lambda *_: 0.5, 6)
    plan = json.loads((folder / "plan.json").read_text())
    if waiting:
        plan["points"][0]["evaluations"].append({"key": "other", "name": "other", "tasks": waiting, "seed": None})
    (folder / "plan.json").write_text(json.dumps(plan))
    scores = Scores(read_sweep_run(folder))
    notes = sweep_report(scores).notes["a"]
    for title in ("Belebele", "XStoryCloze", "BertaQA"):
        assert f"{title} (eu): {'missing' if title in missing else 'not asked for'}" in notes
    assert not any("EusTrivia" in note and ("missing" in note or "asked" in note) for note in notes)


def test_part_of_a_benchmark_that_was_asked_for(tmp_path: Path) -> None:
    """One exam of 29 was measured: the others were not asked for."""
    write_run(tmp_path, "x", {}, [MadePoint("a")], ["iberian_eus_exams_eu_ejadministrari"], lambda *_: 0.5, 6)
    (said,) = [note for note in sweep_report(Scores(read_sweep_run(tmp_path))).notes["a"] if "EusExams" in note]
    assert re.match(r"EusExams \(eu\): not asked for \(\d+ of \d+ tasks: ", said)
