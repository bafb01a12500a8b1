"""Whatever is put into a recipe, a person gets tensors or a message: never a traceback, never an endless count."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from merge_hooks.checks.preflight import check_fit, fit_notes
from merge_hooks.errors import MergeHooksError
from merge_hooks.recipe.recipe import read_recipe
from merge_hooks.resolve.resolver import resolve
from merge_hooks.stream.stream import open_stream
from merge_hooks.stream.tokenizer import choose_tokenizer

# BASE and OTHER stand for checkpoints that are there.
RECIPES: list[dict[str, Any]] = [
    {"merge_method": "linear", "dtype": "bfloat16", "models": [
        {"model": "OTHER", "parameters": {"weight": 1.0}},
        {"model": "BASE", "parameters": {"weight": [{"filter": "mlp", "value": 0.3}, {"value": [0, 1]}]}}]},
    {"merge_method": "ties", "base_model": "BASE", "tokenizer_source": "union", "chat_template": "chatml",
     "models": [{"model": "OTHER", "parameters": {"weight": 1.0, "density": 0.5}}], "parameters": {"normalize": True}},
    {"merge_method": "passthrough", "out_dtype": "float16", "slices": [
        {"sources": [{"model": "OTHER", "layer_range": [0, 3]}]},
        {"sources": [{"model": "BASE", "layer_range": [1, 4], "parameters": {"scale": 0.5}}]}]},
    {"merge_method": "slerp", "base_model": "BASE", "models": [{"model": "OTHER"}, {"model": "BASE"}],
     "parameters": {"t": [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"value": 0.5}]},
     "tokenizer": {"source": "base", "tokens": {"<|end|>": {"source": "OTHER", "force": True}}}},
]  # fmt: skip
JUNK = [None, True, 0, -1, 1.5, float("nan"), float("inf"), 10**30, "", "x", "base", "union", "linear", "BASE", "BASE+OTHER",
        "a@b@c", "a+b+c", "o/n", "~", "\x00", [], {}, [1], [3, 1], [0, 9], [[0, 1]], {"a": 1}, {"value": 1}]  # fmt: skip


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from _places(value, (*path, key))


def _with_models(node: Any, family: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _with_models(value, family) for key, value in node.items()}
    if isinstance(node, list):
        return [_with_models(item, family) for item in node]
    return node.replace("BASE", family["base"]).replace("OTHER", family["basque"]) if isinstance(node, str) else node


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A good recipe with one value in it replaced by junk."""
    recipe = copy.deepcopy(draw(st.sampled_from(RECIPES)))
    *before, last = draw(st.sampled_from(list(_places(recipe))))
    node = recipe
    for key in before:
        node = node[key]
    node[last] = copy.deepcopy(draw(st.sampled_from(JUNK)))
    return recipe


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipe=mutated())
@example(recipe={**RECIPES[0], "tokenizer_source": "BASE+OTHER"})  # no adapter, and read for its tokenizer alone
def test_a_mutated_recipe_gives_tensors_or_a_message(recipe: dict[str, Any], llama: dict[str, str]) -> None:
    try:
        stream = open_stream(resolve(read_recipe(_with_models(recipe, llama))))
        check_fit(stream)
        fit_notes(stream)
        choose_tokenizer(stream)
        assert next(iter(stream))[0] == "model.embed_tokens.weight"
    except MergeHooksError as error:
        assert len(str(error)) > 20
