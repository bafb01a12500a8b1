"""`iberian recipe ...` as a user sees it: exit codes, one message and no traceback, and what is printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lm_eval_iberian.commands import main as cli
from lm_eval_iberian.toy.tiny import build_family


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    build_family(folder)
    return folder


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of one command, in this process."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


SURPRISING = """\
merge_method: linear
models:
  - model: base
    parameters: {weight: 1.0}
  - model: basque
    parameters: {weight: [{filter: q_projj, value: 0.1}, {value: 0.5}]}
"""


def test_check_prints_warnings_with_lines(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = models / "surprising.yml"
    file.write_text(SURPRISING)
    code, out, _ = run(["recipe", "check", str(file)], capsys)
    assert code == 0
    assert f"warning: {file}, line 6: `filter: q_projj` is in the name of no tensor" in out
    assert "The recipe is fine" in out


def test_check_fails_on_keys_that_mergekit_ignores(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = models / "ignored.yml"
    file.write_text(SURPRISING + "density: 0.5\nweight: 1\n")
    code, _, err = run(["recipe", "check", str(file)], capsys)
    assert code == 1
    assert "line 7" in err and "line 8" in err
    assert "Traceback" not in err


def test_check_of_the_text_alone_needs_no_models(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["recipe", "check", "--text-only", SURPRISING.replace("base", "owner/nowhere")], capsys)
    assert (code, "were not looked at" in out) == (0, True)


@pytest.mark.slow
def test_show_prints_the_resolved_plan(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = (
        f"method=ties,base={models}/base,models={models}/instruct:1.0;{models}/basque:0.5,density=0.4,normalize=false"
    )
    code, out, _ = run(["recipe", "show", line], capsys)
    assert code == 0
    assert f"{models}/basque: density 0.4, weight 0.5" in out
    assert f"{models}/base: base model" in out
    for words in (
        "memory ",
        "time ",
        "normalize     false",
        "LlamaForCausalLM",
        "477,760 parameters",
        "GB are free",
    ):
        assert words in out


def test_show_of_gradients_prints_their_range(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = (
        f"merge_method: slerp\nbase_model: {models}/base\nparameters: {{t: [0, 0.8]}}\n"
        f"models: [{{model: {models}/base}}, {{model: {models}/basque}}]\n"
    )
    code, out, _ = run(["recipe", "show", recipe], capsys)
    assert code == 0 and "t             0 to 0.8" in out


def test_show_of_a_preset(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"preset:merge_and_conquer/linear,instruct={models}/instruct,language={models}/basque,weight=0.5"
    code, out, _ = run(["recipe", "show", line], capsys)
    assert code == 0 and f"{models}/basque: weight 0.5" in out and "dtype       bfloat16" in out


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("nowhere.yml", "no such recipe"),
        ("method=linear,models=/nowhere/a:1.0;/nowhere/b:1.0", "no such folder"),
        ("", "recipe= is empty"),
        ("merge_method: liner", "Did you mean `linear`?"),
    ],
)
def test_errors_are_one_message(argument: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(["recipe", "show", argument], capsys)
    assert code == 1 and words in err and "Traceback" not in err


def test_export_and_its_refusal(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"method=linear,models={models}/base:0.5;{models}/basque:0.5"
    code, out, _ = run(["recipe", "export", line, str(tmp_path / "out")], capsys)
    assert code == 0 and "model.safetensors" in out and (tmp_path / "out" / "config.json").is_file()
    code, _, err = run(["recipe", "export", line, str(tmp_path / "out")], capsys)
    assert code == 1 and "there is something already" in err


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from lm_eval_iberian import cli\n"
        "for arguments in (['--help'], ['recipe', '--help'], ['recipe', 'show', '--help']):\n"
        "    try: cli.main(arguments)\n"
        "    except SystemExit as stopped: assert not stopped.code\n"
        "print([name for name in ('torch', 'transformers', 'mergekit', 'vllm', 'lm_eval') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Print what would be merged" in done.stdout


def test_the_models_take_the_short_form(models: Path) -> None:
    from lm_eval_iberian.models import Merged
    from merge_hooks.errors import EngineError, RecipeError

    both = {"models": f"{models}/instruct:1.0;{models}/basque:0.5", "normalize": False, "method": "linear"}
    model = Merged(backend="hf", device="cpu", batch_size=3, max_length=128, **both)
    assert (model.batch_size, model.max_length) == (3, 128)  # the engine's arguments reach the engine
    pairs = dict(model.signature.pairs)
    assert pairs["method"] == "linear"
    preset = Merged(
        backend="hf", device="cpu", recipe="preset:merge_and_conquer/linear",
        instruct=f"{models}/instruct", language=f"{models}/basque", weight=0.5,
    )  # fmt: skip
    assert dict(preset.signature.pairs)["recipe"] != pairs["recipe"]
    assert str(preset.model.dtype) == "torch.bfloat16"
    with pytest.raises(EngineError, match=r"densty.*Did you mean density"):
        Merged(backend="hf", device="cpu", densty=0.5, **both)
    with pytest.raises(RecipeError, match="not both"):
        Merged(backend="hf", device="cpu", recipe="x.yml", **both)
