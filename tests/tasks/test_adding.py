"""A benchmark, and a language, added as tasks/README.md says: they appear wherever they should, and change nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from lm_eval_iberian import folders, plugin
from lm_eval_iberian.benchmarks import groups, languages, table
from lm_eval_iberian.benchmarks.benchmark import PAPER_COLUMNS, TOYS
from lm_eval_iberian.commands.main import cli
from lm_eval_iberian.compare.best import find_best
from lm_eval_iberian.compare.columns import Scores
from lm_eval_iberian.documents.manifests import manifests
from lm_eval_iberian.documents.needs import leaves, needs
from lm_eval_iberian.errors import DocumentsError, ManifestError
from lm_eval_iberian.runs.run import read_sweep_run
from lm_eval_iberian.scores.formats import write
from lm_eval_iberian.scores.results import check_run
from lm_eval_iberian.scores.suite import gather
from lm_eval_iberian.scores.tables import report
from lm_eval_iberian.sweep.kept_tasks import our_tasks
from tests.conftest import ROOT
from tests.lm_eval_iberian.results_maker import everything, results
from tests.lm_eval_iberian.sweep_maker import MadePoint, write_run

README = (ROOT / "tasks" / "README.md").read_text(encoding="utf-8")
LANGUAGES = ("eu", "gl", "ca", "es", "en", "pt")
# ... and those of the second paper's tasks.
OTHERS = ("de", "fr", "ja", "zh")
# A score for each task that is shipped.
SHIPPED = everything()


@pytest.fixture(autouse=True)
def active() -> None:
    plugin.activate()


@pytest.fixture
def older() -> dict[str, Any]:
    """Results of before: all of the suite as it is shipped."""
    return results(SHIPPED)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tasks of one's own, with the benchmark that the README shows."""
    folder = tmp_path / "mine"
    part = README[README.index("## To add a benchmark") : README.index("## To add a language")]
    files = re.findall(r"^`([\w./]+)`\n```\w*\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
    assert len(files) == 3
    for name, text in files:
        write_file(folder / name, text)
    monkeypatch.setenv("IBERIAN_TASKS", str(folder))
    return folder


@pytest.fixture
def french(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of tasks/ with the change that the README shows for French, in place of the suite's own."""
    shutil.copytree(ROOT / "tasks", tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    (change,) = re.findall(r"^```diff\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    subprocess.run(["git", "apply"], cwd=tmp_path, input=change, text=True, check=True)
    samples = tmp_path / "tasks" / "belebele" / "samples" / "facebook" / "belebele"
    shutil.copytree(samples / "spa_Latn", samples / "fra_Latn")
    monkeypatch.setattr(folders, "tasks_folder", lambda: tmp_path / "tasks")
    return tmp_path / "tasks"


def write_file(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def texts(*runs: dict[str, Any], **options: Any) -> dict[str, str]:
    """The report of models in every format."""
    made = report(gather(check_run(run, f"{number}.json") for number, run in enumerate(runs)), **options)
    return {format: write(made, format) for format in ("markdown", "csv", "latex", "json")}


def named(scores: dict[str, Any], name: str = "org/newer") -> dict[str, Any]:
    """Results of another model."""
    return results(scores, model_name=name, config={"model": "hf", "model_args": {"pretrained": name}, "limit": None})


def averages(run: dict[str, Any]) -> dict[str, float | None]:
    (model,) = gather([check_run(run, "one.json")])
    return {column: score.value for column, score in model.averages.items()}


def table_of(text: str, title: str) -> dict[str, dict[str, str]]:
    """A table of a report in Markdown: row -> head -> cell."""
    lines = text[text.index(f"### {title}") :].split("\n\n")[1].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def sweep(folder: Path, tasks: list[str]) -> Scores:
    """A sweep of two merges over these tasks."""
    points = [MadePoint(f"weight={weight}", "merge", {"weight": weight}) for weight in ("0.5", "1.0")]
    skill = lambda point, task: 0.3 + 0.5 * float(point.labels["weight"])  # noqa: E731
    return Scores(read_sweep_run(write_run(folder, "made", {"weight": ("0.5", "1.0")}, points, tasks, skill)))


# A benchmark ----------------------------------------------------------------------------------------------------------


ADDED = ["iberian_belebele_pt", "iberian_flores_es-pt", "iberian_flores_en-pt"]


def test_what_is_added_as_it_is_shipped() -> None:
    of_paper = ["iberian_mc", "iberian_flores", "iberian_ifeval"]
    found = groups.added_groups()
    assert found == {"iberian_pt": ADDED, "iberian_suite": [*of_paper, "iberian_pt"], groups.MORE: found[groups.MORE]}
    assert leaves("iberian_suite") == [*(leaf for group in of_paper for leaf in leaves(group)), *ADDED]


def test_a_benchmark_is_in_the_suite(own: Path) -> None:
    index = our_tasks()
    assert groups.added_groups()["iberian_eu_added"] == ["iberian_eus_demo"]
    assert leaves("iberian_suite")[-1] == "iberian_eus_demo"
    assert index.task_index["iberian_suite"].cfg["task"][-1] == "iberian_eu_added"
    assert {"iberian_eus_demo", "iberian_eu_added"} <= set(index.all_tasks)
    assert "iberian_eus_demo" not in leaves("iberian_eu"), "the paper's groups are frozen"
    (task,) = index.load(["iberian_eu_added"])["tasks"].values()
    task.build_all_requests()
    assert task.instances[0].args[0] == "Galdera: Zer kolore du elurrak?\nErantzuna:"
    assert task.config.metadata["documents"] == "samples"


def test_lm_eval_itself_reads_a_folder_of_ones_own(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its own tasks and the user's `--include_path`."""
    from lm_eval.tasks import manager

    seen: list[str] = []
    monkeypatch.setattr(manager.TaskIndex, "build", staticmethod(lambda paths: seen.extend(map(str, paths)) or {}))
    manager.TaskManager(include_path="theirs")
    assert seen[1:] == [str(ROOT / "tasks"), str(own), "theirs"]


def test_a_benchmark_is_fetched_and_examined(own: Path) -> None:
    assert [need.config for need in needs(["iberian_suite"]) if need.path == "owner/EusDemo"] == ["default"]
    assert manifests()["owner/EusDemo"].configs == {"default": {"test": 500}}
    said = CliRunner().invoke(cli, ["doctor", "--tasks", "iberian_eu_added", "--all"]).output
    assert "there       owner/EusDemo (default), samples: iberian_eus_demo" in said
    assert "1 of 1 data sets in order" in said


def test_a_benchmark_is_in_reports_with_its_chance_level(own: Path, older: dict[str, Any]) -> None:
    newer = named(SHIPPED | {"iberian_eus_demo": {"acc": 0.75, "acc_stderr": 0.02}})
    text = texts(older, newer)["markdown"]
    assert table_of(text, "EusDemo (accuracy)") == {
        "org/newer": {"model": "org/newer", "": "model", "prompt": "plain", "eu": "75.00 ±2.00"},
        "chance": {"model": "chance", "": "chance", "prompt": "", "eu": "50.00"},
    }
    rows = table_of(text, "Basque, benchmark by benchmark")
    assert [rows[name]["EusDemo"] for name in ("org/newer", "chance")] == ["75.00 ±2.00", "50.00"]


def test_a_benchmark_changes_no_average_of_the_paper(
    tmp_path: Path, older: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    before, said = averages(older), texts(older)
    of_paper = {column: table.of_column(column) for column in PAPER_COLUMNS}
    request.getfixturevalue("own")
    assert {column: table.of_column(column) for column in PAPER_COLUMNS} == of_paper
    assert texts(older) == said, "older results, byte for byte"
    newer = averages(results(SHIPPED | {"iberian_eus_demo": {"acc": 0.75, "acc_stderr": 0.02}}))
    assert newer == before | {"eusdemo_eu": pytest.approx(75.0)}


def test_a_benchmark_is_a_column_of_sweeps_and_best_goes_by_it(own: Path, tmp_path: Path) -> None:
    scores = sweep(tmp_path / "run", ["iberian_eus_demo", "iberian_belebele_eu"])
    (column,) = [one for one in scores.columns if one.key == "eusdemo_eu"]
    assert (column.title, column.unit, column.left_out) == ("Basque · EusDemo", "accuracy, %", ())
    best = find_best(scores.run, ["eusdemo_eu"])
    assert best.best.point.name == "weight=1.0" and best.goals[0].benchmarks[0].tasks == ("iberian_eus_demo",)


def change(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change the benchmark's entry in the manifest; caches go by folder, so the folder moves."""
    file = folder / "eus_demo" / "manifest.yml"
    manifest = yaml.safe_load(file.read_text(encoding="utf-8"))
    edit(manifest)
    file.write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")


def entry(**keys: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda manifest: manifest["benchmarks"][0].update(keys)


def test_an_average_over_the_papers_benchmarks_and_what_was_added(own: Path, older: dict[str, Any]) -> None:
    change(own, entry(average="all"))
    newer = averages(results(SHIPPED | {"iberian_eus_demo": {"acc": 0.9, "acc_stderr": 0.02}}))
    assert newer["all_eu"] == pytest.approx((7 * 50 + 90) / 8)
    assert newer["bench_eu"] == pytest.approx(50.0)
    assert "all_eu" not in averages(older) and "EusDemo" not in texts(older)["markdown"]
    part = averages(results({"iberian_eus_demo": {"acc": 0.9, "acc_stderr": 0.02}}))
    assert part == {"all_eu": None}


def test_a_partial_average_over_all_is_no_column_of_an_older_sweep(own: Path, tmp_path: Path) -> None:
    change(own, entry(average="all"))
    assert [one.key for one in sweep(tmp_path / "run", ["iberian_belebele_eu"]).columns] == ["bench_eu"]
    both = sweep(tmp_path / "both", ["iberian_belebele_eu", "iberian_eus_demo"])
    assert [one.key for one in both.columns] == ["bench_eu", "all_eu"]
    assert [one.kind_title for one in both.columns] == ["Belebele", "Belebele + EusDemo"]


def test_in_no_average(own: Path, older: dict[str, Any]) -> None:
    change(own, entry(average="none"))
    assert "iberian_eu_added" not in groups.added_groups() and "eusdemo" not in table.averages()
    text = texts(results(SHIPPED | {"iberian_eus_demo": {"acc": 0.9, "acc_stderr": 0.02}}))["markdown"]
    assert table_of(text, "Basque, benchmark by benchmark")["chance"]["EusDemo (not averaged)"] == "50.00"


def test_in_iberian_more_instead_of_the_suite(own: Path) -> None:
    change(own, entry(more=True))
    assert leaves(groups.MORE).count("iberian_eus_demo") == 1
    assert "iberian_eu_added" not in groups.added_groups() and "iberian_eus_demo" not in leaves("iberian_suite")
    (one,) = table.of_column("eusdemo_eu")
    assert (one.in_more, one.in_suite) == (True, False)


def test_an_average_that_two_share(own: Path) -> None:
    other = {"name": "Other", "kind": "choice", "languages": ["eu"], "task": "iberian_other", "chance": 25, "shots": 0}
    change(own, lambda manifest: manifest["benchmarks"].append(other | {"average": "more"}))
    change(own, entry(average="more", suite=False))
    write_file(own / "eus_demo" / "iberian_other.yaml", "task: iberian_other\n")
    assert [one.name for one in table.of_column("more_eu")] == ["EusDemo", "Other"]
    assert table.averages()["more"].title == "more: EusDemo, Other (accuracy)"
    assert groups.added_groups()["iberian_eu_added"] == ["iberian_other"]


GROUP = "group: iberian_eus_demo\ntask: [iberian_eus_demo_a, iberian_eus_demo_b]\n"


def test_a_benchmark_of_several_tasks(own: Path) -> None:
    """Its YAML is a group; its upstream's names end alike."""
    change(own, entry(upstream="eus_demo_*", languages=["eu"], metric="ter"))
    write_file(own / "eus_demo" / "iberian_eus_demo.yaml", GROUP)
    for part in ("a", "b"):
        write_file(own / "eus_demo" / f"iberian_eus_demo_{part}.yaml", f"task: iberian_eus_demo_{part}\n")
    (one,) = table.of_column("eusdemo_eu")
    assert one.tasks == ("iberian_eus_demo_a", "iberian_eus_demo_b")
    assert one.upstream == ("eus_demo_a", "eus_demo_b")
    assert (one.metric, one.percent) == ("ter", 100.0)
    assert groups.added_groups()["iberian_eu_added"] == ["iberian_eus_demo"]


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no kind": (entry(kind="quiz"), r"benchmarks, number 1 \(EusDemo\): kind: 'quiz' is none of choice, translation"),
    "misspelt": (entry(chanse=50), r"number 1 \(EusDemo\): chanse: there is no such key; did you mean chance"),
    "no chance": (lambda m: m["benchmarks"][0].pop("chance"), "lacks the key chance"),
    "no shots": (lambda m: m["benchmarks"][0].pop("shots"), "lacks the key shots"),
    "no task": (lambda m: m["benchmarks"][0].pop("task"), "lacks the key task"),
    "chance of 1": (entry(chance=100), "chance: 100 is no percentage below 100"),
    "shots": (entry(shots=-1), "shots: -1 is less than none"),
    "text for a number": (entry(chance="50"), "chance: '50' should be a whole number or a number"),
    "unknown language": (entry(languages=["xx"]), "languages: xx: not in languages.yml, which has eu, gl, ca"),
    "no language": (lambda m: m["benchmarks"][0].pop("languages"), "one of the keys languages and directions"),
    "phantom task": (entry(task="iberian_eus_{iso3}"), "task: there is no iberian_eus_eus.yaml beside this manifest"),
    "placeholder": (entry(task="{lang}"), "task: only {language}, {code}, {iso3} and {direction}"),
    "frozen": (entry(average="bench"), "average: bench_eu is the paper's average and frozen"),
    "another kind's": (entry(average="mt"), "average: 'mt' cannot name it"),
    "two words": (entry(average="my own"), "average: 'my own' cannot name it"),
    "all kinds": (entry(average="all", kind="instructions"), "only benchmarks of the kind choice count in all"),
    "a kind's name": (entry(name="Bench"), "average: 'bench' cannot name it"),
    "a word's name": (entry(name="All"), "average: 'all' cannot name it"),
    "one of the paper's": (entry(name="Belebele"), r"Belebele \(eu\): .*belebele/manifest.yml has one of that name"),
    "counted twice": (lambda m: m["benchmarks"].append(m["benchmarks"][0]), r"counts in EusDemo \(eu\) already"),
    "no list": (lambda m: m.update(benchmarks={"name": "x"}), "benchmarks: should be a list"),
    "no mapping": (lambda m: m.update(benchmarks=["x"]), "number 1: 'x' should be a mapping"),
    "no data set": (lambda m: m.update(EusDemo={}), "EusDemo: neither benchmarks nor a data set of the Hub"),
    "no revision": (lambda m: m["owner/EusDemo"].pop("revision"), "owner/EusDemo: it lacks the key revision"),
    "rows": (lambda m: m["owner/EusDemo"].update(configs={"default": {"test": "500"}}), "configs: default: .*splits"),
    "another revision": (
        lambda m: m.update({"HiTZ/EusTrivia": {"revision": "x", "columns": {}, "configs": {}}}),
        "HiTZ/EusTrivia: .*eus_trivia/manifest.yml says other things",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_manifest_is_named_with_its_key(name: str, own: Path) -> None:
    edit, said = WRONG[name]
    change(own, edit)
    with pytest.raises(ManifestError, match=said) as caught:
        table.benchmarks()
        manifests()
    assert str(caught.value).startswith(str(own / "eus_demo" / "manifest.yml"))


@pytest.mark.parametrize("text", ["benchmarks: [", "- a\n- b\n", "\0"])
def test_no_yaml(text: str, own: Path) -> None:
    write_file(own / "eus_demo" / "manifest.yml", text)
    with pytest.raises(ManifestError, match=r"eus_demo/manifest\.yml"):
        table.benchmarks()


def test_a_mixed_average_is_refused(own: Path) -> None:
    """A mean of BLEU and accuracy means nothing."""
    write_file(own / "eus_demo" / "iberian_mt.yaml", "task: iberian_mt\n")
    other = {"name": "MT", "kind": "translation", "directions": ["es-eu"], "task": "iberian_mt", "shots": 5}
    change(own, lambda manifest: manifest["benchmarks"].append(other | {"average": "eusdemo"}))
    with pytest.raises(ManifestError, match=r"MT \(eu\): average: EusDemo \(eu\) counts in eusdemo and is measured"):
        table.benchmarks()


def test_a_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBERIAN_TASKS", "/nowhere")
    with pytest.raises(DocumentsError, match="IBERIAN_TASKS=/nowhere: no such folder"):
        table.benchmarks()


# A language -----------------------------------------------------------------------------------------------------------

FRENCH = {"bench_fr": ["Belebele"], "mt_fr": ["en-fr"], "ifeval_fr": ["IFEval"]}
NEWER = {
    "iberian_belebele_fr": {"acc": 0.6, "acc_stderr": 0.01},
    "iberian_flores_en-fr": {"bleu": 35.0, "bleu_stderr": 0.5},
    "ifeval_fr": {"inst_level_strict_acc": 0.7, "inst_level_strict_acc_stderr": "N/A"},
}


def test_a_language_is_in_the_suite(french: Path) -> None:
    index = our_tasks()
    assert table.measured_languages() == (*LANGUAGES, *OTHERS)
    assert groups.added_groups()["iberian_fr"] == list(NEWER)
    assert index.task_index["iberian_suite"].cfg["task"][-1] == "iberian_fr"
    assert {column: [one.name for one in table.of_column(column)] for column in FRENCH} == FRENCH
    assert {("facebook/belebele", "fra_Latn"), ("openlanguagedata/flores_plus", "fra_Latn")} <= {
        (need.path, need.config) for need in needs(["iberian_suite"])
    }


def test_a_language_adds_no_task_that_does_not_exist(french: Path) -> None:
    index = our_tasks()
    assert {task for one in table.benchmarks() for task in one.tasks} <= set(index.all_subtasks)
    for group in set(index.all_groups) - {groups.MORE}:  # lm_eval's own
        assert set(leaves(group)) <= set(index.all_subtasks), group
    (task,) = index.load(["iberian_belebele_fr"])["tasks"].values()
    assert task.config.dataset_name == "fra_Latn"


def test_a_language_is_in_reports(french: Path, older: dict[str, Any]) -> None:
    newer = named(SHIPPED | NEWER)
    text = texts(older, newer)["markdown"]
    rows = table_of(text, "Benchmark average (accuracy)")
    assert [row["fr"] for row in rows.values()] == ["–", "60.00 ±1.00", "25.00"]
    assert table_of(text, "Machine translation (FLORES devtest, BLEU)")["org/newer"]["fr"].startswith("35.00")
    assert table_of(text, "French, benchmark by benchmark")["org/newer"]["en-fr"] == "35.00 ±0.50"
    assert "FLORES en-fr" not in text and "nothing measured for bench_fr" not in text
    assert "fr" in table_of(texts(newer, against="paper")["markdown"], "Benchmark average (accuracy)")["org/newer"]


def test_a_language_changes_nothing_else(older: dict[str, Any], request: pytest.FixtureRequest) -> None:
    said = [texts(older), texts(older, normalised=True), texts(older, against="paper")]
    before = averages(older)
    request.getfixturevalue("french")
    assert [texts(older), texts(older, normalised=True), texts(older, against="paper")] == said
    newer = averages(named(SHIPPED | NEWER))
    assert {column: newer[column] for column in before} == before
    assert set(newer) - set(before) == set(FRENCH)


def test_a_language_is_in_sweeps(french: Path, tmp_path: Path) -> None:
    scores = sweep(tmp_path / "run", [*NEWER, "iberian_belebele_eu"])
    assert scores.languages == ["eu", "fr"]
    assert [one.title for one in scores.columns if one.language == "fr"] == [
        "French · Benchmarks", "French · Translation", "French · Instructions",
    ]  # fmt: skip
    assert find_best(scores.run, ["bench_fr", "ifeval_fr"]).best.point.name == "weight=1.0"
    assert scores.instructions == "ifeval"


@pytest.mark.slow
def test_prompts_of_a_language_that_has_none_of_ours(french: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DocumentsError, match=r"IFEval \(fr\): this project has no prompts.*IBERIAN_IFEVAL_FR must name"
    ):
        our_tasks().load(["ifeval_fr"])
    row = '{"key": 1, "prompt": "Salut", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}\n'
    write_file(french.parent / "fr.jsonl", row)
    monkeypatch.setenv("IBERIAN_IFEVAL_FR", str(french.parent / "fr.jsonl"))
    (task,) = our_tasks().load(["ifeval_fr"])["tasks"].values()
    assert task.eval_docs[0]["prompt"] == "Salut"


ASTURIAN = "ast: {name: Asturian, code: ast_Latn}\n"


def test_a_language_that_nobody_knew(own: Path) -> None:
    """Its entry, and a benchmark that names it: `languages.yml` may lie in the folder of one's own."""
    assert ASTURIAN.strip() in README
    write_file(own / "languages.yml", ASTURIAN)
    change(own, entry(languages=["ast"]))
    assert languages.language_names()["ast"] == "Asturian"
    assert table.measured_languages() == (*LANGUAGES, *OTHERS, "ast")
    assert groups.added_groups()["iberian_ast"] == ["iberian_eus_demo"]
    newer = averages(results(SHIPPED | {"iberian_eus_demo": {"acc": 0.75, "acc_stderr": 0.02}}))
    assert newer["bench_ast"] == pytest.approx(75.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [("ast: {name: Asturian}\n", "ast: it lacks the key code"), ("eu: {name: x, code: y}\n", "eu: .*another"),
     ("ast: Asturian\n", "ast: 'Asturian' should be a mapping"), ("ast: {nam: x}\n", "nam: .*did you mean name")],
)  # fmt: skip
def test_a_wrong_language_is_named(text: str, said: str, own: Path) -> None:
    write_file(own / "languages.yml", text)
    with pytest.raises(ManifestError, match=said):
        table.benchmarks()


def test_the_toys_speak_their_own_languages(french: Path) -> None:
    assert {one.language for one in table.benchmarks() if one.kind in TOYS} == {*LANGUAGES} - {"pt"}
