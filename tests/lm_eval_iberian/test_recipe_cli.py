"""`iberian recipe ...` as a user sees it: exit codes, one message and no traceback, and what is printed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from lm_eval_iberian.commands import main as cli
from lm_eval_iberian.toy.tiny import build_family
from tests.lm_eval_iberian.results_maker import results


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
    assert "No error, and 1 warning to read. Its models fit together." in out


def test_check_fails_on_keys_that_mergekit_ignores(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = models / "ignored.yml"
    file.write_text(SURPRISING + "density: 0.5\nweight: 1\n")
    code, _, err = run(["recipe", "check", str(file)], capsys)
    assert code == 1
    assert "line 7" in err and "line 8" in err
    assert "Traceback" not in err


def test_an_error_says_what_is_wrong_and_not_the_name_of_a_class(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipe", "check", "nowhere.yml"], capsys)[2].startswith("Error: nowhere.yml: no such recipe")


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


def test_show_as_json_says_the_same(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = (
        f"merge_method: slerp\nbase_model: {models}/base\nparameters: {{t: [0, 0.8]}}\ndtype: float32\n"
        f"models: [{{model: {models}/base}}, {{model: {models}/basque}}]\n"
    )
    code, out, _ = run(["recipe", "show", recipe, "--json"], capsys)
    data = json.loads(out)
    assert (code, data["method"], data["dtype"], data["layers"]) == (0, "slerp", "float32", 4)
    assert data["parameters"]["t"][0] == 0 and data["parameters"]["t"][-1] == 0.8 and len(data["parameters"]["t"]) > 2
    assert [(Path(one["name"]).name, one["is_base"]) for one in data["sources"]] == [("base", True), ("basque", False)]
    stored = sum(file.stat().st_size for name in ("base", "basque") for file in (models / name).glob("*.safetensors"))
    assert data["needs"]["read"] == pytest.approx(stored, rel=0.02), "in bytes; headers are not read"
    assert data["needs"]["model"] == 4 * data["needs"]["parameters"] > data["needs"]["working"] > 0
    assert data["warnings"] == [] and data["fit"][0]["model"].endswith("base")


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


def results_of(recipe: str, folder: Path, score: float = 0.5, limit: int | None = None, name: str = "a") -> None:
    """A results file of this merge, as lm_eval writes it."""
    from merge_hooks.recipe.short_form import find
    from merge_hooks.recipe.signature import recipe_digest
    from merge_hooks.resolve.resolver import resolve

    resolved = resolve(find(recipe))
    data = results({"iberian_eus_trivia": {"acc": score}}, 10, date=1.0)
    data["config"]["iberian"] = {"signature": f"method:linear|recipe:{recipe_digest(resolved)}|seed:{resolved.draws}"}
    data["config"]["model_args"] = {"max_length": limit}
    folder.mkdir(exist_ok=True)
    (folder / f"results_{name}.json").write_text(json.dumps(data))


def test_export_takes_results_as_report_does(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder: those of this merge go onto the card, with their identity; others are left; two ways are refused."""
    line = f"method=linear,models={models}/base:0.5;{models}/basque:0.5"
    other = f"method=linear,models={models}/base:0.5;{models}/basque:0.9"
    out = tmp_path / "results"
    results_of(other, out, 0.9, name="other")
    code, _, err = run(["recipe", "export", line, str(tmp_path / "merge"), "--results", str(out)], capsys)
    assert (
        code == 1 and "1 results files, and none of them is of this merge" in err and not (tmp_path / "merge").exists()
    )
    results_of(line, out)
    code, _, err = run(["recipe", "export", line, str(tmp_path / "merge"), "--results", str(out)], capsys)
    assert code == 0, err
    card = ModelCard.load(tmp_path / "merge" / "README.md")
    (entry,) = card.data.eval_results
    assert entry.metric_value == 0.5 and len(entry.metric_args["identity"]) == 32
    assert card.data.base_model is None, "local paths are no models of the Hub"
    results_of(line, out, 0.4, limit=64, name="short")
    code, _, err = run(["recipe", "export", line, str(tmp_path / "again"), "--results", str(out)], capsys)
    assert code == 1 and "iberian_eus_trivia was measured in different ways (max_length 64)" in err


def test_nothing_is_uploaded_unless_somebody_says_yes(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from merge_hooks.tools import push

    sent: list[tuple[str, bool]] = []
    monkeypatch.setattr(push, "push", lambda folder, name, private: sent.append((name, private)) or "the address")
    line = f"method=linear,models={models}/base:0.5;{models}/basque:0.5"
    for number, (said, more) in enumerate((("n\n", []), ("\n", []), ("y\n", ["--private"]), ("", ["--yes"]))):
        monkeypatch.setattr(sys, "stdin", io.StringIO(said))
        code, _, err = run(["recipe", "export", line, str(tmp_path / str(number)), "--push", "me/it", *more], capsys)
        assert code == 0, err
    assert sent == [("me/it", True), ("me/it", False)]
    code, _, err = run(["recipe", "export", line, str(tmp_path / "x"), "--push", "it"], capsys)
    assert code == 1 and "OWNER/NAME" in err and not (tmp_path / "x").exists()
