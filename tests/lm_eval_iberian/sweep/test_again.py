"""The command that `iberian best` prints gives the number under which it stands: run by a shell and by lm_eval's own
command line, for odd points on tiny models, and compared answer by answer."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.tasks import TaskManager

from lm_eval_iberian.commands.best import best_text
from lm_eval_iberian.compare import again
from lm_eval_iberian.compare.best import find_best
from lm_eval_iberian.documents import manifests
from lm_eval_iberian.folders import tasks_folder
from lm_eval_iberian.runs.point import SweepPoint
from lm_eval_iberian.runs.run import SweepRun, read_sweep_run
from lm_eval_iberian.scores.tables import report_files
from lm_eval_iberian.sweep.worker import answer_of
from tests import forks
from tests.lm_eval_iberian.sweep import runner
from tests.lm_eval_iberian.sweep.local_tasks import write_tasks
from tests.lm_eval_iberian.sweep.runner import run

Odd = dict[str, Any]
WORDS = {"do_sample": True, "temperature": 1.5, "until": ["a,b", "'x' = \"y\""]}


def odd(llama: dict[str, Path], tasks: Path) -> Odd:
    """A sweep in which everything is said that a command line can get wrong."""
    models = [
        {"model": str(llama[name]), "parameters": {"weight": 1.0, "density": 0.5}} for name in ("basque", "instruct")
    ]
    return {
        "include_path": str(tasks),
        "model_args": {"backend": "hf", "device": "cpu", "batch_size": 4, "max_length": 700, "add_bos_token": False},
        "parents": False,
        "recipe": {"merge_method": "dare_linear", "base_model": str(llama["base"]), "models": models, "dtype": "float32"},
        "axes": {"seed": [3]},
        "merge_seed": "$seed",
        "runs": [
            {"tasks": "local_choice", "apply_chat_template": False, "num_fewshot": 3, "limit": 20},
            {"tasks": ["local_choice"], "fewshot_as_multiturn": False, "num_fewshot": 2},
            {"tasks": "local_words", "seeds": [1, 2], "num_fewshot": 2, "gen_kwargs": WORDS, "system_instruction": '-Ez, "$HOME" `ls`!'},
            {"tasks": "iberian_eus_trivia"},
        ],
    }  # fmt: skip


def our_tasks(include_path: str | None = None, metadata: Any = None) -> TaskManager:
    """Without the thousands of YAML files of lm_eval's own tasks, which take seconds to read."""
    paths = [str(tasks_folder()), *([include_path] if include_path else [])]
    return TaskManager(include_path=paths, include_defaults=False, metadata=metadata)


@pytest.fixture(scope="module")
def measured(llama: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> SweepRun:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IBERIAN_DATA", "samples")
        patch.setattr(runner, "ONLY_OURS", our_tasks)
        tasks = write_tasks(tmp_path_factory.mktemp("it's my tasks"), 30)
        folder = tmp_path_factory.mktemp("runs") / "odd"
        assert run(odd(llama, tasks), folder) == {}
    return read_sweep_run(folder)


def argv(line: str) -> tuple[list[str], dict[str, str]]:
    """What a shell makes of a line: lm_eval's arguments, and the environment that was given to it."""
    stub = f"""#!{sys.executable}
import json, os, sys
print(json.dumps([sys.argv[1:], {{k: v for k, v in os.environ.items() if k.startswith("IBERIAN_")}}, os.getcwd()]))
"""
    folder = Path.cwd() / "stub"
    folder.mkdir(exist_ok=True)
    (folder / "lm_eval").write_text(stub)
    (folder / "lm_eval").chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("IBERIAN_")}
    environment["PATH"] = f"{folder}:{environment['PATH']}"
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=True)
    words, given, _ = json.loads(done.stdout)
    return words, given


def by_lm_eval(line: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, Any]]:
    """(results, samples) of a line, run by lm_eval's own command line in this process."""
    import lm_eval
    import lm_eval.tasks
    from lm_eval._cli.harness import HarnessCLI

    words, environment = argv(line)
    monkeypatch.delenv("IBERIAN_DATA", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    kept: dict[str, Any] = {}
    evaluate = lm_eval.simple_evaluate

    def keep(**options: Any) -> Any:
        found = evaluate(**options | {"log_samples": True, "bootstrap_iters": 100})
        kept.update(found)
        return {key: value for key, value in found.items() if key != "samples"}

    monkeypatch.setattr(lm_eval, "simple_evaluate", keep)
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", our_tasks)
    monkeypatch.setattr(sys, "argv", ["lm_eval", *words])
    cli = HarnessCLI()
    cli.execute(cli.parse_args())
    return kept, kept["samples"]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(5))
def test_each_command_gives_the_number_under_which_it_stands(
    measured: SweepRun, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    everything = [(point, place) for point in measured.points for place in range(len(point.results))]
    assert len(everything) == 5
    point, place = everything[number]
    Path("best.yml").write_text(point.recipe)
    lines = again.commands(point, Path("best.yml"), Path("out"))
    assert len(lines) == len(point.results)
    found, samples = by_lm_eval(lines[place], monkeypatch)
    expected, store = point.results[place], point.finished[place].store
    assert store is not None
    said = {(task, one["doc_id"]): answer_of(one) for task, rows in samples.items() for one in rows}
    kept = {(task, document): answer for task, document, _, answer in store.documents(point.finished[place].key)}
    assert said == kept and len(said) >= 12
    for task, scores in expected["results"].items():
        numbers = {key: value for key, value in scores.items() if not key.startswith(("chrf_stderr", "bleu_stderr"))}
        assert {key: found["results"][task][key] for key in numbers} == numbers
    assert list(tmp_path.glob("out/*/results_*.json"))


@pytest.mark.slow
def test_a_report_of_real_files_tells_two_settings_apart(
    measured: SweepRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm_eval's own files of one merge: another batch size is another run of the row, another max_length a row."""
    monkeypatch.chdir(tmp_path)
    point = next(one for one in measured.points if any(run.prompt.word == "plain" for run in one.runs))
    Path("best.yml").write_text(point.recipe)
    line = next(one for one in again.commands(point, Path("best.yml"), Path("out")) if "--limit 20" in one)
    for changed in (
        line,
        line.replace("--batch_size 4", "--batch_size 2"),
        line.replace("max_length=700", "max_length=650"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            by_lm_eval(changed, patch)
    rows = {model.label: len(model.runs) for model in report_files(["out"]).models}
    assert rows == {"best (max_length 700)": 2, "best (max_length 650)": 1}


@pytest.mark.slow
def test_every_evaluation_says_how_it_was_prompted(measured: SweepRun) -> None:
    words = {one.name: run.prompt.word for point in measured.points for one, run in zip(point.finished, point.runs, strict=True)
             if one.name != "local_choice"}  # fmt: skip
    assert words == {
        "local_words, seed 1": "multiturn+sys", "local_words, seed 2": "multiturn+sys", "iberian_eus_trivia": "multiturn",
    }  # fmt: skip
    assert {run.prompt.word for point in measured.points for run in point.runs if "local_choice" in run.tasks} == {
        "plain", "chat"}  # fmt: skip


@pytest.mark.slow
def test_the_odd_points_are_odd(measured: SweepRun) -> None:
    """Where two settings give the same answers, a command that mixes them up would pass."""
    answers = {(one.name, point.name): [answer for _, number, _, answer in one.store.documents(one.key) if number < 20]
               for point in measured.points for one in point.finished if one.store is not None}  # fmt: skip
    first, second = (said for (name, _), said in answers.items() if name == "local_choice")
    assert first != second and len(first) == len(second) == 20
    one, other = (said for (name, _), said in answers.items() if name.startswith("local_words, seed"))
    assert one != other


@pytest.mark.slow
def test_a_shell_runs_it_as_printed(llama: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths in the recipe, and the very lines that `iberian best` prints, in another folder."""
    (tmp_path / "sweeps").mkdir()
    monkeypatch.chdir(tmp_path / "sweeps")
    for name in ("basque", "instruct"):
        Path(name).symlink_to(llama[name])
    data = odd(llama, write_tasks(tmp_path / "tasks", 24)) | {
        "recipe": {"merge_method": "linear", "models": [{"model": "basque", "parameters": {"weight": "$seed"}}, {"model": "instruct", "parameters": {"weight": 1.0}}], "dtype": "float32"},
        "runs": [{"tasks": "local_choice", "num_fewshot": 1}],
    }  # fmt: skip
    folder = tmp_path / "run"
    assert run(data, folder, here=tmp_path / "sweeps") == {}
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    found = find_best(read_sweep_run(folder), ["local_choice"])
    text = best_text(found, save=Path("best.yml"))
    Path("best.yml").write_text(found.best.point.recipe)
    lines = [line.strip() for line in text.split("again:\n")[1].split("\nor have it")[0].splitlines() if line.strip()]
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    with forks.programs(tmp_path / "bin", lm_eval=["-m", "lm_eval"], iberian=["-m", "lm_eval_iberian.commands.main"]):
        done = [subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)
                for line in lines]  # fmt: skip
    assert [one.returncode for one in done] == [0, 0], done[0].stderr[-2000:] + done[1].stderr
    assert f"local_choice: acc {found.best.mean / 100:.4g}" in done[1].stdout


TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=8)
VALUES = (
    st.none() | st.booleans() | st.integers(-5, 99) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
    | st.sampled_from(["True", "none", "1", "1.5", "0x10", "1e3", "[1]", "a,b", "a=b", "'q'", '"', "/a/b", "owner/name"])
    | st.lists(TEXTS | st.integers(0, 3), max_size=3)
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["max_length", "until", "tokenizer", "think"]), VALUES, min_size=1))
def test_lm_eval_reads_back_what_was_written(values: dict[str, Any]) -> None:
    from lm_eval._cli.utils import MergeDictAction

    parser = argparse.ArgumentParser()
    parser.add_argument("--model_args", nargs="+", action=MergeDictAction)
    read = parser.parse_args(["--model_args", again.written(values)]).model_args
    assert read == values
    assert {key: type(value) for key, value in read.items()} == {key: type(value) for key, value in values.items()}


def _point(results: list[dict[str, Any]], **more: Any) -> SweepPoint:
    point = SweepPoint("point", "merge", {}, (), "", "merge_method: linear", "", **more)
    point.__dict__["results"] = results
    return point


def _result(metadata: dict[str, Any], task: str = "iberian_eus_trivia") -> dict[str, Any]:
    return {
        "config": {"model_args": {"dtype": "float32"}, "iberian": {"backend": "vllm"}},
        "configs": {task: {"metadata": metadata}},
        "results": {task: {}},
        "sweep": {"evaluation": {"tasks": [task], "settings": {}, "seed": None}},
    }


@pytest.mark.parametrize(
    ("task", "metadata", "expected"),
    [
        ("iberian_eus_trivia", {"documents": "samples"}, {"IBERIAN_DATA": "samples"}),
        ("iberian_eus_trivia", {"documents": "/a b/mirror@0123"}, {"IBERIAN_DATA": "/a b/mirror"}),
        ("iberian_eus_trivia", {"documents": "Hub@0123"}, {}),
        ("iberian_eus_trivia", {"documents": "Hub@0123", "differences": ["3 rows"]}, {"IBERIAN_ROWS": "any"}),
        ("iberian_eus_trivia", {"documents": "Hub@0123", "documents_revision": "HiTZ/EusTrivia@0123 and a/b@45"},
         {"IBERIAN_REVISIONS": "HiTZ/EusTrivia=0123,a/b=45"}),
        ("ifeval_eu", {"documents": "own prompts, 60 prompts"}, {}),
        ("ifeval_ast", {"documents": "/x/ast.jsonl, 5 prompts"}, {"IBERIAN_IFEVAL_AST": "/x/ast.jsonl"}),
        ("ifeval_eu", {"documents": "/x/eu.jsonl, 5 prompts"}, {"IBERIAN_IFEVAL_EU": "/x/eu.jsonl"}),
        ("ifeval_es_multi", {"documents": "BSC-LT/IFEval_es, test, Hub@01"}, {"IBERIAN_IFEVAL_ES": "BSC-LT/IFEval_es"}),
        ("ifeval_eu", {"settings": {"IBERIAN_IFEVAL_RESPONSE_LANGUAGE": "1"}}, {"IBERIAN_IFEVAL_RESPONSE_LANGUAGE": "1"}),
    ],
)  # fmt: skip
def test_the_documents_are_named(
    task: str, metadata: dict[str, Any], expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (line,) = again.commands(_point([_result(metadata, task)]), Path("best.yml"), Path("out"))
    assert argv(line)[1] == expected


@pytest.mark.parametrize(
    ("here", "beside", "start"),
    [("models", None, None), ("elsewhere", "sweeps", "sweeps"), ("elsewhere", None, "models"), ("other", "sweeps", "sweeps"),
     ("other", None, "models"), ("models", "sweeps", None)],
)  # fmt: skip
def test_it_starts_where_the_relative_paths_are_what_was_measured(
    here: str, beside: str | None, start: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another model may lie at the same path from here. Names of the Hub are no paths."""
    (tmp_path / "models" / "a" / "basque").mkdir(parents=True)
    (tmp_path / "other" / "a" / "basque").mkdir(parents=True)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "a").symlink_to(tmp_path / "models" / "a")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / here)
    result = _result({})
    result["config"]["iberian"]["sources"] = [
        {"name": "a/basque", "folder": str(tmp_path / "models" / "a" / "basque"), "revision": None},
        {"name": "org/model", "folder": "/hub/snapshots/0123", "revision": "0123"},
    ]
    folder = None if beside is None else str(tmp_path / beside)
    (line,) = again.commands(_point([result], folder=folder), Path("best.yml"), Path("out"))
    assert line.partition(" && ")[0] == f"cd {tmp_path / start}" if start else "cd " not in line


def test_the_folder_of_tasks_of_ones_own_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("IBERIAN_TASKS", f"{tmp_path / 'mine'}:{tmp_path / 'other'}")
    metadata = {"config_source": str(tmp_path / "mine" / "eus_demo" / "iberian_eus_demo.yaml")}
    (line,) = again.commands(_point([_result(metadata, "iberian_eus_demo")]), Path("best.yml"), Path("out"))
    assert argv(line)[1] == {"IBERIAN_TASKS": str(tmp_path / "mine")}


def test_options_that_lm_eval_has_itself_are_no_model_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given twice, lm_eval breaks off with a TypeError. vLLM has no batches of its own."""
    monkeypatch.chdir(tmp_path)
    result = _result({})
    (line,) = again.commands(_point([result]), Path("best.yml"), Path("out"))
    assert "--batch_size" not in line
    result["config"]["iberian"]["backend"] = "hf"
    (line,) = again.commands(_point([result]), Path("best.yml"), Path("out"))
    assert "--batch_size 8 " in line  # the worker's own, not lm_eval's 1
    result["config"]["model_args"] |= {"batch_size": "auto", "device": "cuda:1", "max_batch_size": None}
    (line,) = again.commands(_point([result]), Path("best.yml"), Path("out"))
    assert "--batch_size auto --device cuda:1 --tasks" in line and "max_batch_size" not in line


def test_a_pinned_revision_needs_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(manifests, "manifests", lambda: {"HiTZ/EusTrivia": SimpleNamespace(revision="0123")})
    for commit, said in (("0123", {}), ("4567", {"IBERIAN_REVISIONS": "HiTZ/EusTrivia=4567"})):
        result = _result({"documents": "Hub", "documents_revision": f"HiTZ/EusTrivia@{commit}"})
        (line,) = again.commands(_point([result]), Path("best.yml"), Path("out"))
        assert argv(line)[1] == said


def test_a_command_says_all_that_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = _result({})
    settings = {"num_fewshot": 0, "limit": 0.5, "system_instruction": "-s"}
    result["sweep"]["evaluation"] = {"tasks": ["a", "b"], "settings": settings, "seed": 2}
    result["config"] |= {"gen_kwargs": {"seed": 2, "top_p": 0.5}, "fewshot_seed": 77}
    result |= {"chat_template_sha": "ab", "fewshot_as_multiturn": False}
    start = ["--model", "merged", "--model_args"]
    rest = [
        "--tasks", "a,b", "--num_fewshot", "0", "--limit", "0.5", "--gen_kwargs", "seed=2,top_p=0.5",
        "--seed", "2,1236,1236,77", "--system_instruction=-s", "--apply_chat_template", "--fewshot_as_multiturn",
    ]  # fmt: skip
    out = ["--output_path", "out"]
    (line,) = again.commands(_point([result]), Path("best.yml"), Path("out"))
    assert argv(line)[0] == [*start, "recipe=best.yml,dtype=float32", *rest, "false", *out]
    (line,) = again.commands(
        _point([result | {"fewshot_as_multiturn": True}], merge_seed=3), Path("best.yml"), Path("out")
    )
    assert argv(line)[0] == [*start, "recipe=best.yml,dtype=float32,merge_seed=3,rng=iberian", *rest, *out]
    del result["chat_template_sha"], result["config"]["fewshot_seed"], result["config"]["gen_kwargs"]
    result["sweep"]["evaluation"] = {"tasks": ["a"], "settings": {}, "seed": 0}
    (line,) = again.commands(_point([result], rng="mergekit"), Path("best.yml"), Path("out"))
    given = "recipe=best.yml,dtype=float32,merge_seed=0,rng=mergekit"
    assert argv(line)[0] == [*start, given, "--tasks", "a", "--seed", "0,1234,1234,1234", *out]


@pytest.mark.parametrize("value", [-1, "none", "None", "TRUE", "0x10", "1_0", "a,b", [1], float("inf"), "²"])
def test_what_lm_eval_would_guess_wrongly_is_json(value: Any) -> None:
    assert again.written({"key": value}) == json.dumps({"key": value}, ensure_ascii=False)
    assert (
        again.written({"key": "a/b", "n": 3, "x": 0.5, "b": True, "none": None}) == "key=a/b,n=3,x=0.5,b=True,none=None"
    )
