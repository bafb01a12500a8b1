"""The short form and the presets: the recipe they mean, what they leave to the engine, and that values are data."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from merge_hooks.errors import RecipeError
from merge_hooks.recipe.presets import names
from merge_hooks.recipe.short_form import find, take_recipe

# (short form, the recipe it means)
FORMS = [
    (
        "method=task_arithmetic,base=B,models=A:1.0;C:0.7",
        {"merge_method": "task_arithmetic", "base_model": "B",
         "models": [{"model": "A", "parameters": {"weight": 1.0}}, {"model": "C", "parameters": {"weight": 0.7}}]},
    ),
    (
        "method=slerp,base=o/A,models=o/A;o/B@rev,t=0.3,dtype=bfloat16",
        {"merge_method": "slerp", "base_model": "o/A", "dtype": "bfloat16",
         "models": [{"model": "o/A"}, {"model": "o/B@rev"}], "parameters": {"t": 0.3}},
    ),
    (
        "method=della,base=B,models=A;C,weight=0.5,density=0.6,epsilon=0.1,lambda=1.1,normalize=false",
        {"merge_method": "della", "base_model": "B", "models": [{"model": "A"}, {"model": "C"}],
         "parameters": {"weight": 0.5, "density": 0.6, "epsilon": 0.1, "lambda": 1.1, "normalize": False}},
    ),
    (
        "method=breadcrumbs,base=B,models=B+lora:1,gamma=0.02,density=0.9,out_dtype=float16,tokenizer_source=base",
        {"merge_method": "breadcrumbs", "base_model": "B", "out_dtype": "float16", "tokenizer_source": "base",
         "models": [{"model": "B+lora", "parameters": {"weight": 1}}], "parameters": {"gamma": 0.02, "density": 0.9}},
    ),
    (
        "method=linear,models=C:/a:0.5;b:c:1,dtype=auto",  # what stands behind the last colon is the weight
        {"merge_method": "linear", "models": [{"model": "C:/a", "parameters": {"weight": 0.5}},
                                              {"model": "b:c", "parameters": {"weight": 1}}]},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "meant"), FORMS)
def test_the_short_form_means_this_recipe(text: str, meant: dict) -> None:
    assert find(text).data == meant


def test_what_is_the_engines_stays() -> None:
    arguments = {
        "method": "linear",
        "models": "A:1.0;B:0.5",
        "normalize": False,
        "tensor_parallel_size": 2,
        "seed": 7,
    }
    recipe = take_recipe(None, arguments, dtype="bfloat16")
    assert recipe is not None
    assert recipe.data["dtype"] == "bfloat16"
    assert recipe.data["parameters"] == {"normalize": False}
    assert arguments == {"tensor_parallel_size": 2, "seed": 7}


REFUSED = [
    ("method=lineer,models=A:1", "Did you mean linear"),
    ("method=linear", "wants models="),
    ("method=linear,models=A:1.0;B", "B has no weight"),
    ("method=linear,models=A:1.0,densty=0.5", "densty"),
    ("method=ties,base=B,models=A:1.0,densty=0.5", "Did you mean density"),
    ("method=linear,models=A:1.0,models=B:1.0", "given twice"),
    ("method=linear,A:1.0", "write key=value"),
    ("preset:merge_and_conquer/liner,a=1", "no such preset"),
    ("preset:merge_and_conquer/linear,instruct=A", "give language="),
    ("preset:merge_and_conquer/linear,instruct=A,language=B,weight=much", "this is a number"),
    ("preset:merge_and_conquer/linear,instruct=A,language=B,wieght=1", "wieght"),
    ("preset:../../x,instruct=A", "no such preset"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_mistakes_are_said(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        find(text)


def test_recipe_and_method_exclude_each_other() -> None:
    with pytest.raises(RecipeError, match="not both"):
        take_recipe("merge.yml", {"method": "linear", "models": "A:1"})


def test_parts_of_the_short_form_without_method_are_refused() -> None:
    with pytest.raises(RecipeError, match="begins with method="):
        take_recipe("merge.yml", {"models": "A:1"})


MODELS = {
    "base": "B",
    "instruct": "I",
    "language": "L",
    "catalan": "C",
    "spanish": "S",
    "basque": "E",
    "galician": "G",
}
# The table "how the authors ran it" in the paper's scripts: method, base, weights, parameters.
PAPER = {
    "breadcrumbs": ("breadcrumbs", "B", [1.0, 1.0], {"density": 0.9, "gamma": 0.01}),
    "dare": ("dare_ties", "B", [1.0, 1.0], {}),
    "dare_as_run": ("dare_ties", "B", [1.0, 1.0], {}),
    "linear": ("linear", None, [1.0, 1.0], {"normalize": True}),
    "linear_multi": ("linear", None, [1.0, 0.25, 0.25, 0.25, 0.25], {"normalize": True}),
    "nearswap": ("nearswap", "I", [None, None], {"t": 0.5}),
    "task_arithmetic": ("task_arithmetic", "B", [1.0, 1.0], {}),
}


def _preset(name: str, **values: str) -> dict:
    import merge_hooks.recipe.presets as presets

    parameters = presets.read_preset(f"merge_and_conquer/{name}")["parameters"]
    arguments = {key: MODELS[key] for key in parameters if key in MODELS} | values
    return presets.fill(f"merge_and_conquer/{name}", arguments).data


@pytest.mark.parametrize("name", PAPER)
def test_presets_are_the_papers_recipes(name: str) -> None:
    method, base, weights, parameters = PAPER[name]
    data = _preset(name)
    assert data["merge_method"] == method
    assert data.get("base_model") == base
    assert [model.get("parameters", {}).get("weight") for model in data["models"]] == weights
    assert data.get("parameters", {}) == parameters
    assert data["dtype"] == "bfloat16"
    densities = {"dare": 0.5, "dare_as_run": 1.0}
    if name in densities:
        assert {model["parameters"]["density"] for model in data["models"]} == {densities[name]}


def test_every_preset_is_listed_and_only_dare_as_run_has_a_finding() -> None:
    from merge_hooks.recipe.presets import fill, read_preset

    ours = [f"merge_and_conquer/{name}" for name in sorted(PAPER)]
    scaled = ["language_scaling/upscale_and_merge", "language_scaling/upscaled"]
    swapped = ["layer_swapping/layers"]
    assert names() == scaled + [f"language_specific/{name}" for name in SECOND_PAPER] + swapped + ours
    assert fill(swapped[0], {"instruct": "org/instruct", "language": "org/basque"}).findings == []
    for name in ours:
        arguments = {key: MODELS[key] for key in read_preset(name)["parameters"] if key in MODELS}
        findings = fill(name, arguments).findings
        if name.endswith("dare_as_run"):
            assert findings and all("prunes nothing" in finding.message for finding in findings)
        else:
            assert findings == []


SECOND_PAPER = ("dare_ties", "knots_dare_ties", "knots_ties", "ties")
ADAPTERS = {language: f"org/{language}" for language in ("english", "german", "french", "japanese", "chinese")}


@pytest.mark.parametrize("name", SECOND_PAPER)
@pytest.mark.parametrize("density", [None, 0.5])
def test_presets_are_the_second_papers_recipes(name: str, density: float | None) -> None:
    """Five adapters over one instruct model, weights 1, density 1 or 0.5."""
    from merge_hooks.recipe.presets import fill

    arguments: dict[str, object] = {"instruct": "org/instruct", **ADAPTERS} | ({"density": density} if density else {})
    made = fill(f"language_specific/{name}", arguments)
    parameters = {"weight": 1.0, "density": density or 1.0}
    adapters = [
        {"model": {"model": "org/instruct", "lora": one}, "parameters": parameters} for one in ADAPTERS.values()
    ]
    assert made.data == {
        "merge_method": name, "base_model": "org/instruct", "models": adapters, "dtype": "bfloat16"
    }  # fmt: skip
    said = [finding.message for finding in made.findings]
    assert len(said) == (0 if density else 5)
    assert all("prunes nothing of org/instruct+org/" in message for message in said)


@pytest.mark.slow
@given(st.text(min_size=1, max_size=40))
def test_a_parameter_is_data_whatever_is_in_it(text: str) -> None:
    """What is passed for a model comes back as that model, and no other key of the recipe changes."""
    data = _preset("linear", language=text)
    assert data["models"][1]["model"] == text
    assert data.keys() == {"merge_method", "models", "parameters", "dtype"}


def test_a_parameter_with_yaml_in_it_stays_one_name() -> None:
    hostile = "x\nmerge_method: passthrough\n!!python/object/apply:os.system [true]"
    recipe = find_text = _preset("linear", language=hostile)
    assert recipe["merge_method"] == "linear"
    assert find_text["models"][1]["model"] == hostile
    assert yaml.safe_load(yaml.safe_dump(recipe)) == recipe
