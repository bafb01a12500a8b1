"""`iberian init`: what it writes is checked by the commands that read it; nothing is written over; costs in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner, Result
from safetensors import safe_open

from lm_eval_iberian.commands.main import cli
from lm_eval_iberian.sweep import start

TASK = "iberian_eus_trivia"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="iberian")


@pytest.fixture
def models(llama: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.setenv("IBERIAN_DATA", "samples")
    monkeypatch.chdir(tmp_path)
    return llama


@pytest.mark.slow
@pytest.mark.parametrize("with_base", [False, True])
def test_its_files_are_read_by_recipe_check_and_by_sweep(models: dict[str, Path], with_base: bool) -> None:
    more = ["--base", models["base"]] if with_base else []
    told = run("init", "--instruct", models["instruct"], "--language", models["basque"], "--tasks", TASK, *more)
    assert told.exit_code == 0, told.output
    points = 3 + 2 + with_base  # weights, both models, and the base
    for words in (
        "Written: merge.yml",
        "Written: sweep.yml",
        "Memory: ",
        "Disk: nothing",
        "Time: about",
        f"Left: {points} eval",
    ):
        assert words in told.output
    recipe, sweep = (yaml.safe_load(Path(name).read_text()) for name in ("merge.yml", "sweep.yml"))
    assert recipe["merge_method"] == ("task_arithmetic" if with_base else "linear")
    assert [model["model"] for model in recipe["models"]] == [str(models["instruct"]), str(models["basque"])]
    assert recipe.get("base_model") == (str(models["base"]) if with_base else None)
    assert sweep["tasks"] == [TASK] and sweep["model_args"]["max_model_len"] == 4096
    checked = run("recipe", "check", "merge.yml")
    assert (checked.exit_code, "warning" in checked.output) == (0, False), checked.output
    planned = run("sweep", "sweep.yml", "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "weight=0.5" in planned.output and f"{points} points" in planned.output
    data = json.loads(run("sweep", "sweep.yml", "--dry-run", "--json").stdout)
    assert [one["role"] for one in data["points"]].count("merge") == 3 and len(data["points"]) == points
    assert {(one["done"], one["of"], one["problem"]) for one in data["points"]} == {(0, 1, "")}
    (asked,) = data["evaluations"]
    assert asked["tasks"] == [TASK] and asked["requests"] > asked["documents"] > 0
    needs = data["needs"]
    assert (needs["evaluations"], needs["requests"]) == (points, points * asked["requests"])
    assert f"{points * asked['requests']:,} requests, {needs['engines']} engine start" in planned.output
    # The largest tensor, of each source and merged; the model as large as the instruct model is.
    with safe_open(models["instruct"] / "model.safetensors", "np") as opened:
        sizes = [opened.get_tensor(name).nbytes for name in opened.keys()]  # noqa: SIM118
    sources = 2 + with_base
    assert (needs["model"], needs["working"]) == (sum(sizes), (sources + 1) * max(sizes))
    assert needs["read"] == sources * needs["model"] and needs["seconds"] > 0


def test_nothing_is_written_over(models: dict[str, Path]) -> None:
    Path("sweep.yml").write_text("mine")
    told = run("init", "--instruct", models["instruct"], "--language", models["basque"])
    assert told.exit_code == 1 and "sweep.yml is there already" in str(told.exception)
    assert Path("sweep.yml").read_text() == "mine" and not Path("merge.yml").exists()


def test_models_that_do_not_merge_are_refused_before_anything_is_written(models: dict[str, Path]) -> None:
    shutil.copytree(models["basque"], "other")
    config = json.loads(Path("other/config.json").read_text())
    Path("other/config.json").write_text(json.dumps(config | {"hidden_size": 128}))
    told = run("init", "--instruct", models["instruct"], "--language", "other")
    assert told.exit_code == 1 and "hidden_size" in str(told.exception) and "128" in str(told.exception)
    assert not Path("merge.yml").exists()


def test_an_instruct_model_without_a_template_is_pointed_out(models: dict[str, Path]) -> None:
    shutil.copytree(models["instruct"], "plain")
    for file in (Path("plain/chat_template.jinja"), Path("plain/tokenizer_config.json")):
        file.unlink(missing_ok=True)
    found = start.look("plain", str(models["basque"]))
    assert any("plain has no chat template" in warning for warning in found.warnings)
    assert not start.look(str(models["instruct"]), str(models["basque"])).warnings


def test_without_a_terminal_nothing_is_asked(models: dict[str, Path]) -> None:
    told = run("init", "--instruct", models["instruct"])
    assert told.exit_code == 2 and "Missing option '--language'" in told.output


def test_on_a_terminal_it_asks(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval_iberian.commands import init

    monkeypatch.setattr(init, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    asked: list[tuple[object, ...]] = []

    def look(*given: object) -> None:
        asked.append(given)
        raise SystemExit(0)

    monkeypatch.setattr(start, "look", look)
    CliRunner().invoke(cli, ["init"], prog_name="iberian", input=f"A\nB\n\n{TASK}, ifeval_eu\n")
    assert asked == [("A", "B", None, (TASK, "ifeval_eu"))]


def test_models_of_the_hub_are_looked_at_without_their_weights(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their small files are fetched, and the size of the weights is asked."""

    asked = SimpleNamespace(parameter_count={"BF16": 8_000_000_000})

    def small_files(name: str, allow_patterns: list[str]) -> str:
        assert not any("safetensors" in pattern for pattern in allow_patterns)
        folder = tmp_path / name.replace("/", "--")
        shutil.copytree(models["instruct"], folder, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", small_files)
    monkeypatch.setattr("huggingface_hub.get_safetensors_metadata", lambda name: asked)
    told = run("init", "--instruct", "owner/instruct", "--language", "owner/basque", "--tasks", TASK)
    assert told.exit_code == 0, told.output
    assert "Memory: 16.0 GB" in told.output and "a card of 24 GB" in told.output
    assert "Disk: 32.0 GB to be fetched (owner/instruct, owner/basque)" in told.output
    assert yaml.safe_load(Path("merge.yml").read_text())["models"][1]["model"] == "owner/basque"
