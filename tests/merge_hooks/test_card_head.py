"""The metadata of an exported merge's card: what the Hub takes, and nothing that nobody said."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from merge_hooks.sources.checkpoint import Source
from merge_hooks.tools.card_head import card_head

CAUSAL = {"architectures": ["LlamaForCausalLM"]}


def source(folder: Path, card: str | None = None) -> Source:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CAUSAL))
    if card is not None:
        (folder / "README.md").write_text(card)
    return Source(str(folder), folder)


def cached(root: Path, owner: str, name: str, card: str | None = None) -> Source:
    """As the Hub's cache keeps a model."""
    return source(root / f"models--{owner}--{name}" / "snapshots" / "abc", card)


def head(*sources: Any, config: Any = CAUSAL) -> dict[str, Any]:
    resolved: Any = SimpleNamespace(sources={str(number): one for number, one in enumerate(sources)})
    return yaml.safe_load(card_head(resolved, config))


def test_base_models_are_the_hubs_and_no_local_path(tmp_path: Path) -> None:
    hub, local = cached(tmp_path, "HiTZ", "Latxa--8B"), source(tmp_path / "mine")
    assert head(hub, local)["base_model"] == ["HiTZ/Latxa--8B"]
    assert "base_model" not in head(local)


def test_adapters_and_stages_are_named_by_what_is_in_them(tmp_path: Path) -> None:
    base, other = cached(tmp_path, "a", "base"), cached(tmp_path, "a", "other")
    adapter = tmp_path / "models--b--lora" / "snapshots" / "abc"
    lora = SimpleNamespace(name="a/base+b/lora", folder=base.folder, base=base, adapter=adapter)
    stage = SimpleNamespace(folder=tmp_path, resolved=SimpleNamespace(sources={"": other}))
    assert head(lora, stage, base)["base_model"] == ["a/base", "b/lora", "a/other"]


def test_tags_library_and_pipeline(tmp_path: Path) -> None:
    found = head(source(tmp_path / "mine"))
    assert found == {"library_name": "transformers", "tags": ["mergekit", "merge"], "pipeline_tag": "text-generation"}
    seeing = {"architectures": ["Gemma3ForConditionalGeneration"], "vision_config": {"x": 1}}
    assert head(source(tmp_path / "b"), config=seeing)["pipeline_tag"] == "image-text-to-text"
    assert "pipeline_tag" not in head(source(tmp_path / "c"), config={"architectures": ["T5ForConditionalGeneration"]})


def test_languages_are_those_of_the_sources_cards(tmp_path: Path) -> None:
    first = source(tmp_path / "a", "---\nlanguage: [eu, 'no']\n---\ntext\n---\nlanguage: xx\n---\n")
    second = source(tmp_path / "b", "---\nlanguage: en\n---\n")
    assert head(first, second)["language"] == ["en", "eu", "no"]


@pytest.mark.parametrize(
    ("cards", "licence"),
    [
        (["apache-2.0", "apache-2.0"], "apache-2.0"),
        (["apache-2.0", "mit"], None),
        (["apache-2.0", None], None),
        (["other", "other"], None),
        (["other", "mit"], None),
    ],
)
def test_a_licence_is_given_only_where_all_sources_have_it(
    cards: list[str | None], licence: str | None, tmp_path: Path
) -> None:
    made = [
        source(tmp_path / str(n), f"---\nlicense: {it}\n---\n" if it else "# a model") for n, it in enumerate(cards)
    ]
    assert head(*made).get("license") == licence


@pytest.mark.parametrize(
    "card", ["---\n[\n---\n", "---\n- 1\n---\n", "---\nlanguage: {a: 1}\nlicense: [x]\n---\n", "\x00"]
)
def test_a_damaged_card_stops_no_export(card: str, tmp_path: Path) -> None:
    assert not {"language", "license"} & set(head(source(tmp_path / "a", card)))
