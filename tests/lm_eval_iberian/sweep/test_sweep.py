"""Sweeps in transformers, in this process: scores against lm_eval on mergekit's checkpoints, failures, reuse."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian.runs.run import read_sweep_run
from lm_eval_iberian.sweep import kept_tasks
from tests import forks
from tests.conftest import linear
from tests.lm_eval_iberian.sweep.local_tasks import write_tasks
from tests.lm_eval_iberian.sweep.runner import run
from tests.lm_eval_iberian.sweep.test_resume import a_sweep
from tests.merge_hooks.test_stream import corrupt

DOCUMENTS = 8


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"), DOCUMENTS)


@pytest.fixture(scope="module")
def done(llama: dict[str, Path], tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A finished run, and how often each task built its requests."""
    built: list[int] = []
    original = kept_tasks.LoadedOnce._once

    def counting(self: Any, task: Any, build: Callable[..., None]) -> Callable[..., None]:
        def count(**options: Any) -> None:
            built.append(1)
            build(**options)

        return original(self, task, count)

    folder = tmp_path_factory.mktemp("run") / "run"
    patch = pytest.MonkeyPatch()
    patch.setattr(kept_tasks.LoadedOnce, "_once", counting)
    assert run(a_sweep(llama, tasks) | {"log_samples": True}, folder) == {}
    patch.undo()
    return folder, built


def theirs(checkpoint: Path, tasks: Path) -> dict[str, Any]:
    """lm_eval's own results for a checkpoint on disk, with its chat template."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    return simple_evaluate(
        model="hf", model_args={"pretrained": str(checkpoint), "dtype": "float32"}, device="cpu", batch_size=4,
        tasks=["local_choice", "local_words"], apply_chat_template=True, fewshot_as_multiturn=True,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
    )  # fmt: skip


@pytest.mark.slow
def test_points_parents_and_labels(done: tuple[Path, list[int]]) -> None:
    points = read_sweep_run(done[0]).points
    assert [(point.name, point.role) for point in points] == [
        ("weight=0.5", "merge"), ("weight=1.0", "merge"), ("basque", "parent"), ("instruct", "parent")]  # fmt: skip
    assert points[0].parents == ("basque", "instruct") and points[0].labels == {"weight": "0.5"}
    assert len({point.signature for point in points}) == 4


@pytest.mark.slow
def test_scores_and_answers_are_lm_evals_on_mergekits_checkpoint(
    done: tuple[Path, list[int]], llama: dict[str, Path], tasks: Path, mergekit_merge: Callable[[dict[str, Any]], Path]
) -> None:
    found = read_sweep_run(done[0])
    for name, checkpoint in {
        "weight=0.5": mergekit_merge(linear(llama, weights=(0.5, 1.0))),
        "weight=1.0": mergekit_merge(linear(llama)),
        "basque": llama["basque"],
    }.items():
        expected = theirs(checkpoint, tasks)
        assert found[name].results[0]["results"] == expected["results"], name
        said = [sample["filtered_resps"][0] for sample in expected["samples"]["local_words"]]
        assert list(found[name].answers("local_words").values()) == [[text] for text in said]
        for task in ("local_words", "local_choice"):
            for sample in expected["samples"][task]:
                assert found[name].prompt(task, sample["doc_id"]) == sample["arguments"][0][0], "whole, as it was asked"
        acc = [sample["acc"] for sample in expected["samples"]["local_choice"]]
        assert [rows[0]["acc"] for rows in found[name].documents("local_choice").values()] == acc


def test_requests_are_built_once(done: tuple[Path, list[int]]) -> None:
    assert len(done[1]) == 2  # two tasks, four models


def test_a_second_run_does_nothing(done: tuple[Path, list[int]], llama: dict[str, Path], tasks: Path) -> None:
    before = (done[0] / "store.sqlite").stat().st_mtime_ns
    assert run(a_sweep(llama, tasks), done[0]) == {}
    assert (done[0] / "store.sqlite").stat().st_mtime_ns == before


@pytest.mark.slow
def test_other_documents_are_another_evaluation(
    done: tuple[Path, list[int]], llama: dict[str, Path], tasks: Path, tmp_path: Path
) -> None:
    """The same task over other files must not be taken for done."""
    copy = tmp_path / "run"
    shutil.copytree(done[0], copy)
    other = write_tasks(tmp_path / "other", DOCUMENTS + 1)
    assert run(a_sweep(llama, other), copy) == {}
    counts = {point.results[0]["n-samples"]["local_choice"]["effective"] for point in read_sweep_run(copy).points}
    assert counts == {DOCUMENTS + 1}


def test_results_files_are_lm_evals(done: tuple[Path, list[int]]) -> None:
    files = sorted((done[0] / "points").rglob("results_*.json"))
    assert len(files) == 4
    for file in files:
        data = json.loads(file.read_text())
        assert data["config"]["iberian"]["signature"] and data["sweep"]["point"]
        assert set(data["results"]) == {"local_choice", "local_words"}


def test_samples_are_written_where_they_are_asked_for(
    done: tuple[Path, list[int]], llama: dict[str, Path], tasks: Path, tmp_path: Path
) -> None:
    files = sorted((done[0] / "points").rglob("samples_*.jsonl"))
    assert len(files) == 4 * 2
    for file in files:
        assert len(file.read_text().splitlines()) == DOCUMENTS
        task, _, key = file.stem.removeprefix("samples_").rpartition("_")
        assert task in ("local_choice", "local_words") and (file.parent / f"results_{key}.json").is_file()
    # Where the scores are there already, none is made up.
    copy = tmp_path / "copy"
    shutil.copytree(done[0], copy)
    for file in (copy / "points").rglob("samples_*.jsonl"):
        file.unlink()
    assert run(a_sweep(llama, tasks) | {"log_samples": True}, copy) == {}
    assert not list((copy / "points").rglob("samples_*.jsonl"))


@pytest.mark.slow
def test_results_files_have_all_keys_of_lm_eval(
    done: tuple[Path, list[int]], llama: dict[str, Path], tasks: Path, tmp_path: Path
) -> None:
    """Key by key beside the file that lm_eval's command line writes for the same model, prompts and documents."""
    command = [
        sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={llama['basque']},dtype=float32",
        "--device", "cpu", "--batch_size", "4", "--tasks", "local_choice,local_words", "--include_path", str(tasks), "--log_samples",
        "--apply_chat_template", "--fewshot_as_multiturn", "--output_path", str(tmp_path),
    ]  # fmt: skip
    forks.run(command, check=True, timeout=300)
    (file,) = tmp_path.rglob("results_*.json")
    expected = json.loads(file.read_text())
    found = next(data for one in (done[0] / "points").rglob("results_*.json")
                 if (data := json.loads(one.read_text()))["sweep"]["point"] == "basque")  # fmt: skip
    assert set(expected) - set(found) == set()
    # Facts of the model's class on disk, which a merge states in other words (config.iberian).
    of_the_class = {"model_num_parameters", "model_revision", "model_sha"}
    assert set(expected["config"]) - set(found["config"]) <= of_the_class
    alike = ("results", "n-samples", "n-shot", "versions", "higher_is_better", "task_hashes", "chat_template",
             "chat_template_sha", "fewshot_as_multiturn", "system_instruction", "tokenizer_eos_token", "max_length",
             "lm_eval_version", "transformers_version")  # fmt: skip
    assert {key: found[key] for key in alike} == {key: expected[key] for key in alike}
    assert found["model_name"] == "basque" and float(found["total_evaluation_time_seconds"]) > 0
    for task in ("local_choice", "local_words"):  # and the samples: the same lines under the same keys
        (theirs_,) = tmp_path.rglob(f"samples_{task}_*.jsonl")
        (ours,) = (done[0] / "points" / "basque").glob(f"samples_{task}_*.jsonl")
        expected, lines = ([json.loads(line) for line in one.read_text().splitlines()] for one in (theirs_, ours))
        assert len(lines) == len(expected) == DOCUMENTS
        for line, row in zip(lines, expected, strict=True):
            assert list(line) == list(row)
            assert {key: line[key] for key in line if not key.endswith("resps")} == {
                key: row[key] for key in row if not key.endswith("resps")
            }
            assert _numbers(line["resps"]) == pytest.approx(_numbers(row["resps"]), abs=1e-4)


def _numbers(responses: Any) -> Any:
    """lm_eval writes log-likelihoods as texts; the last digit is the batch's."""
    flat = [one for each in responses for one in (each if isinstance(each, list) else [each])]
    flat = [one for each in flat for one in (each if isinstance(each, list) else [each])]
    try:
        return [float(one) for one in flat if one not in ("True", "False")]
    except ValueError:
        return flat  # generated texts


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_the_export_holds_every_document(done: tuple[Path, list[int]], tmp_path: Path, form: str) -> None:
    """Read back by pandas."""
    import pandas
    from click.testing import CliRunner

    from lm_eval_iberian.commands.main import cli

    result = CliRunner().invoke(cli, ["sweep-export", str(done[0]), "--format", form, "--to", str(tmp_path)])
    assert result.exit_code == 0, result.output
    read = {"jsonl": lambda path: pandas.read_json(path, lines=True), "parquet": pandas.read_parquet}[form]
    documents, scores = read(tmp_path / f"documents.{form}"), read(tmp_path / f"scores.{form}")
    assert len(documents) == 4 * 2 * DOCUMENTS
    labels = scores.set_index("point").labels.to_dict()
    unpacked = {"jsonl": dict, "parquet": json.loads}[form]  # an object in JSON, not JSON in a text of it
    assert unpacked(labels["weight=0.5"]) == {"weight": "0.5"} and unpacked(labels["basque"]) == {}
    means = documents[documents.task == "local_choice"].groupby("point").metrics.apply(
        lambda rows: sum(unpacked(row)["acc"] for row in rows) / len(rows))  # fmt: skip
    given = scores[(scores.task == "local_choice") & (scores.metric == "acc")].set_index("point").value
    assert means.to_dict() == pytest.approx(given.to_dict())


@pytest.mark.slow
def test_what_fails_is_recorded_and_the_rest_goes_on(llama: dict[str, Path], tasks: Path, tmp_path: Path) -> None:
    """A model that is not there, one with NaN, and one that fits nowhere; the others are measured."""
    broken = corrupt(
        llama["basque"], tmp_path / "broken", lambda t: t["model.layers.1.mlp.up_proj.weight"][0].fill_(float("nan"))
    )
    data = a_sweep(llama, tasks) | {
        "parents": False,
        "recipes": {
            "nowhere": linear({**llama, "basque": Path("/nowhere/at-all")}),
            "nan": linear({**llama, "basque": broken}),
        },
    }
    failures = run(data, tmp_path / "run")
    assert len(failures) == 2
    found = read_sweep_run(tmp_path / "run")
    assert "no such folder" in found["nowhere"].failures[0]
    assert "holds NaN" in found["nan"].failures[0]
    assert found["weight=0.5"].results and found["weight=1.0"].results
    assert found.unfinished == ["nowhere", "nan"]


@pytest.mark.slow
def test_a_failed_point_is_tried_again(llama: dict[str, Path], tasks: Path, tmp_path: Path) -> None:
    later = tmp_path / "later"
    data = a_sweep(llama, tasks) | {"parents": False, "recipes": {"later": linear({**llama, "basque": later})}}
    assert len(run(data, tmp_path / "run")) == 1
    shutil.copytree(llama["basque"], later)
    assert run(data, tmp_path / "run") == {}
    assert read_sweep_run(tmp_path / "run")["later"].results


@pytest.mark.slow
def test_a_parent_with_its_own_template_shares_the_engine(llama: dict[str, Path], tasks: Path, tmp_path: Path) -> None:
    """A base model has no chat template: it is prompted without, in the same engine."""
    plain = tmp_path / "plain"
    shutil.copytree(llama["base"], plain)
    (plain / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((plain / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (plain / "tokenizer_config.json").write_text(json.dumps(config))
    data = a_sweep(llama, tasks) | {"baselines": {"plain": str(plain)}, "parents": False}
    assert run(data, tmp_path / "run") == {}
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert {point["name"]: point["chat"] for point in plan["points"]} == {
        "weight=0.5": [True, True], "weight=1.0": [True, True], "plain": [False, False]}  # fmt: skip
    expected = theirs_plain(plain, tasks)
    assert read_sweep_run(tmp_path / "run")["plain"].results[0]["results"] == expected["results"]


@pytest.mark.slow
def test_a_run_has_its_own_word_on_the_template(llama: dict[str, Path], tasks: Path, tmp_path: Path) -> None:
    """Choices without it, texts with it, in one sweep: each as lm_eval has it when it is told so."""
    data = a_sweep(llama, tasks) | {"parents": False, "axes": {"weight": [1.0]}}
    del data["tasks"]
    data["runs"] = [{"tasks": "local_choice", "apply_chat_template": False}, {"tasks": "local_words"}]
    assert run(data, tmp_path / "run") == {}
    point = read_sweep_run(tmp_path / "run").points[0]
    assert [bool(one["chat_template_sha"]) for one in point.results] == [False, True]


def theirs_plain(checkpoint: Path, tasks: Path) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    return simple_evaluate(
        model="hf", model_args={"pretrained": str(checkpoint), "dtype": "float32"}, device="cpu", batch_size=4,
        tasks=["local_choice", "local_words"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
    )  # fmt: skip
