"""Whatever stands in a file that others wrote: it is read, or refused in words. A traceback is a failure.

IBERIAN_FUZZ=10000 tries more examples than `make test` does.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lm_eval_iberian.runs.run import read_sweep_run
from lm_eval_iberian.runs.store import FILE
from lm_eval_iberian.scores.formats import FORMATS, write
from lm_eval_iberian.scores.tables import report_files
from lm_eval_iberian.sweep.spec import check_sweep, read_sweep
from merge_hooks.errors import ForPeople, SourceError
from merge_hooks.recipe.recipe import Recipe
from merge_hooks.sources.checkpoint import Source
from merge_hooks.sources.facts import facts_of
from merge_hooks.sources.headers import read_header
from tests.lm_eval_iberian.results_maker import results
from tests.lm_eval_iberian.sweep_maker import toy_run

EXAMPLES = int(os.environ.get("IBERIAN_FUZZ", "25"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, derandomize="IBERIAN_FUZZ" not in os.environ,
                suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        [
            "$weight",
            "yes",
            "no",
            "..",
            "/etc/passwd",
            "\x1b[2J",
            "=1",
            "a/b",
            "float32",
            "linear",
            "1e400",
            "-1",
            "{",
            "!!int x",
        ]
    )
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def changed(draw: Any, value: Any) -> Any:
    """A document that is right but for one place, which holds anything."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        return {**value, key: changed(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], changed(draw, value[place]), *value[place + 1 :]]
    return draw(ANYTHING)


@st.composite
def near(draw: Any, document: Any) -> Any:
    return changed(draw, document)


RECIPE = {
    "merge_method": "dare_ties", "base_model": "a/base", "dtype": "float32", "parameters": {"normalize": True},
    "models": [{"model": "a/one+a/lora", "parameters": {"weight": 0.5, "density": [0.1, 0.9]}},
               {"model": "a/two", "parameters": {"weight": [{"filter": "mlp", "value": 1}, {"value": 0.2}]}}],
    "tokenizer": {"source": "union", "tokens": {"x": {"source": "a/one"}}}, "chat_template": "auto",
    "slices": [{"sources": [{"model": "a/one", "layer_range": [0, 2]}]}],
}  # fmt: skip
SWEEP = {
    "tasks": ["a", "b"], "model_args": {"backend": "hf", "dtype": "float32"}, "recipe": {"merge_method": "linear", "models": [{"model": "$m"}]},
    "axes": {"m": {"x": "a/b"}, "w": [1, 2]}, "parameters": {"p": 1}, "exclude": [{"w": 1}], "runs": [{"tasks": "a", "seeds": [1]}],
    "limit": 10, "recipes": {"one": {"pretrained": "a/b"}}, "baselines": {"two": "a/c"}, "parents": True, "merge_seed": 0,
    "rng": "iberian", "output_path": "runs/x", "gen_kwargs": {"do_sample": False}, "points": [{"m": "x", "w": 1}],
}  # fmt: skip


@pytest.mark.slow
@fuzz
@given(near(RECIPE))
def test_recipes(document: Any) -> None:
    from merge_hooks.planning.config import parse_config

    try:
        read = Recipe(yaml.safe_dump(document), "fuzz")
        _ = read.findings
        parse_config(read.data, "fuzz")
    except ForPeople as error:
        assert str(error)


@fuzz
@given(st.text("-:[]{}&*!%#|>\"' \n\tab01,?@`$\x00\x1b\u202e", max_size=60))
def test_texts_of_recipes(text: str) -> None:
    try:
        _ = Recipe(text, "fuzz").findings
    except ForPeople as error:
        assert str(error)


@fuzz
@given(near(SWEEP))
def test_sweeps(document: Any) -> None:
    if not isinstance(document, dict):
        return
    try:
        sweep = check_sweep(document, "fuzz")
        assert all(point.evaluations for point in sweep.points)
    except ForPeople as error:
        assert str(error)


@fuzz
@given(st.text("-:[]{}&*!%#|>\"' \n\tab01,?@`$\x00\x1b\u202e", max_size=60))
def test_texts_of_sweeps(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.yml").write_text(text, encoding="utf-8")
    with pytest.raises(ForPeople):
        read_sweep(tmp_path / "sweep.yml")


@pytest.fixture(scope="module")
def model(llama: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    shutil.copytree(llama["base"], folder)
    return folder


@pytest.mark.slow
@fuzz
@given(st.data())
def test_configurations(llama: dict[str, Path], model: Path, data: Any) -> None:
    """config.json, generation_config.json and tokenizer_config.json, with anything in one place."""
    from lm_eval_iberian.models.merge import prepare

    file = data.draw(st.sampled_from(["config.json", "generation_config.json", "tokenizer_config.json"]))
    said = json.loads((llama["base"] / file).read_text())
    (model / file).write_text(json.dumps(data.draw(near(said))), encoding="utf-8")
    try:
        prepare(None, str(model), dtype="float32")
    except ForPeople as error:
        assert str(error)
    finally:
        shutil.copyfile(llama["base"] / file, model / file)


@fuzz
@given(st.data())
def test_headers(llama: dict[str, Path], tmp_path: Path, data: Any) -> None:
    """A safetensors file with anything in one place of its header, or with bytes of anybody's at its beginning."""
    whole = (llama["base"] / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.dumps(data.draw(near(json.loads(whole[8 : 8 + length])))).encode("utf-8", "surrogatepass")
    path = tmp_path / "model.safetensors"
    path.write_bytes(data.draw(st.sampled_from([
        struct.pack("<Q", len(header)) + header + whole[8 + length :], data.draw(st.binary(max_size=64)), whole[:-1], whole + b"x",
        struct.pack("<Q", data.draw(st.integers(0, 2**64 - 1))) + whole[8:],
    ])))  # fmt: skip
    try:
        entries = read_header(path, "fuzz")
        assert all(isinstance(size, int) and size >= 0 for one in entries.values() for size in one.shape)
    except SourceError as error:
        assert str(error)


@pytest.mark.slow
@fuzz
@given(st.data())
def test_results(tmp_path: Path, data: Any) -> None:
    """A results file of lm_eval with anything in one place, in every format."""
    made = results({"iberian_eus_trivia": {"acc": 0.5, "acc_stderr": 0.1}, "iberian_flores_es-eu": {"bleu": 12.0}}, 10)
    path = tmp_path / "results_1.json"
    path.write_text(json.dumps(data.draw(near(json.loads(json.dumps(made)))), ensure_ascii=True), encoding="utf-8")
    try:
        report = report_files([path])
        for form in FORMATS:
            assert write(report, form)
    except ForPeople as error:
        assert str(error)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = toy_run(tmp_path_factory.mktemp("run") / "run")
    with sqlite3.connect(folder / FILE) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder


@fuzz
@given(st.data())
def test_stores_and_plans(run: Path, tmp_path: Path, data: Any) -> None:
    """A store with bytes of anybody's in it; a plan with anything in one place."""
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    held, plan = bytearray((run / FILE).read_bytes()), json.loads((run / "plan.json").read_text())
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(held) - 1))
        junk = data.draw(st.binary(min_size=1, max_size=300))
        held[place : place + len(junk)] = junk
    else:
        plan = data.draw(near(plan))
    (folder / FILE).write_bytes(held)
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    try:
        for point in read_sweep_run(folder).points:
            for task in point.tasks:
                _ = (
                    point.documents(task),
                    point.answers(task),
                    point.hashes(task),
                    point.text(task, 0),
                    point.scores(task),
                )
            _ = point.failures, point.flags
    except ForPeople as error:
        assert str(error)


def test_facts_of_a_damaged_model_are_an_error_of_ours(model: Path) -> None:
    """The net below all of these: see `merge_hooks.errors.explained`."""
    assert facts_of(Source("fuzz", model)).row["layers"] == "4"
