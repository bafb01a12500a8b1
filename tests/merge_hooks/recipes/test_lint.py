"""Lint: each rule on a recipe that breaks it, with the line, and silence on mergekit's documented forms."""

from __future__ import annotations

import pytest

from merge_hooks.checks.filters import plan_findings
from merge_hooks.errors import RecipeError
from merge_hooks.recipe.recipe import find_recipe, read_recipe
from merge_hooks.resolve.resolver import resolve
from merge_hooks.stream.stream import open_stream

LINEAR = """\
merge_method: linear
models:
  - model: a
    parameters: {weight: 1.0}
  - model: b
    parameters: {weight: 0.5}
"""
TIES = """\
merge_method: ties
base_model: base
models:
  - model: a
    parameters: {weight: 1.0, density: 0.5}
  - model: b
    parameters: {weight: 1.0, density: 0.5}
parameters: {normalize: true}
"""

# (name, recipe, is it an error, words that must be in the one finding)
RULES = [
    ("normalize", LINEAR, False, ("line 2", "0.6667, 0.3333", "normalize: false")),
    ("normalize of ties", TIES.replace("parameters: {normalize: true}\n", "").replace("1.0", "0.7"), False, ("line 3", "agree in sign")),
    ("weights that cancel", LINEAR.replace("0.5", "-1.0"), False, ("line 2", "which is 0")),
    ("density above", TIES.replace("normalize: true", "normalize: true, density: 1.0").replace(", density: 0.5", "", 1),
     False, ("line 4", "`density` is 1", "prunes nothing of a")),
    ("no density", TIES.replace(", density: 0.5", "", 1), False, ("line 4", "not given", "prunes nothing of a")),
    ("density 1", TIES.replace("density: 0.5", "density: 1.0", 1), False, ("line 5", "prunes nothing of a")),
    ("top-level density", TIES.replace("parameters: {normalize", "density: 0.5\nparameters: {normalize"), True,
     ("line 8", "`density`", "Move it there")),
    ("base listed", TIES.replace("models:\n", "models:\n  - model: base\n"), False, ("line 4", "adds nothing")),
    ("weight on the base", TIES.replace("models:\n", "models:\n  - model: base\n    parameters: {weight: 0.3}\n"), False,
     ("line 5", "`weight` on the base model is not read")),
    ("base of linear", LINEAR.replace("models:", "base_model: c\nmodels:") + "parameters: {normalize: true}\n", False,
     ("line 2", "one more input")),
    ("density in percent", TIES.replace("density: 0.5", "density: 60", 1), True, ("line 5", "`density` is 60", "60 % is 0.6")),
    ("density 1.6", TIES.replace("density: 0.5", "density: 1.6", 1), True, ("line 5", "`density` is 1.6", "0 to 1")),
    ("negative density", TIES.replace("density: 0.5", "density: -1", 1), True, ("line 5", "`density` is -1", "0 to 1")),
    ("density for all", TIES.replace("normalize: true", "normalize: true, density: [0.5, 7]"), True,
     ("line 8", "`density` is 7", "7 % is 0.07")),
    ("density by filter", TIES.replace("density: 0.5", "density: [{filter: mlp, value: [0.5, -2]}, {value: 1}]", 1), True,
     ("line 5", "`density` is -2")),
    ("decimal comma", TIES.replace("weight: 1.0", "weight: '0,7'", 1), True, ("line 5", "`weight` is '0,7'", "a point: 0.7")),
    ("no number", TIES.replace("weight: 1.0", "weight: [1, much]", 1), True, ("line 5", "`weight` is 'much'", "wanted.")),
    ("no base", TIES.replace("base_model: base\n", ""), True, ("`ties` needs `base_model:`", "fine-tuned from")),
    ("shared under a model", TIES.replace("density: 0.5}", "density: 0.5, lambda: 2}", 1), True, ("line 5", "whole merge")),
    ("unknown parameter", TIES.replace("normalize: true", "normalize: true, gamma: 0.1"), True, ("line 8", "no parameter `gamma`")),
    ("idle density", TIES.replace("ties", "task_arithmetic").replace(", density: 0.5", "", 1), False,
     ("line 7", "prunes nothing")),
    ("unreached filter", LINEAR.replace("{weight: 0.5}", "{weight: [{value: 1}, {filter: mlp, value: 0}]}"), False,
     ("line 6", "never read")),
    ("no catch-all", LINEAR.replace("{weight: 0.5}", "{weight: [{filter: mlp, value: 0}]}"), False,
     ("line 6", "without a `filter:`")),
    ("residual", "merge_method: passthrough\nslices:\n  - sources: [{model: a, layer_range: [0, 2]}]\n    residual_weight: 0.5\n",
     False, ("line 4", "does nothing")),
    ("typo", LINEAR.replace("models", "model"), True, ("line 2", "Did you mean `models`?")),
    ("method", LINEAR.replace("linear", "liner"), True, ("line 1", "Did you mean `linear`?")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "is_error", "words"), [rule[1:] for rule in RULES], ids=[rule[0] for rule in RULES])
def test_each_rule_is_found_once_with_its_line(text: str, is_error: bool, words: tuple[str, ...]) -> None:
    findings = find_recipe(text).findings
    assert len(findings) == 1, findings
    assert findings[0].is_error is is_error
    for word in words:
        assert word in findings[0].message


# The forms of mergekit's README and examples, as their authors write them.
DOCUMENTED = {
    "the usual weights": LINEAR.replace("0.5", "1.0"),
    "a mean": LINEAR.replace("0.5", "0.25").replace("1.0", "0.75"),
    "gradients": """\
merge_method: ties
base_model: base
models:
  - model: a
    parameters: {density: [1, 0.7, 0.1], weight: 1.0}
  - model: b
    parameters: {density: 0.33, weight: [{filter: mlp, value: 0.5}, {value: 0}]}
parameters: {normalize: true, int8_mask: true}
dtype: float16
""",
    "slerp": """\
slices:
  - sources:
      - {model: a, layer_range: [0, 32]}
      - {model: b, layer_range: [0, 32]}
merge_method: slerp
base_model: a
parameters:
  t: [{filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}, {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}, {value: 0.5}]
dtype: bfloat16
""",
    "frankenmerge": """\
dtype: float16
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 24]}]
  - sources:
      - model: b
        layer_range: [8, 32]
        parameters: {scale: [{filter: q_proj, value: 0.9}, {value: 1.0}]}
""",
    "modules": """\
merge_method: linear
modules:
  text_decoder:
    models: [{model: a, parameters: {weight: 0.5}}, {model: b, parameters: {weight: 0.5}}]
""",
    "tokenizer": """\
merge_method: linear
models: [{model: a, parameters: {weight: 0.5}}, {model: b, parameters: {weight: 0.5}}]
tokenizer:
  source: union
  tokens:
    <|im_start|>: {source: a, force: true}
    <|new|>: {source: {kind: model_token, model: b, token: <|old|>}}
  pad_to_multiple_of: 64
chat_template: chatml
""",
    "out dtype": """\
merge_method: model_stock
base_model: base
models: [{model: a}, {model: b}]
parameters: {filter_wise: false}
dtype: float32
out_dtype: bfloat16
tokenizer_source: base
""",
    "lambda": """\
merge_method: task_arithmetic
base_model: base
models: [{model: a+lora, parameters: {weight: 1.0}}, {model: b@main, parameters: {weight: 0.5}}]
parameters: {lambda: 0.7}
""",
    "stages": """\
name: first
merge_method: linear
models: [{model: a, parameters: {weight: 0.5}}, {model: b, parameters: {weight: 0.5}}]
---
merge_method: slerp
base_model: first
models: [{model: first}, {model: c}]
parameters: {t: 0.5}
""",
}


@pytest.mark.parametrize("text", DOCUMENTED.values(), ids=DOCUMENTED)
def test_documented_forms_are_taken_without_a_word(text: str) -> None:
    assert read_recipe(text).findings == []


BAD = {
    "endless layers": (
        "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, 1000000000000]}]}]\n",
        "line 2: `layer_range` is",
    ),
    "layers backwards": (
        "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [4, 2]}]}]\n",
        "`layer_range` is",
    ),
    "endless padding": (
        LINEAR + "tokenizer: {source: base, pad_to_multiple_of: 1000000000000}\n",
        "`pad_to_multiple_of` is",
    ),
    "dtype of integers": (LINEAR + "dtype: int64\n", "line 7: `dtype: int64` is no dtype of weights"),
    "empty": ("\n", "empty"),
    "not YAML": ("a: [1\nmerge_method: x", "not valid YAML"),
    "a list": ("- 1\n- 2\n", "not a list"),
    "repeated key": ("merge_method: linear\nmerge_method: ties\n", "line 2"),
    "list as key": ("? [1, 2]\n: x\nmerge_method: linear\n", "a key of a recipe is a word"),
    "circle": ("a: &a [*a]\nmerge_method: linear\n", "too large"),
    "code": ("merge_method: !!python/object/apply:os.system [true]\n", "not valid YAML"),
    "deep": ("merge_method: " + "[" * 5000 + "\n", "recipe"),
    "date": ("merge_method: 2024-99-99\n", "not valid YAML"),
    "binary": ("merge_method: linear\n\x00", "not valid YAML"),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD)
def test_what_is_no_recipe_is_refused(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        read_recipe(text)


def test_aliases_that_unfold_to_millions_are_refused() -> None:
    levels = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 9))
    with pytest.raises(RecipeError, match="too large"):
        read_recipe(f"merge_method: linear\nl0: &l0 [1]\n{levels}\n")


@pytest.mark.parametrize("dtype", ["float8", "fp16", "int8", "bf16"])
def test_a_dtype_that_there_is_not(dtype: str) -> None:
    (found,) = find_recipe(LINEAR.replace("0.5", "1.0") + f"dtype: {dtype}\n").findings
    assert found.is_error and f"`dtype: {dtype}` is no dtype of weights" in found.message


@pytest.mark.parametrize(("layers", "good"), [("[0, 1]", True), ("[2, 2]", False), ("[3, 2]", False), ("[0]", False), ("[0, 1.5]", False),
                                               ("[-1, 2]", False), ("[true, 2]", False), ("4", False)])  # fmt: skip
def test_layers_from_the_first_to_before_the_end(layers: str, good: bool) -> None:
    text = f"merge_method: passthrough\nslices:\n  - sources: [{{model: a, layer_range: {layers}}}]\n"
    assert [finding.is_error for finding in find_recipe(text).findings] == ([] if good else [True])


SLICED = """\
merge_method: linear
slices:
  - sources: [{model: a, layer_range: [0, 2], parameters: {weight: 0.7}}, {model: b, layer_range: [0, 2]}]
    parameters: {weight: 0.1}
parameters: {weight: 0.3}
"""


def test_a_slices_own_parameters_come_before_the_recipes() -> None:
    """As mergekit looks them up: 0.7 and the slice's 0.1, not the recipe's 0.3, which would sum to 1 and pass."""
    (found,) = find_recipe(SLICED).findings
    assert "0.7, 0.1 are applied as 0.875, 0.125" in found.message and "line 3" in found.message
    (found,) = find_recipe(
        SLICED.replace("    parameters: {weight: 0.1}\n", "    parameters: {weight: 0.4}\n")
    ).findings
    assert "0.7, 0.4" in found.message


def test_a_filter_is_a_part_of_a_name(llama: dict[str, str]) -> None:
    """Of a tensor that comes out or goes in; a pattern is none, and is told with its line."""
    weight = "[{filter: self_attn, value: 1}, {filter: 'layers.*.mlp', value: 2}, {filter: up_proj.weight, value: 3}, {filter: '*', value: 1}]"  # fmt: skip
    text = f"merge_method: linear\nmodels:\n  - model: {llama['base']}\n    parameters: {{weight: {weight}}}\n"
    (found,) = plan_findings(open_stream(resolve(find_recipe(text))))
    assert "`filter: layers.*.mlp` is in the name of no tensor" in found.message and "line 4" in found.message
    assert not found.is_error
