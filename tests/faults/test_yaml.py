"""Every YAML that somebody else wrote: what it may not hold is one message, at once, and never a traceback."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click import UsageError

from lm_eval_iberian.benchmarks.files import read as read_manifest
from lm_eval_iberian.commands.sweep import parse_settings
from lm_eval_iberian.documents.revisions import read_pins
from lm_eval_iberian.errors import DocumentsError, ManifestError
from lm_eval_iberian.runs.errors import SweepError
from lm_eval_iberian.sweep.spec import check_sweep, read_sweep
from merge_hooks.errors import RecipeError
from merge_hooks.recipe.recipe import read_recipe

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
# name -> text: of a file that is a mapping otherwise.
EVIL = {
    "a bomb of aliases": BOMB,
    "an alias of itself": "a: &a [*a]\n",
    "a mapping of itself": "a: &a {b: *a}\n",
    # Python's stack ends after 500 levels, and libyaml's at 1,000. PyYAML's time is the square of the brackets.
    "depth": "a: " + "[" * 600 + "]" * 600 + "\n",
    "depth without an end": "a: " + "{b: " * 1500 + "\n",
    "a repeated key": "a: 1\na: 2\n",
    "a key repeated in another way": "1: a\n0x1: b\n",
    "a repeated key below": "a: {b: [{c: 1, c: 2}]}\n",
    "a date that cannot be": "a: 2024-99-99\n",
    "a date": "a: 2024-01-31\n",
    "a time": "a: 2024-01-31T10:00:00Z\n",
    "a number of 10,000 digits": "a: " + "9" * 10_000 + "\n",
    "no number": "a: !!int x\n",
    "no float": "a: !!float x\n",
    "no timestamp": "a: !!timestamp x\n",
    "no bool": "a: !!bool x\n",
    "an empty number": "a: !!int ''\n",
    "bytes": "a: !!binary aGVsbG8=\n",
    "a set": "a: !!set {b, c}\n",
    "pairs": "a: !!omap [b: 1]\n",
    "code": "a: !!python/object/apply:os.system [true]\n",
    "a name of code": "a: !!python/name:os.system\n",
    "a list as a key": "? [1, 2]\n: x\n",
    "a date as a key": "2024-01-31: x\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "no YAML": "a: [1\n",
    "a tab": "a:\n\t- b\n",
    "a control character": "a: \x00\n",
    "half a pair": 'a: "\\ud800"\nb: [\n',
    "a directive": "%YAML 9.9\n---\na: 1\n",
    "an unknown alias": "a: *b\n",
}


def of_manifest(path: Path) -> object:
    return read_manifest(path)


def of_sweep(path: Path) -> object:
    return read_sweep(path)


def of_recipe(path: Path) -> object:
    return read_recipe(path)


def of_pins(path: Path) -> object:
    return read_pins(path)


READERS: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "sweep": (of_sweep, SweepError), "recipe": (of_recipe, RecipeError), "manifest": (of_manifest, ManifestError),
    "pins": (of_pins, DocumentsError),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("evil", EVIL)
def test_what_no_file_may_hold(tmp_path: Path, reader: str, evil: str) -> None:
    read, error = READERS[reader]
    if (reader, evil) == ("pins", "two documents"):
        pytest.skip("refused for what it holds")
    path = tmp_path / f"{evil.replace(' ', '-')}.yml"
    path.write_text(EVIL[evil])
    start = time.perf_counter()
    with pytest.raises(error) as caught:
        read(path)
    assert time.perf_counter() - start < 60  # a bomb takes days; the first recipe imports mergekit
    assert path.name in str(caught.value)


@pytest.mark.parametrize("evil", ["[&a [*a]]", "[!!int x]", "2024-99-99", "[" * 600, "{a: 1, a: 2}", "!!timestamp x"])
def test_values_of_set_have_the_same_guards(evil: str) -> None:
    with pytest.raises(UsageError):
        parse_settings((f"weight={evil}",))


GOOD = {"tasks": ["a"], "recipes": {"one": "x.yml"}}
# key -> values that it cannot have
WRONG = {
    "parents": ["yes", "no", 1, "false", [], {}],
    "limit": [float("nan"), float("inf"), -1, 0, "ten", True, [], 1.5],
    "num_fewshot": [-1, 0.5, "5", True, []],
    "tasks": [{"a": 1}, 5, [None], [["a"]]],
    "model_args": [[], "x", {"enforce_eager": "no"}, {"add_bos_token": "False"}, {"enable_thinking": "yes"}],
    "gen_kwargs": [[], 5, {"do_sample": "no"}],
    "system_instruction": [5, [], True],
    "apply_chat_template": ["yes", 1, "true"], "fewshot_as_multiturn": ["no", 0],
    "include_path": [5, [], "", "a\nb"], "output_path": [5, [], "", "a\nb", "a\x1b[2Jb", "a\u202eb", "a\x00b"],
    "runs": ["x", {}, ["a"], [{"tasks": "a", "seeds": 3}], [{"tasks": "a", "seeds": ["1"]}], [{"tasks": "a", "limit": -1}]],
    "axes": [[], "x"], "points": ["x", ["a"], {}], "exclude": ["x", ["a"]],
    "recipes": [[], "x"], "baselines": [[], "x"], "parameters": [[], "x"],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_key_of_a_sweep_holds_what_it_can(key: str, value: object) -> None:
    with pytest.raises(SweepError, match=key):
        check_sweep({**GOOD, key: value}, "sweep.yml")


@pytest.mark.parametrize("seed", ["one", 1.5, True, [1]])
def test_a_seed_of_a_sweep_is_a_whole_number(seed: object) -> None:
    with pytest.raises(SweepError, match="merge_seed"):
        _ = check_sweep({**GOOD, "merge_seed": seed}, "sweep.yml").points


def test_labels_that_are_one_text_are_refused() -> None:
    recipe = {"merge_method": "linear", "models": [{"model": "a/b", "parameters": {"weight": "$w"}}]}
    with pytest.raises(SweepError, match="comes twice"):
        check_sweep({"tasks": "a", "recipe": recipe, "axes": {"w": {1: 0.5, "1": 0.7}}}, "sweep.yml")
    for key in ("recipes", "baselines"):
        with pytest.raises(SweepError, match="comes twice"):
            check_sweep({**GOOD, key: {1: "a", "1": "b"}}, "sweep.yml")


def test_names_are_still_filled_in() -> None:
    data = {**GOOD, "parameters": {"seed": 3, "chat": True}, "merge_seed": "$seed", "apply_chat_template": "$chat"}
    (point,) = check_sweep(data, "sweep.yml").points
    assert point.merge_seed == 3 and point.chat == (True, None)
