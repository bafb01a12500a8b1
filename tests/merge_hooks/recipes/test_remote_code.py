"""Code that a model brings: off, none of it runs and nobody is asked; on, it runs wherever the model is opened."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from merge_hooks.engines.hf import build_model
from merge_hooks.errors import PreflightError, SourceError
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.recipe.resolved import Resolved
from merge_hooks.resolve.resolver import from_payload, resolve
from merge_hooks.stream.stream import open_stream
from merge_hooks.stream.tokenizer import choose_tokenizer
from tests.conftest import first_ones

TOKENIZER = """
from pathlib import Path
from transformers import PreTrainedTokenizerFast
Path({mark!r}).touch()
class MarkedTokenizer(PreTrainedTokenizerFast):
    pass
"""
CONFIG = """
from pathlib import Path
from transformers import LlamaConfig
Path({mark!r}).touch()
class MarkedConfig(LlamaConfig):
    model_type = "marked"
"""
MODEL = """
from transformers import LlamaForCausalLM
from .configuration_marked import MarkedConfig
class MarkedForCausalLM(LlamaForCausalLM):
    config_class = MarkedConfig
"""


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the models' code makes when it runs. Whoever asks at a prompt is told yes."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    # transformers keeps what it ran in the user's cache; here in a folder of the test's own.
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*sys.path])
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path / "code-was-run"


@pytest.fixture
def marked(llama: dict[str, str], tmp_path: Path, mark: Path) -> Callable[..., list[str]]:
    """Two models that bring a tokenizer of their own, or a configuration and a model."""

    def make(kind: str) -> list[str]:
        folders = [Path(shutil.copytree(llama[name], tmp_path / f"{kind}-{name}")) for name in ("base", "basque")]
        for folder in folders:
            if kind == "tokenizer":
                (folder / "tokenization_marked.py").write_text(TOKENIZER.format(mark=str(mark)))
                change(folder / "tokenizer_config.json", tokenizer_class="MarkedTokenizer",
                       auto_map={"AutoTokenizer": [None, "tokenization_marked.MarkedTokenizer"]})  # fmt: skip
            else:
                (folder / "configuration_marked.py").write_text(CONFIG.format(mark=str(mark)))
                (folder / "modeling_marked.py").write_text(MODEL)
                change(folder / "config.json", model_type="marked",
                       auto_map={"AutoConfig": "configuration_marked.MarkedConfig",
                                 "AutoModelForCausalLM": "modeling_marked.MarkedForCausalLM"})  # fmt: skip
        return [str(folder) for folder in folders]

    return make


def change(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def plain(models: list[str], **more: Any) -> Any:
    listed = [{"model": model, "parameters": {"weight": 0.5}} for model in models]
    return {"merge_method": "linear", "models": listed, "dtype": "float32", **more}


def built(models: list[str]) -> Any:
    return plain(models, tokenizer_source="union")


def staged(models: list[str]) -> Any:
    """The tokenizer and configuration come out of a stage."""
    return yaml.safe_dump({"name": "stage", **plain(models)}) + "---\n" + yaml.safe_dump(plain(["stage", models[0]]))


def staged_and_built(models: list[str]) -> Any:
    stage = yaml.safe_dump({"name": "stage", **built(models)})
    return stage + "---\n" + yaml.safe_dump(plain(["stage", models[1]], tokenizer_source="base", base_model="stage"))


def found(data: Any, trusted: bool) -> Resolved:
    return resolve(read_recipe(data), trust_remote_code=trusted)


RECIPES = [plain, built, staged, staged_and_built]


@pytest.mark.parametrize("recipe", first_ones(RECIPES, 3))
def test_a_tokenizers_code_is_run_where_it_is_trusted_only(recipe: Any, marked: Any, mark: Path) -> None:
    """Also in another process, which has the payload alone."""
    data = recipe(marked("tokenizer"))
    with pytest.raises((SourceError, PreflightError), match=r"code"):
        choose_tokenizer(open_stream(found(data, False))).load()
    assert not mark.exists()
    trusted = found(data, True)  # its stages' folders lie as long as it does
    for resolved in (trusted, from_payload(trusted.payload())):
        tokenizer = choose_tokenizer(open_stream(resolved)).load()
        assert type(tokenizer).__name__ == "MarkedTokenizer" and tokenizer("Kaixo")["input_ids"]
    assert mark.exists()


@pytest.mark.parametrize("recipe", [plain, staged])
def test_a_models_code_too(recipe: Any, marked: Any, mark: Path) -> None:
    data = recipe(marked("model"))
    with pytest.raises((SourceError, PreflightError), match=r"code"):
        build_model(open_stream(found(data, False)))
    assert not mark.exists()
    resolved = found(data, True)
    for item in (resolved, from_payload(resolved.payload())):
        assert type(build_model(open_stream(item))).__name__ == "MarkedForCausalLM"


def test_a_worker_is_not_trusted_with_more(marked: Any, mark: Path) -> None:
    resolved = found(plain(marked("model")), False)
    with pytest.raises(PreflightError, match=r"code"):
        open_stream(from_payload(resolved.payload()))
    assert not mark.exists()


def test_a_running_engine_keeps_its_word(llama: dict[str, str], marked: Any, mark: Path) -> None:
    """A merge that is swapped in may not bring code into an engine that was started without."""
    from lm_eval_iberian.models.merge import prepare, prepare_swap

    running = prepare(plain([llama["base"], llama["basque"]]), None)
    with pytest.raises((SourceError, PreflightError), match=r"code"):
        prepare_swap(running, found(plain(marked("tokenizer")), True), running.tokenizer.load())
    assert not mark.exists()
