"""Tables: what is bold, what is named, and that every form says the same figures."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import statistics
from pathlib import Path

import pytest
from click.testing import CliRunner

from lm_eval_iberian.commands.report import report as command
from lm_eval_iberian.scores import paper
from lm_eval_iberian.scores.formats import write
from lm_eval_iberian.scores.results import SuiteError, check_run
from lm_eval_iberian.scores.suite import gather
from lm_eval_iberian.scores.tables import Cell, Report, Table, report, report_files
from tests.lm_eval_iberian.results_maker import everything, results
from tests.lm_eval_iberian.test_suite import CHANCES


def named(name: str, value: float, **config: object) -> dict:
    data = results(everything(value))
    data["config"]["model_args"]["pretrained"] = name
    data["model_name"] = name
    data["config"] |= config
    return data


def made(*files: dict, **options: object) -> Report:
    return report(gather(check_run(data, f"{number}.json") for number, data in enumerate(files)), **options)


def rows(table: Table) -> dict[str, list[str]]:
    return {name: [cell.shown + "*" * (cell.rank == "best") + "_" * (cell.rank == "second") for cell in cells]
            for name, _, cells in table.rows}  # fmt: skip


def test_best_and_second() -> None:
    table = made(named("a", 0.5), named("b", 0.7), named("c", 0.6)).tables[0]
    assert table.heads == ("eu", "gl", "ca", "es", "en", "pt")
    assert rows(table)["b"][0] == "70.00*"
    assert rows(table)["c"][0] == "60.00_"
    assert rows(table)["a"][0] == "50.00"


def test_ties_as_printed() -> None:
    """50.001 and 50.002 print alike, so neither is better."""
    table = made(named("a", 0.50001), named("b", 0.50002), named("c", 0.4)).tables[0]
    assert rows(table)["a"][0] == rows(table)["b"][0] == "50.00*"
    assert rows(table)["c"][0] == "40.00_"


def cells(table: Table, name: str) -> list[Cell]:
    return next(list(found) for row, _, found in table.rows if row == name)


def test_the_spread_is_the_deviation_over_runs_else_the_standard_error() -> None:
    """IFEval twice, 40 and 44: SD 4 / sqrt(2). One run of it: lm_eval's standard error, 2 points."""
    files = [results({"ifeval_eu": {"inst_level_strict_acc": value, "inst_level_strict_acc_stderr": 0.02}})
             for value in (0.40, 0.44)]  # fmt: skip
    for given, spread in ((files, 4 / math.sqrt(2)), (files[:1], 2.0)):
        (table, *_) = made(*given).tables
        assert table.title.startswith("Instruction following")
        assert cells(table, "org/model")[0].spread == pytest.approx(spread)
    still = results({"ifeval_eu": {"inst_level_strict_acc": 1.0, "inst_level_strict_acc_stderr": 0.0}})
    assert "100.00 ±0.00" in write(made(still)), "an error of 0 was measured"


def test_normalised_figures() -> None:
    """Between chance, 0, and a full score, 100; their spread grows by as much."""
    data = results({"iberian_belebele_eu": {"acc": 0.40, "acc_stderr": 0.03}})
    (table,) = made(data, normalised=True).tables  # the average cannot be given: no empty table
    (figure,), (chance,) = cells(table, "org/model"), cells(table, "chance")
    assert (figure.value, figure.spread, chance.value) == pytest.approx((20.0, 4.0, 0.0))
    (figure,), (chance,) = (cells(made(data).tables[0], name) for name in ("org/model", "chance"))
    assert (figure.value, figure.spread, chance.value) == pytest.approx((40.0, 3.0, 25.0))


def test_titles_say_what_is_normalised() -> None:
    found = made(named("a", 0.5), normalised=True)
    assert {table.title.endswith(", normalised: 0 is chance") for table in found.tables} == {True}
    assert not any("normalised" in table.title for table in made(named("a", 0.5)).tables)


def test_chance_is_not_ranked() -> None:
    """Of two that guess worse than chance one is best; one alone is compared with nothing."""
    table = made(named("a", 0.1), named("b", 0.2)).tables[0]
    assert [rows(table)[name][0] for name in "ab"] == ["10.00_", "20.00*"]
    assert rows(table)["chance"][0] == "30.10"
    assert rows(made(named("a", 0.1)).tables[0])["a"][0] == "10.00"


def test_limited_scores_are_marked_and_not_ranked() -> None:
    limited = named("limited", 0.9)
    limited["n-samples"]["iberian_belebele_eu"]["effective"] = 5
    text = write(made(limited, named("whole", 0.5), named("low", 0.4)))
    line = next(line for line in text.splitlines() if line.startswith("| limited "))
    assert "| 90.00† " in line
    assert "**50.00**" in text and "Best bold, second underlined." in text and "None is bold" not in text
    assert "- limited: 5 of 100 documents: Belebele (eu)" in text


def test_parents_stand_beside_their_merge() -> None:
    sources = [{"name": "org/basque", "fingerprint": "1"}, {"name": "org/instruct", "fingerprint": "2"}]
    stamp = {
        "signature_digest": "d",
        "signature": "method:linear|...",
        "recipe_origin": "merge-eu.yml",
        "sources": sources,
    }
    files = (
        named("org/other", 0.2),
        named("m", 0.5, iberian=stamp),
        named("org/instruct", 0.4),
        named("org/basque", 0.3),
    )
    made_report = made(*files)
    table = made_report.tables[0]
    assert [(name, role) for name, role, _ in table.rows] == [
        ("org/other", "model"), ("org/instruct", "parent"), ("org/basque", "parent"),
        ("merge-eu", "merge"), ("chance", "chance"),
    ]  # fmt: skip
    assert made_report.signatures == {"merge-eu": "method:linear|..."}


def test_published_figures() -> None:
    """Figures read off the printed tables 3 and 4."""
    choice, translation = paper.published("bench"), paper.published("mt")
    assert choice["Llama 3.1 8B -merge-EU"]["bench_eu"] == (58.36, None)
    assert choice["Qwen3 14B -merge-GL"]["bench_gl"] == (66.27, None)
    assert translation["Llama 3.1 8B -merge-EU"]["mt_eu"] == (12.27, None)
    assert translation["ALIA 40B -Instruct"]["mt_en"] == (37.85, None)
    assert paper.published("ifeval")["Qwen3 8B -Instruct"]["ifeval_gl"] == (75.97, 0.5)
    assert paper.published("blimp") == {}
    assert len(choice) == 22 and len(paper.published("ifeval")) == 13


def test_tables_that_print_the_same_runs_print_the_same_figures() -> None:
    """Table 8 repeats rows of 3 (linear) and 7 (task arithmetic), 5 and 6 their diagonals: a slip in a digit shows."""
    linear, arithmetic, best = (
        {row.pop("model"): row for row in printed(name)}
        for name in ("table3_main", "table7_task_arithmetic", "table8_best_per_language")
    )
    repeated = 0
    for name, row in best.items():
        if name.endswith((" linear", " ta")):
            repeated += 1
            assert (linear if name.endswith(" linear") else arithmetic)[name.rpartition(" ")[0]] == row, name
        elif "-merge-" not in name:
            repeated += 1
            assert linear[name] == arithmetic[name] == row, name
    assert repeated == 21
    for model, table in (("Llama 3.1 8B", "table5_methods_llama31_8b"), ("Qwen3 8B", "table6_methods_qwen3_8b")):
        for row in printed(table):
            values = {language: row[language] for language in ("eu", "gl", "ca", "es")}
            assert float(row["avg"]) == pytest.approx(statistics.fmean(map(float, values.values())), abs=0.011), row
            known = {"Linear": linear, "Task Arithmetic": arithmetic}.get(row["method"])
            kind = {"Benchmark average": "bench", "Machine translation": "mt"}.get(row["scenario"])
            if known and kind:
                merges = {language: known[f"{model} -merge-{language.upper()}"] for language in values}
                assert values == {language: merges[language][f"{kind}_{language}"] for language in values}


def printed(name: str) -> list[dict[str, str]]:
    with (paper.FOLDER / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_against_the_paper() -> None:
    """With 99 % ours is best, and the best printed merge second."""
    tables = made(named("mine", 0.99), against="paper").tables
    shown = rows(tables[0])
    assert shown["mine"][0] == "99.00*"
    assert shown["Qwen3 14B -merge-EU [paper]"][0] == "63.26_"
    assert shown["Llama 3.1 8B -merge-EU [paper]"][0] == "58.36"
    assert "English column may hold more" in write(made(named("mine", 0.99), against="paper"))
    assert "Notes on paper:\n- rows marked [paper] are the printed figures" in write(
        made(named("mine", 0.99), against="paper")
    )


TYPED = "model, reasoning_en,labels_ja\nTIES, 61.25,\nDARE-TIES,58.5,40\n"


def test_against_a_file_of_printed_figures(tmp_path: Path) -> None:
    """The second paper's, say: a row for each with a figure of the average; no one knows how they were prompted."""
    file = tmp_path / "table1.csv"
    file.write_text(TYPED, encoding="utf-8")
    data = results({"companion_reasoning_en": {"acc": 0.6, "acc_stderr": 0.02},
                    "companion_sentiment_ja": {"macro_f1": 0.5}})  # fmt: skip
    found = made(data, against=str(file))
    of_average = {table.title: table for table in found.tables}
    assert rows(of_average["mCSQA (accuracy)"]) == {
        "TIES [printed]": ["61.25*"], "DARE-TIES [printed]": ["58.50"], "org/model": ["60.00_"],
    }  # fmt: skip
    assert rows(of_average["Labels (macro F1)"]) == {
        "DARE-TIES [printed]": ["–", "40.00_"], "org/model": ["–", "50.00*"],
    }  # fmt: skip
    assert of_average["mCSQA (accuracy)"].prompts[0] == "?"
    assert found.notes["printed"] == [
        f"rows marked [printed] are those of {file}: how they were measured is not known here"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "cannot be read as CSV"), ("", "first line should name the columns"),
     ("name,reasoning_en\na,1\n", "model,reason"),
     ("model,reasoning_xx\na,1\n", "reasoning_xx: no such average. There are: .*reasoning_zh"),
     ("model,reasoning_en\na,sixty\n", "a, reasoning_en: 'sixty' is no number. Write figures in percent, with a point"),
     ("model,reasoning_en\na,nan\n", "a, reasoning_en: 'nan' is no percentage"),
     ("model,reasoning_en\na,inf\n", "a, reasoning_en: 'inf' is no percentage"),
     ("model,reasoning_en\na,6125\n", "a, reasoning_en: '6125' is no percentage"),
     ("model,reasoning_en\na,61\n\na,40\n", "a stands on two lines. Give each row a name of its own"),
     ("model,reasoning_en\n,61\n", "a line has no model"),
     ("model,reasoning_en\na,61,25\n", "a: 3 cells under 2 columns. A number with a comma in it"),
     ("model,reasoning_en,reasoning_en\na,61,40\n", "the column reasoning_en comes twice")],
)  # fmt: skip
def test_a_wrong_file_of_printed_figures_is_named(text: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "table1.csv"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    data = results({"companion_reasoning_en": {"acc": 0.6, "acc_stderr": 0.02}})
    with pytest.raises(SuiteError, match=f"--against .*table1.csv: .*{said}"):
        made(data, against=str(file))


def test_a_file_of_shares_is_said(tmp_path: Path) -> None:
    """0.61 beside 60.00 looks as if it were the worst of all."""
    file = tmp_path / "table1.csv"
    data = results({"companion_reasoning_en": {"acc": 0.6, "acc_stderr": 0.02}})
    for text, is_said in (("a,0.61\nb,1\n", True), ("a,0.61\nb,58\n", False), ("a,0\n", False), ("a,\n", False)):
        file.write_text(f"model,reasoning_en\n{text}")
        said = f"no figure of {file} is more than 1, and tables are in percent"
        assert (said in write(made(data, against=str(file)))) == is_said, text


def chat(
    name: str, value: float, template: str | None = "ab12cd", turns: bool = True, system: str | None = None
) -> dict:
    data = named(name, value)
    return data | {"chat_template_sha": template, "fewshot_as_multiturn": turns, "system_instruction_sha": system}


def prompts(table: Table) -> dict[str, str]:
    return {name: prompt for (name, _, _), prompt in zip(table.rows, table.prompts, strict=True)}


def odd(table: Table) -> set[str]:
    return {name for name, _, cells in table.rows if any(cell.odd for cell in cells)}


def test_every_row_says_how_it_was_prompted() -> None:
    silent = named("silent", 0.3)
    del silent["chat_template_sha"]
    files = [chat("turns", 0.5), chat("turns too", 0.5), chat("one", 0.5, turns=False), chat("plain", 0.5, None),
             chat("told", 0.5, system="99"), chat("asked", 0.5, None, system="99"), silent]  # fmt: skip
    for table in made(*files).tables:
        found = prompts(table)
        assert found == {
            "turns": "multiturn", "turns too": "multiturn", "one": "chat", "plain": "plain", "told": "multiturn+sys",
            "asked": "plain+sys", "silent": "?", "chance": "",
        }  # fmt: skip
        assert odd(table) == {"one", "plain", "told", "asked", "silent"}


def test_rows_prompted_otherwise_are_marked_in_every_form() -> None:
    found = made(chat("a", 0.7), chat("b", 0.8), named("base", 0.6))
    text = write(found)
    assert next(line for line in text.splitlines() if line.startswith("| base ")).split("|")[3:5] == [
        " plain     ", " 60.00§ ±0.34       "]  # fmt: skip
    assert "§ prompted otherwise than the rows of its column without it." in text
    assert r"60.00$^\S$" in write(found, "latex")
    by_row = {(row["model"], row["column"]): row for row in csv.DictReader(io.StringIO(write(found, "csv")))}
    assert [by_row[name, "eu"]["prompt"] for name in ("base", "a")] == ["plain", "multiturn"]
    assert [by_row[name, "eu"]["odd"] for name in ("base", "a")] == ["yes", "no"]
    model = next(one for one in json.loads(write(found, "json"))["models"] if one["model"] == "base")
    assert model["averages"]["bench_eu"]["prompts"] == ["plain"]
    assert "§" not in write(made(chat("a", 0.5), chat("b", 0.6)))


def test_another_chat_template_is_another_prompt() -> None:
    (table, *_) = made(chat("a", 0.5), chat("b", 0.6), chat("c", 0.6, "ffee00")).tables
    assert list(prompts(table).values()) == ["multiturn ab12", "multiturn ab12", "multiturn ffee", ""]
    assert odd(table) == {"c"}


def test_the_printed_rows_were_prompted_as_their_authors_did() -> None:
    """With the template and shots as turns, on all kinds: so a run without a template is marked beside them."""
    for files, marked in (([named("mine", 0.9)], {"mine"}), ([chat("mine", 0.9)], set())):
        for table in made(*files, against="paper").tables[:3]:
            assert {word for name, word in prompts(table).items() if "[paper]" in name} == {"multiturn"}
            assert odd(table) == marked
    assert paper.prompted("Llama 3.1 8B -eu").word == paper.prompted("Qwen3 8B").word == "plain"


def test_what_was_counted_over_the_answers_is_marked_and_noted() -> None:
    data = named("a", 0.5)
    counts = {"cut_prompts": 3, "cut_answers": 0, "ties": 1, "empty": 0, "documents": 100}
    data["config"]["iberian"] = {
        "answers": {"iberian_eus_trivia": counts, "iberian_belebele_gl": dict.fromkeys(counts, 0)}
    }
    found = made(data)
    shown = {name: [cell.flagged for cell in cells] for name, _, cells in found.tables[0].rows}
    assert shown["a"] == [True, False, False, False, False, False]
    assert [note for note in found.notes["a"] if "EusTrivia" in note] == [
        "EusTrivia (eu): prompts cut to the model's window: 3 of 100",
        "EusTrivia (eu): choices that are exactly equally likely, of which the first counts as taken: 1 of 100",
    ]
    assert "**50.00**‡" in write(made(data, named("b", 0.4))) and "‡ look at the answers" in write(found)


@pytest.mark.parametrize("answers", [{"answers": 40, "cut": 3}, [1], "x", {"iberian_eus_trivia": 3},
                                     {"iberian_eus_trivia": {"ties": "many", "empty": True}}])  # fmt: skip
def test_other_shapes_of_counts_are_no_counts(answers: object) -> None:
    data = named("a", 0.5)
    data["config"]["iberian"] = {"answers": answers}
    assert "‡" not in write(made(data))


@pytest.mark.parametrize("width", [80, 200])
def test_tables_fit_the_terminal(width: int) -> None:
    found = made(chat("merge-eu-linear-1.0", 0.5), chat("b", 0.6), named("base", 0.3))
    text = write(found, width=width)
    assert max(len(line) for line in text.splitlines() if not line.startswith("#")) <= width
    whole = {cell.strip() for line in write(found).splitlines() if line.startswith("|") for cell in line.split("|")}
    parts = {cell.strip() for line in text.splitlines() if line.startswith("|") for cell in line.split("|")}
    assert {cell for cell in whole if "--" not in cell} == {cell for cell in parts if "--" not in cell}
    assert all(line.count("multiturn") == 1 for line in text.splitlines() if line.startswith("| b "))


def test_long_names_are_cut_for_a_terminal_unless_they_could_be_mixed_up() -> None:
    names = [f"language=eu method=task_arithmetic weight={weight}" for weight in ("0.5", "1.0")]
    text = write(made(*(named(name, 0.5) for name in names)), width=80)
    shown = next(line for line in text.splitlines() if line.startswith("| lang")).split("|")[1].strip()
    assert len(shown) == 32 and shown.startswith("language=eu") and "…" in shown and shown.endswith("weight=0.5")
    first = text.split("###")[1]
    assert max(map(len, first.splitlines())) <= 80 and first.count("| eu ") == 1
    alike = [f"{'a' * 30}{middle}{'b' * 30}" for middle in "xy"]
    assert alike[0] in write(made(*(named(name, 0.5) for name in alike)), width=80)


def test_every_form_has_the_figures() -> None:
    limited = named("=x", 0.25)
    limited["n-samples"]["iberian_belebele_eu"]["effective"] = 5
    found = made(named("a_b|c", 0.512345), limited)
    by_row = list(csv.DictReader(io.StringIO(write(found, "csv"))))
    eu, less = (
        next(row for row in by_row if row["model"] == name and row["column"] == "eu") for name in ("a_b|c", "'=x")
    )
    assert (eu["value"], eu["spread"], eu["whole"]) == ("51.2345", "0.3361", "yes")
    assert (less["value"], less["whole"]) == ("25.0000", "no")
    assert {row["model"] for row in by_row} == {"a_b|c", "'=x", "chance"}
    document = json.loads(write(found, "json"))
    score = document["models"][0]["averages"]["bench_eu"]
    assert [score[key] for key in ("value", "stderr", "deviation", "chance", "normalised", "whole")] == [
        pytest.approx(51.2345), pytest.approx(0.3361, abs=1e-4), None, pytest.approx(30.1019, abs=1e-4),
        pytest.approx(statistics.fmean(100 * (51.2345 - one) / (100 - one) for one in CHANCES), abs=1e-3), True,
    ]  # fmt: skip
    assert document["models"][1]["averages"]["bench_eu"]["whole"] is False
    assert len(document["models"][0]["benchmarks"]) == len(
        {(b["benchmark"], b["language"]) for b in document["models"][0]["benchmarks"]}
    )
    assert r"a\_b|c & plain & \textbf{51.23}" in write(found, "latex")
    assert r"a_b\|c" in write(found)
    for table, said in zip(found.tables, document["tables"], strict=True):
        assert (said["title"], said["columns"]) == (table.title, list(table.heads))
        figures = [(cell.value, cell.spread, cell.rank, cell.signs) for _, _, cells in table.rows for cell in cells]
        assert [tuple(figure.values()) for row in said["rows"] for figure in row["figures"]] == figures
        assert [(row["model"], row["role"]) for row in said["rows"]] == [(name, role) for name, role, _ in table.rows]
        assert [row["prompt"] for row in said["rows"]] == table.prompts


def test_latex_escapes() -> None:
    assert "| &lt;b> x " in write(made(named("<b>\nx", 0.5)))
    text = write(made(named(r"[\input{x}_%&#$~^", 0.5)), "latex")
    assert r"{[}\textbackslash{}input\{x\}\_\%\&\#\$\textasciitilde{}\textasciicircum{}" in text


def test_a_name_with_a_star_is_no_option_of_a_line_break() -> None:
    r"""LaTeX takes the star of `\\ *best` for its own, across the line's end."""
    assert "{*}best & plain" in write(made(named("*best", 0.5)), "latex")


def test_lm_evals_own_tasks_beside_ours_are_said() -> None:
    """They are not counted, and were not named either."""
    data = results({"iberian_belebele_eu": {"acc": 0.5}, "belebele_eus_Latn": {"acc": 0.9}})
    found = made(data)
    note = "Belebele (eu): lm_eval's own tasks of it are in the files too, and not counted"
    assert note in found.notes["org/model"] and "50.00" in write(found) and "90.00" not in write(found)
    assert note not in made(results({"belebele_eus_Latn": {"acc": 0.9}})).notes["org/model"]


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "results_1.json").write_text(json.dumps(named("a", 0.5)))
    runner = CliRunner()
    good = runner.invoke(command, [str(tmp_path)])
    assert good.exit_code == 0 and "Benchmark average" in good.output
    assert "Traceback" not in good.output
    (tmp_path / "other.json").write_text("no")
    bad = runner.invoke(command, [str(tmp_path / "other.json")])
    assert bad.exit_code == 1 and "not JSON" in bad.output
    (tmp_path / "empty").mkdir()
    assert "no results of lm_eval in it" in runner.invoke(command, [str(tmp_path / "empty")]).output


def tracked(folder: Path, output_path: str, name: str, value: float) -> None:
    """A results file, and samples, under the names that lm_eval's own tracker gives them."""
    from lm_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(folder / output_path))
    tracker.general_config_tracker.model_name, tracker.general_config_tracker.model_source = name, "hf"
    tracker.general_config_tracker.model_name_sanitized = name.replace("/", "__")
    tracker.save_results_aggregated(results=named(name, value), samples=None)
    sample = {"doc_id": 0, "arguments": [["a", "b"]], "resps": [[1]], "filtered_resps": [1], "target": "1"}
    tracker.save_results_samples(task_name="iberian_belebele_eu", samples=[sample])


def test_every_name_that_lm_eval_gives_its_results(tmp_path: Path) -> None:
    tracked(tmp_path, "out", "org/first", 0.5)
    tracked(tmp_path, "deep/er/mine.json", "org/second", 0.6)
    tracked(tmp_path, "results_x.json", "org/third", 0.7)
    assert len(list(tmp_path.rglob("results_2*.json"))) == 1  # the others have names of their own
    found = CliRunner().invoke(command, [str(tmp_path), "--format", "json"])
    assert {model["model"] for model in json.loads(found.output)["models"]} == {"org/first", "org/second", "org/third"}


def test_links_to_folders_are_followed_once_and_links_to_nothing_named(tmp_path: Path) -> None:
    """A folder that was moved to another disk, with a link in its place, was read as if it were empty."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "results_1.json").write_text(json.dumps(named("b", 0.6)))
    out = tmp_path / "out ñ"
    (out / "a").mkdir(parents=True)
    (out / "a" / "results_1.json").write_text(json.dumps(named("a", 0.5)))
    (out / "b").symlink_to(tmp_path / "disk")
    (out / "a" / "round").symlink_to(out)
    (out / "results_2.json").symlink_to(tmp_path / "gone.json")
    found = report_files([out])
    assert [model.label for model in found.models] == ["a", "b"]
    assert found.left_out["a link to nothing"] == [str(out / "results_2.json")]
    assert sum(len(files) for reason, files in found.left_out.items() if reason.startswith("the same run")) == 0


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results_1.json").write_text(json.dumps(named("a", 0.5)))
    (tmp_path / "closed").mkdir()
    listed = os.scandir

    def scandir(folder: str) -> object:
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert report_files([tmp_path]).left_out == {"cannot be read (Permission denied)": [str(tmp_path / "closed")]}


def test_what_is_left_out_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "results_1.json").write_text(json.dumps(named("a", 0.5)))
    (tmp_path / "copy.json").write_text(json.dumps(named("a", 0.5)))
    (tmp_path / "results_half.json").write_text('{"results": {"iberian')
    (tmp_path / "mine_2026-11-28T10-00-00.123456.json").write_text("[]")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "samples_iberian_belebele_eu_2026-11-28T10-00-00.1.jsonl").write_text("{}")
    (tmp_path / "again.json").symlink_to(tmp_path / "results_1.json")
    report = report_files([tmp_path, tmp_path])
    assert [model.label for model in report.models] == ["a"]
    named_files = {
        reason.split(" (")[0]: [Path(file).name for file in files] for reason, files in report.left_out.items()
    }
    assert named_files["no results of lm_eval"] == ["config.json"]
    assert named_files["not JSON"] == ["results_half.json"]
    assert named_files["samples, not results"] == ["samples_iberian_belebele_eu_2026-11-28T10-00-00.1.jsonl"]
    (twice,) = [files for reason, files in named_files.items() if reason.startswith("the same run as")]
    assert twice == ["copy.json"]
    assert sum("mine_2026" in file for files in named_files.values() for file in files) == 1
    assert "Left out:\n" in write(report) and "config.json" in write(report)
