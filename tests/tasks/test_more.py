"""iberian_more: what lm_eval's own tasks measure and what says `more: true`: one group, one report, one doctor."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from lm_eval import simple_evaluate

from lm_eval_iberian import plugin
from lm_eval_iberian.benchmarks.groups import MORE, added_groups
from lm_eval_iberian.benchmarks.table import benchmarks, of_column
from lm_eval_iberian.commands.main import cli
from lm_eval_iberian.documents.manifests import unmeasured
from lm_eval_iberian.documents.needs import leaves, needs, yaml_of
from lm_eval_iberian.documents.prefetch import prefetch
from lm_eval_iberian.errors import DocumentsError, ManifestError
from lm_eval_iberian.scores.results import check_run
from lm_eval_iberian.scores.suite import gather
from tests.lm_eval_iberian.results_maker import results
from tests.tasks.common import manager, ours

THEIRS = [one for one in benchmarks() if not one.tasks]
OURS = [one for one in benchmarks() if one.tasks and one.in_more]
# Options of each, by hand.
OPTIONS = {
    "ARC easy": 4, "ARC challenge": 4, "PIQA": 2, "XCOPA": 2, "COPA": 2, "PAWS": 2, "WNLI": 2, "XNLI": 3, "SIQA": 3,
    "TECA": 3, "Parafraseja": 2,
}  # fmt: skip


def test_the_group_is_what_the_manifest_names() -> None:
    assert added_groups()[MORE] == [one.listed for one in benchmarks() if one.in_more]
    assert set(leaves(MORE)) == {task for one in THEIRS for task in one.upstream} | {t for o in OURS for t in o.tasks}
    assert len(leaves(MORE)) == len(set(leaves(MORE)))
    assert len([task for one in THEIRS for task in one.upstream]) == 21
    assert {one.name for one in OURS} == {
        "VeritasQA", "VeritasQA in words", "Multi-LMentry", "caBreu", "Summarization", "XL-Sum", "Cocoteros",
        *(f"Phrases {one}" for one in ("es-va", "va-es", "ca-va", "va-ca")),
    }  # fmt: skip
    assert not set(leaves(MORE)) & set(leaves("iberian_suite"))
    assert {one.language for one in THEIRS} == {"eu", "gl", "ca", "es"}
    for one in THEIRS:
        assert (one.metric, one.counted_in, one.in_suite, one.in_paper) == ("acc", "benches", False, False)
        assert one.chance == pytest.approx(100 / OPTIONS[one.name]), one.title
    for one in OURS:
        assert not one.in_suite and not one.in_paper, one.title


def test_every_task_is_lm_evals_and_has_accuracy() -> None:
    """Read as lm_eval reads it; which data set a task needs stands in its YAML."""
    for one in THEIRS:
        (task,) = one.upstream
        config = yaml_of(task)
        assert config["task"] == task
        assert "acc" in [entry["metric"] for entry in config["metric_list"]]
        (need,) = needs([task])
        assert (need.path, need.config) == (config["dataset_path"], config.get("dataset_name") or "default")
    assert {need.path for need in needs([MORE])} >= {
        "HiTZ/PIQA-eu",
        "projecte-aina/teca",
        "proxectonos/PAWS-gl",
        "xnli",
    }
    with pytest.raises(DocumentsError, match="copal_id"):
        needs(["copal_id"])


@pytest.mark.slow
def test_lm_eval_knows_the_group_and_its_tasks() -> None:
    assert set(leaves(MORE)) <= set(manager().all_subtasks)
    assert MORE in manager().all_groups


@pytest.mark.slow
def test_ours_run_whole_on_samples() -> None:
    """Through lm_eval's own evaluator, into the report: every average has a figure."""
    found = simple_evaluate(
        model="dummy", tasks=[one.listed for one in OURS], limit=3, bootstrap_iters=0, task_manager=ours()
    )
    (model,) = gather([check_run(found, "here")])
    assert set(model.averages) == {one.column for one in OURS if one.averaged}
    assert all(score.value is not None for score in model.averages.values())
    assert not [note for note in model.notes if note.startswith("in no table")]
    scores = found["results"]["iberian_lmentry_gl"]
    assert {"acc,none", "unreadable,none", "more_letters,none"} <= set(scores)
    assert {"bleu,none", "rougeL,none"} <= set(found["results"]["iberian_cabreu_extreme"])
    assert {"mc1,none", "mc2,none", "mc3,none"} <= set(found["results"]["iberian_veritasqa_ca"])


def test_one_report() -> None:
    column = [task for one in of_column("benches_gl") for task in one.upstream]
    assert column == ["paws_gl", "xnli_gl"]
    data = results({"paws_gl": {"acc": 0.6, "acc_stderr": 0.01}, "xnli_gl": {"acc": 0.5, "acc_stderr": 0.01}})
    (model,) = gather([check_run(data, "one.json")])
    assert model.averages["benches_gl"].value == pytest.approx(55.0)
    assert "PAWS (gl): from lm_eval's own tasks" in model.notes
    assert not [note for note in model.notes if note.startswith("in no table")]


def test_the_doctor_names_what_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin.activate()
    done = CliRunner().invoke(cli, ["doctor", "--tasks", MORE])
    assert done.exit_code == 1
    assert "missing     projecte-aina/teca (default), nowhere: teca" in done.output
    assert "lm_eval's own tasks read the Hub's cache, not IBERIAN_DATA" in done.output
    for name in (
        "HiTZ/EusExams-v2: EusExams without doubles",
        "HiTZ/IBERtaQA: gated",
    ):
        assert f"unmeasured  {name}" in done.output
    assert done.output.count("unmeasured  ") == 2
    there = len(needs([one.listed for one in OURS]))
    assert f"{there} of {there + 21} data sets in order" in done.output, "ours have samples"
    assert "unmeasured" not in CliRunner().invoke(cli, ["doctor", "--tasks", "iberian_eu"]).output


def test_the_doctor_ends_with_one_command_for_all_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IBERIAN_DATA", str(tmp_path))
    several, one = "iberian_eus_trivia,iberian_eus_reading", "iberian_eus_trivia"
    said = CliRunner().invoke(cli, ["doctor", "--tasks", several]).output.splitlines()
    assert said[-1] == f"All that is missing, at once: iberian prefetch --tasks {several} --out {tmp_path}"
    assert "at once" not in CliRunner().invoke(cli, ["doctor", "--tasks", one]).output


def test_a_mirror_is_not_read_and_so_not_filled(tmp_path: Path) -> None:
    (outcome,) = prefetch(["teca"], tmp_path)
    assert (outcome.state, outcome.need.path) == ("failed", "projecte-aina/teca")
    assert "not a mirror" in outcome.said


def test_wrong_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBERIAN_TASKS", str(tmp_path))
    file = tmp_path / "mine" / "manifest.yml"
    file.parent.mkdir()
    file.write_text("unmeasured: [A]\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="unmeasured: should name data sets, each with a reason"):
        unmeasured()
