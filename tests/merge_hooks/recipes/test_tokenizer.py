"""The hash of a tokenizer: whatever turns text into other ids, or ids into other text, gives another one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.resolve.resolver import resolve
from merge_hooks.stream.stream import open_stream
from merge_hooks.stream.tokenizer import end_tokens, facts_of, generation_settings, tokenizer_hash, tokenizer_owner
from tests.conftest import linear

TEXTS = ["Kaixo, mundua!", "ÁRBOL  y más", "<|start|> a <|end|>b", "it ' s n't . ok"]


@pytest.fixture
def folder(llama: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama["base"], tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors")))


def changed(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    path = folder / name
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def added(**flags: Any) -> Callable[[Any], Any]:
    def change(content: Any) -> Any:
        *rest, last = content["added_tokens"]
        return content | {"added_tokens": [*rest, last | flags]}

    return change


CHANGES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "normaliser": ("tokenizer.json", lambda c: c | {"normalizer": {"type": "NFD"}}),
    "pre-tokeniser": (
        "tokenizer.json",
        lambda c: c | {"pre_tokenizer": c["pre_tokenizer"] | {"add_prefix_space": True}},
    ),
    "BOS rule": ("tokenizer.json", lambda c: c | {"post_processor": None}),
    "decoder": ("tokenizer.json", lambda c: c | {"decoder": {"type": "Fuse"}}),
    "merges": ("tokenizer.json", lambda c: c | {"model": c["model"] | {"merges": c["model"]["merges"][:-1]}}),
    "a flag of an added token": ("tokenizer.json", added(normalized=True)),
    "what an added token is": ("tokenizer.json", added(content="<|other|>")),
    "the end of text": ("tokenizer_config.json", lambda c: c | {"eos_token": "<|end|>"}),
    "cleaning of decoded text": ("tokenizer_config.json", lambda c: c | {"clean_up_tokenization_spaces": True}),
    "the longest text": ("tokenizer_config.json", lambda c: c | {"model_max_length": 77}),
    "the side that is cut": ("tokenizer_config.json", lambda c: c | {"truncation_side": "left"}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_tokenizer_has_another_hash(what: str, folder: Path) -> None:
    before = facts_of(str(folder)).hash
    changed(folder, *CHANGES[what])
    assert facts_of(str(folder)).hash != before


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tokenizer.json", lambda c: c | {"truncation": {"direction": "Right", "max_length": 5, "strategy": "LongestFirst",
                                                         "stride": 0}}),
        ("tokenizer_config.json", lambda c: c | {"padding_side": "left"}),
        ("tokenizer_config.json", lambda c: c | {"chat_template": "{{ messages }}"}),
    ],
)  # fmt: skip
def test_what_callers_say_is_no_part_of_it(name: str, change: Callable[[Any], Any], folder: Path) -> None:
    before = facts_of(str(folder)).hash
    changed(folder, name, change)
    assert facts_of(str(folder)).hash == before


def test_what_engines_do_to_a_tokenizer_is_no_part_of_it(folder: Path) -> None:
    """They set a token to pad with, the side, and cut and pad with it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = tokenizer_hash(tokenizer)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    tokenizer(TEXTS, padding=True, truncation=True, max_length=4)
    assert tokenizer_hash(tokenizer) == before


def test_a_tokenizer_in_python(tmp_path: Path) -> None:
    """Without a tokenizer.json: its vocabulary's bytes and its added tokens."""
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    before = tokenizer_hash(tokenizer)
    assert tokenizer_hash(ByT5Tokenizer()) == before
    tokenizer.add_tokens(["<odd>"])
    assert tokenizer_hash(tokenizer) != before


@pytest.mark.parametrize(
    "setting", ["add_bos_token", "add_eos_token", "add_prefix_space", "legacy", "split_special_tokens"]
)
def test_what_a_tokenizer_in_python_says_of_itself_counts(setting: str) -> None:
    """Beside a tokenizer.json these are in its steps as well; here they are all there is."""
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    before = tokenizer_hash(tokenizer)
    setattr(tokenizer, setting, not getattr(tokenizer, setting, False))
    assert tokenizer_hash(tokenizer) != before


def test_a_class_that_came_with_the_model(tmp_path: Path) -> None:
    """Its source is part of the tokenizer."""
    import importlib.util
    import sys

    source = "from transformers import ByT5Tokenizer\nclass Own(ByT5Tokenizer):\n    shift = {}\n"

    def own(shift: int) -> str:
        file = tmp_path / f"own_{shift}.py"
        file.write_text(source.format(shift))
        spec = importlib.util.spec_from_file_location("tokenization_own", file)
        assert spec is not None and spec.loader is not None
        sys.modules["tokenization_own"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        try:
            return tokenizer_hash(module.Own())
        finally:
            del sys.modules["tokenization_own"]

    assert own(1) == own(1) != own(2)


def test_generation_settings_are_the_files(folder: Path) -> None:
    assert generation_settings(str(folder), None) == {"eos_token_id": [1, 3]}
    changed(folder, "generation_config.json", lambda c: c | {"repetition_penalty": 1.1, "transformers_version": "4"})
    assert generation_settings(str(folder), None) == {"eos_token_id": [1, 3], "repetition_penalty": 1.1}
    # Without the file config.json says it, and of that only what generates.
    (folder / "generation_config.json").unlink()
    changed(folder, "config.json", lambda c: c | {"eos_token_id": 1, "repetition_penalty": 1.2, "hidden_size": 8})
    assert generation_settings(str(folder), None) == {"eos_token_id": 1, "repetition_penalty": 1.2}


def test_the_recipes_template_takes_the_place_of_the_tokenizers(folder: Path) -> None:
    own = facts_of(str(folder))
    other = facts_of(str(folder), "{{ messages }}")
    assert (other.hash, other.template) == (own.hash, "{{ messages }}") and own.template not in (None, other.template)


@pytest.mark.parametrize(
    ("said", "ends"),
    [({}, []), ({"eos_token_id": None}, []), ({"eos_token_id": 0}, [0]), ({"eos_token_id": 3}, [3]), ({"eos_token_id": [3, 1, 3]}, [1, 3])],
)  # fmt: skip
def test_the_tokens_at_which_text_ends(said: dict[str, Any], ends: list[int]) -> None:
    assert end_tokens(said) == ends


def test_whose_tokenizer_is_followed(llama: dict[str, str]) -> None:
    """The recipe's word under either key; else the base model's, else the first model's."""

    def owner(**said: Any) -> Path:
        stream = open_stream(resolve(read_recipe(linear({name: Path(path) for name, path in llama.items()}) | said)))
        return tokenizer_owner(stream)[0].folder

    instruct, basque = (Path(llama[name]).resolve() for name in ("instruct", "basque"))
    assert owner() == owner(tokenizer_source="union") == owner(tokenizer={"source": "union"}) == basque
    assert owner(base_model=str(instruct), tokenizer_source="base") == instruct
    assert owner(tokenizer_source=str(instruct)) == owner(tokenizer={"source": str(instruct)}) == instruct
