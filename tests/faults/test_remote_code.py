"""Code in a model's folder is not run unless trust_remote_code is true, and nobody is asked, whatever the folder says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lm_eval_iberian.models.merge import prepare
from merge_hooks.errors import EngineError, MergeHooksError
from merge_hooks.sources.trust import never_ask, trusts
from tests.conftest import first_ones

CODE = """
from pathlib import Path
Path({mark!r}).write_text("ran")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Evil(PreTrainedTokenizerFast): pass
class EvilConfig(LlamaConfig): model_type = "evil"
class EvilModel(LlamaForCausalLM): config_class = EvilConfig
def generate(*_, **__): pass
"""
TOKENIZER = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
EVERYTHING = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel", **TOKENIZER}
# name -> (file, what it says beside what it said)
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "a tokenizer of its own": ("tokenizer_config.json", {"auto_map": TOKENIZER, "tokenizer_class": "Evil"}),
    "a configuration of its own": ("config.json", {"model_type": "evil", "auto_map": EVERYTHING}),
    "a tokenizer beside a known class": ("tokenizer_config.json", {"auto_map": TOKENIZER}),
    "an old list": ("tokenizer_config.json", {"auto_map": ["evil.Evil", "evil.Evil"]}),
    "only a fast one": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, "evil.Evil"]}, "tokenizer_class": "Evil"}),
    "code beside a known model": ("config.json", {"auto_map": EVERYTHING}),
    "a class that config.json names": ("config.json", {"tokenizer_class": "Evil", "auto_map": TOKENIZER}),
    "code of another repository": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a/b--evil.Evil"] * 2}, "tokenizer_class": "Evil"}),
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was asked at the terminal; the answer is yes, always."""
    questions: list[str] = []

    def answer(question: str = "") -> str:
        questions.append(question)
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    yield questions


def hostile(family: dict[str, Path], folder: Path, way: str) -> Path:
    """A copy of the instruct model whose folder brings code in this way; the code makes folder/ran."""
    file, said = WAYS[way]
    model = folder / "evil"
    shutil.copytree(family["instruct"], model)
    for name in ("evil.py", "tokenization_evil.py", "modeling_evil.py"):
        (model / name).write_text(CODE.format(mark=str(folder / "ran")))
    (model / "custom_generate").mkdir()
    (model / "custom_generate" / "generate.py").write_text(CODE.format(mark=str(folder / "ran")))
    (model / file).write_text(json.dumps(json.loads((model / file).read_text()) | said))
    return model


@pytest.mark.parametrize("tokenizer_source", [None, "union", "model"])
@pytest.mark.parametrize("way", first_ones(WAYS, 2, pytest.mark.nightly))
@pytest.mark.parametrize("trust", [False, None])
def test_no_code_is_run_and_nobody_is_asked(
    llama: dict[str, Path], tmp_path: Path, asked: list[str], way: str, trust: bool | None, tokenizer_source: str | None
) -> None:
    model = hostile(llama, tmp_path, way)
    recipe: dict[str, Any] = {
        "merge_method": "linear", "dtype": "float32",
        "models": [{"model": str(path), "parameters": {"weight": 1.0}} for path in (model, llama["basque"])],
    }  # fmt: skip
    if tokenizer_source is not None:
        recipe["tokenizer_source"] = str(model) if tokenizer_source == "model" else tokenizer_source
    for one in ({"recipe": recipe, "pretrained": None}, {"recipe": None, "pretrained": str(model)},
                {"recipe": None, "pretrained": str(llama["basque"]), "tokenizer": str(model)}):  # fmt: skip
        try:
            prepare(**one, dtype="float32", trust_remote_code=trust)  # type: ignore[arg-type]
        except MergeHooksError as error:
            assert "code" in str(error) or "a/b" in str(error), error
    assert not asked
    assert not (tmp_path / "ran").exists()


def test_what_forgets_to_say_no_is_refused_and_asks_nobody(
    llama: dict[str, Path], tmp_path: Path, asked: list[str]
) -> None:
    from transformers import AutoTokenizer

    never_ask()
    with pytest.raises(ValueError, match=r"custom code|trust_remote_code"):
        AutoTokenizer.from_pretrained(hostile(llama, tmp_path, "a tokenizer of its own"))
    assert not asked and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("said", ["no", "false", "true", 1, 0, [], "y"])
def test_only_true_and_false_are_answers(said: object) -> None:
    with pytest.raises(EngineError, match="true or false"):
        trusts(said)
    assert trusts(True) and not trusts(False) and not trusts(None)


def test_a_back_end_takes_no_text_for_yes(llama: dict[str, Path]) -> None:
    from lm_eval_iberian.models.hf import MergedHF

    with pytest.raises(EngineError, match="trust_remote_code"):
        MergedHF(pretrained=str(llama["base"]), trust_remote_code="no")  # type: ignore[arg-type]
